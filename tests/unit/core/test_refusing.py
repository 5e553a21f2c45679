"""Who is turned away without a connection though time is left (G27, G28, G31, G33)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from conpool._core.chores import PIECE
from conpool._core.seen import see
from conpool._values.config import CircuitBreaker
from conpool._values.states import CircuitState, WaitOutcome
from tests.support.shell import HERE, THERE, Caller, Shell, lend_many

CLOSED = CircuitState.CLOSED
OPEN = CircuitState.OPEN
HALF_OPEN = CircuitState.HALF_OPEN


def make_shell(
    threshold: int = 1, *, most: int = 1, reset_timeout: float = 10.0, **settings: Any
) -> Shell:
    """A shell whose circuits open at the first failure, for ten seconds."""
    breaker = CircuitBreaker(
        failure_threshold=threshold, half_open_max=most, reset_timeout=reset_timeout
    )
    return Shell(circuit_breaker=breaker, **settings)


def make_open(**settings: Any) -> Shell:
    """A shell whose circuit has just opened."""
    shell = make_shell(**settings)
    told = shell.ask()
    shell.dial_fails()
    assert told.outcome is WaitOutcome.DIAL_FAILED
    assert shell.circuits == {HERE: OPEN}
    return shell


def outcomes(callers: list[Caller]) -> list[WaitOutcome | None]:
    return [caller.outcome for caller in callers]


# ── while the circuit is open ───────────────────────────────────────────────────


def test_f107_whoever_waits_when_the_circuit_opens_is_told_so() -> None:
    """G33: nobody sleeps on, and the one for whom the dial was made gets its error."""
    shell = make_shell(max_connecting_per_endpoint=1)
    waiting = [shell.ask() for _ in range(3)]
    shell.dial_fails()
    assert outcomes(waiting) == [
        WaitOutcome.DIAL_FAILED,
        WaitOutcome.CIRCUIT_OPEN,
        WaitOutcome.CIRCUIT_OPEN,
    ]


def test_whoever_comes_while_it_is_open_is_told_at_once() -> None:
    shell = make_open()
    shell.advance(9.9)
    assert shell.ask().outcome is WaitOutcome.CIRCUIT_OPEN
    assert shell.dials == []


def test_an_idle_connection_is_lent_all_the_same() -> None:
    shell = make_shell()
    held = lend_many(shell, 2)
    shell.release(held[0])
    shell.report_failure()
    assert shell.circuits[HERE] is OPEN
    assert shell.ask().entry is not None


def test_g33_whoever_can_be_served_by_what_is_lent_waits_for_it() -> None:
    shell = make_shell()
    held = shell.lend()
    shell.report_failure()
    waiting = [shell.ask(), shell.ask()]
    assert outcomes(waiting) == [None, None]
    shell.release(held)
    assert waiting[0].entry is not None
    shell.release(waiting[0])
    assert waiting[1].entry is not None


def test_the_last_connection_that_is_lost_leaves_nobody_waiting() -> None:
    shell = make_shell()
    held = shell.lend()
    shell.report_failure()
    waiting = [shell.ask(), shell.ask()]
    shell.discard(held)
    assert outcomes(waiting) == [WaitOutcome.CIRCUIT_OPEN] * 2


def test_what_is_lent_and_will_not_come_back_serves_nobody() -> None:
    shell = make_shell()
    held = shell.lend()
    shell.report_failure()
    shell.retire(held)
    assert shell.ask().outcome is WaitOutcome.CIRCUIT_OPEN


def test_one_who_wants_a_new_connection_is_not_helped_by_what_is_lent() -> None:
    shell = make_shell()
    shell.lend()
    shell.report_failure()
    wants_new, takes_any = shell.ask(fresh=True), shell.ask()
    assert outcomes([wants_new, takes_any]) == [WaitOutcome.CIRCUIT_OPEN, None]


def test_what_is_checked_in_the_background_may_serve() -> None:
    shell = make_shell()
    shell.release(shell.lend())
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    shell.report_failure()
    waiting = shell.ask()
    assert waiting.is_waiting
    shell.check_fails(entry)
    assert waiting.outcome is WaitOutcome.CIRCUIT_OPEN


def test_a_dial_that_began_before_serves_its_waiter() -> None:
    shell = make_shell()
    first, second = shell.ask(), shell.ask()
    shell.dial_fails(shell.dials[0])
    assert outcomes([first, second]) == [WaitOutcome.CIRCUIT_OPEN, None]
    shell.dial_succeeds()
    assert second.entry is not None


def test_a_dial_whose_caller_has_gone_serves_the_oldest_and_the_youngest_is_told() -> None:
    """G13"""
    shell = make_shell(max_connecting_per_endpoint=1)
    gone, oldest = shell.ask(), shell.ask()
    shell.cancel(gone)
    shell.report_failure()
    youngest = shell.ask()
    assert outcomes([oldest, youngest]) == [None, WaitOutcome.CIRCUIT_OPEN]
    shell.dial_succeeds()
    assert oldest.entry is not None


def test_one_who_comes_back_with_a_dead_connection_is_told_too() -> None:
    shell = make_shell(is_lazy=True)
    first = shell.ask()
    shell.dial_succeeds()
    shell.interrupt(first)
    shell.report_failure()
    shell.begin(first)
    assert first.outcome is WaitOutcome.CIRCUIT_OPEN


def test_in_a_pause_everybody_waits() -> None:
    shell = make_open()
    shell.pause()
    waiting = shell.ask()
    assert waiting.is_waiting
    shell.resume()
    assert waiting.outcome is WaitOutcome.CIRCUIT_OPEN


def test_the_other_endpoints_know_nothing_of_it() -> None:
    shell = make_open(max_connections=1)
    waiting = shell.ask(THERE)
    shell.dial_succeeds(THERE)
    assert waiting.entry is not None


def test_one_that_stands_in_line_for_the_pool_leaves_the_line() -> None:
    """Else it would be dialled as soon as the pool has a slot."""
    shell = make_shell(max_connections=1)
    held = shell.lend(THERE)
    waiting = shell.ask()
    assert shell.sub().claim is not None
    shell.report_failure()
    assert waiting.outcome is WaitOutcome.CIRCUIT_OPEN
    shell.discard(held)
    assert shell.dials == []


def test_g34_ten_thousand_are_told_in_pieces() -> None:
    shell = make_shell(max_connecting_per_endpoint=1)
    shell.is_watched = False
    waiting = [shell.ask() for _ in range(10_000)]
    steps = []
    shell.core.failures.dial_failed(shell._pop_dial(HERE), Exception(), shell.now)
    while any(caller.is_waiting for caller in waiting):
        before = len(shell.callers)
        shell.perform()
        steps.append(before - len(shell.callers))
        shell.core.ticked(shell.now)
    assert max(steps) <= 2 * PIECE


def test_a_full_queue_says_that_the_circuit_is_open() -> None:
    """Not that the queue is full, where nobody waits."""
    shell = make_open(max_waiting_per_endpoint=0)
    assert shell.core.may_queue(shell.sub(), False, shell.now)
    assert shell.ask().outcome is WaitOutcome.CIRCUIT_OPEN


def test_a_full_queue_is_full_where_connections_are_lent() -> None:
    shell = make_shell(max_waiting_per_endpoint=0)
    shell.lend()
    shell.report_failure()
    assert not shell.core.may_queue(shell.sub(), False, shell.now)


# ── trials ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("most", [1, 2, 4])
def test_g28_half_open_admits_exactly_so_many_dials(most: int) -> None:
    shell = make_open(most=most)
    shell.advance(10.0)
    callers = [shell.ask() for _ in range(6)]
    assert len(shell.dials) == most
    assert shell.circuits[HERE] is HALF_OPEN
    turned_away = [WaitOutcome.CIRCUIT_OPEN] * (6 - most)
    assert outcomes(callers) == [None] * most + turned_away


@pytest.mark.parametrize("most", [1, 2, 4])
def test_g28_also_for_those_who_wait_at_the_same_moment(most: int) -> None:
    shell = make_open(most=most)
    shell.advance(10.0)
    shell.pause()
    callers = [shell.ask() for _ in range(6)]
    shell.resume()
    assert len(shell.dials) == most
    assert outcomes(callers).count(WaitOutcome.CIRCUIT_OPEN) == 6 - most


@pytest.mark.parametrize("limit", [2, 3])
def test_g28_also_under_a_pool_wide_limit(limit: int) -> None:
    shell = make_open(most=2, max_connections=limit)
    shell.advance(10.0)
    shell.pause()
    callers = [shell.ask() for _ in range(4)]
    shell.resume()
    assert len(shell.dials) == 2
    assert outcomes(callers).count(WaitOutcome.CIRCUIT_OPEN) == 2


def test_a_trial_has_no_more_connections_evicted_than_it_needs() -> None:
    shell = make_shell(max_connections=2)
    for caller in [shell.lend(THERE), shell.lend(THERE)]:
        shell.release(caller)
    shell.report_failure()
    shell.advance(10.0)
    shell.pause()
    callers = [shell.ask(), shell.ask()]
    shell.resume()
    assert outcomes(callers) == [None, WaitOutcome.CIRCUIT_OPEN]
    assert len(shell.sub(THERE).idle) == 1


def test_a_trial_that_succeeds_serves_everybody_again() -> None:
    shell = make_open()
    shell.advance(10.0)
    tried = shell.ask()
    shell.dial_succeeds()
    assert tried.entry is not None
    assert shell.circuits[HERE] is CLOSED
    shell.ask()
    assert len(shell.dials) == 1


def test_a_trial_that_fails_opens_it_again() -> None:
    shell = make_open()
    shell.advance(10.0)
    tried = shell.ask()
    shell.dial_fails()
    assert tried.outcome is WaitOutcome.DIAL_FAILED
    assert shell.circuits[HERE] is OPEN
    assert shell.ask().outcome is WaitOutcome.CIRCUIT_OPEN


def test_g28_a_trial_goes_on_when_its_caller_has_gone_and_serves_the_next() -> None:
    shell = make_open()
    shell.advance(10.0)
    shell.cancel(shell.ask())
    assert len(shell.dials) == 1
    waiting = shell.ask()
    assert waiting.is_waiting
    shell.dial_succeeds()
    assert waiting.entry is not None
    assert shell.circuits[HERE] is CLOSED


def test_g28_a_trial_that_is_given_up_gives_its_place_back() -> None:
    shell = make_open(is_slow_to_give_up=True)
    shell.advance(10.0)
    shell.cancel(shell.ask())
    shell.clear()
    (given_up,) = shell.dials
    waiting = shell.ask()
    assert shell.dials == [given_up], "its place is free in a moment"
    assert shell.ask().outcome is WaitOutcome.CIRCUIT_OPEN, "but for one only"
    shell.dial_ends(given_up)
    assert shell.circuits[HERE] is HALF_OPEN
    shell.advance(2.0)
    shell.dial_succeeds()
    assert waiting.entry is not None


def test_a_trial_that_this_machine_has_failed_decides_nothing() -> None:
    """G27"""
    shell = make_open()
    shell.advance(10.0)
    told = shell.ask()
    shell.dial_fails(is_servers=False)
    assert told.outcome is WaitOutcome.DIAL_FAILED
    assert shell.circuits[HERE] is HALF_OPEN
    shell.advance(2.0)
    waiting = shell.ask()
    shell.dial_succeeds()
    assert waiting.entry is not None


def test_f139_a_trial_whose_connection_dies_before_its_first_byte_has_failed() -> None:
    shell = make_open()
    shell.advance(10.0)
    shell.sub().gate.is_in_doubt = True  # it has done so before
    shell.sub().note_rules()
    tried = shell.ask()
    shell.dial_succeeds()
    assert shell.circuits[HERE] is HALF_OPEN, "the dial alone proves nothing"
    shell.lose_early(tried)
    assert shell.circuits[HERE] is OPEN


def test_f139_a_trial_whose_connection_is_of_use_closes_it() -> None:
    shell = make_open()
    shell.advance(10.0)
    shell.sub().gate.is_in_doubt = True
    shell.sub().note_rules()
    tried = shell.ask()
    shell.dial_succeeds()
    shell.release(tried)
    assert shell.circuits[HERE] is CLOSED


def test_f139_connections_that_die_before_their_first_byte_open_it() -> None:
    """Each of their dials has succeeded."""
    shell = make_shell(threshold=3)
    for _ in range(3):
        assert shell.circuits == {}
        caller = shell.ask()
        shell.dial_succeeds()
        shell.lose_early(caller)
        shell.advance(2.0)
    assert shell.circuits == {HERE: OPEN}


def test_warming_is_a_trial_as_well() -> None:
    shell = make_open(most=2)
    warmer = shell.warm(4)
    shell.advance(10.0)
    assert len(shell.dials) == 2
    shell.dial_succeeds()
    shell.dial_succeeds()
    shell.advance(2.0)
    shell.dial_succeeds()
    shell.dial_succeeds()
    assert shell.warmed == [warmer]


# ── what counts, as the core is told ────────────────────────────────────────────


def test_g27_what_is_not_the_servers_fault_opens_nothing() -> None:
    shell = make_shell()
    for _ in range(9):
        shell.ask()
        shell.dial_fails(is_servers=False)
        shell.advance(2.0)
    assert shell.circuits == {}


def test_g27_a_dial_that_is_given_up_opens_nothing() -> None:
    shell = make_shell()
    shell.ask()
    shell.clear()
    assert shell.circuits == {}


def test_reports_count_only_where_there_is_a_breaker() -> None:
    shell = Shell()
    shell.report_failure()
    shell.report_success()
    assert shell.circuits == {}
    assert shell.sub().gate.circuit_state is CLOSED


def test_a_reported_success_serves_those_who_come_next() -> None:
    shell = make_open()
    shell.report_success()
    waiting = shell.ask()
    assert waiting.is_waiting
    shell.advance(1.0)  # the back-off after the failure
    shell.dial_succeeds()
    assert waiting.entry is not None


# ── an endpoint that nobody asks for ────────────────────────────────────────────


def test_an_open_circuit_is_remembered_and_forgotten_once_its_time_is_over() -> None:
    shell = make_open()
    shell.advance(9.0)
    shell.sweep()
    assert HERE in shell.core.subs
    shell.advance(10.0)
    shell.sweep()
    assert shell.circuits[HERE] is OPEN, "for as long again as it was open"
    shell.advance(2.0)
    shell.sweep()
    assert HERE not in shell.core.subs
    assert shell.circuits[HERE] is CLOSED


def test_one_without_an_end_is_remembered_for_ever() -> None:
    shell = make_open(reset_timeout=math.inf)
    shell.advance(1e6)
    shell.sweep()
    assert shell.ask().outcome is WaitOutcome.CIRCUIT_OPEN


# ── marks ───────────────────────────────────────────────────────────────────────


def test_nobody_waits_for_an_endpoint_that_is_marked_unhealthy() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    shell.lend()
    waiting = shell.ask()
    shell.mark()
    assert waiting.outcome is WaitOutcome.UNHEALTHY
    assert shell.ask().outcome is WaitOutcome.UNHEALTHY, "also where all slots are taken"
    assert shell.ask(fresh=True).outcome is WaitOutcome.UNHEALTHY


def test_what_comes_back_is_kept_for_better_times() -> None:
    shell = Shell()
    held = shell.lend()
    shell.mark()
    shell.release(held)
    assert shell.ask().outcome is WaitOutcome.UNHEALTHY
    shell.mark(is_unhealthy=False)
    assert shell.ask().entry is not None


def test_marks_and_pauses_do_not_end_one_another() -> None:
    shell = Shell()
    shell.mark()
    shell.pause()
    shell.resume()
    assert shell.ask().outcome is WaitOutcome.UNHEALTHY
    shell.pause()
    shell.mark(is_unhealthy=False)
    assert shell.ask().is_waiting
    assert shell.dials == []


def test_a_mark_is_no_pause_in_the_statistics() -> None:
    shell = Shell()
    shell.mark()
    assert not see(shell.sub(), shell.now).paused
    shell.pause()
    assert see(shell.sub(), shell.now).paused


def test_an_endpoint_that_is_marked_is_not_forgotten() -> None:
    shell = Shell()
    shell.mark()
    shell.advance(1e6)
    shell.sweep()
    assert shell.ask().outcome is WaitOutcome.UNHEALTHY


def test_it_leaves_the_line_for_the_pool_wide_limit() -> None:
    shell = Shell(max_connections=1)
    held = shell.lend(THERE)
    shell.ask()
    shell.mark()
    shell.discard(held)
    assert shell.dials == []


def test_g34_many_are_told_in_pieces() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    shell.lend()
    waiting = [shell.ask() for _ in range(3 * PIECE)]
    shell.core.orders.marked(shell.sub(), True, shell.now)
    shell.perform()
    assert outcomes(waiting).count(WaitOutcome.UNHEALTHY) == PIECE
    shell.advance(0.0)
    assert outcomes(waiting) == [WaitOutcome.UNHEALTHY] * (3 * PIECE)


# ── when the turn comes ─────────────────────────────────────────────────────────


def let_time_pass_unseen(shell: Shell, seconds: float) -> None:
    """Time passes, and the timer has not rung yet."""
    shell.now += seconds


def test_one_whose_time_is_up_is_turned_away_when_its_turn_comes() -> None:
    shell = Shell(max_connections_per_endpoint=1, acquire_timeout=5.0)
    held = shell.lend()
    late, patient = shell.ask(), shell.ask(timeout=60.0)
    let_time_pass_unseen(shell, 5.0)
    shell.release(held)
    assert late.outcome is WaitOutcome.TIMEOUT
    assert patient.entry is not None


def test_also_one_that_joins_a_shared_connection() -> None:
    shell = Shell(max_connections_per_endpoint=1, acquire_timeout=5.0, shares=True)
    held = lend_many(shell, 2)
    late, patient = shell.ask(), shell.ask(timeout=60.0)
    let_time_pass_unseen(shell, 5.0)
    shell.release(held[0])
    assert late.outcome is WaitOutcome.TIMEOUT
    assert patient.entry is not None


def test_also_one_for_whom_a_dial_was_made() -> None:
    shell = Shell(acquire_timeout=5.0)
    late = shell.ask()
    let_time_pass_unseen(shell, 5.0)
    shell.dial_succeeds()
    assert late.outcome is WaitOutcome.TIMEOUT
    assert len(shell.sub().idle) == 1


def test_g34_of_many_whose_time_is_up_a_piece_is_turned_away_at_a_time() -> None:
    shell = Shell(max_connections_per_endpoint=1, acquire_timeout=5.0)
    held = shell.lend()
    late = [shell.ask() for _ in range(3 * PIECE)]
    patient = shell.ask(timeout=60.0)
    let_time_pass_unseen(shell, 5.0)
    shell.core.released(shell._end_lease(held), None, shell.now)
    shell.perform()
    assert outcomes(late).count(WaitOutcome.TIMEOUT) == PIECE
    shell.advance(0.0)
    assert outcomes(late) == [WaitOutcome.TIMEOUT] * (3 * PIECE)
    assert patient.entry is not None


# ── shedding ────────────────────────────────────────────────────────────────────


def make_overloaded(**settings: Any) -> tuple[Shell, Caller, list[Caller]]:
    """One connection that comes back each second; three more ask in each, for ten seconds."""
    shell = Shell(max_connections_per_endpoint=1, queue_target_delay=1.0, **settings)
    held, came = shell.lend(), []
    for _ in range(10):
        came += [shell.ask() for _ in range(3)]
        shell.advance(1.0)
        shell.release(held)
        held = next(caller for caller in came if caller.entry is not None)
    return shell, held, came


def test_a_queue_that_stands_sheds_those_who_have_waited_for_too_long() -> None:
    shell, held, came = make_overloaded()
    assert WaitOutcome.SHED in outcomes(came)
    shell.advance(1.0)
    waiting = [caller for caller in came if caller.is_waiting]
    shell.release(held)
    served = next(caller for caller in waiting if caller.entry is not None)
    assert all(c.outcome is WaitOutcome.SHED for c in waiting[: waiting.index(served)])
    assert all(caller.is_waiting for caller in waiting[waiting.index(served) + 1 :])


def test_without_a_target_nobody_is_shed() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    held = shell.lend()
    waiting = [shell.ask() for _ in range(9)]
    for caller in waiting:
        shell.advance(5.0)
        shell.release(held)
        held = caller
        assert caller.entry is not None


def test_the_last_in_the_queue_is_served() -> None:
    shell, held, came = make_overloaded()
    shell.advance(60.0)
    shell.release(held)
    assert [caller for caller in came if caller.entry is not None] == [came[-1]]


def test_the_wait_for_a_dial_of_ones_own_is_no_load() -> None:
    shell = Shell(max_connections_per_endpoint=3, queue_target_delay=0.1)
    for _ in range(5):
        callers = [shell.ask(), shell.ask(), shell.ask()]
        shell.advance(2.0)
        for caller in callers:
            shell.dial_succeeds()
            assert caller.entry is not None
        for caller in callers:
            shell.discard(caller)


def test_nor_is_it_while_others_wait_behind() -> None:
    shell = Shell(max_connections_per_endpoint=3, queue_target_delay=0.1)
    callers = [shell.ask() for _ in range(5)]
    shell.advance(1.5)
    for caller in callers[:3]:
        shell.advance(0.5)
        shell.dial_succeeds()
        assert caller.entry is not None


def test_where_no_connection_is_used_twice_the_turn_comes_with_the_dial() -> None:
    shell = Shell(max_connections_per_endpoint=1, max_connection_uses=1, queue_target_delay=1.0)
    held, came = shell.lend(), []
    for _ in range(10):
        came += [shell.ask() for _ in range(3)]
        shell.advance(1.0)
        shell.release(held)
        shell.dial_succeeds()
        held = next(caller for caller in came if caller.entry is not None)
    assert WaitOutcome.SHED in outcomes(came)


def test_the_wait_for_a_back_off_is_no_load() -> None:
    shell = Shell(max_connections_per_endpoint=1, queue_target_delay=0.01, outage_grace=math.inf)
    came = [shell.ask() for _ in range(20)]
    for _ in range(10):
        shell.dial_fails()
        shell.advance(2.0)
    assert outcomes(came).count(WaitOutcome.DIAL_FAILED) == 10
    assert WaitOutcome.SHED not in outcomes(came)


def test_those_who_share_connections_are_shed_as_well() -> None:
    shell = Shell(max_connections_per_endpoint=1, queue_target_delay=1.0, shares=True)
    held, came = lend_many(shell, 2), []
    for _ in range(10):
        came += [shell.ask() for _ in range(4)]
        shell.advance(1.0)
        shell.release(held.pop(0))
        held.append(next(c for c in came if c.entry is not None and c not in held))
    assert WaitOutcome.SHED in outcomes(came)


def test_g34_shedding_many_is_done_in_pieces() -> None:
    shell = Shell(max_connections_per_endpoint=1, queue_target_delay=1.0)
    held = shell.lend()
    waiting = [shell.ask() for _ in range(3 * PIECE)]
    for _ in range(2):
        shell.advance(3.0)
        shell.core.released(shell._end_lease(held), None, shell.now)
        shell.perform()
        held = waiting[0]
    assert outcomes(waiting).count(WaitOutcome.SHED) == PIECE
    shell.advance(0.0)
    assert outcomes(waiting).count(WaitOutcome.SHED) == 3 * PIECE - 2
    assert waiting[-1].entry is not None
