"""FAULTS H, with real sockets: closing a pool in full use, and releasing leases after that."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import TLS, CloseReason, Connection, ConnectionPool, Endpoint, PoolClosed, PoolConfig
from tests._net import swallowing
from tests.support.clean import PATIENCE, Case, clean
from tests.support.faults import LOOPBACK, FaultyProxy, fill
from tests.support.kernel import client_sockets, need_kernel_table
from tests.support.loopback_servers import exchange, receive_exactly, serving

from .sites import ProxyTo, Site, TCPSite, TLSSite

POOL_CLOSED = CloseReason.POOL_CLOSED


class Crowd:
    """Every kind of user of a pool at the same time, with a server that does not help."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.ends: dict[str, type[BaseException] | None] = {}
        self.finish_user = trio.Event()
        self._nursery = nursery

    async def gather(self, case: Case, proxy: FaultyProxy, tls: TLS) -> None:
        """Use a pool whose limit is 4; return when each user has got to its place.

        One holds a connection and ends in time; one waits for an answer; the TLS dial of one hangs;
        one has its connection checked; one waits in the queue.
        """
        plain = Endpoint(LOOPBACK, proxy.port)
        secure = Endpoint(LOOPBACK, proxy.port, tls=tls)
        checked = Endpoint(LOOPBACK, proxy.port, partition="checked")
        start: Callable[..., None]
        start = partial(self._nursery.start_soon, self._note)  # type: ignore[arg-type]
        async with case.pool.connection(checked):
            pass
        start("checked", self._use, case, checked)
        start("user", self._use, case, plain)
        start("asker", self._ask, case, plain)
        await proxy.wait_passages(3)
        start("dialler", self._use, case, secure)
        await proxy.wait_passages(4)
        start("waiter", self._use, case, plain)
        await wait_all_tasks_blocked()
        stats = case.pool.all_stats()
        assert (stats.active, stats.connecting, stats.waiting) == (3, 1, 3)

    async def _note(self, name: str, job: Callable[..., Awaitable[None]], *args: Any) -> None:
        try:
            await job(*args)
        except (PoolClosed, trio.ClosedResourceError) as error:
            self.ends[name] = type(error)
        else:
            self.ends[name] = None

    async def _use(self, case: Case, endpoint: Endpoint) -> None:
        async with case.pool.connection(endpoint):
            await self.finish_user.wait()

    async def _ask(self, case: Case, endpoint: Endpoint) -> None:
        async with case.pool.connection(endpoint) as conn:
            await conn.receive_some()


async def hang_if_checked(conn: Connection[None]) -> bool:
    if cast("Endpoint", conn.endpoint).partition == "checked":
        await conn.receive_some()
    return True


async def test_f113_g17_closing_amid_everything_ends_everything(
    tcp_site: TCPSite, proxy_to: ProxyTo, client_ssl: ssl.SSLContext
) -> None:
    need_kernel_table()
    proxy = await proxy_to(tcp_site.port)
    config = PoolConfig(max_connections=4, shutdown_grace=0.2, close_timeout=0.1)
    async with (
        clean(None, config, health_check=hang_if_checked) as case,
        trio.open_nursery() as nursery,
    ):
        crowd = Crowd(nursery)
        await crowd.gather(case, proxy, TLS(client_ssl))
        began = trio.current_time()
        closing = trio.Event()

        async def close() -> None:
            await case.pool.aclose()
            closing.set()

        nursery.start_soon(close)
        await wait_all_tasks_blocked()
        assert crowd.ends == dict.fromkeys(("waiter", "dialler", "checked"), PoolClosed), "at once"
        with pytest.raises(PoolClosed):
            await case.pool.acquire(tcp_site.endpoint)
        crowd.finish_user.set()
        with trio.fail_after(PATIENCE):
            await closing.wait()
        took = trio.current_time() - began
        assert 0.2 <= took < 2.0, "the asker used up the grace, and no more"
        assert client_sockets(proxy.port).total() == 0
        await wait_all_tasks_blocked()
        assert crowd.ends == {
            "waiter": PoolClosed,
            "dialler": PoolClosed,
            "checked": PoolClosed,
            "user": None,
            "asker": trio.ClosedResourceError,
        }


