"""Whose turn it was, and who was served: cases that other pools did not survive.

Each test is named after the report of it, and its docstring says what happened there.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, Connection, ConnectionPool
from conpool._core.pool_limit import MAX_OVERTAKES
from tests.support.pools import HERE, THERE, Network, counts, hold, open_pool, settle


class Users:
    """Tasks that use one connection after the other, and a look at how many of them do."""

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
    """Between a release and the next step of the waiter that it woke, a newcomer took the free place.

    Then the waiter took it as well: more connections than the limit allows.
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
    """The waiter that a release had woken was cancelled before it ran, and the wake-up was gone with it.

    A slot was free and others waited for it, until somebody else released something.
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
    """A connection was handed to a waiter whose time had just run out (poolboy #70 is the same).

    It was never used and never given back, while others waited.
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
    """`database/sql` served its waiters in random order: the unlucky ones waited many times the average.

    A job that takes 1 min 59 s first come, first served, took 7 min 29 s.
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
    """Tasks that held one connection each waited for a second one, and all of them were lent.

    It looked like an overload. Here the error says what it is, and who holds what.
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
    """Under a limit for all databases, one that was never idle kept its connections to itself.

    Those who waited for another database waited for ever.
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
            # Both connections may be given back in the instant in which its turn comes.
            assert earlier < others <= earlier + MAX_OVERTAKES + 1
        nursery.cancel_scope.cancel()
