"""When a dial starts, and for whom: it turns free slots into new connections.

Three things hold a dial back: the endpoint's own limits, its gate (a pause, the delay after a
failure), and the pool-wide limit. `ask` runs through them in that order for one sub-pool, `allot`
shares out the pool-wide slots, and `warm` uses what nobody waits for. Warming alone is held back by
one thing more: connections that are lost as soon as they are open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from conpool._core.backoff import CEILING, backoff
from conpool._values.states import CloseReason

if TYPE_CHECKING:
    from random import Random

    from conpool._core.ledger import Ledger
    from conpool._core.pool_limit import PoolLimit
    from conpool._core.records import Entry, SubPool

SHORT_LIFE: Final = CEILING
"""Seconds. Connections that last for longer are no more frequent than the longest delay would make them."""


@final
class DialPolicy:
    """Decides about dials; enters them into the ledger."""

    __slots__ = ("_ledger", "_pool_limit", "_random")

    def __init__(self, ledger: Ledger, random: Random) -> None:
        self._ledger = ledger
        self._pool_limit = ledger.pool_limit
        self._random = random

    def dial_for_waiters(self, sub: SubPool, now: float) -> None:
        """Start the dials that the waiters of `sub` want, or have it stand in line for slots."""
        wanted = sub.count_wanted_dials()
        if wanted:
            if not sub.is_gate_open(now):
                self._expect_gate(sub)
                wanted = 0
            elif sub.failures:
                wanted = 1  # one attempt a delay, however many wait
        if self._pool_limit is not None:
            self._pool_limit.stand_in_line(sub, sub.find_undialled() if wanted else None, wanted)
        else:
            for _ in range(wanted):
                self._dial_for_oldest(sub, now)
            if wanted and sub.failures:
                self._expect_gate(sub)  # for the others
        if sub.idle:
            self._make_way_for_fresh(sub, now)

    def lacks_slot(self, sub: SubPool, waiting: int, now: float) -> bool:
        """Whether `waiting` waiters that want new connections need more slots than will be free by themselves."""
        if sub.limit.has_free_slot:
            pool_limit = self._pool_limit
            return (
                pool_limit is not None
                and sub.claim is not None
                and pool_limit.closing < pool_limit.wanted
            )
        spare = sub.connecting - sub.dialled_for  # dials whose waiters have gone serve these
        dials = min(waiting - spare, 1 if sub.failures else sub.max_connecting - sub.connecting)
        return sub.closing < dials and sub.is_gate_open(now)

    def share_out(self, pool_limit: PoolLimit, now: float) -> None:
        """Give the slots of the pool-wide limit to those in line; make room if there is none.

        What they leave is for warmth.
        """
        while (first := pool_limit.find_first()) is not None:
            if pool_limit.limit.has_free_slot:
                self._dial_for_oldest(first, now)
                self.dial_for_waiters(first, now)
                if first.min_idle or first.warmers:
                    pool_limit.cold[first] = None  # it goes on warming when nobody of its own waits
            elif pool_limit.idle_by_age and pool_limit.closing < pool_limit.wanted:
                longest = next(iter(pool_limit.idle_by_age))
                self._ledger.condemn(longest, CloseReason.EVICTED, gracefully=True)
            else:
                return
        while pool_limit.cold and pool_limit.limit.has_free_slot:
            coldest, _ = pool_limit.cold.popitem(last=False)
            self.warm(coldest, now)

    def warm(self, sub: SubPool, now: float) -> None:
        """Keep `sub` as warm as somebody asked for, with slots that nobody else wants."""
        for warmer in list(sub.warmers):
            # The limit may have been lowered since: then that is all there can be.
            if sub.count_open() >= min(warmer.target, sub.limit.total):
                self._ledger.end_warming(warmer, None)
        while self._lacks_warmth(sub, now):
            if not sub.is_gate_open(now):
                self._expect_gate(sub)
                return
            if now < sub.warm_not_before:
                self._ledger.timetable.look_at(sub, sub.warm_not_before)
                return
            self._delay_after_failure(sub, now)
            self._delay_warming(sub, now)
            entry = self._ledger.open(sub, now)
            entry.dial_for = next(iter(sub.warmers), None)

    def lost_unused(self, entry: Entry, now: float) -> None:
        """The peer has ended `entry`, which nobody had used yet. If it was new, warming takes its time.

        Otherwise a server that accepts and hangs up, for it is full, or refuses our certificate (which TLS 1.3
        has it say after the handshake), would be dialled as fast as it can hang up.
        """
        if now - entry.created_at < SHORT_LIFE:
            self._delay_warming(entry.sub, now, lost=1)

    def failed(self, sub: SubPool, now: float) -> None:
        """A dial of `sub` has failed: the next one waits.

        Dials that ran side by side met one and the same trouble, and count as one failure: a busy client
        is not to wait for seconds after a server that was away for a moment.
        """
        sub.failures = sub.failures or 1
        self._put_off_dials(sub, now)

    def _lacks_warmth(self, sub: SubPool, now: float) -> bool:
        waiting = len(sub.queue)
        if waiting > sub.connecting:
            return False
        if not sub.limit.has_free_slot or sub.connecting >= sub.max_connecting:
            return False
        if all(sub.count_open() + sub.connecting >= warmer.target for warmer in sub.warmers):
            # Idle time and this lapse together, so an endpoint that nobody asks for cools down for good.
            is_asked_for = now - sub.used_at < sub.max_idle_time
            spare = sub.connecting - waiting
            if not is_asked_for or len(sub.idle) + spare >= sub.min_idle:
                return False
        if self._pool_limit is not None and (
            self._pool_limit.wanted or not self._pool_limit.limit.has_free_slot
        ):
            self._pool_limit.cold[sub] = None
            return False
        return True

    def _make_way_for_fresh(self, sub: SubPool, now: float) -> None:
        """Close idle connections that hold the slots of waiters; those who still wait want new ones only."""
        while sub.idle and not sub.limit.has_free_slot:
            if not sub.is_gate_open(now):
                self._expect_gate(sub)
                return
            if not self.lacks_slot(sub, len(sub.queue) - sub.dialled_for, now):
                return
            self._ledger.condemn(next(iter(sub.idle)), CloseReason.EVICTED, gracefully=True)

    def _dial_for_oldest(self, sub: SubPool, now: float) -> None:
        waiter = sub.find_undialled()
        assert waiter is not None, sub  # there are more waiters than dials
        self._delay_after_failure(sub, now)
        self._ledger.dial_is_for(self._ledger.open(sub, now), waiter)

    def _delay_after_failure(self, sub: SubPool, now: float) -> None:
        """After a failure, each attempt puts off the next one for longer, whatever becomes of it."""
        if sub.failures:
            sub.failures += 1
            self._put_off_dials(sub, now)

    def _put_off_dials(self, sub: SubPool, now: float) -> None:
        sub.dial_not_before = now + backoff(sub.failures, self._random)

    def _delay_warming(self, sub: SubPool, now: float, lost: int = 0) -> None:
        """While connections are lost at once, each attempt puts off the next one, as after a failure."""
        if now - sub.warm_not_before >= SHORT_LIFE:
            sub.short_lives = 0  # since then none was lost, or dials are slow enough by themselves
        sub.short_lives += lost
        if sub.short_lives:
            sub.warm_not_before = now + backoff(sub.short_lives, self._random)

    def _expect_gate(self, sub: SubPool) -> None:
        """Have the pump run again when the gate opens. A pause does not end by itself."""
        if not sub.paused:
            self._ledger.timetable.look_at(sub, sub.dial_not_before)
