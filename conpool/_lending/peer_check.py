"""Asking the peer of a connection whether it is alive: one way, for callers and for the reaper.

A check takes a round trip. It is due for a connection that was idle for `health_check_after`,
before it is lent, and, with `health_check_interval`, for an idle one in the background. It is
bounded in time, and whatever it leaves behind on the connection is judged like the end of a lease.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, final

import trio
from trio.lowlevel import checkpoint, current_task

from conpool._connection.hand_over import end_exchange
from conpool._connection.pooled import PooledEntry
from conpool._engine.engine import Engine
from conpool._lending.lease import Connection, Owner, end_lease, held_lease
from conpool._values.states import CloseReason, ConnectionState

HealthCheck: TypeAlias = Callable[[Connection[Any]], Awaitable[bool]]

_log: Final = logging.getLogger("conpool")


@final
class PeerCheck:
    """Knows how the peers of one pool are asked, and when that is due."""

    def __init__(self, engine: Engine, hook: HealthCheck | None, owner: Owner) -> None:
        self._engine = engine
        self._hook = hook
        self._owner = owner
        self.is_set = hook is not None
        """False: no check is ever due."""

    def is_due(self, entry: PooledEntry, now: float) -> bool:
        """Whether `entry`, which a caller has got, must be checked before it is lent."""
        idle_time = now - entry.idle_since
        return self.is_set and entry.was_idle and idle_time >= entry.sub.config.health_check_after

    def is_due_in_background(self, entry: PooledEntry, now: float) -> bool:
        """Whether `entry`, which is idle, has been silent for `health_check_interval`."""
        silence = now - max(entry.idle_since, entry.checked_at)
        return self.is_set and silence >= entry.sub.config.health_check_interval

    async def run(self, entry: PooledEntry, timeout: float) -> CloseReason | None:
        """Have the peer of `entry`, which nobody holds, asked; return why it cannot be lent.

        The lease that the hook gets ends with the check: a hook that keeps it keeps nothing. If
        cancelled, the check counts as cut short, and the caller must judge the connection.
        """
        core, now = self._engine.core, self._engine.now()
        lease: Connection[Any] = Connection(
            self._owner, core.check_began(entry, current_task(), now)
        )
        try:
            healthy = await self._ask(lease, timeout)
        finally:
            end_lease(lease)
            core.check_ended(entry, now)
        if entry.state is not ConnectionState.ACTIVE:
            return None  # closed meanwhile, and so no longer anyone's concern
        return end_exchange(entry.link, None) if healthy else CloseReason.UNHEALTHY

    async def is_healthy(self, connection: Connection[Any]) -> bool:
        """Probe a lent connection, and ask its peer if there is a way to."""
        entry = held_lease(connection).entry
        exchange = entry.link.exchange
        if exchange.in_progress:
            raise trio.BusyResourceError(f"{connection!r} is being read from or written to")
        if entry.state is not ConnectionState.ACTIVE:
            await checkpoint()  # its file is closed, and the number may be somebody else's by now
            return False
        if entry.link.probe() is not None:
            exchange.note_cut_receive()
            await checkpoint()
            return False
        if self._hook is None:
            await checkpoint()
            return True
        return await self._ask(connection, entry.sub.config.health_check_timeout)

    async def _ask(self, lease: Connection[Any], timeout: float) -> bool:
        """Return what the hook says of the connection; false if it raises or takes too long."""
        assert self._hook is not None
        with trio.move_on_after(timeout):
            try:
                return bool(await self._hook(lease))
            except Exception:  # noqa: BLE001 - a hook may raise anything, and all of it means "no"
                _log.debug("health check of %r failed", lease, exc_info=True)
        return False
