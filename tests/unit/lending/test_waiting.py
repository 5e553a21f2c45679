"""Parking and waking: hand-over in one step, and every way of leaving the queue (G10, G12)."""

from __future__ import annotations

import math
from contextlib import suppress
from random import Random

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, ConnectionPool, PoolClosed
from tests.support.pools import HERE, Network, counts, hold, open_pool, settle


async def take(pool: ConnectionPool[None], name: int, order: list[int]) -> None:
    async with pool.connection(HERE):
        order.append(name)


async def test_connection_that_is_given_back_belongs_to_the_waiter_at_once(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        nursery.start_soon(hold, pool)
        await settle()
        pool.release(connection)
        assert counts(pool) == {"active": 1}
        with pytest.raises(trio.WouldBlock):
            pool.acquire_nowait(HERE)


async def test_waiters_are_served_in_order(autojump_clock: MockClock) -> None:
    """G13"""
    order: list[int] = []
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        for name in range(20):
            nursery.start_soon(take, pool, name, order)
            await settle()
        pool.release(connection)
    assert order == list(range(20))


async def test_waiter_that_is_cancelled_leaves_the_order_of_the_others(
    autojump_clock: MockClock,
) -> None:
    """F103 G10"""
    order: list[int] = []
    scopes = [trio.CancelScope() for _ in range(5)]

    async def take_cancellably(pool: ConnectionPool[None], name: int) -> None:
        with scopes[name]:
            await take(pool, name, order)

    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        for name in range(5):
            nursery.start_soon(take_cancellably, pool, name)
            await settle()
        scopes[0].cancel()
        scopes[2].cancel()
        await settle()
        assert counts(pool) == {"active": 1, "waiting": 3}
        assert scopes[0].cancelled_caught
        assert pool.stats(HERE).acquire_cancelled == 2
        pool.release(connection)
    assert order == [1, 3, 4]


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_leaves_the_queue_when_the_others_are_served_in_order(
    seed: int, autojump_clock: MockClock
) -> None:
    """G13 G10: in every mixture of time-outs, cancellations and newcomers."""
    random = Random(seed)
    order: list[object] = []
    gone: set[object] = set()

    async def visit(name: int) -> None:
        timeout = random.choice((math.inf, 2.25, 5.25))
        with trio.move_on_after(random.choice((math.inf, 1.625, 3.625))) as scope:
            try:
                async with pool.connection(HERE, timeout=timeout):
                    order.append(name)
                    with trio.CancelScope(shield=True):
                        await trio.sleep(1)
            except AcquireTimeout:
                gone.add(name)
        if scope.cancelled_caught and name not in order:
            gone.add(name)

    async with open_pool(max_connections_per_endpoint=1, acquire_timeout=100) as pool:
        async with trio.open_nursery() as nursery:
            for name in range(30):
                nursery.start_soon(visit, name)
                await trio.sleep(random.choice((0.0625, 0.5, 1.0)))
        assert order == sorted(set(range(30)) - gone)
        assert len(order) > 5
        assert len(gone) > 1
        assert pool.stats(HERE).total_created == 1


async def test_waiter_leaves_the_queue_inside_the_cancellation(autojump_clock: MockClock) -> None:
    """G10: nothing can be handed to it any more, though it has not run yet."""
    order: list[int] = []
    scope = trio.CancelScope()

    async def take_cancellably(pool: ConnectionPool[None]) -> None:
        with scope:
            await take(pool, 0, order)

    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        nursery.start_soon(take_cancellably, pool)
        await settle()
        nursery.start_soon(take, pool, 1, order)
        await settle()
        scope.cancel()
        assert counts(pool) == {"active": 1, "waiting": 1}
        pool.release(connection)
        assert counts(pool) == {"active": 1}
    assert order == [1]


async def test_waiter_that_is_cancelled_in_the_tick_in_which_it_is_served_passes_it_on(
    autojump_clock: MockClock,
) -> None:
    """F104 G12 G15"""
    order: list[int] = []
    scope = trio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await take(pool, 0, order)

    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        nursery.start_soon(cancelled)
        await settle()
        nursery.start_soon(take, pool, 1, order)
        await settle()
        pool.release(connection)
        scope.cancel()
        await settle()
        assert scope.cancelled_caught
        assert order == [1]
        assert trio.current_time() == 0
        assert counts(pool) == {"idle": 1}
        assert pool.stats(HERE).total_created == 1


async def test_waiter_that_is_cancelled_before_it_is_served_in_one_tick_gets_nothing(
    autojump_clock: MockClock,
) -> None:
    """F104, the other way round."""
    scope = trio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await pool.acquire(HERE)

    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        nursery.start_soon(cancelled)
        await settle()
        scope.cancel()
        pool.release(connection)
        assert counts(pool) == {"idle": 1}
        await settle()
        assert scope.cancelled_caught


async def test_waiter_whose_time_is_up_is_gone_at_once(autojump_clock: MockClock) -> None:
    """F102 G14"""
    async with open_pool(max_connections_per_endpoint=1, acquire_timeout=3) as pool:
        async with pool.connection(HERE):
            with pytest.raises(AcquireTimeout) as caught:
                await pool.acquire(HERE)
            assert trio.current_time() == 3
            assert counts(pool) == {"active": 1}
        error = caught.value
        assert (error.phase, error.waited) == ("queue", 3)
        assert (error.stats.active, error.stats.connecting, error.stats.waiting) == (1, 0, 0)
        assert pool.stats(HERE).acquire_timeouts == 1


async def test_each_waiter_has_its_own_deadline(autojump_clock: MockClock) -> None:
    """G14"""
    ends: dict[float, float] = {}

    async def wait(pool: ConnectionPool[None], timeout: float) -> None:
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=timeout)
        ends[timeout] = trio.current_time()

    async with open_pool(max_connections_per_endpoint=1) as pool:
        async with pool.connection(HERE), trio.open_nursery() as nursery:
            for timeout in (5, 1, 30, 3, 0, 0.25):
                nursery.start_soon(wait, pool, timeout)
        assert ends == {timeout: timeout for timeout in (5, 1, 30, 3, 0, 0.25)}


