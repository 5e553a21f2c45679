from __future__ import annotations

import math

from conpool._core.records import SubPool, Waiter
from conpool._core.timetable import Agenda
from conpool._values.config import PoolConfig
from tests.support.shell import HERE


def subpool() -> SubPool:
    return SubPool(HERE, PoolConfig(), 0.0)


def expected(agenda: Agenda, deadline: float) -> Waiter:
    """A waiter in some queue, with a deadline of its own."""
    waiter = Waiter((subpool(),), 0.0, deadline, False)
    waiter.queued = True
    agenda.expect(waiter)
    return waiter


def leave(agenda: Agenda, waiter: Waiter) -> None:
    waiter.queued = False
    agenda.forget(waiter)


def test_expects_nothing_at_first() -> None:
    agenda = Agenda()
    assert agenda.next_at == math.inf
    assert list(agenda.due(1e9)) == []


def test_what_falls_due_comes_in_the_order_of_its_time() -> None:
    agenda = Agenda()
    third, first, second = (expected(agenda, at) for at in (3.0, 1.0, 2.0))
    assert agenda.next_at == 1.0
    assert list(agenda.due(2.5)) == [first, second]
    assert agenda.next_at == 3.0
    assert list(agenda.due(3.0)) == [third]  # at the very moment


def test_of_two_due_at_once_the_one_noted_first_comes_first() -> None:
    agenda = Agenda()
    noted = [expected(agenda, 1.0) for _ in range(9)]
    assert list(agenda.due(1.0)) == noted


def test_a_waiter_that_has_left_does_not_come() -> None:
    """G10."""
    agenda = Agenda()
    gone, stays = expected(agenda, 1.0), expected(agenda, 2.0)
    leave(agenda, gone)
    assert list(agenda.due(5.0)) == [stays]


def test_a_waiter_that_left_and_came_back_comes_once() -> None:
    agenda = Agenda()
    waiter = expected(agenda, 1.0)
    leave(agenda, waiter)
    waiter.queued = True
    agenda.expect(waiter)
    found = []
    for item in agenda.due(1.0):
        assert isinstance(item, Waiter)
        leave(agenda, item)
        found.append(item)
    assert found == [waiter]
    assert repr(agenda) == "<Agenda 0 expected, next at inf>"


def test_a_waiter_without_end_is_not_noted() -> None:
    agenda = Agenda()
    waiter = expected(agenda, math.inf)
    assert repr(agenda) == "<Agenda 0 expected, next at inf>"
    leave(agenda, waiter)
    assert repr(agenda) == "<Agenda 0 expected, next at inf>"


def test_a_subpool_is_attended_at_the_earliest_of_the_times_asked_for() -> None:
    agenda, sub = Agenda(), subpool()
    agenda.attend(sub, 5.0)
    agenda.attend(sub, 3.0)
    agenda.attend(sub, 4.0)  # it will be looked at before
    assert sub.attend_at == agenda.next_at == 3.0
    assert list(agenda.due(3.0)) == [sub]
    assert sub.attend_at == math.inf


def test_a_subpool_can_be_attended_again_while_it_is_being_looked_at() -> None:
    agenda, sub = Agenda(), subpool()
    agenda.attend(sub, 1.0)
    for _ in agenda.due(1.0):
        agenda.attend(sub, 2.0)
    assert agenda.next_at == sub.attend_at == 2.0
    assert list(agenda.due(2.0)) == [sub]


def test_rows_of_the_gone_are_dropped_once_they_outnumber_the_living() -> None:
    """Nothing grows with the past: 100,000 waiters served leave nothing behind."""
    agenda = Agenda()
    stays = expected(agenda, 1e6)
    for _ in range(100_000):
        leave(agenda, expected(agenda, 1000.0))
    assert len(agenda._heap) < 100
    assert list(agenda.due(1e6)) == [stays]


def test_the_living_are_not_dropped_with_the_gone() -> None:
    agenda, sub = Agenda(), subpool()
    agenda.attend(sub, 4.0)
    waiters = [expected(agenda, 1.0 + number / 1000) for number in range(1000)]
    for waiter in waiters[10:]:
        leave(agenda, waiter)
    assert list(agenda.due(5.0)) == [*waiters[:10], sub]


def test_shows_how_many_it_expects_and_when() -> None:
    agenda = Agenda()
    expected(agenda, 7.0)
    assert repr(agenda) == "<Agenda 1 expected, next at 7.0>"
