"""What is open now, to be compared with what was open before; and how memory grows."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import psutil
import trio

from conpool._connection.link import Link
from conpool._core.records import Entry, SubPool, Waiter

_BOOKS: Final = (Entry, Link, SubPool, Waiter)

ALLOWED_GROWTH: Final = 2.0
"""MiB by which memory may grow over the second half: the allocator's own unrest. A leak of 100
bytes for each lease would be ten times as much in a minute."""
SHORTEST_JUDGED: Final = 150.0
"""Seconds of run below which memory still grows for good reasons: caches fill, the heap settles."""


@final
class Remains:
    """Open files, threads, tasks and the pools' own objects at one moment."""

    def __init__(self) -> None:
        gc.collect()
        self.files = Counter(_open_files())
        # trio keeps idle worker threads for ten seconds, by design; they hold nothing.
        names = (thread.name for thread in threading.enumerate())
        self.threads = Counter(name for name in names if not name.startswith("Trio thread"))
        self.tasks = Counter(task.name for task in all_tasks())
        self.books = Counter(type(o).__name__ for o in gc.get_objects() if isinstance(o, _BOOKS))

    def find_more_than(self, before: Remains) -> list[str]:
        """Name what is here and was not there."""
        return [
            f"{kind}: {', '.join(f'{count} x {what}' for what, count in more.items())}"
            for kind in ("files", "threads", "tasks", "books")
            if (more := getattr(self, kind) - getattr(before, kind))
        ]


def all_tasks() -> list[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found = [root]
    for task in found:  # grows on the way
        for nursery in task.child_nurseries:
            found += nursery.child_tasks
    return found


def count_files() -> int:
    return len(_open_files())


def _open_files() -> list[str]:
    if sys.platform != "linux":
        return []
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # the one that lists the folder itself
            continue
        found.append(target)
    return found


def _find_malloc_trim() -> Callable[[int], object]:
    """glibc's way to give freed memory back; elsewhere nothing."""
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return lambda _: None
    return trim


@final
class Memory:
    """Resident memory over time."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._give_back = _find_malloc_trim()
        self._samples: list[tuple[float, float]] = []

    def read(self) -> float:
        """Resident now, in MiB."""
        return float(self._process.memory_info().rss) / 2**20

    async def sample(self, interval: float) -> None:
        """Note it every so often, garbage apart.

        What was freed is given back to the system first: else the holes that OpenSSL's short-lived
        pieces leave among others would count, and they take many minutes to reach their size.
        """
        while True:
            gc.collect()
            self._give_back(0)
            self._samples.append((trio.current_time(), self.read()))
            await trio.sleep(interval)

    def growth(self) -> tuple[float, float]:
        """Over the second half, by the straight line that fits best: (seconds, MiB)."""
        half = self._samples[len(self._samples) // 2 :]
        if len(half) < 2:
            return 0.0, 0.0
        middle_t = sum(t for t, _ in half) / len(half)
        middle_m = sum(m for _, m in half) / len(half)
        spread = sum((t - middle_t) ** 2 for t, _ in half)
        slope = sum((t - middle_t) * (m - middle_m) for t, m in half) / spread
        seconds = half[-1][0] - half[0][0]
        return seconds, slope * seconds