async def test_waiters_with_and_without_a_deadline_of_their_own_mix(
    autojump_clock: MockClock,
) -> None:
    """G14"""
    ends: list[tuple[float, float | None]] = []

    async def wait(pool: ConnectionPool[None], timeout: float | None) -> None:
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=timeout)
        ends.append((trio.current_time(), timeout))

    async with (
        open_pool(max_connections_per_endpoint=1, acquire_timeout=4) as pool,
        pool.connection(HERE),
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):
            for timeout in (6, None, 2):
                nursery.start_soon(wait, pool, timeout)
            await trio.sleep(1)
    assert sorted(ends, key=str) == sorted(
        [(start + (timeout or 4), timeout) for start in range(3) for timeout in (6, None, 2)],
        key=str,
    )


async def test_connection_that_comes_at_the_deadline_is_not_lost(
    autojump_clock: MockClock,
) -> None:
    """G12 G14: whichever came first in that instant."""
    async with open_pool(max_connections_per_endpoint=1, acquire_timeout=5) as pool:
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                await nursery.start(hold, pool, HERE, 5.0)
                with suppress(AcquireTimeout):
                    pool.release(await pool.acquire(HERE))
        assert counts(pool) == {"idle": 1}


async def test_all_who_wait_are_woken_when_the_pool_closes(autojump_clock: MockClock) -> None:
    """G17"""
    refused: list[float] = []

    async def wait(pool: ConnectionPool[None]) -> None:
        with pytest.raises(PoolClosed, match="closed while this task waited"):
            await pool.acquire(HERE)
        refused.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        async with open_pool(max_connections_per_endpoint=1, shutdown_grace=7) as pool:
            await nursery.start(hold, pool, HERE, 5.0)
            for _ in range(10):
                nursery.start_soon(wait, pool)
            await settle()
        assert refused == [0.0] * 10
        assert trio.current_time() == 5


# ── those who warm ──────────────────────────────────────────────────────────────


async def test_who_warms_sleeps_until_it_is_warm(autojump_clock: MockClock) -> None:
    async with open_pool(Network(delay=2)) as pool:
        await pool.warm(HERE, 3)
        assert trio.current_time() == 2
        assert counts(pool) == {"idle": 3}


async def test_who_warms_may_be_cancelled_and_the_dials_go_on(autojump_clock: MockClock) -> None:
    network = Network(delay=2)
    async with open_pool(network) as pool:
        with trio.move_on_after(1) as scope:
            await pool.warm(HERE, 3)
        assert scope.cancelled_caught
        assert counts(pool) == {"connecting": 3}
        await trio.sleep(5)
        assert counts(pool) == {"idle": 3}
        assert len(network.dials) == 3


async def test_nothing_is_dialled_for_who_warmed_and_was_cancelled(
    autojump_clock: MockClock,
) -> None:
    network = Network(delay=2)
    async with open_pool(network, max_connecting_per_endpoint=1) as pool:
        with trio.move_on_after(3):
            await pool.warm(HERE, 3)
        await trio.sleep(5)
        assert counts(pool) == {"idle": 2}
        assert len(network.dials) == 2


async def test_who_warms_is_woken_when_the_pool_closes(autojump_clock: MockClock) -> None:
    """G17"""
    network = Network()
    network.silent.add(HERE)

    async def warm(pool: ConnectionPool[None]) -> None:
        with pytest.raises(PoolClosed, match="was closed while"):
            await pool.warm(HERE, 1)

    async with trio.open_nursery() as nursery:
        async with open_pool(network) as pool:
            nursery.start_soon(warm, pool)
            await settle()
        assert trio.current_time() == 0
