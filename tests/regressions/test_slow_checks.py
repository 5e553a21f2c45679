"""Checks of slow, frozen and forgotten connections: what they find, for whom, and how often.

A caller's patience was taken for the health of a connection, and what one caller had found out was
forgotten before the next one came.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, Connection, ConnectionPool
from tests.support.pools import (
    HERE,
    Network,
    answer_after,
    counts,
    exchange,
    hold,
    open_pool,
    reasons,
    settle,
    use,
)


async def ping(connection: Connection[None]) -> bool:
    await exchange(connection, b"?")
    return True


class Pinged:
    """Asks the peer, and remembers of which connections; those in `dead` never answer."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.dead: set[int] = set()

    async def __call__(self, connection: Connection[None]) -> bool:
        self.ids.append(connection.id)
        if connection.id in self.dead:
            await trio.sleep_forever()
        return True


# ── F131: a caller's patience ───────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["time-out", "cancelled", "deadline"])
async def test_f131_impatient_callers_cost_no_connection(
    how: str, autojump_clock: MockClock
) -> None:
    """agroal #182: each of ten good connections was closed, because a check took 0.4 s."""
    async with open_pool(Network(answer_after(0.4)), health_check=ping) as pool:
        await pool.warm(HERE, 10)
        for _ in range(10):
            if how == "time-out":
                with pytest.raises(AcquireTimeout):
                    await pool.acquire(HERE, timeout=0.3)
            elif how == "deadline":
                with pytest.raises(trio.TooSlowError), trio.fail_after(0.3):
                    await pool.acquire(HERE)
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pool.acquire, HERE)
                    await trio.sleep(0.3)
                    nursery.cancel_scope.cancel()
            await trio.sleep(1)
        assert (counts(pool), reasons(pool)) == ({"idle": 10}, {})
        assert pool.stats(HERE).total_created == 10


async def test_f131_the_verdict_stands_when_its_caller_has_gone(autojump_clock: MockClock) -> None:
    pinged = Pinged()
    pinged.dead.add(3)
    async with open_pool(health_check=pinged, health_check_timeout=5) as pool:
        await use(pool, 3)
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=0.3)
        await trio.sleep(5)
        assert (counts(pool), reasons(pool)) == ({"idle": 2}, {"UNHEALTHY": 1})


async def test_f131_a_check_that_hangs_is_nobody_elses_while_others_are_idle(
    autojump_clock: MockClock,
) -> None:
    """Its caller has gone. Those who come next have another connection checked. G16"""
    pinged = Pinged()
    pinged.dead.add(5)
    async with open_pool(health_check=pinged, health_check_timeout=50) as pool:
        await use(pool, 5)
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=0.3)
        since = trio.current_time()
        for _ in range(10):
            await use(pool, 2)
        assert trio.current_time() == since
        assert pinged.ids.count(5) == 1
        assert counts(pool) == {"idle": 4, "active": 1}


