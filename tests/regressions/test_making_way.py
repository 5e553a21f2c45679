"""Slots that somebody needs: what makes way for whom, in which order, and what need not wait.

A pool-wide limit was filled with dials and checks for nobody, and callers of other endpoints waited
until those had timed out.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from conpool import (
    AcquireTimeout,
    CloseReason,
    ConnectError,
    Connection,
    ConnectionInfo,
    ConnectionPool,
    Endpoint,
    Observer,
    PoolError,
    QueueFull,
)
from conpool._core.gate import CEILING
from tests.support.pools import (
    HERE,
    THERE,
    Network,
    counts,
    exchange,
    hold,
    open_pool,
    reasons,
    settle,
    use,
)

A, B, C = (Endpoint(f"{name}.example", 1) for name in "abc")


class Evictions(Observer):
    """Whose connections made way, in order."""

    def __init__(self) -> None:
        self.of: list[Endpoint] = []

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        if reason is CloseReason.EVICTED:
            assert isinstance(info.endpoint, Endpoint)
            self.of.append(info.endpoint)


async def give_up(pool: ConnectionPool[None], endpoint: Endpoint, after: float = 1.0) -> None:
    with trio.move_on_after(after):
        await pool.acquire(endpoint)


async def all_give_up(pool: ConnectionPool[None], endpoint: Endpoint, tasks: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(give_up, pool, endpoint)


async def hang(connection: Connection[None]) -> bool:
    if connection.endpoint == HERE:
        await trio.sleep_forever()
    return True


# ── F129: slots held by what nobody waits for ───────────────────────────────────


@asynccontextmanager
async def full_of_abandoned_dials(network: Network) -> AsyncIterator[ConnectionPool[None]]:
    """golang/go #76784: the requests have gone, their dials go on."""
    network.silent.add(HERE)
    async with open_pool(network, max_connections=5, connect_timeout=60) as pool:
        await all_give_up(pool, HERE, 5)
        assert counts(pool) == {"connecting": 5}
        yield pool


@asynccontextmanager
async def full_of_warming_dials(network: Network) -> AsyncIterator[ConnectionPool[None]]:
    network.silent.add(HERE)
    async with (
        open_pool(network, max_connections=5, connect_timeout=60) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.warm, HERE, 5)
        await settle()
        assert counts(pool) == {"connecting": 5}
        yield pool
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def full_of_dials_for_min_idle(network: Network) -> AsyncIterator[ConnectionPool[None]]:
    async with open_pool(
        network, max_connections=5, connect_timeout=60, min_idle_per_endpoint=5
    ) as pool:
        async with pool.connection(HERE):
            network.silent.add(HERE)
        await settle()
        assert counts(pool) == {"idle": 1, "connecting": 4}
        yield pool


@asynccontextmanager
async def full_of_abandoned_checks(network: Network) -> AsyncIterator[ConnectionPool[None]]:
    async with open_pool(
        network, max_connections=5, health_check=hang, health_check_timeout=60
    ) as pool:
        await pool.warm(HERE, 5)
        await all_give_up(pool, HERE, 5)
        assert counts(pool) == {"active": 5}
        yield pool


@asynccontextmanager
async def full_of_background_checks(network: Network) -> AsyncIterator[ConnectionPool[None]]:
    async with open_pool(
        network,
        max_connections=5,
        health_check=hang,
        health_check_timeout=60,
        health_check_interval=1,
        reap_interval=1,
    ) as pool:
        await pool.warm(HERE, 5)
        await trio.sleep(2.5)
        assert 1 <= len(pool._core.subs[HERE].reserved) <= 2, "a few at a time, and never all"
        yield pool


@pytest.mark.parametrize(
    "full",
    [
        full_of_abandoned_dials,
        full_of_warming_dials,
        full_of_dials_for_min_idle,
        full_of_abandoned_checks,
        full_of_background_checks,
    ],
)
async def test_f129_what_nobody_waits_for_makes_way_at_once(
    full: Callable[[Network], AsyncIterator[ConnectionPool[None]]], autojump_clock: MockClock
) -> None:
    """G16: another endpoint's callers are served within a round trip, one after the other."""
    async with full(Network()) as pool:  # type: ignore[attr-defined]
        since = trio.current_time()
        leases = [await pool.acquire(THERE) for _ in range(5)]
        assert trio.current_time() == since
        assert counts(pool, THERE) == {"active": 5}
        for lease in leases:
            await exchange(lease)
            pool.release(lease)
        assert trio.current_time() == since


