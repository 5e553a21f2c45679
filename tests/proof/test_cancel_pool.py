"""Cancelling what concerns the whole pool: warming, draining, clearing, closing, leaving the block.

Those who use the pool beside it fare as the call's own promise says; whoever closes a pool and is
cancelled leaves no socket and no task (G10, G18, G19).
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias, get_args

import pytest
import trio

import conpool
from tests.support.pools import find_pool_tasks

from .cases import Case, nothing, one_comes_later, one_holds, one_idle
from .connectors import AwkwardConnector, Mood, PairConnector, encrypted
from .sweeps import Scope, sweep
from .world import World, config, count_servers, exchange

Call: TypeAlias = Callable[[World], Awaitable[object]]


async def play(case: Case, call: Call, scope: Scope) -> None:
    """Make a call of the open pool's."""
    world = case.make_world()
    async with world.opened():
        await case.before(world)
        world.nursery.start_soon(case.beside, world)
        with scope:
            cancelled_before = scope.cancel_called
            await call(world)
            assert not cancelled_before
        world.assert_as_if_never_called()


async def warm(world: World) -> None:
    await world.pool.warm(world.endpoint, 2)
    stats = world.pool.stats(world.endpoint)
    assert stats.idle + stats.active >= 2, world.pool


async def drain(world: World) -> None:
    subs = world.pool._core.subs.values()
    before = {entry.id for sub in subs for entry in sub.limit.borrowers}
    generations = [sub.generation for sub in subs]
    try:
        await world.pool.drain()
        assert not before & {entry.id for sub in subs for entry in sub.limit.borrowers}
    finally:
        if [sub.generation for sub in subs] != generations:  # it was not cancelled at once
            world.spoilt |= before


async def clear(world: World) -> None:
    """Twice, about a lease: it cannot be cancelled itself, but what it is amid can."""
    async with world.pool.connection(world.endpoint) as conn:
        world.spoilt.add(conn.id)
        await exchange(conn, b"the call")
        world.pool.clear()
        await exchange(conn, b"the call")
    world.pool.clear(world.endpoint)
    await trio.sleep(0.1)


CALLS = pytest.mark.parametrize("call", [warm, drain, clear])
BEFORE = pytest.mark.parametrize("before", [nothing, one_idle, one_holds])


@CALLS
@BEFORE
@pytest.mark.parametrize("beside", [nothing, one_comes_later])
@pytest.mark.parametrize("make_connector", [lambda: None, PairConnector])
def test_a_call_that_is_cancelled_leaves_the_pool_in_order(
    call: Call,
    before: Call,
    beside: Call,
    make_connector: Callable[[], conpool.Connector | None],
) -> None:
    case = Case(config(2), before=before, beside=beside, make_connector=make_connector)
    sweep(partial(play, case, call))


@pytest.mark.parametrize("call", [drain, clear])
@pytest.mark.parametrize("before", [one_idle, one_holds])
@pytest.mark.parametrize("mood", get_args(Mood))
def test_a_call_that_is_cancelled_amid_goodbyes_leaves_the_pool_in_order(
    call: Call,
    before: Call,
    mood: Mood,
    server_ssl: ssl.SSLContext,
    client_ssl: ssl.SSLContext,
) -> None:
    case = Case(
        config(2, close_timeout=0.5),
        before=before,
        beside=one_comes_later,
        make_connector=lambda: AwkwardConnector(mood, encrypted(server_ssl)),
        endpoint=conpool.Endpoint("localhost", 5432, tls=conpool.TLS(client_ssl)),
    )
    sweep(partial(play, case, call))


# ── closing, leaving ────────────────────────────────────────────────────────────


async def busy(world: World) -> None:
    """A pool in which everything is going on: idle, lent, dialling, closing, and one who waits."""
    await world.lay_idle(2)
    await world.start("holder", 2)
    await world.lay_idle()
    world.pool.close_idle()
    await world.start("dialling", 2)
    await world.start("waiting", 2)
    world.nursery.start_soon(suffer_warming, world)


