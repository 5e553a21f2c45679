"""The tasks that a pool runs for itself: one host, one timer, and a nursery.

The nursery is shielded from whatever cancels the pool's block, so the pool still works for cleanup
code there; the tasks end when the pool does. They run in the context (`contextvars`) in which the
pool was opened, protected from KeyboardInterrupt, which belongs to the main task.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Final, TypeVarTuple, final

import trio
from trio.lowlevel import Task, enable_ki_protection

from conpool._engine.insist import insist
from conpool._errors.pool_log import NO_LOG, PoolLog

Ts = TypeVarTuple("Ts")

_PAUSE: Final = 0.1
"""Seconds until a job that has broken off begins again: soon, and not without end at once."""


@final
class Background:
    """Hosts the background tasks of one pool."""

    __slots__ = ("_alarm", "_context", "_log", "_nursery", "_ring", "ended", "rings_at", "token")

    def __init__(self, ring: Callable[[], float], log: PoolLog = NO_LOG) -> None:
        self._log = log
        self._ring = ring
        """Called when the alarm goes off, and at first; returns when to call it next."""
        self._context: Context
        self._nursery: trio.Nursery
        self._alarm = trio.CancelScope()
        self.token: trio.lowlevel.TrioToken | None = None
        self.rings_at = -math.inf
        """When the alarm goes off, in seconds on trio's clock."""
        self.ended = trio.Event()
        """Set when the last background task has ended."""

    @enable_ki_protection
    async def run(
        self,
        *jobs: Callable[[], Awaitable[None]],
        on_end: Callable[[], object],
        task_status: trio.TaskStatus[trio.CancelScope],
    ) -> None:
        """Host all background tasks, until the scope that this reports is cancelled.

        `on_end` is called before the nursery refuses new tasks, also where the background dies.
        """
        self._context = copy_context()
        try:
            with trio.CancelScope(shield=True) as scope:
                async with trio.open_nursery() as self._nursery:
                    self.spawn(self._keep_doing, self._keep_time, name="conpool timer")
                    for job in jobs:
                        self.spawn(self._keep_doing, job, name=f"conpool {job.__name__}")
                    task_status.started(scope)
                    try:
                        await self._keep_doing(trio.sleep_forever)
                    finally:
                        on_end()
        finally:
            insist(self.ended.set, self._log)

    def spawn(self, job: Callable[[*Ts], Awaitable[object]], *args: *Ts, name: str) -> None:
        """Run a job of the pool's own in the background.

        Raises:
            RuntimeError: The background has ended.
        """
        self._context.run(lambda: self._nursery.start_soon(self._guard, job, *args, name=name))

    @enable_ki_protection
    async def _guard(self, job: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Run `job`. An `Exception` of one task must not end the whole background."""
        try:
            await job(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other tasks go on
            self._log.failed("a background task has failed", error=error)
        except BaseExceptionGroup as group:
            # A nursery of a driver's may fail as it is cancelled: only the cancellation goes on.
            errors, rest = group.split(Exception)
            if errors is not None:
                self._log.failed("a background task has failed", error=errors)
            if rest is not None:
                raise rest from None

    @enable_ki_protection
    async def _keep_doing(self, job: Callable[[], Awaitable[object]]) -> None:
        """Run `job` until it ends, and again if it breaks off: nobody else does what it does."""
        while True:
            try:
                await job()
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the job must be done
                self._log.failed("%s has broken off and begins again", job.__name__, error=error)
            await trio.sleep(_PAUSE)

    def call_soon(self, job: Callable[[], object]) -> None:
        """Have trio's loop call `job` in a step of its own. Any thread may ask for that."""
        if self.token is not None:
            self.token.run_sync_soon(self.call, job, idempotent=True)

    def call(self, job: Callable[[], object]) -> None:
        """Call `job` where an exception would end the whole run: inside trio's loop."""
        try:
            job()
        except Exception as error:  # noqa: BLE001 - it would end the whole run
            self._log.failed("%r has failed", job, error=error)
        except BaseException as error:  # noqa: BLE001, ASYNC103 - an observer's, for instance
            self.raise_in_block(error)

    def raise_in_block(self, error: BaseException) -> None:
        """Have `error` end the background: so it comes out of the pool's block."""
        try:
            self.spawn(_raise, error, name="conpool failure")
        except RuntimeError:  # there is no background any more
            raise error from None

    def hosts(self, task: Task) -> bool:
        """Whether `task` runs in the background, and so must have ended before the pool can."""
        while (nursery := task.parent_nursery) is not None:
            if nursery is self._nursery:
                return True
            task = nursery.parent_task
        return False

    @property
    def has_ended(self) -> bool:
        """Whether no task can be started any more, and none is left."""
        return self.ended.is_set()

    # ── time ────────────────────────────────────────────────────────────────────

    def ring_at(self, time: float) -> None:
        """Have the alarm go off at `time`, which is sooner than it would."""
        self._alarm.deadline = time  # first: if it fails, the alarm goes off when it would have
        self.rings_at = time

    @enable_ki_protection
    async def _keep_time(self) -> None:
        """Ring when a time is up. One timer serves all waiters: a cancel scope each costs more."""
        while True:
            self.rings_at = self._ring()
            with trio.CancelScope(deadline=self.rings_at) as self._alarm:
                await trio.sleep_forever()


async def _raise(error: BaseException) -> None:
    raise error
