from __future__ import annotations

import math
from typing import Any

import pytest

from conpool._core import standing
from conpool._core.chores import PIECE
from conpool._core.dials import count_wanted
from conpool._core.gate import Gate
from conpool._core.records import (
    AnyEntry,
    AnySubPool,
    AnyWaiter,
    Entry,
    SubPool,
    Waiter,
    Warmer,
)
from conpool._core.seen import see
from conpool._stats.snapshot import EndpointStats
from conpool._values.config import PoolConfig
from conpool._values.states import CloseReason, WaitOutcome
from tests.support.shell import HERE, Refused, Shell, SteadyRandom, lend_many, make_sub


def subpool(**settings: Any) -> AnySubPool:
    return make_sub(**settings)


def queue(sub: AnySubPool, count: int, *, fresh: bool = False) -> list[AnyWaiter]:
    waiters: list[AnyWaiter] = [Waiter((sub,), 0.0, math.inf, fresh) for _ in range(count)]
    lines = standing.open_queue(sub)
    line = lines.fresh_line if fresh else lines.line
    for waiter in waiters:
        waiter.number = sub.waiting
        sub.waiting += 1
        line[waiter] = None
    return waiters


def dial_for(sub: AnySubPool, waiter: AnyWaiter) -> None:
    sub.queue.remove(waiter)
    waiter.coming = Entry(1, sub, 0.0)
    sub.queue.put_aside(waiter)


# ── how many dials ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("waiting", "connecting", "open", "wanted"),
    [
        (0, 0, 0, 0),
        (1, 0, 0, 1),
        (3, 0, 0, 3),
        (3, 1, 0, 2),  # no more dials than waiters
        (1, 3, 0, 0),  # those whose waiters have gone serve the next
        (9, 0, 0, 4),  # nor than max_connecting
        (9, 3, 0, 1),
        (9, 0, 3, 2),  # nor than the limit leaves
        (9, 1, 4, 0),
        (1, 0, 5, 0),
    ],
)
def test_wants_as_many_dials_as_waiters_lack_and_limits_allow(
    waiting: int, connecting: int, open: int, wanted: int
) -> None:
    """G1, G31."""
    sub = subpool(max_connections_per_endpoint=5, max_connecting_per_endpoint=4)
    queue(sub, waiting)
    sub.connecting = connecting
    for number in range(open + connecting):
        sub.limit.charge(Entry(number, sub, 0.0))
    assert count_wanted(sub) == wanted


def test_wants_no_dials_when_the_limit_is_below_what_there_is() -> None:
    sub = subpool(max_connections_per_endpoint=2)
    queue(sub, 3)
    for number in range(2):
        sub.limit.charge(Entry(number, sub, 0.0))
    sub.limit.total = 1
    assert count_wanted(sub) == 0


def test_wants_no_dials_for_those_whom_checks_may_serve() -> None:
    sub = subpool()
    queue(sub, 3)
    sub.checking = 2
    assert count_wanted(sub) == 1


def test_checks_are_no_supply_for_those_who_want_a_new_connection() -> None:
    sub = subpool()
    queue(sub, 3, fresh=True)
    queue(sub, 1)
    sub.checking = 2
    assert (sub.count_coming(), count_wanted(sub)) == (1, 3)


def test_f146_dials_in_vain_are_no_supply() -> None:
    sub = subpool()
    queue(sub, 2)
    sub.connecting, sub.void = 2, 2
    assert (sub.count_coming(), count_wanted(sub)) == (0, 2)


def test_dials_in_vain_count_as_dials_that_run_at_once() -> None:
    """G31."""
    sub = subpool(max_connecting_per_endpoint=2)
    queue(sub, 5)
    sub.connecting, sub.void = 2, 2
    assert count_wanted(sub) == 0


def test_wants_no_more_dials_than_there_are_waiters_without_one() -> None:
    """One may have a dial or a check at another endpoint of its group."""
    sub = subpool()
    waiters = queue(sub, 3)
    dial_for(sub, waiters[0])
    assert count_wanted(sub) == 2


def test_what_the_waiters_lack_does_not_depend_on_slots() -> None:
    sub = subpool(max_connections_per_endpoint=1)
    queue(sub, 3)
    sub.limit.charge(Entry(1, sub, 0.0))
    assert count_wanted(sub) == 0


