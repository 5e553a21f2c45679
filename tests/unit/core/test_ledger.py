"""Bookkeeping without decisions: every move leaves all counts in agreement."""

from __future__ import annotations

import math

import pytest

from conpool._core.effects import Close, Dial
from conpool._core.ledger import Ledger
from conpool._core.pool_limit import PoolLimit
from conpool._core.records import AnyEntry, AnySubPool, AnyWaiter, Waiter, WaitOutcome, Warmer
from conpool._values.states import CloseReason, ConnectionState
from tests.support.shell import Refused, make_sub


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(PoolLimit(9))


@pytest.fixture
def sub() -> AnySubPool:
    return make_sub()


def active(ledger: Ledger, sub: AnySubPool) -> AnyEntry:
    entry = ledger.open(sub, 0.0)
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
    ledger.return_to_head(waiter, 0.0)


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
    entry = ledger.open(sub, 0.0)
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
    ledger.strike_off(ledger.open(sub, 0.0))
    assert counts(ledger, sub) == (0, 0, 0, 0, 0, 0)


def test_the_outbox_has_what_is_to_be_done_in_order(ledger: Ledger, sub: AnySubPool) -> None:
    entry = active(ledger, sub)
    other = ledger.open(sub, 0.0)
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


def test_a_certain_idle_connection_can_be_taken_from_below(ledger: Ledger, sub: AnySubPool) -> None:
    first, second = idle(ledger, sub), idle(ledger, sub)
    ledger.reserve(first)
    assert counts(ledger, sub) == (0, 1, 1, 0, 2, 2)
    assert ledger.pop_newest(sub) is second


def test_what_was_only_checked_goes_back_to_its_place(ledger: Ledger, sub: AnySubPool) -> None:
    entries = [idle(ledger, sub, since=float(number)) for number in range(4)]
    ledger.reserve(entries[1])
    ledger.push_idle_back(entries[1])
    assert list(sub.idle) == entries
    assert list(ledger.pool_limit.idle_by_age) == entries


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


# ── dials and those they are for ────────────────────────────────────────────────


def test_a_dial_and_its_waiter_know_of_each_other_until_it_is_over(
    ledger: Ledger, sub: AnySubPool
) -> None:
    waiter, entry = queued(ledger, sub), ledger.open(sub, 0.0)
    ledger.dial_is_for(entry, waiter)
    assert (entry.awaited_by, waiter.dial, sub.dialled_for) == (waiter, entry, 1)
    assert ledger.dial_over(entry) is waiter
    assert (entry.awaited_by, waiter.dial, sub.dialled_for) == (None, None, 0)


def test_a_dial_whose_waiter_has_gone_is_nobodys(ledger: Ledger, sub: AnySubPool) -> None:
    waiter, entry = queued(ledger, sub), ledger.open(sub, 0.0)
    ledger.dial_is_for(entry, waiter)
    ledger.dequeue(waiter)
    assert sub.dialled_for == 0
    assert ledger.dial_over(entry) is None
    assert sub.dialled_for == 0


def test_a_waiter_put_back_has_its_dial_again(ledger: Ledger, sub: AnySubPool) -> None:
    waiter, entry = queued(ledger, sub), ledger.open(sub, 0.0)
    ledger.dial_is_for(entry, waiter)
    ledger.dequeue(waiter)
    return_to_queue(ledger, waiter)
    assert (waiter.dial, sub.dialled_for) == (entry, 1)
    assert ledger.dial_over(entry) is waiter


def test_a_waiter_put_back_whose_dial_has_ended_has_none(ledger: Ledger, sub: AnySubPool) -> None:
    waiter, entry = queued(ledger, sub), ledger.open(sub, 0.0)
    ledger.dial_is_for(entry, waiter)
    ledger.dequeue(waiter)
    ledger.dial_over(entry)
    return_to_queue(ledger, waiter)
    assert (waiter.dial, sub.dialled_for) == (None, 0)
    assert sub.find_undialled() is waiter


def test_a_warmer_that_is_told_to_stop_leaves_the_list(ledger: Ledger, sub: AnySubPool) -> None:
    warmer = Warmer(sub, 2)
    sub.warmers.append(warmer)
    entry = ledger.open(sub, 0.0)
    entry.awaited_by = warmer
    assert ledger.dial_over(entry) is warmer
    ledger.end_warming(warmer, None)
    assert (sub.warmers, warmer.queued, ledger.effects[-1]) == ([], False, warmer)


def test_a_dial_whose_warmer_has_gone_is_nobodys(ledger: Ledger, sub: AnySubPool) -> None:
    warmer = Warmer(sub, 2)
    entry = ledger.open(sub, 0.0)
    entry.awaited_by = warmer
    warmer.queued = False
    assert ledger.dial_over(entry) is None


# ── time ────────────────────────────────────────────────────────────────────────


def test_a_waiter_with_its_own_deadline_is_expected_until_it_leaves(
    ledger: Ledger, sub: AnySubPool
) -> None:
    waiter = queued(ledger, sub, deadline=3.0)
    assert ledger.timetable.next_at == 3.0
    ledger.dequeue(waiter)
    assert list(ledger.timetable.pop_due(3.0)) == []


def test_of_waiters_with_the_usual_deadline_only_the_first_is_noted(
    ledger: Ledger, sub: AnySubPool
) -> None:
    for deadline in (3.0, 4.0, 5.0):
        ledger.enqueue(Waiter((sub,), 0.0, deadline, False, has_own_deadline=False), 0.0)
    assert sub.due_at == 3.0
    assert repr(ledger.timetable) == "<Timetable of 1, next at 3.0>"


def test_shows_its_limit_its_outbox_and_its_timetable(ledger: Ledger, sub: AnySubPool) -> None:
    ledger.open(sub, 0.0)
    assert repr(ledger) == (
        "<Ledger <PoolLimit <Limit 1/9>, 0 wanted, 0 closing>, 1 effects,"
        " <Timetable of 0, next at inf>>"
    )
