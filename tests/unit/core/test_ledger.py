"""Bookkeeping without decisions: every move leaves all counts in agreement."""

from __future__ import annotations

import math

import pytest

from conpool._core.effects import Check, Close, Dial, GiveUp
from conpool._core.ledger import Ledger
from conpool._core.pool_limit import PoolLimit
from conpool._core.records import (
    AnyEntry,
    AnySubPool,
    AnyWaiter,
    AnyWarmer,
    Group,
    Waiter,
    Warmer,
)
from conpool._values.group import EndpointGroup
from conpool._values.states import CloseReason, ConnectionState, WaitOutcome
from tests.support.shell import HERE, THERE, Refused, make_sub


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(PoolLimit(9))


@pytest.fixture
def sub() -> AnySubPool:
    sub = make_sub()
    sub.shares_limit = True
    sub.note_rules()
    return sub


def dial(
    ledger: Ledger, sub: AnySubPool, awaited_by: AnyWaiter | AnyWarmer | None = None
) -> AnyEntry:
    """A connection that is being dialled."""
    ledger.open(sub, awaited_by, 0.0)
    effect = ledger.effects[-1]
    assert isinstance(effect, Dial)
    return effect.entry


def active(ledger: Ledger, sub: AnySubPool) -> AnyEntry:
    entry = dial(ledger, sub)
    ledger.activate(entry)
    return entry


def idle(ledger: Ledger, sub: AnySubPool, since: float = 0.0) -> AnyEntry:
    entry = active(ledger, sub)
    entry.idle_since = since
    ledger.push_idle(entry)
    return entry


def queued(
    ledger: Ledger, sub: AnySubPool, number: int = 0, deadline: float = math.inf
) -> AnyWaiter:
    waiter = Waiter((sub,), 0.0, deadline, False)
    waiter.number = number
    ledger.enqueue(waiter, 0.0)
    return waiter


def return_to_queue(ledger: Ledger, waiter: AnyWaiter) -> None:
    waiter.had_turn = True
    ledger.enqueue(waiter, 0.0)


def checking(ledger: Ledger, sub: AnySubPool, waiter: AnyWaiter | None) -> AnyEntry:
    """A connection that is checked for `waiter`, or for any of them."""
    entry = active(ledger, sub)
    ledger.begin_check(entry, waiter)
    return entry


def counts(ledger: Ledger, sub: AnySubPool) -> tuple[int, ...]:
    """Connecting, idle, active, closing, charged to the endpoint and to the pool."""
    return (
        sub.connecting,
        len(sub.idle),
        sub.active,
        sub.closing,
        len(sub.limit.borrowers),
        len(ledger.pool_limit.limit.borrowers),
    )


# ── connections ─────────────────────────────────────────────────────────────────


def test_a_connection_is_charged_before_its_dial_and_repaid_after_its_close(
    ledger: Ledger, sub: AnySubPool
) -> None:
    """G1."""
    entry = dial(ledger, sub)
    assert counts(ledger, sub) == (1, 0, 0, 0, 1, 1)
    ledger.activate(entry)
    assert counts(ledger, sub) == (0, 0, 1, 0, 1, 1)
    ledger.push_idle(entry)
    assert counts(ledger, sub) == (0, 1, 0, 0, 1, 1)
    assert ledger.pop_newest(sub) is entry
    assert counts(ledger, sub) == (0, 0, 1, 0, 1, 1)
    ledger.condemn(entry, CloseReason.ERROR, gracefully=True)
    assert counts(ledger, sub) == (0, 0, 0, 1, 1, 1)
    ledger.strike_off(entry)
    assert counts(ledger, sub) == (0, 0, 0, 0, 0, 0)
    assert entry.state is ConnectionState.CLOSED


def test_a_dial_that_failed_is_repaid(ledger: Ledger, sub: AnySubPool) -> None:
    ledger.strike_off(dial(ledger, sub))
    assert counts(ledger, sub) == (0, 0, 0, 0, 0, 0)


def test_the_outbox_has_what_is_to_be_done_in_order(ledger: Ledger, sub: AnySubPool) -> None:
    entry = active(ledger, sub)
    other = dial(ledger, sub)
    ledger.condemn(entry, CloseReason.ERROR, gracefully=True)
    assert list(ledger.effects) == [Dial(entry), Dial(other), Close(entry, True)]