# ── what is to spare ────────────────────────────────────────────────────────────


def test_a_dial_is_spare_when_more_are_under_way_than_wait() -> None:
    sub = subpool()
    entry: AnyEntry = Entry(1, sub, 0.0)
    sub.spare_dials = {entry: None}
    sub.connecting = 1
    assert sub.find_spare() is entry
    queue(sub, 1)
    assert sub.find_spare() is None


def test_a_check_is_spare_when_more_are_under_way_than_wait_for_a_used_connection() -> None:
    sub = subpool()
    entry: AnyEntry = Entry(1, sub, 0.0)
    sub.spare_checks = {entry: None}
    sub.checking = 1
    assert sub.find_spare() is entry
    queue(sub, 1, fresh=True)
    assert sub.find_spare() is entry
    queue(sub, 1)
    assert sub.find_spare() is None


def test_what_is_going_anyway_is_no_surplus() -> None:
    sub = subpool(max_connections_per_endpoint=2)
    entries: list[AnyEntry] = [Entry(number, sub, 0.0) for number in range(5)]
    sub.limit.total = 5
    for entry in entries:
        sub.limit.charge(entry)
    sub.limit.total = 1
    sub.closing, sub.void = 1, 1
    sub.leaving = {CloseReason.CLEARED: {entries[0]: None}}
    assert sub.count_surplus() == 1


@pytest.mark.parametrize(
    ("settings", "is_strict"),
    [
        ({}, False),
        ({"max_idle_per_endpoint": 3}, True),
        ({"max_idle_time": 0}, True),
    ],
)
def test_what_returns_is_looked_at_closely_where_it_may_be_one_too_many(
    settings: dict[str, Any], is_strict: bool
) -> None:
    assert subpool(**settings).is_strict == is_strict


def test_what_returns_is_looked_at_closely_while_the_endpoint_is_in_doubt() -> None:
    sub = subpool()
    sub.gate.failed(Refused(), 0.0, in_doubt=True)
    sub.note_rules()
    assert sub.is_strict


def test_a_dial_is_in_vain_if_it_was_given_up_or_is_older_than_a_clear() -> None:
    sub = subpool()
    given_up, old = Entry(1, sub, 0.0), Entry(2, sub, 0.0)
    assert (given_up.is_void, old.is_void) == (False, False)
    given_up.is_given_up = True
    sub.generation += 1
    assert (given_up.is_void, old.is_void) == (True, True)


# ── for whom ────────────────────────────────────────────────────────────────────


def test_the_oldest_waiter_without_a_dial_is_next() -> None:
    """G13."""
    sub = subpool()
    waiters = queue(sub, 4)
    dial_for(sub, waiters[0])
    assert sub.queue.find(is_unprovided=True) is waiters[1]
    dial_for(sub, waiters[2])
    assert sub.queue.find(is_unprovided=True) is waiters[1]


def test_the_only_one_without_a_dial_is_found_wherever_it_stands() -> None:
    for last in range(3):
        sub = subpool()
        waiters = queue(sub, 3)
        for number, waiter in enumerate(waiters):
            if number != last:
                dial_for(sub, waiter)
        assert sub.queue.find(is_unprovided=True) is waiters[last]


def test_nobody_is_next_when_all_have_dials_or_nobody_waits() -> None:
    sub = subpool()
    assert sub.queue.find(is_unprovided=True) is None
    for waiter in queue(sub, 2):
        dial_for(sub, waiter)
    assert sub.queue.find(is_unprovided=True) is None


# ── what is left to lose ────────────────────────────────────────────────────────


def test_counters_alone_do_not_keep_the_books_of_an_endpoint() -> None:
    sub = subpool()
    sub.counters.total_created = 7
    sub.gate.failed(Refused(), 0.0)
    assert sub.is_bare


def test_a_connection_a_waiter_a_warmer_a_limit_or_a_pause_keeps_them() -> None:
    kept = [subpool() for _ in range(5)]
    kept[0].limit.charge(Entry(1, kept[0], 0.0))
    queue(kept[1], 1)
    kept[2].warmers = {Warmer(kept[2], 1): None}
    kept[3].resized = True
    kept[4].gate.paused()
    assert [sub.is_bare for sub in kept] == [False] * 5


