"""Does what the core has decided, and reports to the core what came of it.

`report` is the one door: it stamps the time, tells the core what has happened, has the core decide
what can be done next, does that, and tells the observers. They come last, when the books are right
again, and may call any synchronous method of the pool. Nobody outside this folder calls core and
engine in turn; the idle hit and the give-back of a clean connection spell out `report`, and say so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from threading import get_ident
from typing import Any, TypeVar, TypeVarTuple, final

import trio
from trio.lowlevel import Task, enable_ki_protection, reschedule

from conpool._connection.closing import close_by_force, close_gracefully
from conpool._connection.idle_watch import IdleWatch
from conpool._connection.pooled import (
    PooledCore,
    PooledEntry,
    PooledSub,
    PooledWaiter,
    PooledWarmer,
)
from conpool._core.effects import Close, Dial
from conpool._core.records import Waiter, WaitOutcome, Warmer
from conpool._dial.dial import open_link
from conpool._engine.background import Background
from conpool._engine.holders import Tick
from conpool._engine.news import News
from conpool._errors.connect import ConnectError
from conpool._errors.pool import PoolClosed
from conpool._extend.connector import Connector
from conpool._values.states import CloseReason, ConnectionState

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


@final
class Engine:
    """The moving parts of one pool."""

    __slots__ = (
        "_connector",
        "_effects",
        "_perform_one",
        "_timetable",
        "_touched",
        "background",
        "core",
        "news",
        "now",
        "some_closed",
        "thread",
        "token",
        "watch",
    )

    def __init__(self, core: PooledCore, connector: Connector, news: News) -> None:
        self.core = core
        self._effects = core.effects
        self._timetable = core.timetable
        self._touched = core.touched
        self._connector = connector
        self.news = news
        self.background = Background(self._ring)
        self.watch = IdleWatch()
        self.some_closed = trio.lowlevel.ParkingLot()
        """Where tasks wait for connections to be gone."""
        self.now: Callable[[], float] = trio.current_time
        """The clock of the pool's run; once the pool is open, without trio's detour to find it."""
        self.thread = 0
        """The thread of the pool's run; 0 until the pool is opened."""
        self.token: trio.lowlevel.TrioToken | None = None
        self._perform_one: dict[type[Any], Callable[[Any], None]] = {
            Waiter: self._wake,
            Warmer: self._wake_warmer,
            Dial: self._start_dial,
            Close: self._start_close,
        }

    async def run(
        self,
        *jobs: Callable[[], Awaitable[None]],
        task_status: trio.TaskStatus[trio.CancelScope],
    ) -> None:
        """Host the background until the scope that this reports is cancelled."""
        self.now = trio.lowlevel.current_clock().current_time
        self.thread = get_ident()
        self.token = trio.lowlevel.current_trio_token()
        self.watch.open()
        try:
            await self.background.run(*jobs, on_end=self.stop_serving, task_status=task_status)
        finally:
            self.watch.close()

    def stop_serving(self) -> None:
        """Serve nobody any more, and give up all dials: a dying background could start none."""
        if self.core.is_open:
            now = self.now()
            self.core.shut(now)
            self.background.give_up_dials()
            self.perform(now)

    # ── the door ────────────────────────────────────────────────────────────────

    def report(self, happened: Callable[[*Ts, float], R], *args: *Ts) -> R:
        """Report to the core what has `happened`, do what it decides, and tell the observers."""
        now = self.now()
        outcome = happened(*args, now)
        self.perform(now)
        return outcome

    def report_quietly(self, happened: Callable[[*Ts, float], object], *args: *Ts) -> None:
        """As `report`, but the observers hear of it with the next one.

        For abort functions, which run inside trio's scheduler: no place for a user's callback.
        """
        now = self.now()
        happened(*args, now)
        is_held, self.news.is_held = self.news.is_held, True
        try:
            self.perform(now)
        finally:
            self.news.is_held = is_held

    def perform(self, now: float) -> None:
        """Do all that the core decides now, then tell the observers."""
        if self._touched:
            self.core.pump(now)
        effects = self._effects
        while effects:
            effect = effects.popleft()
            self._perform_one[type(effect)](effect)
            if self._touched:
                self.core.pump(now)
        if self._timetable.next_at < self.background.rings_at:
            self.background.ring_at(self._timetable.next_at)
        if self.news.pending:
            self.news.deliver()

    def _ring(self) -> float:
        """A time is up: have the core look, and return when it must look next."""
        now = self.now()
        self.core.ticked(now)
        self._mark_deadlocks()
        self.perform(now)
        return self._timetable.next_at

    def _mark_deadlocks(self) -> None:
        """Note which slots the timed-out waited for, before one wakes and releases anything."""
        tick = Tick(self.core)
        for effect in self._effects:
            if isinstance(effect, Waiter) and effect.outcome is WaitOutcome.TIMEOUT:
                effect.slots = tick.find_slots(effect, effect.subs[0])

    # ── waking ──────────────────────────────────────────────────────────────────

    def _wake(self, waiter: PooledWaiter) -> None:
        entry = waiter.entry
        if entry is not None and entry.was_idle:
            reason = entry.link.probe()
            if reason is not None:
                self.core.offer_failed(waiter, reason, self.now())
                return
        if waiter.task is not None:  # else it has not gone to sleep yet
            reschedule(waiter.task)

    def _wake_warmer(self, warmer: PooledWarmer) -> None:
        if warmer.task is not None:
            reschedule(warmer.task)

    # ── dialling ────────────────────────────────────────────────────────────────

    def _start_dial(self, effect: Dial[Any, Any]) -> None:
        entry: PooledEntry = effect.entry
        self.news.add_about(self.news.connecting, entry)
        self.background.spawn_dial(self._dial, entry, name=f"conpool dial to {entry.sub.endpoint}")

    @enable_ki_protection
    async def _dial(self, entry: PooledEntry) -> None:
        sub = entry.sub
        started = self.now()
        try:
            entry.link = await open_link(self._connector, sub.endpoint, sub.config.connect_timeout)
        except ConnectError as error:
            self._report_failed_dial(entry, error, started)
        except BaseException:
            self.stop_serving()  # if the pool is not closing, its background is dying
            self._report_failed_dial(entry, None, started)
            raise
        else:
            self.watch.add(entry)
            entry.address = entry.link.peer_ip
            self.news.add_about(self.news.connected, entry, self.now() - started)
            self.report(self.core.dialled, entry)

    def _report_failed_dial(
        self, entry: PooledEntry, error: ConnectError | None, started: float
    ) -> None:
        told = PoolClosed("the pool closed during the dial") if error is None else error
        self.news.add_about(self.news.connect_failed, entry, told, self.now() - started)
        self.some_closed.unpark_all()
        self.report(self.core.dial_failed, entry, error)

    # ── closing ─────────────────────────────────────────────────────────────────

    def _start_close(self, effect: Close[Any, Any]) -> None:
        entry: PooledEntry = effect.entry
        self.watch.remove(entry)
        if entry.reason is CloseReason.DETACHED or self._close_now(entry, effect.gracefully):
            self._note_closed(entry)
            return
        # Only streams that need an await to close get here; if gracefully, they say goodbye.
        try:
            self.background.spawn(
                self._close,
                entry,
                effect.gracefully,
                name=f"conpool close of {entry.sub.endpoint}",
            )
        except RuntimeError:  # the background has died this very moment
            entry.link.try_close_now()
            self._note_closed(entry)

    def _close_now(self, entry: PooledEntry, gracefully: bool) -> bool:
        """Close by force, if nothing better is possible or due; return False if it must await."""
        if self.background.has_ended:
            entry.link.try_close_now()
            return True
        return not (gracefully and entry.link.has_goodbye) and entry.link.try_close_now()

    @enable_ki_protection
    async def _close(self, entry: PooledEntry, gracefully: bool) -> None:
        try:
            if gracefully:
                await close_gracefully(entry.link.stream, entry.sub.config.close_timeout)
            else:
                await close_by_force(entry.link.stream)
        finally:
            self._note_closed(entry)
            self.perform(self.now())

    def _note_closed(self, entry: PooledEntry) -> None:
        self.core.closed(entry, self.now())
        self.news.add_about(self.news.closed, entry, entry.reason)
        self.some_closed.unpark_all()

    def interrupt(self, sub: PooledSub, reason: CloseReason, holder: Task | None = None) -> None:
        """Close the lent connections of `sub` under their leases: all, or only `holder`'s."""
        now = self.now()
        for entry in list(sub.limit.borrowers):
            is_meant = holder is None or any(lease.holder is holder for lease in entry.leases)
            if is_meant and entry.state is ConnectionState.ACTIVE:
                self.core.condemned(entry, reason, now)
        self.perform(now)

    async def wait_closed(self, entries: set[PooledEntry]) -> None:
        """Wait until all of `entries` are closed."""
        for entry in entries:  # each in turn, so that n of them take n steps and not n²
            while entry.state is not ConnectionState.CLOSED:
                await self.some_closed.park()
