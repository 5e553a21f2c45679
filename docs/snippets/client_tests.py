"""How a client is tested: here, the one of the tutorial that writes a driver."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio
from memcache_clean import CountingDriver, CountingMemcache
from trio.testing import MockClock, wait_all_tasks_blocked

import conpool
from conpool.testing import (
    Failure,
    MemoryConnector,
    assert_quiescent,
    cancel_everywhere,
    explore_schedules,
    fail_everywhere,
    fixed_order,
)

HERE = conpool.Endpoint("cache.example", 11211)


# begin server
async def serve(stream: trio.abc.Stream) -> None:
    """Answer each `get` a second later with the key itself as its value."""
    unread = b""
    async for chunk in stream:
        *lines, unread = (unread + chunk).split(b"\r\n")
        for line in lines:
            if line == b"version":
                await stream.send_all(b"VERSION 1.6\r\n")
            else:
                await trio.sleep(1)
                key = line.split()[1]
                await stream.send_all(b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(key), key))


def open_pool(**settings: float) -> conpool.ConnectionPool[CountingMemcache]:
    config = conpool.PoolConfig(**settings)  # type: ignore[arg-type]
    return conpool.ConnectionPool(config, driver=CountingDriver(), connector=MemoryConnector(serve))


async def get(pool: conpool.ConnectionPool[CountingMemcache], key: str) -> int:
    async with pool.connection(HERE) as conn:
        assert await conn.session.get(key) == key.encode()
        return conn.id


# end server


# begin time
def test_a_session_is_kept_for_a_minute() -> None:
    async def main() -> None:
        async with open_pool(max_idle_time=60) as pool:
            assert await get(pool, "a") == 1
            await trio.sleep(50)
            assert await get(pool, "b") == 1
            await trio.sleep(70)
            assert await get(pool, "c") == 2

    trio.run(main, clock=MockClock(autojump_threshold=0))


# end time


# begin cancel
def test_no_cancellation_leaves_a_reply_to_the_next_caller() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        async with open_pool(max_connections_per_endpoint=1) as pool:
            with scope:
                await get(pool, "given-up")
            await get(pool, "next")
            await wait_all_tasks_blocked()
            assert_quiescent(pool)

    points = cancel_everywhere(scenario, clock=lambda: MockClock(autojump_threshold=0))
    print(f"{points} points of cancellation")


# end cancel


# begin failures
def test_no_failure_leaves_a_reply_to_the_next_caller() -> None:
    async def scenario(failure: Failure) -> None:
        async with open_pool(max_connections_per_endpoint=1) as pool:
            await pool.warm(HERE, 1)
            with failure:
                await get(pool, "failing")
            await get(pool, "next")
            await wait_all_tasks_blocked()
            assert_quiescent(pool)

    calls = fail_everywhere(
        scenario,
        within=["memcache", "memcache_clean"],
        clock=lambda: MockClock(autojump_threshold=0),
    )
    print(f"{calls} calls that failed")


# end failures


# begin schedules
def test_two_callers_and_one_connection_in_every_order() -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            with fixed_order():
                pool = await stack.enter_async_context(open_pool(max_connections_per_endpoint=1))
                await pool.warm(HERE, 1)
            async with trio.open_nursery() as nursery:
                for key in ("a", "b"):
                    nursery.start_soon(get, pool, key)
            with fixed_order():
                assert_quiescent(pool)
                await stack.aclose()

    print(f"{explore_schedules(scenario)} orders")


# end schedules

if __name__ == "__main__":
    test_a_session_is_kept_for_a_minute()
    test_no_cancellation_leaves_a_reply_to_the_next_caller()
    test_no_failure_leaves_a_reply_to_the_next_caller()
    test_two_callers_and_one_connection_in_every_order()
