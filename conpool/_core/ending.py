"""The end of a pool: it turns away who waits, and closes what nobody uses, a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain, islice
from typing import final

from conpool._core import standing
from conpool._core.chores import PIECE, Chores
from conpool._core.ledger import Ledger
from conpool._core.records import AnyEntry, AnySubPool
from conpool._values.states import CloseReason, ConnectionState, WaitOutcome

_ACTIVE = ConnectionState.ACTIVE


@final
class Ending:
    """Ends one sub-pool after the other."""

    __slots__ = ("_chores", "_ledger", "_left")

    def __init__(self, ledger: Ledger, chores: Chores) -> None:
        self._ledger = ledger
        self._chores = chores
        self._left: deque[AnySubPool] = deque()

    @property
    def is_under_way(self) -> bool:
        """Whether `went_on` must be reported again."""
        return bool(self._left)

    def begin(self, subs: Iterable[AnySubPool], now: float) -> None:
        """End all of `subs`: the first ones now, the others with `went_on`."""
        self._left = deque(subs)
        self.went_on(now)

    def went_on(self, now: float) -> None:
        """Do the next piece."""
        left = PIECE
        while self._left and left > 0:
            sub = self._left[0]
            left = self._empty(sub, left) - 1
            if not (sub.warmers or sub.waiting or sub.idle or sub.leaving):
                self._left.popleft()
                left -= min(sub.active, PIECE)
                self._dismiss_active(sub, now)

    def _empty(self, sub: AnySubPool, left: int) -> int:
        """Refuse and close at most `left` of what `sub` has; return how many are left to do."""
        ledger = self._ledger
        ledger.forget(sub)
        standing.bar_groups(sub, bars=False)  # they must be found
        sub.chores = ()
        sub.outage = None
        # A piece at once: to find the first in a dict takes long when many before it have left.
        while left and sub.warmers:
            warmers = [*islice(sub.warmers, left)]
            left -= len(warmers)
            for warmer in warmers:
                ledger.end_warming(warmer, None)
        while left and (waiter := sub.queue.find()) is not None:
            left -= 1
            ledger.refuse(waiter, WaitOutcome.POOL_CLOSED)
        while left and (sub.idle or sub.leaving):
            entries = [*islice(chain(*sub.leaving.values(), sub.idle), left)]
            left -= len(entries)
            for entry in entries:
                is_checked = entry in sub.reserved
                ledger.condemn(entry, CloseReason.POOL_CLOSED, gracefully=not is_checked)
        return left

    def _dismiss_active(self, sub: AnySubPool, now: float) -> None:
        """Close what was taken, handed over or checked: no lease of that may begin."""
        if sub.active:
            self._chores.begin(sub, self._dismiss, sub.limit.borrowers, now)

    def _dismiss(self, entry: AnyEntry, now: float) -> None:
        # A reset ends in its own time, within the grace: then its session can say goodbye.
        if entry.state is _ACTIVE and not entry.leases and not entry.is_resetting:
            self._ledger.condemn(entry, CloseReason.POOL_CLOSED, gracefully=False)
