"""Too many callers: a queue that sheds load, and callers whose time is up when their turn comes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, ConnectionPool, PoolError, QueueFull
from tests.support.pools import HERE, Network, counts, hold, open_pool, settle, use

CONNECTIONS: Final = 5
SERVICE: Final = 0.1
"""Seconds for which each caller holds its connection, on average."""
SECONDS: Final = 60.0
TIMEOUT: Final = 5.0
CAPACITY: Final = SECONDS * CONNECTIONS / SERVICE
"""How many callers the connections can serve in that time."""


@dataclass
class Load:
    """How so many callers fared."""

    waited: list[float] = field(default_factory=list)
    """For how long each waited that was served, in the order in which they were."""
    errors: list[PoolError] = field(default_factory=list)
    dials: int = 0

    def quantile(self, share: float) -> float:
        return sorted(self.waited)[int(share * len(self.waited))]


async def put_under_load(load: float, target: float | None) -> Load:
    """Have callers come at random, `load` times as many as can be served."""
    chance, result, network = random.Random(1), Load(), Network()

    async def call() -> None:
        since = trio.current_time()
        try:
            async with pool.connection(HERE):
                if since < SECONDS:
                    result.waited.append(trio.current_time() - since)
                await trio.sleep(chance.expovariate(1 / SERVICE))
        except PoolError as error:
            result.errors.append(error)

    async with (
        open_pool(
            network,
            every_step=False,
            acquire_timeout=TIMEOUT,
            max_connections_per_endpoint=CONNECTIONS,
            queue_target_delay=target,
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        while trio.current_time() < SECONDS:
            nursery.start_soon(call)
            await trio.sleep(chance.expovariate(load * CONNECTIONS / SERVICE))
    result.dials = len(network.dials)
    return result


# ── load: F110 ──────────────────────────────────────────────────────────────────


async def test_f110_at_120_percent_without_a_target_every_wait_sits_at_the_time_out(
    autojump_clock: MockClock,
) -> None:
    load = await put_under_load(1.2, None)
    late = load.waited[len(load.waited) // 2 :]
    assert min(late) > 0.8 * TIMEOUT
    assert sorted(late)[len(late) // 2] > 0.95 * TIMEOUT
    assert {type(error) for error in load.errors} == {AcquireTimeout}


@pytest.mark.parametrize("target", [0.1, 0.5])
async def test_f110_at_120_percent_a_target_keeps_waits_short_and_connections_busy(
    target: float, autojump_clock: MockClock
) -> None:
    """As sqlx #3132: nor may the pool open connections because callers give up."""
    load = await put_under_load(1.2, target)
    assert len(load.waited) >= 0.95 * CAPACITY
    assert load.quantile(0.99) <= 4 * target
    assert {type(error) for error in load.errors} == {QueueFull}
    assert load.dials == CONNECTIONS


async def test_at_80_percent_hardly_anybody_is_turned_away(autojump_clock: MockClock) -> None:
    load = await put_under_load(0.8, 0.2)
    assert len(load.errors) < 0.01 * len(load.waited)


# ── what it looks like to one caller ────────────────────────────────────────────


async def test_one_who_is_turned_away_learns_why(autojump_clock: MockClock) -> None:
    errors: list[QueueFull] = []

    async def call(pool: ConnectionPool[Any]) -> None:
        try:
            await hold(pool, seconds=1)
        except QueueFull as error:
            errors.append(error)

    async with (
        open_pool(max_connections_per_endpoint=1, queue_target_delay=0.5) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(8):
            nursery.start_soon(call, pool)
    assert len(errors) >= 3
    assert "load is shed" in str(errors[0])
    assert "queue_target_delay" in str(errors[0])
    assert errors[0].endpoint == HERE


# ── one whose time is up when its turn comes ────────────────────────────────────


async def test_one_whose_time_is_up_gets_no_connection_though_nobody_has_told_it_yet(
    mock_clock: MockClock,
) -> None:
    """Something has kept the whole program busy for six seconds."""
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        lease = await pool.acquire(HERE)
        nursery.start_soon(time_out, pool)
        await settle()
        patient = await start_patient(pool, nursery)
        mock_clock.jump(6)
        pool.release(lease)
        assert counts(pool) == {"active": 1}
        await patient.wait()


async def time_out(pool: ConnectionPool[Any]) -> None:
    with pytest.raises(AcquireTimeout):
        await pool.acquire(HERE, timeout=5)


async def start_patient(pool: ConnectionPool[Any], nursery: trio.Nursery) -> trio.Event:
    served = trio.Event()

    async def wait() -> None:
        await use(pool)
        served.set()

    nursery.start_soon(wait)
    await settle()
    return served


async def test_also_one_whose_own_deadline_has_passed(mock_clock: MockClock) -> None:
    """The pool cannot know of that. trio tells the caller before it runs, and it gives back."""
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        lease = await pool.acquire(HERE)

        async def give_up() -> None:
            with trio.move_on_after(5) as scope:
                await pool.acquire(HERE)
            assert scope.cancelled_caught

        nursery.start_soon(give_up)
        await settle()
        patient = await start_patient(pool, nursery)
        mock_clock.jump(6)
        pool.release(lease)
        await patient.wait()


async def test_one_whose_own_deadline_has_passed_when_it_asks_does_not_queue(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections_per_endpoint=1) as pool, pool.connection(HERE):
        with trio.move_on_at(trio.current_time()) as scope:
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        assert counts(pool) == {"active": 1}
