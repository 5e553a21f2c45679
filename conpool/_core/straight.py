"""The straight line: the commonest ways, each in one function without a question too many.

An idle connection is lent, and it comes back clean; or it goes from one task to the next. Where an
endpoint is `is_straight`, most of what the general path asks cannot matter, and these functions do
the rest of what it does: `take` abbreviates `Serving.pop_newest`, `begin` `Core.lease_began`,
`keep` and `pass_on` `Core.released`, and `withdraw` `Core.withdrawn`. Where one cannot tell, it
changes nothing and says so, and its caller goes the general way. The model checker compares both
ways in every state that it visits.

A lease costs as much as the operations here: see `bench` before and after a change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conpool._core.records import (
    AnyEntry,
    AnyLease,
    AnySubPool,
    AnyWaiter,
    Entry,
    Lease,
    LinkT,
    TaskT,
)
from conpool._core.timetable import Timetable
from conpool._stats.histogram import MOST_RECENT
from conpool._values.states import ConnectionState

_new: Callable[[type[Any]], Any] = object.__new__
_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE


def take(sub: AnySubPool, now: float) -> AnyEntry | None:
    """Take the newest idle connection of `sub`, which is straight and for which nobody waits.

    Returns None, and has changed nothing, if there is none or that one has lapsed.
    """
    idle = sub.idle
    if not idle:
        return None
    entry, _ = idle.popitem()
    if now >= entry.lapses_at:
        idle[entry] = None
        return None
    entry.state = _ACTIVE
    sub.used_at = now
    return entry


def begin(entry: Entry[LinkT, TaskT], holder: TaskT, now: float) -> Lease[LinkT, TaskT]:
    """A lease begins of `entry`, which was idle and taken at `now`, without a wait."""
    uses = entry.uses
    if uses:
        entry.sub.counters.hits += 1
    else:
        counters = entry.sub.counters
        counters.note_wait(0.0)  # before all else: if it raises, no lease has begun
        counters.other_leases += 1
    lease: Lease[LinkT, TaskT] = _new(Lease)  # without the call of its `__init__`
    lease.entry = entry
    lease.holder = holder
    lease.since = now
    entry.leases = (lease,)
    entry.uses = uses + 1
    return lease


def keep(lease: AnyLease, now: float) -> bool:
    """`lease` is over. Its connection is active, clean and alive, its endpoint is straight.

    Returns False, and has changed nothing, if the connection may not be kept.
    """
    entry = lease.entry
    sub = entry.sub
    lapses_at = now + sub.max_idle_time
    if lapses_at > entry.expires_at:
        lapses_at = entry.expires_at
        if now >= lapses_at:  # it is too old, or doomed
            return False
    counters = sub.counters
    recent = counters.use_time.recent
    recent.append(now - lease.since)  # first: if it raises, the books still have the lease
    entry.leases = ()
    entry.was_idle = True
    entry.idle_since = now
    entry.lapses_at = lapses_at
    entry.state = _IDLE
    sub.used_at = now
    sub.idle[entry] = None
    if len(recent) >= MOST_RECENT:
        counters.use_time = counters.use_time.settled()
    return True


def pass_on(lease: AnyLease, now: float, timetable: Timetable) -> AnyWaiter | None:
    """As `keep`, where somebody waits: the first in line gets the connection, and is returned.

    Returns None, and has changed nothing, if another has a better claim, or nobody any more.
    """
    entry = lease.entry
    sub = entry.sub
    queue = sub.queue
    expires_at = entry.expires_at
    if now >= expires_at or queue.rows or queue.fresh_line or queue.codel is not None:
        return None
    waiter = next(iter(queue.line))
    if waiter.deadline <= now:
        return None
    counters = sub.counters
    recent = counters.use_time.recent
    if len(recent) >= MOST_RECENT:  # before all else: if it raises, nothing has changed
        counters.use_time = counters.use_time.settled()
        recent = counters.use_time.recent
    recent.append(now - lease.since)
    entry.leases = ()
    entry.was_idle = False
    entry.idle_since = now
    lapses_at = now + sub.max_idle_time
    entry.lapses_at = lapses_at if lapses_at < expires_at else expires_at  # noqa: FURB136
    sub.used_at = now
    del queue.line[waiter]
    sub.waiting -= 1
    waiter.queued = False
    waiter.entry = entry
    if waiter.is_timed:
        sub.timed -= 1
        timetable.remove(waiter)
    return waiter


def withdraw(waiter: AnyWaiter, timetable: Timetable) -> bool:
    """`waiter`, which is queued, was cancelled.

    Returns False, and has changed nothing, if more depends on it than its place in a line.
    """
    sub = waiter.subs[0]
    line = sub.queue.line
    if not sub.is_straight or waiter not in line:
        return False
    waiter.queued = False
    del line[waiter]
    sub.waiting -= 1
    if waiter.is_timed:
        sub.timed -= 1
        timetable.remove(waiter)
    return True