async def test_f129_a_dial_that_somebody_waits_for_stays(autojump_clock: MockClock) -> None:
    network = Network(delay=3)
    async with open_pool(network, max_connections=2) as pool, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(hold, pool, HERE, 1)
        await settle()
        await use(pool, endpoint=THERE)
        assert trio.current_time() >= 4
        assert [endpoint for _, endpoint in network.dials] == [HERE, HERE, THERE]


async def test_f129_no_more_is_given_up_than_others_need(autojump_clock: MockClock) -> None:
    async with full_of_abandoned_dials(Network()) as pool, pool.connection(THERE):
        assert counts(pool) == {"connecting": 4}


# ── F130: working connections for dials that fail ───────────────────────────────


async def test_f130_an_endpoint_in_failure_takes_one_slot_and_no_more(
    autojump_clock: MockClock,
) -> None:
    """A dead endpoint had 57 to 73 working connections closed in ten minutes."""
    network, evictions = Network(), Evictions()
    network.refuse(HERE)
    async with (
        open_pool(network, max_connections=5, observers=[evictions], max_idle_time=3600) as pool,
        trio.open_nursery() as nursery,
    ):
        await pool.warm(THERE, 5)

        async def ask() -> None:
            while True:
                with pytest.raises(PoolError):
                    await pool.acquire(HERE)

        nursery.start_soon(ask)
        await settle()  # by now it is known to be in failure
        for _ in range(9):
            nursery.start_soon(ask)
        await trio.sleep(600)
        assert len(network.dials) > 400
        assert evictions.of == [THERE]
        nursery.cancel_scope.cancel()


