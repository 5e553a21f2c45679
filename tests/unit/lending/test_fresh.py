"""`Connection.fresh`: opened for this lease, neither used nor idle since."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from conpool import ConnectionPool
from tests.support.pools import HERE, Network, counts, hold, open_pool, settle


async def is_fresh(pool: ConnectionPool[None], **options: bool) -> bool:
    """Say it during the lease, and make sure that it stays so."""
    async with pool.connection(HERE, **options) as lease:
        fresh = lease.fresh
    await settle()
    assert lease.fresh is fresh
    async with pool.connection(HERE):
        assert lease.fresh is fresh
    return fresh


@pytest.mark.parametrize("options", [{}, {"max_connections": 3}])
async def test_f136_one_dialled_for_the_caller_is_fresh_once(options: dict[str, Any]) -> None:
    async with open_pool(**options) as pool:
        assert await is_fresh(pool)
        assert not await is_fresh(pool)


async def test_f136_one_that_was_warmed_is_not_fresh() -> None:
    """It may have gone stale, although it was never lent."""
    async with open_pool() as pool:
        await pool.warm(HERE, 1)
        assert not await is_fresh(pool)
        await pool.warm(HERE, 2)
        leases = [await pool.acquire(HERE) for _ in range(2)]
        assert sorted(lease.reused for lease in leases) == [False, True]
        assert not any(lease.fresh for lease in leases)
        for lease in leases:
            pool.release(lease)


async def test_f136_one_taken_without_waiting_is_not_fresh() -> None:
    async with open_pool() as pool:
        await pool.warm(HERE, 1)
        lease = pool.acquire_nowait(HERE)
        assert not lease.fresh
        pool.release(lease)


async def test_f136_one_whose_caller_left_during_the_dial_is_not_fresh(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(Network(delay=1)) as pool:
        with trio.move_on_after(0.5):
            await pool.acquire(HERE)
        await trio.sleep(1)
        assert counts(pool) == {"idle": 1}
        assert not await is_fresh(pool)


async def test_f136_one_handed_over_from_its_dial_to_the_next_in_line_is_fresh(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(Network(delay=1), max_connections_per_endpoint=1) as pool:
        with trio.move_on_after(0.5):
            await pool.acquire(HERE)
        assert await is_fresh(pool)
        assert pool.stats(HERE).total_created == 1


async def test_f136_one_handed_over_from_another_lease_is_not_fresh(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_pool(max_connections_per_endpoint=1) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(hold, pool)
        assert not await is_fresh(pool)
        assert trio.current_time() == 1


async def test_f136_one_asked_for_as_fresh_is_fresh() -> None:
    async with open_pool() as pool:
        await pool.warm(HERE, 2)
        async with pool.connection(HERE, fresh=True) as lease:
            assert lease.fresh


class Stale(Exception):
    pass


@pytest.mark.parametrize("how", ["warmed", "abandoned", "used"])
async def test_f136_the_recipe_gets_through_for_what_was_idle_too_long(
    how: str, autojump_clock: MockClock
) -> None:
    """A balancer answers the first packet after half a minute with a hang-up."""

    async def echo_unless_forgotten(stream: trio.abc.Stream) -> None:
        last = trio.current_time()
        async for data in stream:
            if trio.current_time() - last > 30:
                return
            last = trio.current_time()
            await stream.send_all(data)

    async def ask_once(pool: ConnectionPool[None], *, fresh: bool = False) -> bytes:
        async with pool.connection(HERE, fresh=fresh) as lease:
            try:
                await lease.send_all(b"x")
                if not (reply := await lease.receive_some()):
                    raise EOFError
            except (trio.BrokenResourceError, EOFError) as error:
                if lease.fresh:
                    raise
                raise Stale from error
            return bytes(reply)

    network = Network(echo_unless_forgotten)
    async with open_pool(network, max_idle_time=300) as pool:
        if how == "warmed":
            await pool.warm(HERE, 1)
        elif how == "used":
            await ask_once(pool)
        else:
            network.delay = 1
            with trio.move_on_after(0.5):
                await pool.acquire(HERE)
        await trio.sleep(40)
        with pytest.raises(Stale):
            await ask_once(pool)
        assert await ask_once(pool, fresh=True) == b"x"
