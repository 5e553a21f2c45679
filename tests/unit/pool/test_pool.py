"""The pool's face: how it is made, warmed, cleared, steered and seen."""

from __future__ import annotations

import json
import math
import pickle
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import trio
from trio.testing import MockClock

from conpool import (
    AcquireTimeout,
    AnyEndpoint,
    CircuitState,
    CloseReason,
    ConfigError,
    ConnectError,
    Connection,
    ConnectionInfo,
    ConnectionPool,
    Endpoint,
    Observer,
    PoolClosed,
    PoolConfig,
    QueueFull,
    TCPConnector,
    UnixEndpoint,
)
from conpool._core import seen
from conpool._core.records import SubPool
from tests.support.pools import (
    HERE,
    THERE,
    Network,
    alike,
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

# ── making one ──────────────────────────────────────────────────────────────────


def test_pool_is_made_without_trio_and_without_a_socket() -> None:
    pool = ConnectionPool()
    assert isinstance(pool._engine.dialler._connector, TCPConnector)
    assert not pool.closed
    assert pool.stats(HERE).limit == 10
    assert str(pool.all_stats()).startswith(f"pool {pool.name}: 0 endpoints")
    assert repr(pool).endswith(" new: 0 endpoints>")


def test_pools_have_names_of_their_own_unless_they_are_given_one() -> None:
    first, second = ConnectionPool(), ConnectionPool()
    assert first.name.startswith("pool-")
    assert first.name != second.name
    assert ConnectionPool(name="orders").name == "orders"


@pytest.mark.parametrize(
    "own",
    [
        {"max_connections": 5},
        {"shutdown_grace": 3.0},
        {"reap_interval": 1.0},
    ],
)
def test_endpoint_cannot_have_its_own_of_what_is_the_pools(own: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(own))} is the whole pool's: {HERE}"):
        ConnectionPool(overrides={HERE: PoolConfig(**own)})


def test_endpoint_may_repeat_what_is_the_pools() -> None:
    config = PoolConfig(max_connections=5, shutdown_grace=3.0, reap_interval=1.0)
    own = config.replace(max_connections_per_endpoint=2)
    pool = ConnectionPool(config, overrides={HERE: own})
    assert (pool.stats(HERE).limit, pool.stats(THERE).limit) == (2, 10)


def test_overrides_are_copied() -> None:
    overrides: dict[AnyEndpoint, PoolConfig] = {HERE: PoolConfig(max_connections_per_endpoint=2)}
    pool = ConnectionPool(overrides=overrides)
    overrides.clear()
    assert pool.stats(HERE).limit == 2


def test_overrides_of_what_is_no_endpoint_are_refused() -> None:
    with pytest.raises(ConfigError, match="overrides are for single endpoints, not for a str"):
        ConnectionPool(overrides={"here": PoolConfig()})  # type: ignore[dict-item]


async def an_async_callback(info: ConnectionInfo) -> None:
    raise NotImplementedError


@pytest.mark.parametrize(
    "options",
    [
        {"on_created": 3},
        {"on_created": an_async_callback},
        {"on_reused": "print"},
        {"on_closed": an_async_callback},
        {"observers": [object()]},
        {"observers": 5},
        {"health_check": print},
    ],
)
def test_hooks_that_could_not_work_are_refused(options: dict[str, Any]) -> None:
    """F019"""
    with pytest.raises(ConfigError, match=next(iter(options))):
        ConnectionPool(**options)


async def test_unix_sockets_are_endpoints_like_any_other() -> None:
    endpoint = UnixEndpoint("/run/server.sock")
    async with open_pool() as pool:
        assert await use(pool, 1, endpoint) == [1]
        assert await use(pool, 1, endpoint) == [1]
        assert pool.stats(endpoint).total_reused == 1


# ── warming ─────────────────────────────────────────────────────────────────────


async def test_warming_opens_as_many_as_are_missing(autojump_clock: MockClock) -> None:
    network = Network(delay=1)
    async with open_pool(network) as pool:
        async with pool.connection(HERE):
            await pool.warm(HERE, 4)
            assert counts(pool) == {"active": 1, "idle": 3}
        await pool.warm(HERE, 4)
        await pool.warm(HERE, 2)
        assert len(network.dials) == 4
        assert trio.current_time() == 2


