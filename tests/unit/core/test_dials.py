"""When a dial starts, and for whom (G1, G12, G31)."""

from __future__ import annotations

import math
from random import Random

import pytest

from conpool._core.gate import CEILING, FIRST
from conpool._core.warming import SHORT_LIFE
from conpool._values.states import CloseReason, ConnectionState, WaitOutcome
from tests.support import check
from tests.support.shell import HERE, THERE, Refused, Shell

# ── for those who wait ──────────────────────────────────────────────────────────


def test_a_dial_starts_at_once_for_each_waiter_until_the_limit() -> None:
    """G1."""
    shell = Shell(max_connections_per_endpoint=3)
    callers = [shell.ask() for _ in range(5)]
    assert [entry.awaited_by for entry in shell.dials] == [c.waiter for c in callers[:3]]


def test_no_more_dials_than_max_connecting_run_at_once() -> None:
    shell = Shell(max_connections_per_endpoint=9, max_connecting_per_endpoint=2)
    callers = [shell.ask() for _ in range(5)]
    assert len(shell.dials) == 2
    shell.dial_succeeds()
    assert [entry.awaited_by for entry in shell.dials] == [callers[1].waiter, callers[2].waiter]


def test_no_dial_starts_while_one_runs_whose_waiter_has_gone() -> None:
    shell = Shell()
    shell.cancel(shell.ask())
    shell.ask()
    assert len(shell.dials) == 1


def test_whoever_lost_the_dial_to_an_older_waiter_gets_the_olders() -> None:
    """A finished dial serves the oldest waiter; the other dial is there for the younger."""
    shell = Shell()
    first, second = shell.ask(), shell.ask()
    shell.dial_succeeds(shell.dials[1])
    assert first.entry is not None
    assert len(shell.dials) == 1
    shell.dial_succeeds()
    assert second.entry is not None


# ── after a failure ─────────────────────────────────────────────────────────────


def test_a_failed_dial_fails_the_waiter_it_was_started_for() -> None:
    shell = Shell(max_connecting_per_endpoint=1)
    first, second = shell.ask(), shell.ask()
    shell.dial_fails()
    assert first.outcome is WaitOutcome.DIAL_FAILED
    assert isinstance(first.error, Refused)
    assert second.is_waiting


def test_a_failed_dial_whose_waiter_has_gone_fails_nobody() -> None:
    shell = Shell()
    shell.cancel(shell.ask())
    other = shell.ask()
    shell.dial_fails()
    assert other.is_waiting
    shell.advance(FIRST)
    shell.dial_succeeds()
    assert other.entry is not None


def test_the_next_dial_waits_for_the_delay_and_no_longer() -> None:
    """G12, G31."""
    shell = Shell()
    shell.ask()
    shell.dial_fails()
    waiting = shell.ask()
    assert not shell.dials
    shell.advance(FIRST * 0.99)
    assert not shell.dials
    shell.advance(FIRST * 0.01)
    assert [entry.awaited_by for entry in shell.dials] == [waiting.waiter]


def test_after_a_failure_one_attempt_is_made_in_each_delay_however_many_wait() -> None:
    """G31: though each of the dials hangs."""
    shell = Shell(max_connections_per_endpoint=10)
    shell.ask()
    shell.dial_fails()
    for _ in range(9):
        shell.ask()
    started: list[tuple[int, object]] = []
    for _ in range(5):
        shell.advance(shell.core.timetable.next_at - shell.now)
        started.append((len(shell.dials), round(shell.now, 6)))
    delays = [FIRST * factor for factor in (1, 3, 7, 15, 31)]
    assert started == [(n, pytest.approx(at)) for n, at in enumerate(delays, 1)]


def test_success_ends_the_delays() -> None:
    shell = Shell()
    shell.ask()
    shell.dial_fails()
    callers = [shell.ask() for _ in range(4)]
    shell.advance(FIRST)
    assert len(shell.dials) == 1
    shell.dial_succeeds()
    assert callers[0].entry is not None
    assert len(shell.dials) == 3
    assert shell.sub().gate.last_error is None


