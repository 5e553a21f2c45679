from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from collections.abc import Iterable
from typing import Any

import pytest

from conpool._stats.counters import Counters
from conpool._stats.histogram import QUANTILE_ERROR, Histogram
from conpool._stats.snapshot import EndpointStats, LatencySummary, PoolStats
from conpool._values.endpoint import AnyEndpoint, Endpoint
from conpool._values.group import EndpointGroup, Target
from conpool._values.login import Login
from conpool._values.proxy import HTTPProxy
from conpool._values.states import CircuitState, CloseReason

ENDPOINT = Endpoint("db.example", 5432)


def stats_of(endpoint: Target = ENDPOINT, **changes: Any) -> EndpointStats:
    numbers: dict[str, Any] = {
        "limit": 10,
        "active": 3,
        "idle": 2,
        "connecting": 1,
        "closing": 4,
        "waiting": 7,
        "counters": Counters(),
    }
    return EndpointStats.of(endpoint, **(numbers | changes))


def counters_of(*reasons: CloseReason, waits: Iterable[float] = ()) -> Counters:
    counters = Counters()
    counters.total_created = 11
    counters.total_reused = 12
    counters.errors = 13
    counters.acquired = 14
    counters.acquire_timeouts = 15
    counters.acquire_cancelled = 16
    for reason in reasons:
        counters.count_closed(reason)
    for wait in waits:
        counters.wait_time.add(wait)
    return counters


def pool_of(count: int, forgotten: Counters | None = None, **changes: Any) -> PoolStats:
    endpoints = [Endpoint(f"db{number}.example", 5432) for number in range(count)]
    members: dict[AnyEndpoint, EndpointStats] = {
        endpoint: stats_of(endpoint, **changes) for endpoint in endpoints
    }
    return PoolStats.of("orders", members, forgotten or Counters())


# ── latencies ───────────────────────────────────────────────────────────────────


