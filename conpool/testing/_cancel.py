"""Cancel a scenario at each of its points in turn.

trio is cooperative: between two steps of tasks nothing happens, and a cancellation that comes in
the middle of a step is one that came just before or just after it, as far as any *waiting* task can
tell. So the instants between steps are all the instants there are:

1. before the scope is entered, which is how an outer scope that is already cancelled looks;
2. while it is open, before each step of any task, child and background tasks included;
3. while it is open and nothing is runnable: everybody waits, and time is about to pass.

A scope that is cancelled at one of them cuts short every task in it that waits (its abort function
runs there and then), and catches those that are about to go on at their next checkpoint. Each
checkpoint of each task is hit in this way: while it waits there (3, or 2 before another's step),
and after it was woken but before it runs (2). Instants after the scope was left change nothing and
are not counted.

A first run, which is not cancelled, counts the points; then each gets a run of its own. The order
of the tasks is the same each time, so that a number means the same point in each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

import trio
from trio.lowlevel import Task

from conpool.testing import _run


def cancel_everywhere(
    scenario: Callable[[trio.CancelScope], Awaitable[object]],
    *,
    check: Callable[[], Awaitable[object]] | None = None,
    clock: Callable[[], trio.abc.Clock] | None = None,
) -> int:
    """Run `scenario` once for each checkpoint that it passes, cancelled there.

    Each run is a `trio.run` of its own; call it from a synchronous test. The scenario builds what
    it needs, enters the scope it is given around the code that is to be cancelled, and may look
    afterwards at what is left. Then `check` is awaited in the same run, outside of the scope. The
    first run is not cancelled at all: scenario and check must hold then, too.

    Points in child tasks and in background tasks count as well, as long as the scope is open: a
    cancellation may come at any instant. With real sockets or threads, runs differ, and the points
    that are reached are tried.

    Example:
        >>> from trio.testing import MockClock
        >>> lock = trio.Lock()
        >>> async def scenario(scope: trio.CancelScope) -> None:
        ...     with scope:
        ...         async with lock:
        ...             await trio.sleep(1)
        >>> async def check() -> None:
        ...     assert not lock.locked()
        >>> cancel_everywhere(
        ...     scenario, check=check, clock=lambda: MockClock(autojump_threshold=0)
        ... )
        4

    Args:
        scenario: What is to be cancelled. Ends by itself when it is not.
        check: What must hold afterwards, wherever it was cancelled.
        clock: Makes the clock of each run; by default the real one. With
            `trio.testing.MockClock(autojump_threshold=0)` waiting costs no time.

    Returns:
        How many points were tried.

    Raises:
        BaseException: What `scenario` or `check` raises, as it is, with a note that names the
            point.
        AssertionError: A run would never have ended; the message says where each task was.
        RuntimeError: `scenario` never enters its scope, trio runs already in this thread, or this
            trio does not let its tasks be ordered.
    """
    _run.require_known_trio()
    points = _attempt(_Attempt(scenario, check, 0), clock).passed
    tried = 0
    for number in range(1, points + 1):
        attempt = _attempt(_Attempt(scenario, check, number, of=points), clock)
        tried += attempt.is_cancelled
    return tried


def _attempt(attempt: _Attempt, clock: Callable[[], trio.abc.Clock] | None) -> _Attempt:
    try:
        _run.run(
            attempt.main,
            attempt.arrange,
            clock=None if clock is None else clock(),
            instruments=[attempt],
        )
    except BaseException as exc:
        exc.add_note(attempt.describe())
        raise
    return attempt


@final
class _Attempt(trio.abc.Instrument):
    """One run of the scenario: counts the points and cancels at one of them."""

    def __init__(
        self,
        scenario: Callable[[trio.CancelScope], Awaitable[object]],
        check: Callable[[], Awaitable[object]] | None,
        chosen: int,
        *,
        of: int = 0,
    ) -> None:
        self.passed = 0
        self.is_cancelled = False
        self._scenario = scenario
        self._check = check
        self._chosen = chosen
        self._of = of
        self._scope = trio.CancelScope()
        self._task: Task | None = None
        self._turns: list[Task] = []  # of this batch, the next one last
        self._where = ""

    async def main(self) -> None:
        self._pass_point("before the scope was entered")
        self._task = trio.lowlevel.current_task()
        try:
            await self._scenario(self._scope)
        finally:
            self._task = None
        _require_entered(self._scope)
        if self._check is not None:
            await self._check()

    def arrange(self, batch: list[Task]) -> None:
        """Leave the oldest task first; the instant before its step is a point."""
        self._turns = batch[::-1]
        self._maybe_pass_point()

    def after_task_step(self, task: Task) -> None:
        if not self._turns or task is not self._turns[-1]:
            return  # trio's own
        self._turns.pop()
        # After the last one of a batch, the next batch, if there is one, begins with this instant.
        if self._turns or not trio.lowlevel.current_statistics().tasks_runnable:
            self._maybe_pass_point()

    def describe(self) -> str:
        if not self._chosen:
            return "conpool.testing: nothing was cancelled"
        return f"conpool.testing: cancelled at point {self._chosen} of {self._of}, {self._where}"

    def _maybe_pass_point(self) -> None:
        if self._task is not None and _is_open(self._scope):
            self._pass_point()

    def _pass_point(self, where: str = "") -> None:
        self.passed += 1
        if self.passed == self._chosen:
            self._where = where or self._describe_instant()
            self.is_cancelled = True
            self._scope.cancel()

    def _describe_instant(self) -> str:
        instant = "while every task waited"
        if self._turns:
            task = self._turns[-1]
            instant = f"just before task {task.name} went on from {_run.place(task)}"
        if self._task is None or self._turns[-1:] == [self._task]:
            return instant
        return f"{instant}; the scenario was at {_run.place(self._task)}"


def _is_open(scope: trio.CancelScope) -> bool:
    """Whether the scope was entered and not yet left.

    trio does not tell; this looks at a private field, and without that field each instant
    counts, which costs runs that show nothing.
    """
    return getattr(scope, "_cancel_status", scope) is not None


def _require_entered(scope: trio.CancelScope) -> None:
    try:
        with scope:
            pass
    except RuntimeError:
        return  # a scope can be entered only once: the scenario did
    raise RuntimeError("the scenario never entered the scope that it was given")