async def test_f113_g18_cancelled_closing_still_closes_everything_at_once(
    tcp_site: TCPSite, proxy_to: ProxyTo, client_ssl: ssl.SSLContext
) -> None:
    need_kernel_table()
    proxy = await proxy_to(tcp_site.port)
    config = PoolConfig(max_connections=4, shutdown_grace=60.0, close_timeout=60.0)
    async with (
        clean(None, config, health_check=hang_if_checked) as case,
        trio.open_nursery() as nursery,
    ):
        crowd = Crowd(nursery)
        await crowd.gather(case, proxy, TLS(client_ssl))
        with trio.move_on_after(0.02) as scope:
            await case.pool.aclose()
        assert scope.cancelled_caught
        assert client_sockets(proxy.port).total() == 0
        assert case.pool.closed
        crowd.finish_user.set()


async def test_f113_a_connection_that_is_closing_already_is_waited_for(tls_site: TLSSite) -> None:
    config = PoolConfig(close_timeout=0.1)
    async with clean(None, config) as case:
        await tls_site.lend(case)
        await fill(trio.SocketStream(case.recorder.sockets[0]))
        case.pool.close_idle()
        assert case.pool.all_stats().closing == 1
        with trio.fail_after(PATIENCE):
            await case.pool.aclose()
        assert case.recorder.open == 0
        assert case.log.reasons == [CloseReason.CLEARED]


async def test_f113_a_dial_into_nowhere_does_not_hold_up_the_end() -> None:
    need_kernel_table()
    with swallowing() as port:
        async with clean(None, PoolConfig(shutdown_grace=60.0)) as case:
            before = client_sockets(port).total()
            async with trio.open_nursery() as nursery:

                async def dial() -> None:
                    with pytest.raises(PoolClosed):
                        await case.pool.acquire(Endpoint(LOOPBACK, port))

                nursery.start_soon(dial)
                await wait_all_tasks_blocked()
                assert client_sockets(port).total() == before + 1
                await case.pool.aclose()
            assert client_sockets(port).total() == before


async def test_idle_connections_say_goodbye_when_the_pool_closes(tls_site: TLSSite) -> None:
    async with clean(None) as case:
        await case.pool.warm(tls_site.endpoint, 3)
        servers = [await tls_site.accept() for _ in range(3)]
        await case.pool.aclose()
        assert case.log.reasons == [POOL_CLOSED] * 3
        for server in servers:
            assert await server.receive_some() == b"", "an end without a goodbye would raise"


async def test_f115_closing_twice_and_by_two_at_once_is_closing(site: Site) -> None:
    async with clean(None) as case:
        await site.lend(case)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(case.pool.aclose)
            nursery.start_soon(case.pool.aclose)
        await case.pool.aclose()
        assert case.pool.closed
        assert case.log.reasons == [POOL_CLOSED]


async def test_f115_closing_from_inside_a_block_does_not_wait_for_itself(site: Site) -> None:
    async with clean(None, PoolConfig(shutdown_grace=60.0)) as case:
        async with case.pool.connection(site.endpoint) as conn:
            await site.accept()
            with trio.fail_after(PATIENCE):
                await case.pool.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await conn.send_all(b"x")
        assert case.log.reasons == [POOL_CLOSED]


async def test_f116_nothing_is_lent_while_it_closes_nor_afterwards(site: Site) -> None:
    async with clean(None) as case, trio.open_nursery() as nursery:
        async with case.pool.connection(site.endpoint):
            nursery.start_soon(case.pool.aclose)
            await wait_all_tasks_blocked()
            assert case.pool.closed
            with pytest.raises(PoolClosed):
                await case.pool.acquire(site.endpoint)
            with pytest.raises(PoolClosed):
                case.pool.acquire_nowait(site.endpoint)
            with pytest.raises(PoolClosed):
                await case.pool.warm(site.endpoint, 1)
        await wait_all_tasks_blocked()
        with pytest.raises(PoolClosed):
            await case.pool.acquire(site.endpoint)