async def test_warming_is_a_checkpoint_even_if_all_is_warm() -> None:
    async with open_pool() as pool:
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await pool.warm(HERE, 1)
        with trio.testing.assert_checkpoints():
            await pool.warm(HERE, 0)


async def test_warming_that_is_cancelled_before_it_begins_does_nothing() -> None:
    network = Network()
    async with open_pool(network) as pool:
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.warm(HERE, 3)
        assert scope.cancelled_caught
        assert not pool.all_stats().endpoints
    assert not network.dials


@pytest.mark.parametrize("count", [-1, 1.5, True, "3", None, 11])
async def test_warming_to_an_impossible_number_is_refused(count: Any) -> None:
    async with open_pool() as pool:
        with pytest.raises(ConfigError, match="count"):
            await pool.warm(HERE, count)
        assert counts(pool) == {}


async def test_warming_to_more_than_the_whole_pool_may_have_is_refused() -> None:
    """It would wait for ever."""
    async with open_pool(max_connections=3) as pool:
        with pytest.raises(ConfigError, match="count 4 is more than"):
            await pool.warm(HERE, 4)
        await pool.warm(HERE, 3)


async def test_warming_fails_with_its_dial(autojump_clock: MockClock) -> None:
    network = Network(delay=1)
    cause = network.refuse()
    async with open_pool(network) as pool:
        with pytest.raises(ConnectError) as caught:
            await pool.warm(HERE, 3)
        assert alike(caught.value.__cause__, cause)
        await trio.sleep(3)
        assert counts(pool) == {}


async def test_each_who_warms_is_told(autojump_clock: MockClock) -> None:
    ends: list[object] = []

    async def warm(count: int) -> None:
        await pool.warm(HERE, count)
        ends.append((trio.current_time(), count))

    async with open_pool(Network(delay=1), max_connecting_per_endpoint=2) as pool:
        async with trio.open_nursery() as nursery:
            for count in (6, 4, 1):
                nursery.start_soon(warm, count)
        assert ends == [(1, 1), (2, 4), (3, 6)]


async def test_f144_each_who_warms_is_told_with_an_error_of_its_own() -> None:
    network = Network()
    network.refuse()
    errors: list[BaseException] = []

    async def warm() -> None:
        with pytest.raises(ConnectError) as caught:
            await pool.warm(HERE, 1)
        errors.append(caught.value)

    async with open_pool(network, outage_grace=0) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(warm)
        nursery.start_soon(warm)
    first, second = errors
    assert first is not second
    assert str(first) == str(second)


async def test_warming_waits_for_room_and_evicts_nobody(autojump_clock: MockClock) -> None:
    async with open_pool(max_connections=3) as pool, trio.open_nursery() as nursery:
        await use(pool, 2, THERE)
        nursery.start_soon(hold, pool, HERE, 1.0)
        nursery.start_soon(pool.warm, HERE, 3)
        await trio.sleep(5)
        assert (counts(pool), counts(pool, THERE)) == ({"idle": 1}, {"idle": 2})
        pool.close_idle(THERE)
        await trio.sleep(5.5)  # the next sweep sees the room
        assert counts(pool) == {"idle": 3}


