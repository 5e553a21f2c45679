"""The pool-wide limit: which endpoint gets the next slot, and which idle connection makes way.

Each sub-pool that wants a dial, and could have it but for the pool-wide limit, stands in line once,
with its oldest waiter that has no dial; the oldest of those is first. It may be overtaken: a
connection that is given back goes to a waiter of its own endpoint, even a younger one, since a
connection reused is cheaper than one closed and one dialled. But that happens to the first in line at
most `MAX_OVERTAKES` times; then a connection is closed to make pool_limit.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, final

from conpool._core.limit import Limit

if TYPE_CHECKING:
    from conpool._core.records import Entry, SubPool, Waiter

MAX_OVERTAKES: Final = 8
"""How often younger waiters of other endpoints may be served before the first in line.

Small enough that nobody starves, large enough that two busy endpoints do not spend
their time closing each other's connections: at most one lease in nine costs a dial.
"""

_FEW: Final = 64


@final
class PoolLimit:
    """The pool-wide limit and those in line for it."""

    __slots__ = ("_count", "_line", "closing", "cold", "idle_by_age", "limit", "wanted")

    def __init__(self, total: int) -> None:
        self.limit: Limit[Entry] = Limit(total)
        self.idle_by_age: OrderedDict[Entry, None] = OrderedDict()
        """All idle connections, the longest idle first."""
        self.closing = 0
        """Connections on their way out: slots that will be free without anyone's doing."""
        self.wanted = 0
        """Slots that those in line want, all together."""
        self.cold: OrderedDict[SubPool, None] = OrderedDict()
        """Sub-pools that may lack nothing but a slot to be as warm as somebody asked for."""
        self._line: list[tuple[int, int, SubPool]] = []
        self._count = 0

    def stand_in_line(self, sub: SubPool, waiter: Waiter | None, wanted: int) -> None:
        """Have `sub` stand in line with `waiter` for `wanted` slots; with None, step out."""
        self.wanted += wanted - sub.wanted
        sub.wanted = wanted
        if waiter is sub.claim:
            return
        sub.claim = waiter
        if waiter is not None:
            self._count += 1
            heappush(self._line, (waiter.number, self._count, sub))
            if len(self._line) > 2 * self.wanted + _FEW:
                self._line = [row for row in self._line if _stands(row)]
                heapify(self._line)

    def find_first(self) -> SubPool | None:
        """Return the sub-pool that is first in line."""
        while self._line:
            if _stands(self._line[0]):
                return self._line[0][2]
            heappop(self._line)
        return None

    def must_make_way(self, waiter: Waiter) -> bool:
        """Whether a connection that `waiter` could have must be closed for the first in line.

        Asking counts: a False answer lets `waiter` overtake once.
        """
        if self.closing >= self.wanted:
            return False
        first = self.find_first()
        if first is None or first.claim is None or first.claim.number >= waiter.number:
            return False
        if first.claim.overtaken < MAX_OVERTAKES:
            first.claim.overtaken += 1
            return False
        return True

    def __repr__(self) -> str:
        return f"<PoolLimit {self.limit!r}, {self.wanted} wanted, {self.closing} closing>"


def _stands(row: tuple[int, int, SubPool]) -> bool:
    number, _, sub = row
    return sub.claim is not None and sub.claim.number == number
