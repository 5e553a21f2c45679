"""What happens with no traffic at all: reaping, warmth, checks in the background, forgetting."""

from __future__ import annotations

import time
from random import Random

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock, memory_stream_pair

from conpool import (
    AnyEndpoint,
    CloseReason,
    Connection,
    ConnectionPool,
    Connector,
    Endpoint,
)
from conpool._core.core import KEEP_BARE
from conpool._pool import reap
from conpool._stats.memory import KEPT
from tests.support.pools import (
    HERE,
    THERE,
    Network,
    counts,
    exchange,
    hold,
    listen,
    make_pool,
    open_pool,
    reasons,
    settle,
    use,
)

Lease = Connection[None]


def all_reasons(pool: ConnectionPool[None]) -> dict[str, int]:
    """Return how many connections were closed for each reason, at endpoints long forgotten too."""
    return {reason.name: count for reason, count in pool.all_stats().closed_by_reason.items()}


# ── the reaper ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reap_interval", [0.5, 5.0, 7.0])
async def test_idle_connection_is_closed_on_time_with_no_traffic(
    reap_interval: float, autojump_clock: MockClock
) -> None:
    """G22"""
    network = Network()
    async with open_pool(network, max_idle_time=20, reap_interval=reap_interval) as pool:
        await trio.sleep(3.3)
        await use(pool)
        await trio.sleep(19.999)
        assert network.live == 1
        await trio.sleep(reap_interval + 0.001)
        assert network.live == 0
        assert reasons(pool) == {"IDLE_TIME": 1}


async def test_idle_connection_is_closed_at_the_end_of_its_lifetime(
    autojump_clock: MockClock,
) -> None:
    """G22"""
    async with open_pool(max_idle_time=1000, max_connection_lifetime=50, reap_interval=5) as pool:
        await use(pool)
        await trio.sleep(49.9)
        assert counts(pool) == {"idle": 1}
        await trio.sleep(5.1)
        assert (counts(pool), all_reasons(pool)) == ({}, {"LIFETIME": 1})


async def test_connection_in_use_is_not_reaped(autojump_clock: MockClock) -> None:
    """G21: it is closed when it comes back."""
    async with open_pool(max_idle_time=1, max_connection_lifetime=2, reap_interval=1) as pool:
        async with pool.connection(HERE) as connection:
            await trio.sleep(100)
            assert await exchange(connection) == b"ping"
        assert (counts(pool), reasons(pool)) == ({}, {"LIFETIME": 1})


async def test_surplus_of_a_peak_ages_out_while_the_rest_is_used(
    autojump_clock: MockClock,
) -> None:
    """F085: the newest is lent first, so that the others stay idle long enough."""
    async with open_pool(max_idle_time=10, reap_interval=1) as pool:
        await use(pool, 5)
        for _ in range(15):
            await trio.sleep(1)
            await use(pool)
        assert counts(pool) == {"idle": 1}
        assert reasons(pool) == {"IDLE_TIME": 4}


async def test_wall_clock_that_is_set_changes_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F081"""
    now = time.time()
    async with open_pool(max_idle_time=20, reap_interval=1) as pool:
        await use(pool)
        for step in (3600, -3600, 0):
            monkeypatch.setattr(time, "time", lambda step=step: now + step)
            await trio.sleep(3)
            assert await use(pool) == [1]
        assert reasons(pool) == {}


@pytest.mark.parametrize("jitter", [0.0, 0.1, 1.0])
async def test_jitter_only_shortens_a_life(
    jitter: float, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G22 F126"""
    closed_after: list[float] = []

    def closed(info: object, reason: CloseReason) -> None:
        if reason is CloseReason.LIFETIME:
            closed_after.append(trio.current_time())

    async with open_pool(
        max_connections_per_endpoint=200,
        max_connection_lifetime=100,
        lifetime_jitter=jitter,
        max_idle_time=1000,
        reap_interval=0.25,
        on_closed=closed,
        every_step=False,
    ) as pool:
        pool._core._random = Random(1)
        await use(pool, 200)
        await trio.sleep(101)
    assert len(closed_after) == 200
    assert max(closed_after) <= 100.25
    assert min(closed_after) >= 100 * (1 - jitter)
    spread = max(closed_after) - min(closed_after)
    assert spread == 0 if jitter == 0 else spread > 80 * jitter


