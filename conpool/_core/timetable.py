"""What falls due when: the time-outs of waiters, and the moments when dials may go on.

Nearly every waiter is served long before its deadline, so keeping time for each must cost next to
nothing:

1. Waiters with the endpoint's own `acquire_timeout` come due in the order in which they queue. Only
   their sub-pool is on the timetable, once, for the first of them; it is looked at again when that time comes.
2. A waiter with a deadline of its own is on the timetable itself, in a heap with lazy deletion: rows that are
   past caring are dropped when they surface, or all together once they outnumber the living.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, final

from conpool._core.records import Waiter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conpool._core.records import SubPool

_FEW = 64
"""Below this many dead rows a rebuild is not worth its call."""


@final
class Timetable:
    """Waiters and sub-pools by the time when they must be looked at; seconds on the pool's clock."""

    __slots__ = ("_count", "_current", "_heap", "next_at")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Waiter | SubPool]] = []
        self._count = 0
        self._current = 0
        """Rows that still matter: those of waiters that are queued, and one of every sub-pool."""
        self.next_at = math.inf
        """When to look again: never too late, perhaps too early; infinite if nothing is expected."""

    def add(self, waiter: Waiter) -> None:
        """Have `due` return `waiter` at its deadline."""
        if waiter.deadline != math.inf:
            self._push(waiter.deadline, waiter)

    def remove(self, waiter: Waiter) -> None:
        """`waiter`, which was expected, has left its queue."""
        if waiter.deadline != math.inf:
            self._prune()

    def look_at(self, sub: SubPool, at: float) -> None:
        """Have `due` return `sub` at `at`, or before."""
        if at < sub.due_at:
            is_moved = sub.due_at != math.inf
            sub.due_at = at
            self._push(at, sub)
            if is_moved:
                self._prune()

    def drop(self, sub: SubPool) -> None:
        """`sub` need not be looked at any more."""
        if sub.due_at != math.inf:
            sub.due_at = math.inf
            self._prune()

    def _prune(self) -> None:
        """One row more has ceased to matter."""
        self._current -= 1
        if len(self._heap) > 2 * self._current + _FEW:
            self.tidy()

    def tidy(self) -> None:
        """Drop all rows that no longer matter, which would keep what they name until they fall due."""
        # What was moved forward and back, or left a queue and came back, may have several alike.
        living = {row[2]: row for row in self._heap if _matters(row)}
        self._heap = list(living.values())
        heapify(self._heap)
        self._current = len(self._heap)
        self.next_at = self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> Iterator[Waiter | SubPool]:
        """Yield what has fallen due by `now`, in order.

        A sub-pool is forgotten by that, a waiter once it has left its queue (`forget`).
        """
        while self._heap and self._heap[0][0] <= now:
            at, _, item = heappop(self._heap)
            if not isinstance(item, Waiter):
                # Else its time was moved forward, and back again later: were each of its rows to
                # count, each would be added again, and with every move their number would grow.
                if at == item.due_at:
                    self._current -= 1
                    item.due_at = math.inf
                    yield item
            elif item.queued:
                yield item
        self.next_at = self._heap[0][0] if self._heap else math.inf

    def _push(self, at: float, item: Waiter | SubPool) -> None:
        self._current += 1
        self._count += 1
        heappush(self._heap, (at, self._count, item))
        if at < self.next_at:  # noqa: PLR1730 - min() costs more
            self.next_at = at

    def __repr__(self) -> str:
        return f"<Timetable {self._current} expected, next at {self.next_at}>"


def _matters(row: tuple[float, int, Waiter | SubPool]) -> bool:
    at, _, item = row
    return item.queued if isinstance(item, Waiter) else at == item.due_at
