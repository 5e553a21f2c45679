"""The pool-wide limit: which endpoint gets the next slot, and which idle connection makes way.

Each sub-pool that wants a dial, and could have it but for the pool-wide limit, stands in line once,
with its oldest waiter that has no dial; the oldest of those waiters is first. Others may overtake
it: a connection that comes back goes to a waiter of its own endpoint, even a younger one, since a
connection reused is cheaper than one closed and one dialled. But that happens to the first in line
at most `MAX_OVERTAKES` times; then a connection is closed to make room.

A pool without such a limit has this object too, with nobody in line and a yes to every dial.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from heapq import heapify, heappop, heappush
from typing import Final, final

from conpool._core.limit import Limit
from conpool._core.records import AnyEntry, AnySubPool, AnyWaiter

MAX_OVERTAKES: Final = 8
"""How often younger waiters of other endpoints may be served before the first in line.

Small enough that nobody starves, large enough that two busy endpoints do not spend their time
closing each other's connections: at most one lease in nine costs a dial.
"""

_FEW: Final = 64


@final
class PoolLimit:
    """The slots of the whole pool, and the sub-pools in line for them."""

    __slots__ = (
        "_count",
        "_line",
        "closing",
        "cold",
        "idle_by_age",
        "is_limited",
        "limit",
        "wanted",
    )

    def __init__(self, total: int | None) -> None:
        self.is_limited = total is not None
        """False: nothing is charged, and the ledger spares itself the calls."""
        self.limit: Limit[AnyEntry] = Limit(sys.maxsize if total is None else total)
        self.idle_by_age: OrderedDict[AnyEntry, None] = OrderedDict()
        """All idle connections, the longest idle first."""
        self.closing = 0
        """Connections on their way out: their slots come free without anyone's doing."""
        self.wanted = 0
        """Slots that those in line want, all together."""
        self.cold: OrderedDict[AnySubPool, None] = OrderedDict()
        """Sub-pools that may lack nothing but a slot to be as warm as somebody asked for."""
        self._line: list[tuple[int, int, AnySubPool]] = []
        self._count = 0

    # ── connections, as the ledger moves them ───────────────────────────────────

    def became_idle(self, entry: AnyEntry) -> None:
        """`entry` is the one that became idle last."""
        self.idle_by_age[entry] = None

    def left_idle(self, entry: AnyEntry) -> None:
        """`entry` is idle no more."""
        del self.idle_by_age[entry]

    def closing_began(self) -> None:
        """A connection is on its way out."""
        self.closing += 1

    def closed(self) -> None:
        """A connection that was on its way out is gone."""
        self.closing -= 1

    # ── the line ────────────────────────────────────────────────────────────────

    def stand_in_line(self, sub: AnySubPool, waiter: AnyWaiter | None, wanted: int) -> None:
        """Have `sub` stand in line with `waiter` for `wanted` slots; with None it steps out."""
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

    def find_first(self) -> AnySubPool | None:
        """Return the sub-pool that is first in line."""
        while self._line:
            if _stands(self._line[0]):
                return self._line[0][2]
            heappop(self._line)
        return None

    @property
    def lacks_slots(self) -> bool:
        """Whether those in line want more slots than come free by themselves."""
        return self.closing < self.wanted

    def must_make_way(self, waiter: AnyWaiter) -> bool:
        """Whether a connection that `waiter` could have must be closed for the first in line."""
        first = self._find_overtaken(waiter)
        return first is not None and first.overtaken >= MAX_OVERTAKES

    def was_overtaken(self, waiter: AnyWaiter) -> None:
        """`waiter` was lent a connection: count it if an older waiter is in line for its slot."""
        first = self._find_overtaken(waiter)
        if first is not None:
            first.overtaken += 1

    def _find_overtaken(self, waiter: AnyWaiter) -> AnyWaiter | None:
        """Return the first in line, if it is older than `waiter` and no slot comes free for it."""
        if not self.lacks_slots:
            return None
        first = self.find_first()
        claim = None if first is None else first.claim
        return claim if claim is not None and claim.number < waiter.number else None

    def __repr__(self) -> str:
        return f"<PoolLimit {self.limit!r}, {self.wanted} wanted, {self.closing} closing>"


def _stands(row: tuple[int, int, AnySubPool]) -> bool:
    number, _, sub = row
    return sub.claim is not None and sub.claim.number == number
