"""The straight line does what the general way does, or nothing.

The model checker compares both in all its worlds. Here is what these have not: many leases, and
each of the reasons for which an endpoint is not straight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from conpool._core import straight
from conpool._core.outgoing import doom
from conpool._stats.counters import Counters
from conpool._stats.histogram import MOST_RECENT, Histogram
from conpool._values.states import CloseReason, ConnectionState, WaitOutcome
from tests.support.shell import HERE, Shell


def lend_once(shell: Shell) -> None:
    shell.release(shell.lend())


def test_an_idle_hit_goes_straight_both_ways() -> None:
    shell = Shell()
    lend_once(shell)
    shell.went_straight = 0
    lend_once(shell)
    assert shell.went_straight == 3
    counters = shell.sub().counters
    assert (counters.acquired, counters.total_reused, counters.hits) == (2, 1, 1)
    assert counters.use_time.count == counters.wait_time.count == 2


def test_the_first_lease_of_a_warmed_connection_is_not_reused() -> None:
    shell = Shell()
    shell.warm(1)
    shell.dial_succeeds()
    lend_once(shell)
    counters = shell.sub().counters
    assert (counters.acquired, counters.total_reused, counters.hits) == (1, 0, 0)


def test_durations_are_counted_in_bulk_and_none_is_lost() -> None:
    shell = Shell()
    for number in range(3 * MOST_RECENT):
        caller = shell.lend()
        shell.advance(number % 7)
        shell.release(caller)
        uses = shell.sub().counters.use_time
        assert uses.count == number + 1
        assert len(uses.recent) < MOST_RECENT
    expected = sum(number % 7 for number in range(3 * MOST_RECENT))
    assert shell.sub().counters.use_time.total == expected


def test_durations_are_counted_in_bulk_on_the_general_way_too() -> None:
    shell = Shell()
    shell.goes_straight = False
    for number in range(3 * MOST_RECENT):
        lend_once(shell)
        counters = shell.sub().counters
        assert len(counters.other_waits.recent) < MOST_RECENT
        assert len(counters.use_time.recent) < MOST_RECENT
        assert counters.use_time.count == counters.wait_time.count == number + 1


def test_durations_are_counted_in_bulk_where_connections_go_from_one_to_the_next() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    callers = [shell.lend()]
    callers += [shell.ask() for _ in range(3 * MOST_RECENT)]
    for number, caller in enumerate(callers):
        shell.release(caller)
        uses = shell.sub().counters.use_time
        assert len(uses.recent) <= MOST_RECENT
        assert uses.count == number + 1


def test_one_that_has_lapsed_stays_where_it_is() -> None:
    shell = Shell(max_idle_time=5.0)
    lend_once(shell)
    sub = shell.sub()
    assert straight.take(sub, 4.9) is not None
    lend_once(other := Shell(max_idle_time=5.0))
    sub = other.sub()
    before = list(sub.idle)
    assert straight.take(sub, 5.0) is None
    assert list(sub.idle) == before
    assert before[0].state is ConnectionState.IDLE


@pytest.mark.parametrize(("lifetime", "lapses_at"), [(5.0, None), (9.9, 9.9), (11.0, 10.0)])
def test_one_is_kept_until_the_earlier_of_its_two_ends(
    lifetime: float, lapses_at: float | None
) -> None:
    shell = Shell(max_idle_time=5.0, max_connection_lifetime=lifetime, lifetime_jitter=0.0)
    lease = shell.lend().lease
    assert lease is not None
    assert straight.keep(lease, 5.0) is (lapses_at is not None)
    assert (lease in lease.entry.leases) is (lapses_at is None)
    assert lapses_at in {None, lease.entry.lapses_at}


def test_one_that_is_doomed_is_not_kept() -> None:
    shell = Shell()
    lease = shell.lend().lease
    assert lease is not None
    assert lease.entry.expires_at == math.inf
    doom(lease.entry, CloseReason.DISCARDED)
    assert not straight.keep(lease, 0.0)


def have_too_many(shell: Shell) -> None:
    shell.lend()
    shell.set_limit(1)


REASONS: dict[str, Callable[[Shell], object]] = {
    "paused": lambda shell: shell.pause(HERE),
    "marked": lambda shell: shell.mark(HERE),
    "warming": lambda shell: shell.warm(2, HERE),
    "too many": have_too_many,
}
SETTINGS: dict[str, dict[str, object]] = {
    "uses are limited": {"max_connection_uses": 9},
    "idle ones are limited": {"max_idle_per_endpoint": 1},
    "nothing is kept": {"max_idle_time": 0.0},
    "kept warm": {"min_idle_per_endpoint": 1},
    "the pool is limited": {"max_connections": 9},
    "checked": {"is_checked": True, "health_check_after": 1.0},
    "reset": {"has_resets": True},
    "shared": {"shares": True},
}


@pytest.mark.parametrize("reason", REASONS)
def test_not_straight_while(reason: str) -> None:
    shell = Shell()
    lend_once(shell)
    assert shell.sub().is_straight
    shell.lend()
    REASONS[reason](shell)
    assert not shell.sub().is_straight


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_never_straight_where(settings: dict[str, object]) -> None:
    assert not Shell(**settings).sub().is_straight  # type: ignore[arg-type]


def test_not_straight_until_all_that_was_cleared_has_gone() -> None:
    shell = Shell()
    old = shell.lend()
    shell.clear()
    assert not shell.sub().is_straight
    shell.release(old)
    assert shell.sub().is_straight


def test_straight_again_once_the_surplus_has_gone() -> None:
    shell = Shell()
    callers = [shell.lend(), shell.lend()]
    shell.set_limit(1)
    shell.release(callers[0])
    assert shell.sub().is_straight


def test_straight_again_once_a_pause_a_mark_and_warming_are_over() -> None:
    shell = Shell()
    lend_once(shell)
    shell.pause()
    shell.resume()
    assert shell.sub().is_straight
    shell.mark()
    shell.mark(is_unhealthy=False)
    assert shell.sub().is_straight
    warmer = shell.warm(2)
    assert not shell.sub().is_straight
    shell.cancel_warming(warmer)
    assert shell.sub().is_straight


def test_not_straight_while_it_is_not_known_whether_the_server_serves() -> None:
    shell = Shell()
    shell.lose_early(shell.lend())
    assert not shell.sub().is_straight
    shell.advance(60.0)
    caller = shell.lend()
    assert not shell.sub().is_straight
    shell.release(caller)
    assert shell.sub().is_straight


def test_straight_again_once_the_limit_is_higher() -> None:
    shell = Shell()
    shell.lend(), shell.lend()
    shell.set_limit(1)
    shell.set_limit(2)
    assert shell.sub().is_straight


def test_not_straight_where_the_shell_must_be_told_of_leases() -> None:
    sub = Shell().sub()
    assert sub.is_straight
    sub.is_plain = False
    sub.note_rules()
    assert not sub.is_straight


# ── both ways lead to the same ──────────────────────────────────────────────────


def books(shell: Shell) -> dict[str, Any]:
    """All that one of the ways could leave otherwise than the other."""
    sub = shell.sub()
    entries = sorted(sub.limit.borrowers, key=lambda entry: entry.id)
    counters = sub.counters
    return {
        "entries": [
            (
                *(entry.state, entry.was_idle, entry.idle_since, entry.lapses_at, entry.uses),
                [(lease.entry is entry, lease.since) for lease in entry.leases],
            )
            for entry in entries
        ],
        "idle": [entries.index(entry) for entry in sub.idle],
        "sub": (sub.used_at, sub.waiting, sub.timed, sub.active, sub.outgoing),
        "rows": (repr(shell.core.timetable), sub.due_at),
        "line": [waiter.number for waiter in sub.queue.line],
        "callers": [
            (
                caller.outcome,
                None if caller.entry is None else entries.index(caller.entry),
                None if (waiter := caller.waiter) is None else (waiter.queued, waiter.row is None),
            )
            for caller in shell.callers
        ],
        "holders": [
            shell.callers.index(lease.holder) for entry in entries for lease in entry.leases
        ],
        "counters": (
            *(counters.acquired, counters.total_reused),
            *(counters.wait_time.count, counters.use_time.count, counters.use_time.total),
        ),
    }


def return_and_lend_again(shell: Shell) -> None:
    first, second = shell.lend(), shell.lend()
    shell.advance(1.0)
    shell.release(first)
    shell.advance(1.0)
    shell.release(second)
    shell.advance(1.0)
    again = shell.lend()
    shell.advance(0.5)
    shell.release(again)


def return_and_hold(shell: Shell) -> None:
    lend_once(shell)
    shell.advance(1.0)
    shell.lend()


def hand_over(shell: Shell) -> None:
    """To two in line; the third stays there."""
    shell.set_limit(1)
    holder = shell.lend()
    timeouts = [None, 5.0, None, 7.0]
    callers = [shell.ask(HERE, timeout=timeout) for timeout in timeouts]
    for caller in [holder, *callers[:-2]]:
        shell.advance(1.0)
        shell.release(caller)


def hand_over_what_was_idle(shell: Shell) -> None:
    lend_once(shell)
    shell.advance(1.0)
    hand_over(shell)


def hand_over_to_all(shell: Shell) -> None:
    shell.set_limit(1)
    holder = shell.lend()
    callers = [shell.ask(HERE, timeout=timeout) for timeout in (None, 50.0)]
    for caller in [holder, *callers]:
        shell.advance(1.0)
        shell.release(caller)


def leave_the_line(shell: Shell) -> None:
    """One covered by its endpoint's row, and two with rows of their own; the last one stays."""
    shell.set_limit(1)
    holder = shell.lend()
    callers = [shell.ask(HERE, timeout=timeout) for timeout in (9.0, 8.0, 10.0, 7.0)]
    for caller in callers[:3]:
        shell.cancel(caller)
    shell.release(holder)


