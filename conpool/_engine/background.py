"""The tasks that a pool runs for itself: one host, one timer, and a nursery.

The nursery is shielded from whatever cancels the pool's block, so the pool still works for cleanup
code there; the tasks end when the pool does. They run in the context (`contextvars`)
in which the pool was opened, protected from KeyboardInterrupt, which belongs to the main task.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import TypeVarTuple, final

import trio
from trio.lowlevel import Task, enable_ki_protection

Ts = TypeVarTuple("Ts")


@final
class Background:
    """Hosts the background tasks of one pool."""

    __slots__ = ("_alarm", "_context", "_nursery", "_ring", "ended", "rings_at")

    def __init__(self, ring: Callable[[], float]) -> None:
        self._ring = ring
        """Called when the alarm goes off, and at first; returns when to call it next."""
        self._context: Context
        self._nursery: trio.Nursery
        self._alarm = trio.CancelScope()
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
                    self.spawn(self._keep_time, name="conpool timer")
                    for job in jobs:
                        self.spawn(job, name=f"conpool {job.__name__}")
                    task_status.started(scope)
                    try:
                        await trio.sleep_forever()
                    finally:
                        on_end()
        finally:
            self.ended.set()

    def spawn(self, job: Callable[[*Ts], Awaitable[object]], *args: *Ts, name: str) -> None:
        """Run a job of the pool's own in the background.

        Raises:
            RuntimeError: The background has ended.
        """
        self._context.run(lambda: self._nursery.start_soon(job, *args, name=name))

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
        self.rings_at = self._alarm.deadline = time

    @enable_ki_protection
    async def _keep_time(self) -> None:
        """Ring when a time is up. One timer serves all waiters: a cancel scope each costs more."""
        while True:
            self.rings_at = self._ring()
            with trio.CancelScope(deadline=self.rings_at) as self._alarm:
                await trio.sleep_forever()
