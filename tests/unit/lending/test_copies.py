"""One lease has one handle, and one block one task."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, Connection, ConnectionInfo, Observer
from tests.support.pools import HERE, Network, counts, exchange, open_pool, reasons

COPIES: list[Callable[[object], object]] = [
    copy.copy,
    copy.deepcopy,
    pickle.dumps,
]


@pytest.mark.parametrize("make_copy", COPIES)
async def test_f154_leases_blocks_and_pools_cannot_be_copied(
    make_copy: Callable[[object], object],
) -> None:
    """G2 G6: a second handle would outlive the lease and reach the next caller's traffic."""
    async with open_pool() as pool:
        block = pool.connection(HERE)
        async with block as lease:
            for original, why in [
                (lease, "a lease cannot be copied or pickled: a second handle would outlive it"),
                (block, "a block cannot be copied or pickled: call connection"),
                (pool, f"pool {pool.name} cannot be copied or pickled: .* Make another pool"),
            ]:
                with pytest.raises(TypeError, match=why):
                    make_copy(original)
            assert await exchange(lease) == b"ping"
        assert counts(pool) == {"idle": 1}


async def test_f154_what_observers_hear_may_be_copied() -> None:
    heard: list[ConnectionInfo] = []

    class Listener(Observer):
        def acquired(self, info: ConnectionInfo, waited: float) -> None:
            heard.append(info)

    async with open_pool(observers=[Listener()]) as pool, pool.connection(HERE):
        info = heard[0]
        copies = [copy.copy(info), copy.deepcopy(info), pickle.loads(pickle.dumps(info))]
        assert copies == [info] * 3
        assert copy.copy(pool.stats(HERE)) == pool.stats(HERE)


async def test_f154_second_task_that_enters_a_block_is_refused_and_the_first_unharmed(
    autojump_clock: MockClock,
) -> None:
    """Also while the first still waits for its connection."""
    async with open_pool(Network(delay=1), max_connections_per_endpoint=2) as pool:
        block = pool.connection(HERE)
        refused: list[float] = []

        async def enter_too(seconds: float) -> None:
            await trio.sleep(seconds)
            with pytest.raises(RuntimeError, match="entered already: call connection"):
                async with block:
                    raise AssertionError("entered")
            refused.append(seconds)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(enter_too, 0.5)  # the dial is under way
            nursery.start_soon(enter_too, 1.5)  # the lease has begun
            async with block as lease:
                await trio.sleep(1)
                assert await exchange(lease) == b"ping"
                assert refused == [0.5, 1.5]
        assert (counts(pool), reasons(pool)) == ({"idle": 1}, {})


async def test_f154_two_tasks_cannot_enter_a_block_in_one_step_with_an_idle_connection() -> None:
    """The idle hit has a checkpoint, too."""
    async with open_pool() as pool:
        pool.release(await pool.acquire(HERE))
        block = pool.connection(HERE)
        outcomes: list[str] = []

        async def enter() -> None:
            try:
                async with block:
                    await trio.lowlevel.checkpoint()
                    outcomes.append("entered")
            except RuntimeError:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(enter)
            nursery.start_soon(enter)
        assert sorted(outcomes) == ["entered", "refused"]
        assert counts(pool) == {"idle": 1}


async def test_f154_block_that_could_not_be_entered_may_be_entered_later(
    autojump_clock: MockClock,
) -> None:
    async with open_pool() as pool:
        pool.pause(HERE)
        block = pool.connection(HERE, timeout=1)
        with pytest.raises(AcquireTimeout):
            await block.__aenter__()
        with trio.CancelScope() as scope:
            scope.cancel()
            await block.__aenter__()
        assert scope.cancelled_caught
        pool.resume(HERE)
        async with block as lease:
            assert isinstance(lease, Connection)
        assert counts(pool) == {"idle": 1}