def test_a_dead_server_sees_a_handful_of_attempts_however_many_wait() -> None:
    """G31: 10,000 waiters for ten seconds, while nobody but those dialled for is told."""
    shell = Shell(
        random=Random(1),
        max_connections_per_endpoint=100,
        outage_grace=math.inf,
        is_watched=False,
    )
    for _ in range(10_000):
        shell.ask()
    assert len(shell.dials) == 100
    attempts = told = 0
    while shell.now < 10.0:
        while shell.dials:
            attempts += 1
            told += len(shell.dials) == 1  # the others still had hope
            shell.dial_fails()
        shell.advance(min(shell.core.timetable.next_at, 10.0) - shell.now)
    assert 105 < attempts < 130
    assert len(shell.callers) == 10_000 - told
    check(shell.core, shell.now)


def test_dials_that_failed_together_count_as_one_failure() -> None:
    shell = Shell(max_connections_per_endpoint=9)
    for _ in range(9):
        shell.ask()
    while shell.dials:
        shell.dial_fails()
    assert shell.sub().gate.opens_at == FIRST


def test_the_delay_never_exceeds_its_ceiling() -> None:
    shell = Shell()
    for _ in range(30):
        shell.ask()
        shell.advance(CEILING)
        shell.dial_fails()
    assert shell.sub().gate.opens_at - shell.now == CEILING


def test_each_endpoint_has_its_own_delay() -> None:
    shell = Shell()
    shell.ask(HERE)
    shell.dial_fails(HERE)
    shell.ask(THERE)
    assert len(shell.dials) == 1


def test_a_return_serves_a_waiter_behind_a_shut_gate() -> None:
    shell = Shell(max_connections_per_endpoint=2)
    holder, waiting = shell.lend(), shell.ask()
    shell.dial_fails()
    assert not shell.dials
    shell.release(holder)
    assert waiting.entry is not None


def test_no_dial_starts_in_a_pause_and_the_gate_counts_afterwards() -> None:
    shell = Shell()
    shell.ask()
    shell.dial_fails()
    shell.pause()
    waiting = shell.ask()
    shell.advance(10.0)
    assert not shell.dials
    shell.resume()
    assert [entry.awaited_by for entry in shell.dials] == [waiting.waiter]


def test_a_dial_that_was_given_up_is_no_failure() -> None:
    shell = Shell()
    caller = shell.ask()
    shell.shut()
    assert caller.outcome is WaitOutcome.POOL_CLOSED
    assert (shell.sub().gate.is_failing, shell.sub().counters.errors) == (False, 0)


# ── a new connection, where others are idle ─────────────────────────────────────


def test_an_idle_connection_makes_way_for_a_new_one_only_at_the_limit() -> None:
    shell = Shell(max_connections_per_endpoint=2)
    shell.release(shell.lend())
    shell.ask(fresh=True)
    assert (len(shell.sub().idle), len(shell.dials)) == (1, 1)
    shell.ask(fresh=True)
    assert (len(shell.sub().idle), len(shell.dials)) == (0, 2)
    assert shell.sub().counters.closed_by_reason == {CloseReason.EVICTED: 1}


def test_as_many_make_way_at_once_as_want_new_connections() -> None:
    """Found by the model checker: the second waited for the goodbye of the first's predecessor."""
    shell = Shell(max_connections_per_endpoint=2, is_courteous=True)
    for caller in [shell.lend(), shell.lend()]:
        shell.release(caller)
    shell.ask(fresh=True)
    shell.ask(fresh=True)
    assert len(shell.closes) == 2


def test_returned_connections_make_way_for_as_many_as_want_new_ones() -> None:
    """Found by the model checker: the second was laid aside, and nobody closed it."""
    shell = Shell(max_connections_per_endpoint=2, is_courteous=True)
    holders = [shell.lend(), shell.lend()]
    for _ in range(2):
        shell.ask(fresh=True)
    for holder in holders:
        shell.release(holder)
    assert len(shell.closes) == 2


def test_a_returned_connection_goes_to_a_younger_waiter_if_the_older_wants_a_new_one() -> None:
    shell = Shell(max_connections_per_endpoint=2)
    holder = shell.lend()
    wants_new, takes_any = shell.ask(fresh=True), shell.ask()
    shell.release(holder)
    assert takes_any.entry is not None
    assert wants_new.is_waiting
    shell.dial_succeeds()
    assert wants_new.entry is not None


def test_slots_are_found_for_new_connections_after_a_share_of_the_pools_slots() -> None:
    """Found by the model checker: the pool's limit dialled for the first, and forgot the second."""
    shell = Shell(max_connections_per_endpoint=2, max_connections=2)
    shell.ask(fresh=True)
    shell.pause()
    shell.ask(fresh=True)
    shell.dial_succeeds()
    shell.resume()
    assert (len(shell.sub().idle), len(shell.dials)) == (0, 2)