def leave_what_is_under_way(shell: Shell) -> None:
    first = shell.ask(HERE)
    shell.ask(HERE)
    shell.cancel(first)


def hand_over_late(shell: Shell) -> None:
    """The first has waited too long, and nobody has told it."""
    shell.set_limit(1)
    holder = shell.lend()
    first, second = shell.ask(HERE, timeout=5.0), shell.ask(HERE)
    shell.now += 5.0
    shell.release(holder)
    assert first.outcome is WaitOutcome.TIMEOUT
    assert second.has_begun


def hand_over_at_the_end_of_its_life(shell: Shell) -> None:
    shell.set_limit(1)
    holder = shell.lend()
    shell.ask(HERE)
    shell.advance(100.0)
    shell.release(holder)


def hand_over_near_the_end_of_its_life(shell: Shell) -> None:
    shell.set_limit(1)
    holder = shell.lend()
    shell.ask(HERE)
    shell.advance(95.0)
    shell.release(holder)


def hand_over_what_is_doomed(shell: Shell) -> None:
    shell.set_limit(1)
    holder = shell.lend()
    shell.ask(HERE)
    shell.retire(holder)
    shell.release(holder)


def one_who_wants_a_new_one_came_first(shell: Shell) -> None:
    shell.set_limit(1)
    holder = shell.lend()
    shell.ask(HERE, fresh=True)
    shell.ask(HERE)
    shell.release(holder)


