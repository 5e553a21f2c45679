"""What a pool is told about one endpoint: clear, pause, resize, warm, leave old addresses."""

from __future__ import annotations

from typing import final

from conpool._core.keeping import set_limit
from conpool._core.ledger import Ledger
from conpool._core.records import AnySubPool, AnyWarmer
from conpool._values.states import CloseReason, ConnectionState

_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE


@final
class Orders:
    """Reports of orders that somebody gave; like the core's own, they change the books at once."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def cleared(self, sub: AnySubPool, now: float) -> None:
        """Nothing of `sub` that exists now may be lent again."""
        sub.generation += 1
        self.dismiss(sub, CloseReason.CLEARED, now)

    def moved(self, sub: AnySubPool, addresses: frozenset[str], now: float) -> None:
        """The name now resolves to `addresses`: close connections to others, lent ones later."""
        for entry in list(sub.limit.borrowers):
            if entry.address is None or entry.address in addresses:
                continue
            if entry.state is _IDLE:
                self._ledger.condemn(entry, CloseReason.MOVED, gracefully=True)
            elif entry.state is _ACTIVE:
                entry.doomed = entry.doomed or CloseReason.MOVED

    def close_idle(self, sub: AnySubPool, reason: CloseReason, now: float) -> int:
        """Close the idle connections of `sub`; return how many there were."""
        entries = list(sub.idle)
        for entry in entries:
            self._ledger.condemn(entry, reason, gracefully=True)
        return len(entries)

    def limit_set(self, sub: AnySubPool, total: int, now: float) -> None:
        """The limit of `sub` is now `total`; surplus connections go, the idle ones at once."""
        for entry in set_limit(sub, total):
            self._ledger.condemn(entry, CloseReason.SURPLUS, gracefully=True)
        self._ledger.touch(sub)

    def paused(self, sub: AnySubPool, now: float) -> None:
        """`sub` lends and dials nothing until it is `resumed`."""
        sub.gate.paused()
        self._ledger.pool_limit.stand_in_line(sub, None, 0)

    def resumed(self, sub: AnySubPool, now: float) -> None:
        """`sub` goes on."""
        sub.gate.resumed()
        self._ledger.touch(sub)

    def warming_asked(self, warmer: AnyWarmer, now: float) -> None:
        """`warmer` waits until its number of connections are open."""
        warmer.sub.used_at = now
        self._ledger.start_warming(warmer)

    def warming_ended(self, warmer: AnyWarmer, now: float) -> None:
        """The task of `warmer` is gone."""
        if warmer.queued:
            self._ledger.leave_warming(warmer)

    def dismiss(self, sub: AnySubPool, reason: CloseReason, now: float) -> None:
        """Close what is idle, taken, handed over or checked: no lease of that may begin."""
        for entry in list(sub.limit.borrowers):
            if entry.state is _ACTIVE and not entry.leases:
                self._ledger.condemn(entry, reason, gracefully=False)
        self.close_idle(sub, reason, now)
