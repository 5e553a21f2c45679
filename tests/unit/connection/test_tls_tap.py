"""TLS over a stream: the handshake, and the two objects that let the probe look into it."""

from __future__ import annotations

import gc
import ssl
import weakref
from contextlib import suppress

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from conpool import TLS
from conpool._connection import tls_tap
from conpool._connection.tls_tap import AlpnMismatch, encrypt, find_tap
from tests.servers import Certificates
from tests.support.loopback_servers import exchange, tcp_pair, tls_pair
from tests.support.pools import echo


async def test_what_comes_out_is_a_tls_stream_like_any_other(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    client, server = await tls_pair(server_ssl, TLS(client_ssl))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, server)
        await exchange(client)
        assert client.version() == "TLSv1.3"
        assert client.getpeercert()
        await client.aclose()
    await server.aclose()


async def test_it_works_without_sockets_too(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    client, server = await tls_pair(server_ssl, TLS(client_ssl), memory_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, server)
        await exchange(client)
        await client.aclose()


async def test_the_tap_has_the_objects_that_the_stream_works_with(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    client, server = await tls_pair(server_ssl, TLS(client_ssl), memory_stream_pair())
    tap = find_tap(client)
    assert tap is not None
    assert tap.ssl_object is client._ssl_object
    assert tap.incoming is client._incoming
    assert find_tap(server) is None
    assert find_tap(server.transport_stream) is None


async def test_the_tap_does_not_keep_the_stream_alive(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    client, _ = await tls_pair(server_ssl, TLS(client_ssl), memory_stream_pair())
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None


# ── what is refused ─────────────────────────────────────────────────────────────


async def fail_to_encrypt(
    server: ssl.SSLContext, tls: TLS, server_hostname: str | None = "localhost"
) -> BaseException:
    """The error of a handshake that must fail; the transport is still open then."""
    client_end, server_end = await tcp_pair()

    async def accept() -> None:
        with suppress(trio.BrokenResourceError):
            await trio.SSLStream(server_end, server, server_side=True).do_handshake()

    async with client_end, server_end, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        with pytest.raises((trio.BrokenResourceError, AlpnMismatch)) as caught:
            await encrypt(client_end, tls, server_hostname)
        assert client_end.socket.fileno() >= 0, "the caller has to close it, and cannot"
        nursery.cancel_scope.cancel()
    return caught.value


async def test_f052_an_unknown_authority_is_refused(server_ssl: ssl.SSLContext) -> None:
    stranger = TLS(ssl.create_default_context())
    error = await fail_to_encrypt(server_ssl, stranger)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def test_f052_another_name_than_the_certificates_is_refused(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    error = await fail_to_encrypt(server_ssl, TLS(client_ssl), "elsewhere.example")
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def test_f064_no_common_protocol_is_refused(
    server_ssl: ssl.SSLContext, certificates: Certificates
) -> None:
    tls = TLS(alpn=["h2", "http/1.1"])
    tls.context.load_verify_locations(certificates.ca_file)
    error = await fail_to_encrypt(server_ssl, tls)
    assert isinstance(error, AlpnMismatch)
    assert str(error) == "the peer chose none of h2, http/1.1"


async def test_f064_a_common_protocol_is_agreed_on(certificates: Certificates) -> None:
    tls = TLS(alpn=["h2", "http/1.1"])
    tls.context.load_verify_locations(certificates.ca_file)
    server = certificates.server_context(alpn=["http/1.1"])
    client, _ = await tls_pair(server, tls, memory_stream_pair())
    tap = find_tap(client)
    assert tap is not None
    assert tap.ssl_object.selected_alpn_protocol() == "http/1.1"


async def test_a_context_of_ones_own_need_not_agree_on_a_protocol(
    server_ssl: ssl.SSLContext, certificates: Certificates
) -> None:
    tls = TLS(certificates.client_context(alpn=["h2"]))
    client, _ = await tls_pair(server_ssl, tls, memory_stream_pair())
    tap = find_tap(client)
    assert tap is not None
    assert tap.ssl_object.selected_alpn_protocol() is None


async def test_a_cancelled_handshake_leaves_the_transport_to_the_caller(
    client_ssl: ssl.SSLContext,
) -> None:
    client_end, server_end = await tcp_pair()
    async with client_end, server_end, trio.open_nursery() as nursery:
        nursery.start_soon(encrypt, client_end, TLS(client_ssl), "localhost")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert client_end.socket.fileno() == -1  # this test closes it, and nobody before


@pytest.mark.parametrize("compatible", [False, True])
async def test_f060_whether_an_end_without_goodbye_is_an_end_is_the_endpoints_choice(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext, compatible: bool
) -> None:
    client, server = await tls_pair(server_ssl, TLS(client_ssl, https_compatible=compatible))
    transport = server.transport_stream
    assert isinstance(transport, trio.SocketStream)
    transport.socket.close()
    if compatible:
        assert await client.receive_some() == b""
    else:
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
    await client.aclose()


async def test_f060_a_context_that_hides_such_an_end_is_not_listened_to_and_left_as_it_was(
    server_ssl: ssl.SSLContext, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Python 3.11.4 every context hides it: an answer that was cut off looks complete."""
    hides = ssl.OP_IGNORE_UNEXPECTED_EOF
    monkeypatch.setattr(tls_tap, "HIDES_TRUNCATION", hides)
    context = certificates.client_context()
    context.options |= hides
    before = context.options
    client, server = await tls_pair(server_ssl, TLS(context))
    transport = server.transport_stream
    assert isinstance(transport, trio.SocketStream)
    transport.socket.close()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    await client.aclose()
    assert context.options == before
