"""Groups: which member lends, and what becomes of a caller whose member is down."""

from __future__ import annotations

import math
from functools import partial
from random import Random
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conpool import (
    AcquireTimeout,
    CircuitBreaker,
    CircuitState,
    ConnectError,
    Connection,
    ConnectionPool,
    Endpoint,
    EndpointGroup,
    NoHealthyEndpoint,
    PoolConfig,
    QueueFull,
)
from tests.support.drivers import Mux, MuxDriver, greet_and_echo
from tests.support.pools import Network, open_pool

A, B, C = (Endpoint(f"{name}.example", 1) for name in "abc")
TURNS = EndpointGroup([A, B, C])
LEAST = EndpointGroup([A, B, C], policy="least_loaded")
FIRST = EndpointGroup([A, B, C], policy="first_available")
PAIR = EndpointGroup([A, B], policy="first_available")


group_pool: Final[Any] = partial(open_pool, has_groups=True)


async def lend(pool: ConnectionPool[None], group: EndpointGroup, count: int) -> str:
    """Lend one after the other; return the members' letters."""
    found = ""
    for _ in range(count):
        async with pool.connection(group) as connection:
            found += letter(connection)
    return found


async def hold(pool: ConnectionPool[None], group: EndpointGroup, count: int) -> str:
    """Lend as many at the same time."""
    leases = [await pool.acquire(group) for _ in range(count)]
    for lease in leases:
        pool.release(lease)
    return "".join(map(letter, leases))


def letter(connection: Connection[Any]) -> str:
    return str(connection.endpoint)[0]


# ── the policies ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("group", "in_turn", "at_once"),
    [(TURNS, "abcabc", "abcabc"), (LEAST, "abcabc", "abcabc"), (FIRST, "aaaaaa", "aabbcc")],
    ids=["round robin", "least loaded", "first available"],
)
async def test_the_policy_picks_the_member_before_an_idle_connection(
    group: EndpointGroup, in_turn: str, at_once: str
) -> None:
    async with group_pool(Network(), max_connections_per_endpoint=2) as pool:
        assert await lend(pool, group, 6) == in_turn
        assert await hold(pool, group, 6) == at_once


async def test_equal_groups_share_their_turn() -> None:
    async with group_pool(Network()) as pool:
        assert await lend(pool, EndpointGroup([A, B, C]), 2) == "ab"
        assert await lend(pool, EndpointGroup([A, B, C]), 2) == "ca"
        assert await lend(pool, EndpointGroup([C, B, A]), 1) == "c"


async def test_the_least_loaded_member_has_the_most_free_slots() -> None:
    overrides = {B: PoolConfig(max_connections_per_endpoint=4)}
    async with group_pool(Network(), max_connections_per_endpoint=2, overrides=overrides) as pool:
        assert await hold(pool, LEAST, 5) == "bbcab"


async def test_idle_only_lends_what_the_policy_would() -> None:
    async with group_pool(Network()) as pool:
        with pytest.raises(trio.WouldBlock):
            pool.acquire_nowait(FIRST)
        for endpoint in (B, C):
            async with pool.connection(endpoint):
                pass
        connection = pool.acquire_nowait(FIRST)
        assert connection.endpoint == B
        pool.discard(connection)


async def test_a_full_member_is_helped_out_by_another(autojump_clock: MockClock) -> None:
    async with (
        group_pool(Network(), max_connections_per_endpoint=1) as pool,
        pool.connection(A),
        pool.connection(FIRST) as other,
    ):
        assert other.endpoint == B


async def test_a_waiter_takes_what_any_member_gets_back(autojump_clock: MockClock) -> None:
    got: list[str] = []

    async def wait() -> None:
        async with pool.connection(TURNS) as connection:
            got.append(letter(connection))

    async with group_pool(Network(), max_connections_per_endpoint=1) as pool:
        held = {letter(lease): lease for lease in [await pool.acquire(TURNS) for _ in range(3)]}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            stats = pool.stats(TURNS)
            assert (stats.waiting, stats.active, stats.limit) == (1, 3, 3)
            assert (pool.all_stats().waiting, pool.stats(B).waiting) == (1, 1)
            pool.release(held["c"])
            await wait_all_tasks_blocked()
        assert got == ["c"]
        for name in "ab":
            pool.release(held[name])


