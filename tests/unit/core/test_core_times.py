"""What time does: connections age, and those who wait are turned away when their time is up."""

from __future__ import annotations

import math
from random import Random

import pytest

from conpool._core.chores import PIECE
from conpool._values.states import CloseReason, ConnectionState, WaitOutcome
from tests.support.shell import Shell, close_reasons, ids, lend_many

# ── ages ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("age", "is_lent"), [(4.999, True), (5.0, False), (5.001, False)])
def test_a_connection_is_not_lent_at_the_end_of_its_idle_time(age: float, is_lent: bool) -> None:
    """G21."""
    shell = Shell(max_idle_time=5)
    shell.release(shell.lend())
    shell.advance(age)
    assert (shell.ask().entry is not None) == is_lent
    assert close_reasons(shell) == ({} if is_lent else {CloseReason.IDLE_TIME: 1})


@pytest.mark.parametrize(("age", "is_lent"), [(4.999, True), (5.0, False), (5.001, False)])
def test_a_connection_is_not_lent_at_the_end_of_its_lifetime(age: float, is_lent: bool) -> None:
    """G21."""
    shell = Shell(max_connection_lifetime=5)
    shell.release(shell.lend())
    shell.advance(age)
    assert (shell.ask().entry is not None) == is_lent
    assert close_reasons(shell) == ({} if is_lent else {CloseReason.LIFETIME: 1})


@pytest.mark.parametrize(("age", "is_lent"), [(4.999, True), (5.0, False)])
def test_a_connection_is_not_handed_over_at_the_end_of_its_lifetime(
    age: float, is_lent: bool
) -> None:
    """G21."""
    shell = Shell(max_connections_per_endpoint=1, max_connection_lifetime=5)
    holder, waiting = shell.lend(), shell.ask()
    shell.advance(age)
    shell.release(holder)
    assert (waiting.entry is not None) == is_lent


def test_a_lifetime_begins_when_the_dial_ends() -> None:
    shell = Shell(max_connection_lifetime=5)
    caller = shell.ask()
    shell.advance(4.0)
    shell.dial_succeeds()
    shell.advance(4.0)
    shell.release(caller)
    assert len(shell.sub().idle) == 1


def test_a_connection_is_lent_as_often_as_it_may_be_and_no_more() -> None:
    """G21."""
    shell = Shell(max_connection_uses=3)
    for _ in range(3):
        shell.release(shell.lend())
    assert shell.sub().counters.total_created == 1
    assert close_reasons(shell) == {CloseReason.USES: 1}


def test_a_connection_in_use_is_never_retired() -> None:
    """G21."""
    shell = Shell(max_idle_time=1, max_connection_lifetime=2, max_connection_uses=1)
    holder = shell.lend()
    shell.advance(60.0)
    shell.sweep()
    assert holder.entry is not None
    assert holder.entry.state is ConnectionState.ACTIVE


def test_jitter_only_shortens_a_lifetime() -> None:
    """G22."""
    shell = Shell(random=Random(1), max_connection_lifetime=100, lifetime_jitter=0.2)
    ends = {caller.entry.expires_at for caller in lend_many(shell, 10) if caller.entry}
    assert len(ends) == 10
    assert min(ends) > 80.0
    assert max(ends) <= 100.0


def test_the_sweep_closes_what_has_lapsed_with_no_traffic() -> None:
    """G22."""
    shell = Shell(max_idle_time=5)
    shell.release(shell.lend())
    shell.advance(4.0)
    shell.sweep()
    assert close_reasons(shell) == {}
    shell.advance(1.0)
    shell.sweep()
    assert close_reasons(shell) == {CloseReason.IDLE_TIME: 1}


def test_the_sweep_closes_what_the_peer_has_closed() -> None:
    shell = Shell()
    holder = shell.lend()
    assert holder.entry is not None
    shell.peer_closes(holder.entry)
    shell.release(holder)
    shell.sweep()
    assert close_reasons(shell) == {CloseReason.PEER_CLOSED: 1}


def test_a_return_begins_a_new_idle_time() -> None:
    shell = Shell(max_idle_time=5)
    shell.release(shell.lend())
    shell.advance(4.0)
    shell.release(shell.lend())
    shell.advance(4.0)
    assert shell.ask().entry is not None


