"""Cancels a scenario at each of its points in turn.

trio is cooperative: between two steps of tasks nothing happens. To a task that *waits*, a
cancellation in the middle of another task's step looks like one just before or just after that
step. So it is enough to cancel between steps, at these instants:

1. before the scope is entered: to the scenario, an outer scope was cancelled already;
2. while the scope is open, before each step of any task, child and background tasks included;
3. while the scope is open and no task is runnable: all wait, and time is about to pass.

A cancelled scope wakes every task in it that waits (trio calls its abort function at once). A task
that is about to run gets `Cancelled` at its next checkpoint. In this way each checkpoint of each
task is hit twice: while the task waits there (3, or 2 before the step of another task), and after
it was woken but before it runs (2). After the scope was left, a cancellation changes nothing, so
those instants do not count.

The first run is not cancelled, and counts the points. Then each point gets a run of its own. The
tasks run in the same order each time, so that a number means the same point in each run.
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
    it needs, enters the scope that it gets around the code to cancel, and may then look at what is
    left. After it `check` runs, outside of the scope. The first run is not cancelled: scenario and
    check must hold then, too.

    While the scope is open, points in child tasks and background tasks count as well, because a
    cancellation may come at any instant. With real sockets or threads, runs differ, and a point
    that a run does not reach is not tried.

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
        scenario: Takes the scope; ends by itself if nothing cancels it.
        check: Raises if something is wrong after the scenario.
        clock: Makes the clock of each run; by default the real one. With
            `trio.testing.MockClock(autojump_threshold=0)` waiting takes no time.

    Returns:
        How many points were tried.

    Raises:
        BaseException: `scenario` or `check` raised it; a note names the point.
        AssertionError: A run would never have ended; the message says where each task was.
        RuntimeError: `scenario` never enters its scope, trio already runs in this thread, or
            conpool cannot order the tasks of this version of trio.
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
        self._turns: list[Task] = []  # tasks of this batch that are still to run, the next one last
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
        # After the last task of a batch, `arrange` counts this instant if there is another batch.
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
    """Whether a task has entered the scope and not left it yet.

    trio has no public way to ask. If a later trio lacks this private field, every instant counts,
    which only costs needless runs.
    """
    return getattr(scope, "_cancel_status", scope) is not None


def _require_entered(scope: trio.CancelScope) -> None:
    try:
        with scope:
            pass
    except RuntimeError:
        return  # a scope can be entered only once: the scenario did
    raise RuntimeError("the scenario never entered the scope that it was given")