def test_a_connection_cannot_be_closed_twice(ledger: Ledger, sub: AnySubPool) -> None:
    entry = active(ledger, sub)
    ledger.condemn(entry, CloseReason.ERROR, gracefully=False)
    with pytest.raises(AssertionError, match="cannot become closing"):
        ledger.condemn(entry, CloseReason.ERROR, gracefully=False)


def test_the_newest_idle_connection_is_on_top(ledger: Ledger, sub: AnySubPool) -> None:
    first, second = idle(ledger, sub), idle(ledger, sub)
    assert ledger.pop_newest(sub) is second
    assert ledger.pop_newest(sub) is first


def test_what_is_reserved_stays_idle_and_counts_as_it_did(ledger: Ledger, sub: AnySubPool) -> None:
    first, _ = idle(ledger, sub), idle(ledger, sub)
    ledger.reserve(first)
    assert counts(ledger, sub) == (0, 2, 0, 0, 2, 2)
    assert first in sub.reserved


def test_what_is_reserved_may_not_be_lent(ledger: Ledger, sub: AnySubPool) -> None:
    entry = idle(ledger, sub)
    ledger.reserve(entry)
    assert entry.lapses_at == -math.inf


def test_what_was_only_checked_keeps_its_place_and_its_idle_time(
    ledger: Ledger, sub: AnySubPool
) -> None:
    sub.max_idle_time = 5.0
    entries = [idle(ledger, sub, since=float(number)) for number in range(4)]
    for entry in entries:
        entry.expires_at = 100.0
    ledger.reserve(entries[1])
    ledger.unreserve(entries[1])
    assert list(sub.idle) == entries
    assert entries[1].lapses_at == 6.0
    assert ledger.pool_limit.find_longest_idle() is entries[0]


def test_what_was_reserved_lapses_no_later_than_its_lifetime(
    ledger: Ledger, sub: AnySubPool
) -> None:
    entry = idle(ledger, sub)
    entry.expires_at = 3.0
    ledger.reserve(entry)
    ledger.unreserve(entry)
    assert entry.lapses_at == 3.0


def test_what_is_closed_while_it_is_reserved_is_reserved_no_more(
    ledger: Ledger, sub: AnySubPool
) -> None:
    entry = idle(ledger, sub)
    ledger.reserve(entry)
    ledger.condemn(entry, CloseReason.CLEARED, gracefully=False)
    assert (sub.reserved, sub.idle) == ({}, {})


# ── idle connections that leave ─────────────────────────────────────────────────


def test_what_is_set_aside_is_on_no_stack_and_holds_its_slot(
    ledger: Ledger, sub: AnySubPool
) -> None:
    entries = [idle(ledger, sub) for _ in range(3)]
    ledger.set_idle_aside(sub, CloseReason.CLEARED)
    assert (sub.leaving, sub.idle) == ({CloseReason.CLEARED: dict.fromkeys(entries)}, {})
    assert len(sub.limit.borrowers) == 3
    assert sub.count_surplus() == -sub.limit.total


def test_what_is_checked_in_the_background_is_not_set_aside(
    ledger: Ledger, sub: AnySubPool
) -> None:
    first, second = idle(ledger, sub), idle(ledger, sub)
    ledger.reserve(first)
    ledger.set_idle_aside(sub, CloseReason.CLEARED)
    assert (sub.idle, sub.leaving) == ({first: None}, {CloseReason.CLEARED: {second: None}})


def test_what_was_set_aside_is_closed_from_there(ledger: Ledger, sub: AnySubPool) -> None:
    entry = idle(ledger, sub)
    ledger.set_idle_aside(sub, CloseReason.CLEARED)
    ledger.condemn(entry, CloseReason.CLEARED, gracefully=True)
    assert (sub.leaving, sub.closing) == ({}, 1)
    assert ledger.pool_limit.find_longest_idle() is None


# ── dials in vain ───────────────────────────────────────────────────────────────


