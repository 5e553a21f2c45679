"""What a failed dial means, and who is told of it.

The news of an outage travels fast, but nobody is told who may still be served: not while a
connection of the endpoint is lent or checked, nor while another dial is under way. Otherwise the
waiter for which the dial was started is told at once. The others wait on for `outage_grace`, so
that a restart of the server costs its callers a pause and not an error; then all are told who were
waiting when the dial began.
"""

from __future__ import annotations

from functools import partial
from typing import Final, final

from conpool._core.balancer import is_hopeless, is_lost, why_unusable
from conpool._core.chores import Chores
from conpool._core.gate import CEILING
from conpool._core.ledger import Ledger
from conpool._core.outgoing import is_in_circulation
from conpool._core.records import (
    AnyEntry,
    AnySubPool,
    AnyWaiter,
    AnyWarmer,
    Outage,
    Waiter,
)
from conpool._values.states import WaitOutcome

EARLY: Final = CEILING
"""A connection that ends sooner after its dial, in seconds, may have been no use to anybody.

The longest back-off: connections that live longer are redialled no faster than it allows.
"""


@final
class Failures:
    """Reports of what went wrong with a dial."""

    __slots__ = ("_chores", "_ledger")

    def __init__(self, ledger: Ledger, chores: Chores) -> None:
        self._ledger = ledger
        self._chores = chores

    def dial_failed(
        self, entry: AnyEntry, error: Exception | None, now: float, *, is_servers: bool = True
    ) -> None:
        """The dial of `entry` has failed with `error`; with None, it was given up.

        If not `is_servers`, the error says nothing about the server, and the breaker ignores it.
        """
        awaited_by = self._ledger.dial_over(entry)
        self._ledger.strike_off(entry)
        gate = entry.sub.gate
        gate.dial_over(entry.created_at)
        if error is None:
            return
        entry.sub.counters.errors += 1
        gate.failed(error, now, began_at=entry.created_at, is_servers=is_servers)
        _note_news(entry)
        self._spread(entry, error, awaited_by, now)

    def remember(self, sub: AnySubPool, error: Exception, twin: Exception) -> None:
        """Keep `twin` in place of `error`, which may keep much alive."""
        if sub.gate.last_error is error:
            sub.gate.last_error = twin
        if sub.outage is not None and sub.outage.error is error:
            sub.outage.error = twin

    def lost_early(self, entry: AnyEntry, error: Exception, now: float) -> None:
        """The first lease of `entry` is over: its peer has ended it before its first byte.

        A server that accepts and hangs up is of no more use than one that refuses.
        """
        entry.sub.gate.failed(error, now, began_at=entry.created_at, in_doubt=True)
        _note_news(entry)
        entry.sub.note_rules()
        self._ledger.touch(entry.sub)
        self._spread(entry, error, None, now)

    def was_of_use(self, entry: AnyEntry, now: float) -> None:
        """A lease of `entry` has shown that its server serves, which was in doubt."""
        sub = entry.sub
        sub.gate.proved()
        sub.note_rules()
        self._ledger.touch(sub)

    def _spread(
        self,
        entry: AnyEntry,
        error: Exception,
        awaited_by: AnyWaiter | AnyWarmer | None,
        now: float,
    ) -> None:
        """Tell of the `error` of `entry` who cannot be served in spite of it."""
        sub = entry.sub
        if isinstance(awaited_by, Waiter) and awaited_by.group is not None:
            self._refuse_if_lost(awaited_by, now)  # else it goes on with another member
        elif isinstance(awaited_by, Waiter):
            is_helped = _may_be_helped(sub)
            if awaited_by.fresh or not is_helped:
                self._ledger.refuse(awaited_by, WaitOutcome.DIAL_FAILED, error)
        elif awaited_by is not None:
            self._ledger.end_warming(awaited_by, error)
        since = sub.gate.outage_since
        is_over = since is not None and now - since >= sub.config.outage_grace
        if is_over or sub.gate.is_cut_off(now):
            self.review(sub, now)
        if is_over and not _may_be_helped(sub):
            self._chores.tell(sub, Outage(error, entry.arrivals, list(sub.warmers)), now)

    def review(self, sub: AnySubPool, now: float) -> None:
        """Refuse those who ask for a group with `sub`, and can be served by no member of it."""
        if sub.groups:
            do = partial(self._review_one, sub)
            self._chores.begin(sub, do, [w for w in sub.queue.rows if w.group is not None], now)

    def review_hopeless(self, sub: AnySubPool, now: float) -> None:
        """Do so where the last connection is gone of a group whose circuits let nothing through."""
        if sub.chores or not sub.gate.is_cut_off(now):
            return
        if any(is_hopeless(group.subs, now, fresh=False) for group in sub.groups):
            self.review(sub, now)

    def _review_one(self, sub: AnySubPool, waiter: AnyWaiter, now: float) -> None:
        if not waiter.queued:
            return
        if sub.gate.is_unhealthy and waiter.coming is not None and waiter.coming.sub is sub:
            self._ledger.let_go(waiter)
        self._refuse_if_lost(waiter, now, is_patient=True)

    def _refuse_if_lost(self, waiter: AnyWaiter, now: float, *, is_patient: bool = False) -> None:
        if not is_lost(waiter, now, is_patient=is_patient):
            return
        # Dials under way do not count: they go to members that have failed it before.
        helpers = (sub for sub in waiter.subs if not sub.queue.bars_groups)
        if waiter.fresh or not any(map(is_in_circulation, helpers)):
            waiter.reasons = why_unusable(waiter.subs, now)
            self._ledger.refuse(waiter, WaitOutcome.ALL_FAILED)


def _note_news(entry: AnyEntry) -> None:
    """The dial of `entry` was of no use: that tells those something who came before it began."""
    entry.sub.bad_news = max(entry.sub.bad_news, entry.arrivals)


def _may_be_helped(sub: AnySubPool) -> bool:
    """Whether a connection is lent or checked, or another is dialled, that may serve a waiter."""
    return sub.connecting > sub.void or is_in_circulation(sub)
