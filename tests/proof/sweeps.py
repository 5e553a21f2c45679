"""Every way in which a call can be told to stop, at every moment at which it can be told.

A play builds its world, makes one call inside the scope that it is given, and sees what is left. It
is run once for each point, cancelled there; once for each moment at which anything happens, with a
deadline at that moment, and once for each pause between two such moments; and inside another scope
that was cancelled before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from itertools import pairwise
from types import TracebackType
from typing import Protocol, Self, TypeAlias, final

import trio

from conpool.testing import _run, cancel_everywhere
from conpool.testing._cancel import _is_open

from .totals import tried
from .world import mock_clock


class Scope(Protocol):
    """As much of a cancel scope as a play may use."""

    @property
    def cancel_called(self) -> bool: ...
    @property
    def cancelled_caught(self) -> bool: ...
    def __enter__(self) -> object: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None: ...


Play: TypeAlias = Callable[[Scope], Awaitable[object]]


def sweep(play: Play) -> int:
    """Stop `play` in every way; return at how many points it was cancelled."""
    points = cancel_everywhere(play, clock=mock_clock)
    tried["points of cancellation"] += points
    for moment in find_moments(play):
        run(play, trio.CancelScope(deadline=moment), f"with a deadline at {moment}")
        tried["deadlines"] += 1
    run(play, CancelledOutside(), "inside a scope that was cancelled before")
    tried["outer scopes"] += 1
    return points


def run(play: Play, scope: Scope, how: str) -> None:
    """Run `play` once, in trio's plainest order."""

    async def main() -> None:
        await play(scope)

    try:
        _run.run(main, lambda _: None, clock=mock_clock())
    except BaseException as exc:
        exc.add_note(how)
        raise


def find_moments(play: Play) -> list[float]:
    """Return when anything happens while the scope is open, and the middles between."""
    scope = trio.CancelScope()
    watch = _Watch(scope)

    async def watched(scope: Scope) -> None:
        trio.lowlevel.add_instrument(watch)
        await play(scope)

    run(watched, scope, "not cancelled")
    moments = sorted(watch.moments)
    middles = [(early + late) / 2 for early, late in pairwise(moments)]
    return sorted(moments + middles)


@final
class CancelledOutside:
    """A scope in a scope that is cancelled as soon as both are open."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._outer = trio.CancelScope()

    @property
    def cancel_called(self) -> bool:
        return self._outer.cancel_called

    @property
    def cancelled_caught(self) -> bool:
        return self._outer.cancelled_caught

    def __enter__(self) -> Self:
        self._stack.enter_context(self._outer)
        self._stack.enter_context(trio.CancelScope())
        self._outer.cancel()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._stack.__exit__(kind, exc, traceback)


@final
class _Watch(trio.abc.Instrument):
    def __init__(self, scope: trio.CancelScope) -> None:
        self.moments: set[float] = set()
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if _is_open(self._scope):
            self.moments.add(trio.current_time())