def test_what_was_taken_and_not_wanted_keeps_its_idle_time_and_place() -> None:
    """G10."""
    shell = Shell(max_idle_time=5)
    for caller in lend_many(shell, 2):
        shell.release(caller)
    shell.advance(4.0)
    entry = shell.take()
    assert entry is not None
    shell.put_back_unused(entry)
    assert ids(shell) == [1, 2]
    shell.advance(1.0)
    shell.sweep()
    assert close_reasons(shell) == {CloseReason.IDLE_TIME: 2}


def test_what_lapsed_while_it_was_checked_is_not_handed_over() -> None:
    """G21. Found by the model checker: it went to the waiter."""
    shell = Shell(max_connections_per_endpoint=1, max_idle_time=2)
    shell.cancel(shell.ask())
    entry = shell.dial_succeeds()
    shell.reserve(entry)
    waiting = shell.ask()
    shell.advance(2.0)
    shell.check_succeeds(entry)
    assert waiting.is_waiting
    assert close_reasons(shell) == {CloseReason.IDLE_TIME: 1}


def test_what_is_put_back_unused_lies_on_top_even_if_somebody_wants_a_new_one() -> None:
    shell = Shell(max_connections_per_endpoint=3)
    older, younger = lend_many(shell, 2)
    shell.release(older)
    taken = shell.take()
    assert taken is not None
    shell.advance(1.0)
    shell.release(younger)
    shell.ask(fresh=True)
    shell.put_back_unused(taken)
    assert ids(shell) == [2, 1]
    assert taken.idle_since == 0.0


def test_what_is_put_back_unused_goes_to_a_waiter() -> None:
    """G12."""
    shell = Shell(max_connections_per_endpoint=1)
    shell.release(shell.lend())
    taken = shell.take()
    assert taken is not None
    waiting = shell.ask()
    assert waiting.is_waiting
    shell.put_back_unused(taken)
    assert waiting.entry is taken


def test_what_is_put_back_after_its_end_is_closed() -> None:
    """G21."""
    shell = Shell(max_idle_time=2)
    shell.release(shell.lend())
    taken = shell.take()
    assert taken is not None
    shell.advance(2.0)
    shell.put_back_unused(taken)
    assert close_reasons(shell) == {CloseReason.IDLE_TIME: 1}


def test_what_was_closed_meanwhile_is_not_put_back() -> None:
    shell = Shell()
    shell.release(shell.lend())
    taken = shell.take()
    assert taken is not None
    shell.clear()
    shell.put_back_unused(taken)
    assert (ids(shell), close_reasons(shell)) == ([], {CloseReason.CLEARED: 1})


# ── time-outs ───────────────────────────────────────────────────────────────────


def test_waiters_are_refused_when_their_time_is_up() -> None:
    shell = Shell(max_connections_per_endpoint=1, acquire_timeout=5)
    shell.lend()
    first = shell.ask()
    shell.advance(2.0)
    second = shell.ask()
    shell.advance(3.0)
    assert first.outcome is WaitOutcome.TIMEOUT
    assert second.is_waiting
    shell.advance(2.0)
    assert second.outcome is WaitOutcome.TIMEOUT


def test_a_waiter_with_less_time_is_refused_before_those_ahead_of_it() -> None:
    shell = Shell(max_connections_per_endpoint=1, acquire_timeout=5)
    holder = shell.lend()
    patient, impatient = shell.ask(), shell.ask(timeout=1.0)
    shell.advance(1.0)
    assert impatient.outcome is WaitOutcome.TIMEOUT
    shell.release(holder)
    assert patient.entry is not None


def test_a_waiter_with_more_time_outlasts_those_behind_it() -> None:
    shell = Shell(max_connections_per_endpoint=1, acquire_timeout=5)
    shell.lend()
    patient, usual = shell.ask(timeout=60.0), shell.ask()
    shell.advance(5.0)
    assert patient.is_waiting
    assert usual.outcome is WaitOutcome.TIMEOUT
    shell.advance(55.0)
    assert patient.outcome is WaitOutcome.TIMEOUT


def test_nobody_is_refused_who_has_no_deadline() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    shell.lend()
    waiting = shell.ask()
    shell.advance(1e9)
    assert waiting.is_waiting
    assert shell.core.timetable.next_at == math.inf