async def test_warming_lets_those_who_wait_go_first(autojump_clock: MockClock) -> None:
    """G13"""
    async with (
        open_pool(Network(delay=1), max_connections=2) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(2):
            nursery.start_soon(hold, pool, THERE, 10.0)
        await settle()
        nursery.start_soon(hold, pool, THERE, 1.0)
        await settle()
        nursery.start_soon(pool.warm, HERE, 1)
        await trio.sleep(11.5)
        assert counts(pool, THERE) == {"active": 1, "idle": 1}
        assert counts(pool) == {}
        pool.clear(THERE)
        await trio.sleep(6)  # the next sweep sees the room
        assert counts(pool) == {"idle": 1}


async def test_warming_ends_where_the_limit_was_lowered_meanwhile(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(Network(delay=1), max_connecting_per_endpoint=1) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.warm, HERE, 5)
            await trio.sleep(1.5)
            pool.set_limit(HERE, 2)
        assert trio.current_time() == 2
        assert counts(pool) == {"idle": 2}


async def test_warming_waits_for_the_end_of_a_pause(autojump_clock: MockClock) -> None:
    async with open_pool() as pool:
        pool.pause(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.warm, HERE, 1)
            await trio.sleep(1)
            assert counts(pool) == {}
            pool.resume(HERE)
        assert counts(pool) == {"idle": 1}


async def test_warming_goes_on_as_soon_as_the_pool_has_a_slot(autojump_clock: MockClock) -> None:
    """G12: it does not wait for a sweep, which may be a long way off."""
    async with open_pool(max_connections=1, reap_interval=3600) as pool:
        lease = await pool.acquire(THERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.warm, HERE, 1)
            await trio.sleep(1)
            assert counts(pool) == {}
            pool.discard(lease)
        assert trio.current_time() == 1
        assert counts(pool) == {"idle": 1}


async def test_warming_waits_for_those_in_line_and_goes_on_behind_them(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections=2, reap_interval=3600) as pool:
        leases = [await pool.acquire(THERE) for _ in range(2)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.warm, HERE, 2)
            await trio.sleep(1)
            nursery.start_soon(hold, pool)
            await trio.sleep(1)
            pool.discard(leases[0])
            await trio.sleep(0.5)
            assert counts(pool) == {"active": 1}, "the slot went to the one in line"
            pool.discard(leases[1])
        assert counts(pool) == {"idle": 2}


async def test_warming_where_nothing_may_be_idle_ends_too(autojump_clock: MockClock) -> None:
    async with open_pool(max_idle_time=0, reap_interval=1) as pool:
        await pool.warm(HERE, 2)
        await trio.sleep(2)
        assert counts(pool) == {}


# ── clearing ────────────────────────────────────────────────────────────────────


async def test_closing_what_is_idle_says_how_many_there_were() -> None:
    async with open_pool() as pool:
        await use(pool, 3)
        await use(pool, 2, THERE)
        async with pool.connection(HERE):
            assert pool.close_idle(HERE) == 2
            assert pool.close_idle(HERE) == 0
            assert pool.close_idle() == 2
        assert counts(pool) == {"idle": 1}
        assert reasons(pool) == {"CLEARED": 2}
        assert pool.close_idle(Endpoint("nobody.example", 1)) == 0


async def test_nothing_that_was_open_before_a_clear_is_lent_after_it() -> None:
    """G24"""
    async with open_pool() as pool:
        lease = await pool.acquire(HERE)
        await use(pool, 3)
        pool.clear(HERE)
        assert counts(pool) == {"active": 1}
        assert await exchange(lease) == b"ping"
        pool.release(lease)
        assert counts(pool) == {}
        assert reasons(pool) == {"CLEARED": 4}
        assert await use(pool) == [5]


async def test_nothing_that_was_being_dialled_at_a_clear_is_lent_after_it(
    autojump_clock: MockClock,
) -> None:
    """G24"""
    async with open_pool(Network(delay=2)) as pool:
        with trio.move_on_after(1):
            await pool.acquire(HERE)
        pool.clear()
        assert await use(pool) == [2]
        assert reasons(pool) == {}
        assert trio.current_time() == 3  # the old dial is given up, and delays nobody


async def test_clearing_one_endpoint_leaves_the_others() -> None:
    async with open_pool() as pool:
        await use(pool)
        await use(pool, 1, THERE)
        pool.clear(THERE)
        assert (counts(pool), counts(pool, THERE)) == ({"idle": 1}, {})
        pool.clear()
        assert counts(pool) == {}


async def test_clearing_tells_the_observers_of_each_endpoint_it_concerns() -> None:
    cleared: list[AnyEndpoint] = []

    class Hearing(Observer):
        def cleared(self, endpoint: AnyEndpoint) -> None:
            cleared.append(endpoint)

    async with open_pool(observers=[Hearing()]) as pool:
        await use(pool)
        await use(pool, 1, THERE)
        pool.clear(HERE)
        pool.clear(Endpoint("nobody.example", 1))
        pool.clear()
    assert cleared == [HERE, HERE, THERE]


async def test_clearing_with_interruption_closes_what_is_lent_at_once(
    autojump_clock: MockClock,
) -> None:
    network = Network(listen)
    async with open_pool(network) as pool:
        lease, other = await pool.acquire(HERE), await pool.acquire(THERE)
        pool.clear(HERE, interrupt_in_use=True)
        assert counts(pool) == {}
        assert network.live == 1
        with pytest.raises(trio.ClosedResourceError):
            await lease.receive_some()
        pool.release(lease)
        pool.release(other)
        assert counts(pool, THERE) == {"idle": 1}
        assert reasons(pool) == {"CLEARED": 1}


async def test_clearing_with_interruption_makes_room_for_who_waits(
    autojump_clock: MockClock,
) -> None:
    """G12"""
    async with open_pool(max_connections_per_endpoint=1) as pool:
        lease = await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool)
            await settle()
            pool.clear(interrupt_in_use=True)
            await settle()
            assert counts(pool) == {"active": 1}
        pool.release(lease)


