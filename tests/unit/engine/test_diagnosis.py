"""What the pool warns of at once: deadlocks, a pool for each request, leases that outlive it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, ConnectionPool, EndpointGroup, Target
from conpool._engine.diagnosis import HANDFUL
from conpool._lending.waiting import park
from tests.support.pools import HERE, THERE, Network, make_pool, open_pool, settle, use

# ── deadlocks ───────────────────────────────────────────────────────────────────


def deadlocks(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of which endpoints the log tells that they were in a deadlock."""
    records = [record for record in caplog.records if "deadlock at" in record.getMessage()]
    assert {record.levelno for record in records} <= {logging.WARNING}
    return [vars(record)["endpoint"] for record in records]


async def acquire_twice(
    pool: ConnectionPool[None], first: Target = HERE, second: Target = HERE
) -> None:
    async with pool.connection(first):
        await settle()
        async with pool.connection(second):
            pass


async def run_until_all_wait(nursery: trio.Nursery, *jobs: Callable[[], Awaitable[Any]]) -> None:
    for job in jobs:
        nursery.start_soon(job)
    await settle()
    await settle()  # those who had settled, too, have gone on


async def test_a_deadlock_is_told_when_its_last_holder_goes_to_sleep(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        open_pool(max_connections_per_endpoint=2, name="orders") as pool,
        trio.open_nursery() as nursery,
    ):
        other = await pool.acquire(HERE)
        await run_until_all_wait(nursery, partial(acquire_twice, pool))
        assert deadlocks(caplog) == []
        nursery.start_soon(pool.acquire, HERE)
        await settle()
        assert deadlocks(caplog) == [], "one of the holders is awake"
        with trio.move_on_after(1.0):
            await pool.acquire(HERE)
        assert deadlocks(caplog) == [str(HERE)]
        (record,) = caplog.records
        text = record.getMessage()
        assert text.startswith(f"pool orders: deadlock at {HERE}: ")
        assert text.count("has held connection") == 2
        assert "waits in acquire_twice" in text
        nursery.cancel_scope.cancel()
        pool.release(other)


async def test_a_deadlock_is_told_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool(max_connections_per_endpoint=1) as pool:
        for _ in range(3):
            with trio.move_on_after(1.0):
                await acquire_twice(pool)
    assert deadlocks(caplog) == [str(HERE)]


