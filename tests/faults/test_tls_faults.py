"""FAULTS D: TLS that cannot be agreed on, or that ends in unusual ways."""

from __future__ import annotations

import datetime as dt
import errno
import gc
import ssl
import weakref
from typing import cast

import pytest
import trio
from trio.abc import Stream

from conpool import TLS, AnyEndpoint, CloseReason, Connection, Endpoint, PoolConfig, TLSError
from conpool._errors.connect import TLSTimeout
from tests.servers import Certificates
from tests.support.clean import Case, clean
from tests.support.faults import LOOPBACK, How, Passage
from tests.support.loopback_servers import exchange, receive_exactly, serving, tls_server
from tests.support.pools import echo

from . import blocks
from .sites import ProxyTo, TCPSite, TLSSite, at


async def fails(case: Case, endpoint: AnyEndpoint) -> TLSError:
    error = await blocks.fails(case, endpoint)
    assert isinstance(error, TLSError)
    assert error.phase == "tls"
    assert case.log.dialled == 1, "this is not tried again"
    assert case.recorder.open == 0
    return error


# ── certificates ────────────────────────────────────────────────────────────────


async def test_f052_an_unknown_authority_is_named(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint) as case:
        error = await fails(case, at(tls_site.port, TLS(ssl.create_default_context())))
        assert "unable to get local issuer certificate" in str(error)
        assert isinstance(error.__cause__, trio.BrokenResourceError)
        assert isinstance(error.__cause__.__cause__, ssl.SSLCertVerificationError)


async def test_f052_a_certificate_that_has_expired(
    certificates: Certificates, client_ssl: ssl.SSLContext, tcp_site: TCPSite
) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    expired = certificates.ca.issue_cert("127.0.0.1", not_after=past)
    async with (
        tls_server(certificates.server_context(expired), TLS(client_ssl)) as server,
        clean(tcp_site.endpoint) as case,
    ):
        assert "certificate has expired" in str(await fails(case, server.endpoint))


async def test_f052_a_certificate_for_somebody_else(
    tls_site: TLSSite, client_ssl: ssl.SSLContext
) -> None:
    async with clean(tls_site.endpoint) as case:
        tls = TLS(client_ssl, server_hostname="db.example")
        error = await fails(case, at(tls_site.port, tls))
        assert "Hostname mismatch" in str(error)
        assert "db.example" in str(error)


async def test_f052_an_address_that_the_certificate_does_not_have(
    certificates: Certificates, client_ssl: ssl.SSLContext, tcp_site: TCPSite
) -> None:
    by_name = certificates.ca.issue_cert("localhost")
    async with (
        tls_server(certificates.server_context(by_name), TLS(client_ssl)) as server,
        clean(tcp_site.endpoint) as case,
    ):
        assert "IP address mismatch" in str(await fails(case, server.endpoint))


async def test_f056_g25_a_client_certificate_that_is_missing_shows_at_the_first_read(
    certificates: Certificates,
) -> None:
    context = certificates.server_context(require_client=True)
    without = TLS(certificates.client_context())
    with_one = TLS(certificates.client_context(with_certificate=True))
    async with serving(echo, context) as server, clean(at(server.port, with_one)) as case:
        with pytest.raises(trio.BrokenResourceError) as caught:
            async with case.pool.connection(at(server.port, without)) as conn:
                await conn.receive_some()
        assert "CERTIFICATE_REQUIRED" in str(caught.value.__cause__)
        assert case.log.reasons == [CloseReason.ERROR]
        async with case.pool.connection(at(server.port, with_one)) as conn:
            await exchange(conn)


