"""Where a caller that waits for a connection, or for warmth, goes to sleep. The engine wakes it.

Hand-over is one step: the core takes the waiter out of the queue, and the engine reschedules its
task. From then on the connection is the waiter's own. If the task is cancelled before that, it
leaves the queue inside its abort function, so that nothing can be handed to it any more.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial

from trio.lowlevel import Abort, RaiseCancelT, current_task, wait_task_rescheduled

from conpool._connection.pooled import PooledWaiter, PooledWarmer
from conpool._engine.engine import Engine


def park(waiter: PooledWaiter, engine: Engine) -> Awaitable[object]:
    """Sleep, when awaited, until `waiter` is served or refused."""
    waiter.task = task = current_task()
    task.custom_sleep_data = waiter  # so that who waits for this task finds out what it waits for
    engine.deadlocks.look(waiter)
    return wait_task_rescheduled(  # noqa: ASYNC105 - the caller awaits it
        partial(_leave, waiter, engine)
    )


def _leave(waiter: PooledWaiter, engine: Engine, _: RaiseCancelT) -> Abort:
    if waiter.queued:  # else it has been answered, and only waking it has failed
        engine.report_quietly(engine.core.withdrawn, waiter)
    return Abort.SUCCEEDED


async def park_warmer(warmer: PooledWarmer, engine: Engine) -> None:
    """Sleep until `warmer` has what it waits for, or an error."""

    def leave(_: RaiseCancelT) -> Abort:
        if warmer.queued:
            engine.report_quietly(engine.core.orders.warming_ended, warmer)
        return Abort.SUCCEEDED

    warmer.task = task = current_task()
    task.custom_sleep_data = warmer
    await wait_task_rescheduled(leave)