def test_a_dial_that_is_given_up_holds_its_slots_until_it_is_over(
    ledger: Ledger, sub: AnySubPool
) -> None:
    """G1."""
    entry = dial(ledger, sub)
    ledger.give_up(entry)
    assert counts(ledger, sub) == (1, 0, 0, 0, 1, 1)
    assert (sub.void, ledger.pool_limit.closing) == (1, 1)
    assert ledger.effects[-1] == GiveUp(entry)
    ledger.dial_over(entry)
    ledger.strike_off(entry)
    assert counts(ledger, sub) == (0, 0, 0, 0, 0, 0)
    assert (sub.void, ledger.pool_limit.closing) == (0, 0)


def test_a_dial_is_given_up_once(ledger: Ledger, sub: AnySubPool) -> None:
    entry = dial(ledger, sub)
    ledger.give_up(entry)
    ledger.give_up(entry)
    assert list(ledger.effects) == [Dial(entry), GiveUp(entry)]
    assert (sub.void, ledger.pool_limit.closing) == (1, 1)


def test_a_dial_that_is_given_up_is_nobodys(ledger: Ledger, sub: AnySubPool) -> None:
    waiter = queued(ledger, sub)
    entry = dial(ledger, sub, waiter)
    ledger.give_up(entry)
    assert (entry.awaited_by, waiter.coming) == (None, None)
    assert sub.queue.count_unprovided() == 1
    assert entry not in sub.spare_dials


def test_a_dial_that_succeeds_though_it_was_given_up_is_in_vain_no_more(
    ledger: Ledger, sub: AnySubPool
) -> None:
    entry = dial(ledger, sub)
    ledger.give_up(entry)
    ledger.activate(entry)
    assert (sub.void, sub.active, ledger.pool_limit.closing) == (0, 1, 0)


def test_with_a_new_generation_all_dials_are_in_vain(ledger: Ledger, sub: AnySubPool) -> None:
    entries = [dial(ledger, sub) for _ in range(3)]
    ledger.give_up(entries[0])
    ledger.begin_generation(sub)
    assert (sub.void, sub.spare_dials) == (3, {})
    ledger.give_up(entries[1])
    assert sub.void == 3
    for entry in entries:
        ledger.strike_off(entry)
    assert (sub.void, sub.connecting, sub.survivors) == (0, 0, {})


def test_each_generation_knows_how_many_of_it_are_left(ledger: Ledger, sub: AnySubPool) -> None:
    old = [active(ledger, sub) for _ in range(2)]
    ledger.begin_generation(sub)
    ledger.begin_generation(sub)  # nothing is of this one
    new = active(ledger, sub)
    ledger.begin_generation(sub)
    assert sub.survivors == {0: 2, 2: 1}
    for entry in [*old, new]:
        ledger.condemn(entry, CloseReason.CLEARED, gracefully=False)
        ledger.strike_off(entry)
    assert sub.survivors == {}


# ── checks ──────────────────────────────────────────────────────────────────────


def test_a_check_and_its_waiter_know_of_each_other_until_it_is_over(
    ledger: Ledger, sub: AnySubPool
) -> None:
    waiter = queued(ledger, sub)
    entry = checking(ledger, sub, waiter)
    assert (entry.awaited_by, waiter.coming, sub.checking) == (waiter, entry, 1)
    assert ledger.effects[-1] == Check(entry)
    ledger.check_over(entry)
    assert (entry.awaited_by, waiter.coming, sub.checking) == (None, None, 0)


def test_a_check_whose_waiter_has_gone_is_spare(ledger: Ledger, sub: AnySubPool) -> None:
    waiter = queued(ledger, sub)
    entry = checking(ledger, sub, waiter)
    assert sub.find_spare() is None
    ledger.dequeue(waiter)
    assert list(sub.spare_checks) == [entry]
    assert sub.find_spare() is entry
    ledger.check_over(entry)
    assert sub.spare_checks == {}


def test_a_check_whose_waiter_has_gone_is_not_spare_while_another_could_have_it(
    ledger: Ledger, sub: AnySubPool
) -> None:
    waiter, _ = queued(ledger, sub, 1), queued(ledger, sub, 2)
    checking(ledger, sub, waiter)
    ledger.dequeue(waiter)
    assert sub.find_spare() is None


def test_closing_what_is_checked_ends_the_check(ledger: Ledger, sub: AnySubPool) -> None:
    waiter = queued(ledger, sub)
    entry = checking(ledger, sub, waiter)
    ledger.condemn(entry, CloseReason.CLEARED, gracefully=False)
    assert (entry.is_checking, sub.checking, waiter.coming) == (False, 0, None)


