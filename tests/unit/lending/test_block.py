"""`async with pool.connection(…)`: the block around a lease."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, ConfigError, Connection, ConnectionPool, PoolClosed
from tests.support.pools import HERE, Network, counts, exchange, hold, open_pool, reasons, settle


async def test_block_lends_for_its_length() -> None:
    """F086"""
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:
            assert isinstance(connection, Connection)
            assert counts(pool) == {"active": 1}
        assert counts(pool) == {"idle": 1}


async def test_block_that_is_never_entered_takes_nothing() -> None:
    """F099: and complains of nothing."""
    async with open_pool() as pool:
        pool.connection(HERE)
        gc.collect()
        await settle()
        assert counts(pool) == {}
        assert pool.stats(HERE).acquired == 0


async def test_block_that_cannot_be_entered_leaves_nothing(autojump_clock: MockClock) -> None:
    """G10"""
    async with open_pool() as pool:
        pool.pause(HERE)
        with pytest.raises(AcquireTimeout):
            async with pool.connection(HERE, timeout=1):
                raise AssertionError("entered")
        assert counts(pool) == {}


@pytest.mark.parametrize("is_plain", [True, False])
async def test_block_that_could_not_be_entered_may_be_entered_again(is_plain: bool) -> None:
    async with open_pool(is_plain=is_plain) as pool:
        block = pool.connection(HERE)
        with trio.CancelScope() as scope:
            scope.cancel()
            async with block:
                raise AssertionError("entered")
        assert scope.cancelled_caught
        for _ in range(2):
            async with block as connection:
                with pytest.raises(RuntimeError, match="has been entered already"):
                    await block.__aenter__()
                assert await exchange(connection) == b"ping"
        assert counts(pool) == {"idle": 1}


async def test_block_whose_lease_ended_inside_ends_quietly() -> None:
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:
            await exchange(connection)
            pool.release(connection)
            async with pool.connection(HERE) as again:
                assert again.id == connection.id
        assert counts(pool) == {"idle": 1}


async def test_block_whose_lease_ended_inside_does_not_judge_what_came_after() -> None:
    """G2: the connection may be another's by then."""
    async with open_pool() as pool:
        with pytest.raises(ValueError):
            async with pool.connection(HERE) as connection:
                pool.release(connection)
                raise ValueError
        assert (counts(pool), reasons(pool)) == ({"idle": 1}, {})


async def test_block_is_not_entered_twice_at_a_time() -> None:
    async with open_pool() as pool:
        block = pool.connection(HERE)
        async with block:
            with pytest.raises(RuntimeError, match="call connection\\(\\) for each"):
                await block.__aenter__()
            assert counts(pool) == {"active": 1}
        assert counts(pool) == {"idle": 1}


async def test_block_may_be_entered_again_after_its_end() -> None:
    async with open_pool() as pool:
        block = pool.connection(HERE)
        for uses in (1, 2):
            async with block as connection:
                assert connection.uses == uses


async def test_blocks_may_be_left_in_any_order() -> None:
    """The lease holds neither a scope nor a nursery that would have to be left in order."""
    async with open_pool() as pool:
        blocks = [pool.connection(HERE) for _ in range(3)]
        for block in blocks:
            await block.__aenter__()
        for block in blocks:
            await block.__aexit__(None, None, None)
        assert counts(pool) == {"idle": 3}


async def test_lease_may_be_ended_by_another_task(autojump_clock: MockClock) -> None:
    async def end(pool: ConnectionPool[None], connection: Connection[None]) -> None:
        await trio.sleep(1)
        pool.release(connection)

    async with open_pool() as pool, trio.open_nursery() as nursery:
        connection = await pool.acquire(HERE)
        nursery.start_soon(end, pool, connection)


async def test_lease_may_begin_inside_a_scope_and_end_outside(autojump_clock: MockClock) -> None:
    async with open_pool() as pool:
        block = pool.connection(HERE)
        with trio.fail_after(5):
            connection = await block.__aenter__()
        await trio.sleep(10)
        assert await exchange(connection) == b"ping"
        await block.__aexit__(None, None, None)
        assert counts(pool) == {"idle": 1}


async def test_leaving_a_block_is_no_checkpoint() -> None:
    """G11: what cannot wait cannot be cancelled."""
    async with open_pool() as pool:
        block = pool.connection(HERE)
        await block.__aenter__()
        with trio.testing.assert_no_checkpoints():
            await block.__aexit__(None, None, None)


@pytest.mark.parametrize("fresh", [False, True])
async def test_entering_a_block_is_a_checkpoint(fresh: bool) -> None:
    async with open_pool() as pool:
        for _ in range(2):
            block = pool.connection(HERE, fresh=fresh)
            with trio.testing.assert_checkpoints():
                await block.__aenter__()
            await block.__aexit__(None, None, None)


async def test_leaving_a_block_in_a_cancelled_scope_gives_back(autojump_clock: MockClock) -> None:
    """The block ended without an exception: that the scope around it is cancelled tells nothing."""
    async with open_pool() as pool:
        with trio.CancelScope() as scope:
            async with pool.connection(HERE):
                scope.cancel()
        assert counts(pool) == {"idle": 1}


async def test_each_of_many_tasks_gets_its_own(autojump_clock: MockClock) -> None:
    """G2"""
    network = Network()
    async with open_pool(network) as pool:
        async with trio.open_nursery() as nursery:
            leases = [await nursery.start(hold, pool) for _ in range(10)]
            assert len({lease.id for lease in leases}) == 10
            assert network.live == 10
        assert counts(pool) == {"idle": 10}


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True])
async def test_impossible_time_out_is_refused_before_anything_happens(timeout: float) -> None:
    """F013"""
    network = Network()
    async with open_pool(network) as pool:
        with pytest.raises(ConfigError, match="timeout"):
            pool.connection(HERE, timeout=timeout)
        with pytest.raises(ConfigError, match="timeout"):
            await pool.acquire(HERE, timeout=timeout)
    assert not network.dials


async def test_what_is_no_endpoint_is_refused() -> None:
    async with open_pool() as pool:
        with pytest.raises(TypeError, match="not an Endpoint or UnixEndpoint but a str"):
            async with pool.connection("here.example:5432"):  # type: ignore[arg-type]
                pass
        with pytest.raises(TypeError):
            await pool.acquire([HERE])  # type: ignore[arg-type]
        assert not pool.all_stats().endpoints


async def test_block_of_a_pool_that_has_closed_cannot_be_entered() -> None:
    """F116"""
    async with open_pool() as pool:
        block = pool.connection(HERE)
    with pytest.raises(PoolClosed, match=f"pool {pool.name} is closed"):
        await block.__aenter__()


async def test_a_plain_with_says_what_to_write() -> None:
    async with open_pool() as pool:
        block: Any = pool.connection(HERE)
        with pytest.raises(TypeError, match="async with"), block:
            raise AssertionError
