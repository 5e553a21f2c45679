"""Every call that the pool makes into something else fails, one after the other.

Whatever fails, and wherever: no slot is lost, nobody sleeps on, the books balance after every step,
the observers' pairs are complete, no socket stays open, and the pool's block can be left. An
`Exception` leaves the pool in working order. Another exception (KeyboardInterrupt) may end the
pool, and always comes out of something (G11, G17, G17b, G20).
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeAlias, cast

import pytest
import trio

import conpool
from conpool.testing import Failure, fail_everywhere
from tests.support.pools import find_pool_tasks

from .connectors import AwkwardConnector, BareConnector, PairConnector, encrypted
from .totals import tried
from .world import World, config, exchange, mock_clock

Call: TypeAlias = Callable[[World], Awaitable[object]]
Connect: TypeAlias = Callable[[], conpool.Connector]

BOUND = 100.0
"""Seconds in which whatever the pool does must have come to an end."""

ERRORS = pytest.mark.parametrize(
    "error", [MemoryError, RecursionError, OSError, KeyboardInterrupt], ids=lambda kind: kind.__name__
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Have nothing logged: a thousand tracebacks take long."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def sweep(play: Callable[[Failure], Awaitable[object]], error: type[BaseException]) -> None:
    points = fail_everywhere(
        play, within=["conpool"], apart_from=["conpool._core"], error=error, clock=mock_clock
    )
    tried["calls that failed"] += points
    assert points > 3


async def endure(failure: Failure, call: Callable[[], Awaitable[object]]) -> None:
    """Make a call; put up with the failure, and with what a pool may say that has failed."""
    try:
        await call()
    except BaseException as exc:
        if not is_explained(failure, exc):
            raise
        failure_heard(failure, exc)


def is_explained(failure: Failure, exc: BaseException) -> bool:
    """Whether `exc` is the failure, or what the pool makes of it."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return all(is_explained(failure, one) for one in group.exceptions)
    if failure.raised is None:
        return False
    return exc is failure.raised or isinstance(
        exc, conpool.ConnectError | conpool.PoolClosed | trio.ClosedResourceError
    )


def failure_heard(failure: Failure, exc: BaseException) -> None:
    if isinstance(exc, BaseExceptionGroup):
        for one in cast("BaseExceptionGroup[BaseException]", exc).exceptions:
            failure_heard(failure, one)
    elif exc is failure.raised:
        heard.add(id(exc))


heard: set[int] = set()
"""Which failures came out of something."""


class Play:
    """A call in a world, and those who use the pool beside it."""

    def __init__(
        self,
        call: Call,
        *,
        connect: Connect = BareConnector,
        limit: int = 1,
        endpoint: conpool.AnyEndpoint | None = None,
        pool: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self._call = call
        self._connect = connect
        self._endpoint = endpoint
        self._pool = pool or {}
        self._settings = config(limit, **settings)

    async def __call__(self, failure: Failure) -> None:
        heard.clear()
        options = dict(self._pool)
        if self._endpoint is not None:
            options["endpoint"] = self._endpoint
        world = World(self._settings, connector=self._connect(), **options)
        try:
            with trio.fail_after(BOUND):
                async with world.opened():
                    await self._suffer(world, failure)
        except BaseException as exc:
            if isinstance(failure.raised, Exception) or not is_explained(failure, exc):
                raise
            failure_heard(failure, exc)
            assert not world.steps.faults, world.steps.faults[0]
            world.assert_nothing_left()
        if failure.raised is not None and not isinstance(failure.raised, Exception):
            assert id(failure.raised) in heard, "it was swallowed"

    async def _suffer(self, world: World, failure: Failure) -> None:
        done = trio.Event()

        async def call() -> None:
            try:
                await endure(failure, lambda: self._call(world))
            finally:
                done.set()

        async def bystander() -> None:
            await endure(failure, lambda: world.hold("bystander", timeout=50))

        with failure:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await trio.sleep(0.5)
                nursery.start_soon(bystander)
                await done.wait()


# ── calls ───────────────────────────────────────────────────────────────────────


async def lease(world: World) -> None:
    async with world.pool.connection(world.endpoint) as conn:
        await exchange(conn, b"the call")
        await trio.sleep(1)


async def lease_twice(world: World) -> None:
    await lease(world)
    await lease(world)
    await trio.sleep(5)


PLAYS = {"lease": Play(lease), "lease_twice": Play(lease_twice)}


@ERRORS
@pytest.mark.parametrize("name", PLAYS)
def test_f142_a_call_that_fails(name: str, error: type[BaseException]) -> None:
    sweep(PLAYS[name], error)
