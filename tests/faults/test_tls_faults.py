"""FAULTS D: encryption that cannot be had, or that ends in unusual ways."""

from __future__ import annotations

import datetime as dt
import errno
import gc
import ssl
import weakref
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import trio
from trio.abc import Stream
from trio.testing import wait_all_tasks_blocked

from conpool import (
    TLS,
    AnyEndpoint,
    CloseReason,
    Connection,
    Endpoint,
    PoolConfig,
    TLSError,
)
from conpool._errors import TLSTimeout
from tests.servers import Certificates
from tests.support.clean import PATIENCE, Case, clean
from tests.support.faults import LOOPBACK, FaultyProxy, How, Passage, fill
from tests.support.peers import echo, exchange, receive_exactly, serving, tls_peer

from .sites import TCPSite, TLSSite, say_goodbye

ProxyTo = Callable[[int], Awaitable[FaultyProxy]]


async def fails(case: Case, endpoint: AnyEndpoint) -> TLSError:
    with trio.fail_after(PATIENCE), pytest.raises(TLSError) as caught:
        await case.pool.acquire(endpoint)
    assert caught.value.endpoint == endpoint
    assert caught.value.phase == "tls"
    assert case.log.dialled == 1, "this is not tried again"
    assert case.recorder.open == 0
    return caught.value


def at(port: int, tls: TLS, host: str = LOOPBACK) -> Endpoint:
    return Endpoint(host, port, tls=tls)


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
        tls_peer(certificates.server_context(expired), TLS(client_ssl)) as peer,
        clean(tcp_site.endpoint) as case,
    ):
        assert "certificate has expired" in str(await fails(case, peer.endpoint))


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
        tls_peer(certificates.server_context(by_name), TLS(client_ssl)) as peer,
        clean(tcp_site.endpoint) as case,
    ):
        assert "IP address mismatch" in str(await fails(case, peer.endpoint))


async def test_f056_g25_a_client_certificate_that_is_missing_shows_at_the_first_read(
    certificates: Certificates,
) -> None:
    server = certificates.server_context(require_client=True)
    without = TLS(certificates.client_context())
    with_one = TLS(certificates.client_context(with_certificate=True))
    async with serving(echo, server) as peer, clean(at(peer.port, with_one)) as case:
        with pytest.raises(trio.BrokenResourceError) as caught:
            async with case.pool.connection(at(peer.port, without)) as conn:
                await conn.receive_some()
        assert "CERTIFICATE_REQUIRED" in str(caught.value.__cause__)
        assert case.log.reasons == [CloseReason.ERROR]
        async with case.pool.connection(at(peer.port, with_one)) as conn:
            await exchange(conn)


async def test_f056_under_tls_1_2_it_is_an_error_of_the_dial(
    certificates: Certificates, tcp_site: TCPSite
) -> None:
    server = certificates.server_context(require_client=True)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    async with (
        tls_peer(server, TLS(certificates.client_context())) as peer,
        clean(tcp_site.endpoint) as case,
    ):
        assert "HANDSHAKE_FAILURE" in str(await fails(case, peer.endpoint)).upper()