# ── waiters ─────────────────────────────────────────────────────────────────────


def test_waiters_stand_in_order_of_arrival(ledger: Ledger, sub: AnySubPool) -> None:
    """G13."""
    waiters = [queued(ledger, sub, number) for number in range(3)]
    assert list(sub.queue) == waiters


def test_a_waiter_stands_in_the_queue_of_each_of_its_subpools_and_leaves_all(
    ledger: Ledger, sub: AnySubPool
) -> None:
    other = make_sub()
    waiter = Waiter((sub, other), 0.0, math.inf, False)
    waiter.group = Group(EndpointGroup([HERE, THERE]))
    ledger.enqueue(waiter, 0.0)
    assert waiter in sub.queue
    assert waiter in other.queue
    ledger.dequeue(waiter)
    assert not sub.queue
    assert not other.queue


def test_a_waiter_that_is_served_is_told_by_the_outbox(ledger: Ledger, sub: AnySubPool) -> None:
    waiter, entry = queued(ledger, sub), active(ledger, sub)
    ledger.effects.clear()
    ledger.hand_over(waiter, entry)
    assert list(ledger.effects) == [waiter]
    assert (waiter.entry, waiter.queued, len(sub.queue)) == (entry, False, 0)


def test_a_waiter_that_is_refused_learns_why(ledger: Ledger, sub: AnySubPool) -> None:
    waiter, error = queued(ledger, sub), Refused()
    ledger.refuse(waiter, WaitOutcome.DIAL_FAILED, error)
    assert list(ledger.effects) == [waiter]
    assert (waiter.entry, waiter.outcome, waiter.error) == (None, WaitOutcome.DIAL_FAILED, error)


def test_waiters_put_back_stand_in_order_before_all_who_came_later(
    ledger: Ledger, sub: AnySubPool
) -> None:
    """G13: whichever of them comes back first."""
    waiters = [queued(ledger, sub, number) for number in range(1, 6)]
    for waiter in waiters[:3]:
        ledger.dequeue(waiter)
    for number in (1, 0, 2):
        return_to_queue(ledger, waiters[number])
    assert list(sub.queue) == waiters


def test_of_those_without_a_number_whoever_comes_back_first_is_first(
    ledger: Ledger, sub: AnySubPool
) -> None:
    queued(ledger, sub, 1)
    first, second = (Waiter((sub,), 0.0, math.inf, False) for _ in range(2))
    return_to_queue(ledger, first)
    return_to_queue(ledger, second)
    assert list(sub.queue)[:2] == [first, second]
    assert sub.queue.find() is first


def test_whoever_loses_what_was_under_way_for_it_keeps_its_place(
    ledger: Ledger, sub: AnySubPool
) -> None:
    """G13."""
    waiters = [queued(ledger, sub, number) for number in range(3)]
    entry = dial(ledger, sub, waiters[1])
    ledger.dial_over(entry)
    assert list(sub.queue) == waiters
    ledger.dequeue(waiters[0])
    assert sub.queue.find() is waiters[1]


# ── dials and those they are for ────────────────────────────────────────────────


def test_a_dial_and_its_waiter_know_of_each_other_until_it_is_over(
    ledger: Ledger, sub: AnySubPool
) -> None:
    waiter = queued(ledger, sub)
    entry = dial(ledger, sub, waiter)
    assert (entry.awaited_by, waiter.coming) == (waiter, entry)
    assert sub.queue.count_unprovided() == 0
    assert ledger.dial_over(entry) is waiter
    assert (entry.awaited_by, waiter.coming) == (None, None)
    assert sub.queue.count_unprovided() == 1


def test_a_dial_whose_waiter_has_gone_is_nobodys(ledger: Ledger, sub: AnySubPool) -> None:
    waiter = queued(ledger, sub)
    entry = dial(ledger, sub, waiter)
    ledger.dequeue(waiter)
    assert list(sub.spare_dials) == [entry]
    assert ledger.dial_over(entry) is None
    assert sub.spare_dials == {}


