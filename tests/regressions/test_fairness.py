"""Waiters who lost their turn: cases from other pools.

Each test has the name of the report, and its docstring says what happened there.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, Connection, ConnectionPool
from conpool._core.pool_limit import MAX_OVERTAKES
from tests.support.pools import HERE, THERE, Network, counts, hold, open_pool, settle


class Users:
    """Tasks that take turns at the connections, and how many have one at a time."""

    def __init__(self, pool: ConnectionPool[None]) -> None:
        self.pool = pool
        self.order: list[object] = []
        self.active = 0
        self.most = 0

    async def use(self, name: object, seconds: float = 1.0) -> None:
        async with self.pool.connection(HERE):
            self.order.append(name)
            self.active += 1
            self.most = max(self.most, self.active)
            await trio.sleep(seconds)
            self.active -= 1


async def test_aiohttp_4936(autojump_clock: MockClock) -> None:
    """After a release had woken a waiter, a newcomer took the free place before the waiter ran.

    Then the waiter took it, too, and the pool had more connections than its limit.
    """
    network = Network()
    async with open_pool(network, max_connections_per_endpoint=1) as pool:
        users = Users(pool)
        conn = await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(users.use, "waiter")
            await settle()
            pool.release(conn)
            with pytest.raises(trio.WouldBlock):
                pool.acquire_nowait(HERE)
            nursery.start_soon(users.use, "newcomer")
        assert users.order == ["waiter", "newcomer"]
        assert users.most == network.live == 1


async def test_aiohttp_9670() -> None:
    """A release woke a waiter that was cancelled before it ran; nobody else was woken.

    A slot was free and other waiters waited for it, until the next release.
    """
    scope = trio.CancelScope()

    async def be_cancelled() -> None:
        with scope:
            await users.use("cancelled")

    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        users = Users(pool)
        conn = await pool.acquire(HERE)
        nursery.start_soon(be_cancelled)
        await settle()
        nursery.start_soon(users.use, "next", 0)
        await settle()
        pool.release(conn)
        scope.cancel()
        await settle()
        assert users.order == ["next"]


@pytest.mark.parametrize("ends_at", [0.999, 1.0, 1.001])
async def test_vitess_20308(autojump_clock: MockClock, ends_at: float) -> None:
    """A waiter whose time had just run out was handed a connection (also poolboy #70).

    Nobody used it and nobody gave it back, while other waiters waited.
    """
    served: list[str] = []

    async def expire() -> None:
        try:
            async with pool.connection(HERE, timeout=ends_at):
                served.append("expiring")
        except AcquireTimeout:
            assert ends_at <= 1

    async def cancel_itself() -> None:
        with trio.CancelScope(deadline=ends_at):
            async with pool.connection(HERE):
                served.append("expiring too")

    async def wait() -> None:
        async with pool.connection(HERE):
            served.append("patient")
            assert trio.current_time() == 1

    async with open_pool(max_connections_per_endpoint=1) as pool:
        async with trio.open_nursery() as nursery:
            await nursery.start(hold, pool)
            for task in (expire, cancel_itself, wait):
                nursery.start_soon(task)
                await settle()
        assert served[-1] == "patient"
        assert len(served) == 1 or ends_at >= 1
        assert counts(pool) == {"idle": 1}


async def test_go_31708(autojump_clock: MockClock) -> None:
    """`database/sql` served waiters in random order: some waited many times the average.

    A job of 1 min 59 s, first come, first served, took 7 min 29 s.
    """
    async with open_pool(max_connections_per_endpoint=1) as pool:
        users = Users(pool)

        async def work(name: int) -> None:
            for _ in range(3):
                await users.use(name, 0.5)

        async with trio.open_nursery() as nursery:
            for name in range(50):
                nursery.start_soon(work, name)
                await settle()
        assert users.order == [*range(50)] * 3
        assert pool.stats(HERE).wait_time.max == 24.5


async def test_openfga_3249(autojump_clock: MockClock) -> None:
    """Each task held one connection and waited for a second one, and none was left.

    It looked like an overload. Here the error says that it is a deadlock, and who holds the
    connections.
    """
    errors: list[AcquireTimeout] = []

    async def nest(conn: Connection[None]) -> None:
        try:
            await pool.acquire(HERE, timeout=5)
        except AcquireTimeout as error:
            errors.append(error)
        pool.release(conn)

    async def hold_and_nest() -> None:
        await nest(await pool.acquire(HERE))

    async with open_pool(max_connections_per_endpoint=2) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(hold_and_nest)
        assert trio.current_time() == 5
        assert errors[0].deadlock
        assert "acquire once and pass the connection on" in str(errors[0])
        assert len(errors[0].holders) == 2
        assert all("hold_and_nest" in holder for holder in errors[0].holders)
        assert counts(pool) == {"idle": 2}


async def test_pgbouncer_131(autojump_clock: MockClock) -> None:
    """Under a limit for all databases, a database that was never idle kept all connections.

    Callers who waited for another database waited for ever.
    """
    others = 0

    async def keep_busy() -> None:
        nonlocal others
        while True:
            await hold(pool)
            others += 1

    async with open_pool(max_connections=2) as pool, trio.open_nursery() as nursery:
        earlier = 10
        for _ in range(earlier):
            nursery.start_soon(keep_busy)
        await trio.sleep(0.5)
        async with pool.connection(THERE):
            # Both connections may come back in the instant in which its turn comes.
            assert earlier < others <= earlier + MAX_OVERTAKES + 1
        nursery.cancel_scope.cancel()