async def test_a_waiter_of_a_group_keeps_its_place_before_those_of_a_member(
    autojump_clock: MockClock,
) -> None:
    """G13."""
    order: list[str] = []

    async def wait(target: Any, name: str) -> None:
        async with pool.connection(target):
            order.append(name)

    async with group_pool(Network(), max_connections_per_endpoint=1) as pool:
        async with trio.open_nursery() as nursery, pool.connection(A), pool.connection(B):
            for target, name in [(A, "1"), (PAIR, "2"), (B, "3")]:
                nursery.start_soon(wait, target, name)
                await wait_all_tasks_blocked()
        assert sorted(order[:2]) == ["1", "2"]
        assert order[2] == "3"


# ── members that are down ───────────────────────────────────────────────────────


async def test_a_failed_dial_moves_to_the_next_member(autojump_clock: MockClock) -> None:
    network = Network(delay=1)
    network.refuse(A)
    async with group_pool(network) as pool:
        async with pool.connection(FIRST) as connection:
            assert connection.endpoint == B
        assert network.dials == [(0, A), (1, B)]
        assert (pool.stats(FIRST).errors, pool.stats(FIRST).total_created) == (1, 1)


async def test_each_member_is_tried_once_and_the_error_lists_all(
    autojump_clock: MockClock,
) -> None:
    """G29."""
    network = Network()
    network.silent |= {A, B, C}
    async with group_pool(network, connect_timeout=2) as pool:
        with pytest.raises(NoHealthyEndpoint) as caught:
            await pool.acquire(FIRST)
        assert trio.current_time() == 6
        assert network.dials == [(0, A), (2, B), (4, C)]
    assert caught.value.reasons == dict.fromkeys(
        (A, B, C), "phase tcp: timed out: connect_timeout of 2s [ETIMEDOUT]"
    )
    assert isinstance(caught.value.__cause__, ConnectError)


@pytest.mark.parametrize("count", [2, 5, 40])
async def test_many_callers_fail_within_one_attempt_for_each_member(
    autojump_clock: MockClock, count: int
) -> None:
    """G29, G31: whoever waits learns it from the dials of the others."""
    network = Network()
    network.silent |= {A, B, C}
    ended: list[float] = []

    async def ask() -> None:
        with pytest.raises(NoHealthyEndpoint):
            await pool.acquire(TURNS)
        ended.append(trio.current_time())

    async with group_pool(network, connect_timeout=2) as pool:
        pool._core._random = Random(7)  # the back-off decides how many are tried for
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(ask)
        assert len(ended) == count
        assert max(ended) <= 6.2  # three attempts, and a short back-off at times
        assert len(network.dials) <= 4 * count


async def test_nobody_is_refused_who_may_be_served_by_a_full_member(
    autojump_clock: MockClock,
) -> None:
    """G33."""
    network = Network()
    async with group_pool(network, max_connections_per_endpoint=1) as pool:
        held = await pool.acquire(B)
        network.refuse(A)

        async def give_back() -> None:
            await trio.sleep(5)
            pool.release(held)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_back)
            async with pool.connection(PAIR) as connection:
                assert connection.endpoint == B
                assert trio.current_time() == 5


async def test_a_member_that_is_back_is_used_again(autojump_clock: MockClock) -> None:
    network = Network()
    network.refuse(A)
    async with group_pool(network) as pool:
        assert await lend(pool, FIRST, 3) == "bbb"
        await trio.sleep(2)  # longer than any back-off
        assert await lend(pool, FIRST, 1) == "b"
        network.accept(A)
        await trio.sleep(2)
        assert await lend(pool, FIRST, 2) == "aa"


async def test_a_trial_of_a_member_costs_one_caller_at_a_time(autojump_clock: MockClock) -> None:
    """The others are served by the members that are up, while it goes on."""
    network = Network()
    network.refuse(A)
    async with group_pool(network, connect_timeout=10) as pool:
        assert await lend(pool, FIRST, 1) == "b"
        await trio.sleep(2)
        network.accept(A)
        network.silent.add(A)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lend, pool, FIRST, 1)
            await wait_all_tasks_blocked()
            for _ in range(50):
                assert await hold(pool, FIRST, 2) == "bb"
                await trio.sleep(0.1)
        assert [endpoint for _, endpoint in network.dials].count(A) == 2


