"""Connections that several leases share: who joins which, and when a connection is full.

A driver says how many leases a connection can take, and may change its mind at any time. The
fullest connection that has room is preferred, so that the others may age out. A new one is dialled
only when all are full. A connection that goes away, or that a broken lease has spoilt, takes no new
leases and lives until its last one ends.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Final, final

from conpool._core.chores import PIECE
from conpool._core.dials import Dials
from conpool._core.few import entered, without
from conpool._core.ledger import Ledger
from conpool._core.outgoing import doom
from conpool._core.records import AnyEntry, AnySubPool
from conpool._core.refusing import Refusing
from conpool._values.states import CloseReason, ConnectionState

_ACTIVE: Final = ConnectionState.ACTIVE

_fill_of = attrgetter("holders")


@final
class Sharing:
    """Has leases join connections, and leave them."""

    __slots__ = ("_dials", "_ledger", "_pool_limit", "_refusing")

    def __init__(self, ledger: Ledger, dials: Dials, refusing: Refusing) -> None:
        self._ledger = ledger
        self._refusing = refusing
        self._dials = dials
        self._pool_limit = ledger.pool_limit

    def find_room(self, sub: AnySubPool, now: float) -> AnyEntry | None:
        """Return the fullest connection of `sub` that one more lease may share."""
        while sub.roomy:
            entry = max(sub.roomy, key=_fill_of) if len(sub.roomy) > 1 else next(iter(sub.roomy))
            about_to_begin = entry.holders - len(entry.leases)
            if now < entry.expires_at and entry.uses + about_to_begin < sub.max_uses:
                return entry
            sub.roomy = without(sub.roomy, entry)  # too old for new leases, or used up
        return None

    def join(self, entry: AnyEntry, now: float) -> None:
        """One more holds `entry`, which is active: it was handed over, or its lease begins."""
        entry.holders += 1
        self._note_room(entry)

    def leave(self, entry: AnyEntry, now: float) -> bool:
        """One less holds `entry`; return whether that was the last."""
        entry.holders -= 1
        self._note_room(entry)
        self._ledger.touch(entry.sub)
        return not entry.holders

    def capacity_noted(self, entry: AnyEntry, capacity: int, now: float) -> None:
        """`entry` can take `capacity` leases, those that run included; 0: it goes away."""
        if capacity == entry.capacity:
            return
        entry.capacity = capacity
        if capacity > 0:
            entry.sub.per_dial = min(capacity, entry.sub.max_uses)
        else:
            doom(entry, CloseReason.DISCARDED)
        if entry.state is _ACTIVE:
            self._note_room(entry)
            self._ledger.touch(entry.sub)

    def spoil(self, entry: AnyEntry, reason: CloseReason, now: float) -> None:
        """`entry` takes no new leases, for `reason`."""
        doom(entry, reason)
        self._note_room(entry)

    def fill(self, sub: AnySubPool, now: float) -> bool:
        """Have waiters join connections that have room.

        Returns False if there may be more, which join in the next tick.
        """
        if sub.gate.is_paused:
            return True
        limit = self._pool_limit
        for _ in range(PIECE):
            is_needed = sub.queue.count_usual() > 0
            waiter = sub.queue.find(is_usual=True) if is_needed else None
            entry = None if waiter is None else self.find_room(sub, now)
            if waiter is None or entry is None:
                return True
            if not self._dials.may_serve(sub, waiter, now):
                if waiter.coming is None:
                    return False
                continue
            if self._refusing.is_turned_away(sub, waiter, now):
                continue
            if self._dials.must_make_way(sub, waiter, now) or limit.must_make_way(waiter):
                self.spoil(entry, CloseReason.EVICTED, now)
                limit.draining[entry] = None
                continue
            limit.was_overtaken(waiter)
            self.join(entry, now)
            self._ledger.hand_over(waiter, entry)
        self._ledger.rest(sub, now)
        return False

    def _note_room(self, entry: AnyEntry) -> None:
        sub = entry.sub
        if (
            0 < entry.holders < entry.capacity
            and entry.state is _ACTIVE
            and entry.doomed is None
            and entry.generation == sub.generation
        ):
            sub.roomy = entered(sub.roomy, entry, None)
        else:
            sub.roomy = without(sub.roomy, entry)
