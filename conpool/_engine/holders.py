"""Who holds the slots that a caller waited for in vain, and whether that can ever end.

A time-out comes when a pool is at its worst, and often to hundreds of callers in one tick of the
timer. So the engine makes one `Slots` for each limit and tick, and all who waited for that limit
share it: the first of them to wake describes the holders, the others use its text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from inspect import currentframe
from itertools import chain, compress, repeat
from operator import attrgetter, is_
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple, TypeAlias, final

from trio.lowlevel import Task, current_task

from conpool._connection.pooled import PooledCore, PooledEntry, PooledLease, PooledSub, PooledWaiter
from conpool._core.limit import Limit
from conpool._core.records import Waiter
from conpool._stats.report import duration
from conpool._values.states import ConnectionState, WaitOutcome

DESCRIBED: Final = 12
"""How many holders an error describes. Nobody reads more, and each costs a walk over its frames."""

_MOST_LOOKED_AT: Final = 1_000
"""Leases looked at in one tick to find deadlocks, in about a millisecond; beyond, none is told."""

_ACTIVE = ConnectionState.ACTIVE
_COUNTED: Final = (
    _ACTIVE,
    ConnectionState.IDLE,
    ConnectionState.CONNECTING,
    ConnectionState.CLOSING,
)
_state_of = attrgetter("state")

PooledLimit: TypeAlias = Limit[Any]


class Holders(NamedTuple):
    """The leases that use up a limit, as seen by a task that got none."""

    lines: tuple[str, ...]
    others: int
    """How many leases there are beyond those in `lines`."""
    held_by_caller: int
    counts: str
    """Of the whole pool's slots: how many connections in each state take them up."""


class _Described(NamedTuple):
    task: Task
    head: str
    place: str

    @property
    def line(self) -> str:
        return f"{self.head}, {self.place}"


@final
class Slots:
    """The slots of one limit, which callers waited for in vain."""

    __slots__ = ("_counts", "_described", "_held", "is_deadlock", "is_pool_wide", "limit")

    def __init__(self, limit: PooledLimit, *, is_pool_wide: bool, is_deadlock: bool) -> None:
        self.limit = limit
        self.is_pool_wide = is_pool_wide
        """Whether these are the slots of the whole pool, and not those of one endpoint."""
        self.is_deadlock = is_deadlock
        """Whether those who hold the slots all wait for a connection themselves."""
        self._held: Counter[Task] | None = None
        self._described: tuple[_Described, ...] = ()
        self._counts = ""

    def find_holders(self, now: float) -> Holders:
        """Say who holds the slots, where each holder waits and for how long it has held."""
        if self._held is None:
            self._describe(now)
        assert self._held is not None
        caller = current_task()
        held_by_caller = self._held[caller]
        lines = tuple(
            f"{one.head}, the caller itself" if one.task is caller else one.line
            for one in self._described
        )
        return Holders(lines, self._held.total() - len(lines), held_by_caller, self._counts)

    def _describe(self, now: float) -> None:
        # There may be 10,000 leases: all loops over them run in C, a few milliseconds together.
        entries: list[PooledEntry] = list(self.limit.borrowers)
        states = list(map(_state_of, entries))
        if self.is_pool_wide:
            counts = (f"{states.count(state)} {state.value}" for state in _COUNTED)
            self._counts = f"{', '.join(counts)}, limit {self.limit.total}"
        leases = sorted(_find_leases(entries), key=attrgetter("since"))
        self._held = Counter(map(attrgetter("holder"), leases))
        self._described = tuple(
            _describe(lease, now, says_where=self.is_pool_wide) for lease in leases[:DESCRIBED]
        )


def count_holders(entries: Iterable[PooledEntry]) -> Counter[Task]:
    """Return how many of `entries` each task holds."""
    return Counter(map(attrgetter("holder"), _find_leases(list(entries))))


def describe_leases(entries: Iterable[PooledEntry], now: float) -> tuple[tuple[str, ...], int]:
    """Return a line for each lease of `entries`, a dozen at most, and how many more there are."""
    leases = sorted(_find_leases(list(entries)), key=attrgetter("since"))
    lines = tuple(_describe(lease, now, says_where=True).line for lease in leases[:DESCRIBED])
    return lines, len(leases) - len(lines)


def _describe(lease: PooledLease, now: float, *, says_where: bool) -> _Described:
    task, entry = lease.holder, lease.entry
    where = f" to {entry.sub.endpoint}" if says_where else ""
    held = now - lease.since
    head = f"task {task.name!r} has held connection {entry.id}{where} for {duration(held)}"
    return _Described(task, head, _find_place(task))


def _find_leases(entries: list[PooledEntry]) -> Iterator[PooledLease]:
    """Return the leases of those of `entries` that are active, also the ones of checks."""
    active = list(compress(entries, map(is_, map(_state_of, entries), repeat(_ACTIVE))))
    leases: Iterator[PooledLease] = chain.from_iterable(map(attrgetter("leases"), active))
    checks: Iterator[PooledLease] = filter(None, map(attrgetter("check"), active))
    return chain(leases, checks)


