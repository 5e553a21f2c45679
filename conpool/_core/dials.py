"""When a dial starts, and for which waiter: free slots become new connections here.

Three things hold a dial back: the endpoint's own limits, its gate, and the pool-wide limit.
`dial_for_waiters` runs through them in that order for one sub-pool; `share_out` gives the pool-wide
slots to the sub-pools in line, and what they leave to warming.
"""

from __future__ import annotations

from typing import final

from conpool._core.balancer import Balancer, has_open_for
from conpool._core.chores import PIECE
from conpool._core.ledger import Ledger
from conpool._core.outgoing import is_in_circulation, why_leaving
from conpool._core.records import AnyEntry, AnySubPool, AnyWaiter
from conpool._core.refusing import Refusing
from conpool._core.warming import Warming
from conpool._values.states import CloseReason, ConnectionState

_CONNECTING = ConnectionState.CONNECTING


@final
class Dials:
    """Decides about dials, and enters them into the ledger."""

    __slots__ = ("_balancer", "_ledger", "_pool_limit", "_refusing", "_timetable", "_warming")

    def __init__(
        self, ledger: Ledger, warming: Warming, refusing: Refusing, balancer: Balancer
    ) -> None:
        self._balancer = balancer
        self._ledger = ledger
        self._refusing = refusing
        self._pool_limit = ledger.pool_limit
        self._timetable = ledger.timetable
        self._warming = warming

    def may_queue(self, sub: AnySubPool, fresh: bool, now: float) -> bool:
        """True if one more may wait: the queue has room, or something can start for it now."""
        if sub.max_waiting is None or sub.waiting < sub.max_waiting:
            return True
        has_idle = len(sub.idle) > len(sub.reserved)
        if has_idle and not (fresh or sub.waiting or sub.gate.is_paused):
            return True
        if sub.gate.is_unhealthy or (sub.gate.is_cut_off(now) and not is_in_circulation(sub)):
            return True  # it will be told so, and not that the queue is full
        has_slot = sub.limit.has_free_slot or (fresh and has_idle)
        if not has_slot or sub.connecting >= (1 if sub.gate.is_failing else sub.max_connecting):
            return False
        return sub.gate.is_open(now) and (has_idle or self._pool_limit.may_make_way)

    def dial_for_waiters(self, sub: AnySubPool, now: float) -> None:
        """Start the dials that the waiters of `sub` want, or have it stand in line for slots."""
        if sub.gate.circuit is not None and sub.gate.is_cut_off(now):
            self._refusing.turn_away_undiallable(sub, now)
        wanted = count_wanted(sub)
        if wanted and not sub.gate.is_open(now):
            self._look_when_gate_opens(sub)
            wanted = 0
        elif sub.gate.is_wary:
            wanted = min(wanted, 1)  # after each the pump asks the gate anew
        if self._pool_limit.is_limited:
            oldest = sub.queue.find(is_unprovided=True) if wanted else None
            claim, _ = self._place(oldest, sub, now)
            self._pool_limit.stand_in_line(sub, claim, wanted if claim is not None else 0)
        else:
            for _ in range(min(wanted, PIECE)):
                self._dial_for_next(sub, now)
            if wanted > PIECE:
                self._ledger.rest(sub, now)
        if sub.idle and sub.waiting:
            self._make_way_for_fresh(sub, now)

    def dial_elsewhere(self, sub: AnySubPool, now: float) -> None:
        """Dial for those who ask for a group, and may have relied on what was under way at `sub`.

        Only where connections are shared: elsewhere, each such waiter has something of its own.
        """
        for group in list(sub.groups) if sub.shares else ():
            for member in group.subs:
                is_next = member is sub or member in self._ledger.touched
                if member.waiting and not (is_next or member.is_resting):
                    self.dial_for_waiters(member, now)

    def must_make_way(self, sub: AnySubPool, waiter: AnyWaiter | None, now: float) -> bool:
        """Whether those who want a new connection, and precede `waiter`, need one more slot."""
        wants_more = sub.queue.has_fresh_before
        if not wants_more(waiter, 0):
            return False
        if sub.limit.has_free_slot:
            return sub.claim is not None and self._pool_limit.lacks_slots
        spare = len(sub.spare_dials)
        going = sub.closing + sub.count_leaving() + sub.void
        going += sum(entry.sub is sub for entry in self._pool_limit.draining)
        most = 1 if sub.gate.is_failing else sub.max_connecting - sub.connecting
        return going < most and wants_more(waiter, spare + going) and sub.gate.is_open(now)

    def share_out(self, now: float) -> None:
        """Give the slots of the pool-wide limit to those in line; make room if there is none."""
        limit = self._pool_limit
        for _ in range(PIECE):
            first = limit.find_first()
            if first is None:
                break
            if first.is_resting:
                return
            if limit.limit.has_free_slot:
                self._dial_for_first(first, now)
                if first.min_idle or first.warmers:
                    limit.cold[first] = None  # it goes on warming when nobody of its own waits
            elif not (limit.lacks_slots and self._make_room()):
                return
        else:
            if (first := limit.find_first()) is not None:
                self._ledger.rest(first, now)
            return
        for number in range(PIECE + 1):
            if not (limit.cold and limit.limit.has_free_slot):
                return
            coldest = next(iter(limit.cold))
            if coldest.is_resting:
                return
            if number == PIECE or len(self._ledger.effects) >= PIECE:
                self._ledger.rest(coldest, now)
                return
            del limit.cold[coldest]
            self._warming.warm(coldest, now)

    def _dial_for_first(self, first: AnySubPool, now: float) -> None:
        """Dial for the waiter with which `first` stands in line; find out who is next."""
        waiter = self._dial_for_next(first, now)
        self.dial_for_waiters(first, now)
        for member in () if waiter is None else waiter.subs:
            if member.claim is waiter:  # it stood in line with the same one
                self.dial_for_waiters(member, now)

    def _make_room(self) -> bool:
        """Have the longest idle connection make way, or what no waiter needs; False if none can."""
        entry = self._pool_limit.find_longest_idle() or self._pool_limit.find_spare()
        if entry is None:
            return False
        if entry.state is _CONNECTING:
            self._ledger.give_up(entry)
        else:
            self._evict(entry)
        return True

    def _make_way_for_fresh(self, sub: AnySubPool, now: float) -> None:
        """Close idle connections that hold the slots of waiters which want new ones only.

        No other waiter is left where connections are idle.
        """
        for _ in range(PIECE):
            if not sub.idle or sub.limit.has_free_slot:
                return
            if not sub.gate.is_open(now):
                self._look_when_gate_opens(sub)
                return
            if not self.must_make_way(sub, None, now):
                return
            self._evict(next(iter(sub.idle)))
        self._ledger.rest(sub, now)

    def _evict(self, entry: AnyEntry) -> None:
        sub = entry.sub
        reason = why_leaving(entry) or CloseReason.EVICTED
        is_checked = entry.is_checking or entry in sub.reserved
        self._ledger.condemn(entry, reason, gracefully=not is_checked)

    def _dial_for_next(self, sub: AnySubPool, now: float) -> AnyWaiter | None:
        """Dial for the next waiter of `sub`, there or at a better member of its group."""
        if not sub.gate.is_open(now):
            return None  # it has closed since `sub` came to stand in line
        waiter, where = self._place(self._find_oldest(sub, now), sub, now)
        if waiter is not None:
            where.gate.attempted(now)
            self._ledger.open(where, waiter, now)
        return waiter

    def _place(
        self, waiter: AnyWaiter | None, sub: AnySubPool, now: float
    ) -> tuple[AnyWaiter | None, AnySubPool]:
        """Return for whom to dial next, where `waiter` is the oldest of `sub`, and where."""
        if waiter is None or waiter.group is None:
            return waiter, sub
        best = self._balancer.find_best(waiter, sub, self._can_dial, now, has_open=False)
        if best is not None and (best is sub or not has_open_for(waiter, best)):
            return waiter, best
        if best is not None:
            self._look_first_at(best, sub)
        # It needs no dial; others may, who ask for this endpoint only.
        return sub.queue.find(is_unprovided=True, is_single=True), sub

    def _find_oldest(self, sub: AnySubPool, now: float) -> AnyWaiter | None:
        """Return the oldest for whom nothing is under way; turn away whoever has waited too long.

        While dials fail, waiters wait for the back-off, which is no sign of load.
        """
        for _ in range(PIECE):
            waiter: AnyWaiter | None = sub.queue.find(is_unprovided=True)
            if waiter is None or sub.gate.is_failing:
                return waiter
            if not self._refusing.is_turned_away(sub, waiter, now):
                return waiter
        self._ledger.rest(sub, now)
        return None

    def may_serve(self, sub: AnySubPool, waiter: AnyWaiter | None, now: float) -> bool:
        """Whether `waiter` gets the connection that `sub` has open for it.

        If not, another member of its group has one, and is looked at first; or dials for it.
        """
        if waiter is None or waiter.group is None or waiter.coming is not None:
            return True
        best = self._balancer.find_best(waiter, sub, self._can_dial, now, has_open=True)
        if best is None or best is sub:
            return True
        if has_open_for(waiter, best):
            self._look_first_at(best, sub)
            return False
        if best.queue.find(is_unprovided=True) is not waiter or self._pool_limit.precedes(waiter):
            return True  # others come first there
        self._dial_for_first(best, now)
        return False

    def _look_first_at(self, first: AnySubPool, then: AnySubPool) -> None:
        """Have the pump look at `first`, which has an open connection, and after that at `then`."""
        touched = self._ledger.touched
        touched.pop(first, None)
        touched |= {then: None, first: None}

    def _can_dial(self, sub: AnySubPool, now: float) -> bool:
        """Whether `sub` may dial for one of its waiters now."""
        return sub.gate.is_open(now) and count_wanted(sub) > 0 and self._pool_limit.has_free_slot

    def _look_when_gate_opens(self, sub: AnySubPool) -> None:
        """Have the pump look at `sub` again then. A pause does not end by itself."""
        self._timetable.look_at(sub, sub.gate.opens_at)


def count_wanted(sub: AnySubPool) -> int:
    """Return how many more dials the waiters of `sub` want and its own limits allow.

    No more dials run than there are waiters: one whose waiter has gone serves the next.
    """
    free = sub.limit.total - len(sub.limit.borrowers)
    if free <= 0:
        return 0
    lacking = min(sub.count_needed() - sub.count_coming(), sub.queue.count_unprovided())
    return min(free, max(0, min(lacking, sub.max_connecting - sub.connecting)))
