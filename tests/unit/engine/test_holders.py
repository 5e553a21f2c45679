"""What a time-out tells its victim: who holds the connections, and whether that can ever end."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, Connection, ConnectionPool, Endpoint
from tests.support.pools import HERE, THERE, Network, counts, hold, open_pool, settle


async def time_out(pool: ConnectionPool[None], endpoint: Endpoint = HERE) -> AcquireTimeout:
    with pytest.raises(AcquireTimeout) as caught:
        await pool.acquire(endpoint)
    return caught.value


async def browse(pool: ConnectionPool[None], *, task_status: trio.TaskStatus[None]) -> None:
    async with pool.connection(HERE):
        task_status.started()
        await read_the_news()


async def read_the_news() -> None:
    await trio.sleep(100)


async def test_holder_is_named_with_its_place_and_its_time(autojump_clock: MockClock) -> None:
    """F100: and nothing is closed."""
    async with (
        open_pool(max_connections_per_endpoint=1, acquire_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(browse, pool, name="reader")
        await trio.sleep(2)
        error = await time_out(pool)
        (holder,) = error.holders
        assert holder.startswith("task 'reader' has held connection 1 for 7s, waits in ")
        assert "read_the_news" in holder
        assert __file__ in holder
        assert holder in str(error)
        assert not error.deadlock
        assert "deadlock" not in str(error)
        assert "remedies" in str(error)
        assert counts(pool) == {"active": 1}
        nursery.cancel_scope.cancel()


async def test_longest_holder_comes_first(autojump_clock: MockClock) -> None:
    """F100"""
    async with (
        open_pool(max_connections_per_endpoint=3, acquire_timeout=1) as pool,
        trio.open_nursery() as nursery,
    ):
        for name in ("first", "second", "third"):
            await nursery.start(browse, pool, name=name)
            await trio.sleep(1)
        error = await time_out(pool)
        assert [holder.split("'")[1] for holder in error.holders] == [
            "first",
            "second",
            "third",
        ]
        nursery.cancel_scope.cancel()


async def test_only_holders_of_the_endpoint_are_named(autojump_clock: MockClock) -> None:
    async with (
        open_pool(max_connections_per_endpoint=1, acquire_timeout=1) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(hold, pool, THERE, 100, name="elsewhere")
        await nursery.start(hold, pool, HERE, 100, name="here")
        error = await time_out(pool)
        assert [holder.split("'")[1] for holder in error.holders] == ["here"]
        nursery.cancel_scope.cancel()


async def test_task_that_nests_is_told_that_it_waits_for_itself(autojump_clock: MockClock) -> None:
    """F098: a time-out and no hang, with its `deadlock` flag set."""
    async with open_pool(max_connections_per_endpoint=1, acquire_timeout=5) as pool:
        async with pool.connection(HERE):
            error = await time_out(pool)
        assert trio.current_time() == 5
        assert error.deadlock
        assert error.holders[0].endswith("the caller itself")
        assert str(error).count("caller itself") == 1
        assert "deadlock" in str(error)


async def test_tasks_that_nest_learn_that_they_wait_for_each_other(
    autojump_clock: MockClock,
) -> None:
    """F098: whichever of them asks, at whatever moment."""
    errors: list[AcquireTimeout] = []

    async def nest(pool: ConnectionPool[None], pause: float) -> None:
        async with pool.connection(HERE):
            await trio.sleep(pause)
            errors.append(await time_out(pool))
            await trio.sleep(10)

    async with open_pool(max_connections_per_endpoint=3, acquire_timeout=5) as pool:
        async with trio.open_nursery() as nursery:
            for pause in (1.0, 1.5, 2.0):
                nursery.start_soon(nest, pool, pause)
        assert [error.deadlock for error in errors] == [True, False, False]


@pytest.mark.parametrize("timeout", [None, 5.0])
async def test_tasks_that_time_out_in_the_same_instant_all_learn_of_the_deadlock(
    timeout: float | None, autojump_clock: MockClock
) -> None:
    """F098: each of them was waiting when the time was up."""
    errors: list[AcquireTimeout] = []

    async def nest(pool: ConnectionPool[None]) -> None:
        async with pool.connection(HERE):
            await settle()
            with pytest.raises(AcquireTimeout) as caught:
                await pool.acquire(HERE, timeout=timeout)
            errors.append(caught.value)

    async with open_pool(max_connections_per_endpoint=3, acquire_timeout=5) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(nest, pool)
        assert [error.deadlock for error in errors] == [True, True, True]
        assert trio.current_time() == 5


async def test_task_that_waits_for_a_dial_is_in_no_deadlock(autojump_clock: MockClock) -> None:
    """It holds one connection and waits for another, but not for one that somebody holds."""
    network = Network()
    async with open_pool(network, max_connections_per_endpoint=2, acquire_timeout=5) as pool:
        async with pool.connection(HERE):
            network.silent.add(HERE)
            error = await time_out(pool)
        assert error.phase == "connect"
        assert not error.deadlock
        assert error.stats.connecting == 1


async def test_task_that_waits_for_the_end_of_a_pause_is_in_no_deadlock(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections_per_endpoint=2, acquire_timeout=5) as pool:
        async with pool.connection(HERE):
            pool.pause(HERE)
            error = await time_out(pool)
        assert not error.deadlock
        pool.resume(HERE)


async def test_nesting_under_the_pool_wide_limit_is_a_deadlock_too(
    autojump_clock: MockClock,
) -> None:
    """F098"""
    async with open_pool(max_connections=1, acquire_timeout=5) as pool, pool.connection(HERE):
        assert (await time_out(pool)).deadlock


async def test_holder_that_has_ended_is_named_as_such(autojump_clock: MockClock) -> None:
    """The lease was passed on, and its first task is no more."""
    leases: list[Connection[None]] = []

    async def acquire(pool: ConnectionPool[None]) -> None:
        leases.append(await pool.acquire(HERE))

    async with open_pool(max_connections_per_endpoint=1, acquire_timeout=5) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(acquire, pool, name="gone")
        error = await time_out(pool)
        assert error.holders == ("task 'gone' has held connection 1 for 5s, has ended",)
        assert not error.deadlock
        pool.release(leases.pop())


async def test_holder_that_waits_inside_the_pool_is_found_where_it_called(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_pool(max_connections_per_endpoint=1, acquire_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(hold_and_ask, pool, name="nested")
        error = await time_out(pool)
        assert "waits in hold_and_ask (" in error.holders[0]
        assert error.deadlock
        nursery.cancel_scope.cancel()


async def hold_and_ask(pool: ConnectionPool[None], *, task_status: trio.TaskStatus[None]) -> None:
    async with pool.connection(HERE):
        task_status.started()
        await pool.acquire(HERE, timeout=100)


async def test_checked_connection_is_held_by_its_check(autojump_clock: MockClock) -> None:
    async def hang(connection: Connection[None]) -> bool:
        await trio.sleep_forever()
        raise AssertionError

    async with open_pool(
        max_connections_per_endpoint=1, acquire_timeout=2, health_check=hang
    ) as pool:
        async with pool.connection(HERE):
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.warm, HERE, 1, name="warm")
            nursery.start_soon(check_for_ever, pool, name="checker")
            await settle()
            error = await time_out(pool)
            assert error.holders[0].startswith(
                "task 'conpool check of here.example:5432' has held connection 1 for 2s"
            )
            nursery.cancel_scope.cancel()


async def check_for_ever(pool: ConnectionPool[None]) -> None:
    await pool.acquire(HERE, timeout=100)


async def test_who_does_not_wait_at_all_is_in_no_deadlock(autojump_clock: MockClock) -> None:
    """With a time-out of 0 there was no waiting, and so nothing that could not end."""
    async with open_pool(max_connections_per_endpoint=1) as pool, pool.connection(HERE):
        with pytest.raises(AcquireTimeout) as caught:
            await pool.acquire(HERE, timeout=0)
        assert "the caller itself" in str(caught.value)
        assert not caught.value.deadlock
