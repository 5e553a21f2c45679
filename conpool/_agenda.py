"""What falls due when: the time-outs of waiters, and the moments when dials may go on.

A heap with lazy deletion. Nearly every waiter is served long before its deadline, so removing each
at once would cost more than all the rest; those that are past caring are dropped when they surface,
or all together once they outnumber the living.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, final

from conpool._waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conpool._subpool import SubPool

_FEW = 64
"""Below this many dead items a rebuild is not worth its call."""


@final
class Agenda:
    """Waiters by deadline and sub-pools by the time when their gate opens; seconds on the pool's clock."""

    __slots__ = ("_count", "_heap", "_living")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Waiter | SubPool]] = []
        self._count = 0
        self._living = 0
        """Rows that still matter: waiters that are queued, and every sub-pool."""

    def expect(self, at: float, item: Waiter | SubPool) -> None:
        """Have `due` return `item` once `at` has come. An infinite `at` never comes."""
        if at == math.inf:
            return
        self._living += 1
        self._count += 1
        heappush(self._heap, (at, self._count, item))

    def forget(self, waiter: Waiter) -> None:
        """`waiter`, which was expected, has left its queue."""
        if waiter.deadline == math.inf:
            return
        self._living -= 1
        if len(self._heap) > 2 * self._living + _FEW:
            self._heap = [row for row in self._heap if not _is_stale(row[2])]
            heapify(self._heap)

    @property
    def next_at(self) -> float:
        """When to look again: never too late, perhaps too early; infinite if nothing is expected."""
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> Iterator[Waiter | SubPool]:
        """Yield what has fallen due by `now`, in order.

        A sub-pool is forgotten by that, a waiter once it has left its queue (`forget`).
        """
        while self._heap and self._heap[0][0] <= now:
            item = heappop(self._heap)[2]
            if not isinstance(item, Waiter):
                self._living -= 1
                yield item
            elif item.queued:
                yield item

    def __repr__(self) -> str:
        return f"<Agenda {self._living} expected, next at {self.next_at}>"


def _is_stale(item: Waiter | SubPool) -> bool:
    return isinstance(item, Waiter) and not item.queued
