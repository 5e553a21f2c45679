"""Bookkeeping: each entry, slot and place in a queue is moved here, so that all counts agree.

No decisions. Every method leaves the books balanced: states, stacks, counters, both limits,
and the outbox that tells the shell what has been decided.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, final

from conpool._core.effects import Close, Dial, Effect
from conpool._core.records import Entry, Waiter, WaitOutcome, Warmer
from conpool._core.timetable import Timetable
from conpool._values.states import CloseReason, ConnectionState

if TYPE_CHECKING:
    from conpool._core.pool_limit import PoolLimit
    from conpool._core.records import SubPool

_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE


@final
class Ledger:
    """The books of one pool, apart from the sub-pools' own: outbox, timetable, pool-wide limit."""

    __slots__ = ("_dials", "effects", "pool_limit", "timetable")

    def __init__(self, pool_limit: PoolLimit | None) -> None:
        self.pool_limit = pool_limit
        self.effects: deque[Effect] = deque()
        self.timetable = Timetable()
        self._dials = 0

    # ── connections ─────────────────────────────────────────────────────────────

    def open(self, sub: SubPool, now: float) -> Entry:
        """Enter a connection that is to be dialled, and charge its slots."""
        self._dials += 1
        entry = Entry(self._dials, sub, now)
        sub.limit.charge(entry)
        if self.pool_limit is not None:
            self.pool_limit.limit.charge(entry)
        sub.connecting += 1
        self.effects.append(Dial(entry))
        return entry

    def activate(self, entry: Entry) -> None:
        """CONNECTING → ACTIVE."""
        entry.move(_ACTIVE)
        entry.sub.connecting -= 1
        entry.sub.active += 1

    def pop_newest(self, sub: SubPool) -> Entry:
        """IDLE → ACTIVE, for the newest of `sub`."""
        entry, _ = sub.idle.popitem()
        if self.pool_limit is not None:
            del self.pool_limit.idle_by_age[entry]
        # The stack holds idle connections only, so the table of transitions need not be asked here.
        entry.state = _ACTIVE
        sub.active += 1
        return entry

    def reserve(self, entry: Entry) -> None:
        """IDLE → ACTIVE, for a certain one."""
        del entry.sub.idle[entry]
        if self.pool_limit is not None:
            del self.pool_limit.idle_by_age[entry]
        entry.move(_ACTIVE)
        entry.sub.active += 1

    def push_idle(self, entry: Entry) -> None:
        """ACTIVE → IDLE."""
        sub = entry.sub
        entry.was_idle = True
        entry.state = _IDLE  # the caller has made sure that it was active
        sub.active -= 1
        sub.idle[entry] = None
        if self.pool_limit is not None:
            self.pool_limit.idle_by_age[entry] = None

    def push_idle_back(self, entry: Entry) -> None:
        """ACTIVE → IDLE, below those that became idle after it: on top, it would be used again and never age."""
        sub = entry.sub
        younger = list(
            takewhile(lambda other: other.idle_since > entry.idle_since, reversed(sub.idle))
        )
        self.push_idle(entry)
        for other in reversed(younger):
            del sub.idle[other]
            sub.idle[other] = None
            if self.pool_limit is not None:
                self.pool_limit.idle_by_age.move_to_end(other)

    def condemn(self, entry: Entry, reason: CloseReason, *, gracefully: bool) -> None:
        """IDLE or ACTIVE → CLOSING; the slots stay charged."""
        sub = entry.sub
        if entry.state is _IDLE:
            del sub.idle[entry]
            if self.pool_limit is not None:
                del self.pool_limit.idle_by_age[entry]
        else:
            sub.active -= 1
        entry.move(ConnectionState.CLOSING)
        entry.reason = reason
        sub.closing += 1
        if self.pool_limit is not None:
            self.pool_limit.closing += 1
        self.effects.append(Close(entry, gracefully))

    def strike_off(self, entry: Entry) -> None:
        """CONNECTING or CLOSING → CLOSED, and repay its slots. The only place that does."""
        sub = entry.sub
        if entry.state is ConnectionState.CONNECTING:
            sub.connecting -= 1
        else:
            sub.closing -= 1
            if self.pool_limit is not None:
                self.pool_limit.closing -= 1
        entry.move(ConnectionState.CLOSED)
        sub.limit.repay(entry)
        if self.pool_limit is not None:
            self.pool_limit.limit.repay(entry)

    # ── waiters ─────────────────────────────────────────────────────────────────

    def enqueue(self, waiter: Waiter) -> None:
        """Put `waiter` at the end of the queue of each of its sub-pools."""
        waiter.queued = True
        for sub in waiter.subs:
            sub.queue[waiter] = None
            if waiter.deadline < sub.due_at and not waiter.has_own_deadline:
                self.timetable.look_at(sub, waiter.deadline)
        if waiter.has_own_deadline:
            self.timetable.add(waiter)

    def put_back(self, waiter: Waiter) -> None:
        """Put `waiter` before all who came later: its turn has been. Its dial may still be under way."""
        self.enqueue(waiter)
        if waiter.dial is not None and waiter.dial.dial_for is not waiter:
            waiter.dial = None
        for sub in waiter.subs:
            queue = sub.queue
            if waiter.dial is not None:
                sub.dialled_for += 1
            earlier = list(takewhile(lambda other: _is_before(other, waiter), queue))
            for first in (waiter, *reversed(earlier)):
                queue.move_to_end(first, last=False)

    def dequeue(self, waiter: Waiter) -> None:
        """Take `waiter` out of every queue. Its dial goes on, for nobody in particular."""
        waiter.queued = False
        for sub in waiter.subs:
            del sub.queue[waiter]
            if waiter.dial is not None:
                sub.dialled_for -= 1
            if sub.claim is waiter and self.pool_limit is not None:
                self.pool_limit.stand_in_line(sub, None, 0)  # the pump puts the next one in line
        if waiter.has_own_deadline:
            self.timetable.remove(waiter)

    def dial_is_for(self, entry: Entry, waiter: Waiter) -> None:
        """The dial of `entry` is for `waiter`."""
        entry.dial_for = waiter
        waiter.dial = entry
        for sub in waiter.subs:
            sub.dialled_for += 1

    def dial_over(self, entry: Entry) -> Waiter | Warmer | None:
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

    def hand_over(self, waiter: Waiter, entry: Entry) -> None:
        """`entry` is the waiter's own from here on."""
        self.dequeue(waiter)
        waiter.entry = entry
        self.effects.append(waiter)

    def refuse(self, waiter: Waiter, refusal: WaitOutcome, error: Exception | None = None) -> None:
        """`waiter` gets nothing."""
        self.dequeue(waiter)
        waiter.refusal = refusal
        waiter.error = error
        self.effects.append(waiter)

    def end_warming(self, warmer: Warmer, error: Exception | None) -> None:
        """`warmer` has waited long enough."""
        warmer.sub.warmers.remove(warmer)
        warmer.queued = False
        warmer.error = error
        self.effects.append(warmer)

    def forget(self, sub: SubPool) -> None:
        """Nothing may bring `sub` up again: what it then opened would be in no books."""
        self.timetable.drop(sub)
        if self.pool_limit is not None:
            self.pool_limit.cold.pop(sub, None)

    def __repr__(self) -> str:
        return (
            f"<Ledger {self.pool_limit!r}, {len(self.effects)} effects pending, {self.timetable!r}>"
        )


def _is_before(other: Waiter, waiter: Waiter) -> bool:
    return other is not waiter and other.number <= waiter.number
