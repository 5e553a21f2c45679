"""Acquires in many circumstances, each to be stopped at every moment (see `sweeps`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import trio

import conpool

from .sweeps import Scope, find_moments, run, sweep
from .totals import tried
from .world import HOME, World, config, exchange

GiveBack: TypeAlias = Callable[[], Awaitable[None]]
"""Ends, outside of the scope, a lease that the call has got."""
Way: TypeAlias = Callable[..., Awaitable[GiveBack]]
Log: TypeAlias = list[tuple[str, float]]


async def nothing(world: World) -> None:
    """Nobody else is there."""


async def one_idle(world: World) -> None:
    await world.lay_idle(1)


async def one_comes_later(world: World) -> None:
    await trio.sleep(0.25)
    await world.start("later")


async def one_comes_soon(world: World) -> None:
    """Before the first answer: waits when the lease ends."""
    await trio.sleep(0.125)
    await world.start("soon")


async def one_holds(world: World) -> None:
    await world.start("holder", 2)


@dataclass(frozen=True)
class Case:
    """One acquire, and the world around it."""

    settings: conpool.PoolConfig = field(default_factory=config)
    before: Callable[[World], Awaitable[object]] = nothing
    """What the call finds."""
    beside: Callable[[World], Awaitable[object]] = nothing
    """Who comes while the call is under way: runs beside it, outside of its scope."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the call."""
    make_connector: Callable[[], conpool.Connector | None] = lambda: None
    endpoint: conpool.Target = HOME
    pool: dict[str, Any] = field(default_factory=dict)
    """Arguments of the pool's own."""
    fate: Literal["the same", "no later", "in order"] = "the same"
    """How the bystanders fare, compared with a world without the call."""

    def make_world(self) -> World:
        return World(
            self.settings, connector=self.make_connector(), endpoint=self.endpoint, **self.pool
        )


async def enter_block(world: World, timeout: float | None = None, **options: Any) -> GiveBack:
    block = world.pool.connection(world.endpoint, timeout=timeout, **options)
    conn = await block.__aenter__()

    async def leave() -> None:
        await exchange(conn, b"the call")
        await block.__aexit__(None, None, None)

    return leave


async def acquire(world: World, timeout: float | None = None, **options: Any) -> GiveBack:
    conn = await world.pool.acquire(world.endpoint, timeout=timeout, **options)

    async def release() -> None:
        await exchange(conn, b"the call")
        world.pool.release(conn)

    return release


async def play(
    case: Case, way: Way | None, scope: Scope, timeout: float | None = None
) -> Log | None:
    """Make the call, unless there is none; return the bystanders' log if it came to nothing."""
    world = case.make_world()
    give_back = None
    async with world.opened():
        await case.before(world)
        world.nursery.start_soon(case.beside, world)
        if way is not None:
            with suppress(conpool.AcquireTimeout), scope:
                give_back = await way(world, timeout, **case.options)
                assert not scope.cancel_called, "what was cancelled has not returned (G15)"
        if give_back is None:
            world.assert_as_if_never_called()
        else:
            await give_back()
    return world.log if give_back is None else None


def sweep_acquire(case: Case, way: Way) -> None:
    """Cancel an acquire in every way, and have its own time run out at every moment."""
    without: list[Log] = []

    async def no_call(scope: Scope) -> None:
        with scope:
            pass
        without.append(await play(case, None, scope) or [])

    run(no_call, trio.CancelScope(), "without the call")

    async def call(scope: Scope, timeout: float | None = None) -> None:
        log = await play(case, way, scope, timeout)
        if log is not None:
            compare(log, without[0], case.fate)

    assert sweep(call) >= 2
    moments = find_moments(call)
    for moment in moments:
        timeout = moment - moments[0]
        run(partial(call, timeout=timeout), trio.CancelScope(), f"with {timeout} seconds to wait")
        tried["time-outs"] += 1


def compare(log: Log, without: Log, fate: str) -> None:
    """See that the bystanders fared as in a world without the call."""
    if fate == "the same":
        assert log == without
    else:
        assert [name for name, _ in log] == [name for name, _ in without]
    if fate == "no later":
        late = [(name, at) for (name, at), (_, then) in zip(log, without, strict=True) if at > then]
        assert not late, without