async def test_f056_under_tls_1_2_it_is_an_error_of_the_dial(
    certificates: Certificates, tcp_site: TCPSite
) -> None:
    context = certificates.server_context(require_client=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with (
        tls_server(context, TLS(certificates.client_context())) as server,
        clean(tcp_site.endpoint) as case,
    ):
        assert "HANDSHAKE_FAILURE" in str(await fails(case, server.endpoint)).upper()


async def test_f056_one_that_was_kept_is_found_out_before_it_is_lent(
    certificates: Certificates,
) -> None:
    context = certificates.server_context(require_client=True)
    without = TLS(certificates.client_context())
    async with serving(echo, context) as server, clean(None) as case:
        await case.pool.warm(at(server.port, without), 1)
        await case.log.wait_closed(CloseReason.PEER_CLOSED)


async def test_f064_a_protocol_that_must_be_agreed_on_and_is_not(
    tls_site: TLSSite, certificates: Certificates
) -> None:
    tls = TLS(alpn=["conpool/1"])
    tls.context.load_verify_locations(certificates.ca_file)
    async with clean(tls_site.endpoint) as case:
        assert "conpool/1" in str(await fails(case, at(tls_site.port, tls)))


async def test_f064_one_that_is_agreed_on(certificates: Certificates) -> None:
    tls = TLS(alpn=["conpool/2", "conpool/1"])
    tls.context.load_verify_locations(certificates.ca_file)
    context = certificates.server_context(alpn=["conpool/1"])
    async with (
        serving(echo, context) as server,
        clean(at(server.port, tls)) as case,
        case.pool.connection(at(server.port, tls)) as conn,
    ):
        assert conn.alpn_protocol == "conpool/1"


# ── handshakes that come to nothing ─────────────────────────────────────────────


async def test_f053_a_server_that_does_not_speak_tls(client_ssl: ssl.SSLContext) -> None:
    async def shout(stream: Stream) -> None:
        await stream.send_all(b"220 welcome\r\n")
        await trio.sleep_forever()

    async with serving(shout) as server, clean(server.endpoint) as case:
        error = await fails(case, at(server.port, TLS(client_ssl)))
        assert "WRONG_VERSION_NUMBER" in str(error)


async def test_f053_a_plain_client_of_a_server_that_speaks_tls(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint) as case:
        async with case.pool.connection(Endpoint(LOOPBACK, tls_site.port)) as conn:
            await conn.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError):
                while await conn.receive_some():  # the alert; then the end, or a reset
                    pass
                raise trio.BrokenResourceError
        (reason,) = case.log.reasons
        assert reason in {CloseReason.PEER_CLOSED, CloseReason.INCOMPLETE}


async def test_f054_silence_in_the_handshake_ends_with_connect_timeout(
    tcp_site: TCPSite, client_ssl: ssl.SSLContext
) -> None:
    async with clean(tcp_site.endpoint, PoolConfig(connect_timeout=0.05)) as case:
        error = await fails(case, at(tcp_site.port, TLS(client_ssl)))
        assert type(error) is TLSTimeout
        assert error.errno == errno.ETIMEDOUT
        server = await tcp_site.accept()
        hello = await server.receive_some()
        assert hello, "the client greeted"
        with pytest.raises(trio.BrokenResourceError):
            while await server.receive_some():
                pass
            raise trio.BrokenResourceError  # the client left without an alert


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("after", [0, 1, 60, 700])
async def test_f055_a_handshake_that_breaks_off(
    tls_site: TLSSite, proxy_to: ProxyTo, after: int, how: How
) -> None:
    proxy = await proxy_to(tls_site.port)
    proxy.prepare = lambda passage: passage.down.cut_after(after, how)
    async with clean(tls_site.endpoint) as case:
        error = await fails(case, at(proxy.port, cast("TLS", tls_site.endpoint.tls)))
        assert type(error) is TLSError
        assert str(error).split("phase tls: ")[1], "the reason is in the text"


async def test_f055_a_handshake_in_single_bytes_is_only_slow(
    tls_site: TLSSite, proxy_to: ProxyTo
) -> None:
    def drip(passage: Passage) -> None:
        passage.up.drips = passage.down.drips = True

    proxy = await proxy_to(tls_site.port)
    proxy.prepare = drip
    endpoint = at(proxy.port, cast("TLS", tls_site.endpoint.tls))
    async with clean(endpoint) as case:
        async with case.pool.connection(endpoint) as conn:
            server = await tls_site.accept()
            await server.send_all(b"answer")
            assert await receive_exactly(conn, 6) == b"answer"
        async with case.pool.connection(endpoint) as conn:
            assert conn.reused