async def test_an_outage_of_all_is_told_to_who_had_no_dial_once_it_has_lasted(
    autojump_clock: MockClock,
) -> None:
    """Within `outage_grace` those for whom nothing was dialled wait on, as for one endpoint."""
    network = Network()
    network.refuse(A)
    network.refuse(B)
    config = {"max_connections_per_endpoint": 1, "outage_grace": 3}
    ended: list[float] = []

    async def ask() -> None:
        with pytest.raises(NoHealthyEndpoint):
            await pool.acquire(PAIR)
        ended.append(trio.current_time())

    async with group_pool(network, **config) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(ask)
        assert 3 <= max(ended) <= 3 + 2 * 1.5
        assert len(network.dials) < 30


async def test_an_outage_that_ends_within_the_grace_costs_a_pause(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    network.refuse(A)
    network.refuse(B)
    config = {"max_connections_per_endpoint": 1, "outage_grace": math.inf}
    failed = 0

    async def ask() -> None:
        nonlocal failed
        try:
            async with pool.connection(PAIR):
                await trio.sleep(0.01)
        except NoHealthyEndpoint:
            failed += 1

    async with group_pool(network, **config) as pool:
        pool._core._random = Random(7)  # the back-off decides how many are tried for
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(ask)
            await trio.sleep(0.5)
            network.accept(A)
        assert failed < 20


# ── what the pool is told ───────────────────────────────────────────────────────


async def test_groups_go_without_a_member_that_is_marked() -> None:
    async with group_pool(Network()) as pool:
        pool.mark_unhealthy(A)
        assert await lend(pool, TURNS, 4) == "bcbc"
        with pytest.raises(NoHealthyEndpoint):
            await pool.acquire(A)
        pool.mark_healthy(A)
        assert "a" in await lend(pool, TURNS, 3)


async def test_a_group_without_a_healthy_member_refuses_at_once() -> None:
    async with group_pool(Network()) as pool:
        assert await lend(pool, PAIR, 1) == "a"  # one is idle
        pool.mark_unhealthy(PAIR)
        with pytest.raises(NoHealthyEndpoint, match="marked unhealthy") as caught:
            await pool.acquire(PAIR)
        assert caught.value.reasons == dict.fromkeys((A, B), "it is marked unhealthy")
        with pytest.raises(trio.WouldBlock):
            pool.acquire_nowait(PAIR)
        pool.mark_healthy(PAIR)
        assert await lend(pool, PAIR, 1) == "a"


async def test_marking_moves_those_who_wait_on(autojump_clock: MockClock) -> None:
    network = Network()
    network.silent.add(A)
    async with group_pool(network) as pool:

        async def mark() -> None:
            await trio.sleep(1)
            pool.mark_unhealthy(A)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mark)
            async with pool.connection(PAIR) as connection:
                assert (connection.endpoint, trio.current_time()) == (B, 1)


async def test_marking_all_refuses_those_who_wait(autojump_clock: MockClock) -> None:
    network = Network()
    network.silent |= {A, B}
    async with group_pool(network) as pool:

        async def mark() -> None:
            await trio.sleep(1)
            pool.mark_unhealthy(PAIR)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mark)
            with pytest.raises(NoHealthyEndpoint, match="marked unhealthy"):
                await pool.acquire(PAIR)
            assert trio.current_time() == 1


async def test_a_paused_member_is_passed_over_and_all_paused_make_callers_wait(
    autojump_clock: MockClock,
) -> None:
    async with group_pool(Network()) as pool:
        pool.pause(A)
        assert await lend(pool, FIRST, 2) == "bb"
        pool.pause(FIRST)
        assert pool.stats(FIRST).paused
        with pytest.raises(AcquireTimeout, match="paused") as caught:
            await pool.acquire(FIRST, timeout=1)
        assert (caught.value.endpoint, caught.value.stats.waiting) == (FIRST, 0)
        pool.resume(FIRST)
        assert await lend(pool, FIRST, 1) == "a"


