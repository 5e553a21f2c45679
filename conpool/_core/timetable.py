"""What falls due when: the time-outs of waiters, and the moments when dials may go on.

Nearly every waiter is served long before its deadline, so keeping time for each must cost little:

1. Waiters with the endpoint's own `acquire_timeout` come due in the order in which they queue.
   Only their sub-pool is in the timetable, once, for the first; then the core looks at it again.
2. A waiter with a deadline of its own has a row itself, in a heap with lazy deletion: rows that no
   longer count are dropped when they surface, or together once they outnumber those that do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import TypeAlias, final

from conpool._core.records import AnySubPool, AnyWaiter, Waiter

_FEW = 64
"""Below this many dead rows a rebuild is not worth its call."""

_Row: TypeAlias = tuple[float, int, AnyWaiter | AnySubPool]


@final
class Timetable:
    """Waiters and sub-pools by the time when the core must look at them, on the pool's clock."""

    __slots__ = ("_count", "_current", "_heap", "next_at")

    def __init__(self) -> None:
        self._heap: list[_Row] = []
        self._count = 0
        self._current = 0
        """Rows that count: those of waiters that are queued, and one of every sub-pool."""
        self.next_at = math.inf
        """When to call `pop_due` next: never too late, perhaps too early; infinite for never."""

    def add(self, waiter: AnyWaiter) -> None:
        """Have `pop_due` return `waiter` at its deadline."""
        if waiter.deadline != math.inf:
            self._push(waiter.deadline, waiter)

    def remove(self, waiter: AnyWaiter) -> None:
        """`waiter`, which was added, has left its queue."""
        if waiter.deadline != math.inf:
            self._prune()

    def look_at(self, sub: AnySubPool, at: float) -> None:
        """Have `pop_due` return `sub` at `at`, or before."""
        if at < sub.due_at:
            is_moved = sub.due_at != math.inf
            sub.due_at = at
            self._push(at, sub)
            if is_moved:
                self._prune()

    def drop(self, sub: AnySubPool) -> None:
        """Nobody needs to look at `sub` any more."""
        if sub.due_at != math.inf:
            sub.due_at = math.inf
            self._prune()

    def _prune(self) -> None:
        """One row more has ceased to count."""
        self._current -= 1
        if len(self._heap) > 2 * self._current + _FEW:
            self.tidy()

    def tidy(self) -> None:
        """Drop the rows that no longer count, which would keep alive whatever they name."""
        # A sub-pool whose time was moved forth and back, or a waiter that came back, may have two.
        current = {row[2]: row for row in self._heap if _counts(row)}
        self._heap = list(current.values())
        heapify(self._heap)
        self._current = len(self._heap)
        self.next_at = self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> Iterator[AnyWaiter | AnySubPool]:
        """Yield what has fallen due by `now`, in order.

        That takes a sub-pool out of the timetable; a waiter leaves it with its queue (`remove`).
        """
        while self._heap and self._heap[0][0] <= now:
            at, _, item = heappop(self._heap)
            if not isinstance(item, Waiter):
                # A row counts only if its time is still current; otherwise each move would leave
                # one more live row.
                if at == item.due_at:
                    self._current -= 1
                    item.due_at = math.inf
                    yield item
            elif item.queued:
                yield item
        self.next_at = self._heap[0][0] if self._heap else math.inf

    def _push(self, at: float, item: AnyWaiter | AnySubPool) -> None:
        self._current += 1
        self._count += 1
        heappush(self._heap, (at, self._count, item))
        if at < self.next_at:  # noqa: PLR1730 - min() costs more
            self.next_at = at

    def __repr__(self) -> str:
        return f"<Timetable of {self._current}, next at {self.next_at}>"


def _counts(row: _Row) -> bool:
    at, _, item = row
    return item.queued if isinstance(item, Waiter) else at == item.due_at
