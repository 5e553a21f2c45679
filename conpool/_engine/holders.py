"""Who holds the connections: what a time-out tells its victim."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trio

from conpool._values.states import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Set

    from conpool._core.pool_limit import PoolLimit
    from conpool._core.records import Entry, SubPool


class Holders(NamedTuple):
    """The leases of an endpoint, as seen by a task that got none."""

    lines: tuple[str, ...]
    held_by_caller: int


def find_holders(sub: SubPool, now: float) -> Holders:
    """Say who holds the connections of `sub`, where each waits and for how long it has held."""
    caller = trio.lowlevel.current_task()
    held = sorted(_find_held(sub), key=lambda entry: entry.lent_at)
    return Holders(
        lines=tuple(_describe(entry, caller, now) for entry in held),
        held_by_caller=sum(entry.holder is caller for entry in held),
    )


def is_deadlock(sub: SubPool, pool_limit: PoolLimit | None, tasks: Set[trio.lowlevel.Task]) -> bool:
    """Whether nothing but leases fills the limit, and every holder waits for this very endpoint.

    `tasks` count as waiting, although they are not in the queue, or no more.
    """
    if sub.limit.has_free_slot and (pool_limit is None or pool_limit.limit.has_free_slot):
        return False
    held = _find_held(sub)
    waiting = {waiter.task for waiter in sub.queue} | tasks
    return 0 < len(held) == len(sub.limit.borrowers) and all(
        entry.holder in waiting for entry in held
    )


def _find_held(sub: SubPool) -> list[Entry]:
    return [
        entry
        for entry in sub.limit.borrowers
        if entry.state is ConnectionState.ACTIVE and entry.holder is not None
    ]


def _describe(entry: Entry, caller: trio.lowlevel.Task, now: float) -> str:
    task: trio.lowlevel.Task = entry.holder
    where = "the caller itself" if task is caller else _find_place(task)
    return f"task {task.name!r} has held connection {entry.id} for {now - entry.lent_at:.3g} s, {where}"


def _find_place(task: trio.lowlevel.Task) -> str:
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
