"""What a failed dial means, and who is told of it (G31, G33)."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

from conpool._core.chores import PIECE
from conpool._core.gate import FIRST
from conpool._values.states import WaitOutcome
from tests.support.shell import HERE, THERE, Caller, Refused, Shell, lend_many

NO_GRACE = 0.0


def told(callers: list[Caller]) -> list[bool]:
    """Who has got the error of a dial."""
    return [caller.outcome is WaitOutcome.DIAL_FAILED for caller in callers]


def ask_at_once(shell: Shell, count: int) -> list[Caller]:
    """That many ask before the first dial for them begins."""
    shell.pause()
    callers = [shell.ask() for _ in range(count)]
    shell.resume()
    return callers


def fail_until(shell: Shell, end: float) -> None:
    """Every dial fails at once until `end`."""
    while shell.now < end:
        while shell.dials:
            shell.dial_fails()
        shell.advance(min(shell.core.timetable.next_at, end) - shell.now)


# ── nobody is told who may still be served ──────────────────────────────────────


def test_f128_nobody_is_told_while_a_connection_is_lent() -> None:
    """G33."""
    shell = Shell(max_connections_per_endpoint=2, outage_grace=NO_GRACE)
    shell.lend()
    waiting = [shell.ask(), shell.ask()]
    shell.dial_fails()
    assert told(waiting) == [False, False]


def test_f128_a_full_server_fails_none_of_those_whom_returns_will_serve() -> None:
    """G33: five are lent, eight wait, and the server takes no more."""
    shell = Shell(max_connections_per_endpoint=10, acquire_timeout=60)
    holders = lend_many(shell, 5)
    waiting = [shell.ask() for _ in range(8)]
    fail_until(shell, 10.0)
    served: list[Caller] = []
    while holders:
        shell.release(holders.pop(0))
        fail_until(shell, shell.now + 0.01)
        now_served = [c for c in waiting if c.entry is not None and c not in served]
        served += now_served
        holders += now_served
    assert served == waiting
    assert isinstance(shell.sub().gate.last_error, Refused)


def test_f128_a_full_server_sees_a_handful_of_attempts() -> None:
    """G31."""
    shell = Shell(random=Random(1), max_connections_per_endpoint=10)
    lend_many(shell, 5)
    for _ in range(8):
        shell.ask()
    fail_until(shell, 10.0)
    assert shell.sub().counters.errors < 30


def test_f128_nobody_is_told_while_a_connection_is_checked_for_a_waiter() -> None:
    shell = Shell(max_connections_per_endpoint=2, outage_grace=NO_GRACE, is_checked=True)
    shell.release(shell.lend())
    waiting = [shell.ask(), shell.ask()]
    assert (len(shell.checks), len(shell.dials)) == (1, 1)
    shell.dial_fails()
    assert told(waiting) == [False, False]


def test_f128_nobody_is_told_while_a_connection_is_checked_in_the_background() -> None:
    shell = Shell(max_connections_per_endpoint=2, outage_grace=NO_GRACE)
    shell.release(shell.lend())
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    waiting = [shell.ask(), shell.ask()]
    shell.dial_fails()
    assert told(waiting) == [False, False]


def test_f128_nobody_is_told_while_another_dial_is_under_way() -> None:
    shell = Shell(outage_grace=NO_GRACE)
    waiting = [shell.ask(), shell.ask()]
    shell.dial_fails()
    assert told(waiting) == [False, False]
    shell.dial_succeeds()
    assert waiting[0].entry is not None


def test_the_last_of_the_dials_under_way_is_told_of() -> None:
    shell = Shell()
    waiting = [shell.ask(), shell.ask()]
    shell.dial_fails(shell.dials[1])
    shell.dial_fails(shell.dials[0])
    assert told(waiting) == [True, False]


def test_a_dial_in_vain_is_no_help() -> None:
    shell = Shell(max_connections_per_endpoint=2, is_slow_to_give_up=True)
    waiting = shell.ask()
    shell.clear()
    old, new = shell.dials
    assert old.is_void
    shell.dial_fails(new)
    assert told([waiting]) == [True]


def test_idle_connections_are_no_help_to_one_who_wants_a_new_one() -> None:
    shell = Shell()
    shell.release(shell.lend())
    wants_new = shell.ask(fresh=True)
    shell.dial_fails()
    assert told([wants_new]) == [True]


def test_one_who_wants_a_new_connection_is_told_at_once_while_others_are_lent() -> None:
    shell = Shell()
    shell.lend()
    wants_new, takes_any = shell.ask(fresh=True), shell.ask()
    shell.dial_fails(shell.dials[0])
    assert told([wants_new, takes_any]) == [True, False]


def test_one_who_wants_a_new_connection_is_told_and_not_an_older_one_who_takes_any() -> None:
    shell = Shell()
    shell.lend()
    takes_any, wants_new = shell.ask(), shell.ask(fresh=True)
    shell.dial_fails(shell.dials[1])
    assert told([takes_any, wants_new]) == [False, True]


def test_one_who_is_not_told_waits_for_the_next_dial() -> None:
    shell = Shell(max_connections_per_endpoint=2)
    shell.lend()
    waiting = shell.ask()
    shell.dial_fails()
    shell.advance(FIRST)
    (dial,) = shell.dials
    assert dial.awaited_by is waiting.waiter
    shell.dial_succeeds()
    assert waiting.entry is not None


def test_one_who_is_not_told_keeps_its_place_in_the_queue() -> None:
    """G13."""
    shell = Shell(max_connections_per_endpoint=2)
    holder = shell.lend()
    first, second = shell.ask(), shell.ask()
    shell.dial_fails()
    shell.release(holder)
    assert first.entry is not None
    assert second.is_waiting


# ── the grace ───────────────────────────────────────────────────────────────────


def test_f127_after_the_grace_all_are_told_who_waited_when_the_dial_began() -> None:
    """G33."""
    shell = Shell(outage_grace=1, max_connecting_per_endpoint=1)
    waiting = [shell.ask() for _ in range(20)]
    fail_until(shell, 1.0)
    before = shell.ask()
    assert sum(told(waiting)) == shell.sub().counters.errors
    shell.advance(shell.core.timetable.next_at - shell.now)
    late = shell.ask()
    shell.dial_fails()
    assert all(told([*waiting, before]))
    assert late.is_waiting


def test_f127_within_the_grace_only_those_dialled_for_are_told() -> None:
    shell = Shell(outage_grace=1, max_connecting_per_endpoint=1)
    waiting = [shell.ask() for _ in range(5)]
    shell.dial_fails()
    shell.advance(FIRST)
    shell.dial_fails()
    assert told(waiting) == [True, True, False, False, False]


def test_f127_everyone_on_a_dead_port_knows_within_the_grace_and_one_back_off() -> None:
    """G31, G33: a thousand tasks, default limits."""
    shell = Shell(random=Random(3), acquire_timeout=30, outage_grace=1, is_watched=False)
    waiting = [shell.ask() for _ in range(1000)]
    fail_until(shell, 2.5)
    assert all(told(waiting))
    assert {type(caller.error) for caller in waiting} == {Refused}
    assert shell.sub().counters.errors <= 30


def test_f127_without_grace_the_first_failure_is_told_to_all() -> None:
    shell = Shell(outage_grace=NO_GRACE, max_connecting_per_endpoint=1)
    waiting = ask_at_once(shell, 5)
    late = shell.ask()
    shell.dial_fails()
    assert all(told(waiting))
    assert late.is_waiting


def test_f127_with_endless_grace_each_waits_for_its_own_dial() -> None:
    shell = Shell(outage_grace=math.inf, max_connecting_per_endpoint=1)
    waiting = [shell.ask() for _ in range(5)]
    shell.dial_fails()
    shell.advance(1000.0)
    shell.dial_fails()
    assert told(waiting) == [True, True, False, False, False]


def test_a_restart_within_the_grace_costs_no_more_errors_than_attempts() -> None:
    shell = Shell(random=Random(1), outage_grace=1, max_connections_per_endpoint=10)
    waiting = [shell.ask() for _ in range(200)]
    fail_until(shell, 0.8)
    attempts = shell.sub().counters.errors
    while shell.callers:
        if shell.dials:
            shell.dial_succeeds()
        elif holders := [caller for caller in shell.callers if caller.has_begun]:
            shell.release(holders[0])
        else:
            shell.advance(shell.core.timetable.next_at - shell.now)
    assert sum(told(waiting)) <= attempts


def test_the_grace_counts_from_the_first_failure_since_a_success() -> None:
    shell = Shell(outage_grace=1, max_connecting_per_endpoint=1)
    shell.cancel(shell.ask())
    shell.dial_fails()
    assert shell.sub().gate.outage_since == 0.0
    shell.advance(5.0)
    shell.discard(shell.lend())
    assert shell.sub().gate.outage_since is None
    waiting = [shell.ask() for _ in range(3)]
    shell.dial_fails()
    assert told(waiting) == [True, False, False]


def test_nobody_is_told_after_the_grace_while_a_connection_is_lent() -> None:
    """G33."""
    shell = Shell(outage_grace=1)
    shell.lend()
    waiting = [shell.ask() for _ in range(3)]
    fail_until(shell, 20.0)
    assert not any(told(waiting))


def test_after_the_grace_the_next_failure_without_help_is_told_to_all() -> None:
    shell = Shell(outage_grace=1, max_connecting_per_endpoint=1)
    holder = shell.lend()
    waiting = [shell.ask() for _ in range(3)]
    fail_until(shell, 20.0)
    shell.discard(holder)
    fail_until(shell, 22.0)
    assert all(told(waiting))


def test_each_endpoint_has_its_own_outage() -> None:
    shell = Shell(outage_grace=NO_GRACE)
    elsewhere = shell.ask(THERE)
    here = shell.ask(HERE)
    shell.dial_fails(HERE)
    assert told([here, elsewhere]) == [True, False]


def test_one_who_stands_in_line_with_a_number_from_elsewhere_is_told_only_if_it_had_come() -> None:
    """Numbers count across the pool: those who came to another endpoint say nothing here."""
    shell = Shell(outage_grace=NO_GRACE, max_connecting_per_endpoint=1)
    first = shell.ask(HERE)
    shell.ask(THERE)
    late = shell.ask(HERE)
    shell.dial_fails(HERE)
    assert told([first, late]) == [True, False]


# ── those who warm ──────────────────────────────────────────────────────────────


def test_a_failed_dial_tells_the_warmer_that_it_was_started_for_even_if_others_help() -> None:
    shell = Shell()
    shell.lend()
    warmer = shell.warm(2)
    shell.dial_fails()
    assert isinstance(warmer.error, Refused)


def test_after_the_grace_those_who_warm_are_told_too() -> None:
    shell = Shell(outage_grace=NO_GRACE, max_connecting_per_endpoint=1)
    shell.ask()
    warmer = shell.warm(1)
    shell.dial_fails()
    assert shell.warmed == [warmer]
    assert isinstance(warmer.error, Refused)


# ── a piece at a time ───────────────────────────────────────────────────────────


def test_f147_news_for_many_is_told_a_piece_at_a_time() -> None:
    """G34."""
    shell = Shell(outage_grace=NO_GRACE, max_connecting_per_endpoint=1, is_watched=False)
    waiting = ask_at_once(shell, 3 * PIECE)
    shell.dial_fails()
    shares = [sum(told(waiting))]
    while shell.core.timetable.next_at <= shell.now:
        shell.report(shell.core.ticked)
        shares.append(sum(told(waiting)))
    assert shares[0] == PIECE + 1  # the one that was dialled for, too
    assert shares[-1] == 3 * PIECE
    assert max(after - before for before, after in pairwise(shares)) == PIECE


def test_f147_whoever_comes_while_the_news_is_told_is_not_told() -> None:
    shell = Shell(outage_grace=NO_GRACE, max_connecting_per_endpoint=1, is_watched=False)
    waiting = ask_at_once(shell, 2 * PIECE)
    shell.dial_fails()
    newcomer = shell.ask()
    shell.advance(0.0)
    assert all(told(waiting))
    assert newcomer.is_waiting


def test_f147_news_that_a_success_has_overtaken_is_told_to_nobody_more() -> None:
    shell = Shell(outage_grace=NO_GRACE, max_connecting_per_endpoint=1, is_watched=False)
    waiting = ask_at_once(shell, 2 * PIECE)
    shell.dial_fails()
    shell.now = FIRST
    shell.report(shell.core.swept, shell.sub())  # a dial begins before the timer has rung
    shell.dial_succeeds()
    shell.advance(0.0)
    assert sum(told(waiting)) == PIECE + 1


def test_one_whose_time_is_up_when_it_is_told_is_told_once() -> None:
    """The timer rings late: the rest of the news is due, and so are time-outs of those in it."""
    shell = Shell(outage_grace=NO_GRACE, max_connecting_per_endpoint=1, is_watched=False)
    shell.pause()
    patient = [shell.ask(timeout=50.0) for _ in range(PIECE + 1)]
    impatient = [shell.ask(timeout=5.0) for _ in range(PIECE)]
    shell.resume()
    shell.dial_fails()
    assert (all(told(patient)), any(told(impatient))) == (True, False)
    shell.now = 6.0
    while shell.core.timetable.next_at <= shell.now:
        shell.report(shell.core.ticked)
    assert all(told(impatient))
    assert shell.callers == []


# ── a dial that was given up ────────────────────────────────────────────────────


def test_a_dial_that_was_given_up_tells_nobody_and_delays_nothing() -> None:
    shell = Shell(is_slow_to_give_up=True, outage_grace=NO_GRACE)
    waiting = shell.ask()
    shell.clear()
    shell.dial_ends(shell.dials[0])
    assert waiting.is_waiting
    assert (shell.sub().gate.is_failing, shell.sub().counters.errors) == (False, 0)


# ── a connection that ends before its first byte ────────────────────────────────


def test_f139_a_connection_that_ends_before_its_first_byte_delays_the_next_dial() -> None:
    """G31."""
    shell = Shell(max_connections_per_endpoint=1)
    holder = shell.lend()
    shell.ask()
    shell.lose_early(holder)
    assert shell.dials == []
    shell.advance(FIRST)
    assert len(shell.dials) == 1


def test_f139_a_server_that_accepts_and_hangs_up_sees_a_handful_of_attempts() -> None:
    """G31: a dial that succeeds does not end the delays, since it proves nothing."""
    shell = Shell(max_connections_per_endpoint=10, outage_grace=math.inf)
    for _ in range(200):
        shell.ask()
    while shell.now < 10.0:
        while shell.dials:
            shell.dial_succeeds()
            for caller in [caller for caller in shell.callers if caller.has_begun]:
                shell.lose_early(caller)
        shell.advance(min(shell.core.timetable.next_at, 10.0) - shell.now)
    assert shell.sub().counters.total_created < 30


def test_f139_a_clean_return_ends_the_doubt() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    shell.lose_early(shell.lend())
    shell.advance(FIRST)
    holder = shell.lend()
    assert shell.sub().gate.is_failing
    shell.release(holder)
    gate = shell.sub().gate
    assert (gate.is_failing, gate.is_in_doubt, gate.last_error) == (False, False, None)
    assert not shell.sub().is_strict


def test_f139_the_end_of_the_doubt_starts_the_dials_that_wait() -> None:
    """G12."""
    shell = Shell(max_connections_per_endpoint=3)
    shell.lose_early(shell.lend())
    shell.advance(FIRST)
    holder = shell.lend()
    waiting = [shell.ask(), shell.ask(), shell.ask()]
    assert shell.dials == []
    shell.release(holder)
    assert waiting[0].entry is not None
    assert len(shell.dials) == 2


def test_f139_whoever_had_the_connection_is_its_own_news_and_others_wait_within_the_grace() -> None:
    shell = Shell(max_connections_per_endpoint=1, outage_grace=1)
    holder = shell.lend()
    waiting = shell.ask()
    shell.lose_early(holder)
    assert waiting.is_waiting


def test_f139_after_the_grace_all_are_told_who_waited_when_the_dial_began() -> None:
    """G33."""
    shell = Shell(max_connections_per_endpoint=1, outage_grace=NO_GRACE)
    first, second = ask_at_once(shell, 2)
    between = shell.ask()
    shell.dial_succeeds()
    late = shell.ask()
    shell.lose_early(first)
    assert told([second, between, late]) == [True, False, False]


def test_f139_nobody_is_told_of_it_while_another_connection_is_lent() -> None:
    """G33."""
    shell = Shell(max_connections_per_endpoint=2, outage_grace=NO_GRACE)
    holders = lend_many(shell, 2)
    waiting = shell.ask()
    shell.lose_early(holders[0])
    assert waiting.is_waiting


def test_f127_a_long_lease_that_a_clear_has_ended_keeps_no_news_from_those_who_wait() -> None:
    """G33: that connection will serve nobody."""
    shell = Shell(max_connections_per_endpoint=2, outage_grace=NO_GRACE)
    shell.lend()
    shell.clear()
    waiting = [shell.ask()]
    shell.dial_fails()
    assert told(waiting) == [True]


def test_f127_a_lease_that_was_retired_keeps_no_news_from_those_who_wait() -> None:
    """G33."""
    shell = Shell(max_connections_per_endpoint=2, outage_grace=NO_GRACE)
    shell.retire(shell.lend())
    waiting = [shell.ask()]
    shell.dial_fails()
    assert told(waiting) == [True]
