"""Attends to connections in the background: resets them, runs beside them, says goodbye.

What a driver does takes an await, so it runs in tasks of the pool's own. Each is bounded: a reset
by `health_check_timeout`, a goodbye and a `cancel` by `close_timeout`, and the companion (`run`) by
the life of its connection. Whatever is under way for a connection ends before the driver is asked
for the last words, so that no two of its methods use one session, but for the companion.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast, final

import trio
from trio.lowlevel import enable_ki_protection

from conpool._connection.closing import close_by_force, close_gracefully
from conpool._connection.hand_over import end_exchange, is_cut_short
from conpool._connection.pooled import PooledEntry
from conpool._connection.session import SessionRules
from conpool._engine.background import Background
from conpool._extend.driver import Driver
from conpool._values.states import CloseReason, ConnectionState

_ACTIVE = ConnectionState.ACTIVE
_IDLE = ConnectionState.IDLE


@final
class Attendant:
    """Runs the awaitable methods of the driver, and closes what only an await can close."""

    def __init__(self, rules: SessionRules, background: Background) -> None:
        self._rules = rules
        self._driver = cast("Driver[Any]", rules.driver)
        self._background = background
        self._under_way: dict[PooledEntry, dict[trio.CancelScope, trio.Event]] = {}
        """What must end before its connection does: the companion, a reset, a check."""

    @contextmanager
    def under_way(self, entry: PooledEntry) -> Generator[None]:
        """Have the block cancelled when `entry` is about to be closed."""
        scope = trio.CancelScope()
        self._begin(entry, scope)
        try:
            with scope:
                yield
        finally:
            self._end(entry, scope)

    def dismiss(self, entry: PooledEntry) -> None:
        """`entry` is about to be closed: end what is under way for it."""
        for scope in self._under_way.get(entry, ()):
            scope.cancel()

    def _begin(self, entry: PooledEntry, scope: trio.CancelScope) -> None:
        self._under_way.setdefault(entry, {})[scope] = trio.Event()

    def _end(self, entry: PooledEntry, scope: trio.CancelScope) -> None:
        others = self._under_way[entry]
        others.pop(scope).set()
        if not others:
            del self._under_way[entry]

    async def _wait_until_alone(self, entry: PooledEntry) -> None:
        for over in list(self._under_way.get(entry, {}).values()):
            await over.wait()

    # ── between leases ──────────────────────────────────────────────────────────

    def start_reset(
        self, entry: PooledEntry, over: Callable[[PooledEntry, CloseReason | None], object]
    ) -> None:
        """Clear what a lease has left behind, then call `over` with why that failed, or None."""
        name = f"conpool reset of {entry.sub.endpoint}"
        self._background.spawn(self._reset, entry, over, name=name)

    @enable_ki_protection
    async def _reset(
        self, entry: PooledEntry, over: Callable[[PooledEntry, CloseReason | None], object]
    ) -> None:
        reason: CloseReason | None = CloseReason.UNHEALTHY  # unless it comes to its end
        timeout = entry.sub.config.health_check_timeout
        try:
            with self.under_way(entry), trio.move_on_after(timeout):
                if entry.state is _ACTIVE:
                    await self._driver.reset(entry.link.session)
                if entry.state is _ACTIVE:
                    reason = end_exchange(entry.link, None)
        except Exception as error:  # noqa: BLE001 - a driver of the user's own may raise anything
            entry.link.log.gone_wrong("the reset of %r failed", entry, error=error)
            reason = CloseReason.ERROR
        finally:
            over(entry, reason)

    # ── beside a connection ─────────────────────────────────────────────────────

    def start_companion(
        self, entry: PooledEntry, ended: Callable[[PooledEntry, CloseReason], object]
    ) -> None:
        """Have the driver's `run` beside `entry`, if it has one; call `ended` when it is over."""
        if entry.link.has_companion:
            scope = trio.CancelScope()
            name = f"conpool companion of {entry.sub.endpoint}"
            self._background.spawn(self._run, entry, scope, ended, name=name)
            self._begin(entry, scope)

    @enable_ki_protection
    async def _run(
        self,
        entry: PooledEntry,
        scope: trio.CancelScope,
        ended: Callable[[PooledEntry, CloseReason], object],
    ) -> None:
        reason = CloseReason.PEER_CLOSED
        try:
            with scope:
                await self._driver.run(entry.link.session)
        except Exception as error:  # noqa: BLE001 - a driver of the user's own may raise anything
            entry.link.log.gone_wrong("the companion of %r failed", entry, error=error)
            reason = CloseReason.ERROR
        finally:
            self._end(entry, scope)
            if not scope.cancel_called:
                entry.link.exchange.break_off()
                ended(entry, reason)

    # ── the end of a connection ─────────────────────────────────────────────────

    def needs_await(self, entry: PooledEntry, gracefully: bool) -> bool:
        """Whether `entry`, which is about to be closed, has something to say first."""
        if gracefully:
            return entry.link.has_goodbye
        return self._rules.cancels and bool(entry.uses) and is_cut_short(entry.link)

    async def close(self, entry: PooledEntry, gracefully: bool) -> None:
        """Close the stream of `entry` after what the driver has to say."""
        link, timeout = entry.link, entry.sub.config.close_timeout
        if not gracefully:
            cancels = self._rules.cancels and bool(entry.uses) and is_cut_short(link)
            stop = partial(self._have_stopped, entry) if cancels else None
            await close_by_force(link.stream, timeout, stop, link.log)
        else:
            goodbye = partial(self._say_goodbye, entry) if self._rules.says_goodbye else None
            await close_gracefully(link.stream, timeout, goodbye, link.log)

    async def _say_goodbye(self, entry: PooledEntry) -> None:
        await self._wait_until_alone(entry)  # the companion would take the reply for its own
        await self._driver.close(entry.link.session)
        entry.link.note_goodbye()

    async def _have_stopped(self, entry: PooledEntry) -> None:
        await self._wait_until_alone(entry)
        await self._driver.cancel(entry.link.session)