def test_a_summary_of_nothing_is_all_zeros() -> None:
    assert LatencySummary.of(Histogram()) == LatencySummary(0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_summary_tells_quantiles_within_a_ninth() -> None:
    histogram = Histogram()
    for milliseconds in range(1, 101):
        histogram.add(milliseconds / 1000)
    summary = LatencySummary.of(histogram)
    assert (summary.count, summary.max) == (100, 0.1)
    assert summary.total == pytest.approx(5.05)
    assert (summary.p50, summary.p90, summary.p99) == pytest.approx(
        (0.05, 0.09, 0.099), rel=QUANTILE_ERROR
    )


def test_a_summary_of_zeros_has_a_count() -> None:
    histogram = Histogram()
    histogram.add(0.0)
    assert LatencySummary.of(histogram) == LatencySummary(1, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_json_knows_no_infinity() -> None:
    summary = LatencySummary(2, math.inf, 0.5, math.nan, math.inf, math.inf)
    assert summary.to_dict() == {
        "count": 2,
        "total": None,
        "p50": 0.5,
        "p90": None,
        "p99": None,
        "max": None,
    }


# ── one endpoint ────────────────────────────────────────────────────────────────


def test_an_endpoint_never_seen_has_zeros() -> None:
    numbers: dict[str, Any] = dict.fromkeys(
        ("limit", "active", "idle", "connecting", "closing", "waiting"), 0
    )
    plain = stats_of(**numbers).to_dict()
    counts = {name: value for name, value in plain.items() if isinstance(value, int)}
    assert set(counts.values()) == {0}
    assert len(counts) == 14
    assert plain["oldest_wait"] == 0.0
    assert plain["paused"] is False
    assert plain["closed_by_reason"] == {}
    assert plain["circuit"] == "closed"


def test_joins_the_state_with_the_counters() -> None:
    counters = counters_of(CloseReason.ERROR, CloseReason.ERROR, CloseReason.USES, waits=[0.5])
    counters.connect_time.add(1.0)
    counters.use_time.add(2.0)
    stats = stats_of(counters=counters, circuit=CircuitState.OPEN)
    assert stats == EndpointStats(
        endpoint=ENDPOINT,
        limit=10,
        active=3,
        idle=2,
        connecting=1,
        closing=4,
        waiting=7,
        oldest_wait=0.0,
        paused=False,
        total_created=11,
        total_reused=12,
        total_closed=3,
        errors=13,
        acquired=14,
        acquire_timeouts=15,
        acquire_cancelled=16,
        closed_by_reason={CloseReason.ERROR: 2, CloseReason.USES: 1},
        wait_time=LatencySummary.of(counters.wait_time),
        connect_time=LatencySummary.of(counters.connect_time),
        use_time=LatencySummary.of(counters.use_time),
        circuit=CircuitState.OPEN,
    )
    assert (stats.wait_time.max, stats.connect_time.max, stats.use_time.max) == (0.5, 1.0, 2.0)


def test_a_snapshot_does_not_move_with_the_books() -> None:
    counters = counters_of(CloseReason.ERROR, waits=[0.5])
    stats = stats_of(counters=counters)
    counters.total_created += 1
    counters.count_closed(CloseReason.ERROR)
    counters.wait_time.add(9.0)
    assert stats.total_created == 11
    assert stats.closed_by_reason == {CloseReason.ERROR: 1}
    assert stats.wait_time.max == 0.5


def test_a_snapshot_cannot_be_changed() -> None:
    stats = stats_of(counters=counters_of(CloseReason.ERROR))
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.active = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        stats.closed_by_reason[CloseReason.ERROR] = 5  # type: ignore[index]
    pool = pool_of(1)
    with pytest.raises(TypeError):
        pool.endpoints[ENDPOINT] = stats  # type: ignore[index]
    with pytest.raises(TypeError):
        pool.closed_by_reason[CloseReason.ERROR] = 5  # type: ignore[index]


def test_reasons_that_did_not_occur_are_not_listed_but_read_as_zero() -> None:
    reasons = stats_of(counters=counters_of(CloseReason.ERROR)).closed_by_reason
    assert list(reasons) == [CloseReason.ERROR]
    assert CloseReason.USES not in reasons
    assert reasons[CloseReason.USES] == reasons.get(CloseReason.USES, 0) == 0
    assert list(reasons) == [CloseReason.ERROR]


def test_an_endpoint_becomes_json() -> None:
    counters = counters_of(CloseReason.PEER_CLOSED, waits=[math.inf])
    plain = stats_of(counters=counters, circuit=CircuitState.HALF_OPEN).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert list(plain) == [field.name for field in dataclasses.fields(EndpointStats)]
    assert plain["endpoint"] == "db.example:5432"
    assert plain["closed_by_reason"] == {"peer_closed": 1}
    assert plain["circuit"] == "half_open"
    assert plain["wait_time"]["max"] is None
    assert plain["active"] == 3


def test_a_group_has_stats_too() -> None:
    group = EndpointGroup([ENDPOINT])
    assert stats_of(group).to_dict()["endpoint"] == str(group)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_snapshots_can_be_copied_and_pickled(copied: Any) -> None:
    stats = stats_of(counters=counters_of(CloseReason.ERROR, waits=[0.5]))
    again = copied(stats)
    assert again == stats
    with pytest.raises(TypeError):
        again.closed_by_reason[CloseReason.ERROR] = 5
    pool = PoolStats.of("orders", {ENDPOINT: stats}, Counters())
    assert copied(pool) == pool


def test_an_endpoint_prints_as_a_block_of_lines_for_people() -> None:
    counters = counters_of(CloseReason.ERROR, CloseReason.IDLE_TIME, CloseReason.ERROR)
    for seconds in (0.0, 0.002, 0.25):
        counters.wait_time.add(seconds)
    counters.use_time.add(90.0)
    stats = stats_of(Endpoint("db.example", 5432, tls=True), counters=counters)
    assert str(stats).splitlines() == [
        "db.example:5432 (TLS)",
        "  connections   10 of 10: 3 active, 2 idle, 1 connecting, 4 closing",
        "  waiting       7",
        "  acquires      14 lent (12 reused), 15 timed out, 16 cancelled",
        "  dials         11 opened, 13 failed",
        "  closed        3: 2 error, 1 idle time",
        "  wait time     p50 2.19ms, p99 250ms, max 250ms",
        "  connect time  -",
        "  use time      p50 90s, p99 90s, max 90s",
    ]


def test_an_endpoint_that_was_never_used_prints_too() -> None:
    text = str(stats_of(active=0, idle=0, connecting=0, closing=0, waiting=0))
    assert "  connections   0 of 10: 0 active, 0 idle, 0 connecting, 0 closing\n" in text
    assert "  closed        0\n" in text


def test_f135_an_endpoint_prints_how_long_the_first_has_waited_and_that_it_is_paused() -> None:
    lines = str(stats_of(oldest_wait=29.0, paused=True)).splitlines()
    assert lines[2] == "  waiting       7, the first for 29s"
    assert lines[-1] == "  paused        yes: it lends and dials nothing until it is resumed"


def test_f135_repr_tells_of_time_outs_and_of_a_pause() -> None:
    stats = stats_of(counters=counters_of(), paused=True)
    assert repr(stats).endswith(" 7 waiting, limit 10, 15 timed out, paused>")
    pool = PoolStats.of("orders", {ENDPOINT: stats}, Counters(), limit=40)
    assert repr(pool).endswith(" 7 waiting, limit 40, 15 timed out>")


def test_a_circuit_is_printed_unless_it_is_closed() -> None:
    assert str(stats_of(circuit=CircuitState.HALF_OPEN)).endswith("\n  circuit       half open")


def test_the_block_of_an_endpoint_has_80_columns_at_most() -> None:
    counters = counters_of(*CloseReason, waits=[1e-6, 9e9])
    counters.acquired = counters.total_reused = counters.acquire_timeouts = 10**12
    for reason in CloseReason:
        counters.closed_by_reason[reason] = 10**8
    text = str(stats_of(Endpoint("x" * 60 + "." + "y" * 60, 5432), counters=counters))
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"100000000 {reason.value}" in text for reason in CloseReason)
    assert text.isascii()


def test_neither_str_nor_repr_of_numbers_shows_a_secret() -> None:
    """G9."""
    proxy = HTTPProxy("squid.example", 3128, username="joe", password="canary")
    login = Login("app", "canary", "orders")
    endpoint = Endpoint("db.example", 5432, proxy=proxy, login=login, partition="canary")
    stats = stats_of(endpoint)
    pool = PoolStats.of("orders", {endpoint: stats}, Counters())
    for shown in (str(stats), repr(stats), str(pool), repr(pool)):
        assert "app@db.example:5432/o" in shown or shown == repr(pool)
        assert "canary" not in shown
    for snapshot in (stats, pool):
        assert "canary" not in json.dumps(snapshot.to_dict())
        with pytest.raises(TypeError, match="a Login with a password cannot be pickled"):
            pickle.dumps(snapshot)


def test_numbers_tell_logins_apart_by_user_and_database() -> None:
    logins = [Login("app", "one", "orders"), Login("admin", "one", "orders"), Login("app")]
    endpoints = [Endpoint("db.example", 5432, login=login) for login in logins]
    members: dict[AnyEndpoint, EndpointStats] = {one: stats_of(one) for one in endpoints}
    pool = PoolStats.of("orders", members, Counters())
    for endpoint in endpoints:
        assert f"\n{endpoint} " in str(pool)
        assert str(endpoint) in str(pool.endpoints[endpoint])
    labels = [member["endpoint"] for member in pool.to_dict()["endpoints"]]
    assert labels == [
        "app@db.example:5432/orders",
        "admin@db.example:5432/orders",
        "app@db.example:5432",
    ]


def test_logins_that_differ_in_their_password_only_are_counted_apart_and_look_alike() -> None:
    one, other = (
        Endpoint("db.example", 5432, login=Login("app", password, "orders"))
        for password in ("one", "two")
    )
    pool = PoolStats.of("p", {one: stats_of(one), other: stats_of(other)}, Counters())
    assert str(pool).count("\napp@db.example:5432/orders ") == len(pool.endpoints) == 2


def test_repr_is_one_readable_line() -> None:
    stats = stats_of(counters=counters_of(waits=[0.5]))
    assert repr(stats) == (
        "<EndpointStats of db.example:5432: 3 active, 2 idle, 1 connecting, 4 closing,"
        " 7 waiting, limit 10, 15 timed out>"
    )
    assert repr(stats.wait_time) == (
        "<LatencySummary of 1 durations: p50 500ms, p99 500ms, max 500ms>"
    )
    assert repr(pool_of(2)) == (
        "<PoolStats of pool orders: 2 endpoints, 6 active, 4 idle, 2 connecting, 8 closing,"
        " 14 waiting>"
    )


# ── the pool ────────────────────────────────────────────────────────────────────


def test_sums_every_count_over_endpoints_and_those_that_are_forgotten() -> None:
    members: dict[AnyEndpoint, EndpointStats] = {
        endpoint: stats_of(endpoint, counters=counters_of(CloseReason.ERROR))
        for endpoint in (Endpoint("a", 1), Endpoint("b", 1))
    }
    forgotten = counters_of(CloseReason.ERROR, CloseReason.EVICTED)
    pool = PoolStats.of("orders", members, forgotten)
    assert pool == PoolStats(
        name="orders",
        limit=None,
        oldest_wait=0.0,
        endpoints=members,
        active=6,
        idle=4,
        connecting=2,
        closing=8,
        waiting=14,
        total_created=33,
        total_reused=36,
        total_closed=4,
        errors=39,
        acquired=42,
        acquire_timeouts=45,
        closed_by_reason={CloseReason.ERROR: 3, CloseReason.EVICTED: 1},
    )


def test_f135_a_pool_knows_its_own_limit_and_the_longest_wait() -> None:
    waits = {Endpoint("a", 1): 2.0, Endpoint("b", 1): 7.0, Endpoint("c", 1): 0.0}
    members: dict[AnyEndpoint, EndpointStats] = {
        endpoint: stats_of(endpoint, oldest_wait=wait) for endpoint, wait in waits.items()
    }
    pool = PoolStats.of("orders", members, Counters(), limit=20)
    assert (pool.limit, pool.oldest_wait) == (20, 7.0)
    assert pool.to_dict()["limit"] == 20
    assert pool.to_dict()["oldest_wait"] == 7.0
    assert pool_of(1).to_dict()["limit"] is None
    assert copy.copy(pool) == pool


def test_a_pool_keeps_its_own_list_of_endpoints() -> None:
    members: dict[AnyEndpoint, EndpointStats] = {ENDPOINT: stats_of()}
    forgotten = counters_of(CloseReason.ERROR)
    pool = PoolStats.of("orders", members, forgotten)
    members.clear()
    forgotten.count_closed(CloseReason.USES)
    assert list(pool.endpoints) == [ENDPOINT]
    assert pool.closed_by_reason == {CloseReason.ERROR: 1}


def test_a_pool_becomes_json_with_a_list_of_endpoints() -> None:
    plain = pool_of(2, counters_of(CloseReason.POOL_CLOSED)).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert set(plain) == {field.name for field in dataclasses.fields(PoolStats)}
    assert [member["endpoint"] for member in plain["endpoints"]] == [
        "db0.example:5432",
        "db1.example:5432",
    ]
    assert plain["name"] == "orders"
    assert plain["closed_by_reason"] == {"pool_closed": 1}


def test_a_pool_prints_as_a_table_for_people() -> None:
    counters = counters_of(waits=[0.0] * 90 + [1.5] * 10)
    first = stats_of(counters=counters)
    cache = Endpoint("cache.example", 6379)
    second = stats_of(cache, active=0, waiting=0)
    first = dataclasses.replace(first, acquire_timeouts=0)
    forgotten = counters_of()
    forgotten.acquire_timeouts = 0
    pool = PoolStats.of("orders", {ENDPOINT: first, cache: second}, forgotten)
    left = (
        "endpoint            active  idle  connecting  closing  waiting",
        "-" * 62,
        "db.example:5432          3     2           1        4        7",
        "cache.example:6379       0     2           1        4        0",
        "-" * 62,
        "total                    3     4           2        8        7",
    )
    right = (
        "  limit  created  reused  errors  wait p50  wait p99",
        "-" * 52,
        "     10       11      12      13         0     1.42s",
        "     10        0       0       0         -         -",
        "-" * 52,
        "      -       22      24      26         -         -",
    )
    title, *table = str(pool).splitlines()
    assert title == "pool orders: 2 endpoints"
    assert table == [a + b for a, b in zip(left, right, strict=True)]


def test_f135_a_table_shows_time_outs_the_longest_wait_and_pauses() -> None:
    cache = Endpoint("cache.example", 6379)
    first = stats_of(counters=counters_of(), oldest_wait=29.0)
    second = stats_of(cache, waiting=0, paused=True)
    pool = PoolStats.of("orders", {ENDPOINT: first, cache: second}, Counters(), limit=12)
    header, _, *rows, _, total = [" ".join(line.split()) for line in str(pool).splitlines()[1:]]
    assert " waiting oldest limit " in header
    assert " errors timed out wait " in header
    assert rows == [
        "db.example:5432 3 2 1 4 7 29s 10 11 12 13 15 - -",
        "cache.example:6379 (paused) 3 2 1 4 0 0 10 0 0 0 0 - -",
    ]
    assert total == "total 6 4 2 8 7 29s 12 11 12 13 15 - -"


def test_f135_a_table_with_everything_is_not_wider_than_160_columns() -> None:
    endpoint = Endpoint("x" * 60 + ".example", 5432)
    counters = counters_of(waits=[1.5])
    stats = stats_of(endpoint, counters=counters, oldest_wait=29.0, paused=True)
    lines = str(PoolStats.of("orders", {endpoint: stats}, Counters(), limit=12)).splitlines()
    assert ".example:5432 (paused)  " in lines[3]
    assert max(map(len, lines)) < 160


def test_an_empty_pool_prints_its_total() -> None:
    lines = str(pool_of(0)).splitlines()
    assert lines[0] == "pool orders: 0 endpoints"
    assert lines[-1].startswith("total")
    assert len(lines) == 5


def test_one_endpoint_is_not_plural() -> None:
    assert str(pool_of(1)).startswith("pool orders: 1 endpoint\n")


def test_long_names_are_shortened_in_the_table() -> None:
    endpoint = Endpoint("x" * 60 + ".example", 5432)
    text = str(PoolStats.of("orders", {endpoint: stats_of(endpoint)}, Counters()))
    assert "xxx..." in text
    assert ".example:5432  " in text
    assert max(map(len, text.splitlines())) < 160


def test_twenty_endpoints_are_all_shown_in_their_order() -> None:
    lines = str(pool_of(20)).splitlines()[3:-2]
    assert [line.split()[0] for line in lines] == [f"db{n}.example:5432" for n in range(20)]


def test_of_more_than_twenty_the_busiest_are_shown_and_the_rest_summed() -> None:
    endpoints = [Endpoint(f"db{number}.example", 5432) for number in range(30)]
    members: dict[AnyEndpoint, EndpointStats] = {
        endpoint: stats_of(endpoint, waiting=number) for number, endpoint in enumerate(endpoints)
    }
    lines = str(PoolStats.of("orders", members, Counters())).splitlines()
    assert lines[0] == "pool orders: 30 endpoints"
    shown = [line.split()[0] for line in lines[3:23]]
    assert shown == [f"db{number}.example:5432" for number in range(29, 9, -1)]
    assert " ".join(lines[23].split()) == "(10 more) 30 20 10 40 45 - 0 0 0 - -"
    assert lines[25].split()[:6] == ["total", "90", "60", "30", "120", str(sum(range(30)))]