async def test_f130_where_others_take_the_slot_back_it_is_one_a_delay(
    autojump_clock: MockClock,
) -> None:
    network, evictions = Network(), Evictions()
    network.refuse(HERE)
    async with (
        open_pool(
            network, max_connections=5, observers=[evictions], max_idle_time=3600, every_step=False
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        await pool.warm(THERE, 5)

        async def ask() -> None:
            while True:
                with pytest.raises(PoolError):
                    await pool.acquire(HERE)

        async def be_busy() -> None:
            while True:
                leases = [await pool.acquire(THERE) for _ in range(5)]
                for lease in leases:
                    pool.release(lease)
                await trio.sleep(0.05)

        for _ in range(10):
            nursery.start_soon(ask)
        nursery.start_soon(be_busy)
        await trio.sleep(60)
        attempts = sum(endpoint == HERE for _, endpoint in network.dials)
        assert len(evictions.of) <= attempts
        assert attempts <= 60 / CEILING * 4
        nursery.cancel_scope.cancel()


# ── F146: dials that may never be lent ──────────────────────────────────────────


@pytest.mark.parametrize("interrupts", [False, True])
@pytest.mark.parametrize("limit", [3, 10])
async def test_f146_who_asks_after_a_clear_does_not_wait_for_dials_before_it(
    interrupts: bool, limit: int, autojump_clock: MockClock
) -> None:
    network = Network()
    network.silent.add(HERE)
    async with open_pool(network, max_connections_per_endpoint=limit, connect_timeout=20) as pool:
        await all_give_up(pool, HERE, 3)
        assert counts(pool) == {"connecting": 3}
        network.accept()
        pool.clear(HERE, interrupt_in_use=interrupts)
        async with pool.connection(HERE) as connection:
            await exchange(connection)
        assert trio.current_time() == 1
        assert [at for at, _ in network.dials] == [0, 0, 0, 1]
        await settle()
        assert counts(pool) == {"idle": 1}


async def test_f146_who_waited_before_the_clear_gets_a_dial_of_its_own(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    network.silent.add(HERE)
    async with open_pool(network, connect_timeout=20) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(use, pool)
        await trio.sleep(1)
        network.accept()
        pool.clear(HERE)
        await settle()
        assert counts(pool) == {"idle": 1}
        assert [at for at, _ in network.dials] == [0, 1]
    assert trio.current_time() == 1


async def test_f146_under_a_pool_wide_limit_they_make_way_for_others(
    autojump_clock: MockClock,
) -> None:
    async with full_of_abandoned_dials(Network()) as pool:
        pool.clear(HERE)
        since = trio.current_time()
        assert await use(pool, 5, THERE)
        assert trio.current_time() == since


# ── F148: what needs no waiting ─────────────────────────────────────────────────


@pytest.mark.parametrize("most", [None, 0])
async def test_f148_where_nobody_may_wait_an_idle_connection_elsewhere_makes_way(
    most: int | None,
) -> None:
    async with open_pool(max_connections=2, max_waiting_per_endpoint=most) as pool:
        await use(pool, endpoint=A)
        await use(pool, endpoint=B)
        async with pool.connection(C):
            assert (counts(pool, A), counts(pool, B)) == ({}, {"idle": 1})


@pytest.mark.parametrize("most", [None, 0])
async def test_f148_where_nobody_may_wait_a_fresh_one_takes_the_place_of_an_idle_one(
    most: int | None,
) -> None:
    options = {"max_connections_per_endpoint": 1, "max_waiting_per_endpoint": most}
    async with open_pool(None, **options) as pool:  # type: ignore[arg-type]
        await use(pool)
        async with pool.connection(HERE, fresh=True) as connection:
            assert connection.id == 2
        assert reasons(pool) == {"EVICTED": 1}


async def test_f148_where_nobody_may_wait_a_dial_for_nobody_makes_way(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    network.silent.add(HERE)
    async with open_pool(network, max_connections=1, max_waiting_per_endpoint=0) as pool:
        await all_give_up(pool, HERE, 1)
        async with pool.connection(THERE):
            assert trio.current_time() == 1


async def test_f148_who_would_have_to_wait_is_turned_away(autojump_clock: MockClock) -> None:
    async with (
        open_pool(max_connections=1, max_waiting_per_endpoint=0) as pool,
        pool.connection(HERE),
    ):
        with pytest.raises(QueueFull):
            await pool.acquire(THERE)


# ── F153: who has been idle for longest ─────────────────────────────────────────


async def nothing(pool: ConnectionPool[None]) -> None:
    """Do nothing to the connection that has been idle for longest."""
    await trio.sleep(10)


async def cancelled_acquire(pool: ConnectionPool[None]) -> None:
    """Take it, and be cancelled before the lease begins."""

    class CancelsInThatTick(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if counts(pool, A) == {"active": 1}:
                scope.cancel()

    instrument = CancelsInThatTick()
    trio.lowlevel.add_instrument(instrument)
    with trio.CancelScope() as scope:
        await pool.acquire(A)
    trio.lowlevel.remove_instrument(instrument)
    assert scope.cancelled_caught
    await trio.sleep(10)


async def background_check(pool: ConnectionPool[None]) -> None:
    """Have it asked in the background: `A` answers late."""
    await trio.sleep(10)


async def abandoned_check(pool: ConnectionPool[None]) -> None:
    """Have it asked for a caller that gives up."""
    await give_up(pool, A, after=0.05)
    await trio.sleep(10)


async def without_waiting(pool: ConnectionPool[None]) -> None:
    """Try it with an acquire that has no time for its check."""
    with pytest.raises(AcquireTimeout):
        await pool.acquire(A, timeout=0)
    await trio.sleep(10)


@pytest.mark.parametrize(
    ("what", "settings"),
    [
        (nothing, {}),
        (cancelled_acquire, {"health_check_after": math.inf}),
        (background_check, {"health_check_after": math.inf, "health_check_interval": 15}),
        (abandoned_check, {}),
        (without_waiting, {}),
    ],
)
async def test_f153_looking_at_a_connection_makes_it_no_younger(
    what: Callable[[ConnectionPool[None]], Awaitable[None]],
    settings: dict[str, float],
    autojump_clock: MockClock,
) -> None:
    async def check(connection: Connection[None]) -> bool:
        await trio.sleep(0.1 if connection.endpoint == A else 0)
        return True

    evictions = Evictions()
    async with open_pool(
        None,
        observers=[evictions],
        max_connections=2,
        max_idle_time=1000,
        health_check=check,
        **settings,  # type: ignore[arg-type]
    ) as pool:
        await use(pool, endpoint=A)
        await trio.sleep(10)
        await use(pool, endpoint=B)
        await trio.sleep(10)
        await what(pool)
        async with pool.connection(C):
            assert evictions.of == [A]


async def test_f153_the_reaper_closes_it_when_its_time_is_up(autojump_clock: MockClock) -> None:
    """By the end of its last use, however often it was taken and put back since."""
    async with open_pool(max_idle_time=60, reap_interval=1) as pool:
        await use(pool, endpoint=A)
        for _ in range(5):
            await cancelled_acquire(pool)
        assert counts(pool, A) == {"idle": 1}
        await trio.sleep(11)
        assert counts(pool, A) == {}
        assert pool.all_stats().closed_by_reason == {CloseReason.IDLE_TIME: 1}


async def test_f129_an_error_of_an_endpoint_that_gave_up_its_dials_is_not_its_peers(
    autojump_clock: MockClock,
) -> None:
    """A dial that made way says nothing of its server: there is no outage, and no delay."""
    async with full_of_abandoned_dials(Network()) as pool:
        await use(pool, 5, THERE)
        gate = pool._core.subs[HERE].gate
        assert (gate.is_failing, gate.last_error, gate.outage_since) == (False, None, None)
        with pytest.raises(ConnectError):  # by its own time-out
            await pool.acquire(HERE, timeout=100)
