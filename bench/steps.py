"""The longest time for which trio's loop stands still, while a hundred thousand things happen.

The scenes are those of `tests/proof/test_long_steps.py`, which counts lines of Python in them. Here
the processor's time counts. Time-outs and expiries come in simulated time, all at one moment.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, final

import trio
from trio.testing import MockClock

from tests.proof.test_long_steps import SCENES
from tests.support.long_steps import LongSteps

from .measure import Aim, Scale, Table

_SCENES: Final = {
    "waiters_time_out": "waiters time out",
    "waiters_with_a_time_of_their_own_time_out": "waiters time out, each by its own time",
    "closed_with_waiters": "the pool ends while tasks wait",
    "limit_raised_for_waiters": "the limit is raised for waiters",
    "endpoints_forgotten": "endpoints expire",
    "closed_with_endpoints": "the pool ends with endpoints",
    "idle_ones_expire": "idle connections expire",
    "idle_closed": "idle connections are closed",
    "idle_cleared": "connections are cleared",
    "lent_cleared": "lent connections are cleared",
    "closed_with_idle_ones": "the pool ends with idle connections",
}
_PARTS: Final = {"waiters": slice(0, 4), "endpoints": slice(4, 6), "connections": slice(6, None)}
"""Which scenes are about what."""

_LONGEST: Final = 10.0
"""Milliseconds."""


def measure_steps(scale: Scale) -> Table:
    """Time each scene's longest step, and the longest round of trio's loop."""
    count = scale.pick(100_000, 10_000, 50)
    rows: list[tuple[str, ...]] = []
    longest: list[float] = []
    for scene, text in _SCENES.items():
        steps = _watch(scene, count)
        if steps.longest > _LONGEST:  # once may be the machine's
            steps = min(steps, _watch(scene, count), key=lambda found: found.longest)
        figures = (steps.longest, steps.longest_round, steps.paused)
        rows.append((text, *(f"{ms:.2f}" for ms in figures), steps.culprit.rpartition(".")[2]))
        longest.append(steps.longest)
    aims = [
        Aim(f"{count:,} {what}: the longest step, ms", max(longest[part]), _LONGEST)
        for what, part in _PARTS.items()
    ]
    return Table(
        f"The longest step, in milliseconds, for {count:,} of each",
        ("", "step", "round of the loop", "garbage", "longest step by"),
        rows,
        "A step runs from one checkpoint of a task to its next. A round has a step of each task"
        " that was awake. Garbage is one full collection afterwards; none runs meanwhile.",
        aims,
    )


def _watch(scene: str, count: int) -> TimedSteps:
    steps = TimedSteps()
    trio.run(SCENES[scene], count, steps, clock=MockClock(autojump_threshold=0))
    gc.collect()
    return steps


@final
class TimedSteps(LongSteps):
    """Finds the longest step and round by the thread's processor time, in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0.0
        self.longest_round = 0.0
        self.paused = 0.0
        """What one full collection of garbage takes."""
        self._step_began = 0.0
        self._loop_began = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Time what happens inside the block."""
        gc.collect()
        gc.disable()
        self._step_began = self._loop_began = time.thread_time()
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            self._end("the scene's own task")
            trio.lowlevel.remove_instrument(self)
            gc.enable()
            self.paused = _time(gc.collect) * 1e3

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._step_began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._end(task.name)

    def before_io_wait(self, timeout: float) -> None:
        took = (time.thread_time() - self._loop_began) * 1e3
        self.longest_round = max(self.longest_round, took)

    def after_io_wait(self, timeout: float) -> None:
        self._loop_began = time.thread_time()

    def _end(self, name: str) -> None:
        took = (time.thread_time() - self._step_began) * 1e3
        if took > self.longest:
            self.longest, self.culprit = took, name


def _time(do: Callable[[], object]) -> float:
    started = time.thread_time()
    do()
    return time.thread_time() - started
