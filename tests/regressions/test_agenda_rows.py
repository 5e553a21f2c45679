"""A sub-pool stands on the agenda once for each time it is moved, not ever more often.

Each row that fell due was added again for the next moment, the superseded ones too: a server that refused,
asked with short time-outs, had 34,000 rows within seconds.
"""

from __future__ import annotations

import math

from conpool._agenda import Agenda
from conpool._books import SubPool
from conpool._config import PoolConfig
from conpool._endpoint import Endpoint


def test_an_endpoint_attended_earlier_than_planned_stands_there_no_more_often() -> None:
    agenda = Agenda()
    sub = SubPool(Endpoint("here.example", 1), PoolConfig(), 0.0)
    for second in range(20):
        agenda.attend(sub, second + 1.0)
        agenda.attend(sub, second + 0.5)
        for now in (second + 0.5, second + 1.0):
            for item in agenda.due(now):
                assert item is sub
                agenda.attend(sub, math.floor(now) + 1.0 if now < second + 1.0 else now + 1.0)
    assert len(agenda._heap) <= 2


def test_an_endpoint_is_due_once_however_often_its_time_was_moved() -> None:
    agenda = Agenda()
    sub = SubPool(Endpoint("here.example", 1), PoolConfig(), 0.0)
    agenda.attend(sub, 2.0)
    agenda.attend(sub, 1.0)
    assert list(agenda.due(1.0)) == [sub]
    assert list(agenda.due(2.0)) == []
    agenda.attend(sub, 3.0)
    assert list(agenda.due(3.0)) == [sub]
    assert agenda.next_at == math.inf