@final
class Tick:
    """Finds, for waiters whose time is up in the same tick, the slots that they waited for.

    A deadlock is a set of limits of which no slot can come free, because each is taken by a lease
    whose holder waits for a slot of such a limit itself. So the search starts at one limit, goes on
    to those that the holders wait for, and ends at the first slot that may come free: one that is
    not lent, or whose holder waits for nothing in a pool.
    """

    def __init__(self, core: PooledCore) -> None:
        self._core = core
        self._slots: dict[PooledLimit, Slots] = {}
        self._deadlocked: set[PooledLimit] = set()
        self.looked_at = 0
        """How many leases this search has looked at."""

    def find_all_slots(self, waiter: PooledWaiter) -> tuple[Slots, ...]:
        """Return what `waiter` waits for: one limit, or that of each member of its group."""
        found = (self.find_slots(waiter, sub) for sub in waiter.subs)
        return tuple(dict.fromkeys(found))

    def find_slots(self, waiter: PooledWaiter, sub: PooledSub) -> Slots:
        """Return what `waiter` waits for: slots of `sub`, or of the whole pool if that is full."""
        full = self._find_full_limit(sub)
        limit = sub.limit
        if full is not None and waiter.coming is None and not sub.gate.is_paused:
            limit = full
        slots = self._slots.get(limit)
        if slots is None:
            slots = Slots(
                limit,
                is_pool_wide=limit is self._core.pool_limit.limit,
                is_deadlock=limit is full and self._is_deadlocked(limit),
            )
            self._slots[limit] = slots
        return slots

    def _find_full_limit(self, sub: PooledSub) -> PooledLimit | None:
        """Return the limit that keeps waiters of `sub` from a slot, if one is known to do so."""
        if not sub.limit.has_free_slot:
            return sub.limit
        pool_limit = self._core.pool_limit.limit
        is_own = self._core.subs.get(sub.endpoint) is sub  # a holder may wait in another pool
        return pool_limit if is_own and not pool_limit.has_free_slot else None

    def _is_deadlocked(self, limit: PooledLimit) -> bool:
        seen = {limit}
        pending = [limit]
        while pending:
            for entry in pending.pop().borrowers:
                waiters = self._find_waiting_holders(entry)
                if not waiters:
                    return False
                for sub in chain.from_iterable(waiter.subs for waiter in waiters):
                    wanted = self._find_full_limit(sub)
                    if wanted is None:
                        return False
                    if wanted not in seen and wanted not in self._deadlocked:
                        seen.add(wanted)
                        pending.append(wanted)
        self._deadlocked |= seen
        return True

    def _find_waiting_holders(self, entry: PooledEntry) -> list[PooledWaiter]:
        """Return for what the holders of `entry` wait; nothing if one of them may give it back."""
        waiters: list[PooledWaiter] = []
        if entry.state is _ACTIVE:
            for lease in entry.leases:
                self.looked_at += 1
                waiter = lease.holder.custom_sleep_data  # see `park`
                if self.looked_at > _MOST_LOOKED_AT or not _waits(waiter):
                    return []
                waiters.append(waiter)
        return waiters


def _waits(waiter: object) -> bool:
    """Whether a task sleeps as `waiter`, or would, had its time not run out this very moment."""
    return isinstance(waiter, Waiter) and (waiter.queued or waiter.outcome is WaitOutcome.TIMEOUT)


# ── where a task is ─────────────────────────────────────────────────────────────


def _find_place(task: Task) -> str:
    """Say where `task` waits: its innermost frame outside trio and this package."""
    if task is current_task():  # the first who woke: it waited where it is now
        return _find_own_place()
    place = "has ended"
    if getattr(task.coro, "cr_frame", task) is None:  # trio before 0.32 stumbles over it
        return place
    for frame, line in task.iter_await_frames():
        if _is_users(frame):
            place = _say_place(frame.f_code, line)
    return place


def _find_own_place() -> str:
    frame = _find_own_frame()
    return "waits" if frame is None else _say_place(frame.f_code, frame.f_lineno)


def find_site() -> tuple[str, str, int] | None:
    """Return the function, the file and the line outside this package that the caller runs for."""
    frame = _find_own_frame()
    return frame and (frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno)


def _find_own_frame() -> FrameType | None:
    frame: FrameType | None = currentframe()
    while frame is not None and not _is_users(frame):
        frame = frame.f_back
    return frame


_OTHERS: Final = frozenset({"trio", "conpool", "contextlib"})
"""Whose frames say nothing about the user's program."""


def _is_users(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] not in _OTHERS


def _say_place(code: CodeType, line: int) -> str:
    return f"waits in {code.co_qualname} ({code.co_filename}:{line})"
