"""Moving a sub-pool on the timetable adds one row; the rows that it replaces die out.

Each row that fell due was added again for the next moment, also those that had been replaced: a
server that refused, asked with short time-outs, had 34,000 rows within seconds.
"""

from __future__ import annotations

import math
from random import Random

from conpool._core.core import Core
from conpool._core.timetable import Timetable
from conpool._values.config import PoolConfig
from conpool._values.endpoint import Endpoint
from conpool._values.states import PoolState
from tests.support.shell import make_sub


def rows_of(timetable: Timetable) -> list[list[object]]:
    return [*timetable._rows._rows, *timetable._rows._left]


def test_an_endpoint_attended_earlier_than_planned_stands_there_no_more_often() -> None:
    timetable = Timetable()
    sub = make_sub(Endpoint("here.example", 1))
    for second in range(20):
        timetable.look_at(sub, second + 1.0)
        timetable.look_at(sub, second + 0.5)
        for now in (second + 0.5, second + 1.0):
            for item in timetable.pop_due(now, 1000):
                assert item is sub
                timetable.look_at(sub, math.floor(now) + 1.0 if now < second + 1.0 else now + 1.0)
    assert len(rows_of(timetable)) <= 2
    assert timetable._rows.live <= 1


def test_an_endpoint_is_due_once_however_often_its_time_was_moved() -> None:
    timetable = Timetable()
    sub = make_sub(Endpoint("here.example", 1))
    timetable.look_at(sub, 2.0)
    timetable.look_at(sub, 1.0)
    assert list(timetable.pop_due(1.0, 1000)) == [sub]
    assert list(timetable.pop_due(2.0, 1000)) == []
    timetable.look_at(sub, 3.0)
    assert list(timetable.pop_due(3.0, 1000)) == [sub]
    assert timetable.next_at == math.inf


def test_times_that_were_superseded_are_not_kept_until_they_come() -> None:
    """A server that stays away, asked with long time-outs, has one row for each attempt."""
    timetable = Timetable()
    sub = make_sub(Endpoint("here.example", 1))
    for second in range(1000):
        timetable.look_at(sub, second + 36_000.0)  # the time-out of the first in the queue
        timetable.look_at(sub, second + 1.0)  # when the next dial may begin
        assert list(timetable.pop_due(second + 1.0, 1000)) == [sub]
        assert len(rows_of(timetable)) < 200
    timetable.look_at(sub, 37_000.0)
    timetable.look_at(sub, 36_500.0)
    assert [row[0] for row in rows_of(timetable) if row[2] is not None] == [36_500.0]
    assert repr(timetable) == "<Timetable of 1, next at 36500.0>"


def test_an_endpoint_that_was_dropped_is_not_remembered_until_its_time() -> None:
    """The timetable kept 100,000 endpoints, each asked once, alive until their time-outs."""
    timetable = Timetable()
    kept, dropped = (make_sub(Endpoint(f"{n}.example", 1)) for n in "ab")
    timetable.look_at(dropped, 1.0)
    timetable.look_at(kept, 2.0)
    timetable.drop(dropped)
    assert [row[2] for row in rows_of(timetable)] == [None, kept]  # the row stays, empty
    assert list(timetable.pop_due(2.0, 1000)) == [kept]


def test_a_pool_forgets_the_dates_of_endpoints_that_it_drops() -> None:
    core: Core[None, None] = Core(PoolConfig(), {}, Random(1))
    core.move(PoolState.OPEN)
    sub = core.find_subpool(Endpoint("here.example", 1), 0.0)
    core.timetable.look_at(sub, 1000.0)
    core.swept(sub, 1.0)
    assert sub.due_at == 1000.0
    core.swept(sub, 100.0)
    assert core.subs == {}
    assert core.timetable.pop_due(5000.0, 1000) == []
    assert core.timetable.next_at == math.inf
