"""Checks: for whom they run, and what they have found out (G21, G33)."""

from __future__ import annotations

import pytest

from conpool._core import keeping
from conpool._values.states import CloseReason, ConnectionState
from tests.support.shell import HERE, THERE, Caller, Entry, Shell, close_reasons, ids, lend_many


def with_idle(count: int, **settings: object) -> Shell:
    """A shell with that many idle connections, the first the oldest."""
    shell = Shell(is_checked=True, **settings)  # type: ignore[arg-type]
    holders: list[Caller] = []
    while len(holders) < count:
        caller = shell.ask()
        for entry in list(shell.checks):
            shell.check_succeeds(entry)
        if caller.is_waiting:
            shell.dial_succeeds()
        holders.append(caller)
    for caller in holders:
        shell.release(caller)
    return shell


# ── on behalf of a waiter ───────────────────────────────────────────────────────


def test_an_idle_connection_is_checked_before_it_is_lent() -> None:
    shell = with_idle(1)
    waiting = shell.ask()
    assert waiting.is_waiting
    (entry,) = shell.checks
    assert (entry.state, entry.awaited_by) == (ConnectionState.ACTIVE, waiting.waiter)
    shell.check_succeeds(entry)
    assert waiting.entry is entry


def test_without_a_way_to_ask_the_peer_no_check_is_due() -> None:
    shell = Shell()
    shell.release(shell.lend())
    assert shell.ask().entry is not None


def test_what_comes_back_is_handed_over_without_a_check() -> None:
    shell = with_idle(0, max_connections_per_endpoint=1)
    holder, waiting = shell.lend(), shell.ask()
    shell.release(holder)
    assert waiting.entry is not None
    assert shell.checks == []


def test_what_was_just_dialled_is_handed_over_without_a_check() -> None:
    shell = with_idle(0)
    assert shell.lend().entry is not None
    assert shell.checks == []


def test_f132_what_was_used_a_moment_ago_is_not_checked() -> None:
    shell = with_idle(1, health_check_after=2)
    shell.advance(1.9)
    assert shell.ask().entry is not None


def test_f132_what_was_checked_a_moment_ago_is_not_checked_again() -> None:
    shell = with_idle(1, health_check_after=2)
    shell.advance(10.0)
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    shell.check_succeeds(entry)
    shell.advance(1.9)
    assert shell.ask().entry is entry


def test_what_has_been_silent_for_long_enough_is_checked() -> None:
    shell = with_idle(1, health_check_after=2)
    shell.advance(2.0)
    assert shell.ask().is_waiting
    assert len(shell.checks) == 1


def test_f131_a_check_goes_on_when_its_caller_has_lost_patience() -> None:
    shell = with_idle(1)
    impatient = shell.ask(timeout=1.0)
    (entry,) = shell.checks
    shell.advance(1.0)
    assert not impatient.is_waiting
    assert shell.checks == [entry]
    shell.check_succeeds(entry)
    assert (ids(shell), close_reasons(shell)) == ([entry.id], {})


def test_f131_callers_with_less_time_than_a_check_takes_close_no_connection() -> None:
    shell = with_idle(10)
    for _ in range(10):
        shell.ask(timeout=0.3)
    shell.advance(0.3)
    assert len(shell.checks) == 10
    for entry in list(shell.checks):
        shell.check_succeeds(entry)
    assert len(ids(shell)) == 10


def test_f131_a_check_whose_caller_has_gone_serves_the_next() -> None:
    shell = with_idle(1, max_connections_per_endpoint=1)
    shell.cancel(shell.ask())
    (entry,) = shell.checks
    next_one = shell.ask()
    assert shell.checks == [entry]
    shell.check_succeeds(entry)
    assert next_one.entry is entry


def test_f131_a_check_that_fails_after_its_caller_has_gone_closes_the_connection() -> None:
    shell = with_idle(1)
    shell.cancel(shell.ask())
    (entry,) = shell.checks
    shell.check_fails(entry)
    assert close_reasons(shell) == {CloseReason.UNHEALTHY: 1}


def test_nobody_depends_on_a_check_whose_caller_has_gone_while_another_is_idle() -> None:
    shell = with_idle(2)
    shell.cancel(shell.ask())
    waiting = shell.ask()
    abandoned, check = shell.checks
    assert abandoned in shell.sub().spare_checks
    assert check.awaited_by is waiting.waiter


def test_no_dial_starts_for_one_whom_a_check_may_serve() -> None:
    shell = with_idle(1)
    shell.ask()
    assert shell.dials == []


def test_a_check_that_fails_has_the_next_idle_connection_checked() -> None:
    shell = with_idle(2)
    shell.advance(1.0)
    waiting = shell.ask()
    newest = shell.checks[0]
    shell.check_fails(newest, CloseReason.PEER_CLOSED)
    (older,) = shell.checks
    assert older.id < newest.id
    assert older.awaited_by is waiting.waiter


