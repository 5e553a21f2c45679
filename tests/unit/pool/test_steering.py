"""Orders at run time: connections that go one after the other, and limits that change."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from conpool import CloseReason, ConfigError, ConnectionInfo, PoolClosed
from tests.support.drivers import Session, greet_and_echo, make_driver
from tests.support.pools import HERE, THERE, Network, exchange, make_pool, open_pool, settle, use


async def test_draining_over_a_while_replaces_all_connections_and_serves_meanwhile(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    async with open_pool(network, max_connections_per_endpoint=5) as pool:
        waits: list[float] = []

        async def work() -> None:
            while True:
                since = trio.current_time()
                async with pool.connection(HERE) as connection:
                    waits.append(trio.current_time() - since)
                    await exchange(connection)
                    await trio.sleep(0.5)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(work)
            await trio.sleep(1.0)
            old = {entry.id for entry in pool._core.subs[HERE].limit.borrowers}
            began = trio.current_time()
            seen: set[int] = set()

            async def watch() -> None:
                while True:
                    await trio.sleep(1.0)
                    seen.add(len(pool._core.subs[HERE].limit.borrowers))

            nursery.start_soon(watch)
            await pool.drain(HERE, over=20.0)
            assert 20.0 <= trio.current_time() - began <= 20.5, "the last lease ends soon after"
            left = {entry.id for entry in pool._core.subs[HERE].limit.borrowers}
            assert len(old) == 5
            assert not old & left
            nursery.cancel_scope.cancel()
        assert seen <= {4, 5}
        assert max(waits) == 0.0
        assert pool.stats(HERE).closed_by_reason[CloseReason.CLEARED] == 5


async def test_draining_all_endpoints_over_a_while_spreads_them(autojump_clock: MockClock) -> None:
    gone: list[float] = []

    def closed(_: ConnectionInfo, reason: CloseReason) -> None:
        assert reason is CloseReason.CLEARED
        gone.append(trio.current_time())

    async with open_pool(max_idle_time=math.inf, on_closed=closed) as pool:
        for endpoint in (HERE, THERE):
            await use(pool, endpoint=endpoint)
        began = trio.current_time()
        await pool.drain(over=8.0)
        assert gone == pytest.approx([began + 4.0, began + 8.0])


async def test_a_cancelled_drain_over_a_while_goes_on_by_itself(autojump_clock: MockClock) -> None:
    async with open_pool(max_idle_time=math.inf) as pool:
        await use(pool, 2)
        with trio.move_on_after(1.0):
            await pool.drain(HERE, over=8.0)
        assert pool.stats(HERE).idle == 2
        await trio.sleep(4.0)
        assert pool.stats(HERE).idle == 1
        await trio.sleep(4.0)
        assert pool.stats(HERE).idle == 0


async def test_draining_over_a_while_waits_for_what_is_closing_already(
    autojump_clock: MockClock,
) -> None:
    async def close(session: Session) -> None:
        await trio.sleep(3.0)

    async with open_pool(
        Network(greet_and_echo), driver=make_driver(close=close), close_timeout=5.0
    ) as pool:
        await use(pool)
        pool.close_idle(HERE)
        began = trio.current_time()
        await pool.drain(HERE, over=1.0)
        assert trio.current_time() - began == pytest.approx(3.0)


async def test_the_end_of_the_pool_ends_a_drain_over_a_while(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery, open_pool() as pool:
        await use(pool)
        nursery.start_soon(lambda: pool.drain(over=3600.0))
        await settle()
    assert trio.current_time() < 60.0


@pytest.mark.parametrize("over", [-1.0, math.inf, math.nan, "60"])
async def test_a_while_is_a_finite_number_of_seconds(over: object) -> None:
    async with open_pool() as pool:
        await use(pool)
        with pytest.raises(ConfigError, match="over must be"):
            await pool.drain(over=over)  # type: ignore[arg-type]
        assert pool.stats(HERE).idle == 1


async def test_draining_over_a_while_what_one_holds_oneself_is_refused() -> None:
    async with open_pool() as pool, pool.connection(HERE):
        with pytest.raises(RuntimeError, match="would wait for"):
            await pool.drain(HERE, over=5.0)
        assert pool._core.orders.retiring.plans == {}


async def test_draining_nothing_over_a_while_is_a_checkpoint() -> None:
    async with open_pool() as pool:
        with trio.testing.assert_checkpoints():
            await pool.drain(over=60.0)


# ── the pool's own limit ────────────────────────────────────────────────────────


async def test_the_limit_of_the_whole_pool_can_be_changed(autojump_clock: MockClock) -> None:
    async with open_pool(max_connections=2, name="orders") as pool, trio.open_nursery() as nursery:
        first = await pool.acquire(HERE)
        other = await pool.acquire(HERE)
        nursery.start_soon(use, pool, 1)
        await settle()
        assert pool.stats(HERE).waiting == 1
        pool.set_limit(None, 4)
        await settle()
        assert pool.stats(HERE).idle == 1
        assert pool.all_stats().limit == 4
        pool.release(other)
        second = await pool.acquire(THERE)
        pool.set_limit(None, 1)
        assert pool.stats(HERE).closed_by_reason == {CloseReason.SURPLUS: 2}
        pool.release(second)
        assert pool.stats(THERE).closed_by_reason == {CloseReason.SURPLUS: 1}
        pool.release(first)
        assert pool.stats(HERE).idle == 1
        assert "1 of 1 connections" in repr(pool)


async def test_a_pool_without_a_limit_of_its_own_gets_none() -> None:
    async with open_pool() as pool:
        with pytest.raises(ConfigError, match=r"make it with PoolConfig\(max_connections="):
            pool.set_limit(None, 5)


@pytest.mark.parametrize("total", [0, -1, 1.5, None])
async def test_a_limit_of_the_pool_is_a_count(total: object) -> None:
    async with open_pool(max_connections=2) as pool:
        with pytest.raises(ConfigError, match="max_connections must be"):
            pool.set_limit(None, total)  # type: ignore[arg-type]


async def test_the_limit_of_a_closed_pool_cannot_be_changed() -> None:
    pool = make_pool(Network(), max_connections=2)
    with pytest.raises(PoolClosed, match="not open"):
        pool.set_limit(None, 3)