async def test_draining_waits_until_all_that_it_covered_is_gone(autojump_clock: MockClock) -> None:
    async with open_pool(Network(delay=1)) as pool, trio.open_nursery() as nursery:
        await use(pool, 2)
        nursery.start_soon(hold, pool, HERE, 5.0)
        nursery.start_soon(hold, pool, HERE, 3.0)
        nursery.start_soon(hold, pool, THERE, 50.0)
        await trio.sleep(1)
        started = trio.current_time()
        await pool.drain(HERE)
        assert trio.current_time() == started + 4
        assert counts(pool) == {}
        assert reasons(pool) == {"CLEARED": 2}
        nursery.cancel_scope.cancel()


async def test_f138_draining_what_one_holds_oneself_is_refused_and_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_pool() as pool:
        await use(pool, 2)
        async with pool.connection(HERE), pool.connection(HERE):
            for covered in (HERE, None):
                with pytest.raises(RuntimeError, match=r"holds 2 .* call clear"):
                    await pool.drain(covered)
            assert counts(pool) == {"active": 2}
            with trio.fail_after(1):
                await pool.drain(THERE)
        assert counts(pool) == {"idle": 2}
        assert reasons(pool) == {}
        await pool.drain(HERE)
        assert reasons(pool) == {"CLEARED": 2}


async def test_f138_warming_beside_what_one_holds_oneself_is_refused(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_pool(max_connections=3) as pool,
        pool.connection(HERE),
        pool.connection(THERE),
    ):
        await pool.warm(THERE, 2)  # one of them is the lease itself
        with pytest.raises(RuntimeError, match=r"holds 1 .* limit of 3 leaves no room for 3"):
            await pool.warm(THERE, 3)
        assert counts(pool, THERE) == {"active": 1, "idle": 1}
        with pytest.raises(RuntimeError, match="end the leases first"):
            await pool.warm(HERE, 3)


async def test_f138_warming_beside_what_others_hold_waits_for_them(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections=1) as pool, trio.open_nursery() as nursery:
        lease = await nursery.start(hold, pool, HERE, 5.0)
        nursery.start_soon(trio.sleep, 1)
        nursery.start_soon(pool.warm, THERE, 1)
        lease.retire()
        await trio.sleep(4)
        assert counts(pool, THERE) == {}
        await trio.sleep(2)
        assert counts(pool, THERE) == {"idle": 1}


class Polite(Network):
    """Its streams take their time to close."""

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        return SlowToClose(await super().connect(endpoint))