async def test_long_sweep_lets_others_run(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G16"""
    monkeypatch.setattr(reap, "_BATCH", 10)
    steps = 0

    async def count_steps() -> None:
        nonlocal steps
        while True:
            await trio.lowlevel.checkpoint()
            steps += 1

    async with open_pool(max_connections_per_endpoint=50, max_idle_time=10) as pool:
        await use(pool, 50)
        for number in range(50):
            pool.set_limit(Endpoint(f"host{number}.example", 80), 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_steps)
            await trio.lowlevel.checkpoint()
            before = steps
            await pool._lifecycle._reaper.sweep()
            assert steps - before >= 8
            nursery.cancel_scope.cancel()


async def test_reaper_leaves_alone_what_was_taken_while_it_swept(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F083: exactly one owner."""
    monkeypatch.setattr(reap, "_BATCH", 2)
    async with open_pool(
        max_connections_per_endpoint=20, max_idle_time=10, reap_interval=60
    ) as pool:
        await use(pool, 20)
        await trio.sleep(9)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool._lifecycle._reaper.sweep)
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            lease = await pool.acquire(HERE)
            autojump_clock.jump(2)  # now the sweep may close whatever is idle
        await settle()
        assert counts(pool)["active"] == 1
        assert 0 < counts(pool)["idle"] < 10, "some were looked at before, and the rest was closed"
        assert await exchange(lease) == b"ping"
        pool.release(lease)


# ── warmth ──────────────────────────────────────────────────────────────────────


async def test_endpoint_in_use_is_kept_warm(autojump_clock: MockClock) -> None:
    async with open_pool(min_idle_per_endpoint=3) as pool:
        async with pool.connection(HERE):
            await settle()
            assert counts(pool) == {"active": 1, "idle": 3}
        assert counts(pool) == {"idle": 4}


async def test_warmth_that_aged_is_renewed(autojump_clock: MockClock) -> None:
    async with open_pool(
        min_idle_per_endpoint=2, max_connection_lifetime=10, max_idle_time=1000, reap_interval=1
    ) as pool:
        await use(pool)
        await trio.sleep(25)
        assert counts(pool) == {"idle": 2}
        assert set(reasons(pool)) == {"LIFETIME"}
        assert pool.stats(HERE).total_created <= 7


async def test_warmth_lapses_where_nobody_asks_any_more(autojump_clock: MockClock) -> None:
    network = Network()
    async with open_pool(
        network, min_idle_per_endpoint=2, max_idle_time=20, reap_interval=1
    ) as pool:
        await use(pool)
        await trio.sleep(19)
        assert counts(pool) == {"idle": 3}
        await trio.sleep(1000)
        assert network.live == 0
        assert len(network.dials) == 3
        assert HERE not in pool._core.subs
        await use(pool)
        await settle()
        assert counts(pool) == {"idle": 3}


async def test_warmth_never_evicts(autojump_clock: MockClock) -> None:
    async with open_pool(min_idle_per_endpoint=1, max_connections=2) as pool:
        async with pool.connection(THERE), pool.connection(HERE):
            await trio.sleep(20)
            assert counts(pool) == counts(pool, THERE) == {"active": 1}
        await trio.sleep(20)
        assert counts(pool) == counts(pool, THERE) == {"idle": 1}
        # What was dialled for warmth was given up as soon as somebody needed its slot.
        assert all_reasons(pool) == {}


async def test_warmth_never_goes_before_a_waiter(autojump_clock: MockClock) -> None:
    """G13"""
    async with open_pool(
        Network(delay=1), min_idle_per_endpoint=2, max_connections_per_endpoint=2
    ) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(hold, pool, HERE, 1.0)
        assert trio.current_time() == 4
        assert pool.stats(HERE).total_created == 2


async def test_warmth_of_a_dead_server_is_tried_rarely(autojump_clock: MockClock) -> None:
    """G31"""
    network = Network()
    async with (
        open_pool(network, min_idle_per_endpoint=3, reap_interval=1) as pool,
        pool.connection(HERE),
    ):
        await settle()
        network.refuse()
        pool.close_idle()
        tried = len(network.dials)
        await trio.sleep(30)
        assert len(network.dials) - tried <= 60
        network.accept()
        await trio.sleep(3)
        assert counts(pool) == {"active": 1}  # nobody has found out that it is back
        await use(pool)
        await trio.sleep(3)
        assert counts(pool) == {"active": 1, "idle": 4}