def test_what_was_laid_aside_unused_is_not_new() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    shell.cancel(shell.ask())
    entry = shell.dial_succeeds()
    assert shell.take() is entry
    wants_new = shell.ask(fresh=True)
    shell.put_back_unused(entry)
    assert wants_new.is_waiting
    assert entry.reason is CloseReason.EVICTED
    assert len(shell.dials) == 1


def test_what_is_checked_in_the_background_makes_way_for_a_new_connection() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    shell.release(shell.lend())
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    shell.ask(fresh=True)
    assert entry.reason is CloseReason.EVICTED
    assert len(shell.dials) == 1
    shell.check_succeeds(entry)  # too late to matter
    assert entry.state is ConnectionState.CLOSED


def test_a_gate_that_opens_on_a_full_endpoint_makes_way_for_a_new_connection() -> None:
    """Found by the model checker: nobody looked again when the delay was over."""
    shell = Shell(max_connections_per_endpoint=2)
    holder, _ = shell.lend(), shell.ask(fresh=True)
    wants_new = shell.ask(fresh=True)
    shell.set_limit(1)
    shell.dial_fails()
    shell.release(holder)
    assert (len(shell.sub().idle), wants_new.is_waiting) == (1, True)
    shell.advance(FIRST)
    assert (len(shell.sub().idle), len(shell.dials)) == (0, 1)


# ── warmth ──────────────────────────────────────────────────────────────────────


def test_min_idle_is_dialled_as_soon_as_the_endpoint_is_used() -> None:
    shell = Shell(min_idle_per_endpoint=2)
    shell.lend()
    assert len(shell.dials) == 2
    for _ in range(2):
        shell.dial_succeeds()
    assert (len(shell.sub().idle), shell.dials) == (2, [])


def test_f127_min_idle_is_not_dialled_for_nobody_where_the_last_dial_has_failed() -> None:
    """A login that is refused is not tried again and again."""
    shell = Shell(min_idle_per_endpoint=2)
    shell.ask()
    shell.dial_fails()
    shell.advance(60.0)
    assert shell.dials == []
    shell.lend()
    assert len(shell.dials) == 2


def test_min_idle_is_not_dialled_before_a_dial_has_succeeded() -> None:
    shell = Shell(min_idle_per_endpoint=1)
    shell.ask()
    assert len(shell.dials) == 1


def test_f150_what_is_checked_in_the_background_counts_for_min_idle() -> None:
    shell = Shell(min_idle_per_endpoint=1)
    shell.lend()
    entry = shell.dial_succeeds()
    shell.advance(SHORT_LIFE)
    shell.reserve(entry)
    shell.sweep()
    assert shell.dials == []
    shell.check_fails(entry)
    assert len(shell.dials) == 1


def test_min_idle_counts_what_is_dialled_and_will_be_spare() -> None:
    shell = Shell(min_idle_per_endpoint=1)
    shell.lend()
    assert len(shell.dials) == 1  # to be idle
    shell.ask()
    assert len(shell.dials) == 2  # one of them for the waiter


def test_min_idle_lapses_where_nobody_asks_any_more() -> None:
    shell = Shell(min_idle_per_endpoint=1, max_idle_time=10)
    shell.release(shell.lend())
    while shell.dials:
        shell.dial_succeeds()
    for _ in range(9):
        shell.advance(2.0)
        shell.sweep()
        while shell.dials:
            shell.dial_succeeds()
    assert HERE not in shell.core.subs


def test_warming_dials_until_as_many_are_open() -> None:
    shell = Shell()
    shell.lend()
    warmer = shell.warm(3)
    assert len(shell.dials) == 2
    shell.dial_succeeds()
    assert shell.warmed == []
    shell.dial_succeeds()
    assert shell.warmed == [warmer]
    assert (warmer.error, warmer.queued) == (None, False)


def test_warming_what_is_warm_ends_at_once() -> None:
    shell = Shell()
    shell.lend()
    assert shell.warmed == [shell.warm(1)]
    assert shell.dials == []


def test_warming_goes_no_faster_than_max_connecting() -> None:
    shell = Shell(max_connecting_per_endpoint=1)
    shell.warm(3)
    assert len(shell.dials) == 1
    shell.dial_succeeds()
    assert len(shell.dials) == 1


