"""Bookkeeping: each connection, slot and place in a queue is moved here, so that all counts agree.

No decisions. Every method leaves the books balanced, and notes which sub-pools it has touched: the
pump looks at these next (`Core.pump`), so nobody has to remember to call it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, final

from conpool._core import affinity, spare, standing
from conpool._core.effects import Check, Close, Dial, Effect, GiveUp, Reset
from conpool._core.few import entered, nothing, without, without_member
from conpool._core.outgoing import is_outgoing, why_leaving
from conpool._core.pool_limit import PoolLimit
from conpool._core.records import AnyEntry, AnySubPool, AnyWaiter, AnyWarmer, Entry, Waiter
from conpool._core.timetable import Timetable
from conpool._values.states import CloseReason, ConnectionState, WaitOutcome

_CONNECTING = ConnectionState.CONNECTING
_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE


@final
class Ledger:
    """The books of one pool, apart from the sub-pools' own."""

    __slots__ = ("_dials", "arrivals", "effects", "pool_limit", "timetable", "touched")

    def __init__(self, pool_limit: PoolLimit) -> None:
        self.pool_limit = pool_limit
        self.timetable = Timetable()
        self.effects: deque[Effect[Any, Any]] = deque()
        """The outbox: what the shell must do, in order."""
        self.touched: dict[AnySubPool, None] = {}
        """The sub-pools in which something has changed since the pump last looked."""
        self.arrivals = 0
        """The number of the last waiter that has come."""
        self._dials = 0

    # ── connections ─────────────────────────────────────────────────────────────

    def open(self, sub: AnySubPool, awaited_by: AnyWaiter | AnyWarmer | None, now: float) -> None:
        """Enter a connection that is to be dialled, and charge its slots."""
        self._dials += 1
        entry: AnyEntry = Entry(self._dials, sub, now, arrivals=self.arrivals)
        sub.limit.charge(entry)
        if self.pool_limit.is_limited:
            self.pool_limit.limit.charge(entry)
        sub.connecting += 1
        if isinstance(awaited_by, Waiter):
            self._provide(awaited_by, entry)
        else:
            entry.awaited_by = awaited_by
            spare.note(entry)
        self._look_again_at(sub)
        self.effects.append(Dial(entry))

    def activate(self, entry: AnyEntry) -> None:
        """CONNECTING → ACTIVE."""
        entry.sub.outgoing += is_outgoing(entry)
        self._leave_connecting(entry)
        entry.move(_ACTIVE)

    def pop_newest(self, sub: AnySubPool) -> AnyEntry:
        """IDLE → ACTIVE, for the newest of `sub`. The pump need not look: no slot became free."""
        entry, _ = sub.idle.popitem()
        if self.pool_limit.is_limited:
            self.pool_limit.left_idle(entry)
        entry.state = _ACTIVE  # what is on the stack may become that: the table need not be asked
        return entry

    def pop_known(self, entry: AnyEntry) -> None:
        """IDLE → ACTIVE, for `entry`, wherever it lies on the stack."""
        sub = entry.sub
        del sub.idle[entry]
        sub.idle[entry] = None
        self.pop_newest(sub)

    def push_idle(self, entry: AnyEntry) -> None:
        """ACTIVE → IDLE, on top. The pump does not look: call it only if nobody wants it."""
        sub = entry.sub
        entry.was_idle = True
        entry.state = _IDLE  # the caller has made sure that it was active
        sub.idle[entry] = None
        if self.pool_limit.is_limited:
            self.pool_limit.became_idle(entry)

    def set_idle_aside(self, sub: AnySubPool, reason: CloseReason) -> None:
        """Take all idle connections of `sub` from the stack, to be closed for `reason`.

        Those that are checked in the background stay. One step, however many there are.
        """
        leaving = sub.idle
        sub.idle = dict.fromkeys(sub.reserved)
        for entry in sub.reserved:
            del leaving[entry]
        if reason in sub.leaving:
            sub.leaving[reason].update(leaving)
        elif leaving:
            sub.leaving = entered(sub.leaving, reason, leaving)

    def condemn(self, entry: AnyEntry, reason: CloseReason, *, gracefully: bool) -> None:
        """IDLE or ACTIVE → CLOSING; the slots stay charged."""
        sub = entry.sub
        if entry.state is _IDLE:
            reason_before = why_leaving(entry) if sub.leaving else None  # nearly always empty
            if reason_before is None:
                del sub.idle[entry]
            else:
                sub.leaving = without_member(sub.leaving, reason_before, entry)
            sub.reserved = without(sub.reserved, entry)
            if self.pool_limit.is_limited:
                self.pool_limit.left_idle(entry)
        else:
            if entry.is_checking:
                self.check_over(entry)
            if entry.is_resetting:
                self.end_reset(entry)
            sub.outgoing -= is_outgoing(entry)
            sub.roomy = without(sub.roomy, entry)
            self.pool_limit.draining.pop(entry, None)
        entry.move(ConnectionState.CLOSING)
        entry.reason = reason
        sub.closing += 1
        if self.pool_limit.is_limited:
            self.pool_limit.closing_began()
        self.touched[sub] = None
        self.effects.append(Close(entry, gracefully))

    def give_up(self, entry: AnyEntry) -> None:
        """Have the dial of `entry` ended; its slots stay charged until it is over."""
        if entry.is_given_up:
            return
        sub = entry.sub
        sub.void += not entry.is_void
        entry.is_given_up = True
        self._forsake(entry)
        if self.pool_limit.is_limited:
            self.pool_limit.closing_began()
        self._look_again_at(sub)
        self.effects.append(GiveUp(entry))

    def strike_off(self, entry: AnyEntry) -> None:
        """CONNECTING or CLOSING → CLOSED, and repay its slots. Nothing else repays them."""
        sub = entry.sub
        if entry.state is _CONNECTING:
            self._leave_connecting(entry)
        else:
            sub.closing -= 1
            if self.pool_limit.is_limited:
                self.pool_limit.closed()
        entry.move(ConnectionState.CLOSED)
        affinity.forget(entry)
        if entry.generation != sub.generation:
            old, counts = entry.generation, sub.survivors
            left = counts[old] - 1
            sub.survivors = entered(counts, old, left) if left else without(counts, old)
        sub.limit.repay(entry)
        self.pool_limit.limit.repay(entry)
        if not sub.is_straight:  # it may have been the last that was in the way
            sub.note_rules()
        self.touched[sub] = None

    def _leave_connecting(self, entry: AnyEntry) -> None:
        sub = entry.sub
        sub.connecting -= 1
        sub.void -= entry.is_void
        if entry.is_given_up and self.pool_limit.is_limited:
            self.pool_limit.closed()
        self._look_again_at(sub)

    def begin_generation(self, sub: AnySubPool) -> None:
        """No connection of `sub` that exists now will be lent again. One step."""
        count = len(sub.limit.borrowers) - sum(sub.survivors.values())
        if count:
            sub.survivors = entered(sub.survivors, sub.generation, count)
        sub.generation += 1
        sub.roomy = nothing()
        sub.void, sub.outgoing = sub.connecting, sub.active
        sub.spare_dials = nothing()
        sub.note_rules()
        self._look_again_at(sub)

    # ── checks ──────────────────────────────────────────────────────────────────

    def begin_check(self, entry: AnyEntry, waiter: AnyWaiter | None) -> None:
        """Have `entry`, which is active and nobody's, checked for `waiter`, or for any of them."""
        sub = entry.sub
        entry.is_checking = True
        sub.checking += 1
        if waiter is not None:
            self._provide(waiter, entry)
        else:
            spare.note(entry)
        self._look_again_at(sub)
        self.effects.append(Check(entry))

    def check_over(self, entry: AnyEntry) -> None:
        """The check of `entry` is over."""
        entry.is_checking = False
        entry.sub.checking -= 1
        self._forsake(entry)
        self._look_again_at(entry.sub)

    def begin_reset(self, entry: AnyEntry) -> None:
        """Have what a lease has left behind on `entry` cleared."""
        entry.is_resetting = True
        entry.sub.resetting += 1
        self.effects.append(Reset(entry))

    def end_reset(self, entry: AnyEntry) -> None:
        """The reset of `entry` is over, with whatever result."""
        entry.is_resetting = False
        entry.sub.resetting -= 1
        self._look_again_at(entry.sub)

    def reserve(self, entry: AnyEntry) -> None:
        """`entry` is checked in the background: it keeps its place, and nobody gets it."""
        entry.sub.reserved = entered(entry.sub.reserved, entry, None)
        entry.lapses_at = -math.inf

    def unreserve(self, entry: AnyEntry) -> None:
        """The check of `entry` in the background is over."""
        sub = entry.sub
        sub.reserved = without(sub.reserved, entry)
        entry.lapses_at = min(entry.idle_since + sub.max_idle_time, entry.expires_at)
        self.touched[sub] = None

    # ── waiters ─────────────────────────────────────────────────────────────────

    def enqueue(self, waiter: AnyWaiter, now: float) -> None:
        """Put `waiter` in all its queues: at the end, or back in its place if it had its turn."""
        waiter.queued = True
        if not waiter.had_turn:
            waiter.number = self.arrivals = self.arrivals + 1
        if waiter.had_turn or waiter.fresh or waiter.group is not None:
            self._enqueue_apart(waiter, now)
            return
        sub = waiter.subs[0]
        if not sub.waiting:
            standing.open_queue(sub)
        line, deadline = sub.queue.line, waiter.deadline
        # Those whose deadlines are in order need no row, and stand before all who have one.
        needs_row = sub.timed or deadline < next(reversed(line), waiter).deadline
        sub.waiting += 1
        line[waiter] = None
        sub.used_at = now
        if sub.idle or sub.roomy or sub.is_scarce or len(sub.limit.borrowers) < sub.limit.total:
            self._look_again_at(sub)  # else all are lent, and it can get nothing yet
        if needs_row:
            sub.timed += 1
            self.timetable.add(waiter)
        elif deadline < sub.due_at:
            self.timetable.look_at(sub, deadline)

    def _enqueue_apart(self, waiter: AnyWaiter, now: float) -> None:
        coming = waiter.coming
        if coming is not None and coming.awaited_by is not waiter:
            coming = waiter.coming = None
        if waiter.group is not None:
            waiter.group.subs = waiter.subs
            self.pool_limit.extra += len(waiter.subs) - 1 if coming is None else 0
        for sub in waiter.subs:
            standing.join(waiter, sub)
            sub.used_at = now
            self._look_again_at(sub)
        if coming is not None:  # it is under way for `waiter` again
            spare.claim(coming)
            self._look_again_at(coming.sub)
        self.timetable.add(waiter)

    def dequeue(self, waiter: AnyWaiter) -> None:
        """Take `waiter` out of every queue. What is under way for it goes on, for nobody yet.

        That frees no slot, so the pump is told only where others may be next in line.
        """
        waiter.queued = False
        group = waiter.group
        for sub in waiter.subs:
            standing.leave(waiter, sub)
            if sub.claim is waiter:
                self.pool_limit.stand_in_line(sub, None, 0)
                self._look_again_at(sub)
            elif sub.is_scarce or group is not None:
                # Warming waits until there are fewer; others stood behind one of a group.
                self._look_again_at(sub)
        if waiter.coming is not None:
            self._abandon(waiter.coming)
        elif group is not None:
            self.pool_limit.extra -= len(waiter.subs) - 1
        if waiter.row is not None:
            self.timetable.remove(waiter)

    def hand_over(self, waiter: AnyWaiter, entry: AnyEntry) -> None:
        """`entry` is the waiter's own from here on."""
        self.dequeue(waiter)
        waiter.entry = entry
        self.effects.append(waiter)

    def refuse(
        self, waiter: AnyWaiter, outcome: WaitOutcome, error: Exception | None = None
    ) -> None:
        """`waiter` gets nothing."""
        self.dequeue(waiter)
        waiter.outcome = outcome
        waiter.error = error
        self.effects.append(waiter)

    # ── what is under way, and for whom ─────────────────────────────────────────

    def dial_over(self, entry: AnyEntry) -> AnyWaiter | AnyWarmer | None:
        """The dial of `entry` is over: return for whom it was, if that one still waits."""
        awaited_by = entry.awaited_by
        self._forsake(entry)
        return awaited_by if awaited_by is not None and awaited_by.queued else None

    def _provide(self, waiter: AnyWaiter, entry: AnyEntry) -> None:
        """`entry` is dialled or checked for `waiter`, which is queued."""
        entry.awaited_by = waiter
        self._set_coming(waiter, entry)
        if not waiter.is_timed:
            self.timetable.add(waiter)

    def let_go(self, waiter: AnyWaiter) -> None:
        """What is under way for `waiter` is for nobody from now on, and may be of no use to it."""
        entry = waiter.coming
        if entry is not None:
            self._forsake(entry)
            self._abandon(entry)

    def _set_coming(self, waiter: AnyWaiter, entry: AnyEntry | None) -> None:
        if waiter.group is not None:
            change = (entry is None) - (waiter.coming is None)
            self.pool_limit.extra += change * (len(waiter.subs) - 1)
        for sub in waiter.subs:
            standing.leave_line(waiter, sub)
        waiter.coming = entry
        for sub in waiter.subs:
            standing.put_aside(waiter, sub)
            self._look_again_at(sub)

    def _abandon(self, entry: AnyEntry) -> None:
        """The waiter for which `entry` is dialled or checked has gone."""
        spare.note(entry)
        self._note_spare(entry.sub)

    def _forsake(self, entry: AnyEntry) -> None:
        """Nothing is under way any more that could make `entry` of use to whoever awaits it."""
        awaited_by, entry.awaited_by = entry.awaited_by, None
        spare.claim(entry)
        if isinstance(awaited_by, Waiter) and awaited_by.queued:
            self._set_coming(awaited_by, None)

    def _look_again_at(self, sub: AnySubPool) -> None:
        self.touched[sub] = None
        self._note_spare(sub)

    def _note_spare(self, sub: AnySubPool) -> None:
        if sub.shares_limit:
            self.pool_limit.note_spare(sub)

    # ── warming, and the sub-pool as a whole ────────────────────────────────────

    def end_warming(self, warmer: AnyWarmer, error: Exception | None) -> None:
        """`warmer` has waited long enough."""
        self.leave_warming(warmer)
        warmer.error = error
        self.effects.append(warmer)

    def leave_warming(self, warmer: AnyWarmer) -> None:
        """`warmer` waits no more."""
        warmer.queued = False
        warmer.sub.warmers = without(warmer.sub.warmers, warmer)
        warmer.sub.note_rules()

    def touch(self, sub: AnySubPool) -> None:
        """Have the pump look at `sub`."""
        self.touched[sub] = None

    def rest(self, sub: AnySubPool, now: float) -> None:
        """A piece of work has been done for `sub`: the pump goes on with it in the next tick."""
        sub.is_resting = True
        self.timetable.look_at(sub, now)

    def forget(self, sub: AnySubPool) -> None:
        """Remove `sub` from every schedule: if it came due, it would dial what nobody counts."""
        self.touched.pop(sub, None)
        self.timetable.drop(sub)
        self.pool_limit.forget(sub)

    def __repr__(self) -> str:
        return f"<Ledger {self.pool_limit!r}, {len(self.effects)} effects, {self.timetable!r}>"
