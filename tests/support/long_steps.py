"""Measures steps: how much Python runs before other tasks get their turn, in lines.

A line that copies a list of 10,000, or runs a `map` over it, counts as one: that takes a fraction
of a millisecond. A loop in Python counts with every turn. So the figures are the same in every run,
and show what grows.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import trio


class LongSteps(trio.abc.Instrument):
    """Finds the longest step of any task, and the longest round of trio's loop."""

    def __init__(self) -> None:
        self.step = 0
        """Lines of the longest step."""
        self.culprit = ""
        """Whose step that was."""
        self.round = 0
        """Lines between two looks at I/O: the steps of all tasks that were awake."""
        self.total = 0
        """Lines of all steps, and of what trio calls between them."""
        self._lines = 0
        self._began = 0
        self._round_began = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count what happens inside the block."""
        before = sys.gettrace()
        gc.collect()
        gc.disable()  # finalizers would run at any time
        trio.lowlevel.add_instrument(self)
        self._began = self._round_began = self._lines
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)
            self._end_step("the test's own task")
            self.total = self._lines
            trio.lowlevel.remove_instrument(self)
            gc.enable()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = self._lines

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._end_step(task.name)

    def before_io_wait(self, timeout: float) -> None:
        self.round = max(self.round, self._lines - self._round_began)

    def after_io_wait(self, timeout: float) -> None:
        self._round_began = self._lines

    def _end_step(self, name: str) -> None:
        if self._lines - self._began > self.step:
            self.step = self._lines - self._began
            self.culprit = name

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        self._lines += 1
        return self._trace
