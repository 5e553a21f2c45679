"""Lending: who gets which connection, when a new one is dialled, and what an acquire can end in."""

from __future__ import annotations

import errno
import math
from collections import Counter
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conpool import (
    AcquireTimeout,
    AnyEndpoint,
    CloseReason,
    ConnectError,
    Connection,
    ConnectionInfo,
    ConnectionPool,
    ConnectRefused,
    ConnectTimeout,
    Endpoint,
    Login,
    Observer,
    PoolClosed,
    PoolConfig,
    QueueFull,
)
from conpool._core.pool_limit import MAX_OVERTAKES
from tests.support.pools import (
    HERE,
    THERE,
    Network,
    alike,
    counts,
    exchange,
    hold,
    open_pool,
    reasons,
    settle,
    use,
)


async def take(
    pool: ConnectionPool[None],
    name: object,
    order: list[object],
    endpoint: Endpoint = HERE,
    seconds: float = 0.0,
) -> None:
    async with pool.connection(endpoint):
        order.append(name)
        await trio.sleep(seconds)


# ── an idle one ─────────────────────────────────────────────────────────────────


async def test_idle_connection_is_lent_before_a_new_one_is_opened() -> None:
    network = Network()
    async with open_pool(network) as pool:
        for _ in range(5):
            assert await use(pool) == [1]
        assert len(network.dials) == 1
        stats = pool.stats(HERE)
        assert (stats.acquired, stats.total_created, stats.total_reused) == (5, 1, 4)


async def test_newest_idle_connection_is_lent_first() -> None:
    """F085"""
    async with open_pool() as pool:
        await use(pool, 3)
        assert await use(pool, 3) == [3, 2, 1]


async def test_connections_are_shared_by_endpoint_alone() -> None:
    """G5"""
    async with open_pool() as pool:
        assert await use(pool) == [1]
        assert await use(pool, endpoint=Endpoint("here.example", 5432)) == [1]
        for other in (
            Endpoint("here.example", 5433),
            Endpoint("there.example", 5432),
            Endpoint("here.example", 5432, partition="alice"),
            Endpoint("here.example", 5432, login=Login("alice")),
            Endpoint("here.example", 5432, login=Login("alice", "secret")),
            Endpoint("here.example", 5432, login=Login("alice", "secret", "orders")),
        ):
            assert await use(pool, endpoint=other) != [1]


async def test_without_waiting_an_idle_connection_is_lent_at_once() -> None:
    async with open_pool() as pool:
        await use(pool)
        with trio.testing.assert_no_checkpoints():
            connection = pool.acquire_nowait(HERE)
        assert await exchange(connection) == b"ping"
        pool.release(connection)
        assert counts(pool) == {"idle": 1}


async def test_without_waiting_nothing_is_opened() -> None:
    network = Network()
    async with open_pool(network) as pool:
        with pytest.raises(trio.WouldBlock):
            pool.acquire_nowait(HERE)
        await use(pool)
        async with pool.connection(HERE):
            with pytest.raises(trio.WouldBlock):
                pool.acquire_nowait(HERE)
        assert len(network.dials) == 1


async def test_without_waiting_nobody_is_overtaken(autojump_clock: MockClock) -> None:
    """G13"""
    async with open_pool() as pool:
        await use(pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold_fresh, pool)
            await settle()
            await use(pool, 10)
        pool.pause(HERE)
        with pytest.raises(trio.WouldBlock):
            pool.acquire_nowait(HERE)
        pool.resume(HERE)


async def hold_fresh(pool: ConnectionPool[None]) -> None:
    await hold(pool, fresh=True)


# ── age, at the moment of hand-out ──────────────────────────────────────────────

DELTA = 0.001


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_idle_time": 50.0}, "IDLE_TIME"),
        ({"max_idle_time": math.inf, "max_connection_lifetime": 50.0}, "LIFETIME"),
        ({"max_idle_time": 50.0, "max_connection_lifetime": 50.0}, "LIFETIME"),
    ],
)
@pytest.mark.parametrize(("after", "is_kept"), [(-DELTA, True), (0.0, False), (DELTA, False)])
async def test_connection_is_not_lent_from_its_last_moment_on(
    settings: dict[str, Any],
    reason: str,
    after: float,
    is_kept: bool,
    autojump_clock: MockClock,
) -> None:
    """G21 F080"""
    async with open_pool(reap_interval=1000, **settings) as pool:
        await use(pool)
        await trio.sleep(50 + after)
        assert counts(pool) == {"idle": 1}
        assert await use(pool) == ([1] if is_kept else [2])
        assert reasons(pool) == ({} if is_kept else {reason: 1})


@pytest.mark.parametrize(("after", "is_kept"), [(-DELTA, True), (0.0, False), (DELTA, False)])
async def test_without_waiting_age_counts_as_well(
    after: float, is_kept: bool, autojump_clock: MockClock
) -> None:
    """G21 F080"""
    async with open_pool(reap_interval=1000, max_idle_time=50) as pool:
        await use(pool)
        await trio.sleep(50 + after)
        if is_kept:
            pool.release(pool.acquire_nowait(HERE))
        else:
            with pytest.raises(trio.WouldBlock):
                pool.acquire_nowait(HERE)
            assert reasons(pool) == {"IDLE_TIME": 1}