async def test_orders_for_a_group_reach_each_member() -> None:
    async with group_pool(Network()) as pool:
        await hold(pool, TURNS, 3)
        pool.set_limit(TURNS, 5)
        assert pool.stats(TURNS).limit == 15
        assert pool.close_idle(TURNS) == 3
        await hold(pool, TURNS, 3)
        pool.clear(TURNS)
        assert pool.stats(TURNS).total_closed == 6
        await hold(pool, TURNS, 3)
        await pool.drain(TURNS)
        assert (pool.stats(TURNS).total_closed, pool.stats(TURNS).acquired) == (9, 9)


async def test_a_group_cannot_be_warmed() -> None:
    async with group_pool(Network()) as pool:
        with pytest.raises(TypeError, match="not an Endpoint or UnixEndpoint but"):
            await pool.warm(TURNS, 1)


# ── errors and limits ───────────────────────────────────────────────────────────


async def test_a_timeout_names_the_group_and_the_holders_of_all_members(
    autojump_clock: MockClock,
) -> None:
    async with group_pool(Network(), max_connections_per_endpoint=1) as pool:
        async with pool.connection(TURNS), pool.connection(TURNS), pool.connection(TURNS):
            with pytest.raises(AcquireTimeout) as caught:
                await pool.acquire(TURNS, timeout=1)
        error = caught.value
        assert (error.endpoint, error.phase, len(error.holders)) == (TURNS, "queue", 3)
        assert error.deadlock
        assert pool.stats(TURNS).acquire_timeouts == 1


async def test_a_queue_is_full_when_that_of_each_member_is(autojump_clock: MockClock) -> None:
    config = {"max_connections_per_endpoint": 1, "max_waiting_per_endpoint": 0}
    async with (
        group_pool(Network(), **config) as pool,
        pool.connection(A),
        pool.connection(PAIR) as other,
    ):
        assert other.endpoint == B
        with pytest.raises(QueueFull) as caught:
            await pool.acquire(PAIR)
        assert caught.value.endpoint == PAIR


async def test_a_new_connection_is_dialled_where_a_slot_is_free_or_replaces_an_idle_one() -> None:
    async with group_pool(Network(), max_connections_per_endpoint=1) as pool:
        assert await lend(pool, PAIR, 1) == "a"
        async with pool.connection(PAIR, fresh=True) as connection:
            assert (connection.fresh, connection.endpoint) == (True, B)
        async with pool.connection(PAIR, fresh=True) as connection:
            assert connection.fresh
        assert pool.stats(PAIR).total_closed


async def test_under_a_pool_wide_limit_one_waiter_takes_one_slot(
    autojump_clock: MockClock,
) -> None:
    network = Network(delay=1)
    other = Endpoint("other.example", 1)
    async with group_pool(network, max_connections=2) as pool:
        async with pool.connection(other), pool.connection(other):
            pass
        async with pool.connection(FIRST) as connection:
            assert connection.endpoint == A
            assert pool.stats(other).idle == 1  # only one made way


async def test_shared_connections_of_the_first_member_come_first(
    autojump_clock: MockClock,
) -> None:
    network = Network(greet_and_echo, delay=1)
    found: list[str] = []

    async def use(pool: ConnectionPool[Mux]) -> None:
        async with pool.connection(PAIR) as connection:
            found.append(letter(connection))
            await trio.sleep(1)

    async with group_pool(network, driver=MuxDriver(100)) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(use, pool)
        assert found == ["a"] * 20
        assert network.dials == [(0, A)]


async def test_those_who_counted_on_a_shared_dial_go_elsewhere_when_it_fails(
    autojump_clock: MockClock,
) -> None:
    network = Network(greet_and_echo, delay=1)
    network.refuse(A)
    found: list[str] = []

    async def use(pool: ConnectionPool[Mux]) -> None:
        async with pool.connection(PAIR) as connection:
            found.append(letter(connection))

    async with group_pool(network, driver=MuxDriver(100)) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(use, pool)
        assert found == ["b"] * 5
        assert network.dials[:2] == [(0, A), (1, B)]


