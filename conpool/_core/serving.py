"""Who gets a connection: one that has come back, or one from the idle stack.

The oldest waiter comes first, with two exceptions. A waiter that wants a `fresh` connection passes
on what was used before. And a waiter of this endpoint goes without, once the first in line for the
pool-wide limit has been overtaken often enough: then the connection is closed to make room.

An idle connection may have died unseen. So the shell looks at it first, on behalf of a waiter, as
it dials on behalf of one: the waiter stays in the queue, and takes whatever comes first.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Protocol, final

from conpool._core.chores import PIECE
from conpool._core.dials import Dials
from conpool._core.keeping import why_lapsed, why_not_kept
from conpool._core.ledger import Ledger
from conpool._core.records import AnyEntry, AnySubPool
from conpool._core.refusing import Refusing
from conpool._core.sharing import Sharing
from conpool._values.states import CloseReason

_UNCLEAN: Final = frozenset({CloseReason.INCOMPLETE, CloseReason.ERROR, CloseReason.CANCELLED})
"""Why a shared connection may be doomed by one of its leases: then it has no goodbye."""


class Openable(Protocol):
    """The pool, as far as it matters here."""

    @property
    def is_open(self) -> bool:
        """Whether it lends; if not, it closes what comes back."""
        ...


@final
class Serving:
    """Gives connections to waiters."""

    __slots__ = ("_dials", "_ledger", "_pool", "_pool_limit", "_refusing", "_sharing")

    def __init__(
        self, ledger: Ledger, dials: Dials, sharing: Sharing, refusing: Refusing, pool: Openable
    ) -> None:
        self._pool = pool
        self._refusing = refusing
        self._sharing = sharing
        self._ledger = ledger
        self._pool_limit = ledger.pool_limit
        self._dials = dials

    def pop_newest(self, sub: AnySubPool, now: float) -> AnyEntry | None:
        """Take the newest idle connection of `sub` that may be lent; close those that have lapsed.

        Those that are checked in the background stay. Once it has closed a piece, it returns None.
        """
        sub.used_at = now
        while sub.idle:
            entry = self._ledger.pop_newest(sub)
            if now < entry.lapses_at:
                return entry
            if entry in sub.reserved:
                return self._pop_beneath(entry, now)
            self._ledger.condemn(entry, why_lapsed(entry, now), gracefully=True)
            if len(self._ledger.effects) >= PIECE:
                break
        return None

    def _pop_beneath(self, entry: AnyEntry, now: float) -> AnyEntry | None:
        """Take the newest below `entry`, which is reserved; put the reserved ones back."""
        sub = entry.sub
        reserved = [entry]
        found: AnyEntry | None = None
        while sub.idle and found is None:
            entry = self._ledger.pop_newest(sub)
            if now < entry.lapses_at:
                found = entry
            elif entry in sub.reserved:
                reserved.append(entry)
            else:
                self._ledger.condemn(entry, why_lapsed(entry, now), gracefully=True)
                if len(self._ledger.effects) >= PIECE:
                    break
        for entry in reversed(reserved):
            self._ledger.push_idle(entry)
        return found

    def pop_known(self, sub: AnySubPool, now: float, affinity: Hashable) -> AnyEntry | None:
        """Take the idle connection that has last served `affinity`, or else the newest."""
        entry = sub.known.get(affinity)
        if entry is None or entry not in sub.idle or now >= entry.lapses_at:
            return self.pop_newest(sub, now)
        sub.used_at = now
        self._ledger.pop_known(entry)
        return entry

    def place(self, entry: AnyEntry, now: float, *, is_used: bool = False) -> None:
        """Lend, keep or close `entry`, which is active, clean and nobody's.

        If `is_used`, what its lease has left behind may have to be cleared first.
        """
        sub = entry.sub
        reason = why_not_kept(entry, now) if self._pool.is_open else CloseReason.POOL_CLOSED
        if reason is not None:
            self._ledger.condemn(entry, reason, gracefully=reason not in _UNCLEAN)
        elif is_used and sub.resets:
            self._ledger.begin_reset(entry)
        else:
            self.lend_or_keep(entry, now)

    def lend_or_keep(self, entry: AnyEntry, now: float) -> None:
        """Lend `entry`, which is active and nobody's, to a waiter, or lay it on the idle stack."""
        sub = entry.sub
        refused = 0
        while sub.waiting and not sub.gate.is_paused:
            queue = sub.queue
            is_used = entry.uses > 0 or entry.was_idle
            is_simple = not (queue.rows or queue.fresh_line)
            # Nearly always it is the first in line.
            waiter = next(iter(queue.line)) if is_simple else queue.find(is_usual=is_used)
            if (
                waiter is not None
                and (waiter.deadline <= now or (queue.codel is not None and is_used))
                and self._refusing.is_turned_away(sub, waiter, now)
            ):
                refused += 1
                if refused < PIECE:
                    continue
                self._ledger.rest(sub, now)  # in the next tick it is looked at again
                break
            if is_used and not is_simple and self._dials.must_make_way(sub, waiter, now):
                self._ledger.condemn(entry, CloseReason.EVICTED, gracefully=True)
                return
            if waiter is not None:
                limit = self._pool_limit
                if limit.wanted:
                    if limit.must_make_way(waiter):
                        self._ledger.condemn(entry, CloseReason.EVICTED, gracefully=True)
                        return
                    limit.was_overtaken(waiter)
                self._ledger.hand_over(waiter, entry)
                if sub.shares:
                    self._sharing.join(entry, now)
                    self._ledger.touch(sub)  # it may have room for others
                return
            break
        if not entry.uses:
            entry.idled_unused = True
        self._ledger.push_idle(entry)
        self._ledger.touch(sub)

    def look_at_idle(self, sub: AnySubPool, now: float) -> bool:
        """Have idle connections looked at for waiters: the newest first, one for each waiter.

        A check whose caller has gone may hang: while others are idle, nobody depends on it. Returns
        False if there are more, which are looked at in the next tick.
        """
        if sub.gate.is_paused:
            return True
        while len(sub.idle) > len(sub.reserved):
            waiter = sub.queue.find(is_usual=True, is_unprovided=True)
            if waiter is None and sub.checking >= sub.queue.count_usual():
                break
            if sub.looks == PIECE:
                sub.looks = 0
                self._ledger.rest(sub, now)
                return False
            if not self._dials.may_serve(sub, waiter, now):
                if waiter is not None and waiter.coming is None:
                    return False
                continue
            sub.looks += 1
            entry = self.pop_newest(sub, now)
            if entry is not None:
                self._ledger.begin_check(entry, waiter)
        return True