def test_a_check_that_fails_with_nothing_idle_left_has_a_dial_started() -> None:
    """G12."""
    shell = with_idle(1)
    waiting = shell.ask()
    shell.check_fails(shell.checks[0])
    assert [entry.awaited_by for entry in shell.dials] == [waiting.waiter]


def test_no_more_are_checked_than_wait() -> None:
    shell = with_idle(3)
    shell.ask()
    shell.ask()
    assert len(shell.checks) == 2
    assert len(ids(shell)) == 1


def test_a_finished_check_serves_the_oldest_waiter() -> None:
    """G13."""
    shell = with_idle(2)
    first, second = shell.ask(), shell.ask()
    shell.check_succeeds(shell.checks[1])
    assert first.entry is not None
    assert second.is_waiting


def test_one_for_whom_a_check_runs_takes_what_comes_back_first() -> None:
    shell = with_idle(2)
    other = shell.ask()
    shell.check_succeeds(shell.checks[0])
    waiting = shell.ask()
    shell.release(other)
    assert waiting.entry is not None
    shell.check_succeeds(shell.checks[0])
    assert len(ids(shell)) == 1


def test_one_who_wants_a_new_connection_has_nothing_checked() -> None:
    shell = with_idle(1)
    shell.ask(fresh=True)
    assert (shell.checks, len(shell.dials)) == ([], 1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_idle_time": 2}, CloseReason.IDLE_TIME),
        ({"max_connection_lifetime": 2}, CloseReason.LIFETIME),
    ],
)
def test_f149_what_lapses_while_it_is_checked_is_not_lent(
    settings: dict[str, object], reason: CloseReason
) -> None:
    """G21."""
    shell = with_idle(1, **settings)
    shell.advance(1.0)
    waiting = shell.ask()
    shell.advance(1.0)
    shell.check_succeeds(shell.checks[0])
    assert waiting.is_waiting
    assert close_reasons(shell) == {reason: 1}


def test_a_pause_lends_nothing_that_has_been_checked() -> None:
    shell = with_idle(1)
    waiting = shell.ask()
    shell.pause()
    shell.check_succeeds(shell.checks[0])
    assert (waiting.is_waiting, len(ids(shell))) == (True, 1)


def test_a_check_that_ends_after_the_end_of_the_pool_changes_nothing() -> None:
    shell = with_idle(1)
    shell.ask()
    (entry,) = shell.checks
    shell.shut()
    assert entry.state is ConnectionState.CLOSED
    shell.check_succeeds(entry)
    assert not shell.sub().limit.borrowers


# ── in the background ───────────────────────────────────────────────────────────


def test_what_is_checked_in_the_background_is_passed_over() -> None:
    shell = Shell()
    for caller in lend_many(shell, 2):
        shell.release(caller)
    older, newest = shell.sub().idle
    shell.reserve(newest)
    caller = shell.ask()
    assert caller.entry is older
    assert ids(shell) == [newest.id]


def test_what_is_checked_in_the_background_keeps_its_place_when_it_is_passed_over() -> None:
    shell = Shell()
    for caller in lend_many(shell, 3):
        shell.release(caller)
    first, second, third = shell.sub().idle
    shell.reserve(second)
    shell.reserve(third)
    assert shell.take() is first
    shell.put_back_unused(first)
    assert ids(shell) == [second.id, third.id, first.id]


def test_where_all_are_checked_in_the_background_nobody_gets_one_and_a_dial_starts() -> None:
    shell = Shell()
    shell.release(shell.lend())
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    waiting = shell.ask()
    assert waiting.is_waiting
    assert len(shell.dials) == 1
    assert ids(shell) == [entry.id]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_idle_time": 2}, CloseReason.IDLE_TIME),
        ({"max_connection_lifetime": 2}, CloseReason.LIFETIME),
    ],
)
def test_f149_what_lapses_while_it_is_checked_in_the_background_is_closed(
    settings: dict[str, object], reason: CloseReason
) -> None:
    """G21."""
    shell = with_idle(1, **settings)
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    shell.advance(2.0)
    shell.sweep()
    assert entry.state is ConnectionState.IDLE  # not before the check is over
    shell.check_succeeds(entry)
    assert close_reasons(shell) == {reason: 1}


def test_surplus_that_was_checked_when_the_limit_was_lowered_is_closed_after_the_check() -> None:
    """G1."""
    shell = Shell(max_connections_per_endpoint=2)
    for caller in lend_many(shell, 2):
        shell.release(caller)
    entries = list(shell.sub().idle)
    for entry in entries:
        shell.reserve(entry)
    shell.set_limit(1)
    assert len(ids(shell)) == 2
    for entry in entries:
        shell.check_succeeds(entry)
    assert (len(ids(shell)), close_reasons(shell)) == (1, {CloseReason.SURPLUS: 1})


