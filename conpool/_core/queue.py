"""The queue of one endpoint: its waiters, in the order of their arrival.

Nearly all of them stand in `line`: any connection will do, and nothing is under way for them. Those
who want a fresh one stand in `fresh_line`. The others have left these two, and stand aside: those
for whom a dial or a check is under way, those who have come back, and all who ask for a group.

A waiter of a group has its place in the queue of each member. What is under way for it is under way
at one of them; at the others it takes only what is given back (`_Place.AWAY`).
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, final

from conpool._core.few import nothing
from conpool._core.heap import Heap, Row
from conpool._core.shedding import Codel


class Queued(Protocol):
    """What a queue asks of a waiter."""

    number: int
    fresh: bool

    @property
    def coming(self) -> object | None:
        """What is under way for it."""
        ...


W = TypeVar("W", bound=Queued)

_Kind: TypeAlias = tuple[bool, bool]
"""Whether the waiter wants a fresh connection, and whether something is under way for it."""


class _Place(enum.IntEnum):
    """Where something is under way for a waiter of a group."""

    NOWHERE = 0
    HERE = 1
    AWAY = 2


@final
class Queue(Generic[W]):
    """Waiters by number; whoever stands in a line has joined at its end."""

    __slots__ = ("_aside", "_grouped", "bars_groups", "codel", "fresh_line", "line", "rows")

    def __init__(self) -> None:
        # Ordered dictionaries, because a plain one slows down when it is emptied from the front.
        self.line: OrderedDict[W, None] = OrderedDict()
        self.fresh_line: OrderedDict[W, None] = OrderedDict()
        self._aside: dict[_Kind, Heap[W]] = {}
        self.rows: dict[W, tuple[Heap[W], Row]] = {}
        """Who stands aside, and where."""
        self._grouped: dict[tuple[bool, _Place], Heap[W]] = {}
        """Those who ask for a group, by whether they want a fresh connection."""
        self.bars_groups: bool = False
        """Whether groups go without this endpoint: then their waiters are not found here."""
        self.codel: Codel | None = None
        """Says whether it sheds load; None: it never does."""

    def put_aside(self, waiter: W) -> None:
        """Have `waiter` stand aside, by what it wants and what is under way for it."""
        kind = (waiter.fresh, waiter.coming is not None)
        heap = self._aside.get(kind)
        if heap is None:
            heap = self._aside[kind] = Heap()
        self.rows[waiter] = heap, heap.push(waiter.number, waiter)

    def put_group_aside(self, waiter: W, *, is_away: bool) -> None:
        """Have `waiter`, which asks for a group, stand aside.

        If `is_away`, something is under way for it elsewhere.
        """
        place = _Place.NOWHERE if waiter.coming is None else _Place.HERE
        kind = (waiter.fresh, _Place.AWAY if is_away else place)
        heap = self._grouped.get(kind)
        if heap is None:
            heap = self._grouped[kind] = Heap()
        self.rows[waiter] = heap, heap.push(waiter.number, waiter)

    def remove(self, waiter: W) -> None:
        """Have `waiter` leave, wherever it stands."""
        aside = self.rows.pop(waiter, None)
        if aside is not None:
            heap, row = aside
            heap.drop(row)
        elif waiter.fresh:
            del self.fresh_line[waiter]
        else:
            del self.line[waiter]

    def find(
        self, *, is_usual: bool = False, is_unprovided: bool = False, is_single: bool = False
    ) -> W | None:
        """Return the oldest waiter; None if there is none.

        Args:
            is_usual: Leave out those who want a fresh connection.
            is_unprovided: Leave out those for whom a dial or a check is under way.
            is_single: Leave out those who ask for a group.
        """
        oldest = next(iter(self.line), None)
        if not is_usual and self.fresh_line:
            oldest = _older(oldest, next(iter(self.fresh_line)))
        if self.rows:
            for (is_fresh, is_provided), heap in self._aside.items():
                if not ((is_fresh and is_usual) or (is_provided and is_unprovided)):
                    oldest = _older(oldest, heap.first())
        if self._grouped and not (is_single or self.bars_groups):
            for (is_fresh, place), heap in self._grouped.items():
                if not ((is_fresh and is_usual) or (place and is_unprovided)):
                    oldest = _older(oldest, heap.first())
        return oldest

    def find_youngest(self, *, is_fresh: bool = False) -> W | None:
        """Return the youngest waiter for whom nothing is under way; None if there is none.

        With `is_fresh`, the youngest of those who want a fresh connection. Those who stand aside
        have come back, so that they are older than nearly all others: they come last.
        """
        youngest = next(reversed(self.fresh_line), None)
        usual = None if is_fresh else next(reversed(self.line), None)
        if youngest is None or (usual is not None and usual.number > youngest.number):
            youngest = usual
        for kind in ((True, False), (False, False))[: 1 if is_fresh else 2]:
            if youngest is None and kind in self._aside:
                youngest = self._aside[kind].first()
        return youngest

    def count_unprovided(self) -> int:
        """Return for how many nothing is under way."""
        aside = self._count((False, False)) + self._count((True, False))
        grouped = self._count_grouped(_Place.NOWHERE) if self._grouped else 0
        return len(self.line) + len(self.fresh_line) + aside + grouped

    def count_usual(self) -> int:
        """Return how many take a connection that was used before.

        Those for whom something is under way elsewhere can do without.
        """
        usual = len(self.line) + self._count((False, False)) + self._count((False, True))
        if self._grouped:
            usual += self._count_grouped(_Place.NOWHERE, of_fresh=False)
            usual += self._count_grouped(_Place.HERE, of_fresh=False)
        return usual

    def count_away(self) -> int:
        """Return for how many something is under way elsewhere."""
        return self._count_grouped(_Place.AWAY) if self._grouped else 0

    def count_barred(self) -> int:
        """Return how many are not found here, since groups go without this endpoint."""
        return sum(heap.live for heap in self._grouped.values()) if self.bars_groups else 0

    def has_grouped(self) -> bool:
        """Whether anybody here asks for a group."""
        return any(heap.live for heap in self._grouped.values())

    def has_fresh_before(self, waiter: W | None, count: int) -> bool:
        """Whether more than `count` want a fresh connection and have nothing under way for them.

        Only those before `waiter` count; with None, all of them.
        """
        heaps = [self._aside.get((True, False))]
        if self._grouped and not self.bars_groups:
            heaps.append(self._grouped.get((True, _Place.NOWHERE)))
        aside = 0
        for heap in filter(None, heaps):
            most = count + 1
            aside += heap.live if waiter is None else heap.count_below(waiter.number, most)
        if count < aside:
            return True
        last = next(islice(self.fresh_line, count - aside, None), None)
        return last is not None and (waiter is None or last.number < waiter.number)

    def _count(self, kind: _Kind) -> int:
        heap = self._aside.get(kind)
        return 0 if heap is None else heap.live

    def _count_grouped(self, place: _Place, *, of_fresh: bool = True) -> int:
        if self.bars_groups:
            return 0
        kinds = [(False, place), (True, place)] if of_fresh else [(False, place)]
        return sum(heap.live for kind in kinds if (heap := self._grouped.get(kind)) is not None)

    @property
    def is_blank(self) -> bool:
        """Whether a new queue could take its place."""
        return not (self or self.bars_groups or self.codel)

    def __len__(self) -> int:
        return len(self.line) + len(self.fresh_line) + len(self.rows)

    def __iter__(self) -> Iterator[W]:
        everyone: list[Any] = [*self.line, *self.fresh_line, *self.rows]
        everyone.sort(key=lambda waiter: waiter.number)
        return iter(everyone)

    def __repr__(self) -> str:
        return f"<Queue of {len(self)}>"


NOBODY: Final[Queue[Any]] = Queue()
"""The queue of every endpoint for which nobody waits; `standing.open_queue` makes a real one."""
for _name in ("_aside", "_grouped", "fresh_line", "line", "rows"):
    setattr(NOBODY, _name, nothing())  # so whoever joins it by mistake is told


def _older(one: W | None, other: W | None) -> W | None:
    if one is None or (other is not None and other.number < one.number):
        return other
    return one