async def test_each_endpoint_has_its_own_warning(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool(max_connections_per_endpoint=1) as pool:
        for endpoint in (HERE, THERE):
            with trio.move_on_after(1.0):
                await acquire_twice(pool, endpoint, endpoint)
    assert deadlocks(caplog) == [str(HERE), str(THERE)]


async def test_a_deadlock_across_endpoints_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        await run_until_all_wait(
            nursery,
            partial(acquire_twice, pool, HERE, THERE),
            partial(acquire_twice, pool, THERE, HERE),
        )
        assert len(deadlocks(caplog)) == 1
        nursery.cancel_scope.cancel()


async def test_a_deadlock_of_all_members_of_a_group_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    group = EndpointGroup([HERE, THERE])
    async with (
        open_pool(max_connections_per_endpoint=1, has_groups=True) as pool,
        trio.open_nursery() as nursery,
    ):
        await run_until_all_wait(
            nursery,
            partial(acquire_twice, pool, HERE, group),
            partial(acquire_twice, pool, THERE, group),
        )
        assert deadlocks(caplog) == [str(group)]
        (record,) = caplog.records
        assert record.getMessage().count("has held connection") == 2
        nursery.cancel_scope.cancel()


async def test_a_deadlock_at_one_member_is_none_of_the_group(
    caplog: pytest.LogCaptureFixture,
) -> None:
    group = EndpointGroup([HERE, THERE])
    async with (
        open_pool(max_connections_per_endpoint=1, has_groups=True) as pool,
        trio.open_nursery() as nursery,
        pool.connection(THERE),
    ):
        await run_until_all_wait(nursery, partial(acquire_twice, pool, HERE, HERE))
        assert deadlocks(caplog) == [str(HERE)]
        await run_until_all_wait(nursery, partial(pool.acquire, group))
        assert pool.stats(group).waiting == 2
        nursery.cancel_scope.cancel()
    assert deadlocks(caplog) == [str(HERE)]


async def test_a_deadlock_over_the_pool_wide_limit_is_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool(max_connections=1) as pool:
        with trio.move_on_after(1.0):
            await acquire_twice(pool, HERE, THERE)
    (record,) = caplog.records
    assert "of the whole pool" in record.getMessage()
    assert f"connection 1 to {HERE}" in record.getMessage()


async def test_those_who_wait_for_holders_that_work_are_no_deadlock(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool(max_connections_per_endpoint=2) as pool, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(use, pool)
        nursery.start_soon(acquire_twice, pool)
        held = await pool.acquire(HERE)
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=0)
        await trio.sleep(1)
        pool.release(held)
    assert deadlocks(caplog) == []


async def test_a_search_is_paid_for_by_those_who_wait_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One holder of many is awake: not each of a thousand tasks looks at all the others."""
    count = 250
    async with (
        open_pool(every_step=False, max_connections_per_endpoint=count) as pool,
        trio.open_nursery() as nursery,
    ):
        held = [await pool.acquire(HERE) for _ in range(count)]
        sub = pool._core.subs[HERE]
        *others, awake = sub.limit.borrowers
        sleeper: list[trio.lowlevel.Task] = []

        async def sleep() -> None:
            sleeper.append(trio.lowlevel.current_task())
            await pool.acquire(HERE)

        await run_until_all_wait(nursery, sleep)
        for entry in others:
            for lease in entry.leases:
                lease.holder = sleeper[0]
        searches = 0
        original = type(pool._engine.deadlocks).look

        def look(self: Any, waiter: Any) -> None:
            nonlocal searches
            before = self._unasked
            original(self, waiter)
            searches += before == 0

        monkeypatch.setattr(type(pool._engine.deadlocks), "look", look)
        await run_until_all_wait(nursery, *[partial(pool.acquire, HERE)] * 30)
        assert searches == 10, "each search looks at 249 leases, so two tasks go unasked"
        nursery.cancel_scope.cancel()
        for lease in (lease for entry in (awake, *others) for lease in entry.leases):
            lease.holder = trio.lowlevel.current_task()
        for connection in held:
            pool.release(connection)


def test_only_a_task_that_parks_looks_for_a_deadlock() -> None:
    """The idle hit costs nothing more."""
    names = park.__code__.co_names
    assert "look" in names


# ── a pool for each request ─────────────────────────────────────────────────────


async def handle_request() -> None:
    async with make_pool(Network()) as pool:
        await use(pool)


def sites(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in caplog.messages if "has opened" in text]


async def test_a_pool_for_each_request_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(HANDFUL):
        await handle_request()
    assert sites(caplog) == []
    for _ in range(HANDFUL):
        await handle_request()
    (text,) = sites(caplog)
    assert f"handle_request ({__file__}:" in text
    assert f"has opened {HANDFUL + 1} pools in this run" in text


async def test_pools_that_are_entered_by_hand_count_as_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(HANDFUL + 1):
            await stack.enter_async_context(make_pool(Network()))
    (text,) = sites(caplog)
    assert "test_pools_that_are_entered_by_hand_count_as_well" in text


async def test_a_handful_of_pools_from_each_of_several_lines_is_fine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(HANDFUL):
        await handle_request()
        async with make_pool(Network()) as pool:
            await use(pool)
    assert sites(caplog) == []


def test_each_run_counts_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(HANDFUL + 1):
        trio.run(handle_request)
    assert sites(caplog) == []


# ── leases that outlive the pool ────────────────────────────────────────────────


async def hold(
    pool: ConnectionPool[None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with pool.connection(HERE):
        task_status.started()
        await trio.sleep(1000)


async def test_a_lease_that_outlives_the_grace_is_told_with_its_holder(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        async with make_pool(Network(), shutdown_grace=3.0, name="orders") as pool:
            await nursery.start(hold, pool)
        (record,) = caplog.records
        text = record.getMessage()
        assert record.levelno == logging.WARNING
        assert vars(record)["pool"] == "orders"
        assert "outlived the shutdown_grace of 3 s" in text
        assert "hold' has held connection 1 to here.example:5432 for 3s, waits in hold (" in text
        nursery.cancel_scope.cancel()


async def test_leases_that_end_in_time_are_not_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery, open_pool() as pool:
        await nursery.start(hold, pool)
        nursery.cancel_scope.deadline = trio.current_time() + 1.0
    assert not caplog.records


async def test_a_dozen_of_many_are_named(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        async with make_pool(Network(), max_connections_per_endpoint=20) as pool:
            for _ in range(15):
                await nursery.start(hold, pool)
        nursery.cancel_scope.cancel()
    (text,) = caplog.messages
    assert text.count("has held connection") == 12
    assert text.endswith("\n  and 3 more")


# ── dials ───────────────────────────────────────────────────────────────────────


async def test_a_dial_that_nobody_waits_for_is_told_once_in_an_outage(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "conpool")
    network = Network()
    async with open_pool(
        network, min_idle_per_endpoint=1, connect_timeout=5, name="orders"
    ) as pool:
        await use(pool)
        network.refuse()
        pool.clear(HERE)
        await settle()
        first = caplog.records[0]
        assert first.levelno == logging.WARNING
        assert vars(first)["pool"] == "orders"
        assert vars(first)["endpoint"] == str(HERE)
        assert "a dial that nobody waits for has failed: cannot connect to" in first.getMessage()
        for _ in range(3):
            with pytest.raises(Exception, match="Connection refused"):
                await pool.acquire(HERE)
        later = caplog.records[1:]
        assert len(later) >= 2
        assert {record.levelno for record in later} == {logging.INFO}
        assert "a dial has failed: cannot connect to" in later[-1].getMessage()
        network.silent.add(HERE)
        async with trio.open_nursery() as nursery:
            begun = len(network.dials)
            nursery.start_soon(pool.acquire, HERE)
            await trio.sleep(2.0)  # longer than any back-off
            assert len(network.dials) == begun + 1
            nursery.cancel_scope.cancel()
        await trio.sleep(5.0)
        assert caplog.records[-1].levelno == logging.INFO, "the outage is known"
        assert "a dial that nobody waits for has failed: " in caplog.messages[-1]
        network.accept()
        caplog.clear()
        await use(pool)
        (text,) = caplog.messages
        assert text.startswith("pool orders: dials succeed again: for ")
