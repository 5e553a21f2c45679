"""Where a caller that waits for a connection, or for warmth, goes to sleep. The engine wakes it.

Hand-over is one step: the core takes the waiter out of the queue, and the engine reschedules its
task. From then on the connection is the waiter's own. If the task is cancelled before that, it
leaves the queue inside its abort function, so that nothing can be handed to it any more.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial

import trio
from trio.lowlevel import Abort, RaiseCancelT, checkpoint, current_task, wait_task_rescheduled

from conpool._connection.pooled import PooledCore, PooledSub, PooledWaiter, PooledWarmer
from conpool._core.balancer import is_hopeless, why_unusable
from conpool._core.straight import withdraw
from conpool._engine.engine import Engine
from conpool._lending.refusal import make_no_healthy, make_queue_full, make_timeout
from conpool._values.states import AcquirePhase


async def refuse_if_hopeless(
    waiter: PooledWaiter, sub: PooledSub, core: PooledCore, now: float, *, pool_name: str
) -> None:
    """Do not let a caller queue whose time is up, or where no more are welcome.

    Raises:
        AcquireTimeout, QueueFull, NoHealthyEndpoint: Why.
    """
    if waiter.deadline <= now:
        await checkpoint()
        needs_check_first = sub.idle and not (waiter.fresh or sub.waiting or sub.gate.is_paused)
        phase: AcquirePhase = "check" if needs_check_first else "queue"
        now = trio.current_time()
        raise make_timeout(core, sub, waiter, now, phase=phase, pool_name=pool_name)
    if trio.current_effective_deadline() <= now:
        # The deadline has passed; this checkpoint has trio deliver the cancellation.
        await checkpoint()
    subs = waiter.subs
    if waiter.group is not None:
        if is_hopeless(subs, now, fresh=waiter.fresh):
            await checkpoint()
            raise make_no_healthy(why_unusable(subs, now))
        subs = tuple(one for one in subs if one.gate.is_usable(now)) or subs
    may_queue = partial(core.may_queue, fresh=waiter.fresh, now=now)
    if not (waiter.had_turn or any(map(may_queue, subs))):
        await checkpoint()
        raise make_queue_full(core, sub, waiter, now, pool_name=pool_name)


def park(waiter: PooledWaiter, engine: Engine) -> Awaitable[object]:
    """Sleep, when awaited, until `waiter` is served or refused."""
    waiter.task = task = current_task()
    task.custom_sleep_data = waiter  # so that who waits for this task finds out what it waits for
    engine.deadlocks.look(waiter)
    return wait_task_rescheduled(  # noqa: ASYNC105 - the caller awaits it
        partial(_leave, waiter, engine)
    )


def _leave(waiter: PooledWaiter, engine: Engine, _: RaiseCancelT) -> Abort:
    if waiter.queued and not withdraw(waiter, engine.core.timetable):
        engine.report_quietly(engine.core.withdrawn, waiter)
    # Else it has left the queue, now or before: then only waking it has failed.
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
