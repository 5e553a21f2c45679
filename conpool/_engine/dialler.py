"""Dials for the core: opens what it has decided to open, or gives it up, and reports the end.

Each dial is a task of the background in a cancel scope of its own. However it ends, it is reported:
as dialled, as failed, or, where the pool has ended it, as failed without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar, TypeVarTuple, final

import trio
from trio.lowlevel import Task, enable_ki_protection

from conpool._connection.closing import close_now
from conpool._connection.idle_watch import IdleWatch
from conpool._connection.link import Link
from conpool._connection.pooled import PooledCore, PooledEntry
from conpool._connection.session import SessionRules
from conpool._core.chores import PIECE
from conpool._core.effects import Dial, GiveUp
from conpool._dial.dial import given_up, open_link
from conpool._engine.attendant import Attendant
from conpool._engine.background import Background
from conpool._engine.insist import insist
from conpool._engine.news import News
from conpool._errors.blame import is_servers
from conpool._errors.connect import ConnectError
from conpool._errors.copies import without_traceback
from conpool._errors.explain import as_connect_error
from conpool._errors.pool import PoolClosed
from conpool._errors.pool_log import PoolLog
from conpool._extend.connector import Connector
from conpool._stats.report import duration
from conpool._values.states import CloseReason, ConnectionState

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


class Host(Protocol):
    """The engine, as far as dials need it."""

    attendant: Attendant
    background: Background
    core: PooledCore
    log: PoolLog
    news: News
    rules: SessionRules
    some_closed: trio.lowlevel.ParkingLot
    watch: IdleWatch

    def report(self, happened: Callable[[*Ts, float], R], *args: *Ts) -> R:
        """Report to the core what has `happened`, and do what it decides."""
        ...

    def perform(self, now: float) -> None:
        """Do all that the core decides now."""
        ...

    def time(self) -> float:
        """Return the time."""
        ...

    def stop_serving(self) -> None:
        """Serve nobody any more."""
        ...


@final
class Dialler:
    """The dials of one pool."""

    def __init__(self, host: Host, connector: Connector) -> None:
        self._host = host
        self._connector = connector
        self.on_opened: Callable[[PooledEntry], object] = _do_nothing
        """Called with a connection that is open, before the core hears of it."""
        self._scopes: dict[PooledEntry, trio.CancelScope | None] = {}
        self._unneeded: list[trio.CancelScope] = []
        """Those of dials that the end of the pool has yet to give up."""

    def start(self, effect: Dial[Link, Task]) -> None:
        """Begin a dial."""
        entry = effect.entry
        if entry not in self._scopes:  # else it is tried again, and this was told
            self._host.news.add_about(self._host.news.connecting, entry)
            self._scopes[entry] = None
        scope = self._scopes[entry] = self._scopes[entry] or trio.CancelScope()
        name = f"conpool dial to {entry.sub.endpoint}"
        self._host.background.spawn(self._dial, entry, scope, name=name)

    def give_up(self, effect: GiveUp[Link, Task]) -> None:
        """End a dial that nobody needs."""
        scope = self._scopes.get(effect.entry)
        if scope is not None:
            scope.cancel()

    def do_without(self, entry: PooledEntry, error: Exception) -> None:
        """The dial of `entry` could not even begin."""
        self._scopes.pop(entry, None)
        failed = as_connect_error(error, entry.sub.endpoint, "tcp", ())
        self._report_failed(entry, failed, entry.created_at)

    # ── the end of the pool ─────────────────────────────────────────────────────

    def begin_to_end(self) -> None:
        """Give up all dials: a piece of them now, the others with `go_on_ending`."""
        self._unneeded = [scope for scope in self._scopes.values() if scope is not None]
        self.go_on_ending()

    def go_on_ending(self) -> bool:
        """Give up the next piece; return whether that was the last."""
        piece, self._unneeded = self._unneeded[:PIECE], self._unneeded[PIECE:]
        for scope in piece:
            insist(scope.cancel, self._host.log)
        return not self._unneeded

    # ── one dial ────────────────────────────────────────────────────────────────

    @enable_ki_protection
    async def _dial(self, entry: PooledEntry, scope: trio.CancelScope) -> None:
        started = entry.created_at
        try:
            error = await self._open(entry, scope)
        except BaseException:
            try:
                # If the pool is not closing, its background is dying.
                self._host.stop_serving()
            finally:
                self._report_failed(entry, None, started)
            raise
        finally:
            del self._scopes[entry]
        if error is not None or scope.cancelled_caught:
            self._report_failed(entry, error, started)
        else:
            await self._report_dialled(entry, started)

    async def _open(self, entry: PooledEntry, scope: trio.CancelScope) -> ConnectError | None:
        endpoint, timeout = entry.sub.endpoint, entry.sub.config.connect_timeout
        try:
            with scope:
                rules = self._host.rules
                entry.link = await open_link(self._connector, endpoint, timeout, rules)
                await self._note_opened(entry)
        except Exception as exc:  # noqa: BLE001 - a `ConnectError`, unless the watch has failed
            return insist(partial(as_connect_error, exc, endpoint, "open", ()), self._host.log)
        return None

    async def _note_opened(self, entry: PooledEntry) -> None:
        """The transport is open, and the pool's own."""
        try:
            entry.address = entry.link.peer_ip
            self._host.attendant.start_companion(entry, self._end_companion)
            self.on_opened(entry)
            self._host.watch.add(entry)
        except BaseException:
            self._host.attendant.dismiss(entry)
            await close_now(entry.link.stream, entry.link.log)  # noqa: ASYNC102 - shields and bounds itself
            raise

    def _end_companion(self, entry: PooledEntry, reason: CloseReason) -> None:
        """The driver's `run` for `entry` is over, though nobody has ended it."""
        if entry.state is ConnectionState.IDLE or entry.state is ConnectionState.ACTIVE:
            self._host.report(self._host.core.condemned, entry, reason)

    async def _report_dialled(self, entry: PooledEntry, started: float) -> None:
        gate = entry.sub.gate
        since = gate.outage_since
        try:
            self._host.report(self._note_dialled, entry, started)
        except BaseException:
            if entry.state is ConnectionState.CONNECTING:  # it has not been reported
                self._host.watch.remove(entry)
                self._host.attendant.dismiss(entry)
                await close_now(entry.link.stream, entry.link.log)  # noqa: ASYNC102 - shields and bounds itself
                self._report_failed(entry, None, started)
            raise
        if since is not None and gate.outage_since is None:
            lasted = duration(self._host.time() - since)
            entry.link.log.note("dials succeed again: for %s none did", lasted)

    def _note_dialled(self, entry: PooledEntry, started: float, now: float) -> None:
        news = self._host.news
        news.add_about(news.connected, entry, now - started)
        self._host.core.dialled(entry, now)

    def _report_failed(
        self, entry: PooledEntry, error: ConnectError | None, started: float
    ) -> None:
        """Report that the dial of `entry` has failed with `error`; None: the pool has ended it."""
        host = self._host
        failures = host.core.failures
        told: Exception | None = error
        if told is None and host.core.is_open:
            told = given_up(entry.sub.endpoint)
        elif told is None:
            told = PoolClosed("the pool closed during the dial")
        now = host.time()
        host.news.add_about(host.news.connect_failed, entry, told, now - started)
        blames_server = True
        try:
            if error is not None:
                self._log_failed(entry, error)
                blames_server = is_servers(error)
        finally:
            failures.dial_failed(entry, error, now, is_servers=blames_server)
            try:
                insist(host.some_closed.unpark_all, host.log)
            finally:
                host.perform(now)
        if error is not None:
            failures.remember(entry.sub, error, without_traceback(error))

    def _log_failed(self, entry: PooledEntry, error: ConnectError) -> None:
        """Log a failed dial: as a warning if nobody waits for it, the first time in an outage."""
        awaited_by = entry.awaited_by
        is_first = entry.sub.gate.outage_since is None
        log = self._host.log.about(entry.sub.endpoint)
        said = str(error)  # a handler may keep what it is given, and the error keeps much alive
        if awaited_by is not None and awaited_by.queued:
            log.note("a dial has failed: %s", said)
        else:
            tell = log.warning if is_first else log.note
            tell("a dial that nobody waits for has failed: %s", said)


def _do_nothing(_: PooledEntry) -> None:
    """Take no note."""
