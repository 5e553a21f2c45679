"""The end of a lease: given back, discarded, detached, or dropped by its holder.

All of it is synchronous, so none of it can be cancelled: the slot is free, or on its way to be,
when the call returns. That also holds where the call raises. A probe may fail, memory may be used
up, the caller may be near the recursion limit: the lease then ends by force. If that cannot be done
here, trio's loop does it in a step of its own, or the next sweep (`end_rest`).
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import Any, Final, final

import trio

from conpool._connection.closing import close_now
from conpool._connection.exchange import CLOSED_STREAM, ENDED
from conpool._connection.hand_over import end_exchange
from conpool._connection.link import Link
from conpool._connection.pooled import PooledEntry, PooledLease
from conpool._connection.session import REFUSING
from conpool._core.chores import PIECE
from conpool._core.failures import EARLY
from conpool._core.straight import keep, pass_on
from conpool._engine.engine import Engine
from conpool._engine.room import with_more_room, with_room
from conpool._errors.connect import ConnectError
from conpool._lending.lease import Connection, end_lease, held_lease
from conpool._lending.peer_check import HealthCheck, PeerCheck
from conpool._lending.share import Sharer
from conpool._values.config_error import named
from conpool._values.states import CloseReason, ConnectionState, PoolState

_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE
_OPEN = PoolState.OPEN

# Looking up a member of an enum takes a call, and near the recursion limit there may be none.
_DISCARDED: Final = CloseReason.DISCARDED
_DETACHED: Final = CloseReason.DETACHED
_ERROR: Final = CloseReason.ERROR


@final
class Releaser:
    """Takes the connections of one pool back: the owner of its leases."""

    __slots__ = ("_core", "_engine", "_name", "_news", "_told", "peer_check", "sharer", "unended")

    def __init__(self, engine: Engine, health_check: HealthCheck | None, name: str) -> None:
        self._engine = engine
        self._core = engine.core
        self._news = engine.news
        self._name = name
        self.peer_check = PeerCheck(engine, health_check, self)
        self.sharer = Sharer(engine)
        self._told: PooledLease | None = None
        """The last lease of whose end the observers hear: only once, also if it needs two tries."""
        self.unended: dict[PooledLease, CloseReason] = {}
        """Leases that nobody has any more, and that the books still have; see `end_rest`."""

    # ── strangers ───────────────────────────────────────────────────────────────

    def refuse_other_thread(self) -> None:
        """Raise `RuntimeError` in another thread than the one in which the pool was opened."""
        if self._engine.thread not in (0, get_ident()):
            raise RuntimeError(
                f"pool {self._name} belongs to another thread: from this one, call it through"
                " trio.from_thread.run_sync, or trio.from_thread.run for what awaits"
            )

    def refuse_stranger(self, connection: object) -> None:
        """Raise unless `connection` is a lease of this pool, and this is the pool's own thread."""
        if not isinstance(connection, Connection):
            what = named(connection)
            raise TypeError(f"not a Connection that pool {self._name} lent but {what}")
        if connection._owner is not self:  # noqa: SLF001
            raise ValueError(f"{connection!r} was not lent by pool {self._name}")
        self.refuse_other_thread()

    # ── the ends of a lease ─────────────────────────────────────────────────────

    def release(self, connection: Connection[Any]) -> None:
        """`give_back` without an exception, if `connection` is a lease of this pool."""
        try:
            if connection._owner is not self or self._engine.thread != get_ident():  # noqa: SLF001
                self.refuse_stranger(connection)
        except AttributeError:
            self.refuse_stranger(connection)
        self.give_back(connection, None)

    def give_back(self, connection: Connection[Any], exc: BaseException | None) -> None:
        """End the lease with `exc`; keep the connection if that is safe."""
        lease = connection._lease  # noqa: SLF001 - `end_lease`, spelled out
        entry = lease.entry
        sub = entry.sub
        held: Any = connection._exchange  # noqa: SLF001
        connection._exchange = CLOSED_STREAM  # noqa: SLF001
        try:
            if (
                exc is None
                and sub.is_straight
                and not (held.taints or held.in_progress)
                and entry.state is _ACTIVE
                and self._core.state is _OPEN
                and not entry.link.poll(0)
                and (self._pass_on(lease) if sub.waiting else keep(lease, self._engine.now()))
            ):
                return
            if held is CLOSED_STREAM or lease not in entry.leases:
                return  # it has ended before, or it is a health hook's: `PeerCheck` judges that
            link = entry.link
            exchange = link.exchange
            if entry.state is _ACTIVE and (
                exc is not None or exchange.taints or exchange.in_progress or link.poll(0)
            ):
                if link.rules.shares:
                    reason = self.sharer.why_spoilt(entry, exc)
                else:
                    reason = end_exchange(link, exc)
                if reason is not None:
                    self._close(lease, reason)
                    return
            # `Engine.report`, spelled out.
            now = self._engine.now()
            core, news = self._core, self._news
            if news.released:
                news.add_about(news.released, entry, now - lease.since)
                self._told = lease
            core.released(lease, None, now)
            if core.touched or core.effects or news.pending:
                self._engine.perform(now)
        except BaseException as error:  # noqa: ASYNC103 - raised unless an OSError
            self.unended[lease] = _ERROR  # no call: there may be no room for one
            with_more_room(partial(self._recover, error, lease))
            if not isinstance(error, OSError):
                raise

    def _pass_on(self, lease: PooledLease) -> bool:
        """End `lease`, and wake who gets its connection; false if that is not so simple."""
        waiter = pass_on(lease, self._engine.now(), self._core.timetable)
        if waiter is None:
            return False
        try:
            self._engine.wake(waiter)
        except BaseException:
            self._core.effects.append(waiter)  # whoever ends the lease wakes it, too
            raise
        return True

    def discard(self, connection: Connection[Any]) -> None:
        """End the lease and close the connection, by force."""
        self.refuse_other_thread()
        lease = end_lease(connection)
        if lease is not None:
            self._end(lease, CloseReason.DISCARDED)

    def detach(self, connection: Connection[Any]) -> trio.abc.Stream:
        """End the lease and hand the stream over."""
        self.refuse_other_thread()
        lease = held_lease(connection)
        if lease.entry.link.offered is REFUSING:
            raise RuntimeError("only a connection whose stream is the lease's own can be detached")
        stream = lease.entry.link.stream
        end_lease(connection)
        self._end(lease, _DETACHED)
        return stream

    def retire(self, connection: Connection[Any]) -> None:
        """Have the connection closed when the lease ends."""
        self.refuse_other_thread()
        self._engine.report(self._core.retired, held_lease(connection))

    async def is_healthy(self, connection: Connection[Any]) -> bool:
        """Probe the connection, and ask its peer if there is a way to."""
        self.refuse_other_thread()
        return await self.peer_check.is_healthy(connection)

    def dropped(self, lease: PooledLease) -> None:
        """The handle of `lease` was garbage-collected: take the connection back, and complain.

        Garbage is collected at any time, in the midst of a change to the books or in another
        thread, so nothing may be changed here.
        """
        entry = lease.entry
        self.unended[lease] = _DISCARDED
        self._call_soon()
        if entry.state is not _ACTIVE:
            return  # the pool closed it under its lease: nothing was withheld from anybody
        warnings.warn(
            f"a connection to {entry.sub.endpoint} that task {lease.holder.name!r} acquired"
            " was never released",
            ResourceWarning,
            stacklevel=2,
        )

    # ── when something breaks ───────────────────────────────────────────────────

    def end_rest(self) -> None:
        """End the leases that nobody has any more: dropped ones, and those whose end broke off.

        trio's loop calls this, and the sweep, in case not even a call to the loop was possible. It
        does a piece of the work, and has the loop call it for the next one.
        """
        interrupt: BaseException | None = None
        rest = list(self.unended)
        for lease in rest[:PIECE]:
            reason = self.unended.pop(lease)
            try:
                self._drop(lease, reason)
            except Exception as error:  # noqa: BLE001 - the next sweep tries again
                lease.entry.link.log.failed("%r could not be ended", lease, error=error)
                self.unended[lease] = reason
            except BaseException as error:  # noqa: BLE001, ASYNC103 - an observer's; first the others
                self.unended[lease] = reason
                interrupt = error
        if len(rest) > PIECE and len(self.unended) < len(rest):
            self._call_soon()
        if interrupt is not None:
            raise interrupt

    def _end(self, lease: PooledLease, reason: CloseReason) -> None:
        try:
            self._close(lease, reason)
        except BaseException as error:  # noqa: ASYNC103 - raised unless an OSError
            self.unended[lease] = _DISCARDED
            with_more_room(partial(self._recover, error, lease))
            if reason is _DETACHED or not isinstance(error, OSError):
                raise

    def _recover(self, error: BaseException, lease: PooledLease) -> None:
        """`error` has broken off the end of `lease`: end it now, or in a step of trio's loop."""
        if isinstance(error, OSError):
            lease.entry.link.log.failed("%r could not be ended as usual", lease, error=error)
        try:
            self.end_rest()
        finally:
            if lease.entry.reason is _DETACHED:  # the caller does not get the stream
                stream = lease.entry.link.stream
                self._engine.background.spawn(
                    close_now, stream, lease.entry.link.log, name="conpool close"
                )
            if self.unended:
                self._call_soon()

    def _call_soon(self) -> None:
        with suppress(trio.RunFinishedError):
            self._engine.background.call_soon(self.end_rest)

    def _close(self, lease: PooledLease, reason: CloseReason) -> None:
        """End `lease` and close its connection."""
        if reason is CloseReason.PEER_CLOSED:
            # A peer that said that it would close has not surprised anyone.
            reason = lease.entry.doomed or reason
        with_room(partial(self._drop, lease, reason))

    def _drop(self, lease: PooledLease, reason: CloseReason) -> None:
        """End `lease`, unless that has been done, and do what was left undone."""
        entry = lease.entry
        now = self._engine.time()
        if lease in entry.leases:
            if self._told is not lease:
                self._news.add_about(self._news.released, entry, now - lease.since)
                self._told = lease
            # `Engine.report`, spelled out: up to two reports, then the effects of both.
            self._core.released(lease, reason, now)
            if entry.uses == 1 and now - entry.created_at < EARLY and _was_no_use(entry.link):
                self._core.failures.lost_early(entry, _lost_early(entry), now)
            elif entry.sub.gate.is_in_doubt and entry.link.exchange.has_received:
                self._core.failures.was_of_use(entry, now)
        elif entry.check is lease and (entry.state is _ACTIVE or entry.state is _IDLE):
            self._core.condemned(entry, reason, now)  # a health hook has ended its lease
        self._engine.perform(now)


def _was_no_use(link: Link) -> bool:
    """Whether the peer has ended a connection before its first byte."""
    exchange = link.exchange
    if exchange.has_received:
        return False
    return bool(exchange.taints & ENDED) or link.probe() is CloseReason.PEER_CLOSED


def _lost_early(entry: PooledEntry) -> ConnectError:
    said = "the peer closed the connection before it sent a byte"
    return ConnectError(said, endpoint=entry.sub.endpoint, phase="open")