async def test_f069_g7_what_comes_before_the_handshake_is_never_delivered(
    tls_site: TLSSite, proxy_to: ProxyTo
) -> None:
    def greet(passage: Passage) -> None:
        passage.greeting = b"+OK trust me\r\n"

    proxy = await proxy_to(tls_site.port)
    proxy.prepare = greet
    async with clean(tls_site.endpoint) as case:
        await fails(case, at(proxy.port, cast("TLS", tls_site.endpoint.tls)))


# ── identity ────────────────────────────────────────────────────────────────────


async def test_f065_g5_contexts_do_not_share_connections(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    async with serving(echo, server_ssl) as server:
        first, second = at(server.port, TLS(careless)), at(server.port, TLS(client_ssl))
        async with clean(second) as case:
            for endpoint in (first, second):
                async with case.pool.connection(endpoint) as conn:
                    assert not conn.reused
                    await exchange(conn)
            assert case.pool.all_stats().idle == 2
        stranger = TLS(ssl.create_default_context())
        async with clean(second) as case:
            async with case.pool.connection(first):
                pass
            with pytest.raises(TLSError):
                await case.pool.acquire(at(server.port, stranger))


async def test_f066_g5_a_context_lives_as_long_as_connections_made_with_it(
    server_ssl: ssl.SSLContext, certificates: Certificates
) -> None:
    async with (
        serving(echo, server_ssl) as server,
        clean(at(server.port, TLS(certificates.client_context()))) as case,
    ):
        context = certificates.client_context()
        number, gone = id(context), weakref.ref(context)
        async with case.pool.connection(at(server.port, TLS(context))):
            pass
        del context
        gc.collect()
        assert gone() is not None
        others = [certificates.client_context() for _ in range(100)]
        assert number not in map(id, others)
        async with case.pool.connection(at(server.port, TLS(others[0]))) as conn:
            assert not conn.reused


async def test_f067_a_certificate_changed_in_place_counts_from_the_next_handshake_on(
    certificates: Certificates,
) -> None:
    server_context = certificates.server_context(require_client=True)
    context = certificates.client_context()
    certificates.client.configure_cert(context)
    seen: list[str] = []

    async def tell(stream: Stream) -> None:
        assert isinstance(stream, trio.SSLStream)
        await stream.do_handshake()
        ((_, name),) = stream.getpeercert()["subjectAltName"]
        seen.append(name)
        await echo(stream)

    async with serving(tell, server_context) as server:
        endpoint = at(server.port, TLS(context))
        async with clean(endpoint) as case:

            async def ask() -> None:
                async with case.pool.connection(endpoint) as conn:
                    await exchange(conn)

            await ask()
            certificates.ca.issue_cert("new@conpool.test").configure_cert(context)
            await ask()
            assert seen == ["client@conpool.test"], "the old connection lives on"
            case.pool.clear(endpoint)
            await ask()
            assert seen == ["client@conpool.test", "new@conpool.test"]


async def test_f068_tls_begun_inside_a_block_ends_the_connection_with_the_block(
    tcp_site: TCPSite, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    async def upgrade(conn: Connection[None]) -> None:
        secret = trio.SSLStream(conn, client_ssl, server_hostname="localhost")
        await secret.send_all(b"ask")
        assert await receive_exactly(secret, 6) == b"answer"

    async def answer() -> None:
        stream = trio.SSLStream(await tcp_site.accept(), server_ssl, server_side=True)
        assert await receive_exactly(stream, 3) == b"ask"
        await stream.send_all(b"answer")

    async with clean(tcp_site.endpoint) as case:
        async with case.pool.connection(tcp_site.endpoint) as conn, trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            await upgrade(conn)
        assert case.log.reasons == [CloseReason.DISCARDED]


@pytest.mark.parametrize("data", [b"\x16", b"\x16\x03\x01\x00\x05\x02", b"\x16" * 6])
async def test_f068_what_only_looks_a_little_like_tls_does_no_harm(data: bytes) -> None:
    async with serving() as server, clean(server.endpoint) as case:
        async with case.pool.connection(server.endpoint) as conn:
            await exchange(conn, data)
        assert not case.log.reasons
