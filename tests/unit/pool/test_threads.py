"""A pool in another thread: all but reading is refused, before anything changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio

from conpool import Connection, ConnectionPool
from tests.support.pools import HERE, Network, counts, exchange, hold, make_pool, open_pool, settle

Pool = ConnectionPool[None]
Lease = Connection[None]

CALLS: dict[str, Callable[[Pool, Lease], object]] = {
    "release": lambda pool, lease: pool.release(lease),
    "discard": lambda pool, lease: pool.discard(lease),
    "acquire_nowait": lambda pool, _: pool.acquire_nowait(HERE),
    "clear": lambda pool, _: pool.clear(HERE),
    "clear all": lambda pool, _: pool.clear(interrupt_in_use=True),
    "close_idle": lambda pool, _: pool.close_idle(HERE),
    "close_idle of all": lambda pool, _: pool.close_idle(),
    "pause": lambda pool, _: pool.pause(HERE),
    "pause all": lambda pool, _: pool.pause(),
    "resume": lambda pool, _: pool.resume(HERE),
    "set_limit": lambda pool, _: pool.set_limit(HERE, 7),
    "mark_unhealthy": lambda pool, _: pool.mark_unhealthy(HERE),
    "mark_healthy": lambda pool, _: pool.mark_healthy(HERE),
    "report_failure": lambda pool, _: pool.report_failure(HERE),
    "report_success": lambda pool, _: pool.report_success(HERE),
    "lease.detach": lambda _, lease: lease.detach(),
    "lease.retire": lambda _, lease: lease.retire(),
    "lease.mark_clean": lambda _, lease: lease.mark_clean(),
}
AWAITED: dict[str, Callable[[Pool, Lease], Awaitable[object]]] = {
    "acquire": lambda pool, _: pool.acquire(HERE),
    "connection": lambda pool, _: pool.connection(HERE).__aenter__(),
    "warm": lambda pool, _: pool.warm(HERE, 2),
    "drain": lambda pool, _: pool.drain(HERE),
    "aclose": lambda pool, _: pool.aclose(),
    "__aexit__": lambda pool, _: pool.__aexit__(None, None, None),
    "lease.aclose": lambda _, lease: lease.aclose(),
    "lease.is_healthy": lambda _, lease: lease.is_healthy(),
}
READS: dict[str, Callable[[Pool, Lease], object]] = {
    "stats": lambda pool, _: pool.stats(HERE),
    "all_stats": lambda pool, _: str(pool.all_stats()),
    "repr": lambda pool, _: repr(pool),
    "closed": lambda pool, _: pool.closed,
    "lease.repr": lambda _, lease: repr(lease),
    "lease.fresh": lambda _, lease: (lease.fresh, lease.reused, lease.uses, lease.id),
}
HARMLESS = {"blocking", "name"}
"""What changes nothing."""


async def check_refused(call: Callable[[Pool, Lease], Awaitable[object]]) -> None:
    """Make `call` with somebody waiting; nothing may have changed, and the pool goes on."""
    async with (
        open_pool(Network(), max_connections_per_endpoint=1) as pool,
        trio.open_nursery() as nursery,
    ):
        lease = await pool.acquire(HERE)
        nursery.start_soon(partial(hold, seconds=0), pool)
        await settle()
        before = (counts(pool), replace(pool.stats(HERE), oldest_wait=0.0))
        with pytest.raises(RuntimeError, match=rf"pool {pool.name} .*trio\.from_thread\.run_sync"):
            await call(pool, lease)
        assert (counts(pool), replace(pool.stats(HERE), oldest_wait=0.0)) == before
        assert await exchange(lease) == b"ping"
        pool.release(lease)
        await settle()
        assert counts(pool) == {"idle": 1}


@pytest.mark.parametrize("name", CALLS)
async def test_f143_a_call_from_another_thread_is_refused_before_anything_changes(
    name: str,
) -> None:
    """F020"""

    async def call(pool: Pool, lease: Lease) -> None:
        await trio.to_thread.run_sync(CALLS[name], pool, lease)

    await check_refused(call)


@pytest.mark.parametrize("name", AWAITED)
async def test_f143_what_another_threads_run_awaits_is_refused_before_anything_changes(
    name: str,
) -> None:
    async def elsewhere(pool: Pool, lease: Lease) -> None:
        await AWAITED[name](pool, lease)

    async def call(pool: Pool, lease: Lease) -> None:
        await trio.to_thread.run_sync(trio.run, elsewhere, pool, lease)

    await check_refused(call)


@pytest.mark.parametrize("name", READS)
async def test_f143_any_thread_may_read(name: str) -> None:
    async with open_pool() as pool, pool.connection(HERE) as lease:
        await trio.to_thread.run_sync(READS[name], pool, lease)


def test_f143_no_public_method_of_a_pool_has_been_forgotten_here() -> None:
    tried = {name.split()[0] for name in (*CALLS, *AWAITED, *READS)}
    names = filter(partial(hasattr, ConnectionPool), dir(ConnectionPool))  # without the guesses
    public = {name for name in names if not name.startswith("_")}
    assert public - HARMLESS <= tried


async def test_f143_a_call_that_is_handed_to_the_pools_thread_is_made() -> None:
    """The error says so."""
    async with open_pool() as pool:
        lease = await pool.acquire(HERE)

        def elsewhere() -> None:
            trio.from_thread.run_sync(pool.release, lease)
            trio.from_thread.run(pool.drain)

        await trio.to_thread.run_sync(elsewhere)
        assert counts(pool) == {}


async def test_f143_a_pool_that_was_never_opened_belongs_to_no_thread() -> None:
    pool = make_pool(Network())
    await trio.to_thread.run_sync(trio.run, pool.aclose)
    assert pool.closed


@pytest.mark.parametrize("value", [object(), None, 7, "lease"])
async def test_f143_what_is_no_lease_is_refused_as_such(value: Any) -> None:
    async with open_pool() as pool:
        for call in (pool.release, pool.discard):
            with pytest.raises(TypeError, match="not a Connection"):
                call(value)
        with pytest.raises(TypeError, match="not a Connection"):
            pool.release(pool.connection(HERE))  # type: ignore[arg-type]
