"""Asking the peer of a connection whether it is alive: one way, for callers and for the reaper.

A check takes a round trip. It is due for a connection that has been silent, neither used nor
checked, for `health_check_after` (before it is lent) or `health_check_interval` (in the
background). It is bounded in time, and whatever it leaves behind on the connection is judged like
the end of a lease.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast, final

import trio
from trio.lowlevel import checkpoint, current_task, enable_ki_protection

from conpool._connection.hand_over import end_exchange
from conpool._connection.pooled import PooledEntry
from conpool._core.keeping import silent_since
from conpool._engine.engine import Engine
from conpool._extend.driver import Driver
from conpool._lending.lease import Connection, Owner, end_lease, held_lease
from conpool._values.states import CloseReason, ConnectionState

HealthCheck: TypeAlias = Callable[[Connection[Any]], Awaitable[bool]]

_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE


@final
class PeerCheck:
    """Knows how the peers of one pool are asked, and when that is due."""

    def __init__(self, engine: Engine, hook: HealthCheck | None, owner: Owner) -> None:
        self._engine = engine
        self._hook = hook
        self._owner = owner
        engine.ask_peer = self.check
        self.is_set = hook is not None or engine.rules.checks
        """False: no check is ever due."""

    def is_due_in_background(self, entry: PooledEntry, now: float) -> bool:
        """Whether `entry`, which is idle, has been silent for `health_check_interval`."""
        interval = entry.sub.config.health_check_interval
        return self.is_set and now - silent_since(entry) >= interval

    @enable_ki_protection
    async def check(self, entry: PooledEntry) -> None:
        """Have the peer of `entry`, which nobody holds, asked, and report what came of it.

        It runs in the background, and no caller's deadline cuts it short. The lease that the hook
        gets ends with the check: a hook that keeps it keeps nothing.
        """
        core, engine = self._engine.core, self._engine
        lease: Connection[Any] | None = None
        reason: CloseReason | None = CloseReason.POOL_CLOSED  # unless the check comes to its end
        try:
            began = core.checks.began(entry, current_task(), engine.now())
            lease = Connection(self._owner, began)
            with engine.attendant.under_way(entry):
                timeout = entry.sub.config.health_check_timeout
                # Something may have come since the connection was chosen, a tick ago.
                unasked = entry.link.probe() if _is_open(entry) else None
                if unasked is not None:
                    reason = unasked
                elif _is_open(entry) and not await self._ask(lease, timeout):
                    reason = CloseReason.UNHEALTHY
                elif _is_open(entry):
                    reason = end_exchange(entry.link, None)
                    core.checks.answered(entry, engine.now())
        except Exception:
            reason = CloseReason.ERROR
            raise
        finally:
            if lease is not None:
                end_lease(lease)
            engine.report(core.checked, entry, reason)

    async def is_healthy(self, connection: Connection[Any]) -> bool:
        """Probe a lent connection, and ask its peer if there is a way to."""
        entry = held_lease(connection).entry
        exchange = entry.link.exchange
        if exchange.in_progress > entry.link.has_companion and entry.capacity <= 1:
            raise trio.BusyResourceError(f"{connection!r} is being read from or written to")
        if not _is_open(entry):
            await checkpoint()  # its file is closed, and the number may be somebody else's by now
            return False
        if entry.capacity <= 1 and entry.link.probe() is not None:
            exchange.note_cut_receive()
            await checkpoint()
            return False
        if not self.is_set:
            await checkpoint()
            return True
        return await self._ask(connection, entry.sub.config.health_check_timeout)

    async def _ask(self, lease: Connection[Any], timeout: float) -> bool:
        """Return what hook and driver say of the connection; false if one raises or is too slow."""
        rules, log = self._engine.rules, self._engine.log.about(lease.endpoint)
        try:
            with trio.move_on_after(timeout) as scope:
                if self._hook is not None and not await self._hook(lease):
                    return False
                if rules.checks:
                    return bool(await cast("Driver[Any]", rules.driver).check(lease.session))
                return True
            if scope.cancelled_caught:
                log.note("the health check of %r took longer than %g s", lease, timeout)
        except Exception as error:  # noqa: BLE001 - they may raise anything: it means "no"
            log.gone_wrong("the health check of %r failed", lease, error=error)
        return False


def _is_open(entry: PooledEntry) -> bool:
    return entry.state is _IDLE or entry.state is _ACTIVE