# ── numbers ─────────────────────────────────────────────────────────────────────


def test_a_snapshot_has_each_number_in_its_place() -> None:
    """G30."""
    shell = Shell(max_connections_per_endpoint=5, is_courteous=True)
    retired, returned, _ = (shell.lend() for _ in range(3))
    assert retired.entry is not None
    shell.retire(retired)
    shell.release(retired)
    for _ in range(3):
        shell.ask()
    shell.pause()
    shell.release(returned)
    sub = shell.sub()
    assert see(sub, shell.now + 2.0) == EndpointStats.of(
        HERE,
        limit=5,
        active=1,
        idle=1,
        connecting=2,
        closing=1,
        waiting=3,
        oldest_wait=2.0,
        paused=True,
        counters=sub.counters,
    )


def test_a_snapshot_counts_what_is_checked_in_the_background_as_active() -> None:
    """G30."""
    shell = Shell()
    shell.release(shell.lend())
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    snapshot = see(shell.sub(), 0.0)
    assert (snapshot.active, snapshot.idle) == (1, 0)


def test_a_snapshot_counts_what_is_to_leave_as_closing() -> None:
    """G30."""
    shell = Shell(is_watched=False)
    for caller in lend_many(shell, 2):
        shell.release(caller)
    shell.core._ledger.set_idle_aside(shell.sub(), CloseReason.CLEARED)
    snapshot = see(shell.sub(), 0.0)
    assert (snapshot.idle, snapshot.closing) == (0, 2)


def test_an_endpoint_starts_with_its_own_settings() -> None:
    config = PoolConfig(
        max_connections_per_endpoint=3,
        max_connecting_per_endpoint=2,
        min_idle_per_endpoint=1,
        max_waiting_per_endpoint=9,
        max_connection_uses=4,
        max_idle_per_endpoint=1,
        max_idle_time=5,
        acquire_timeout=6,
    )
    sub: AnySubPool = SubPool(HERE, config, Gate(SteadyRandom()), 7.0)
    assert (sub.limit.total, sub.max_connecting, sub.min_idle) == (3, 2, 1)
    assert (sub.max_waiting, sub.max_uses, sub.max_idle_time) == (9, 4, 5.0)
    assert (sub.acquire_timeout, sub.used_at, sub.max_idle) == (6.0, 7.0, 1)


def test_no_limit_is_none_that_can_be_reached() -> None:
    sub = subpool()
    assert (sub.max_uses, sub.max_idle) == (math.inf, math.inf)
    assert sub.max_connecting > 10**9


def test_each_record_shows_its_state_and_counts() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    holder, other = shell.lend(), shell.ask()
    assert (
        repr(shell.sub()) == "<SubPool here.example:1: 0 idle, 1 active, 0 connecting,"
        " 1 waiting, <Limit 1/1>>"
    )
    assert repr(holder.entry) == "<Entry 1 to here.example:1 active, 1 leases, 1 uses>"
    waiter = other.waiter
    assert waiter is not None
    assert repr(waiter) == "<Waiter 2 queued>"
    waiter.queued = False
    assert repr(waiter) == "<Waiter 2 idle>"
    waiter.outcome = WaitOutcome.TIMEOUT
    assert repr(waiter) == "<Waiter 2 WaitOutcome.TIMEOUT>"
    warmer = Warmer(shell.sub(), 3)
    assert repr(warmer) == "<Warmer to 3>"
    warmer.queued = False
    assert repr(warmer) == "<Warmer to 3 done>"


def test_connections_that_go_away_do_not_count_as_lent() -> None:
    shell = Shell(is_courteous=True, is_watched=False, max_connections_per_endpoint=3 * PIECE)
    callers = [shell.lend() for _ in range(2 * PIECE)]
    for caller in callers[1:]:
        shell.release(caller)
    shell.ask()  # is lent the newest
    shell.ask()
    shell.close_idle()
    sub = shell.sub()
    assert sub.leaving
    assert sub.closing
    assert sub.active == 3
