"""Sees at once what otherwise somebody learns at a time-out, and warns of it in the log, once each.

- A deadlock. It is complete when a task that holds a connection goes to sleep in a queue, so each
  task that does is asked whether all slots that it waits for are held by such sleepers. The first
  holder that is awake ends the search. Where nearly all sleep, a search is long: then a few tasks
  after it go unasked, so that each pays for about a hundred leases at most.
- A pool for each request: one line of code that opens pool after pool in the same run. Nothing is
  reused, and no limit holds for all of them together.
- Leases that outlive the pool's `shutdown_grace`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Final, TypeAlias, final

from trio.lowlevel import RunVar

from conpool._connection.pooled import PooledCore, PooledEntry, PooledWaiter
from conpool._core.records import Waiter
from conpool._engine.holders import Slots, Tick, describe_leases, find_site
from conpool._errors.pool_log import PoolLog
from conpool._values.group import Target

HANDFUL: Final = 5
"""How many pools one line of code may open in a run without a warning."""

_PER_TASK: Final = 100
"""Leases that a search may look at without anybody going unasked after it."""

_MOST_TOLD: Final = 100
"""Of how many endpoints and groups a pool tells that they were in a deadlock."""

_Site: TypeAlias = tuple[str, str, int]


@final
class Deadlocks:
    """Warns of deadlocks as they come to be."""

    __slots__ = ("_core", "_log", "_told", "_unasked")

    def __init__(self, core: PooledCore, log: PoolLog) -> None:
        self._core = core
        self._log = log
        self._told: set[Target] = set()
        self._unasked = 0
        """How many tasks may go to sleep until the next search."""

    def look(self, waiter: PooledWaiter) -> None:
        """Warn if the task of `waiter`, which is about to sleep, completes a deadlock."""
        sub = waiter.subs[0]
        if sub.is_straight:  # nearly always the first holder is awake, or about to be
            first = next(iter(sub.limit.borrowers), None)  # none while its gate is shut
            lease = None if first is None else next(iter(first.leases), None)
            if lease is None or type(lease.holder.custom_sleep_data) is not Waiter:
                return
        if self._unasked:
            self._unasked -= 1
            return
        target = waiter.subs[0].endpoint if waiter.group is None else waiter.group.target
        if target in self._told or len(self._told) >= _MOST_TOLD:
            return
        tick = Tick(self._core)
        slots = tick.find_all_slots(waiter)
        self._unasked = tick.looked_at // _PER_TASK
        if all(one.is_deadlock for one in slots):
            self._told.add(target)
            self._warn(slots, target, waiter.since)

    def _warn(self, slots: tuple[Slots, ...], target: Target, now: float) -> None:
        borrowers = chain.from_iterable(one.limit.borrowers for one in slots)
        self._log.about(target).warning(
            "deadlock at %s: the tasks that hold its connections%s all wait for a connection"
            " themselves, and none comes free before one of them gives up. Acquire once and pass"
            " the connection on, or raise the limit above the number of such tasks. Held by:%s",
            target,
            " and those of the whole pool" if any(one.is_pool_wide for one in slots) else "",
            _say_who(borrowers, now),
        )


_sites: Final[RunVar[Counter[_Site]]] = RunVar("conpool sites")


def note_opened(log: PoolLog) -> None:
    """A pool is opened: warn if the same line of code has opened a handful in this run."""
    try:
        sites = _sites.get()
    except LookupError:
        sites = Counter[_Site]()
        _sites.set(sites)
    site = find_site()
    if site is None:
        return
    sites[site] += 1
    if sites[site] == HANDFUL + 1:
        name, file, line = site
        log.warning(
            "%s (%s:%d) has opened %d pools in this run. A pool for each request or task reuses"
            " nothing, and all of them together have no limit: open one pool where the program"
            " starts, and pass it on",
            name,
            file,
            line,
            sites[site],
        )


def warn_of_cut_off(log: PoolLog, entries: Iterable[PooledEntry], grace: float, now: float) -> None:
    """Warn of leases that the pool ends because they have outlived its grace."""
    holders = _say_who(entries, now)
    if holders:
        log.warning(
            "the leases below have outlived the shutdown_grace of %g s, and the pool closes their"
            " connections under them:%s",
            grace,
            holders,
        )


def _say_who(entries: Iterable[PooledEntry], now: float) -> str:
    try:
        lines, others = describe_leases(entries, now)
    except Exception as error:  # noqa: BLE001 - a warning must not break what goes well
        return f"\n  (they cannot be described: {error!r})"
    more = [f"and {others} more"] if others else []
    return "".join(f"\n  {line}" for line in (*lines, *more))