async def test_f131_who_comes_next_takes_the_connection_of_a_check_that_is_under_way(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(Network(answer_after(0.4)), health_check=ping) as pool:
        await use(pool, 3)
        with trio.move_on_after(0.3):
            await pool.acquire(HERE)
        since = trio.current_time()
        await use(pool)
        assert trio.current_time() - since == pytest.approx(0.1)
        assert pool.stats(HERE).total_created == 3


# ── F132: what a check has found ────────────────────────────────────────────────


class Balancer(Network):
    """Forgets flows on which nothing has moved for 30 seconds, and swallows what comes later."""

    def __init__(self) -> None:
        super().__init__(self._serve_until_forgotten)

    async def _serve_until_forgotten(self, stream: trio.abc.Stream) -> None:
        last = trio.current_time()
        async for data in stream:
            if trio.current_time() - last > 30:
                await trio.sleep_forever()
            last = trio.current_time()
            await stream.send_all(data)


async def acquire(pool: ConnectionPool[None], waits: list[float]) -> None:
    since = trio.current_time()
    await hold(pool, seconds=100)
    waits.append(trio.current_time() - since - 100)


@pytest.mark.parametrize("at_once", [False, True])
async def test_f132_of_ten_flows_that_are_dropped_two_cost_time(
    at_once: bool, autojump_clock: MockClock
) -> None:
    """agroal #182, reactor-netty #764: six callers paid 10 s each."""
    async with open_pool(
        Balancer(), health_check=ping, health_check_timeout=5, max_idle_time=300
    ) as pool:
        await use(pool, 10)
        await trio.sleep(40)
        waits: list[float] = []
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(acquire, pool, waits)
                if not at_once:
                    await trio.sleep(11)
        assert sum(wait >= 5 for wait in waits) <= (6 if at_once else 1)
        assert max(waits) <= 2 * 5
        assert reasons(pool) == {"UNHEALTHY": 10}


async def test_f132_one_that_was_used_since_stays(autojump_clock: MockClock) -> None:
    pinged = Pinged()
    async with open_pool(health_check=pinged, health_check_timeout=5, max_idle_time=300) as pool:
        await use(pool, 6)
        await trio.sleep(40)
        lease = await pool.acquire(HERE)
        pinged.dead = {4, 5}
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(hold, pool, HERE, 1)
            await trio.sleep(1)
            pool.release(lease)  # it serves one after the other
        assert counts(pool) == {"active": 2, "idle": 4}
        await trio.sleep(3)
        assert reasons(pool) == {"UNHEALTHY": 5}
        assert await use(pool) == [lease.id]


async def test_f132_one_alone_is_chance(autojump_clock: MockClock) -> None:
    pinged = Pinged()
    async with open_pool(health_check=pinged, max_idle_time=300) as pool:
        await use(pool, 5)
        await trio.sleep(40)
        for dead in (5, 4, 3):  # the one below answers each time
            pinged.dead = {dead}
            await use(pool)
        assert reasons(pool) == {"UNHEALTHY": 3}


async def test_f132_what_was_asked_in_the_background_is_not_asked_again_at_once(
    autojump_clock: MockClock,
) -> None:
    pinged = Pinged()
    async with open_pool(
        health_check=pinged,
        health_check_after=5,
        health_check_interval=20,
        reap_interval=1,
        max_idle_time=300,
    ) as pool:
        await use(pool)
        await trio.sleep(22.5)
        assert pinged.ids == [1]
        await use(pool)
        assert pinged.ids == [1], "it was asked a moment ago"
        await trio.sleep(6)
        await use(pool)
        assert pinged.ids == [1, 1]


# ── F149: a check that outlives what it checks ──────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_connection_lifetime": 10.0}, "LIFETIME"),
        ({"max_idle_time": 10.0}, "IDLE_TIME"),
    ],
)
async def test_f149_a_connection_that_lapses_amid_its_check_is_not_lent(
    settings: dict[str, float], reason: str, autojump_clock: MockClock
) -> None:
    """G21"""
    async with open_pool(
        Network(answer_after(3)),
        health_check=ping,
        reap_interval=1000,
        **settings,  # type: ignore[arg-type]
    ) as pool:
        await use(pool)
        await trio.sleep(8)
        async with pool.connection(HERE) as connection:
            assert (connection.id, trio.current_time()) == (2, 11)
        assert reasons(pool) == {reason: 1}


async def test_f149_nor_where_the_check_ran_in_the_background(autojump_clock: MockClock) -> None:
    async with open_pool(
        Network(answer_after(3)),
        health_check=ping,
        health_check_interval=8,
        reap_interval=1,
        max_idle_time=10,
    ) as pool:
        await use(pool)
        await trio.sleep(9)
        assert len(pool._core.subs[HERE].reserved) == 1
        await trio.sleep(2.5)
        assert reasons(pool) == {"IDLE_TIME": 1}


async def test_f149_one_that_is_just_young_enough_is_lent(autojump_clock: MockClock) -> None:
    async with open_pool(
        Network(answer_after(3)), health_check=ping, reap_interval=1000, max_idle_time=11.01
    ) as pool:
        await use(pool)
        await trio.sleep(8)
        assert await use(pool) == [1]


# ── F150: two features that each count right ────────────────────────────────────


async def slow(connection: Connection[None]) -> bool:
    await trio.sleep(0.5)
    return True


async def test_f150_connections_under_check_are_warm(autojump_clock: MockClock) -> None:
    """Each round of checks had as many dialled again, up to the limit."""
    async with open_pool(
        health_check=slow,
        health_check_interval=10,
        reap_interval=1,
        min_idle_per_endpoint=5,
        max_connections_per_endpoint=50,
        max_idle_time=3600,
    ) as pool:
        await use(pool)
        await trio.sleep(200)
        assert pool.stats(HERE).total_created <= 6
        assert reasons(pool) == {}


async def test_f150_warming_counts_them_too(autojump_clock: MockClock) -> None:
    async with open_pool(
        health_check=slow, health_check_interval=10, reap_interval=1, max_idle_time=3600
    ) as pool:
        await pool.warm(HERE, 4)
        await trio.sleep(10.2)
        assert pool._core.subs[HERE].reserved
        await pool.warm(HERE, 4)
        assert pool.stats(HERE).total_created == 4


async def test_f150_so_does_the_limit_of_idle_ones(autojump_clock: MockClock) -> None:
    async with open_pool(
        health_check=slow,
        health_check_interval=10,
        reap_interval=1,
        max_idle_time=3600,
        max_idle_per_endpoint=3,
    ) as pool:
        async with pool.connection(HERE) as kept:
            await use(pool, 3)
            await trio.sleep(11.2)
            assert pool._core.subs[HERE].reserved
            await exchange(kept)
        await settle()
        assert reasons(pool) == {"SURPLUS": 1}
        await trio.sleep(2)
        assert counts(pool) == {"idle": 3}