class SlowToClose(trio.abc.Stream):
    """Only an await can close it."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        try:
            with trio.CancelScope(shield=True):  # not even a close by force is at once
                await trio.sleep(3)
        finally:
            await self.inner.aclose()


async def test_f138_draining_waits_for_a_connection_whose_lease_is_over_and_that_still_closes(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(Polite()) as pool:
        lease = await pool.acquire(HERE)
        pool.discard(lease)
        await trio.sleep(1)
        assert counts(pool) == {"closing": 1}
        started = trio.current_time()
        await pool.drain(HERE)
        assert trio.current_time() == started + 2
        assert counts(pool) == {}


async def test_f138_a_connection_closed_under_its_lease_does_not_keep_its_holder_from_draining(
    autojump_clock: MockClock,
) -> None:
    async with open_pool() as pool, pool.connection(HERE):
        pool.clear(interrupt_in_use=True)
        await pool.drain()
        assert counts(pool) == {}


async def test_f138_a_health_check_cannot_drain_what_it_checks(autojump_clock: MockClock) -> None:
    told: list[str] = []

    async def check(connection: Connection[None]) -> bool:
        with pytest.raises(RuntimeError) as caught:
            await pool.drain()
        told.append(str(caught.value))
        return True

    async with open_pool(health_check=check) as pool:
        await use(pool)
        await use(pool)
        assert len(told) == 1
        assert counts(pool) == {"idle": 1}


async def test_draining_does_not_wait_for_what_came_later(autojump_clock: MockClock) -> None:
    async with open_pool() as pool, trio.open_nursery() as nursery:
        await use(pool)
        nursery.start_soon(hold, pool, HERE, 2.0)
        await settle()
        nursery.start_soon(pool.drain)
        await settle()
        nursery.start_soon(hold, pool, HERE, 100.0)
        await trio.sleep(2)
        await settle()
        assert counts(pool) == {"active": 1}
        assert not [task for task in nursery.child_tasks if "drain" in task.name]
        nursery.cancel_scope.cancel()


async def test_draining_that_is_cancelled_has_cleared_all_the_same(
    autojump_clock: MockClock,
) -> None:
    """G24"""
    async with open_pool() as pool:
        async with trio.open_nursery() as nursery:
            await nursery.start(hold, pool, HERE, 5.0)
            with trio.move_on_after(1) as scope:
                await pool.drain()
            assert scope.cancelled_caught
        assert counts(pool) == {}
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.drain()
        assert scope.cancelled_caught


async def test_draining_what_is_empty_is_a_checkpoint() -> None:
    async with open_pool() as pool:
        with trio.testing.assert_checkpoints():
            await pool.drain()


# ── steering ────────────────────────────────────────────────────────────────────


async def test_paused_endpoint_lends_nothing_and_dials_nothing(autojump_clock: MockClock) -> None:
    network = Network()
    async with open_pool(network, acquire_timeout=5) as pool:
        await use(pool)
        pool.pause(HERE)
        with pytest.raises(AcquireTimeout) as caught:
            await pool.acquire(HERE)
        assert caught.value.phase == "queue"
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, fresh=True)
        with pytest.raises(trio.WouldBlock):
            pool.acquire_nowait(HERE)
        assert len(network.dials) == 1
        await use(pool, 1, THERE)
        pool.resume(HERE)
        assert await use(pool) == [1]


async def test_those_who_waited_for_the_end_of_a_pause_are_served_in_order(
    autojump_clock: MockClock,
) -> None:
    """G13 G12"""
    order: list[int] = []

    async def take(name: int) -> None:
        async with pool.connection(HERE):
            order.append(name)
            await trio.sleep(1)

    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        await use(pool)
        pool.pause(HERE)
        for name in range(5):
            nursery.start_soon(take, name)
            await settle()
        await trio.sleep(10)
        assert order == []
        pool.resume(HERE)
    assert order == [0, 1, 2, 3, 4]


async def test_connection_given_back_in_a_pause_waits_with_the_others(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool)
        await settle()
        nursery.start_soon(hold, pool)
        await settle()
        pool.pause(HERE)
        await trio.sleep(2)
        assert counts(pool) == {"idle": 1, "waiting": 1}
        pool.resume(HERE)
        assert counts(pool) == {"active": 1}


async def test_dial_that_ends_in_a_pause_waits_with_the_others(autojump_clock: MockClock) -> None:
    async with open_pool(Network(delay=1)) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool)
        await settle()
        pool.pause()
        await trio.sleep(2)
        assert counts(pool) == {"idle": 1, "waiting": 1}
        pool.resume()
        assert counts(pool) == {"active": 1}


async def test_pause_for_all_concerns_those_that_are_known(autojump_clock: MockClock) -> None:
    async with open_pool(acquire_timeout=1) as pool:
        await use(pool)
        pool.pause()
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE)
        await use(pool, 1, THERE)
        pool.resume()
        await use(pool)


async def test_pause_under_the_pool_wide_limit_gives_up_its_place_in_line(
    autojump_clock: MockClock,
) -> None:
    """G12"""
    async with open_pool(max_connections=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool, Endpoint("third.example", 80), 1.0)
        await settle()
        nursery.start_soon(hold, pool, HERE)
        await settle()
        nursery.start_soon(hold, pool, THERE)
        await settle()
        pool.pause(HERE)
        await trio.sleep(1.5)
        assert (counts(pool), counts(pool, THERE)) == ({"waiting": 1}, {"active": 1})
        pool.resume(HERE)


async def test_lowered_limit_closes_the_longest_idle_at_once_and_the_rest_after_use(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections_per_endpoint=5) as pool:
        leases = [await pool.acquire(HERE) for _ in range(5)]
        for lease in leases[:3]:
            pool.release(lease)
        pool.set_limit(HERE, 3)
        assert pool.stats(HERE).limit == 3
        assert counts(pool) == {"active": 2, "idle": 1}
        assert reasons(pool) == {"SURPLUS": 2}
        pool.set_limit(HERE, 1)
        assert counts(pool) == {"active": 2}
        pool.release(leases[3])
        assert counts(pool) == {"active": 1}
        pool.release(leases[4])
        assert counts(pool) == {"idle": 1}
        assert reasons(pool) == {"SURPLUS": 4}
        assert await use(pool) == [5]


async def test_raised_limit_dials_for_those_who_wait(autojump_clock: MockClock) -> None:
    """G12"""
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(hold, pool)
        await settle()
        assert counts(pool) == {"active": 1, "waiting": 3}
        pool.set_limit(HERE, 3)
        await settle()
        assert counts(pool) == {"active": 3, "waiting": 1}


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3", None])
async def test_impossible_limit_is_refused(limit: Any) -> None:
    """F011"""
    async with open_pool() as pool:
        with pytest.raises(ConfigError, match="max_connections"):
            pool.set_limit(HERE, limit)
        assert pool.stats(HERE).limit == 10


@pytest.mark.parametrize(
    "steer",
    [
        lambda pool: pool.stats("here"),
        lambda pool: pool.clear("here"),
        lambda pool: pool.close_idle("here"),
        lambda pool: pool.pause("here"),
        lambda pool: pool.resume("here"),
        lambda pool: pool.set_limit("here", 3),
        lambda pool: pool.acquire_nowait("here"),
    ],
)
async def test_what_is_no_endpoint_cannot_be_steered(
    steer: Callable[[ConnectionPool[None]], object],
) -> None:
    async with open_pool() as pool:
        with pytest.raises(TypeError, match="not an Endpoint or UnixEndpoint but a str"):
            steer(pool)


# ── seeing ──────────────────────────────────────────────────────────────────────


async def test_endpoint_that_was_never_seen_has_zeros_and_stays_unseen() -> None:
    async with open_pool() as pool:
        stats = pool.stats(HERE)
        assert (stats.endpoint, stats.limit, stats.circuit) == (HERE, 10, CircuitState.CLOSED)
        numbers = [value for value in stats.to_dict().values() if isinstance(value, int)]
        assert sum(numbers) == 10
        assert not pool.all_stats().endpoints


async def test_statistics_tell_what_happened(autojump_clock: MockClock) -> None:
    network = Network(delay=2)
    async with open_pool(network, max_connections_per_endpoint=1, acquire_timeout=5) as pool:
        async with pool.connection(HERE):
            with pytest.raises(AcquireTimeout):
                await pool.acquire(HERE)
            with trio.move_on_after(1):
                await pool.acquire(HERE)
        async with pool.connection(HERE) as connection:
            connection.retire()
        network.refuse()
        with pytest.raises(ConnectError):
            await pool.acquire(HERE)
        stats = pool.stats(HERE)
    assert (stats.total_created, stats.total_reused, stats.total_closed) == (1, 1, 1)
    assert (stats.acquired, stats.acquire_timeouts, stats.acquire_cancelled) == (2, 1, 1)
    assert stats.errors == 1
    assert stats.closed_by_reason == {CloseReason.DISCARDED: 1}
    assert stats.closed_by_reason[CloseReason.ERROR] == 0
    # Two were lent one, after 2 s and at once; others waited in vain: 5 s, 1 s, and 2 s for a dial.
    assert (stats.wait_time.count, stats.wait_time.total) == (5, 10)
    assert (stats.connect_time.count, stats.connect_time.max) == (1, 2)
    assert (stats.use_time.count, stats.use_time.total) == (2, 6)


async def test_f135_wait_time_has_those_who_waited_in_vain(autojump_clock: MockClock) -> None:
    async with open_pool(max_connections_per_endpoint=1, acquire_timeout=30) as pool:
        await use(pool)
        async with pool.connection(HERE), trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask_in_vain, pool)
            await trio.sleep(29)
            assert pool.stats(HERE).oldest_wait == pool.all_stats().oldest_wait == 29
            assert pool.stats(THERE).oldest_wait == 0
        stats = pool.stats(HERE)
        assert (stats.wait_time.count, stats.wait_time.total, stats.wait_time.max) == (52, 1500, 30)
        assert stats.oldest_wait == 0


async def ask_in_vain(pool: ConnectionPool[None]) -> None:
    with pytest.raises((AcquireTimeout, PoolClosed)):
        await pool.acquire(HERE)


async def test_f135_the_oldest_wait_is_that_of_the_first_in_the_queue(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(hold, pool, HERE, 10)
            await trio.sleep(1)
        assert pool.stats(HERE).oldest_wait == 3
        await trio.sleep(7)
        assert pool.stats(HERE).oldest_wait == 9
        nursery.cancel_scope.cancel()


async def test_f135_a_closing_pool_counts_those_whom_it_sends_away(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        async with pool.connection(HERE):
            nursery.start_soon(ask_in_vain, pool)
            await trio.sleep(4)
            await pool.aclose()
        assert (pool.stats(HERE).wait_time.count, pool.stats(HERE).wait_time.max) == (2, 4)


async def test_f135_who_never_stood_in_the_queue_did_not_wait(autojump_clock: MockClock) -> None:
    """A full queue and a cancelled idle hit cost no time; zeros would make the waits look short."""
    async with open_pool(max_connections_per_endpoint=1, max_waiting_per_endpoint=0) as pool:
        await use(pool)
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.acquire(HERE)
        async with pool.connection(HERE):
            with pytest.raises(QueueFull):
                await pool.acquire(HERE)
        assert pool.stats(HERE).wait_time.count == pool.stats(HERE).acquired == 2


async def test_f135_the_pool_tells_its_own_limit_and_its_pauses() -> None:
    async with open_pool(max_connections=7) as pool:
        pool.pause(HERE)
        assert pool.all_stats().limit == 7
        assert pool.stats(HERE).paused
        assert not pool.stats(THERE).paused
        assert f"{HERE} (paused)" in str(pool.all_stats())
        assert pool.all_stats().to_dict()["endpoints"][0]["paused"] is True
        pool.resume(HERE)
    assert ConnectionPool().all_stats().limit is None


async def test_f156_a_lowered_limit_is_exceeded_until_surplus_connections_come_back() -> None:
    async with open_pool(max_connections_per_endpoint=3) as pool:
        leases = [await pool.acquire(HERE) for _ in range(3)]
        pool.set_limit(HERE, 1)
        stats = pool.stats(HERE)
        assert (stats.active, stats.limit) == (3, 1)
        for lease in leases:
            pool.release(lease)
        assert counts(pool) == {"idle": 1}


async def test_statistics_are_snapshots() -> None:
    async with open_pool() as pool:
        before, all_before = pool.stats(HERE), pool.all_stats()
        await use(pool)
        assert before.total_created == all_before.total_created == 0
        with pytest.raises(AttributeError):
            before.idle = 3  # type: ignore[misc]


async def test_printed_statistics_are_a_table_for_people(autojump_clock: MockClock) -> None:
    async with open_pool(name="orders") as pool, pool.connection(HERE):
        await use(pool, 2, THERE)
        text = str(pool.all_stats())
    lines = text.splitlines()
    assert lines[0] == "pool orders: 2 endpoints"
    here = next(line for line in lines if line.startswith(str(HERE)))
    there = next(line for line in lines if line.startswith(str(THERE)))
    assert here.split()[1:5] == ["1", "0", "0", "10"]
    assert there.split()[1:5] == ["0", "2", "0", "10"]
    assert lines[-1].split()[:3] == ["total", "1", "2"]


async def test_statistics_are_ready_for_json(autojump_clock: MockClock) -> None:
    async with open_pool(acquire_timeout=math.inf, name="orders") as pool:
        await use(pool)
        pool.clear()
        told = json.loads(json.dumps(pool.all_stats().to_dict(), allow_nan=False))
    assert told["name"] == "orders"
    (member,) = told["endpoints"]
    assert member["endpoint"] == str(HERE)
    assert member["closed_by_reason"] == {"cleared": 1}
    assert member["wait_time"]["count"] == 1


async def test_f147_repr_tells_the_state_and_what_is_known_without_counting() -> None:
    async with open_pool(name="orders") as pool:
        await use(pool, 3)
        assert repr(pool) == "<conpool.ConnectionPool 'orders' open: 1 endpoint>"
    async with open_pool(name="orders", max_connections=2) as pool:
        await use(pool)
        await use(pool, endpoint=THERE)
        assert repr(pool) == (
            "<conpool.ConnectionPool 'orders' open: 2 endpoints, 2 of 2 connections>"
        )


async def test_f147_repr_looks_at_no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A debugger or a log record asks for it at any time, and there may be 100,000 endpoints."""

    def forbidden(*_: object) -> NoReturn:
        raise AssertionError

    async with open_pool() as pool:
        await use(pool)
        with monkeypatch.context() as patch:
            patch.setattr(SubPool, "__repr__", forbidden)
            patch.setattr(seen, "see", forbidden)
            assert " open: 1 endpoint>" in repr(pool)


