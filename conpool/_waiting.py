"""Parking and waking: the only place where a task of a caller sleeps on behalf of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from conpool._engine import Engine
    from conpool._waiter import Waiter, Warmer


async def park(waiter: Waiter, engine: Engine) -> None:
    """Sleep until `waiter` is served or refused.

    Hand-over is one step: the core takes the waiter out of the queue and the engine reschedules its task. From
    then on the connection is the waiter's own. If it is cancelled before that, it leaves the queue
    here, inside the abort function, so that nothing can be handed to it any more.
    """

    def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        engine.core.withdrawn(waiter, trio.current_time())
        engine.perform_quietly()
        return trio.lowlevel.Abort.SUCCEEDED

    waiter.task = trio.lowlevel.current_task()
    await trio.lowlevel.wait_task_rescheduled(leave)


async def park_warmer(warmer: Warmer, engine: Engine) -> None:
    """Sleep until `warmer` has what it waits for, or an error."""

    def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        engine.core.warming_ended(warmer)
        return trio.lowlevel.Abort.SUCCEEDED

    warmer.task = trio.lowlevel.current_task()
    await trio.lowlevel.wait_task_rescheduled(leave)