def test_a_lowered_limit_closes_another_while_the_oldest_is_checked() -> None:
    shell = Shell(max_connections_per_endpoint=2)
    for caller in lend_many(shell, 2):
        shell.release(caller)
    oldest, newest = shell.sub().idle
    shell.reserve(oldest)
    shell.set_limit(1)
    assert newest.reason is CloseReason.SURPLUS
    shell.check_succeeds(oldest)
    assert ids(shell) == [oldest.id]


def test_a_check_in_the_background_that_fails_closes_the_connection() -> None:
    shell = Shell()
    shell.release(shell.lend())
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    shell.check_fails(entry)
    assert close_reasons(shell) == {CloseReason.UNHEALTHY: 1}
    assert shell.sub().reserved == {}


def test_whoever_has_a_connection_checked_holds_it_in_the_books_until_it_is_over() -> None:
    shell = with_idle(1)
    caller = shell.ask()
    (entry,) = shell.checks
    check = shell.core.checks.began(entry, caller, 3.0)
    assert (entry.check, check.holder, check.since) == (check, caller, 3.0)
    shell.check_succeeds(entry)
    assert entry.check is None


# ── what has been learnt ────────────────────────────────────────────────────────


def silent_flows(count: int) -> tuple[Shell, list[Entry]]:
    """Idle connections, each a second younger than the one before; the oldest first."""
    shell = Shell(max_connections_per_endpoint=count)
    for caller in lend_many(shell, count):
        shell.advance(1.0)
        shell.release(caller)
    entries = list(shell.sub().idle)
    return shell, entries


def check_fails_of(shell: Shell, entry: Entry) -> None:
    shell.reserve(entry)
    shell.check_fails(entry)


def test_f132_one_connection_that_does_not_answer_says_nothing_of_the_others() -> None:
    shell, entries = silent_flows(4)
    check_fails_of(shell, entries[3])
    assert ids(shell) == [1, 2, 3]


def test_f132_after_two_in_a_row_all_go_that_have_been_silent_for_as_long() -> None:
    shell, entries = silent_flows(5)
    check_fails_of(shell, entries[0])
    check_fails_of(shell, entries[2])
    assert ids(shell) == [4, 5]  # used later than the third
    assert close_reasons(shell) == {CloseReason.UNHEALTHY: 3}


def test_f132_ten_flows_that_were_dropped_cost_two_checks() -> None:
    shell = with_idle(10)
    waiting = shell.ask()
    shell.check_fails(shell.checks[0])
    shell.check_fails(shell.checks[0])
    assert (ids(shell), shell.checks) == ([], [])
    assert [entry.awaited_by for entry in shell.dials] == [waiting.waiter]


def test_f132_an_answer_between_two_failures_begins_a_new_count() -> None:
    shell, entries = silent_flows(4)
    check_fails_of(shell, entries[1])
    shell.reserve(entries[0])
    shell.check_succeeds(entries[0])
    check_fails_of(shell, entries[3])
    assert ids(shell) == [1, 3]


def test_f132_what_has_answered_since_is_not_silent() -> None:
    shell, entries = silent_flows(4)
    shell.advance(1.0)
    shell.reserve(entries[0])
    shell.check_succeeds(entries[0])
    check_fails_of(shell, entries[2])
    check_fails_of(shell, entries[3])
    assert ids(shell) == [1]


def test_f132_what_is_being_checked_is_judged_by_its_own_check() -> None:
    shell, entries = silent_flows(4)
    shell.reserve(entries[0])
    check_fails_of(shell, entries[2])
    check_fails_of(shell, entries[3])
    assert ids(shell) == [1]


def test_f132_a_connection_that_the_peer_closed_is_no_sign_of_silence() -> None:
    shell, entries = silent_flows(4)
    for entry in entries[2:]:
        shell.reserve(entry)
        shell.check_fails(entry, CloseReason.PEER_CLOSED)
    assert ids(shell) == [1, 2]


def test_f132_silence_at_one_endpoint_says_nothing_of_another() -> None:
    shell = Shell()
    for endpoint in (HERE, THERE):
        for caller in [shell.lend(endpoint) for _ in range(3)]:
            shell.release(caller)
    first, second, _ = list(shell.sub(HERE).idle)
    check_fails_of(shell, first)
    check_fails_of(shell, second)
    assert (len(shell.sub(HERE).idle), len(shell.sub(THERE).idle)) == (0, 3)


def test_silence_counts_from_the_last_use_or_the_last_answer() -> None:
    shell = Shell()
    shell.release(shell.lend())
    (entry,) = shell.sub().idle
    entry.idle_since, entry.checked_at = 3.0, 2.0
    assert keeping.silent_since(entry) == 3.0
    entry.checked_at = 4.0
    assert keeping.silent_since(entry) == 4.0