def test_a_failed_dial_ends_the_warming_it_was_started_for() -> None:
    shell = Shell()
    warmer = shell.warm(1)
    shell.dial_fails()
    assert shell.warmed == [warmer]
    assert isinstance(warmer.error, Refused)
    assert shell.dials == []


def test_a_failed_dial_for_a_waiter_fails_no_warmer_and_warming_goes_on_after_the_delay() -> None:
    shell = Shell(max_connecting_per_endpoint=1)
    shell.ask()
    warmer = shell.warm(1)
    shell.dial_fails()
    assert (shell.warmed, warmer.queued) == ([], True)
    shell.advance(FIRST)
    shell.dial_succeeds()
    assert shell.warmed == [warmer]


def test_nothing_more_is_dialled_for_one_who_warms_no_more() -> None:
    shell = Shell(max_connecting_per_endpoint=1)
    warmer = shell.warm(3)
    shell.cancel_warming(warmer)
    shell.dial_succeeds()
    assert shell.dials == []
    assert shell.warmed == []
    assert not shell.sub().is_scarce


def test_a_cancelled_warming_leaves_its_dial_for_others() -> None:
    shell = Shell()
    shell.cancel_warming(shell.warm(1))
    assert len(shell.dials) == 1
    waiting = shell.ask()
    assert len(shell.dials) == 1
    shell.dial_succeeds()
    assert waiting.entry is not None


def test_warming_ends_when_a_lowered_limit_is_all_there_can_be() -> None:
    """Found by the model checker: it waited for ever."""
    shell = Shell(max_connections_per_endpoint=2)
    warmer = shell.warm(2)
    shell.set_limit(1)
    shell.dial_succeeds()
    shell.dial_succeeds()
    assert shell.warmed == [warmer]


def test_warming_never_goes_before_a_waiter() -> None:
    shell = Shell(max_connections=2)
    shell.lend(THERE)
    shell.lend(THERE)
    shell.warm(2, HERE)
    waiting = shell.ask(THERE)
    holder = next(caller for caller in shell.callers if caller.entry is not None)
    shell.discard(holder)
    assert shell.dials[0].awaited_by is waiting.waiter


def test_warming_does_not_take_the_slot_of_its_own_endpoint_before_a_waiter_of_another() -> None:
    shell = Shell(max_connections=2)
    holder = shell.lend(HERE)
    shell.lend(THERE)
    shell.warm(2, HERE)
    waiting = shell.ask(THERE)
    shell.discard(holder)
    assert [entry.awaited_by for entry in shell.dials] == [waiting.waiter]


def test_warming_never_evicts() -> None:
    shell = Shell(max_connections=1)
    shell.release(shell.lend(THERE))
    warmer = shell.warm(1, HERE)
    assert (shell.dials, shell.warmed, len(shell.sub(THERE).idle)) == ([], [], 1)
    shell.close_idle(THERE)
    shell.sweep()
    shell.dial_succeeds(HERE)
    assert shell.warmed == [warmer]


def test_warming_waits_for_the_end_of_a_pause() -> None:
    shell = Shell()
    shell.pause()
    warmer = shell.warm(1)
    assert shell.dials == []
    assert shell.core.timetable.next_at == math.inf
    shell.resume()
    shell.dial_succeeds()
    assert shell.warmed == [warmer]


def test_a_server_that_hangs_up_at_once_is_not_dialled_for_warmth_as_fast_as_it_can() -> None:
    """G31."""
    shell = Shell(min_idle_per_endpoint=1, max_idle_time=1000)
    shell.lend()
    dials = 0
    while shell.now < 10.0:
        while shell.dials:
            dials += 1
            entry = shell.dial_succeeds()
            shell.core.condemned(entry, CloseReason.PEER_CLOSED, shell.now)
            shell.settle()
        shell.advance(min(shell.core.timetable.next_at, 10.0) - shell.now)
    assert 3 < dials < 15


def test_connections_that_last_are_replaced_at_once() -> None:
    shell = Shell(min_idle_per_endpoint=1, max_idle_time=1000)
    shell.lend()
    entry = shell.dial_succeeds()
    shell.advance(SHORT_LIFE)
    shell.core.condemned(entry, CloseReason.PEER_CLOSED, shell.now)
    shell.settle()
    assert len(shell.dials) == 1
