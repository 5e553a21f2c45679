"""What must happen with no traffic: connections age, peers close, endpoints are forgotten."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio
from trio.lowlevel import enable_ki_protection

from conpool._connection.pooled import PooledEntry, PooledSub
from conpool._engine.engine import Engine
from conpool._lending.release import Releaser
from conpool._values.states import CloseReason, ConnectionState

_IDLE = ConnectionState.IDLE

_BATCH: Final = 100
"""Connections or endpoints inspected between two checkpoints: about a millisecond's worth."""

_CHECKS_AT_A_TIME: Final = 2
"""Connections of one endpoint that are checked in the background, and so cannot be lent."""


@final
class Reaper:
    """Looks at every idle connection each `interval` seconds, and at once if its peer closes it."""

    def __init__(self, engine: Engine, releaser: Releaser, interval: float) -> None:
        self._engine = engine
        self._core = engine.core
        self._releaser = releaser
        self._peer_check = releaser.peer_check
        self._interval = interval
        self._being_checked: dict[PooledSub, int] = {}
        """How many tasks check the idle connections of an endpoint."""

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
                self._inspect(entry)

    def _inspect(self, entry: PooledEntry) -> None:
        """Probe `entry` if it is idle, and report what was found."""
        if entry.state is not _IDLE or entry in entry.sub.reserved:
            return
        try:
            reason = entry.link.probe()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others must be looked at
            entry.link.log.failed("%r cannot be probed, and is closed", entry.link, error=error)
            reason = CloseReason.ERROR
        self._engine.report(self._core.inspected, entry, reason)

    async def sweep(self) -> None:
        """Inspect all idle connections and all endpoints once."""
        self._releaser.end_rest()
        self._engine.perform_undone()
        left = _BATCH
        # Each is let go of when it has been looked at: to free thousands at once takes long.
        subs = deque(self._core.subs.values())
        while subs:
            sub = subs.popleft()
            if sub.shares:
                self._releaser.sharer.ask_all(sub, self._engine.now())
            self._engine.report(self._core.swept, sub)
            due: deque[PooledEntry] = deque()
            entries: deque[PooledEntry | None] = deque((None, *sub.idle))
            while entries:
                entry = entries.popleft()
                if entry is not None and entry.state is _IDLE and entry not in sub.reserved:
                    self._inspect(entry)
                    if self._peer_check.is_due_in_background(entry, self._engine.now()):
                        due.append(entry)
                left -= 1
                if not left:
                    left = _BATCH
                    await trio.lowlevel.checkpoint()
            if due and sub not in self._being_checked:
                self._start_checks(sub, due)

    def _start_checks(self, sub: PooledSub, due: deque[PooledEntry]) -> None:
        """Have the peers of `due` asked, a few at a time: the others may be lent meanwhile."""
        count = max(1, min(_CHECKS_AT_A_TIME, len(sub.idle) // 2))
        for _ in range(count):
            name = f"conpool check of {sub.endpoint}"
            self._engine.background.spawn(self._check_all, sub, due, name=name)
            self._being_checked[sub] = self._being_checked.get(sub, 0) + 1

    @enable_ki_protection
    async def _check_all(self, sub: PooledSub, due: deque[PooledEntry]) -> None:
        try:
            while due:
                entry = due.popleft()
                is_free = entry.state is _IDLE and entry not in sub.reserved
                if is_free and self._peer_check.is_due_in_background(entry, self._engine.now()):
                    self._engine.report(self._core.checks.reserved, entry)
                    await self._peer_check.check(entry)
        finally:
            self._being_checked[sub] -= 1
            if not self._being_checked[sub]:
                del self._being_checked[sub]
