"""The pool-wide limit: which endpoint gets the next slot, and what makes way for it.

Each sub-pool that wants a dial, and could have it but for the pool-wide limit, stands in line once,
with its oldest waiter for whom nothing is under way; the oldest of those waiters is first. Others
may overtake it: a connection that comes back goes to a waiter of its own endpoint, even a younger
one, since a connection reused is cheaper than one closed and one dialled. But that happens to the
first in line at most `MAX_OVERTAKES` times; then a connection is closed to make room.

The connection that has been idle for longest makes way first; where none is idle, a dial or a check
does that no waiter needs.

A pool without such a limit has this object too: nobody stands in its line, and every dial may
start.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Iterable
from itertools import chain
from typing import Final, final

from conpool._core.heap import Heap, Row
from conpool._core.limit import Limit
from conpool._core.records import AnyEntry, AnySubPool, AnyWaiter

MAX_OVERTAKES: Final = 8
"""How often younger waiters of other endpoints may be served before the first in line.

Small enough that nobody starves, large enough that two busy endpoints do not spend their time
closing each other's connections: at most one lease in nine costs a dial.
"""


@final
class PoolLimit:
    """The slots of the whole pool, and the sub-pools in line for them."""

    __slots__ = (
        "_idle",
        "_latest",
        "_line",
        "_put_back",
        "_put_back_rows",
        "_rows",
        "_spare",
        "closing",
        "cold",
        "draining",
        "extra",
        "is_limited",
        "limit",
        "wanted",
    )

    def __init__(self, total: int | None) -> None:
        self.is_limited = total is not None
        """False: nothing is charged, and the ledger spares itself the calls."""
        self.limit: Limit[AnyEntry] = Limit(sys.maxsize if total is None else total)
        self.closing = 0
        """Connections and dials on their way out: their slots come free without anyone's doing."""
        self.draining: dict[AnyEntry, None] = {}
        """Shared connections that make way when their last lease ends: nobody joins them."""
        self.wanted = 0
        """Slots that those in line want, all together."""
        self.extra = 0
        """How often those are counted too often who ask for a group, and so stand in many lines."""
        self.cold: OrderedDict[AnySubPool, None] = OrderedDict()
        """Sub-pools that may lack nothing but a slot to be as warm as somebody asked for."""
        self._spare: OrderedDict[AnySubPool, None] = OrderedDict()
        """Sub-pools with a dial or a check that no waiter of theirs needs."""
        self._line: Heap[AnySubPool] = Heap()
        self._rows: dict[AnySubPool, Row] = {}
        self._idle: OrderedDict[AnyEntry, None] = OrderedDict()
        """Idle connections, the longest idle first, but for those that were put back unused."""
        self._latest = -math.inf
        self._put_back: Heap[AnyEntry] = Heap()
        self._put_back_rows: dict[AnyEntry, Row] = {}

    # ── connections, as the ledger moves them ───────────────────────────────────

    def became_idle(self, entry: AnyEntry) -> None:
        """`entry` is idle, and counts as idle since `idle_since`."""
        if entry.idle_since >= self._latest:
            self._latest = entry.idle_since
            self._idle[entry] = None
        else:
            self._put_back_rows[entry] = self._put_back.push(entry.idle_since, entry)

    def left_idle(self, entry: AnyEntry) -> None:
        """`entry` is idle no more."""
        if entry in self._idle:
            del self._idle[entry]
        else:
            self._put_back.drop(self._put_back_rows.pop(entry))

    def find_longest_idle(self) -> AnyEntry | None:
        """Return the connection that has been idle for longest; None if none is idle."""
        first = next(iter(self._idle), None)
        other = self._put_back.first() if self._put_back_rows else None
        if first is None or (other is not None and other.idle_since < first.idle_since):
            return other
        return first

    def find_idle(self) -> Iterable[AnyEntry]:
        """Find what is idle, the longest idle first, but for those that were put back unused."""
        return chain(self._put_back_rows, self._idle)

    def closing_began(self) -> None:
        """A connection or a dial is on its way out."""
        self.closing += 1

    def closed(self) -> None:
        """One that was on its way out is gone."""
        self.closing -= 1

    def note_spare(self, sub: AnySubPool) -> None:
        """Find out whether `sub` has a dial or a check that could make way."""
        if sub.find_spare() is not None:
            self._spare[sub] = None
        else:
            self._spare.pop(sub, None)

    def find_spare(self) -> AnyEntry | None:
        """Return a dial or a check that no waiter needs; None if there is none."""
        sub = next(iter(self._spare), None)
        return None if sub is None else sub.find_spare()

    @property
    def may_make_way(self) -> bool:
        """Whether something holds a slot that a waiter could have."""
        return self.limit.has_free_slot or bool(self._idle or self._put_back_rows or self._spare)

    def forget(self, sub: AnySubPool) -> None:
        """`sub` stands in no line any more."""
        self.stand_in_line(sub, None, 0)
        self.cold.pop(sub, None)
        self._spare.pop(sub, None)

    # ── the line ────────────────────────────────────────────────────────────────

    def stand_in_line(self, sub: AnySubPool, waiter: AnyWaiter | None, wanted: int) -> None:
        """Have `sub` stand in line with `waiter` for `wanted` slots; with None it steps out."""
        self.wanted += wanted - sub.wanted
        sub.wanted = wanted
        if waiter is sub.claim:
            return
        sub.claim = waiter
        row = self._rows.pop(sub, None)
        if row is not None:
            self._line.drop(row)
        if waiter is not None:
            self._rows[sub] = self._line.push(waiter.number, sub)

    def find_first(self) -> AnySubPool | None:
        """Return the sub-pool that is first in line."""
        return self._line.first()

    @property
    def has_free_slot(self) -> bool:
        """Whether the pool-wide limit lets one more dial start."""
        return self.limit.has_free_slot

    def precedes(self, waiter: AnyWaiter) -> bool:
        """Whether an older one than `waiter` stands in line."""
        first = self.find_first()
        return first is not None and first.claim is not None and first.claim.number < waiter.number

    @property
    def lacks_slots(self) -> bool:
        """Whether those in line want more slots than come free by themselves."""
        return self.closing < self.count_wanted()

    @property
    def total(self) -> int | None:
        """Most connections of the pool; None if there is no limit."""
        return self.limit.total if self.is_limited else None

    def count_wanted(self) -> int:
        """Return how many slots those in line want: at least one, if there is anybody.

        A waiter of a group wants one slot, and may have been counted at each member that has room.
        """
        return max(self.wanted - self.extra, min(self.wanted, 1)) if self.extra else self.wanted

    def must_make_way(self, waiter: AnyWaiter) -> bool:
        """Whether a connection that `waiter` could have must be closed for the first in line."""
        first = self._find_overtaken(waiter)
        return first is not None and first.overtaken >= MAX_OVERTAKES

    def was_overtaken(self, waiter: AnyWaiter) -> None:
        """`waiter` was lent a connection: count it if an older one stands in line for its slot."""
        first = self._find_overtaken(waiter)
        if first is not None:
            first.overtaken += 1

    def _find_overtaken(self, waiter: AnyWaiter) -> AnyWaiter | None:
        """Return the first in line, if older than `waiter` and no slot comes free for it."""
        if self.closing + len(self.draining) >= self.count_wanted():
            return None
        first = self.find_first()
        claim = None if first is None else first.claim
        return claim if claim is not None and claim.number < waiter.number else None

    def __repr__(self) -> str:
        return f"<PoolLimit {self.limit!r}, {self.wanted} wanted, {self.closing} closing>"
