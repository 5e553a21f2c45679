"""G1, from outside: a thousand tasks, a limit of ten, and the kernel counts the sockets."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.abc import Stream
from trio.testing import MockClock

from conpool import TLS, AcquireTimeout, CloseReason, ConnectError, Connection, Endpoint, PoolConfig
from tests.servers import Certificates
from tests.support.clean import Case, clean
from tests.support.faults import LOOPBACK, Passage, close_stream
from tests.support.kernel import Census, client_sockets, need_kernel_table
from tests.support.loopback_servers import exchange, serving
from tests.support.pools import echo

from .sites import ProxyTo, socket_of

LIMIT = 10
TASKS = 1000


@pytest.fixture(autouse=True)
def kernel_table() -> None:
    need_kernel_table()


@asynccontextmanager
async def counted(port: int, pace: int) -> AsyncIterator[Census]:
    """Watch the kernel's table of sockets; fail if it ever shows more than the limit."""
    census = Census(port, pace)
    trio.lowlevel.add_instrument(census)
    try:
        yield census
    finally:
        trio.lowlevel.remove_instrument(census)
    assert census.looks >= 50, "that is hardly a census"
    assert 2 <= census.most <= LIMIT


async def crowd(use: Callable[[int], Awaitable[None]], tasks: int = TASKS) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(tasks):
            nursery.start_soon(use, number)


async def test_g1_a_thousand_tasks_never_have_more_than_ten_sockets() -> None:
    async with serving() as server:
        async with (
            clean(server.endpoint, PoolConfig(max_connections_per_endpoint=LIMIT), pace=9) as case,
            counted(server.port, pace=29) as census,
        ):

            async def use(number: int) -> None:
                async with case.pool.connection(server.endpoint) as conn:
                    await exchange(conn, b"%d" % number)

            await crowd(use)
            census.look()
        assert case.log.dialled == census.most == LIMIT
        assert server.accepted == LIMIT


async def test_g1_also_while_leases_end_in_every_way() -> None:
    rng = random.Random(1)

    async def use(case: Case, endpoint: Endpoint, number: int) -> None:
        how = rng.choice(["keep", "raise", "discard", "retire", "give up", "half", "cancel"])
        with trio.CancelScope() as scope:
            try:
                async with case.pool.connection(endpoint, fresh=rng.random() < 0.1) as conn:
                    await end(conn, how, scope)
            except ZeroDivisionError:
                pass

    async def end(conn: Connection[None], how: str, scope: trio.CancelScope) -> None:
        await conn.send_all(b"ask")
        if how == "half":
            assert await conn.receive_some(1)
            return
        assert await conn.receive_some()
        if how == "raise":
            raise ZeroDivisionError
        if how == "discard":
            await conn.aclose()
        if how == "retire":
            conn.retire()
        if how == "give up":
            with trio.move_on_after(0):
                await conn.receive_some()
        if how == "cancel":
            scope.cancel()
            await trio.lowlevel.checkpoint()

    config = PoolConfig(
        max_connections_per_endpoint=LIMIT, max_idle_time=0.005, reap_interval=0.002
    )
    async with serving() as server:
        async with clean(server.endpoint, config, pace=9) as case, counted(server.port, pace=29):
            await crowd(lambda number: use(case, server.endpoint, number))
        assert {
            CloseReason.ERROR,
            CloseReason.DISCARDED,
            CloseReason.INCOMPLETE,
            CloseReason.CANCELLED,
            CloseReason.UNREAD_DATA,
        } <= set(case.log.reasons)


async def test_g1_also_while_connections_fail_to_open(proxy_to: ProxyTo) -> None:
    rng = random.Random(2)
    served = failed = 0

    def spoil(passage: Passage) -> None:
        if rng.random() < 0.5:
            passage.down.cut_after(rng.randrange(6), rng.choice(["close", "reset"]))

    async with serving() as server:
        proxy = await proxy_to(server.port)
        proxy.prepare = spoil
        endpoint = Endpoint(LOOPBACK, proxy.port)

        async def use(number: int) -> None:
            nonlocal served, failed
            try:
                async with case.pool.connection(endpoint) as conn:
                    await exchange(conn, b"%04d" % number)
            except (ConnectError, AssertionError, trio.BrokenResourceError):
                failed += 1
            else:
                served += 1

        async with (
            clean(server.endpoint, PoolConfig(max_connections_per_endpoint=LIMIT), pace=9) as case,
            counted(proxy.port, pace=29),
            trio.open_nursery() as nursery,
        ):
            switching = trio.CancelScope()

            async def switch() -> None:
                with switching:
                    for _ in range(3):
                        await trio.sleep(0.02)
                        proxy.refuse()
                        proxy.end_all("reset")
                        await trio.sleep(0.02)
                        await proxy.accept()
                    await trio.sleep_forever()

            nursery.start_soon(switch)
            await crowd(use)
            switching.cancel()
    assert served + failed == TASKS
    assert served > 0
    assert failed > 0


