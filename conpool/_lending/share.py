"""Leases that share a connection: the driver says how many there may be, and whether one is sound.

A connection is asked for its capacity whenever it matters: before a lease joins it, when a lease
ends, and in the sweep. The peer may have changed it since.
"""

from __future__ import annotations

from itertools import islice
from typing import Final, final

from conpool._connection.exchange import CUT_SEND, JUDGED
from conpool._connection.hand_over import end_exchange
from conpool._connection.pooled import PooledEntry, PooledSub
from conpool._connection.session import REFUSING
from conpool._engine.engine import Engine
from conpool._values.states import CloseReason, ConnectionState

_MOST_ASKED: Final = 16
"""Connections asked for one caller, if all are full; the sweep asks them all."""


@final
class Sharer:
    """Has leases join and leave the shared connections of one pool."""

    def __init__(self, engine: Engine) -> None:
        self._rules = engine.rules
        self._engine = engine
        self._sharing = engine.core.sharing
        if self._rules.shares:
            engine.dialler.on_opened = self._note_opened

    def note_capacity(self, entry: PooledEntry, now: float) -> int:
        """Ask the driver how many leases `entry` can take now, and tell the core."""
        link = entry.link
        capacity = self._rules.capacity(link.session, link.log)
        if capacity > 1:
            link.offered = REFUSING  # several can share a session, but no stream
        self._sharing.capacity_noted(entry, capacity, now)
        return capacity

    def _note_opened(self, entry: PooledEntry) -> None:
        if not self.note_capacity(entry, self._engine.now()):
            raise ConnectionError("the new connection takes no leases: its capacity() is 0")

    def join(self, sub: PooledSub, now: float) -> PooledEntry | None:
        """Hold the fullest connection of `sub` that has room; None if none has any."""
        if not sub.roomy:
            self.ask_all(sub, now, _MOST_ASKED)
        while (entry := self._sharing.find_room(sub, now)) is not None:
            if entry.holders < self.note_capacity(entry, now):
                self._sharing.join(entry, now)
                return entry
        return None

    def ask_all(self, sub: PooledSub, now: float, most: int | None = None) -> None:
        """Find out which of the lent connections of `sub`, of `most` at most, have room now."""
        for entry in islice(sub.limit.borrowers, most):
            if entry.holders:
                self.note_capacity(entry, now)

    def begin(self, entry: PooledEntry, now: float) -> bool:
        """Be the first to hold `entry`, which was idle; false if it takes no leases any more."""
        is_welcome = self.note_capacity(entry, now) > 0
        self._sharing.join(entry, now)
        return is_welcome

    def has_room(self, entry: PooledEntry, now: float) -> bool:
        """Whether `entry`, which was handed over, still has the room that it had."""
        has_room = entry.holders <= self.note_capacity(entry, now)
        self._engine.perform(now)  # it may have room for others, too
        is_current = entry.generation == entry.sub.generation  # an observer may have cleared it
        return has_room and is_current and entry.state is ConnectionState.ACTIVE

    def why_spoilt(self, entry: PooledEntry, exc: BaseException | None) -> CloseReason | None:
        """Return why `entry` takes no new leases, now that one of them has ended with `exc`.

        While several can share it, an exception is the concern of its own lease only.
        """
        link = entry.link
        self.note_capacity(entry, self._engine.now())
        if entry.capacity <= 1 and entry.holders <= 1:
            return end_exchange(link, exc)
        if link.exchange.taints & CUT_SEND:
            return CloseReason.INCOMPLETE
        if link.exchange.taints & JUDGED and not self._rules.is_clean(link.session, link.log):
            return CloseReason.INCOMPLETE
        return None
