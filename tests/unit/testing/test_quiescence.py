from __future__ import annotations

from typing import Any, cast

import pytest

from conpool._pool.pool import ConnectionPool
from conpool._stats.counters import Counters
from conpool._stats.snapshot import EndpointStats, PoolStats
from conpool._values.endpoint import Endpoint
from conpool._values.states import CloseReason
from conpool.testing import assert_quiescent

HERE = Endpoint("db.example", 5432)


class Books:
    """As much of a pool as `assert_quiescent` asks."""

    def __init__(self, stats: PoolStats) -> None:
        self.stats = stats

    def all_stats(self) -> PoolStats:
        return self.stats


def books(*, created: int = 2, closed: int = 1, **counts: int) -> Books:
    counters = Counters()
    counters.other_leases, counters.other_reused, counters.total_created, counters.total_closed = (
        5,
        3,
        created,
        closed,
    )
    counters.closed_by_reason = {CloseReason.ERROR: 1}
    known: dict[str, Any] = dict.fromkeys(("active", "connecting", "closing", "waiting"), 0)
    known |= {"limit": 4, "idle": 1, **counts}
    member = EndpointStats.of(HERE, counters=counters, **known)
    return Books(PoolStats.of("test", {HERE: member}, Counters()))


def check(pool: Books) -> None:
    assert_quiescent(cast("ConnectionPool[Any]", pool))


def test_idle_connections_are_quiescent() -> None:
    check(books())


def test_pool_that_was_never_used_is_quiescent() -> None:
    check(Books(PoolStats.of("test", {}, Counters())))


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        ({"active": 1, "created": 3}, "1 connections are lent, checked or reset"),
        ({"connecting": 2}, "2 dials run"),
        ({"closing": 1, "created": 3}, "1 connections are being closed"),
        ({"waiting": 3}, "3 tasks wait"),
        ({"idle": 5, "created": 6}, "5 idle, with a limit of 4"),
        ({"created": 3}, "3 created less 1 closed is not the 1 that exist"),
        ({"idle": -1, "created": 0}, "-1 idle, with a limit of 4"),
        ({"closed": 0, "created": 1}, "0 closed, but for 1 reasons"),
    ],
)
def test_whatever_is_outstanding_or_does_not_add_up_is_named(
    counts: dict[str, int], complaint: str
) -> None:
    with pytest.raises(AssertionError) as caught:
        check(books(**counts))
    assert f"\n  db.example:5432: {complaint}\n" in caught.value.args[0]


def test_more_reuses_than_leases_are_named() -> None:
    counters = Counters()
    counters.other_reused = 1
    with pytest.raises(AssertionError, match="the pool: 1 reused, of 0 acquired"):
        check(Books(PoolStats.of("test", {}, counters)))


def test_sums_that_differ_from_their_parts_are_named() -> None:
    pool = books()
    object.__setattr__(pool.stats, "idle", 7)
    with pytest.raises(AssertionError, match="the pool: idle is 7, its endpoints have 1"):
        check(pool)


def test_all_that_is_wrong_is_said_at_once_with_the_statistics() -> None:
    pool = books(active=1, waiting=1)
    with pytest.raises(AssertionError) as caught:
        check(pool)
    message = caught.value.args[0]
    assert "1 connections are lent" in message
    assert "1 tasks wait" in message
    assert message.endswith(str(pool.stats))
