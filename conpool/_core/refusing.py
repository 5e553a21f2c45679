"""Who is turned away without a connection, though time is left.

1. While the circuit of an endpoint allows no dial, nobody waits for one. All are turned away for
   whom nothing is under way, the youngest first. While a connection is in circulation, these are
   only those that want a `fresh` one: the others take it when it comes back.
2. Nobody waits for an endpoint that is marked unhealthy.
3. The turn of a waiter comes when a connection that was used before could be lent to it, or a dial
   could start for it. If its time is up then, or its queue sheds load, the next one has its turn.

A waiter of a group may be served elsewhere: as long as it has time left, nobody here turns it away.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, final

from conpool._core import standing
from conpool._core.chores import PIECE
from conpool._core.circuit import Circuit
from conpool._core.effects import Effect, note_circuit
from conpool._core.ledger import Ledger
from conpool._core.outgoing import is_in_circulation
from conpool._core.records import AnySubPool, AnyWaiter
from conpool._core.shedding import Codel
from conpool._values.states import WaitOutcome


@final
class Refusing:
    """Turns waiters away."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def turn_away_undiallable(self, sub: AnySubPool, now: float) -> None:
        """Turn away the waiters of `sub` that only a new dial could serve; none may start.

        A dial in vain (it is given up, perhaps) leaves its place to another one in a moment.
        """
        queue = sub.queue
        has_circulation = is_in_circulation(sub)
        for _ in range(PIECE):
            if has_circulation:
                is_hopeless = queue.has_fresh_before(None, len(sub.spare_dials) + sub.void)
            else:
                is_hopeless = sub.count_needed() > sub.count_coming() + sub.void
            waiter = queue.find_youngest(is_fresh=has_circulation) if is_hopeless else None
            if waiter is None:
                return
            self._ledger.refuse(waiter, WaitOutcome.CIRCUIT_OPEN)
        self._ledger.rest(sub, now)

    def turn_away_all(self, sub: AnySubPool, now: float) -> None:
        """Turn away all waiters of `sub`, which is marked unhealthy."""
        for _ in range(PIECE):
            waiter = sub.queue.find()
            if waiter is None:
                return
            self._ledger.refuse(waiter, WaitOutcome.UNHEALTHY)
        self._ledger.rest(sub, now)

    def is_turned_away(self, sub: AnySubPool, waiter: AnyWaiter, now: float) -> bool:
        """Turn `waiter` away if its time is up or `sub` sheds load; return whether it was.

        One for whom a dial or a check is under way has had its turn: the rest is no sign of load.
        """
        if waiter.deadline <= now:
            self._ledger.refuse(waiter, WaitOutcome.TIMEOUT)
            return True
        codel = sub.queue.codel
        if codel is None or waiter.coming is not None:
            return False
        is_last = sub.queue.count_unprovided() == 1
        if not codel.is_too_late(waiter.since, now, is_last=is_last) or len(waiter.subs) > 1:
            return False
        self._ledger.refuse(waiter, WaitOutcome.SHED)
        return True


def equip(sub: AnySubPool, effects: deque[Effect[Any, Any]]) -> None:
    """Give `sub` the breaker, and the rule for shedding load, that its configuration asks for."""
    breaker, target = sub.config.circuit_breaker, sub.config.queue_target_delay
    if breaker is not None:
        sub.gate.circuit = Circuit(breaker, partial(note_circuit, effects, sub.endpoint))
    if target is not None:
        standing.open_queue(sub).codel = Codel(target)