async def suffer(world: World, name: str, seconds: float, **options: object) -> None:
    """Hold, and put up with what a pool that closes may do to anybody."""
    try:
        await World.hold(world, name, seconds)
    except (conpool.PoolClosed, trio.ClosedResourceError):
        world.log.append((f"{name} was told", trio.current_time()))


async def suffer_warming(world: World) -> None:
    with pytest.raises(conpool.PoolClosed):
        await world.pool.warm(world.endpoint, 2)
        await world.pool.warm(world.endpoint, 2)  # in case it was warm already


def assert_gone(world: World) -> None:
    """Whoever closed the pool has returned: nothing is left, whatever cut the closing short."""
    assert world.connector.live == 0, world.connector
    assert not find_pool_tasks()
    stats = world.pool.all_stats()
    counts = stats.active, stats.idle, stats.connecting, stats.closing, stats.waiting
    assert not any(counts), world.pool


async def close_amid_everything(case: Case, closers: int, scope: Scope) -> None:
    world = case.make_world()
    world.hold = partial(suffer, world)  # type: ignore[method-assign]
    with world.watched():
        async with trio.open_nursery() as world.nursery:
            async with world.pool:
                await busy(world)
                for _ in range(closers - 1):
                    world.nursery.start_soon(world.pool.aclose)
                opened = world.pool.all_stats().total_created
                limit = trio.current_time() + GRACE + CLOSE_TIMEOUT
                with scope:
                    await world.pool.aclose()
                    assert_gone(world)
                assert trio.current_time() <= limit, "closing took too long (G17)"
                assert world.pool.all_stats().total_created == opened, "a dial went on"
                if scope.cancelled_caught and closers == 1:
                    assert_gone(world)
                with pytest.raises(conpool.PoolClosed):
                    await world.pool.acquire(world.endpoint)
            assert_gone(world)
        await trio.sleep(20)
    assert count_servers() == 0
    world.assert_nothing_left()


GRACE, CLOSE_TIMEOUT = 1.0, 0.5
MOODS = pytest.mark.parametrize("mood", [*get_args(Mood), None])


def make_case(mood: Mood | None, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext) -> Case:
    """Over TLS, so that there are goodbyes; without a mood, over sockets."""
    serve = encrypted(server_ssl)
    return Case(
        config(2, close_timeout=CLOSE_TIMEOUT, shutdown_grace=GRACE),
        make_connector=lambda: AwkwardConnector(mood, serve) if mood else PairConnector(serve),
        endpoint=conpool.Endpoint("localhost", 5432, tls=conpool.TLS(client_ssl)),
    )


@MOODS
@pytest.mark.parametrize("closers", [1, 2])
def test_a_close_that_is_cancelled_leaves_nothing(
    mood: Mood | None, closers: int, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    case = make_case(mood, server_ssl, client_ssl)
    assert sweep(partial(close_amid_everything, case, closers)) > 5


async def leave_amid_everything(case: Case, raises: bool, scope: Scope) -> None:
    """The scope is around the whole block; those who use the pool are outside of it."""
    world = case.make_world()
    world.hold = partial(suffer, world)  # type: ignore[method-assign]
    finished = False
    with world.watched():
        async with trio.open_nursery() as world.nursery:
            with scope:
                try:
                    async with world.pool:
                        await busy(world)
                        await trio.sleep(0.1)
                        if raises:
                            raise LookupError
                except LookupError:
                    assert raises
                finished = True
            assert finished or scope.cancelled_caught
            assert_gone(world)
        await trio.sleep(20)
    assert count_servers() == 0
    world.assert_nothing_left()


@MOODS
@pytest.mark.parametrize("raises", [False, True])
def test_a_block_that_is_cancelled_leaves_nothing(
    mood: Mood | None, raises: bool, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    case = make_case(mood, server_ssl, client_ssl)
    assert sweep(partial(leave_amid_everything, case, raises)) > 5


def test_a_pool_in_a_scope_that_was_cancelled_before_never_opens() -> None:
    async def play(scope: Scope) -> None:
        world = World(config())
        with scope:
            async with world.pool:
                await world.lay_idle()
        assert world.connector.live == 0
        assert not find_pool_tasks()

    assert sweep(play) > 5
