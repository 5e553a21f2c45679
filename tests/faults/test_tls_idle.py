"""FAULTS D: TLS connections while they are idle, and how they end."""

from __future__ import annotations

import ssl
from typing import cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import TLS, CloseReason, Connection, PoolConfig
from tests.support.clean import Case, clean
from tests.support.faults import FaultyProxy, fill

from .blocks import QUICK
from .sites import ProxyTo, TLSSite, at, say_goodbye

# ── idle ────────────────────────────────────────────────────────────────────────


async def test_f057_g23_tickets_that_nobody_has_read_cause_no_churn(tls_site: TLSSite) -> None:
    config = PoolConfig(min_idle_per_endpoint=3, reap_interval=60.0)
    async with clean(tls_site.endpoint, config) as case:
        await case.pool.warm(tls_site.endpoint, 3)
        for _ in range(3):
            await tls_site.accept()
        case.await_stir(3)
        for _ in range(10):
            await case.pool._lifecycle._reaper.sweep()
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
    """Have the server send a record on an idle connection; only ten bytes of it arrive."""
    async with case.pool.connection(at(proxy.port, cast("TLS", site.endpoint.tls))) as conn:
        server = await site.accept()
        await server.send_all(b"hello")
        assert await conn.receive_some() == b"hello"
    passage = await proxy.wait_passages(1)
    await wait_all_tasks_blocked()  # until the proxy has counted the bytes that it passed
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
        case.pool._engine.perform(trio.current_time())
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
