"""Warming: dials that no caller waits for, so that connections are open before somebody needs them.

Two things ask for them: `min_idle_per_endpoint`, as long as the endpoint is in use, and callers of
`warm`, who wait until a number of connections are open. Warming never evicts and never goes before
a waiter. It takes its time where connections are lost as soon as they are open: otherwise a server
that accepts and hangs up, because it is full or refuses our certificate (TLS 1.3 lets it say so
after the handshake), would be dialled as fast as it can hang up.
"""

from __future__ import annotations

from itertools import compress
from operator import attrgetter
from typing import Final, final

from conpool._core.chores import PIECE
from conpool._core.gate import CEILING
from conpool._core.ledger import Ledger
from conpool._core.records import AnyEntry, AnySubPool
from conpool._values.states import CloseReason

SHORT_LIFE: Final = CEILING
"""Lost sooner than this, in seconds, a connection counts as short-lived.

The longest back-off: connections that live longer are redialled no faster than it allows.
"""

_BY_PEER: Final = frozenset(
    {CloseReason.PEER_CLOSED, CloseReason.UNREAD_DATA, CloseReason.UNHEALTHY}
)
"""The reasons of a close that nobody here wanted."""

_target_of = attrgetter("target")


@final
class Warming:
    """Keeps endpoints warm, with slots that nobody else wants."""

    __slots__ = ("_ledger", "_pool_limit")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._pool_limit = ledger.pool_limit

    def warm(self, sub: AnySubPool, now: float) -> None:
        """Start the dials that keep `sub` as warm as somebody asked for."""
        if sub.warmers:
            self._end_warmers(sub, now)
        for _ in range(PIECE):
            if not self._lacks_warmth(sub, now):
                return
            not_before = max(sub.gate.opens_at, sub.warm_not_before)
            if now < not_before:
                self._ledger.timetable.look_at(sub, not_before)
                return
            sub.gate.attempted(now)
            self._delay(sub, now)
            self._ledger.open(sub, next(iter(sub.warmers), None), now)
        self._ledger.rest(sub, now)

    def _end_warmers(self, sub: AnySubPool, now: float) -> None:
        """Tell those of it who have what they wait for. C does the loops over all of them."""
        count = _count_open(sub)
        served = list(sub.warmers)
        if count < sub.limit.total:  # it may have been lowered since: then that is all there can be
            served = list(compress(served, map(count.__ge__, map(_target_of, served))))
        for warmer in served[:PIECE]:
            self._ledger.end_warming(warmer, None)
        if len(served) > PIECE:
            self._ledger.rest(sub, now)

    def lost(self, entry: AnyEntry, reason: CloseReason, now: float) -> None:
        """`entry` is closed for `reason`: if it was new and unused, warming takes its time."""
        is_short_lived = now - entry.created_at < SHORT_LIFE
        if is_short_lived and not entry.uses and reason in _BY_PEER:
            self._delay(entry.sub, now, lost=1)

    def _lacks_warmth(self, sub: AnySubPool, now: float) -> bool:
        coming = sub.count_coming()
        needed = sub.count_needed()
        if needed > coming:
            return False
        if not sub.limit.has_free_slot or sub.connecting >= sub.max_connecting:
            return False
        open_soon = _count_open(sub) + sub.connecting - sub.void
        if open_soon >= max(map(_target_of, sub.warmers), default=0):
            # `min_idle` lapses after `max_idle_time` without an acquire, just when its idle ones
            # expire, so nothing is redialled. While dials fail nobody asks for more of them.
            is_asked_for = now - sub.used_at < sub.max_idle_time and sub.gate.is_trusted
            if not is_asked_for or len(sub.idle) + coming - needed >= sub.min_idle:
                return False
        if self._pool_limit.wanted or not self._pool_limit.limit.has_free_slot:
            self._pool_limit.cold[sub] = None
            return False
        return True

    def _delay(self, sub: AnySubPool, now: float, lost: int = 0) -> None:
        """While connections are lost at once, each attempt delays the next, as after a failure."""
        if now - sub.warm_not_before >= SHORT_LIFE:
            sub.short_lives = 0  # none was lost since then, or dials are slow enough by themselves
        sub.short_lives += lost
        if sub.short_lives:
            sub.warm_not_before = now + sub.gate.draw_delay(sub.short_lives)


def _count_open(sub: AnySubPool) -> int:
    """Return how many connections are open and in use or ready for it."""
    return len(sub.idle) + sub.active
