"""What falls due when: the time-outs of waiters, and the moments when an endpoint can go on.

Nearly every waiter is served long before its deadline, so keeping time for each must cost little:

1. Nearly all waiters come due in the order in which they queue, as all do whose time-out is the
   same. Only their sub-pool has a row here, one, for the first of them.
2. A waiter that comes due before one that stands in front of it has a row itself, and so has one
   that has left the line.
"""

from __future__ import annotations

import math
from typing import TypeAlias, final

from conpool._core.heap import Heap, Row
from conpool._core.records import AnySubPool, AnyWaiter, Waiter

Item: TypeAlias = AnyWaiter | AnySubPool


@final
class Timetable:
    """Waiters and sub-pools by the time when the core must look at them, in seconds."""

    __slots__ = ("_rows", "next_at")

    def __init__(self) -> None:
        self._rows: Heap[Item] = Heap()
        self.next_at = math.inf
        """When to call `pop_due`: never too late, perhaps too early; infinite if nothing is due."""

    def add(self, waiter: AnyWaiter) -> None:
        """Have `pop_due` return `waiter` at its deadline."""
        waiter.is_timed = True
        if waiter.deadline != math.inf:
            waiter.row = self._push(waiter.deadline, waiter)

    def remove(self, waiter: AnyWaiter) -> None:
        """`waiter`, which was added, has left its queue."""
        if waiter.row is not None:
            self._rows.drop(waiter.row)
            waiter.row = None

    def look_at(self, sub: AnySubPool, at: float) -> None:
        """Have `pop_due` return `sub` at `at`, or before."""
        if at < sub.due_at:
            self.drop(sub)
            sub.due_at = at
            sub.row = self._push(at, sub)

    def drop(self, sub: AnySubPool) -> None:
        """Nobody needs to look at `sub` any more."""
        if sub.row is not None:
            self._rows.drop(sub.row)
            sub.row = None
            sub.due_at = math.inf

    def pop_due(self, now: float, most: int) -> list[Item]:
        """Return what has fallen due by `now`, in order, from at most `most` rows.

        That takes a sub-pool out of the timetable; a waiter leaves it with its queue (`remove`).
        """
        due = self._rows.pop_until(now, most)
        for item in due:
            if not isinstance(item, Waiter):
                item.row = None
                item.due_at = math.inf
        next_at = self._rows.next_key
        self.next_at = math.inf if next_at is None else next_at
        return due

    def _push(self, at: float, item: Item) -> Row:
        if at < self.next_at:  # noqa: PLR1730 - min() costs more
            self.next_at = at
        return self._rows.push(at, item)

    def __repr__(self) -> str:
        return f"<Timetable of {self._rows.live}, next at {self.next_at}>"
