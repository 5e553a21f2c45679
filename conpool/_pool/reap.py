"""What must happen with no traffic at all: connections age, peers close, endpoints are forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import enable_ki_protection

from conpool._lending.lease import Connection
from conpool._lending.peer_check import check
from conpool._pool.follow import Follower
from conpool._values.states import CloseReason, ConnectionState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from conpool._core.records import Entry
    from conpool._engine.engine import Engine
    from conpool._extend.connector import Connector
    from conpool._lending.acquire import Lender
    from conpool._lending.peer_check import HealthCheck
    from conpool._values.config import PoolConfig

_BATCH = 500
"""Connections or endpoints inspected between two checkpoints: a few milliseconds' worth at the most."""


@final
class Maintenance:
    """The pool's reaper: looks at every idle connection once in `reap_interval` seconds."""

    __slots__ = ("_config", "_core", "_engine", "_follower", "_health_check", "_lender")

    def __init__(
        self,
        engine: Engine,
        lender: Lender,
        config: PoolConfig,
        connector: Connector,
        health_check: HealthCheck | None,
    ) -> None:
        self._engine = engine
        self._core = engine.core
        self._lender = lender
        self._config = config
        self._follower = Follower(engine, connector, config.reap_interval)
        self._health_check = health_check

    @property
    def jobs(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What must run while the pool is open."""
        return self.reap, self.watch, self._follower.follow

    @enable_ki_protection
    async def reap(self) -> None:
        """Sweep for as long as the pool is open."""
        while True:
            await trio.sleep(self._config.reap_interval)
            await self.sweep()

    @enable_ki_protection
    async def watch(self) -> None:
        """Close idle connections as soon as their peer has, for as long as the pool is open."""
        while True:
            for entry in await self._engine.watch.wait():
                if entry.state is ConnectionState.IDLE:
                    self._core.inspected(entry, entry.link.probe(), self._engine.now())
            self._engine.perform()

    async def sweep(self) -> None:
        """Inspect all idle connections and all endpoints once."""
        done = 0
        dropped = False
        for sub in list(self._core.subs.values()):
            for entry in list(sub.idle):
                if entry.state is ConnectionState.IDLE:
                    self._inspect(entry, self._engine.now())
                done += 1
                if done % _BATCH == 0:
                    self._engine.perform()
                    await trio.lowlevel.checkpoint()
            dropped |= self._core.swept(sub, self._engine.now())
            done += 1
            if done % _BATCH == 0:
                self._engine.perform()
                await trio.lowlevel.checkpoint()
        if dropped:
            self._core.timetable.tidy()
        self._engine.perform()

    def _inspect(self, entry: Entry, now: float) -> None:
        self._core.inspected(entry, entry.link.probe(), now)
        if entry.state is not ConnectionState.IDLE or self._health_check is None:
            return
        unheard_since = max(entry.idle_since, entry.checked_at)
        if now - unheard_since >= entry.sub.config.health_check_interval:
            self._core.reserved(entry, now)
            self._engine.spawn(
                self._check,
                entry,
                self._health_check,
                name=f"conpool check of {entry.sub.endpoint}",
            )

    @enable_ki_protection
    async def _check(self, entry: Entry, hook: HealthCheck) -> None:
        timeout = entry.sub.config.health_check_timeout
        lease: Connection[Any] = Connection(self._lender, entry)
        reason: CloseReason | None = CloseReason.POOL_CLOSED  # unless the check comes to its end
        try:
            reason = await check(lease, entry, hook, timeout)
        finally:
            if entry.state is ConnectionState.ACTIVE:
                now = self._engine.now()
                if reason is None:
                    self._core.given_back(entry, now, unused=True)
                else:
                    self._core.condemned(entry, reason, now)
                self._engine.perform()
