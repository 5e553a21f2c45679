"""A pool with a driver under the tools of `conpool.testing`: in memory, in no time, everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import conpool
from conpool.testing import (
    MemoryConnector,
    assert_quiescent,
    cancel_everywhere,
    explore_schedules,
    fixed_order,
)
from tests.support.drivers import GREETING, Full, Mux, MuxDriver, Session

HERE = conpool.Endpoint("toy.example", 7)


def mock_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


async def serve(stream: trio.abc.Stream) -> None:
    """Greet, then answer each line with itself, after a second."""
    await stream.send_all(GREETING)
    async for data in stream:
        await trio.sleep(1)
        await stream.send_all(data)


@asynccontextmanager
async def lending(limit: int = 1) -> AsyncIterator[conpool.ConnectionPool[Session]]:
    config = conpool.PoolConfig(max_connections_per_endpoint=limit)
    connector = MemoryConnector(serve)
    async with conpool.ConnectionPool(config, connector=connector, driver=Full()) as pool:
        yield pool
    assert connector.live == 0


async def test_sessions_over_memory_streams_take_simulated_time(autojump_clock: MockClock) -> None:
    async with lending() as pool:
        async with pool.connection(HERE) as conn:
            assert await conn.session.call(b"one") == b"one"
        async with pool.connection(HERE) as conn:  # after the reset
            assert await conn.session.call(b"two") == b"two"
        assert trio.current_time() == 3
        assert pool.stats(HERE).total_created == 1


def test_a_client_is_cancelled_everywhere() -> None:
    """Amid `open`, a call, `reset` or `check`: wherever it stops, nothing is lost."""

    async def scenario(scope: trio.CancelScope) -> None:
        async with lending() as pool:
            with scope:
                for line in (b"one", b"two"):
                    async with pool.connection(HERE) as conn:
                        assert await conn.session.call(line) == line
                    await trio.sleep(2)  # amid the reset, and after it
            await trio.sleep(10)
            assert_quiescent(pool)
            async with pool.connection(HERE) as conn:
                assert await conn.session.call(b"three") == b"three"

    points = cancel_everywhere(scenario, clock=mock_clock)
    assert points > 20


def test_a_client_that_swallows_its_cancellation_is_found() -> None:
    """What the tool is for: the pool cannot know that this reply is owed."""

    class Forgetful(Full):
        def is_clean(self, session: Session) -> bool:
            return True

    async def scenario(scope: trio.CancelScope) -> None:
        connector = MemoryConnector(serve)
        async with conpool.ConnectionPool(connector=connector, driver=Forgetful()) as pool:
            with scope:
                async with pool.connection(HERE) as conn:
                    await conn.session.call(b"one")
            async with pool.connection(HERE) as conn:
                assert await conn.session.call(b"two") == b"two"

    with pytest.raises(AssertionError, match=r"b'(one|reset)' == b'two'"):
        cancel_everywhere(scenario, clock=mock_clock)


@pytest.mark.parametrize("room", [1, 2])
def test_the_schedules_of_a_shared_connection_are_explored(room: int) -> None:
    """Enter the pool, and leave it, outside of the explored part: that keeps explorations small."""
    shared: set[int] = set()

    async def use(pool: conpool.ConnectionPool[Mux]) -> None:
        async with pool.connection(HERE) as conn:
            shared.add(conn.id)
            assert not conn.session.ended
            await trio.lowlevel.checkpoint()

    async def scenario() -> None:
        config = conpool.PoolConfig(max_connections_per_endpoint=1)
        pool: conpool.ConnectionPool[Mux]
        pool = conpool.ConnectionPool(
            config, connector=MemoryConnector(serve), driver=MuxDriver(room)
        )
        with fixed_order():
            await pool.__aenter__()
            await pool.warm(HERE, 1)
            await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(use, pool)
        with fixed_order():
            assert_quiescent(pool)
            await pool.__aexit__(None, None, None)

    schedules = explore_schedules(scenario, limit=2000)
    assert 1 < schedules < 2000
    assert shared == {1}
