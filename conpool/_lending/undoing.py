"""An acquire that comes to nothing: what was taken goes back, and the failure is counted."""

from __future__ import annotations

from functools import partial
from typing import Final, final

import trio

from conpool._connection.pooled import PooledEntry, PooledSub, PooledWaiter
from conpool._engine.engine import Engine
from conpool._engine.room import with_room
from conpool._errors.pool import AcquireTimeout
from conpool._lending.release import Releaser
from conpool._values.states import CloseReason, ConnectionState, PoolState

_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE
_OPEN = PoolState.OPEN
_HARMLESS: Final = (trio.Cancelled, KeyboardInterrupt, RecursionError, MemoryError)
"""After these a connection is as good as before."""


@final
class Undoing:
    """Undoes the acquires of one pool."""

    __slots__ = ("_core", "_engine", "_news", "_releaser")

    def __init__(self, engine: Engine, releaser: Releaser) -> None:
        self._engine = engine
        self._releaser = releaser
        self._core = engine.core
        self._news = engine.news

    def undo_hit(
        self, sub: PooledSub, entry: PooledEntry | None, exc: BaseException, since: float
    ) -> None:
        """`exc` has broken off the straight line after `entry` was taken, at `since`."""
        if entry is not None and entry.leases:  # its lease has begun, and nobody has it
            self._releaser.unended |= dict.fromkeys(entry.leases, CloseReason.ERROR)
            with_room(self._releaser.end_rest)
            return
        is_usual = type(exc) in _HARMLESS and self._core.state is _OPEN and sub.is_straight
        if is_usual and entry and entry.state is _ACTIVE and entry.doomed is None:
            # As it was before, without a call: there may be no room on the stack for one.
            sub.idle[entry] = None
            entry.state = _IDLE
            self._core.touched[sub] = None
            entry = None
        with_room(partial(self.roll_back, sub, None, entry, exc, since))

    def undo_wait(
        self, sub: PooledSub, waiter: PooledWaiter, exc: BaseException, since: float
    ) -> None:
        """`exc` has broken off a straight wait that began at `since`."""
        is_usual = type(exc) is trio.Cancelled and not waiter.queued and waiter.entry is None
        if is_usual and waiter.task is not None and not self._news.acquire_failed:
            # It was cancelled in its sleep, and has left the queue: there is nothing to put back.
            try:
                waited = self._engine.now() - since
                sub.counters.note_wait(waited)
                sub.counters.acquire_cancelled += 1
                return
            except Exception:  # noqa: BLE001, S110 - the general way counts it, with more room
                pass
        with_room(partial(self.roll_back, sub, waiter, None, exc, since))

    def roll_back(
        self,
        sub: PooledSub,
        waiter: PooledWaiter | None,
        entry: PooledEntry | None,
        exc: BaseException,
        since: float,
    ) -> None:
        """Leave nothing of an acquire that has failed with `exc`, and tell the observers."""
        if waiter is not None:
            entry = waiter.entry
            if waiter.queued:  # it has not slept, so nobody has taken it out
                self._engine.report_quietly(self._core.withdrawn, waiter)
        if entry is not None:
            self.put_back(entry)
        now = since  # unless the clock tells
        try:
            now = self._engine.time()
        finally:
            self._news.add(self._news.acquire_failed, sub.endpoint, exc, now - since)
            self._count_failed(sub, waiter, exc, now - since, now)

    def _count_failed(
        self,
        sub: PooledSub,
        waiter: PooledWaiter | None,
        exc: BaseException,
        waited: float,
        now: float,
    ) -> None:
        counters = sub.counters
        try:
            if isinstance(exc, AcquireTimeout):
                counters.acquire_timeouts += 1
            elif isinstance(exc, trio.Cancelled):
                counters.acquire_cancelled += 1
            has_queued = waiter is not None and waiter.task is not None
            if isinstance(exc, AcquireTimeout) or has_queued:
                counters.note_wait(waited)  # it has waited in vain
        finally:
            self._engine.perform(now)

    def put_back(self, entry: PooledEntry) -> None:
        """Give back a connection that was taken and not lent."""
        reason: CloseReason | None = CloseReason.ERROR  # unless the probe has an answer
        try:
            is_its_own = entry.state is _ACTIVE and entry.holders <= 1
            reason = entry.link.probe() if is_its_own else None
        finally:
            self._engine.report(self._core.returned_unused, entry, reason)

    def keep(self, entry: PooledEntry) -> None:
        """Let a connection that was taken, and cannot be lent now, idle on, or be closed."""
        self._engine.report(self._core.returned_unused, entry, None)