async def test_a_health_check_asks_the_member_whose_turn_it_is() -> None:
    asked: list[str] = []

    async def check(connection: Connection[None]) -> bool:
        asked.append(letter(connection))
        return True

    async with group_pool(Network(), health_check=check) as pool:
        assert await lend(pool, TURNS, 6) == "abcabc"
        assert asked == ["a", "b", "c"]


# ── with a circuit breaker ──────────────────────────────────────────────────────

BREAKER = CircuitBreaker(failure_threshold=1, reset_timeout=30.0)


async def test_f121_a_member_whose_circuit_is_open_is_passed_over(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    network.silent.add(A)
    async with group_pool(network, connect_timeout=2, circuit_breaker=BREAKER) as pool:
        assert await lend(pool, FIRST, 5) == "bbbbb"
        await trio.sleep(10)
        assert await lend(pool, FIRST, 5) == "bbbbb"
        assert [endpoint for _, endpoint in network.dials].count(A) == 1
        network.accept(A)
        await trio.sleep(30)
        assert await lend(pool, FIRST, 2) == "aa"


async def test_f122_all_circuits_open_refuse_at_once(autojump_clock: MockClock) -> None:
    network = Network()
    network.refuse(A)
    network.refuse(B)
    async with group_pool(network, circuit_breaker=BREAKER) as pool:
        for _ in range(5):
            with pytest.raises(NoHealthyEndpoint, match="circuit is open"):
                await pool.acquire(PAIR)
        assert (len(network.dials), trio.current_time()) == (2, 0)


async def test_an_idle_connection_serves_though_all_circuits_are_open(
    autojump_clock: MockClock,
) -> None:
    async with group_pool(Network(), circuit_breaker=BREAKER) as pool:
        assert await lend(pool, PAIR, 1) == "a"
        pool.report_failure(A)
        pool.report_failure(B)
        assert await lend(pool, PAIR, 1) == "a"
        with pytest.raises(NoHealthyEndpoint, match="circuit is open"):
            await pool.acquire(PAIR, fresh=True)


async def test_those_who_wait_for_a_group_are_told_when_its_last_circuit_opens(
    autojump_clock: MockClock,
) -> None:
    """At once, but for those whose dial had begun: it may still succeed."""
    network = Network()
    network.silent |= {A, B}
    ended: list[float] = []

    async def ask() -> None:
        with pytest.raises(NoHealthyEndpoint, match="circuit is open"):
            await pool.acquire(PAIR)
        ended.append(trio.current_time())

    config = {"circuit_breaker": BREAKER, "connect_timeout": 5, "max_connections_per_endpoint": 1}
    async with group_pool(network, **config) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.sleep(1)
        pool.report_failure(A)
        pool.report_failure(B)
    assert ended == [1, 5, 5]


async def test_those_who_wait_for_a_group_are_told_when_its_last_connection_has_gone(
    autojump_clock: MockClock,
) -> None:
    """All circuits are open, and the others can get nothing before one is tried again."""
    ended: list[float] = []

    async def ask() -> None:
        with pytest.raises(NoHealthyEndpoint, match="circuit is open"):
            await pool.acquire(PAIR)
        ended.append(trio.current_time())

    config = {"circuit_breaker": BREAKER, "max_connections_per_endpoint": 1}
    async with group_pool(Network(), **config) as pool, trio.open_nursery() as nursery:
        leases = [await pool.acquire(PAIR) for _ in range(2)]
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.sleep(1)
        pool.report_failure(A)
        pool.report_failure(B)
        for lease in leases:
            await trio.sleep(1)
            assert not ended
            pool.discard(lease)
    assert ended == [3, 3, 3]


async def test_the_statistics_of_a_group_have_the_best_of_its_circuits(
    autojump_clock: MockClock,
) -> None:
    async with group_pool(Network(), circuit_breaker=BREAKER) as pool:
        pool.report_failure(A)
        assert pool.stats(PAIR).circuit is CircuitState.CLOSED
        pool.report_failure(B)
        assert pool.stats(PAIR).circuit is CircuitState.OPEN
        pool.mark_healthy(PAIR)
        assert pool.stats(PAIR).circuit is CircuitState.CLOSED
        pool.mark_unhealthy(PAIR)
        with pytest.raises(NoHealthyEndpoint, match="marked unhealthy"):
            await pool.acquire(PAIR)
