"""Does what the core has decided, and tells it what came of that.

One nursery, one place that wakes tasks, one that dials, one that closes. The books are changed first;
then `perform` empties the outbox; then observers hear the news, when all is in order again and they
may call any synchronous method of the pool.

All background tasks live in a nursery that is shielded from whatever cancels the pool's block, so
that the pool still works for cleanup code there; it ends when the pool does (`stop`). They run in the
context in which the pool was opened, and are protected from KeyboardInterrupt, which belongs to the
main task.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVarTuple, final

import trio
from trio.lowlevel import enable_ki_protection, reschedule

from conpool._connection.closing import close, close_by_force
from conpool._connection.idle_watch import IdleWatch
from conpool._core.effects import Close, Dial
from conpool._core.records import Waiter, WaitOutcome, Warmer
from conpool._dial.dial import open_link
from conpool._engine.holders import is_deadlock
from conpool._errors.connect import ConnectError
from conpool._errors.pool import PoolClosed
from conpool._extend.observer import ConnectionInfo, tell
from conpool._values.states import CloseReason, ConnectionState

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextvars import Context

    from conpool._core.core import Core
    from conpool._core.records import Entry, SubPool
    from conpool._extend.connector import Connector
    from conpool._extend.observer import Announcer

Ts = TypeVarTuple("Ts")
Watchers: TypeAlias = tuple[Callable[..., object], ...]


@final
class Engine:
    """The moving parts of one pool."""

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_connector",
        "_context",
        "_dial_nursery",
        "_effects",
        "_is_telling",
        "_news",
        "_nursery",
        "_perform_one",
        "_timetable",
        "announcer",
        "core",
        "ended",
        "now",
        "some_closed",
        "watch",
    )

    def __init__(self, core: Core, connector: Connector, announcer: Announcer) -> None:
        self.core = core
        self._effects = core.effects
        self._timetable = core.timetable
        self.announcer = announcer
        self.some_closed = trio.lowlevel.ParkingLot()
        """Where tasks wait for connections to be gone."""
        self._connector = connector
        self._context: Context
        self._nursery: trio.Nursery
        self._dial_nursery: trio.Nursery
        self.ended = trio.Event()
        """Set when the last background task has ended."""
        self.watch = IdleWatch()
        self.now: Callable[[], float] = trio.current_time
        """The time on the clock of the pool's run; once it is open, without trio's detour to find it."""
        self._alarm = trio.CancelScope()
        self._alarm_at = -math.inf
        self._news: deque[tuple[Watchers, tuple[object, ...]]] = deque()
        self._is_telling = False
        self._perform_one: dict[type[Any], Callable[[Any], None]] = {
            Waiter: self._wake,
            Warmer: self._wake_warmer,
            Dial: self._start_dial,
            Close: self._start_close,
        }

    # ── the background ──────────────────────────────────────────────────────────

    @enable_ki_protection
    async def run(
        self,
        *jobs: Callable[[], Awaitable[None]],
        task_status: trio.TaskStatus[trio.CancelScope],
    ) -> None:
        """Be the host of all background tasks, until the scope that this reports is cancelled."""
        self._context = copy_context()
        self.now = trio.lowlevel.current_clock().current_time
        self.watch.open()
        try:
            with trio.CancelScope(shield=True) as scope:
                async with trio.open_nursery() as self._nursery:
                    self.spawn(self._keep_time, name="conpool timer")
                    for job in jobs:
                        self.spawn(job, name=f"conpool {job.__name__}")
                    async with trio.open_nursery() as self._dial_nursery:
                        task_status.started(scope)
                        try:
                            await trio.sleep_forever()
                        finally:  # if it has died, these nurseries take in no more dials
                            self._stop_serving()
        finally:
            self.watch.close()
            self.ended.set()

    def _stop_serving(self) -> None:
        if self.core.is_open:
            self.core.shut(self.now())
            self.perform()

    def spawn(self, job: Callable[[*Ts], Awaitable[object]], *args: *Ts, name: str) -> None:
        """Run a job of the pool's own in the background, in the pool's own context."""
        self._context.run(lambda: self._nursery.start_soon(job, *args, name=name))

    def hosts(self, task: trio.lowlevel.Task) -> bool:
        """Whether `task` runs in the background, and so must have ended before the pool can."""
        while (nursery := task.parent_nursery) is not None:
            if nursery is self._nursery or nursery is self._dial_nursery:
                return True
            task = nursery.parent_task
        return False

    def give_up_dials(self) -> None:
        """Cancel all dials. There must be no more of them."""
        self._dial_nursery.cancel_scope.cancel()

    @enable_ki_protection
    async def _keep_time(self) -> None:
        """Refuse waiters whose time is up: one timer for all, since a cancel scope apiece costs more."""
        while True:
            self._alarm_at = self.core.timetable.next_at
            with trio.CancelScope(deadline=self._alarm_at) as self._alarm:
                await trio.sleep_forever()
            self.core.ticked(self.now())
            self._note_deadlocks()
            self.perform()

    def _note_deadlocks(self) -> None:
        """Find those in a deadlock among the waiters whose time is up, before the first of them lets go."""
        late: dict[SubPool, list[Waiter]] = {}
        for effect in self._effects:
            if isinstance(effect, Waiter) and effect.refusal is WaitOutcome.TIMEOUT:
                for sub in effect.subs:
                    late.setdefault(sub, []).append(effect)
        for sub, waiters in late.items():
            if is_deadlock(sub, self.core.pool_limit, {waiter.task for waiter in waiters}):
                for waiter in waiters:
                    waiter.in_deadlock = True

    # ── what the core wants done ────────────────────────────────────────────────

    def perform(self) -> None:
        """Do all that the core has decided, then tell the observers."""
        self.perform_quietly()
        if self._news:
            self.deliver_news()

    def perform_quietly(self) -> None:
        """Do all that the core has decided; the news is kept for the next `perform`.

        For abort functions, which run inside trio's scheduler: no place for a user's callback.
        """
        effects = self._effects
        while effects:
            effect = effects.popleft()
            self._perform_one[type(effect)](effect)
        if self._timetable.next_at < self._alarm_at:
            self._set_alarm()

    def settle(self) -> None:
        """`perform`, where there is seldom anything to do."""
        if self._effects:
            self.perform_quietly()
        elif self._timetable.next_at < self._alarm_at:
            self._set_alarm()
        if self._news:
            self.deliver_news()

    def _set_alarm(self) -> None:
        self._alarm_at = self._alarm.deadline = self._timetable.next_at

    def _wake(self, waiter: Waiter) -> None:
        entry = waiter.entry
        if entry is not None and entry.was_idle:
            reason = entry.link.probe()
            if reason is not None:
                self.core.offer_failed(waiter, reason, self.now())
                return
        if waiter.task is not None:  # else it has not gone to sleep yet
            reschedule(waiter.task)

    def _wake_warmer(self, warmer: Warmer) -> None:
        if warmer.task is not None:
            reschedule(warmer.task)

    # ── dialling ────────────────────────────────────────────────────────────────

    def _start_dial(self, effect: Dial) -> None:
        entry = effect.entry
        name = f"conpool dial to {entry.sub.endpoint}"
        self._note(self.announcer.connecting, entry)
        self._context.run(lambda: self._dial_nursery.start_soon(self._dial, entry, name=name))

    @enable_ki_protection
    async def _dial(self, entry: Entry) -> None:
        sub = entry.sub
        started = self.now()
        try:
            entry.link = await open_link(self._connector, sub.endpoint, sub.config.connect_timeout)
        except ConnectError as error:
            self._report_failed_dial(entry, error, started)
        except BaseException:
            self._stop_serving()  # if the pool is not closing, its background is dying
            self._report_failed_dial(entry, None, started)
            raise
        else:
            now = self.now()
            self.watch.add(entry)
            entry.address = entry.link.peer_ip
            self._note(self.announcer.connected, entry, now - started)
            self.core.dialled(entry, now)
            self.perform()

    def _report_failed_dial(self, entry: Entry, error: ConnectError | None, started: float) -> None:
        now = self.now()
        told = PoolClosed("the pool closed during the dial") if error is None else error
        self._note(self.announcer.connect_failed, entry, told, now - started)
        self.core.dial_failed(entry, error, now)
        self.some_closed.unpark_all()
        self.perform()

    # ── closing ─────────────────────────────────────────────────────────────────

    def _start_close(self, effect: Close) -> None:
        entry = effect.entry
        link = entry.link
        self.watch.remove(entry)
        is_detached = entry.reason is CloseReason.DETACHED
        has_goodbye = effect.gracefully and link.has_goodbye and not self.ended.is_set()
        if is_detached or (not has_goodbye and link.try_close_now()) or self.ended.is_set():
            self._report_closed(entry)
            return
        # What can only be closed by awaiting may have something to say as well.
        close = self._say_goodbye if effect.gracefully else self._close_by_force
        try:
            self.spawn(close, entry, name=f"conpool close of {entry.sub.endpoint}")
        except RuntimeError:  # the background has died this very moment
            link.try_close_now()
            self._report_closed(entry)

    @enable_ki_protection
    async def _say_goodbye(self, entry: Entry) -> None:
        try:
            await close(entry.link.stream, entry.sub.config.close_timeout)
        finally:
            self._report_closed(entry)
            self.perform()

    @enable_ki_protection
    async def _close_by_force(self, entry: Entry) -> None:
        try:
            await close_by_force(entry.link.stream)
        finally:
            self._report_closed(entry)
            self.perform()

    def _report_closed(self, entry: Entry) -> None:
        self.core.closed(entry, self.now())
        self._note(self.announcer.closed, entry, entry.reason)
        self.some_closed.unpark_all()

    def interrupt(
        self, sub: SubPool, reason: CloseReason, holder: trio.lowlevel.Task | None = None
    ) -> None:
        """Close the lent connections of `sub` under their leases: all, or only those of `holder`."""
        now = self.now()
        for entry in list(sub.limit.borrowers):
            is_meant = holder is None or entry.holder is holder
            if is_meant and entry.state is ConnectionState.ACTIVE:
                self.core.condemned(entry, reason, now)

    async def wait_closed(self, entries: set[Entry]) -> None:
        """Wait until all of `entries` are closed."""
        for entry in entries:  # each in turn, so that n of them take n steps and not n²
            while entry.state is not ConnectionState.CLOSED:
                await self.some_closed.park()

    # ── news ────────────────────────────────────────────────────────────────────

    def note(self, watchers: Watchers, *args: object) -> None:
        """Have `watchers` told, once the books are right."""
        if watchers:
            self._news.append((watchers, args))

    def _note(self, watchers: Watchers, entry: Entry, *details: object) -> None:
        if watchers:
            self._news.append((watchers, (describe(entry), *details)))

    def deliver_news(self) -> None:
        """Tell observers what has happened, in order. They may call the pool, which may make more news.

        That is told once all of them have heard what came before, by the call that told the first.
        """
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._news:
                watchers, args = self._news.popleft()
                tell(watchers, *args)
        finally:
            self._is_telling = False


def describe(entry: Entry) -> ConnectionInfo:
    """Return what observers may know of `entry`."""
    return ConnectionInfo(entry.id, entry.sub.endpoint, entry.created_at, entry.uses)