async def test_f127_server_that_comes_back_is_warm_again_once_somebody_is_served(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    network.refuse()
    async with open_pool(network, min_idle_per_endpoint=1) as pool:
        with pytest.raises(OSError):
            await pool.acquire(HERE)
        tried = len(network.dials)
        await trio.sleep(60)
        assert len(network.dials) == tried  # for nobody, a login is not refused again and again
        network.accept()
        async with pool.connection(HERE):
            await trio.sleep(5)
            assert counts(pool) == {"active": 1, "idle": 1}


# ── checks in the background ────────────────────────────────────────────────────


class Background:
    """A hook that records when it was asked about whom."""

    def __init__(self, *, sick: int = 0, takes: float = 0.0) -> None:
        self.asked: list[tuple[float, int]] = []
        self.sick = sick
        self.takes = takes

    async def __call__(self, connection: Lease) -> bool:
        self.asked.append((trio.current_time(), connection.id))
        await trio.sleep(self.takes)
        return connection.id != self.sick


async def test_idle_connections_are_checked_in_the_background(autojump_clock: MockClock) -> None:
    ask = Background()
    async with open_pool(
        health_check=ask, health_check_interval=10, reap_interval=1, max_idle_time=1000
    ) as pool:
        await use(pool, 2)
        await trio.sleep(35)
        assert counts(pool) == {"idle": 2}
    times = [at for at, _ in ask.asked]
    assert times == [10, 10, 20, 20, 30, 30]


async def test_without_an_interval_nobody_is_checked_in_the_background(
    autojump_clock: MockClock,
) -> None:
    ask = Background()
    async with open_pool(health_check=ask, max_idle_time=10_000) as pool:
        await use(pool)
        await trio.sleep(250)
    assert ask.asked == []


async def test_check_in_the_background_does_not_make_a_connection_younger(
    autojump_clock: MockClock,
) -> None:
    """G22: its idle time goes on."""
    ask = Background()
    async with open_pool(
        health_check=ask, health_check_interval=4, reap_interval=1, max_idle_time=10
    ) as pool:
        await use(pool)
        await trio.sleep(11)
        assert (counts(pool), all_reasons(pool)) == ({}, {"IDLE_TIME": 1})


async def test_sick_one_is_closed_in_the_background(autojump_clock: MockClock) -> None:
    ask = Background(sick=1)
    async with open_pool(health_check=ask, health_check_interval=4, reap_interval=1) as pool:
        await use(pool, 2)
        await trio.sleep(6)
        assert (counts(pool), all_reasons(pool)) == ({"idle": 1}, {"UNHEALTHY": 1})


async def test_check_in_the_background_is_bounded_and_its_slot_is_held(
    autojump_clock: MockClock,
) -> None:
    """F079 G1"""
    ask = Background(takes=100)
    async with open_pool(
        health_check=ask, health_check_interval=4, health_check_timeout=3, reap_interval=1
    ) as pool:
        await use(pool)
        await trio.sleep(5)
        assert counts(pool) == {"active": 1}
        await trio.sleep(2.001)
        assert (counts(pool), all_reasons(pool)) == ({}, {"UNHEALTHY": 1})


async def test_connection_that_is_checked_in_the_background_has_one_owner(
    autojump_clock: MockClock,
) -> None:
    """F083 G2: who asks meanwhile gets another, or waits for it."""
    ask = Background(takes=2)
    async with open_pool(
        health_check=ask,
        health_check_interval=4,
        health_check_after=1000,
        reap_interval=1,
        max_connections_per_endpoint=1,
    ) as pool:
        await use(pool)
        await trio.sleep(5)
        assert counts(pool) == {"active": 1}
        async with pool.connection(HERE) as connection:
            assert trio.current_time() == 6
            assert connection.id == 1


async def test_hook_that_raises_in_the_background_costs_one_connection_and_no_more(
    autojump_clock: MockClock,
) -> None:
    """G20"""

    async def ask(connection: Lease) -> bool:
        raise RuntimeError("broken hook")

    async with (
        open_pool(health_check=ask, health_check_interval=4, reap_interval=1) as pool,
        pool.connection(THERE) as other,
    ):
        await use(pool)
        await trio.sleep(6)
        assert (counts(pool), all_reasons(pool)) == ({}, {"UNHEALTHY": 1})
        assert await exchange(other) == b"ping"


async def test_hook_that_leaves_bytes_owed_in_the_background_costs_the_connection(
    autojump_clock: MockClock,
) -> None:
    """F079 G3"""

    async def ask(connection: Lease) -> bool:
        await connection.send_all(b"ping")
        return True

    async with open_pool(health_check=ask, health_check_interval=4, reap_interval=1) as pool:
        await use(pool)
        await trio.sleep(6)
        assert all_reasons(pool) == {"INCOMPLETE": 1}


async def test_hook_that_closes_the_connection_in_the_background_has_closed_it(
    autojump_clock: MockClock,
) -> None:
    """F079 G26"""

    async def ask(connection: Lease) -> bool:
        await connection.aclose()
        return True

    async with open_pool(health_check=ask, health_check_interval=4, reap_interval=1) as pool:
        await use(pool)
        await trio.sleep(6)
        assert (counts(pool), all_reasons(pool)) == ({}, {"DISCARDED": 1})


async def test_pool_closes_while_checks_hang_in_the_background(autojump_clock: MockClock) -> None:
    """G17 F113"""
    async with open_pool(
        Network(listen), health_check=exchange_and_see, health_check_interval=4, reap_interval=1
    ) as pool:
        await use(pool, 3)
        await trio.sleep(5)
        assert counts(pool) == {"active": 1, "idle": 2}
        left = trio.current_time()
    assert trio.current_time() == left


async def exchange_and_see(connection: Lease) -> bool:
    return await exchange(connection) == b"ping"


async def test_check_in_the_background_leaves_the_order_of_the_stack(
    autojump_clock: MockClock,
) -> None:
    """F085: else the surplus of a peak would be used again after each check, and never age out."""
    ask = Background()
    async with open_pool(
        health_check=ask,
        health_check_interval=3,
        health_check_after=1000,
        reap_interval=1,
        max_idle_time=10,
    ) as pool:
        await use(pool, 5)
        for _ in range(30):
            await trio.sleep(0.5)
            await use(pool)
        assert counts(pool) == {"idle": 1}
        assert all_reasons(pool) == {"IDLE_TIME": 4}


# ── forgetting ──────────────────────────────────────────────────────────────────


async def test_endpoint_without_connections_is_forgotten_and_its_counters_are_kept(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_idle_time=10, reap_interval=1) as pool:
        await use(pool, 2)
        await use(pool)
        before = pool.all_stats()
        assert HERE in before.endpoints
        await trio.sleep(10 + KEEP_BARE + 1)
        assert not pool._core.subs
        for after in (pool.all_stats(), pool.stats(HERE), pool.all_stats().endpoints[HERE]):
            assert (after.total_created, after.total_reused, after.acquired) == (2, 1, 3)
            assert after.closed_by_reason == {CloseReason.IDLE_TIME: 2}
        assert pool.stats(HERE) == pool.all_stats().endpoints[HERE]
        await use(pool)
        assert pool.stats(HERE).total_created == pool.all_stats().total_created == 3


async def test_failures_of_an_endpoint_that_is_forgotten_are_kept(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    network.refuse()
    async with open_pool(network, reap_interval=1) as pool:
        for _ in range(3):
            with pytest.raises(OSError):
                await pool.acquire(HERE)
        await trio.sleep(20)
        assert not pool._core.subs
        assert pool.all_stats().errors == pool.stats(HERE).errors == 3


async def test_endpoint_that_was_told_something_is_not_forgotten(
    autojump_clock: MockClock,
) -> None:
    third = Endpoint("third.example", 80)
    async with open_pool(reap_interval=1) as pool:
        pool.pause(HERE)
        pool.set_limit(THERE, 3)
        pool.set_limit(third, 3)
        pool.set_limit(third, 10)
        await trio.sleep(100)
        assert set(pool._core.subs) == {HERE, THERE}
        assert pool.stats(THERE).limit == 3
        pool.resume(HERE)
        await trio.sleep(10)
        assert set(pool._core.subs) == {THERE}


async def test_endpoint_in_use_is_not_forgotten(autojump_clock: MockClock) -> None:
    async with open_pool(reap_interval=1, shutdown_grace=0) as pool, pool.connection(HERE):
        await trio.sleep(100)
        assert HERE in pool._core.subs


async def test_endpoint_that_somebody_waits_for_is_not_forgotten(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    network.silent.add(HERE)
    async with open_pool(network, reap_interval=1, connect_timeout=100) as pool:
        with trio.move_on_after(20):
            await pool.acquire(HERE)
        assert HERE in pool._core.subs


class Cheap(Connector):
    """Streams without servers, for tests that open many."""

    def __init__(self) -> None:
        self.opened: list[trio.StapledStream[MemorySendStream, MemoryReceiveStream]] = []

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return memory_stream_pair()[0]


@pytest.mark.timeout(120)
async def test_pool_does_not_grow_with_the_endpoints_that_pass_through(
    autojump_clock: MockClock,
) -> None:
    """A crawler's million, in small: of those long gone only the last ones have counters."""
    passed, at_once = 20_000, 50
    most = 0
    async with make_pool(
        Cheap(), max_connections=100, max_idle_time=2, reap_interval=1, acquire_timeout=10
    ) as pool:
        for start in range(0, passed, at_once):
            for number in range(start, start + at_once):
                async with pool.connection(Endpoint(f"host{number}.example", 80)):
                    pass
            await trio.sleep(0.1)
            most = max(most, len(pool._core.subs))
        # Ten visits a second, each remembered for the idle time, the grace and a sweep.
        assert most <= at_once * 10 * (2 + KEEP_BARE + 1)
        await trio.sleep(20)
        stats = pool.all_stats()
        assert not pool._core.subs
        assert list(stats.endpoints) == [
            Endpoint(f"host{number}.example", 80) for number in range(passed - KEPT, passed)
        ]
        assert (stats.acquired, stats.total_created, stats.total_closed) == (passed,) * 3
        assert len(pool._core.timetable._rows._rows) <= 200
        pool_limit = pool._core.pool_limit
        assert len(pool_limit._line) <= 200