async def test_g1_also_while_the_server_closes_what_is_idle_and_what_is_not() -> None:
    rng = random.Random(3)

    async def fickle(stream: Stream) -> None:
        for _ in range(rng.randrange(1, 6)):
            data = await stream.receive_some()
            if not data:
                return
            await stream.send_all(data)
        close_stream(socket_of(stream), rng.choice(["close", "reset"]))

    async with serving(fickle) as server:
        config = PoolConfig(max_connections_per_endpoint=LIMIT)
        async with clean(server.endpoint, config, pace=9) as case, counted(server.port, pace=29):

            async def use(number: int) -> None:
                try:
                    async with case.pool.connection(server.endpoint) as conn:
                        await exchange(conn, b"%d" % number)
                except (AssertionError, trio.BrokenResourceError):
                    pass  # the server closed while we asked: nobody can prevent that

            await crowd(use)
        assert CloseReason.PEER_CLOSED in case.log.reasons


async def test_g1_also_with_tls_and_its_goodbyes(certificates: Certificates) -> None:
    tls = TLS(certificates.client_context())
    config = PoolConfig(max_connections_per_endpoint=LIMIT, max_connection_uses=5)
    async with serving(echo, certificates.server_context()) as server:
        endpoint = Endpoint(LOOPBACK, server.port, tls=tls)
        async with clean(endpoint, config, pace=9) as case, counted(server.port, pace=29):

            async def use(number: int) -> None:
                async with case.pool.connection(endpoint) as conn:
                    await exchange(conn, b"%d" % number)

            await crowd(use, 500)
        assert case.log.reasons.count(CloseReason.USES) >= 90


async def test_g1_the_limit_of_the_whole_pool_over_many_endpoints() -> None:
    config = PoolConfig(max_connections_per_endpoint=4, max_connections=LIMIT)
    async with serving() as server:
        endpoints = [Endpoint(LOOPBACK, server.port, partition=n) for n in range(7)]
        async with clean(endpoints[0], config, pace=9) as case, counted(server.port, pace=29):

            async def use(number: int) -> None:
                async with case.pool.connection(endpoints[number % 7]) as conn:
                    await exchange(conn, b"%d" % number)

            await crowd(use)
        assert CloseReason.EVICTED in case.log.reasons


async def test_g1_g10_also_while_callers_give_up(
    proxy_to: ProxyTo, autojump_clock: MockClock
) -> None:
    rng = random.Random(4)
    outcomes: dict[str, int] = {"served": 0, "timed out": 0, "cancelled": 0}

    async with serving() as server:
        proxy = await proxy_to(server.port)
        endpoint = Endpoint(LOOPBACK, proxy.port)

        async def use(number: int) -> None:
            with trio.move_on_after(rng.random() * 10) as scope:
                try:
                    async with case.pool.connection(
                        endpoint, timeout=rng.random() * 10 * 10
                    ) as conn:
                        await exchange(conn, b"%d" % number)
                        outcomes["served"] += 1
                except AcquireTimeout:
                    outcomes["timed out"] += 1
            outcomes["cancelled"] += scope.cancelled_caught

        def slow(passage: Passage) -> None:
            passage.up.delay = 0.1

        proxy.prepare = slow
        async with (
            clean(endpoint, PoolConfig(max_connections_per_endpoint=LIMIT), pace=9) as case,
            counted(proxy.port, pace=29),
        ):
            await crowd(use)
    assert all(outcomes.values()), outcomes


async def test_after_the_pool_the_kernel_knows_no_socket_of_it() -> None:
    async with serving() as server:
        async with clean(server.endpoint) as case:
            await case.pool.warm(server.endpoint, LIMIT)
            assert client_sockets(server.port).total() == LIMIT
        assert client_sockets(server.port).total() == 0
        await server.wait_live(0)
