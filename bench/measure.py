"""Timing in turns, counting operations, and the tables that come of it.

Time is the thread's own CPU time. The code that is timed waits for nothing but the processor, and
on a busy machine the clock on the wall would count the work of other programs, too.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from types import FrameType
from typing import Any, TypeAlias, final

Run: TypeAlias = Callable[[int], Awaitable[None]]
"""Does the same thing the given number of times."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a run: one for the record, a quick one, or a tiny one for the tests."""

    name: str
    index: int

    def pick(self, full: int, quick: int, tiny: int) -> int:
        """Choose the number for this scale."""
        return (full, quick, tiny)[self.index]

    def steps(self, *sizes: int, full: int, quick: int, tiny: int) -> list[int]:
        """Return the `sizes` up to the largest of this scale."""
        return [size for size in sizes if size <= self.pick(full, quick, tiny)]


FULL = Scale("full", 0)
QUICK = Scale("quick", 1)
TINY = Scale("tiny", 2)


@dataclass(frozen=True, slots=True)
class Aim:
    """A figure, and how large it may be."""

    text: str
    measured: float
    limit: float
    is_floor: bool = False
    """Whether the figure must be at least as large as the limit."""

    @property
    def is_met(self) -> bool:
        measured = round(self.measured, 2)
        return measured >= self.limit if self.is_floor else measured <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.is_floor else "≤"
        verdict = "met   " if self.is_met else "MISSED"
        return f"{verdict}  {self.text}: {self.measured:,.2f}, aim {sign} {self.limit:,g}"


@dataclass(frozen=True, slots=True)
class Table:
    """One case's figures, ready to be read."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""
    aims: list[Aim] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [self.head, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        text = [self.title, "─" * len(self.title)]
        for line in lines:
            first, *rest = (cell for cell in line)
            cells = [first.ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            text.append("  ".join(cells).rstrip())
        if self.note:
            text.append(self.note)
        text += map(str, self.aims)
        return "\n".join(text)


@final
class Race:
    """The times of several contenders over the same rounds, in microseconds for each operation."""

    def __init__(self, times: Mapping[str, list[float]]) -> None:
        self._times = times

    def micros(self, name: str) -> float:
        """Return the median time of one contender."""
        return median(self._times[name])

    def ratio(self, name: str, to: str) -> float:
        """Return the median, over the rounds, of one contender's time to another's."""
        return median(
            mine / its for mine, its in zip(self._times[name], self._times[to], strict=True)
        )

    def aim(self, text: str, name: str, to: str, limit: float) -> Aim:
        """Return the aim that one contender takes at most `limit` times as long as another."""
        return Aim(text, self.ratio(name, to), limit)

    def rows(self, to: str, targets: Mapping[str, str] | None = None) -> list[tuple[str, ...]]:
        """Return a row for each contender: name, microseconds, ratio, target."""
        return [
            (
                name,
                f"{self.micros(name):.2f}",
                f"{self.ratio(name, to):.2f}",
                (targets or {}).get(name, ""),
            )
            for name in self._times
        ]


async def race(runs: Mapping[str, Run], *, count: int, rounds: int) -> Race:
    """Time `count` operations of each contender, in `rounds` rounds in which they take turns."""
    for run in runs.values():
        await run(max(1, count // 10))  # opens connections, fills caches
    return await take_turns(list(runs), lambda name: clock(runs[name], count), rounds)


async def take_turns(
    names: Sequence[str], measure: Callable[[str], Awaitable[float]], rounds: int
) -> Race:
    """Have `measure` return a time of each contender, in `rounds` rounds."""
    times: dict[str, list[float]] = {name: [] for name in names}
    # A full collection of garbage walks everything that is open, of all contenders, and the one
    # that happens to set it off pays. What is open now need not be walked.
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            for name in names:
                times[name].append(await measure(name))
    finally:
        gc.unfreeze()
    return Race(times)


async def clock(run: Run, count: int) -> float:
    """Return what one operation takes, in microseconds."""
    started = time.thread_time()
    await run(count)
    return (time.thread_time() - started) / count * 1e6


async def count_calls(run: Run, count: int) -> float:
    """Return how many calls, of Python and of C functions, one operation makes."""
    calls = 0

    def profile(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(profile)
    try:
        await run(count)
    finally:
        sys.setprofile(None)
    return calls / count


async def count_bytecodes(run: Run, count: int) -> float:
    """Return how many bytecodes one operation executes: a loop over a table would show here."""
    executed = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal executed
        if event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        executed += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await run(count)  # from 3.13 on, the first run of a code object is not traced
        executed = 0
        await run(count)
    finally:
        sys.settrace(before)
    return executed / count
