"""Work that went on after the end, and growth without end: cases from other pools.

Each test has the name of the report, and its docstring says what happened there.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from conpool import ConnectionPool, Endpoint, PoolClosed
from tests.support.pools import (
    HERE,
    THERE,
    Network,
    Steps,
    counts,
    exchange,
    hold,
    make_pool,
    open_pool,
    reasons,
    settle,
)


async def test_httpcore_dials_on_a_closed_pool(autojump_clock: MockClock) -> None:
    """httpcore and its fork: after `aclose()`, a queued request went on and dialled.

    Its connection belonged to a closed pool, and nobody closed it.
    """
    refused: list[float] = []

    async def be_refused(endpoint: Endpoint) -> None:
        with trio.fail_after(10), pytest.raises(PoolClosed):
            await pool.acquire(endpoint)
        refused.append(trio.current_time())
        await settle()
        assert network.dialling == 0

    network = Network(delay=1)
    async with open_pool(network, max_connections_per_endpoint=1) as pool:
        async with trio.open_nursery() as nursery:
            await nursery.start(hold, pool)
            nursery.start_soon(be_refused, HERE)  # queued
            nursery.start_soon(be_refused, THERE)  # dialled for
            await trio.sleep(0.5)
            assert counts(pool) == {"active": 1, "waiting": 1}
            assert counts(pool, THERE) == {"connecting": 1, "waiting": 1}
            await pool.aclose()
            await be_refused(HERE)
        assert refused[:2] == [1.5, 1.5]
        assert len(network.dials) == 2
        await trio.sleep(60)
        assert len(network.dials) == 2
        assert network.live == 0


@pytest.mark.parametrize("how", ["normally", "cancelled", "crashing"])
async def test_dream_of_a_pool_in_each_request(autojump_clock: MockClock, how: str) -> None:
    """A request handler made a "pool of 20", so each request made another one.

    Nothing ended these pools: they used up the server's 150 connections (MariaDB's error 1040).
    """

    async def respond(scope: trio.CancelScope) -> None:
        with scope:
            async with make_pool(network, max_connections_per_endpoint=20) as pool:
                await pool.warm(HERE, 3)
                async with pool.connection(HERE) as conn:
                    await exchange(conn)
                    if how == "cancelled":
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
                    if how == "crashing":
                        raise LookupError

    network = Network()
    for request in range(1, 151):
        if how == "crashing":
            with pytest.raises(LookupError):
                await respond(trio.CancelScope())
        else:
            await respond(trio.CancelScope())
        assert network.live == 0
        assert len(network.dials) == 3 * request


async def test_dream_of_a_pool_without_its_block() -> None:
    """The same without `async with`: such a pool connects to nothing, so it leaves nothing."""
    network = Network()
    for _ in range(3):
        pool: ConnectionPool[None] = make_pool(network)
        with pytest.raises(PoolClosed, match="use `async with`"), trio.fail_after(1):
            await pool.acquire(HERE)
    assert network.dials == []


async def test_caqti_139(autojump_clock: MockClock) -> None:
    """The task that closes aged connections waited for a past moment, in a busy loop.

    Here a day passes, with everything that can age: idle times, lifetimes, warmth, a server that is
    gone.
    """
    steps = Steps(lambda: None)
    network = Network()
    network.refuse(THERE)
    async with open_pool(
        network,
        every_step=False,
        reap_interval=10,
        max_idle_time=1_000,
        max_connection_lifetime=3_600,
        min_idle_per_endpoint=2,
    ) as pool:
        await hold(pool)
        with pytest.raises(OSError, match="refused"):
            await hold(pool, THERE)
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(86_400)
        trio.lowlevel.remove_instrument(steps)
        assert counts(pool) == {}
        assert set(reasons(pool)) <= {"IDLE_TIME", "LIFETIME"}
    rounds = 86_400 / 10
    # A round takes a step or two of the reaper and its neighbour, each checked before and after.
    assert steps.count <= rounds * 2 * 2 * 2


async def test_undici_forgets_no_endpoint(autojump_clock: MockClock) -> None:
    """undici and others: a pool kept its records of an endpoint as long as it lived.

    A crawler that never returns to a host still pays for each host that it has seen.
    """
    async with open_pool(every_step=False, max_idle_time=1) as pool:
        for number in range(1_000):
            async with pool.connection(Endpoint(f"{number}.example", 80)):
                pass
        assert len(pool._core.subs) == 1_000
        await trio.sleep(60)
        await settle()
        assert not pool._core.subs
        assert pool.all_stats().total_created == pool.all_stats().total_closed == 1_000