async def test_connection_handed_to_a_waiter_is_young_enough(autojump_clock: MockClock) -> None:
    """G21"""
    async with open_pool(max_connections_per_endpoint=1, max_connection_lifetime=10) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool, HERE, 10.0)
            await settle()
            second = await nursery.start(hold, pool)
            assert second.id == 2
        assert reasons(pool) == {"LIFETIME": 1}


async def test_idle_time_starts_anew_with_each_use(autojump_clock: MockClock) -> None:
    async with open_pool(max_idle_time=10, reap_interval=1) as pool:
        for _ in range(10):
            assert await use(pool) == [1]
            await trio.sleep(9.5)


async def test_last_use_is_the_last(autojump_clock: MockClock) -> None:
    """G21 F080"""
    async with open_pool(max_connection_uses=3) as pool:
        for expected in ([1], [1], [1], [2]):
            assert await use(pool) == expected
        assert reasons(pool) == {"USES": 1}


async def test_use_that_was_cancelled_before_it_began_does_not_count() -> None:
    """G10"""
    async with open_pool(max_connection_uses=2) as pool:
        await use(pool)
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.acquire(HERE)
        assert counts(pool) == {"idle": 1}
        assert await use(pool) == [1]


async def test_nothing_is_kept_where_nothing_may_be_idle(autojump_clock: MockClock) -> None:
    async with open_pool(max_idle_time=0, reap_interval=60) as pool:
        assert await use(pool) == [1]
        assert counts(pool) == {}, "without a sweep, which may be a long way off"
        assert await use(pool) == [2]
        assert reasons(pool) == {"IDLE_TIME": 2}


async def test_where_nothing_may_be_idle_waiters_are_served_all_the_same() -> None:
    async with open_pool(max_idle_time=0, max_connections_per_endpoint=1) as pool:
        first = await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, pool)
            await wait_all_tasks_blocked()
            pool.release(first)
        assert pool.stats(HERE).total_reused == 1


# ── a new one ───────────────────────────────────────────────────────────────────


async def test_new_connection_takes_as_long_as_its_dial(autojump_clock: MockClock) -> None:
    async with open_pool(Network(delay=3)) as pool:
        async with pool.connection(HERE) as connection:
            assert trio.current_time() == 3
            assert not connection.reused
        stats = pool.stats(HERE)
        assert stats.connect_time.total == stats.wait_time.total == 3


async def test_whichever_comes_first_is_taken(autojump_clock: MockClock) -> None:
    """A connection that is given back serves the one that waits for its dial."""
    async with open_pool(Network(delay=5)) as pool:
        first = await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool)
            await trio.sleep(1)
            assert counts(pool) == {"active": 1, "connecting": 1, "waiting": 1}
            pool.release(first)
            assert counts(pool) == {"active": 1, "connecting": 1}
            await trio.sleep(4.5)
        assert counts(pool) == {"idle": 2}


async def test_dial_outlives_the_caller_it_was_started_for(autojump_clock: MockClock) -> None:
    """F030: and is not dialled again."""
    network = Network(delay=5)
    async with open_pool(network) as pool:
        with trio.move_on_after(1) as scope:
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        assert trio.current_time() == 1
        assert counts(pool) == {"connecting": 1}
        await trio.sleep(4)
        await settle()
        assert counts(pool) == {"idle": 1}
        assert await use(pool) == [1]
        assert len(network.dials) == 1


async def test_dial_whose_caller_has_gone_serves_the_next(autojump_clock: MockClock) -> None:
    """F030"""
    network = Network(delay=5)
    async with open_pool(network) as pool:
        with trio.move_on_after(1):
            await pool.acquire(HERE)
        async with pool.connection(HERE):
            assert trio.current_time() == 5
        assert len(network.dials) == 1


async def test_caller_that_is_cancelled_as_its_dial_succeeds_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    """F031 G10 G15"""
    scope = trio.CancelScope()

    class Cancelling(Observer):
        def connected(self, info: ConnectionInfo, took: float) -> None:
            scope.cancel()

    async with open_pool(observers=[Cancelling()]) as pool:
        with scope:
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        assert counts(pool) == {"idle": 1}


async def test_finished_dial_serves_the_oldest_waiter(autojump_clock: MockClock) -> None:
    """G13"""
    order: list[object] = []

    class Uneven(Network):
        async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
            self.delay = 10 - len(self.dials)
            return await super().connect(endpoint)

    async with open_pool(Uneven()) as pool, trio.open_nursery() as nursery:
        for name in range(5):
            nursery.start_soon(take, pool, name, order, HERE, 100.0)
            await settle()
    assert order == [0, 1, 2, 3, 4]


async def test_no_more_dials_run_than_there_are_waiters(autojump_clock: MockClock) -> None:
    network = Network(delay=5)
    async with open_pool(network) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(hold, pool)
            await settle()
            assert counts(pool) == {"connecting": 3, "waiting": 3}
        assert len(network.dials) == 3


