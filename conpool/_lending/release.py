"""The end of a lease: given back, discarded, detached, or dropped by its holder.

All of it is synchronous, so none of it can be cancelled: when the call returns, the slot is free,
or on its way to be.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any, final

import trio

from conpool._connection.exchange import CLOSED_STREAM
from conpool._connection.hand_over import end_exchange
from conpool._connection.pooled import PooledLease
from conpool._engine.engine import Engine
from conpool._lending.lease import Connection, end_lease, held_lease
from conpool._lending.peer_check import HealthCheck, PeerCheck
from conpool._values.states import CloseReason, ConnectionState

_ACTIVE = ConnectionState.ACTIVE


@final
class Releaser:
    """Takes the connections of one pool back: the owner of its leases."""

    __slots__ = ("_core", "_engine", "_news", "peer_check")

    def __init__(self, engine: Engine, health_check: HealthCheck | None) -> None:
        self._engine = engine
        self._core = engine.core
        self._news = engine.news
        self.peer_check = PeerCheck(engine, health_check, self)

    def give_back(self, connection: Connection[Any], exc: BaseException | None) -> None:
        """End the lease with `exc`; keep the connection if that is safe."""
        lease = connection._lease  # noqa: SLF001 - `end_lease`, spelled out
        entry = lease.entry
        is_over = connection._exchange is CLOSED_STREAM  # noqa: SLF001
        connection._exchange = CLOSED_STREAM  # noqa: SLF001
        if is_over or lease not in entry.leases:
            return  # it has ended before, or it is a health hook's: `PeerCheck` judges that
        link = entry.link
        exchange = link.exchange
        reason = None
        if entry.state is _ACTIVE:
            if exc is not None or exchange.taints or exchange.in_progress:
                reason = end_exchange(link, exc)
            elif link.poll(0):
                reason = link.probe()
            if entry.doomed and reason is CloseReason.PEER_CLOSED:
                reason = entry.doomed  # the peer had said that it would close
        # `Engine.report`, spelled out.
        now = self._engine.now()
        core, news = self._core, self._news
        if news.released:
            news.add_about(news.released, entry, now - lease.since)
        core.released(lease, reason, now)
        if core.touched or core.effects or news.pending:
            self._engine.perform(now)

    def discard(self, connection: Connection[Any]) -> None:
        """End the lease and close the connection, by force."""
        lease = end_lease(connection)
        if lease is not None:
            self._drop(lease, CloseReason.DISCARDED)

    def detach(self, connection: Connection[Any]) -> trio.abc.Stream:
        """End the lease and hand the stream over."""
        lease = held_lease(connection)
        stream = lease.entry.link.stream
        end_lease(connection)
        self._drop(lease, CloseReason.DETACHED)
        return stream

    def retire(self, connection: Connection[Any]) -> None:
        """Have the connection closed when the lease ends."""
        self._engine.report(self._core.retired, held_lease(connection))

    async def is_healthy(self, connection: Connection[Any]) -> bool:
        """Probe the connection, and ask its peer if there is a way to."""
        return await self.peer_check.is_healthy(connection)

    def dropped(self, lease: PooledLease) -> None:
        """The handle of `lease` was garbage-collected: take the connection back, and complain.

        Garbage is collected at any time, in the midst of a change to the books or in another
        thread, so nothing may be changed here.
        """
        entry = lease.entry
        token = self._engine.token
        assert token is not None  # there was a lease, so the pool has been opened
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(self._drop, lease, CloseReason.DISCARDED)
        if entry.state is not _ACTIVE:
            return  # the pool closed it under its lease: nothing was withheld from anybody
        warnings.warn(
            f"a connection to {entry.sub.endpoint} that task {lease.holder.name!r} acquired"
            " was never released",
            ResourceWarning,
            stacklevel=2,
        )

    def _drop(self, lease: PooledLease, reason: CloseReason) -> None:
        entry = lease.entry
        now = self._engine.now()
        if lease in entry.leases:
            self._news.add_about(self._news.released, entry, now - lease.since)
            self._core.released(lease, reason, now)
        elif entry.state is _ACTIVE:  # a health hook's
            self._core.condemned(entry, reason, now)
        self._engine.perform(now)