def test_the_dial_of_one_whose_time_was_up_serves_the_next() -> None:
    shell = Shell(acquire_timeout=5)
    late = shell.ask()
    shell.advance(5.0)
    assert late.outcome is WaitOutcome.TIMEOUT
    waiting = shell.ask()
    assert len(shell.dials) == 1
    shell.dial_succeeds()
    assert waiting.entry is not None


def test_a_waiter_put_back_is_still_refused_in_time() -> None:
    shell = Shell(max_connections_per_endpoint=1, acquire_timeout=5)
    holder = shell.lend()
    shell.pause()
    entry = holder.entry
    assert entry is not None
    shell.release(holder)
    callers = [shell.ask(), shell.ask(timeout=3.0)]
    shell.peer_closes(entry)
    shell.resume()
    shell.advance(3.0)
    assert callers[1].outcome is WaitOutcome.TIMEOUT
    shell.advance(2.0)
    assert callers[0].outcome is WaitOutcome.TIMEOUT


def test_f145_a_waiter_that_comes_back_delays_nobodys_time_out() -> None:
    """G14: it stands before those whose time is up sooner."""
    shell = Shell(max_connections_per_endpoint=1, acquire_timeout=5)
    holder = shell.lend()
    usual = shell.ask()
    returning = shell.ask(timeout=60.0, is_first=True)
    shell.advance(5.0)
    assert usual.outcome is WaitOutcome.TIMEOUT
    shell.release(holder)
    assert returning.entry is not None


def test_f145_a_waiter_that_comes_back_is_refused_at_its_own_deadline() -> None:
    """G14: though those behind it have more time."""
    shell = Shell(max_connections_per_endpoint=1, acquire_timeout=50)
    shell.lend()
    shell.ask()
    returning = shell.ask(timeout=2.0, is_first=True)
    shell.advance(2.0)
    assert returning.outcome is WaitOutcome.TIMEOUT


def test_f145_a_waiter_for_which_a_dial_is_under_way_is_refused_in_time() -> None:
    """G14: it has left the line, whose first is due later."""
    shell = Shell(max_connections_per_endpoint=1, acquire_timeout=5)
    dialled_for = shell.ask()
    shell.advance(1.0)
    behind = shell.ask()
    shell.advance(4.0)
    assert dialled_for.outcome is WaitOutcome.TIMEOUT
    assert behind.is_waiting
    shell.advance(1.0)
    assert behind.outcome is WaitOutcome.TIMEOUT


def test_f145_a_waiter_whose_dial_has_failed_is_refused_in_time() -> None:
    """G14: it waits on, since another connection is lent, and has lost its dial."""
    shell = Shell(max_connections_per_endpoint=2, acquire_timeout=5)
    shell.lend()
    waiting = shell.ask()
    shell.advance(1.0)
    behind = shell.ask()
    shell.pause()
    shell.dial_fails()
    assert waiting.is_waiting
    shell.advance(4.0)
    assert waiting.outcome is WaitOutcome.TIMEOUT
    assert behind.is_waiting


def test_f147_many_who_time_out_at_once_are_refused_a_piece_at_a_time() -> None:
    shell = Shell(max_connections_per_endpoint=1, acquire_timeout=5, is_watched=False)
    shell.lend()
    for _ in range(PIECE * 3):
        shell.ask()
    shell.now = 5.0
    left = []
    while shell.core.timetable.next_at <= shell.now:
        shell.report(shell.core.ticked)
        left.append(len(shell.callers) - 1)
    assert left[:3] == [PIECE * 2, PIECE, 0]
    assert shell.core.timetable.next_at == math.inf


def test_f147_many_with_deadlines_of_their_own_are_refused_a_piece_at_a_time() -> None:
    shell = Shell(max_connections_per_endpoint=1, is_watched=False)
    shell.lend()
    for number in range(PIECE * 2):
        shell.ask(timeout=5.0 - number / 1000)  # out of order
    shell.now = 5.0
    left = []
    while shell.core.timetable.next_at <= shell.now:
        shell.report(shell.core.ticked)
        left.append(len(shell.callers) - 1)
    assert left == [PIECE, 0]