async def test_no_more_dials_run_at_a_time_than_are_allowed(autojump_clock: MockClock) -> None:
    network = Network(delay=5)
    most = 0
    async with open_pool(network, max_connecting_per_endpoint=2) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(hold, pool, HERE, 100.0)
            for _ in range(30):
                await trio.sleep(1)
                most = max(most, pool.stats(HERE).connecting)
            assert counts(pool) == {"active": 10}
        assert most == 2
        assert trio.current_time() == 125


async def test_dial_that_hangs_ends_in_time(autojump_clock: MockClock) -> None:
    """G14 F029"""
    network = Network()
    network.silent.add(HERE)
    async with open_pool(network, connect_timeout=4) as pool:
        with pytest.raises(ConnectTimeout) as caught:
            await pool.acquire(HERE)
        assert trio.current_time() == 4
        assert caught.value.errno == errno.ETIMEDOUT
        assert caught.value.endpoint == HERE
        assert counts(pool) == {}


async def test_dial_that_hangs_longer_than_its_caller_waits_says_where_the_time_went(
    autojump_clock: MockClock,
) -> None:
    """G14 F102"""
    network = Network()
    network.silent.add(HERE)
    async with open_pool(network, connect_timeout=10, acquire_timeout=4) as pool:
        with pytest.raises(AcquireTimeout) as caught:
            await pool.acquire(HERE)
        assert trio.current_time() == 4
        assert (caught.value.phase, caught.value.waited) == ("connect", 4)
        assert caught.value.last_connect_error is None
        assert counts(pool) == {"connecting": 1}
        await trio.sleep(6)
        await settle()
        assert counts(pool) == {}


async def test_endpoint_that_hangs_delays_no_other(autojump_clock: MockClock) -> None:
    """G16 F111"""
    network = Network()
    network.silent.add(THERE)
    async with open_pool(network) as pool, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(hold, pool, THERE)
        await settle()
        for _ in range(100):
            await use(pool, 3)
        assert trio.current_time() == 0
        assert pool.stats(HERE).wait_time.max == 0
        nursery.cancel_scope.cancel()


async def test_endpoint_whose_slots_are_all_lent_delays_no_other(
    autojump_clock: MockClock,
) -> None:
    """F111 G13"""
    async with (
        open_pool(max_connections_per_endpoint=2, max_connections=5) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(5):
            nursery.start_soon(hold, pool, THERE, 100.0)
        await settle()
        assert counts(pool, THERE) == {"active": 2, "waiting": 3}
        await use(pool, 2)
        assert trio.current_time() == 0
        nursery.cancel_scope.cancel()


# ── a fresh one ─────────────────────────────────────────────────────────────────


async def test_fresh_connection_is_new_even_if_one_is_idle() -> None:
    async with open_pool() as pool:
        await use(pool)
        async with pool.connection(HERE, fresh=True) as connection:
            assert (connection.id, connection.reused) == (2, False)
        assert counts(pool) == {"idle": 2}


async def test_fresh_connection_takes_the_slot_of_an_idle_one_if_need_be() -> None:
    async with open_pool(max_connections_per_endpoint=2) as pool:
        await use(pool, 2)
        async with pool.connection(HERE, fresh=True) as connection:
            assert connection.id == 3
        assert reasons(pool) == {"EVICTED": 1}
        assert await use(pool, 2) == [3, 2]


async def test_fresh_connection_takes_the_slot_of_one_that_is_given_back(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections_per_endpoint=1) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool)
            await settle()
            lease = await pool.acquire(HERE, fresh=True)
            assert (lease.id, trio.current_time()) == (2, 1)
            pool.release(lease)
        assert reasons(pool) == {"EVICTED": 1}


async def test_fresh_connection_takes_the_slot_of_another_endpoint(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections=1) as pool:
        await use(pool, endpoint=THERE)
        async with pool.connection(HERE, fresh=True) as connection:
            assert not connection.reused
        assert reasons(pool, THERE) == {"EVICTED": 1}


async def test_who_does_not_mind_gets_what_was_given_back_before_who_wants_a_fresh_one(
    autojump_clock: MockClock,
) -> None:
    """While the fresh one is dialled, others need not wait for it."""
    order: list[object] = []
    async with open_pool(Network(delay=5), max_connections_per_endpoint=2) as pool:
        first = await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_fresh, pool, order)
            await settle()
            nursery.start_soon(take, pool, "any", order)
            await settle()
            pool.release(first)
        assert order == ["any", "fresh"]


async def take_fresh(pool: ConnectionPool[None], order: list[object]) -> None:
    async with pool.connection(HERE, fresh=True) as connection:
        assert not connection.reused
        order.append("fresh")


async def test_who_does_not_mind_gets_an_idle_one_while_others_wait_for_fresh_ones(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(Network(delay=5)) as pool:
        await use(pool)
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold_fresh, pool)
            await settle()
            assert await use(pool) == [1]
            assert trio.current_time() == started