def test_a_waiter_put_back_has_its_dial_again(ledger: Ledger, sub: AnySubPool) -> None:
    waiter = queued(ledger, sub)
    entry = dial(ledger, sub, waiter)
    ledger.dequeue(waiter)
    return_to_queue(ledger, waiter)
    assert (waiter.coming, sub.queue.count_unprovided(), sub.spare_dials) == (entry, 0, {})
    assert ledger.dial_over(entry) is waiter


def test_a_waiter_put_back_whose_dial_has_ended_has_none(ledger: Ledger, sub: AnySubPool) -> None:
    waiter = queued(ledger, sub)
    entry = dial(ledger, sub, waiter)
    ledger.dequeue(waiter)
    ledger.dial_over(entry)
    return_to_queue(ledger, waiter)
    assert waiter.coming is None
    assert sub.queue.find(is_unprovided=True) is waiter


def test_a_warmer_that_is_told_to_stop_leaves_the_list(ledger: Ledger, sub: AnySubPool) -> None:
    sub.shares_limit = False
    warmer: AnyWarmer = Warmer(sub, 2)
    warmer.sub.warmers = {warmer: None}
    assert sub.is_scarce
    entry = dial(ledger, sub, warmer)
    assert list(sub.spare_dials) == [entry]  # no waiter asked for it
    assert ledger.dial_over(entry) is warmer
    ledger.end_warming(warmer, None)
    assert (sub.warmers, warmer.queued, ledger.effects[-1]) == ({}, False, warmer)
    assert not sub.is_scarce


def test_a_dial_whose_warmer_has_gone_is_nobodys(ledger: Ledger, sub: AnySubPool) -> None:
    warmer: AnyWarmer = Warmer(sub, 2)
    warmer.sub.warmers = {warmer: None}
    entry = dial(ledger, sub, warmer)
    ledger.leave_warming(warmer)
    assert ledger.dial_over(entry) is None


# ── time ────────────────────────────────────────────────────────────────────────


def test_a_waiter_with_its_own_deadline_is_expected_until_it_leaves(
    ledger: Ledger, sub: AnySubPool
) -> None:
    queued(ledger, sub)
    waiter = queued(ledger, sub, deadline=3.0)
    assert ledger.timetable.next_at == 3.0
    ledger.dequeue(waiter)
    assert list(ledger.timetable.pop_due(3.0, 9)) == []


def test_of_waiters_whose_deadlines_are_in_order_only_the_first_is_noted(
    ledger: Ledger, sub: AnySubPool
) -> None:
    for deadline in (3.0, 4.0, 4.0, 5.0):
        ledger.enqueue(Waiter((sub,), 0.0, deadline, False), 0.0)
    assert sub.due_at == 3.0
    assert repr(ledger.timetable) == "<Timetable of 1, next at 3.0>"


def test_behind_one_who_comes_due_too_soon_everybody_has_a_row(
    ledger: Ledger, sub: AnySubPool
) -> None:
    """Else the first in line would not be the first to come due."""
    waiters = [queued(ledger, sub, deadline=deadline) for deadline in (9.0, 8.0, 9.0, 10.0)]
    assert [waiter.is_timed for waiter in waiters] == [False, True, True, True]
    assert sub.timed == 3


@pytest.mark.parametrize("wants_new", [False, True])
def test_whoever_leaves_the_line_gets_a_row(
    wants_new: bool, ledger: Ledger, sub: AnySubPool
) -> None:
    waiter: AnyWaiter = Waiter((sub,), 0.0, 4.0, wants_new)
    ledger.enqueue(waiter, 0.0)
    assert waiter.is_timed == wants_new
    dial(ledger, sub, waiter)
    assert waiter.is_timed
    assert waiter.row is not None


def test_a_forgotten_subpool_is_in_no_schedule(ledger: Ledger, sub: AnySubPool) -> None:
    ledger.touch(sub)
    ledger.timetable.look_at(sub, 3.0)
    ledger.pool_limit.cold[sub] = None
    ledger.forget(sub)
    assert (ledger.touched, sub.due_at, len(ledger.pool_limit.cold)) == ({}, math.inf, 0)


def test_shows_its_limit_its_outbox_and_its_timetable(ledger: Ledger, sub: AnySubPool) -> None:
    dial(ledger, sub)
    assert repr(ledger) == (
        "<Ledger <PoolLimit <Limit 1/9>, 0 wanted, 0 closing>, 1 effects,"
        " <Timetable of 0, next at inf>>"
    )