def one_who_wants_a_new_one_is_alone(shell: Shell) -> None:
    shell.set_limit(1)
    holder = shell.lend()
    shell.ask(HERE, fresh=True)
    shell.release(holder)


def one_with_a_dial_under_way_came_first(shell: Shell) -> None:
    holder = shell.lend()
    shell.set_limit(2)
    first = shell.ask(HERE)
    shell.ask(HERE)
    shell.release(holder)
    assert first.has_begun


def keep_at_the_end_of_its_life(shell: Shell) -> None:
    caller = shell.lend()
    shell.advance(95.0)
    shell.release(caller)
    shell.advance(5.0)
    shell.ask(HERE)


def keep_at_the_very_end_of_its_life(shell: Shell) -> None:
    caller = shell.lend()
    shell.now += 100.0
    shell.release(caller)
    assert not shell.sub().idle


def lend_what_has_lapsed(shell: Shell) -> None:
    lend_once(shell)
    shell.now += 10.0
    shell.ask(HERE)


WAYS = [
    *(return_and_lend_again, return_and_hold, hand_over, hand_over_what_was_idle, hand_over_to_all),
    *(leave_the_line, leave_what_is_under_way),
    *(hand_over_late, hand_over_at_the_end_of_its_life, hand_over_near_the_end_of_its_life),
    *(hand_over_what_is_doomed, one_who_wants_a_new_one_came_first),
    *(one_who_wants_a_new_one_is_alone, one_with_a_dial_under_way_came_first),
    *(keep_at_the_end_of_its_life, keep_at_the_very_end_of_its_life, lend_what_has_lapsed),
]