async def test_fresh_connections_keep_within_the_limit(autojump_clock: MockClock) -> None:
    """G1"""
    async with open_pool(Network(delay=1), max_connections_per_endpoint=3) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(hold_fresh, pool)
        assert pool.stats(HERE).total_created == 10


# ── limits ──────────────────────────────────────────────────────────────────────


async def test_limit_of_an_endpoint_holds_at_every_step(autojump_clock: MockClock) -> None:
    """G1: dials included."""
    network = Network(delay=0.5)
    async with open_pool(network, max_connections_per_endpoint=4) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(hold, pool)
        assert network.most == 4
        assert pool.stats(HERE).total_created == 4
        assert trio.current_time() == 10.5


async def test_endpoint_may_have_a_limit_and_times_of_its_own(autojump_clock: MockClock) -> None:
    own = PoolConfig(max_connections_per_endpoint=1, acquire_timeout=2, lifetime_jitter=0.0)
    async with open_pool(overrides={THERE: own}) as pool:
        assert (pool.stats(HERE).limit, pool.stats(THERE).limit) == (10, 1)
        async with pool.connection(THERE):
            with pytest.raises(AcquireTimeout) as caught:
                await pool.acquire(THERE)
        assert caught.value.waited == 2


async def test_limit_of_the_pool_evicts_the_longest_idle(autojump_clock: MockClock) -> None:
    """F112 G1"""
    third = Endpoint("third.example", 80)
    async with open_pool(max_connections=2) as pool:
        await use(pool, endpoint=THERE)
        await trio.sleep(1)
        await use(pool, endpoint=HERE)
        await trio.sleep(1)
        await use(pool, endpoint=third)
        assert reasons(pool, THERE) == {"EVICTED": 1}
        assert counts(pool) == counts(pool, third) == {"idle": 1}
        assert trio.current_time() == 2


async def test_limit_of_the_pool_holds_at_every_step(autojump_clock: MockClock) -> None:
    """G1"""
    endpoints = [Endpoint(f"host{number}.example", 80) for number in range(7)]
    network = Network(delay=0.25)
    async with open_pool(network, max_connections=5, max_connections_per_endpoint=3) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(70):
                nursery.start_soon(hold, pool, endpoints[number % 7])
        assert pool.all_stats().acquired == 70
        assert network.most == 5


async def test_connection_given_back_elsewhere_makes_room_for_who_waits(
    autojump_clock: MockClock,
) -> None:
    """G12 F112"""
    async with open_pool(max_connections=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool, THERE)
        await settle()
        async with pool.connection(HERE):
            assert trio.current_time() == 1
        assert reasons(pool, THERE) == {"EVICTED": 1}


async def test_waiter_under_the_pool_wide_limit_is_overtaken_so_often_and_no_more(
    autojump_clock: MockClock,
) -> None:
    """G13: reusing a connection is cheaper than closing one and dialling one; nobody starves."""
    overtook = 0

    async def churn() -> None:
        nonlocal overtook
        while not served.is_set():
            async with pool.connection(HERE):
                overtook += 1
                await trio.sleep(1)

    served = trio.Event()
    async with open_pool(max_connections=1) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(churn)
        await settle()
        overtook = 0
        async with pool.connection(THERE):
            served.set()
            # The first of HERE held it, and the two in line before THERE do not overtake.
            assert overtook == 2 + MAX_OVERTAKES
            assert trio.current_time() == 3 + MAX_OVERTAKES


async def test_endpoints_share_the_pool_wide_limit_by_arrival(autojump_clock: MockClock) -> None:
    """G13"""
    order: list[object] = []
    endpoints = [Endpoint(f"host{number}.example", 80) for number in range(6)]
    async with open_pool(max_connections=1) as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        for endpoint in endpoints:
            nursery.start_soon(take, pool, endpoint, order, endpoint)
            await settle()
        pool.release(connection)
    assert order == endpoints


# ── the queue ───────────────────────────────────────────────────────────────────


async def test_newcomer_in_the_tick_of_a_release_goes_behind_the_queue(
    autojump_clock: MockClock,
) -> None:
    """F108 G13"""
    order: list[object] = []
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        for name in ("first", "second"):
            nursery.start_soon(take, pool, name, order)
            await settle()
        pool.release(connection)
        async with pool.connection(HERE):
            order.append("newcomer")
    assert order == ["first", "second", "newcomer"]


async def test_one_who_comes_back_goes_behind_the_queue(autojump_clock: MockClock) -> None:
    """F108 G13"""
    order: list[object] = []

    async def again_and_again(name: int) -> None:
        for _ in range(3):
            async with pool.connection(HERE):
                order.append(name)
                await trio.sleep(1)

    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        for name in range(4):
            nursery.start_soon(again_and_again, name)
            await settle()
    assert order == [0, 1, 2, 3] * 3


async def test_holder_that_discards_makes_room_for_the_next(autojump_clock: MockClock) -> None:
    """F106 G12"""
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        nursery.start_soon(hold, pool)
        await settle()
        pool.discard(connection)
        await settle()
        assert counts(pool) == {"active": 1}
        assert pool.stats(HERE).total_created == 2


