"""Who gets a connection: one that has come back, or one from the idle stack.

The oldest waiter comes first, with two exceptions. A waiter that wants a `fresh` connection passes
on what was used before. And a waiter of this endpoint goes without, once the first in line for the
pool-wide limit has been overtaken often enough: then the connection is closed to make room.
"""

from __future__ import annotations

from typing import final

from conpool._core.dials import Dials
from conpool._core.keeping import why_lapsed
from conpool._core.ledger import Ledger
from conpool._core.records import AnyEntry, AnySubPool
from conpool._values.states import CloseReason


@final
class Serving:
    """Gives connections to waiters."""

    __slots__ = ("_dials", "_ledger", "_pool_limit")

    def __init__(self, ledger: Ledger, dials: Dials) -> None:
        self._ledger = ledger
        self._pool_limit = ledger.pool_limit
        self._dials = dials

    def pop_newest(self, sub: AnySubPool, now: float) -> AnyEntry | None:
        """Take the newest idle connection of `sub` that has not lapsed; close those that have."""
        sub.used_at = now
        while sub.idle:
            entry = self._ledger.pop_newest(sub)
            if now < entry.lapses_at:
                return entry
            self._ledger.condemn(entry, why_lapsed(entry, now), gracefully=True)
        return None

    def place(self, entry: AnyEntry, now: float) -> None:
        """Lend `entry`, which is active and nobody's, to a waiter, or lay it on the idle stack."""
        sub = entry.sub
        if sub.queue and not sub.gate.is_paused:
            limit = self._pool_limit
            passed = 0
            for waiter in sub.queue:
                if waiter.fresh and (entry.uses or entry.was_idle):
                    passed += waiter.dial is None
                    if waiter.dial is None and self._dials.lacks_slot(sub, passed, now):
                        self._ledger.condemn(entry, CloseReason.EVICTED, gracefully=True)
                        return
                    continue
                if limit.wanted:
                    if limit.must_make_way(waiter):
                        self._ledger.condemn(entry, CloseReason.EVICTED, gracefully=True)
                        return
                    limit.was_overtaken(waiter)
                self._ledger.hand_over(waiter, entry)
                return
        self._ledger.push_idle_back(entry)

    def serve_from_idle(self, sub: AnySubPool, now: float) -> None:
        """Serve waiters from the idle stack: after a pause, or where others want only new ones."""
        while sub.idle and not sub.gate.is_paused:
            waiter = next((waiter for waiter in sub.queue if not waiter.fresh), None)
            entry = None if waiter is None else self.pop_newest(sub, now)
            if waiter is None or entry is None:
                break
            self._ledger.hand_over(waiter, entry)