async def test_f056_one_that_was_kept_is_found_out_before_it_is_lent(
    certificates: Certificates,
) -> None:
    server = certificates.server_context(require_client=True)
    without = TLS(certificates.client_context())
    async with serving(echo, server) as peer, clean(None) as case:
        await case.pool.warm(at(peer.port, without), 1)
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
    server = certificates.server_context(alpn=["conpool/1"])
    async with (
        serving(echo, server) as peer,
        clean(at(peer.port, tls)) as case,
        case.pool.connection(at(peer.port, tls)) as conn,
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
            raise trio.BrokenResourceError  # it left without another word


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


# ── idle ────────────────────────────────────────────────────────────────────────


QUICK = PoolConfig(reap_interval=0.01)


async def test_f057_g23_tickets_that_nobody_has_read_cause_no_churn(tls_site: TLSSite) -> None:
    config = PoolConfig(min_idle_per_endpoint=3, reap_interval=60.0)
    async with clean(tls_site.endpoint, config) as case:
        await case.pool.warm(tls_site.endpoint, 3)
        for _ in range(3):
            await tls_site.accept()
        case.await_stir(3)
        for _ in range(10):
            await case.pool._lifecycle._maintenance.sweep()
        assert case.log.dialled == 3
        assert not case.log.reasons
        async with case.pool.connection(tls_site.endpoint) as conn:
            assert conn.uses == 1


async def test_f057_real_tickets_of_a_connection_that_was_only_warmed(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint) as case:
        await case.pool.warm(tls_site.endpoint, 1)
        server = await tls_site.accept()
        case.await_stir()
        async with case.pool.connection(tls_site.endpoint) as conn:
            await server.send_all(b"answer")
            assert await conn.receive_some() == b"answer"
        assert case.log.dialled == 1


async def test_f059_a_goodbye_while_idle_is_seen_at_the_next_acquire(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint) as case:
        await say_goodbye(await tls_site.lend(case))
        case.await_stir()
        async with case.pool.connection(tls_site.endpoint) as conn:
            assert not conn.reused
        assert case.log.reasons == [CloseReason.PEER_CLOSED]


async def test_f059_a_goodbye_while_idle_is_seen_by_the_sweep(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint, QUICK) as case:
        await say_goodbye(await tls_site.lend(case))
        await case.log.wait_closed(CloseReason.PEER_CLOSED)


async def test_f059_a_goodbye_that_the_block_has_read(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint) as case:
        async with case.pool.connection(tls_site.endpoint) as conn:
            server = await tls_site.accept()
            await server.send_all(b"answer")
            assert await conn.receive_some() == b"answer"
            await say_goodbye(server)
            assert await conn.receive_some() == b""
        assert case.log.reasons == [CloseReason.PEER_CLOSED]


async def test_f060_an_end_without_a_goodbye_while_idle(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint) as case:
        tls_site.end(await tls_site.lend(case))
        await case.log.wait_closed(CloseReason.PEER_CLOSED)


async def test_f060_an_end_without_a_goodbye_in_a_block_is_an_error(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint) as case:
        with pytest.raises(trio.BrokenResourceError):
            async with case.pool.connection(tls_site.endpoint) as conn:
                tls_site.end(await tls_site.accept())
                await conn.receive_some()
        assert case.log.reasons == [CloseReason.ERROR]


async def test_f060_or_a_mere_end_if_the_endpoint_says_so(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    tls = TLS(client_ssl, https_compatible=True)
    async with TLSSite.open(server_ssl, tls) as site, clean(site.endpoint) as case:
        async with case.pool.connection(site.endpoint) as conn:
            site.end(await site.accept())
            assert await conn.receive_some() == b""
        assert case.log.reasons == [CloseReason.PEER_CLOSED]


async def break_off(case: Case, site: TLSSite, proxy: FaultyProxy) -> None:
    """Have the server send something of which only ten bytes arrive, on a connection that is idle."""
    async with case.pool.connection(at(proxy.port, cast("TLS", site.endpoint.tls))) as conn:
        server = await site.accept()
        await server.send_all(b"hello")
        assert await conn.receive_some() == b"hello"
    passage = await proxy.wait_passages(1)
    await wait_all_tasks_blocked()  # until the proxy has counted what it passed on
    passage.down.cut_after(broken_off_at := passage.down.passed + 10, "silence")
    await server.send_all(b"answer")
    await passage.down.wait_passed(broken_off_at)


async def test_f061_part_of_a_record_and_then_silence_is_taken_to_be_alive(
    tls_site: TLSSite, proxy_to: ProxyTo
) -> None:
    proxy = await proxy_to(tls_site.port)
    endpoint = at(proxy.port, cast("TLS", tls_site.endpoint.tls))
    async with clean(tls_site.endpoint) as case:
        await break_off(case, tls_site, proxy)
        case.await_stir()
        async with case.pool.connection(endpoint) as conn:
            assert conn.reused
            conn.retire()


async def test_f061_max_idle_time_ends_it(tls_site: TLSSite, proxy_to: ProxyTo) -> None:
    proxy = await proxy_to(tls_site.port)
    async with clean(tls_site.endpoint, QUICK.replace(max_idle_time=0.1)) as case:
        await break_off(case, tls_site, proxy)
        await case.log.wait_closed(CloseReason.IDLE_TIME)


async def test_f062_garbage_while_idle(tls_site: TLSSite, proxy_to: ProxyTo) -> None:
    proxy = await proxy_to(tls_site.port)
    endpoint = at(proxy.port, cast("TLS", tls_site.endpoint.tls))
    async with clean(endpoint, QUICK) as case:
        async with case.pool.connection(endpoint):
            pass
        passage = await proxy.wait_passages(1)
        await passage.inject(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await case.log.wait_closed(CloseReason.PEER_CLOSED)


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
    server = certificates.server_context(require_client=True)
    context = certificates.client_context()
    certificates.client.configure_cert(context)
    seen: list[str] = []

    async def tell(stream: Stream) -> None:
        assert isinstance(stream, trio.SSLStream)
        await stream.do_handshake()
        ((_, name),) = stream.getpeercert()["subjectAltName"]
        seen.append(name)
        await echo(stream)

    async with serving(tell, server) as peer:
        endpoint = at(peer.port, TLS(context))
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


# ── goodbyes ────────────────────────────────────────────────────────────────────


async def test_a_clean_connection_says_goodbye_and_keeps_its_slot_until_it_has(
    tls_site: TLSSite,
) -> None:
    async with clean(tls_site.endpoint) as case:
        server = await tls_site.lend(case)
        case.pool.close_idle(tls_site.endpoint)
        assert case.pool.stats(tls_site.endpoint).closing == 1
        assert await server.receive_some() == b"", "an end without a goodbye would raise"
        await case.log.wait_closed(CloseReason.CLEARED)
        assert case.pool.stats(tls_site.endpoint).closing == 0


async def test_an_unclean_connection_leaves_without_a_word(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint) as case:
        with pytest.raises(ZeroDivisionError):
            async with case.pool.connection(tls_site.endpoint):
                server = await tls_site.accept()
                raise ZeroDivisionError
        assert case.pool.stats(tls_site.endpoint).closing == 0, "its slot is free at once"
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()


async def test_unread_bytes_cost_a_connection_its_goodbye(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint) as case:
        server = await tls_site.lend(case)
        await server.send_all(b"unasked")
        case.await_stir()
        case.pool._engine.perform()
        async with case.pool.connection(tls_site.endpoint):
            assert case.log.reasons == [CloseReason.UNREAD_DATA]
            assert case.pool.stats(tls_site.endpoint).closing == 0
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()


async def test_f070_g11_a_goodbye_that_blocks_ends_with_close_timeout(tls_site: TLSSite) -> None:
    config = PoolConfig(max_connections_per_endpoint=1, close_timeout=0.1)
    async with clean(tls_site.endpoint, config) as case:
        await tls_site.lend(case)
        (sock,) = case.recorder.sockets
        await fill(trio.SocketStream(sock))
        began = trio.current_time()
        assert case.pool.close_idle() == 1
        assert sock.fileno() >= 0
        with trio.move_on_after(0.02):
            await case.pool.acquire(tls_site.endpoint)
            raise AssertionError("the slot was given away with the file still open")
        await case.log.wait_closed(CloseReason.CLEARED)
        assert sock.fileno() == -1
        assert 0.1 <= trio.current_time() - began < 5.0


async def test_f070_g17_it_does_not_hold_up_the_end_of_the_pool(tls_site: TLSSite) -> None:
    config = PoolConfig(close_timeout=0.1, shutdown_grace=0.1)
    async with clean(None, config) as case:
        await tls_site.lend(case)
        await fill(trio.SocketStream(case.recorder.sockets[0]))
        with trio.fail_after(5.0):
            await case.pool.aclose()
        assert case.log.reasons == [CloseReason.POOL_CLOSED]


async def test_f070_an_unclean_connection_never_waits_for_a_goodbye(tls_site: TLSSite) -> None:
    async with (
        clean(tls_site.endpoint, PoolConfig(close_timeout=60.0)) as case,
        case.pool.connection(tls_site.endpoint) as conn,
    ):
        await tls_site.accept()
        await fill(trio.SocketStream(case.recorder.sockets[0]))
        case.pool.discard(conn)
        assert case.recorder.open == 0


async def test_tls_refuses_to_close_one_direction_and_goes_on(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint) as case:
        async with case.pool.connection(tls_site.endpoint) as conn:
            with pytest.raises(NotImplementedError, match="TLS ends both together"):
                await conn.send_eof()
        async with case.pool.connection(tls_site.endpoint) as conn:
            assert conn.reused


async def test_a_child_inside_a_receive_is_woken_when_its_connection_is_closed(
    tls_site: TLSSite,
) -> None:
    outcomes: list[type[BaseException]] = []

    async def receive(conn: Connection[None]) -> None:
        try:
            await conn.receive_some()
        except trio.ClosedResourceError as error:
            outcomes.append(type(error))

    async with clean(tls_site.endpoint) as case, trio.open_nursery() as nursery:
        async with case.pool.connection(tls_site.endpoint) as conn:
            nursery.start_soon(receive, conn)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert outcomes == [trio.ClosedResourceError]
        assert case.log.reasons == [CloseReason.INCOMPLETE]
