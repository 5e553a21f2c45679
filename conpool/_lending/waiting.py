"""Parking and waking: the only place where a task of a caller sleeps on behalf of the pool."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import Abort, current_task, wait_task_rescheduled

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from conpool._core.records import Waiter, Warmer
    from conpool._engine.engine import Engine


def park(waiter: Waiter, engine: Engine) -> Awaitable[object]:
    """Sleep, when awaited, until `waiter` is served or refused.

    Hand-over is one step: the core takes the waiter out of the queue and the engine reschedules its task. From
    then on the connection is the waiter's own. If it is cancelled before that, it leaves the queue
    here, inside the abort function, so that nothing can be handed to it any more.
    """
    waiter.task = current_task()
    return wait_task_rescheduled(  # noqa: ASYNC105 - the caller awaits it
        partial(_leave, waiter, engine)
    )


def _leave(waiter: Waiter, engine: Engine, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
    engine.core.withdrawn(waiter, engine.now())
    engine.perform_quietly()
    return Abort.SUCCEEDED


async def park_warmer(warmer: Warmer, engine: Engine) -> None:
    """Sleep until `warmer` has what it waits for, or an error."""

    def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        engine.core.warming_ended(warmer)
        return Abort.SUCCEEDED

    warmer.task = current_task()
    await wait_task_rescheduled(leave)
