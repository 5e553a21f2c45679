"""When a dial starts, and for which waiter: free slots become new connections here.

Three things hold a dial back: the endpoint's own limits, its gate, and the pool-wide limit.
`dial_for_waiters` runs through them in that order for one sub-pool; `share_out` gives the
pool-wide slots to the sub-pools in line, and what they leave to warming.
"""

from __future__ import annotations

from typing import final

from conpool._core.ledger import Ledger
from conpool._core.records import AnySubPool
from conpool._core.warming import Warming
from conpool._values.states import CloseReason


@final
class Dials:
    """Decides about dials, and enters them into the ledger."""

    __slots__ = ("_ledger", "_pool_limit", "_warming")

    def __init__(self, ledger: Ledger, warming: Warming) -> None:
        self._ledger = ledger
        self._pool_limit = ledger.pool_limit
        self._warming = warming

    def dial_for_waiters(self, sub: AnySubPool, now: float) -> None:
        """Start the dials that the waiters of `sub` want, or have it stand in line for slots."""
        wanted = sub.count_wanted_dials()
        if wanted and not sub.gate.is_open(now):
            self._look_when_gate_opens(sub)
            wanted = 0
        elif sub.gate.is_failing:
            wanted = min(wanted, 1)  # one attempt a delay, however many wait
        if self._pool_limit.is_limited:
            claim = sub.find_undialled() if wanted else None
            self._pool_limit.stand_in_line(sub, claim, wanted)
        else:
            for _ in range(wanted):
                self._dial_for_oldest(sub, now)
            if wanted and sub.gate.is_failing:
                self._look_when_gate_opens(sub)  # for the other waiters
        if sub.idle:
            self._make_way_for_fresh(sub, now)

    def lacks_slot(self, sub: AnySubPool, waiting: int, now: float) -> bool:
        """Whether `waiting` waiters for new connections need more slots than come free anyway."""
        if sub.limit.has_free_slot:
            return sub.claim is not None and self._pool_limit.lacks_slots
        spare = sub.connecting - sub.dialled_for  # dials whose waiters have gone serve these
        most = 1 if sub.gate.is_failing else sub.max_connecting - sub.connecting
        return sub.closing < min(waiting - spare, most) and sub.gate.is_open(now)

    def share_out(self, now: float) -> None:
        """Give the slots of the pool-wide limit to those in line; make room if there is none."""
        limit = self._pool_limit
        while (first := limit.find_first()) is not None:
            if limit.limit.has_free_slot:
                self._dial_for_oldest(first, now)
                self.dial_for_waiters(first, now)
                if first.min_idle or first.warmers:
                    limit.cold[first] = None  # it goes on warming when nobody of its own waits
            elif limit.idle_by_age and limit.lacks_slots:
                longest = next(iter(limit.idle_by_age))
                self._ledger.condemn(longest, CloseReason.EVICTED, gracefully=True)
            else:
                return
        while limit.cold and limit.limit.has_free_slot:
            coldest, _ = limit.cold.popitem(last=False)
            self._warming.warm(coldest, now)

    def _make_way_for_fresh(self, sub: AnySubPool, now: float) -> None:
        """Close idle connections that hold the slots of waiters which want new ones only.

        No other waiter is left where connections are idle.
        """
        while sub.idle and not sub.limit.has_free_slot:
            if not sub.gate.is_open(now):
                self._look_when_gate_opens(sub)
                return
            if not self.lacks_slot(sub, len(sub.queue) - sub.dialled_for, now):
                return
            self._ledger.condemn(next(iter(sub.idle)), CloseReason.EVICTED, gracefully=True)

    def _dial_for_oldest(self, sub: AnySubPool, now: float) -> None:
        waiter = sub.find_undialled()
        assert waiter is not None, sub  # there are more waiters than dials
        sub.gate.attempted(now)
        self._ledger.dial_is_for(self._ledger.open(sub, now), waiter)

    def _look_when_gate_opens(self, sub: AnySubPool) -> None:
        """Have the pump look at `sub` again then. A pause does not end by itself."""
        self._ledger.timetable.look_at(sub, sub.gate.opens_at)
