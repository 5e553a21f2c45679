"""What a check has found: it counts for the endpoint, not for whoever asked.

A check goes on when its caller has lost patience: a deadline says nothing about a connection. One
connection that does not answer is chance; two in a row mean that the others may be as dead. Then
all go that have been silent for as long, so that no caller has to try them in turn.
"""

from __future__ import annotations

from functools import partial
from typing import Any, final

from conpool._core.chores import Chores
from conpool._core.keeping import silent_since, why_lapsed
from conpool._core.ledger import Ledger
from conpool._core.records import AnyEntry, AnyLease, Lease
from conpool._core.warming import Warming
from conpool._values.states import CloseReason, ConnectionState

_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE


@final
class Checks:
    """Reports of checks."""

    __slots__ = ("_chores", "_ledger", "_warming")

    def __init__(self, ledger: Ledger, chores: Chores, warming: Warming) -> None:
        self._ledger = ledger
        self._chores = chores
        self._warming = warming

    def began(self, entry: AnyEntry, holder: Any, now: float) -> AnyLease:
        """`holder` has the peer of `entry`, of which no lease has begun, asked."""
        entry.check = Lease(entry, holder, now)
        return entry.check

    def reserved(self, entry: AnyEntry, now: float) -> None:
        """`entry`, idle, is checked in the background; it stays idle, and nobody gets it."""
        self._ledger.reserve(entry)

    def over(self, entry: AnyEntry, reason: CloseReason | None, now: float) -> bool:
        """Take note of a check that found `reason` to close `entry`, or none.

        Returns True if the connection is active now, and nobody's.
        """
        entry.check = None
        sub = entry.sub
        if entry.is_checking:
            self._ledger.check_over(entry)
        elif entry in sub.reserved:
            self._ledger.unreserve(entry)
        else:
            return False  # it was closed meanwhile
        if reason is not None:
            self._close(entry, reason, now)
        elif entry.state is _IDLE and (now >= entry.lapses_at or sub.count_surplus() > 0):
            why = why_lapsed(entry, now) if now >= entry.lapses_at else CloseReason.SURPLUS
            self._ledger.condemn(entry, why, gracefully=True)
        return entry.state is _ACTIVE

    def answered(self, entry: AnyEntry, now: float) -> None:
        """The peer of `entry` has answered a check."""
        entry.checked_at = now
        entry.sub.silent = 0

    def _close(self, entry: AnyEntry, reason: CloseReason, now: float) -> None:
        sub = entry.sub
        since = silent_since(entry)
        self._warming.lost(entry, reason, now)
        self._ledger.condemn(entry, reason, gracefully=False)
        if reason is CloseReason.UNHEALTHY:
            sub.silent += 1
            if sub.silent > 1:
                self._chores.begin(sub, partial(self._close_silent, since), sub.idle, now)

    def _close_silent(self, since: float, entry: AnyEntry, now: float) -> None:
        sub = entry.sub
        is_free = entry in sub.idle and entry not in sub.reserved
        if is_free and silent_since(entry) <= since:
            self._ledger.condemn(entry, CloseReason.UNHEALTHY, gracefully=False)
