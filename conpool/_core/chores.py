"""Long work in short pieces, so that nobody else has to wait while it is done.

Whatever concerns many waiters or connections of an endpoint is done `PIECE` at a time. What is left
falls due at once: the timer comes back to it, and other tasks run in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, final

from conpool._core.ledger import Ledger
from conpool._core.records import AnySubPool, Chore, Outage, Waiter
from conpool._core.retiring import Retiring
from conpool._values.states import WaitOutcome

PIECE: Final = 100
"""How many waiters or connections one step is about: a millisecond or two of work."""


@final
class Chores:
    """Does the work that many connections or waiters of a sub-pool are in for."""

    __slots__ = ("_ledger", "retiring")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.retiring = Retiring(ledger)

    def ticked(self, now: float) -> None:
        """Time has passed: refuse waiters whose time is up, go on where something has fallen due.

        It does no more than a piece of work: what is left is still due.
        """
        ledger = self._ledger
        for item in ledger.timetable.pop_due(now, PIECE):
            if isinstance(item, Waiter):
                if item.queued:  # it has not been told of an outage a moment ago, in this step
                    ledger.refuse(item, WaitOutcome.TIMEOUT)
            elif len(ledger.effects) >= PIECE:
                ledger.timetable.look_at(item, now)
            else:
                self._time_out_line(item, now)
                self.go_on(item, now)
                self.retiring.went_on(item, now)
                item.is_resting = False
                ledger.touch(item)

    def _time_out_line(self, sub: AnySubPool, now: float) -> None:
        """Refuse those in line whose time is up: in the order of their deadlines they are first.

        Behind them stand those that have rows of their own in the timetable.
        """
        timetable = self._ledger.timetable
        for _ in range(PIECE):
            waiter = next(iter(sub.queue.line), None)
            if waiter is None or waiter.is_timed:
                return
            if waiter.deadline > now:
                timetable.look_at(sub, waiter.deadline)
                return
            self._ledger.refuse(waiter, WaitOutcome.TIMEOUT)
        timetable.look_at(sub, now)

    def begin(
        self,
        sub: AnySubPool,
        do: Callable[[Any, float], object],
        items: Iterable[Any],
        now: float,
    ) -> None:
        """Call `do` for each of `items`: for the first ones now, for the others soon."""
        chore = Chore(do, deque(items))
        if chore.entries:
            sub.chores = (*sub.chores, chore)
            self.go_on(sub, now)

    def tell(self, sub: AnySubPool, outage: Outage, now: float) -> None:
        """Refuse the waiters and warmers whom `outage` is about."""
        sub.outage = outage
        self.go_on(sub, now)

    def go_on(self, sub: AnySubPool, now: float) -> None:
        """Do the next piece of what is left to do."""
        left = PIECE
        while left and sub.outage is not None:
            left -= 1
            self._tell_oldest(sub, sub.outage)
        while left and sub.chores:
            left -= 1
            chore = sub.chores[0]
            item = chore.entries.popleft()
            if not chore.entries:
                sub.chores = sub.chores[1:]
            chore.do(item, now)
        if sub.outage is not None or sub.chores:
            self._ledger.timetable.look_at(sub, now)

    def _tell_oldest(self, sub: AnySubPool, outage: Outage) -> None:
        if outage.warmers:
            warmer = outage.warmers.pop()
            if warmer.queued:
                self._ledger.end_warming(warmer, outage.error)
            return
        waiter = sub.queue.find(is_single=True)
        if waiter is None or waiter.number > outage.arrivals:
            sub.outage = None
        else:
            self._ledger.refuse(waiter, WaitOutcome.DIAL_FAILED, outage.error)
