"""What must happen with no traffic: connections age, peers close, endpoints are forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final

import trio
from trio.lowlevel import enable_ki_protection

from conpool._connection.pooled import PooledEntry
from conpool._engine.engine import Engine
from conpool._lending.release import Releaser
from conpool._values.states import CloseReason, ConnectionState

_BATCH: Final = 500
"""Connections or endpoints inspected between two checkpoints: a few milliseconds' worth."""


@final
class Reaper:
    """Looks at every idle connection each `interval` seconds, and at once if its peer closes it."""

    def __init__(self, engine: Engine, releaser: Releaser, interval: float) -> None:
        self._engine = engine
        self._core = engine.core
        self._releaser = releaser
        self._peer_check = releaser.peer_check
        self._interval = interval

    @property
    def jobs(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What must run while the pool is open."""
        return self.reap, self.watch

    @enable_ki_protection
    async def reap(self) -> None:
        """Sweep for as long as the pool is open."""
        while True:
            await trio.sleep(self._interval)
            await self.sweep()

    @enable_ki_protection
    async def watch(self) -> None:
        """Close idle connections as soon as their peer has, for as long as the pool is open."""
        while True:
            for entry in await self._engine.watch.wait():
                if entry.state is ConnectionState.IDLE:
                    self._engine.report(self._core.inspected, entry, entry.link.probe())

    async def sweep(self) -> None:
        """Inspect all idle connections and all endpoints once."""
        self._releaser.end_rest()
        done = 0
        dropped = False
        for sub in list(self._core.subs.values()):
            dropped |= self._engine.report(self._core.swept, sub)
            for entry in (None, *sub.idle):
                if entry is not None and entry.state is ConnectionState.IDLE:
                    self._inspect(entry)
                done += 1
                if done % _BATCH == 0:
                    await trio.lowlevel.checkpoint()
        if dropped:
            self._core.timetable.tidy()

    def _inspect(self, entry: PooledEntry) -> None:
        self._engine.report(self._core.inspected, entry, entry.link.probe())
        is_idle = entry.state is ConnectionState.IDLE
        if is_idle and self._peer_check.is_due_in_background(entry, self._engine.now()):
            self._engine.report(self._core.reserved, entry)
            self._engine.background.spawn(
                self._check, entry, name=f"conpool check of {entry.sub.endpoint}"
            )

    @enable_ki_protection
    async def _check(self, entry: PooledEntry) -> None:
        timeout = entry.sub.config.health_check_timeout
        reason: CloseReason | None = CloseReason.POOL_CLOSED  # unless the check comes to its end
        try:
            reason = await self._peer_check.run(entry, timeout)
        finally:
            self._engine.report(self._core.returned_unused, entry, reason)