async def test_full_queue_turns_away_at_once(autojump_clock: MockClock) -> None:
    """F109"""
    async with open_pool(max_connections_per_endpoint=1, max_waiting_per_endpoint=2) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(hold, pool)
                await settle()
            with (
                pytest.raises(QueueFull, match="too many tasks wait already") as caught,
                trio.testing.assert_checkpoints(),
            ):
                await pool.acquire(HERE)
            assert (caught.value.endpoint, caught.value.stats.waiting) == (HERE, 2)
            assert pool.name in str(caught.value)
            assert counts(pool) == {"active": 1, "waiting": 2}
        assert pool.stats(HERE).acquired == 3


async def test_queue_of_length_zero_lets_in_whoever_is_dialled_for(
    autojump_clock: MockClock,
) -> None:
    """F109"""
    async with open_pool(
        Network(delay=1), max_connections_per_endpoint=2, max_waiting_per_endpoint=0
    ) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(hold, pool)
            await settle()
            with pytest.raises(QueueFull):
                await pool.acquire(HERE)
        assert await use(pool, 2)
        pool.pause(HERE)
        with pytest.raises(QueueFull):
            await pool.acquire(HERE)


async def test_full_queue_under_the_pool_wide_limit_turns_away(autojump_clock: MockClock) -> None:
    """F109"""
    async with (
        open_pool(max_connections=1, max_waiting_per_endpoint=0) as pool,
        pool.connection(THERE),
    ):
        with pytest.raises(QueueFull):
            await pool.acquire(HERE)


