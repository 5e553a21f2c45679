"""Where a waiter stands in the queues of its sub-pools: all that changes when it joins or leaves.

One that asks for a single endpoint stands in one queue. One that asks for a group stands in the
queue of each member, also where groups go without the member (`Queue.bars_groups`): there it counts
again as soon as that is over.
"""

from __future__ import annotations

from conpool._core.few import entered, without
from conpool._core.queue import NOBODY, Queue
from conpool._core.records import AnySubPool, AnyWaiter


def join(waiter: AnyWaiter, sub: AnySubPool) -> None:
    """`waiter`, which is not one of the many in line, joins the queue of `sub`."""
    _count(waiter, sub, 1)
    if waiter.had_turn or waiter.group is not None:
        put_aside(waiter, sub)
    else:
        open_queue(sub).fresh_line[waiter] = None


def leave(waiter: AnyWaiter, sub: AnySubPool) -> None:
    """`waiter` leaves the queue of `sub`."""
    leave_line(waiter, sub)
    _count(waiter, sub, -1)
    close_queue(sub)


def put_aside(waiter: AnyWaiter, sub: AnySubPool) -> None:
    """Have `waiter` stand aside in the queue of `sub`."""
    if waiter.group is None:
        open_queue(sub).put_aside(waiter)
    else:
        coming = waiter.coming
        is_away = coming is not None and coming.sub is not sub
        open_queue(sub).put_group_aside(waiter, is_away=is_away)


def leave_line(waiter: AnyWaiter, sub: AnySubPool) -> None:
    """Have `waiter` leave its place in the queue of `sub`, wherever that is."""
    line = sub.queue.line
    if waiter in line:
        del line[waiter]
        sub.timed -= waiter.is_timed
    else:
        sub.queue.remove(waiter)


def open_queue(sub: AnySubPool) -> Queue[AnyWaiter]:
    """Return the queue of `sub`, to be joined."""
    if sub.queue is NOBODY:
        sub.queue = Queue()
    return sub.queue


def close_queue(sub: AnySubPool) -> None:
    """Drop the queue of `sub` if nobody stands in it, and nothing must be remembered of it."""
    if not sub.waiting and sub.queue.is_blank:
        sub.queue = NOBODY


def bar_groups(sub: AnySubPool, *, bars: bool) -> None:
    """From now on groups go without `sub`, or use it again."""
    queue = open_queue(sub)
    sub.waiting += queue.count_barred()
    queue.bars_groups = bars
    sub.waiting -= queue.count_barred()
    close_queue(sub)


def _count(waiter: AnyWaiter, sub: AnySubPool, change: int) -> None:
    """Count `waiter`, which has joined (1) or left (-1)."""
    group = waiter.group
    if group is None:
        sub.waiting += change
        return
    sub.waiting += 0 if sub.queue.bars_groups else change
    count = sub.groups.get(group, 0) + change
    if count:
        sub.groups = entered(sub.groups, group, count)
    else:
        sub.groups = without(sub.groups, group)
