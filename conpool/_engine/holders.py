"""Who holds the connections: what a time-out tells its victim."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from trio.lowlevel import Task, current_task

from conpool._connection.pooled import PooledLease, PooledSub
from conpool._core.pool_limit import PoolLimit
from conpool._values.states import ConnectionState


class Holders(NamedTuple):
    """The leases of an endpoint, as seen by a task that got none."""

    lines: tuple[str, ...]
    held_by_caller: int


def find_holders(sub: PooledSub, now: float) -> Holders:
    """Say who holds connections of `sub`, where each holder waits and for how long it has held."""
    caller = current_task()
    leases = sorted(_find_leases(sub), key=lambda lease: lease.since)
    return Holders(
        lines=tuple(_describe(lease, caller, now) for lease in leases),
        held_by_caller=sum(lease.holder is caller for lease in leases),
    )


def is_deadlock(sub: PooledSub, pool_limit: PoolLimit, tasks: Set[Task | None]) -> bool:
    """Whether nothing but leases fills the limit, and every holder waits for this very endpoint.

    `tasks` count as waiting, although they are not in the queue, or no more.
    """
    if sub.limit.has_free_slot and pool_limit.limit.has_free_slot:
        return False
    leases = _find_leases(sub)
    waiting = {waiter.task for waiter in sub.queue} | tasks
    return 0 < len(leases) == len(sub.limit.borrowers) and all(
        lease.holder in waiting for lease in leases
    )


def _find_leases(sub: PooledSub) -> list[PooledLease]:
    """Return the leases of `sub`, and who has a connection checked for itself."""
    found: list[PooledLease] = []
    for entry in sub.limit.borrowers:
        if entry.state is ConnectionState.ACTIVE:
            found += entry.leases
            if entry.check is not None and not entry.leases:
                found.append(entry.check)
    return found


def _describe(lease: PooledLease, caller: Task, now: float) -> str:
    task = lease.holder
    where = "the caller itself" if task is caller else _find_place(task)
    held = now - lease.since
    return f"task {task.name!r} has held connection {lease.entry.id} for {held:.3g} s, {where}"


def _find_place(task: Task) -> str:
    """Say where `task` waits: its innermost frame outside trio and this package."""
    place = "has ended"
    if getattr(task.coro, "cr_frame", task) is None:  # trio before 0.32 stumbles over it
        return place
    for frame, line in task.iter_await_frames():
        code = frame.f_code
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in {"trio", "conpool"}:
            place = f"waits in {code.co_qualname} ({code.co_filename}:{line})"
    return place