async def test_f148_where_nobody_may_wait_back_off_is_named_with_its_cause(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    error = network.refuse()
    async with open_pool(network, max_waiting_per_endpoint=0) as pool:
        with pytest.raises(ConnectError) as refused:
            await pool.acquire(HERE)
        assert alike(refused.value.__cause__, error)
        with pytest.raises(QueueFull) as caught:
            await pool.acquire(HERE)
        said = str(caught.value)
        assert isinstance(caught.value.__cause__, ConnectError)
        assert alike(caught.value.__cause__.__cause__, error)
        assert "dials back off after a failure" in said
        assert f"last connect error: {refused.value}" in said
        assert "too many tasks" not in said


@pytest.mark.parametrize(
    ("options", "endpoint", "why"),
    [
        ({"max_connections_per_endpoint": 1}, HERE, "all slots are taken"),
        ({"max_connections_per_endpoint": 1, "max_connections": 1}, HERE, "all slots are taken"),
        ({"max_connections": 1}, THERE, "the pool-wide limit is used up"),
    ],
)
async def test_f148_where_nobody_may_wait_the_message_says_for_what(
    options: dict[str, Any], endpoint: Endpoint, why: str
) -> None:
    async with (
        open_pool(max_waiting_per_endpoint=0, **options) as pool,
        pool.connection(HERE),
    ):
        with pytest.raises(QueueFull) as caught:
            await pool.acquire(endpoint)
        assert f"{why}, and max_waiting_per_endpoint lets nobody wait" in str(caught.value)
        assert caught.value.__cause__ is None


async def test_overload_changes_neither_the_queue_nor_the_connections(
    autojump_clock: MockClock,
) -> None:
    """F110"""
    network = Network(delay=0.25)
    turned_away = 0

    async def visit() -> None:
        nonlocal turned_away
        try:
            await hold(pool)
        except QueueFull:
            turned_away += 1

    async with open_pool(
        network, max_connections_per_endpoint=3, max_waiting_per_endpoint=4, every_step=False
    ) as pool:
        async with trio.open_nursery() as nursery:
            for second in range(60):
                for _ in range(10):
                    nursery.start_soon(visit)
                await trio.sleep(0.125)
                if second > 3:
                    assert pool.stats(HERE).waiting == 4
                await trio.sleep(0.875)
        assert len(network.dials) == 3
        assert turned_away > 300


# ── time ────────────────────────────────────────────────────────────────────────


async def test_no_time_at_all_is_enough_for_an_idle_connection() -> None:
    """F014"""
    async with open_pool(acquire_timeout=0) as pool:
        await pool.warm(HERE, 1)
        assert await use(pool) == [1]


async def test_no_time_at_all_is_not_enough_for_a_dial(autojump_clock: MockClock) -> None:
    """F014: and so none is started, to be thrown away."""
    network = Network()
    async with open_pool(network, acquire_timeout=0) as pool:
        with (
            pytest.raises(AcquireTimeout, match="at once, phase queue") as caught,
            trio.testing.assert_checkpoints(),
        ):
            await pool.acquire(HERE)
        assert caught.value.waited == 0
        assert not network.dials
        async with pool.connection(HERE, timeout=1):
            with pytest.raises(AcquireTimeout):
                await pool.acquire(HERE)
        assert len(network.dials) == 1
        assert pool.stats(HERE).acquire_timeouts == 2


async def test_own_time_out_goes_before_the_configured_one(autojump_clock: MockClock) -> None:
    """G14"""
    async with (
        open_pool(max_connections_per_endpoint=1, acquire_timeout=5) as pool,
        pool.connection(HERE),
    ):
        for timeout in (2.0, 8.0):
            started = trio.current_time()
            with pytest.raises(AcquireTimeout):
                await pool.acquire(HERE, timeout=timeout)
            assert trio.current_time() - started == timeout


async def test_no_time_out_waits_for_ever(autojump_clock: MockClock) -> None:
    async with (
        open_pool(max_connections_per_endpoint=1, acquire_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(hold, pool, HERE, 1_000.0)
        await settle()
        async with pool.connection(HERE, timeout=math.inf):
            assert trio.current_time() == 1_000


async def test_waiter_whose_own_deadline_has_passed_is_turned_away_without_a_dial(
    autojump_clock: MockClock,
) -> None:
    """§8: nobody is there any more to use what would be dialled."""
    network = Network()
    async with open_pool(network) as pool:
        with trio.CancelScope(deadline=trio.current_time()) as scope:
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        assert not network.dials
        assert counts(pool) == {}


async def test_waiter_whose_own_deadline_passed_unnoticed_is_turned_away_without_a_dial(
    mock_clock: MockClock,
) -> None:
    """§8: trio notices only when nothing else is left to do."""
    network = Network()
    async with open_pool(network) as pool:
        with trio.CancelScope(deadline=trio.current_time() + 1) as scope:
            mock_clock.jump(2)
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        assert not network.dials


async def test_cancelled_task_takes_nothing() -> None:
    """G10 G15: even where a connection is idle."""
    network = Network()
    async with open_pool(network) as pool:
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        assert not network.dials
        await use(pool)
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        assert counts(pool) == {"idle": 1}
        assert pool.stats(HERE).total_reused == 0


async def test_task_that_is_cancelled_with_an_idle_connection_in_hand_puts_it_back(
    autojump_clock: MockClock,
) -> None:
    """G10 G15: and its idle time goes on as before."""

    class CancelsInThatTick(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if counts(pool) == {"active": 1}:
                scope.cancel()

    async with open_pool(max_idle_time=10, reap_interval=1) as pool:
        await use(pool)
        await trio.sleep(6)
        instrument = CancelsInThatTick()
        trio.lowlevel.add_instrument(instrument)
        with trio.CancelScope() as scope:
            await pool.acquire(HERE)
        trio.lowlevel.remove_instrument(instrument)
        assert scope.cancelled_caught
        assert counts(pool) == {"idle": 1}
        await trio.sleep(5)
        assert counts(pool) == {}


async def test_cancelled_task_joins_no_queue(autojump_clock: MockClock) -> None:
    """G10 G15"""
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        nursery.start_soon(hold, pool)
        await settle()
        for timeout in (None, 0):
            with trio.CancelScope() as scope:
                scope.cancel()
                await pool.acquire(HERE, timeout=timeout)
            assert scope.cancelled_caught
        assert counts(pool) == {"active": 1, "waiting": 1}
        pool.release(connection)


# ── a server that is not there ──────────────────────────────────────────────────


async def test_refused_connection_is_told_at_once_and_as_what_it_is() -> None:
    """F027: not as a time-out."""
    network = Network()
    cause = network.refuse()
    async with open_pool(network) as pool:
        with pytest.raises(ConnectError) as caught:
            await pool.acquire(HERE)
        error = caught.value
        assert (error.errno, error.phase, error.endpoint) == (errno.ECONNREFUSED, "tcp", HERE)
        assert alike(error.__cause__, cause)
        assert (counts(pool), pool.stats(HERE).errors) == ({}, 1)


async def test_f144_callers_who_are_told_of_one_dial_get_an_error_each() -> None:
    network = Network()
    network.refuse()
    errors: list[BaseException] = []

    async def wait() -> None:
        with pytest.raises(ConnectError) as caught:
            await pool.acquire(HERE)
        errors.append(caught.value)

    async with open_pool(network, outage_grace=0, max_connections_per_endpoint=1) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
        remembered = pool._core.subs[HERE].gate.last_error
    assert remembered is not None
    assert len(network.dials) == 2  # when the first began, nobody else was there
    assert len({id(error) for error in (remembered, *errors)}) == 4
    assert {str(error) for error in errors} == {str(remembered)}
    assert remembered.__traceback__ is None


async def test_f127_failed_dial_fails_nobody_while_another_is_under_way(
    autojump_clock: MockClock,
) -> None:
    """F107"""
    outcome: list[tuple[int, str]] = []

    async def ask(name: int) -> None:
        try:
            async with pool.connection(HERE):
                outcome.append((name, "served"))
                await trio.sleep(100)
        except ConnectError:
            outcome.append((name, "failed"))

    class FirstFails(Network):
        async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
            if not self.dials:
                self.dials.append((0.0, endpoint))
                await trio.sleep(1)
                raise ConnectionResetError
            return await super().connect(endpoint)

    async with open_pool(FirstFails(delay=2)) as pool, trio.open_nursery() as nursery:
        for name in range(3):
            nursery.start_soon(ask, name)
            await settle()
    assert sorted(outcome) == [(0, "served"), (1, "served"), (2, "served")]


async def test_failed_dial_whose_caller_has_gone_fails_nobody(autojump_clock: MockClock) -> None:
    """F107 G12: the one that waits now has a dial of its own."""
    network = Network(delay=5)
    network.refuse()
    async with open_pool(network) as pool:
        with trio.move_on_after(1):
            await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_after, network, 4.5)
            async with pool.connection(HERE):
                assert trio.current_time() < 12
        assert pool.stats(HERE).errors == 1


async def accept_after(network: Network, seconds: float) -> None:
    await trio.sleep(seconds)
    network.accept()


async def test_one_who_was_served_while_its_dial_failed_does_not_hear_of_it(
    autojump_clock: MockClock,
) -> None:
    network = Network(delay=3)
    async with open_pool(network) as pool:
        first = await pool.acquire(HERE)
        network.refuse()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool, HERE, 10.0)
            await settle()
            pool.release(first)
        assert pool.stats(HERE).errors == 1


async def test_time_out_tells_the_last_connect_error(autojump_clock: MockClock) -> None:
    """F102 G25"""
    network = Network()
    cause = network.refuse()
    async with open_pool(network, acquire_timeout=0.25) as pool:
        with pytest.raises(ConnectError):
            await pool.acquire(HERE)
        network.accept()
        network.silent.add(HERE)
        with pytest.raises(AcquireTimeout) as caught:
            await pool.acquire(HERE)
        error = caught.value
        assert isinstance(error.last_connect_error, ConnectError)
        assert error.__cause__ is error.last_connect_error
        assert alike(error.last_connect_error.__cause__, cause)
        assert "Connection refused" in str(error)


async def test_success_clears_the_last_connect_error(autojump_clock: MockClock) -> None:
    network = Network()
    network.refuse()
    async with open_pool(network, max_connections_per_endpoint=1, acquire_timeout=5) as pool:
        with pytest.raises(ConnectError):
            await pool.acquire(HERE)
        network.accept()
        async with pool.connection(HERE):
            with pytest.raises(AcquireTimeout) as caught:
                await pool.acquire(HERE)
        assert caught.value.last_connect_error is None


@pytest.mark.timeout(120)
async def test_ten_thousand_waiters_on_a_dead_server_make_a_handful_of_attempts(
    autojump_clock: MockClock,
) -> None:
    """F028 F127 G31 G14: all know within the grace and one back-off, from few attempts."""
    network = Network()
    network.refuse()
    outcome = Counter[type[Exception]]()
    longest = 0.0

    async def ask() -> None:
        nonlocal longest
        started = trio.current_time()
        try:
            await pool.acquire(HERE)
        except (AcquireTimeout, ConnectError) as error:
            outcome[type(error)] += 1
        longest = max(longest, trio.current_time() - started)

    async with open_pool(network, acquire_timeout=30, every_step=False) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(10_000):
                nursery.start_soon(ask)
        assert outcome == {ConnectRefused: 10_000}
        assert len(network.dials) <= 20
        assert longest <= 3  # the grace, and one back-off


async def test_attempts_at_a_dead_server_come_ever_more_slowly(autojump_clock: MockClock) -> None:
    """G31"""
    network = Network()
    network.refuse()

    async def ask_on_and_on() -> None:
        while True:
            with pytest.raises(ConnectError):
                await pool.acquire(HERE)

    async with open_pool(network, max_connections_per_endpoint=2, acquire_timeout=math.inf) as pool:
        with trio.move_on_after(600):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(ask_on_and_on)
        times = [at for at, _ in network.dials]
        assert 300 <= len(times) <= 1200
        assert max(later - sooner for sooner, later in pairwise(times)) <= 2
        late = [at for at in times if at > 60]
        assert len(late) / 540 <= 2


async def test_server_that_is_back_serves_all_who_wait_for_it(autojump_clock: MockClock) -> None:
    """F126"""
    network = Network()
    network.refuse()
    served: list[float] = []

    async def ask() -> None:
        while True:
            try:
                async with pool.connection(HERE):
                    served.append(trio.current_time())
                    return
            except ConnectError:
                pass

    async with open_pool(network, max_connections_per_endpoint=5) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
            await trio.sleep(20)
            network.accept()
        assert len(served) == 50
        assert max(served) <= 22.001


# ── cleared, closed and refused ─────────────────────────────────────────────────


async def test_connection_that_was_cleared_while_it_was_handed_over_is_not_lent(
    autojump_clock: MockClock,
) -> None:
    """G24: and its waiter keeps its turn."""
    order: list[object] = []
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        for name in ("first", "second"):
            nursery.start_soon(take, pool, name, order)
            await settle()
        pool.release(connection)
        pool.clear(HERE)
        await settle()
        assert order == ["first", "second"]
        assert reasons(pool) == {"CLEARED": 1}
        assert pool.stats(HERE).total_created == 2


async def test_of_many_that_were_cleared_while_they_were_handed_over_none_is_lent() -> None:
    """A clear closes a few at a time: the others must be known by their age."""
    ids: list[int] = []

    async def wait() -> None:
        async with pool.connection(HERE) as connection:
            ids.append(connection.id)

    async with open_pool(max_connections_per_endpoint=250, every_step=False) as pool:
        leases = [await pool.acquire(HERE) for _ in range(250)]
        async with trio.open_nursery() as nursery:
            for _ in leases:
                nursery.start_soon(wait)
            await settle()
            for lease in leases:
                pool.release(lease)
            pool.clear()
        assert len(ids) == 250
        assert min(ids) > 250


async def test_connection_that_was_cleared_while_it_was_taken_is_not_lent(
    autojump_clock: MockClock,
) -> None:
    """G24: cleared in the one tick in which it is nobody's."""

    class ClearsInThatTick(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if not reasons(pool) and counts(pool) == {"active": 1}:
                pool.clear()

    async with open_pool() as pool:
        await use(pool)
        clearing = ClearsInThatTick()
        trio.lowlevel.add_instrument(clearing)
        async with pool.connection(HERE) as connection:
            assert connection.id == 2
        trio.lowlevel.remove_instrument(clearing)
        assert reasons(pool) == {"CLEARED": 1}


async def test_connection_that_was_cleared_while_it_was_taken_is_not_given_back_by_the_cancelled(
    autojump_clock: MockClock,
) -> None:
    """G24 G10: cleared and cancelled in the same tick."""

    class ClearsAndCancels(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if not reasons(pool) and counts(pool) == {"active": 1}:
                pool.clear()
                scope.cancel()

    async with open_pool() as pool:
        await use(pool)
        instrument = ClearsAndCancels()
        trio.lowlevel.add_instrument(instrument)
        with trio.CancelScope() as scope:
            await pool.acquire(HERE)
        trio.lowlevel.remove_instrument(instrument)
        assert scope.cancelled_caught
        assert (counts(pool), reasons(pool)) == ({}, {"CLEARED": 1})


async def test_guest_that_clears_the_pool_while_a_connection_is_taken_from_it(
    autojump_clock: MockClock,
) -> None:
    """G24: the one that was about to be lent, too."""

    class Clearing(Observer):
        def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
            if reason is CloseReason.LIFETIME:
                pool.clear()

    async with open_pool(
        observers=[Clearing()], max_connection_lifetime=10, reap_interval=1000
    ) as pool:
        first = await pool.acquire(HERE)
        await trio.sleep(5)
        second = await pool.acquire(HERE)
        pool.release(second)
        pool.release(first)
        await trio.sleep(7)
        async with pool.connection(HERE) as connection:
            assert connection.id == 3
        assert reasons(pool) == {"LIFETIME": 1, "CLEARED": 1}


async def test_no_lease_lasts_less_than_no_time(autojump_clock: MockClock) -> None:
    """Rounding made some that began after a wait start a trifle after they had been lent."""
    held: list[float] = []

    class Held(Observer):
        def released(self, info: ConnectionInfo, held_for: float) -> None:
            held.append(held_for)

    random = Random(1)

    async def visit(after: float, stay: float) -> None:
        await trio.sleep(after)
        await hold(pool, HERE, stay)

    async with (
        open_pool(observers=[Held()], max_connections_per_endpoint=1) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(30):
            # They come early and are served late: then the difference of the two is not exact.
            nursery.start_soon(visit, random.uniform(0, 1), random.uniform(0, 1))
            for _ in range(10):
                nursery.start_soon(visit, random.uniform(0, 1), 0.0)
    assert min(held) == 0


async def test_dial_that_was_cleared_while_it_ran_is_not_lent(autojump_clock: MockClock) -> None:
    """G24"""
    async with open_pool(Network(delay=2)) as pool, trio.open_nursery() as nursery:
        lease: list[Connection[None]] = []

        async def acquire() -> None:
            lease.append(await pool.acquire(HERE))

        nursery.start_soon(acquire)
        await trio.sleep(1)
        pool.clear()
        await trio.sleep(3.5)
        assert lease[0].id == 2
        assert reasons(pool) == {}
        pool.release(lease[0])


async def test_closed_pool_lends_nothing() -> None:
    """F116 F117"""
    async with open_pool() as pool:
        await pool.aclose()
        for endpoint in (HERE, THERE):
            with pytest.raises(PoolClosed, match=f"pool {pool.name} is closed"):
                await pool.acquire(endpoint)
            with pytest.raises(PoolClosed):
                pool.acquire_nowait(endpoint)


async def test_closed_pool_lends_nothing_of_what_it_knew() -> None:
    """F116 F117"""
    async with open_pool() as pool:
        await use(pool)
        lease = await pool.acquire(HERE)
        await pool.aclose()
        pool.release(lease)
        with pytest.raises(PoolClosed):
            await pool.acquire(HERE)
        with pytest.raises(PoolClosed):
            await pool.acquire(HERE, fresh=True)
