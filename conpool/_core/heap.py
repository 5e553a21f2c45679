"""A heap that items leave at any time, and that never stops to clean up.

An item that is dropped leaves an empty row behind. Empty rows go when they surface. Once they are
the larger part, each call moves a few rows that count to a new heap: so no single call takes long,
and the rows never outnumber the items for long.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, Final, Generic, TypeAlias, TypeVar, final

T = TypeVar("T")

Row: TypeAlias = list[Any]
"""Key, number of the push, and the item: None once it has left."""

_FEW: Final = 64
"""Below this many empty rows a clean-up is not worth its while."""

_MOVED: Final = 4
"""Rows that one call moves. Two would keep up with those that leave."""


@final
class Heap(Generic[T]):
    """Items by key; of equal keys the one that came first."""

    __slots__ = ("_count", "_left", "_rows", "live")

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._left: list[Row] = []
        """The heap that is being left; its rows count until they have been moved."""
        self._count = 0
        self.live = 0
        """How many items it has."""

    def push(self, key: float, item: T) -> Row:
        """Enter `item`; `drop` takes the row that this returns."""
        self._count += 1
        self.live += 1
        row = [key, self._count, item]
        heappush(self._rows, row)
        return row

    def drop(self, row: Row) -> None:
        """Have the item of `row` leave. Nothing happens if it has left."""
        if row[2] is None:
            return
        row[2] = None
        self.live -= 1
        left = self._left
        if not left:
            if len(self._rows) <= 2 * self.live + _FEW:
                return
            left = self._left = self._rows
            self._rows = []
        for _ in range(min(_MOVED, len(left))):
            last = left.pop()  # a leaf: what remains is still a heap
            if last[2] is not None:
                heappush(self._rows, last)

    def first(self) -> T | None:
        """Return the item with the lowest key; None if there is none."""
        row = self._first_row()
        item: T | None = None if row is None else row[2]
        return item

    def _first_row(self) -> Row | None:
        rows, left = self._rows, self._left
        while rows and rows[0][2] is None:
            heappop(rows)
        while left and left[0][2] is None:
            heappop(left)
        if not (rows and left):
            return rows[0] if rows else left[0] if left else None
        return min(rows[0], left[0])

    @property
    def next_key(self) -> float | None:
        """No more than the lowest key; None if there is no row."""
        rows, left = self._rows, self._left
        if not (rows and left):
            return rows[0][0] if rows else left[0][0] if left else None
        key: float = min(rows[0], left[0])[0]
        return key

    def pop_until(self, key: float, most: int) -> list[T]:
        """Remove at most `most` rows whose key is at most `key`; return their items in order."""
        found: list[T] = []
        for _ in range(most):
            rows, left = self._rows, self._left
            heap = left if left and (not rows or left[0] < rows[0]) else rows
            if not heap or heap[0][0] > key:
                break
            row = heappop(heap)
            if row[2] is not None:
                found.append(row[2])
                row[2] = None
                self.live -= 1
        return found

    def count_below(self, key: float, most: int) -> int:
        """Return how many items have a key below `key`; it counts no further than `most`."""
        count = 0
        for rows in (self._rows, self._left):
            places = [0]  # those below a row have no lower keys
            while places and count < most:
                place = places.pop()
                if place < len(rows) and rows[place][0] < key:
                    count += rows[place][2] is not None
                    places += (2 * place + 1, 2 * place + 2)
        return count

    def __len__(self) -> int:
        return self.live

    def __repr__(self) -> str:
        return f"<Heap of {self.live}, {len(self._rows) + len(self._left)} rows>"
