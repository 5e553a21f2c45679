from __future__ import annotations

import math

from conpool._core.records import AnySubPool, AnyWaiter, Waiter
from conpool._core.timetable import Timetable
from tests.support.shell import make_sub


def subpool() -> AnySubPool:
    return make_sub()


SOMEWHERE = subpool()


def expected(timetable: Timetable, deadline: float) -> AnyWaiter:
    """A waiter in some queue, with a deadline of its own."""
    waiter: AnyWaiter = Waiter((SOMEWHERE,), 0.0, deadline, False)
    waiter.queued = True
    timetable.add(waiter)
    return waiter


def rows_of(timetable: Timetable) -> int:
    """How many rows it has, those of the gone too."""
    return len(timetable._rows._rows) + len(timetable._rows._left)


def leave(timetable: Timetable, waiter: AnyWaiter) -> None:
    waiter.queued = False
    timetable.remove(waiter)


def test_expects_nothing_at_first() -> None:
    timetable = Timetable()
    assert timetable.next_at == math.inf
    assert list(timetable.pop_due(1e9, 1000)) == []


def test_what_falls_due_comes_in_the_order_of_its_time() -> None:
    timetable = Timetable()
    third, first, second = (expected(timetable, at) for at in (3.0, 1.0, 2.0))
    assert timetable.next_at == 1.0
    assert list(timetable.pop_due(2.5, 1000)) == [first, second]
    assert timetable.next_at == 3.0
    assert list(timetable.pop_due(3.0, 1000)) == [third]  # at the very moment


def test_of_two_due_at_once_the_one_noted_first_comes_first() -> None:
    timetable = Timetable()
    noted = [expected(timetable, 1.0) for _ in range(9)]
    assert list(timetable.pop_due(1.0, 1000)) == noted


def test_a_waiter_that_has_left_does_not_come() -> None:
    """G10."""
    timetable = Timetable()
    gone, stays = expected(timetable, 1.0), expected(timetable, 2.0)
    leave(timetable, gone)
    assert list(timetable.pop_due(5.0, 1000)) == [stays]


def test_a_waiter_that_left_and_came_back_comes_once() -> None:
    timetable = Timetable()
    waiter = expected(timetable, 1.0)
    leave(timetable, waiter)
    waiter.queued = True
    timetable.add(waiter)
    found = []
    for item in timetable.pop_due(1.0, 1000):
        assert isinstance(item, Waiter)
        leave(timetable, item)
        found.append(item)
    assert found == [waiter]
    assert repr(timetable) == "<Timetable of 0, next at inf>"


def test_a_waiter_without_end_is_not_noted() -> None:
    timetable = Timetable()
    waiter = expected(timetable, math.inf)
    assert repr(timetable) == "<Timetable of 0, next at inf>"
    leave(timetable, waiter)
    assert repr(timetable) == "<Timetable of 0, next at inf>"


def test_a_subpool_is_attended_at_the_earliest_of_the_times_asked_for() -> None:
    timetable, sub = Timetable(), subpool()
    timetable.look_at(sub, 5.0)
    timetable.look_at(sub, 3.0)
    timetable.look_at(sub, 4.0)  # it will be looked at before
    assert sub.due_at == timetable.next_at == 3.0
    assert list(timetable.pop_due(3.0, 1000)) == [sub]
    assert sub.due_at == math.inf


def test_a_subpool_can_be_attended_again_while_it_is_being_looked_at() -> None:
    timetable, sub = Timetable(), subpool()
    timetable.look_at(sub, 1.0)
    for _ in timetable.pop_due(1.0, 1000):
        timetable.look_at(sub, 2.0)
    assert timetable.next_at == sub.due_at == 2.0
    assert list(timetable.pop_due(2.0, 1000)) == [sub]


def test_rows_of_the_gone_are_dropped_once_they_outnumber_the_living() -> None:
    """Nothing grows with the past: 100,000 waiters served leave nothing behind."""
    timetable = Timetable()
    stays = expected(timetable, 1e6)
    for _ in range(100_000):
        leave(timetable, expected(timetable, 1000.0))
    assert rows_of(timetable) < 200
    assert list(timetable.pop_due(1e6, 1000)) == [stays]


def test_the_living_are_not_dropped_with_the_gone() -> None:
    timetable, sub = Timetable(), subpool()
    timetable.look_at(sub, 4.0)
    waiters = [expected(timetable, 1.0 + number / 1000) for number in range(1000)]
    for waiter in waiters[10:]:
        leave(timetable, waiter)
    assert list(timetable.pop_due(5.0, 1000)) == [*waiters[:10], sub]


def test_shows_how_many_it_expects_and_when() -> None:
    timetable = Timetable()
    expected(timetable, 7.0)
    assert repr(timetable) == "<Timetable of 1, next at 7.0>"


def test_a_subpool_that_is_dropped_does_not_come() -> None:
    timetable, sub = Timetable(), subpool()
    timetable.look_at(sub, 3.0)
    timetable.drop(sub)
    assert sub.due_at == math.inf
    assert list(timetable.pop_due(9.0, 1000)) == []
    timetable.look_at(sub, 5.0)
    assert list(timetable.pop_due(9.0, 1000)) == [sub]


def test_f147_no_more_comes_at_once_than_was_asked_for_and_the_rest_is_still_due() -> None:
    """G34."""
    timetable = Timetable()
    waiters = [expected(timetable, 1.0) for _ in range(5)]
    assert timetable.pop_due(1.0, 2) == waiters[:2]
    assert timetable.next_at == 1.0
    assert timetable.pop_due(1.0, 9) == waiters[2:]
    assert timetable.next_at == math.inf


def test_whoever_was_added_knows_that_it_has_a_row() -> None:
    timetable = Timetable()
    waiter = Waiter((subpool(),), 0.0, 3.0, False)
    timetable.add(waiter)
    assert waiter.is_timed
    assert waiter.row is not None
    timetable.remove(waiter)
    assert waiter.row is None