@pytest.mark.parametrize("how", ["release", "discard", "aclose"])
async def test_f117_g11_a_lease_may_end_after_the_pool(site: Site, how: str) -> None:
    async with clean(None, PoolConfig(shutdown_grace=0.0)) as case:
        conn = await case.pool.acquire(site.endpoint)
        await case.pool.aclose()
        if how == "aclose":
            await conn.aclose()
        else:
            getattr(case.pool, how)(conn)
        assert case.log.reasons == [POOL_CLOSED]


async def test_f117_one_given_back_while_the_pool_closes_is_closed(site: Site) -> None:
    async with clean(None) as case, trio.open_nursery() as nursery:
        async with case.pool.connection(site.endpoint):
            nursery.start_soon(case.pool.aclose)
            await wait_all_tasks_blocked()
            assert not case.log.reasons
        await case.log.wait_closed(POOL_CLOSED)


async def test_g17_a_peer_that_hangs_costs_the_grace_and_no_more(site: Site) -> None:
    config = PoolConfig(shutdown_grace=0.05, close_timeout=0.05)
    ended = trio.Event()
    async with clean(None, config) as case, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(trio.ClosedResourceError):
                async with case.pool.connection(site.endpoint) as conn:
                    await conn.send_all(b"ask")
                    await conn.receive_some()
            ended.set()

        nursery.start_soon(ask)
        await site.accept()
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await case.pool.aclose()
        assert 0.05 <= trio.current_time() - began < 2.0
        with trio.fail_after(PATIENCE):
            await ended.wait()


async def test_g19_leaving_by_an_exception_gives_no_grace(site: Site) -> None:
    need_kernel_table()
    error = ZeroDivisionError("mine")
    holding = trio.Event()
    pool = ConnectionPool(PoolConfig(shutdown_grace=60.0))

    async def hold_on() -> None:
        with pytest.raises(trio.ClosedResourceError):
            async with pool.connection(site.endpoint) as conn:
                holding.set()
                await conn.receive_some()

    async with trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE), pytest.raises(ZeroDivisionError) as caught:
            async with pool:
                nursery.start_soon(hold_on)
                await holding.wait()
                raise error
        assert caught.value is error
        await wait_all_tasks_blocked()
    assert pool.all_stats().active == 0


async def test_clear_can_interrupt_those_in_use(site: Site) -> None:
    async with clean(site.endpoint) as case, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(trio.ClosedResourceError):
                async with case.pool.connection(site.endpoint) as conn:
                    await conn.receive_some()

        nursery.start_soon(ask)
        server = await site.accept()
        await wait_all_tasks_blocked()
        case.pool.clear(site.endpoint, interrupt_in_use=True)
        assert case.log.reasons == [CloseReason.CLEARED]
        with suppress(trio.BrokenResourceError):  # without TLS, the connection just ends
            assert await server.receive_some() == b""


async def test_a_detached_stream_is_the_callers_alone(site: Site) -> None:
    async with clean(None, PoolConfig(max_connections_per_endpoint=1)) as case:
        async with case.pool.connection(site.endpoint) as conn:
            server = await site.accept()
            stream = conn.detach()
        assert case.log.reasons == [CloseReason.DETACHED]
        async with case.pool.connection(site.endpoint, timeout=PATIENCE):
            pass  # the slot of the detached one is free
        await case.pool.aclose()
        await server.send_all(b"still there")
        assert await receive_exactly(stream, 11) == b"still there"
        await trio.aclose_forcefully(stream)


async def test_clear_under_load_closes_every_old_connection_and_loses_no_exchange() -> None:
    answered = 0

    async def use(case: Case, endpoint: Endpoint) -> None:
        nonlocal answered
        for number in range(30):
            async with case.pool.connection(endpoint) as conn:
                await exchange(conn, b"%06d" % number)
            answered += 1

    async with serving() as server, clean(server.endpoint) as case:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(use, case, server.endpoint)
            for _ in range(5):
                await wait_all_tasks_blocked(0.0005)
                case.pool.clear()
        assert answered == 600
        assert set(case.log.reasons) == {CloseReason.CLEARED}