async def test_no_secret_of_an_endpoint_is_shown(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """G9"""
    endpoint = Endpoint.from_url("redis://alice:c4n4ry@db.example/3")
    network = Network()
    network.refuse(endpoint)
    shown: list[str] = []

    def show(*things: object) -> None:
        for thing in things:
            shown.extend((str(thing), repr(thing)))

    class Showing(Observer):
        def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
            show(info, error, vars(error))
            raise ValueError

    async with open_pool(network, observers=[Showing()], acquire_timeout=0.5) as pool:
        with pytest.raises(ConnectError) as failed:
            await pool.acquire(endpoint)
        network.accept(endpoint)
        async with pool.connection(endpoint) as lease:
            show(lease, pool.connection(endpoint), *pool._core.subs.values())
        pool.clear(endpoint)
        network.silent.add(endpoint)
        with pytest.raises(AcquireTimeout) as caught:
            await pool.acquire(endpoint)
        for error in (failed.value, caught.value):
            show(error, vars(error), *traceback.format_exception(error))
        stats = pool.all_stats()
        show(pool, stats, stats.endpoints, stats.to_dict(), json.dumps(stats.to_dict()))
        with pytest.raises(TypeError) as refused:
            pool.pause("redis://alice:c4n4ry@db.example/3")  # type: ignore[arg-type]
        show(refused.value, caplog.text)
        for secret in (endpoint, endpoint.login, failed.value, caught.value, stats):
            with pytest.raises(TypeError, match="cannot be pickled"):
                pickle.dumps(secret)
    assert any("alice@db.example:6379/3" in text for text in shown)
    assert not [text for text in shown if "c4n4ry" in text]


async def test_lease_is_typed_as_what_it_is() -> None:
    async with make_pool(Network()) as pool, pool.connection(HERE) as connection:
        assert isinstance(connection, Connection)
        session: None = connection.session
        assert session is None
    with pytest.raises(PoolClosed):
        await pool.acquire(HERE)
