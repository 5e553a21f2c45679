"""Bookkeeping: each connection, slot and place in a queue is moved here, so that all counts agree.

No decisions. Every method leaves the books balanced: states, stacks, counts, both limits, and the
outbox that tells the shell what the core has decided. Every method also notes which sub-pools it
has touched: `Core.pump` looks at these next, so nobody has to remember to call it.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import Any, TypeAlias, final

from conpool._core.effects import Close, Dial, Effect
from conpool._core.pool_limit import PoolLimit
from conpool._core.records import (
    AnyEntry,
    AnySubPool,
    AnyWaiter,
    AnyWarmer,
    Entry,
    Waiter,
    WaitOutcome,
)
from conpool._core.timetable import Timetable
from conpool._values.states import CloseReason, ConnectionState

_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE

AnyEffect: TypeAlias = Effect[Any, Any]


@final
class Ledger:
    """The books of one pool, apart from the sub-pools' own."""

    __slots__ = ("_dials", "effects", "pool_limit", "timetable", "touched")

    def __init__(self, pool_limit: PoolLimit) -> None:
        self.pool_limit = pool_limit
        self.timetable = Timetable()
        self.effects: deque[AnyEffect] = deque()
        """The outbox: what the shell must do, in order."""
        self.touched: dict[AnySubPool, None] = {}
        """The sub-pools in which something has changed since the pump last looked."""
        self._dials = 0

    # ── connections ─────────────────────────────────────────────────────────────

    def open(self, sub: AnySubPool, now: float) -> AnyEntry:
        """Enter a connection that is to be dialled, and charge its slots."""
        self._dials += 1
        entry: AnyEntry = Entry(self._dials, sub, now)
        sub.limit.charge(entry)
        if self.pool_limit.is_limited:
            self.pool_limit.limit.charge(entry)
        sub.connecting += 1
        self.touched[sub] = None
        self.effects.append(Dial(entry))
        return entry

    def activate(self, entry: AnyEntry) -> None:
        """CONNECTING → ACTIVE."""
        sub = entry.sub
        entry.move(_ACTIVE)
        sub.connecting -= 1
        sub.active += 1
        self.touched[sub] = None

    def pop_newest(self, sub: AnySubPool) -> AnyEntry:
        """IDLE → ACTIVE, for the newest of `sub`. The pump has nothing to gain from that."""
        entry, _ = sub.idle.popitem()
        if self.pool_limit.is_limited:
            self.pool_limit.left_idle(entry)
        # The stack holds idle connections only, so the table of transitions need not be asked here.
        entry.state = _ACTIVE
        sub.active += 1
        return entry

    def reserve(self, entry: AnyEntry) -> None:
        """IDLE → ACTIVE, for a certain one."""
        del entry.sub.idle[entry]
        if self.pool_limit.is_limited:
            self.pool_limit.left_idle(entry)
        entry.move(_ACTIVE)
        entry.sub.active += 1

    def push_idle(self, entry: AnyEntry) -> None:
        """ACTIVE → IDLE, on top of the stack, if nobody has a use for it: the pump is not told."""
        sub = entry.sub
        entry.was_idle = True
        entry.state = _IDLE  # the caller has made sure that it was active
        sub.active -= 1
        sub.idle[entry] = None
        if self.pool_limit.is_limited:
            self.pool_limit.became_idle(entry)

    def push_idle_back(self, entry: AnyEntry) -> None:
        """ACTIVE → IDLE, in its place by age. On top it would be lent first and never grow old."""
        sub = entry.sub
        younger = list(
            takewhile(lambda other: other.idle_since > entry.idle_since, reversed(sub.idle))
        )
        self.push_idle(entry)
        self.touched[sub] = None
        if not entry.uses:
            entry.idled_unused = True
        for other in reversed(younger):
            del sub.idle[other]
            sub.idle[other] = None
            if self.pool_limit.is_limited:
                self.pool_limit.left_idle(other)
                self.pool_limit.became_idle(other)

    def condemn(self, entry: AnyEntry, reason: CloseReason, *, gracefully: bool) -> None:
        """IDLE or ACTIVE → CLOSING; the slots stay charged."""
        sub = entry.sub
        if entry.state is _IDLE:
            del sub.idle[entry]
            if self.pool_limit.is_limited:
                self.pool_limit.left_idle(entry)
        else:
            sub.active -= 1
        entry.move(ConnectionState.CLOSING)
        entry.reason = reason
        sub.closing += 1
        if self.pool_limit.is_limited:
            self.pool_limit.closing_began()
        self.touched[sub] = None
        self.effects.append(Close(entry, gracefully))

    def strike_off(self, entry: AnyEntry) -> None:
        """CONNECTING or CLOSING → CLOSED, and repay its slots. Nothing else repays them."""
        sub = entry.sub
        if entry.state is ConnectionState.CONNECTING:
            sub.connecting -= 1
        else:
            sub.closing -= 1
            if self.pool_limit.is_limited:
                self.pool_limit.closed()
        entry.move(ConnectionState.CLOSED)
        sub.limit.repay(entry)
        self.pool_limit.limit.repay(entry)
        self.touched[sub] = None

    # ── waiters ─────────────────────────────────────────────────────────────────

    def enqueue(self, waiter: AnyWaiter, now: float) -> None:
        """Put `waiter` at the end of the queue of each of its sub-pools.

        Where all connections are lent it can have nothing, and the pump is not told.
        """
        waiter.queued = True
        for sub in waiter.subs:
            sub.queue[waiter] = None
            sub.used_at = now
            if sub.idle or sub.is_scarce or len(sub.limit.borrowers) < sub.limit.total:
                self.touched[sub] = None
            if waiter.deadline < sub.due_at and not waiter.has_own_deadline:
                self.timetable.look_at(sub, waiter.deadline)
        if waiter.has_own_deadline:
            self.timetable.add(waiter)

    def return_to_head(self, waiter: AnyWaiter, now: float) -> None:
        """Put `waiter` before all who came later. Its dial may still be under way."""
        self.enqueue(waiter, now)
        if waiter.dial is not None and waiter.dial.dial_for is not waiter:
            waiter.dial = None
        for sub in waiter.subs:
            queue = sub.queue
            if waiter.dial is not None:
                sub.dialled_for += 1
            earlier = list(takewhile(lambda other: _is_before(other, waiter), queue))
            for first in (waiter, *reversed(earlier)):
                queue.move_to_end(first, last=False)

    def dequeue(self, waiter: AnyWaiter) -> None:
        """Take `waiter` out of every queue. Its dial goes on, for nobody in particular.

        That frees no slot, so the pump is told only where others may be next in line.
        """
        waiter.queued = False
        for sub in waiter.subs:
            del sub.queue[waiter]
            if waiter.dial is not None:
                sub.dialled_for -= 1
            if sub.claim is waiter:
                self.pool_limit.stand_in_line(sub, None, 0)
                self.touched[sub] = None
            elif sub.is_scarce:
                self.touched[sub] = None  # warming waits until there are fewer waiters
        if waiter.has_own_deadline:
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

    # ── dials ───────────────────────────────────────────────────────────────────

    def dial_is_for(self, entry: AnyEntry, waiter: AnyWaiter) -> None:
        """The dial of `entry` is for `waiter`."""
        entry.dial_for = waiter
        waiter.dial = entry
        for sub in waiter.subs:
            sub.dialled_for += 1

    def dial_over(self, entry: AnyEntry) -> AnyWaiter | AnyWarmer | None:
        """The dial of `entry` is over: return whom it was for, if that one still waits."""
        debtor = entry.dial_for
        entry.dial_for = None
        if debtor is None or not debtor.queued:
            return None
        if isinstance(debtor, Waiter):
            debtor.dial = None
            for sub in debtor.subs:
                sub.dialled_for -= 1
        return debtor

    # ── warming, and the sub-pool as a whole ────────────────────────────────────

    def start_warming(self, warmer: AnyWarmer) -> None:
        """`warmer` waits from here on."""
        warmer.sub.warmers.append(warmer)
        warmer.sub.note_scarcity()
        self.touched[warmer.sub] = None

    def end_warming(self, warmer: AnyWarmer, error: Exception | None) -> None:
        """`warmer` has waited long enough."""
        self.leave_warming(warmer)
        warmer.error = error
        self.effects.append(warmer)

    def leave_warming(self, warmer: AnyWarmer) -> None:
        """`warmer` waits no more."""
        sub = warmer.sub
        warmer.queued = False
        sub.warmers.remove(warmer)
        sub.note_scarcity()

    def touch(self, sub: AnySubPool) -> None:
        """Have the pump look at `sub`."""
        self.touched[sub] = None

    def forget(self, sub: AnySubPool) -> None:
        """Remove `sub` from every schedule.

        A dropped sub-pool that came due would dial connections that nobody counts.
        """
        self.touched.pop(sub, None)
        self.timetable.drop(sub)
        self.pool_limit.cold.pop(sub, None)

    def __repr__(self) -> str:
        return f"<Ledger {self.pool_limit!r}, {len(self.effects)} effects, {self.timetable!r}>"


def _is_before(other: AnyWaiter, waiter: AnyWaiter) -> bool:
    return other is not waiter and other.number <= waiter.number