@pytest.mark.parametrize("way", WAYS)
def test_both_ways_lead_to_the_same(way: Callable[[Shell], object]) -> None:
    ends = []
    for goes_straight in (True, False):
        settings: dict[str, Any] = {"max_connection_lifetime": 100.0, "max_idle_time": 10.0}
        shell = Shell(**settings, lifetime_jitter=0.0)
        shell.goes_straight = goes_straight
        way(shell)
        ends.append(books(shell))
    assert ends[0] == ends[1]


def test_where_load_is_shed_the_first_in_line_is_asked_for_its_wait() -> None:
    ends = []
    for goes_straight in (True, False):
        shell = Shell(queue_target_delay=1.0)
        shell.goes_straight = goes_straight
        shell.set_limit(1)
        caller, everybody = shell.lend(), []
        for _ in range(12):
            everybody += [shell.ask(HERE), shell.ask(HERE)]
            shell.advance(1.5)
            shell.release(caller)
            caller = next(one for one in shell.callers if one.has_begun)
        ends.append([(one.outcome, one.has_begun) for one in everybody])
    assert ends[0] == ends[1]
    assert any(outcome is WaitOutcome.SHED for outcome, _ in ends[0])


# ── what breaks off ─────────────────────────────────────────────────────────────


def fail(*_: object) -> None:
    raise MemoryError


def test_nothing_is_handed_over_if_the_durations_cannot_be_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shell = Shell(max_connections_per_endpoint=1)
    lease = shell.lend().lease
    assert lease is not None
    waiting = shell.ask(HERE)
    shell.sub().counters.use_time.recent += [1.0] * MOST_RECENT
    with monkeypatch.context() as patch:
        patch.setattr(Histogram, "settled", fail)
        with pytest.raises(MemoryError):
            straight.pass_on(lease, shell.now, shell.core.timetable)
    waiter = waiting.waiter
    assert waiter is not None
    assert waiter.queued
    assert lease in lease.entry.leases
    served = straight.pass_on(lease, shell.now, shell.core.timetable)
    assert served is waiter
    assert not served.queued
    uses = shell.sub().counters.use_time
    assert (uses.count, uses.recent) == (MOST_RECENT + 1, [0.0])


def test_no_lease_has_begun_if_it_cannot_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell()
    shell.warm(1)
    shell.dial_succeeds()
    entry = straight.take(shell.sub(), shell.now)
    assert entry is not None
    with monkeypatch.context() as patch:
        patch.setattr(Counters, "note_wait", fail)
        with pytest.raises(MemoryError):
            straight.begin(entry, shell.callers, shell.now)
    assert (entry.leases, entry.uses) == ((), 0)
