"""Plays in which one call of the pool's fails, and what must hold whatever failed.

A play builds its world outside of the block that it gets, suffers inside, and sees what is left.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import cycle
from typing import Any, TypeAlias, cast

import trio

import conpool
from conpool.testing import Failure, fail_everywhere

from .cases import nothing
from .connectors import BareConnector
from .totals import tried
from .world import World, config, exchange, mock_clock

Call: TypeAlias = Callable[[World], Awaitable[object]]
Connect: TypeAlias = Callable[[], conpool.Connector]

BOUND = 100.0
"""Seconds in which whatever the pool does must have come to an end."""

KINDS: list[type[BaseException]] = [MemoryError, KeyboardInterrupt, OSError, RecursionError]

PURE = ["conpool._core", "conpool._stats", "conpool._values"]
JUDGES = ["tests.support.pools", "tests.support.clean"]
"""Where the observers live that check the events: they must hear of all of them."""


def sweep(
    play: Callable[[Failure], Awaitable[object]], first: int = 0, *, on_sockets: bool = False
) -> None:
    """Fail every call of `play`, with each kind of exception in turn, beginning with the `first`.

    With `CONPOOL_EVERY_ERROR=1` in the environment, every call fails with every kind.
    """
    logging.disable(logging.CRITICAL)  # a thousand tracebacks take long
    try:
        if "CONPOOL_EVERY_ERROR" in os.environ:
            for kind in KINDS:
                fail(play, kind, on_sockets=on_sockets)
        else:
            kinds = cycle(KINDS[first % len(KINDS) :] + KINDS[: first % len(KINDS)])
            fail(play, lambda: next(kinds)(), on_sockets=on_sockets)  # noqa: PLW0108 - each anew
    finally:
        logging.disable(logging.NOTSET)


def fail(
    play: Callable[[Failure], Awaitable[object]],
    error: Callable[[], BaseException],
    *,
    on_sockets: bool = False,
) -> None:
    points = fail_everywhere(
        play,
        within=["conpool", *JUDGES],
        apart_from=[*PURE, *JUDGES],
        error=error,
        clock=None if on_sockets else mock_clock,
    )
    tried["calls that failed"] += points
    assert points > 3


async def endure(failure: Failure, call: Callable[[], Awaitable[object]]) -> None:
    """Make a call; put up with the failure, and with what a pool may say that has failed."""
    try:
        await call()
    except BaseException as exc:  # noqa: ASYNC103
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
    else:
        heard.append(exc)


def assert_heard(failure: Failure) -> None:
    """A KeyboardInterrupt or the like must have come out of something."""
    if not isinstance(failure.raised, Exception | None):
        assert any(exc is failure.raised for exc in heard), "it was swallowed"


heard: list[BaseException] = []
"""What came out of calls, and of the pool's block, in this run."""


class Play:
    """A call in a world, and those who use the pool beside it."""

    def __init__(
        self,
        call: Call,
        *,
        before: Call = nothing,
        connect: Connect = BareConnector,
        is_heard: bool = True,
        limit: int = 1,
        endpoint: conpool.AnyEndpoint | None = None,
        pool: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self._call = call
        self._before = before
        self._is_heard = is_heard
        self._connect = connect
        self._endpoint = endpoint
        self._pool = pool or {}
        self._settings = config(limit, **settings)

    async def __call__(self, failure: Failure) -> None:
        heard.clear()
        options = dict(self._pool)
        if self._endpoint is not None:
            options["endpoint"] = self._endpoint
        world = World(self._settings, connector=self._connect(), observers=[Guest()], **options)
        try:
            with trio.fail_after(BOUND):
                async with world.opened():
                    await self._before(world)
                    await self._suffer(world, failure)
        except BaseException as exc:  # noqa: ASYNC103
            if isinstance(failure.raised, Exception) or not is_explained(failure, exc):
                raise
            failure_heard(failure, exc)
            assert not world.steps.faults, world.steps.faults[0]
            world.assert_nothing_left()
        if self._is_heard:
            assert_heard(failure)

    async def _suffer(self, world: World, failure: Failure) -> None:
        done = trio.Event()

        async def call() -> None:
            try:
                await endure(failure, lambda: self._call(world))
            finally:
                done.set()

        async def bystander() -> None:
            await endure(failure, lambda: lease(world))

        with failure:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await trio.sleep(0.5)
                nursery.start_soon(bystander)
                await done.wait()


async def lease(world: World) -> None:
    with suppress(conpool.ConnectError):
        async with world.pool.connection(world.endpoint) as conn:
            await exchange(conn, b"the call")
            await trio.sleep(1)


class Guest(conpool.Observer):
    """Hears of everything; each call of it may fail."""

    def acquire_started(self, endpoint: conpool.AnyEndpoint) -> None: ...
    def acquired(self, info: conpool.ConnectionInfo, waited: float) -> None: ...
    def acquire_failed(
        self, endpoint: conpool.AnyEndpoint, error: BaseException, waited: float
    ) -> None: ...
    def released(self, info: conpool.ConnectionInfo, held: float) -> None: ...
    def connecting(self, info: conpool.ConnectionInfo) -> None: ...
    def connected(self, info: conpool.ConnectionInfo, took: float) -> None: ...
    def connect_failed(
        self, info: conpool.ConnectionInfo, error: BaseException, took: float
    ) -> None: ...
    def closed(self, info: conpool.ConnectionInfo, reason: conpool.CloseReason) -> None: ...
    def cleared(self, endpoint: conpool.AnyEndpoint | None) -> None: ...
