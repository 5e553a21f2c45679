"""Does what the core has decided, and reports to the core what came of it.

`report` is the one door: it stamps the time, tells the core what has happened, has the core decide
what can be done next, does that, and tells the observers. They come last, when the books are right
again, and may call any synchronous method of the pool. Four places outside this folder spell
`report` out, and say so: the idle hit, the way into the queue, the give-back of a clean connection,
and the end of a lease by force. What only notes a fact, such as that a lease has begun, is told to
the core alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import get_ident
from typing import Any, TypeAlias, TypeVar, TypeVarTuple, final

import trio
from trio.lowlevel import Task, enable_ki_protection, reschedule

from conpool._connection.idle_watch import IdleWatch
from conpool._connection.link import Link
from conpool._connection.pooled import (
    PooledCore,
    PooledEntry,
    PooledWaiter,
    PooledWarmer,
)
from conpool._connection.session import NO_SESSIONS, SessionRules
from conpool._core.effects import Check, CircuitChanged, Close, Dial, Effect, GiveUp, Reset
from conpool._core.keeping import needs_check
from conpool._core.records import Waiter, Warmer
from conpool._engine.attendant import Attendant
from conpool._engine.background import Background
from conpool._engine.diagnosis import Deadlocks
from conpool._engine.dialler import Dialler
from conpool._engine.holders import Tick
from conpool._engine.insist import insist
from conpool._engine.news import News
from conpool._extend.connector import Connector
from conpool._values.states import CloseReason, ConnectionState, WaitOutcome

Ts = TypeVarTuple("Ts")
R = TypeVar("R")

PooledEffect: TypeAlias = Effect[Link, Task]


@final
class Engine:
    """The moving parts of one pool."""

    __slots__ = (
        "_effects",
        "_perform_one",
        "_timetable",
        "_touched",
        "_undone",
        "ask_peer",
        "attendant",
        "background",
        "core",
        "deadlocks",
        "dialler",
        "lends_in",
        "log",
        "news",
        "now",
        "rules",
        "some_closed",
        "thread",
        "watch",
    )

    def __init__(
        self,
        core: PooledCore,
        connector: Connector,
        news: News,
        rules: SessionRules = NO_SESSIONS,
    ) -> None:
        self.core = core
        self.rules = rules
        self.log = news.log = rules.log
        self._effects = core.effects
        self._timetable = core.timetable
        self._touched = core.touched
        self.news = news
        self.deadlocks = Deadlocks(core, self.log)
        self.background = Background(self._ring, self.log)
        self.attendant = Attendant(rules, self.background)
        self.watch = IdleWatch()
        self.some_closed = trio.lowlevel.ParkingLot()
        """Where tasks wait for connections to be gone."""
        self.dialler = Dialler(self, connector)
        self.now: Callable[[], float] = trio.current_time
        """The clock of the pool's run; once the pool is open, without trio's detour to find it."""
        self.thread = 0
        """The thread of the pool's run; 0 until the pool is opened."""
        self.lends_in = 0
        """The thread whose tasks the pool lends to: `thread` while it is open, and else 0."""
        self.ask_peer: Callable[[PooledEntry], Awaitable[None]]
        """Has the peer of an idle connection asked, and reports the answer; see `PeerCheck`."""
        self._undone: list[PooledEffect] = []
        """What could not be done because something raised: `perform` tries again."""
        self._perform_one: dict[type[Any], Callable[[Any], None]] = {
            Waiter: self.wake,
            Warmer: self.wake,
            Dial: self.dialler.start,
            GiveUp: self.dialler.give_up,
            Check: self._look_at_idle,
            Reset: self._start_reset,
            Close: self._start_close,
            CircuitChanged: self._tell_circuit,
        }

    async def run(
        self,
        *jobs: Callable[[], Awaitable[None]],
        task_status: trio.TaskStatus[trio.CancelScope],
    ) -> None:
        """Host the background until the scope that this reports is cancelled."""
        self.now = trio.lowlevel.current_clock().current_time
        self.thread = self.lends_in = get_ident()
        self.background.token = trio.lowlevel.current_trio_token()
        self.watch.open()
        try:
            await self.background.run(*jobs, on_end=self._end_at_once, task_status=task_status)
        finally:
            insist(self.watch.close, self.log)

    def stop_serving(self) -> None:
        """Serve nobody any more, and give up all dials: a dying background could start none.

        What concerns many is done in pieces: the others follow with `go_on_ending`.
        """
        self.lends_in = 0
        if self.core.is_open:
            now = self.time()
            self.core.shut(now)
            try:
                self.dialler.begin_to_end()
            finally:
                self.perform(now)

    def go_on_ending(self) -> bool:
        """Do the next piece of what `stop_serving` has begun; return whether that was the last."""
        now = self.time()
        self.core.ending.went_on(now)
        self.core.ticked(now)  # there may be no timer any more
        is_last = self.dialler.go_on_ending()
        self.perform(now)
        return is_last and not self.core.ending.is_under_way and self._timetable.next_at > now

    def _end_at_once(self) -> None:
        """The background ends, and with it the timer: no piece may be left to do."""
        self.stop_serving()
        while not self.go_on_ending():
            pass

    # ── the door ────────────────────────────────────────────────────────────────

    def report(self, happened: Callable[[*Ts, float], R], *args: *Ts) -> R:
        """Report to the core what has `happened`, do what it decides, and tell the observers."""
        now = self.time()
        outcome = happened(*args, now)
        self.perform(now)
        return outcome

    def report_quietly(self, happened: Callable[[*Ts, float], object], *args: *Ts) -> None:
        """As `report`, but the observers hear of it with the next one.

        For abort functions, which run inside trio's scheduler: no place for a user's callback.
        """
        now = self.time()
        happened(*args, now)
        if not (
            self._touched or self._effects or self._timetable.next_at < self.background.rings_at
        ):
            return
        is_held, self.news.is_held = self.news.is_held, True
        try:
            self.background.call(lambda: self.perform(now))
        finally:
            self.news.is_held = is_held

    def perform(self, now: float) -> None:
        """Do all that the core decides now, then tell the observers.

        If one thing raises, all others are done, and this one is tried again soon. The caller hears
        of it only if it is no `Exception`.
        """
        if self._touched:
            self.core.pump(now)
        effects = self._effects
        while effects:
            effect = effects.popleft()
            try:
                self._perform_one[type(effect)](effect)
            except BaseException as error:  # noqa: ASYNC103 - raised unless an Exception
                self._put_off(effect, error)
                if not isinstance(error, Exception):
                    self.perform(now)
                    raise
            if self._touched:
                self.core.pump(now)
        if self._timetable.next_at < self.background.rings_at:
            insist(lambda: self.background.ring_at(self._timetable.next_at))
        if self.news.pending:
            self.news.deliver()

    def _put_off(self, effect: PooledEffect, error: BaseException) -> None:
        """`error` has kept `effect` from being performed: try again in a step of trio's loop.

        Where even that cannot be arranged, the next sweep tries again.
        """
        self._undone.append(effect)
        with suppress(Exception):  # the other effects must still be performed
            self.background.call_soon(self.perform_undone)
            self.log.failed("%r has failed and is tried again", effect, error=error)

    def perform_undone(self) -> None:
        """Try again what has failed, and do without what fails again."""
        for _ in range(len(self._undone)):
            effect = self._undone.pop(0)
            try:
                self._perform_one[type(effect)](effect)
            except Exception as error:  # noqa: BLE001 - whatever it is, the books must be right
                self._do_without(effect, error)
        self.perform(self.time())

    def time(self) -> float:
        """Return the time, also where a clock fails: what has happened must be reported."""
        try:
            return self.now()
        except BaseException as error:  # noqa: BLE001, ASYNC103 - it is raised elsewhere
            now = self.now()
            if not isinstance(error, Exception):
                self.background.raise_in_block(error)
            return now

    def _do_without(self, effect: PooledEffect, error: Exception) -> None:
        self.log.failed("%r has failed for good", effect, error=error)
        match effect:
            case Dial(entry):
                self.dialler.do_without(entry, error)
            case Check(entry):
                self.core.checked(entry, CloseReason.ERROR, self.time())
            case Reset(entry):
                self.core.reset_over(entry, CloseReason.ERROR, self.time())
            case Close(entry) if entry.state is ConnectionState.CLOSING:
                self._note_closed(entry)
            case _:
                self._undone.append(effect)  # a task that must wake: the next sweep tries again

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
                effect.slots = tick.find_all_slots(effect)

    # ── waking ──────────────────────────────────────────────────────────────────

    def wake(self, waiting: PooledWaiter | PooledWarmer) -> None:
        """Have the task of `waiting` go on, which has its answer."""
        task = waiting.task
        if task is not None and task.custom_sleep_data is waiting:  # else it does not sleep
            reschedule(task)

    def _tell_circuit(self, changed: CircuitChanged) -> None:
        self.news.add(self.news.circuit_changed, changed.endpoint, changed.old, changed.new)

    # ── closing ─────────────────────────────────────────────────────────────────

    def _start_close(self, effect: Close[Link, Task]) -> None:
        entry = effect.entry
        if entry.state is not ConnectionState.CLOSING:
            self.some_closed.unpark_all()
            return  # it is tried again, and had come so far
        self.watch.remove(entry)
        self.attendant.dismiss(entry)
        if entry.reason is CloseReason.DETACHED or self._close_now(entry, effect.gracefully):
            self._note_closed(entry)
            return
        name = f"conpool close of {entry.sub.endpoint}"
        try:
            self.background.spawn(self._close, entry, effect.gracefully, name=name)
        except RuntimeError:  # the background has died
            trio.lowlevel.spawn_system_task(self._close, entry, False, name=name)

    def _close_now(self, entry: PooledEntry, gracefully: bool) -> bool:
        """Close by force, if nothing better is possible or due; return False if it must await."""
        needs_await = self.attendant.needs_await(entry, gracefully)
        is_polite = needs_await and not self.background.has_ended
        return not is_polite and entry.link.try_close_now(_say_why(entry.reason))

    @enable_ki_protection
    async def _close(self, entry: PooledEntry, gracefully: bool) -> None:
        try:
            await self.attendant.close(entry, gracefully)
        finally:
            try:
                self._note_closed(entry)
            finally:
                self.perform(self.time())

    def _note_closed(self, entry: PooledEntry) -> None:
        self.core.closed(entry, self.time())
        self.news.add_about(self.news.closed, entry, entry.reason)
        insist(self.some_closed.unpark_all)

    # ── looking at idle connections ─────────────────────────────────────────────

    def _look_at_idle(self, effect: Check[Link, Task]) -> None:
        """Probe a connection for a waiter; have its peer asked if that is due."""
        entry = effect.entry
        if not entry.is_checking:
            return  # it has been closed since
        now = self.now()
        reason = entry.link.probe()
        if reason is None and needs_check(entry, now):
            name = f"conpool check of {entry.sub.endpoint}"
            self.background.spawn(self.ask_peer, entry, name=name)
        else:
            self.core.checked(entry, reason, now)

    def _start_reset(self, effect: Reset[Link, Task]) -> None:
        entry = effect.entry
        if self.rules.needs_reset(entry.link.session, entry.link.log):
            self.attendant.start_reset(
                entry, lambda entry, reason: self.report(self.core.reset_over, entry, reason)
            )
        else:
            self.core.reset_over(entry, None, self.now())


def _say_why(reason: CloseReason | None) -> str:
    """Say, to a task that uses a connection, why the pool has closed it under its lease."""
    if reason is CloseReason.POOL_CLOSED:
        return "closed by the pool at the end of its grace: the pool closes (see shutdown_grace)"
    if reason is CloseReason.CLEARED:
        return "closed by the pool, which was told to clear(interrupt_in_use=True)"
    return "closed by the pool" if reason is None else f"closed by the pool: {reason.value}"
