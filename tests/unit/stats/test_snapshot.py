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
from conpool._stats.latency import LatencySummary
from conpool._stats.snapshot import EndpointStats, PoolStats
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
    counters.other_reused = 12
    counters.errors = 13
    counters.other_leases = 14
    counters.acquire_timeouts = 15
    counters.acquire_cancelled = 16
    for reason in reasons:
        counters.count_closed(reason)
    for wait in waits:
        counters.other_waits.add(wait)
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
    counters.other_waits.add(9.0)
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
        counters.other_waits.add(seconds)
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
        "  why           7 tasks wait: dials are under way, 13 have failed so far",
    ]


def test_an_endpoint_that_was_never_used_prints_too() -> None:
    text = str(stats_of(active=0, idle=0, connecting=0, closing=0, waiting=0))
    assert "  connections   0 of 10: 0 active, 0 idle, 0 connecting, 0 closing\n" in text
    assert "  closed        0\n" in text


def test_f135_an_endpoint_prints_how_long_the_first_has_waited_and_that_it_is_paused() -> None:
    lines = str(stats_of(oldest_wait=29.0, paused=True)).splitlines()
    assert lines[2] == "  waiting       7, the first for 29s"
    assert lines[-2] == "  paused        yes: it lends and dials nothing until it is resumed"
    assert lines[-1] == "  why           7 tasks wait: the endpoint is paused"


def test_f135_repr_tells_of_time_outs_and_of_a_pause() -> None:
    stats = stats_of(counters=counters_of(), paused=True)
    assert repr(stats).endswith(" 7 waiting, limit 10, 15 timed out, paused>")
    pool = PoolStats.of("orders", {ENDPOINT: stats}, Counters(), limit=40)
    assert repr(pool).endswith(" 7 waiting, limit 40, 15 timed out>")


def test_a_circuit_is_printed_unless_it_is_closed() -> None:
    half_open = stats_of(circuit=CircuitState.HALF_OPEN, waiting=0)
    assert str(half_open).endswith("\n  circuit       half open")


def test_the_block_of_an_endpoint_has_80_columns_at_most() -> None:
    counters = counters_of(*CloseReason, waits=[1e-6, 9e9])
    counters.other_leases = counters.other_reused = counters.acquire_timeouts = 10**12
    counters.closed_by_reason = dict.fromkeys(CloseReason, 10**8)
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


def test_logins_that_differ_in_their_password_only_are_counted_apart_and_numbered() -> None:
    one, other = (
        Endpoint("db.example", 5432, login=Login("app", password, "orders"))
        for password in ("one", "two")
    )
    pool = PoolStats.of("p", {one: stats_of(one), other: stats_of(other)}, Counters())
    rows = f"{pool:160}".splitlines()[4:6]
    assert rows[0].startswith("app@db.example:5432/orders  ")
    assert rows[1].startswith("app@db.example:5432/orders #2  ")
    assert len(pool.endpoints) == 2
    assert str(one) == str(other)


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


def calm(endpoint: AnyEndpoint, **changes: Any) -> EndpointStats:
    """An endpoint without bad news."""
    counters = counters_of(waits=[0.0] * 90 + [0.001] * 10)
    counters.errors = counters.acquire_timeouts = 0
    quiet: dict[str, Any] = {"connecting": 0, "closing": 0, "waiting": 0, "counters": counters}
    return stats_of(endpoint, **(quiet | changes))


def table_of(*members: EndpointStats, limit: int | None = None, width: str = "") -> str:
    by_endpoint: dict[Any, EndpointStats] = {member.endpoint: member for member in members}
    return format(PoolStats.of("orders", by_endpoint, Counters(), limit=limit), width)


def test_a_pool_prints_as_one_table_of_80_columns_when_all_is_well() -> None:
    cache = Endpoint("cache.example", 6379)
    assert table_of(calm(ENDPOINT), calm(cache, active=0, counters=Counters())).splitlines() == [
        "pool orders: 2 endpoints",
        "                                                                   wait   wait",
        "endpoint            active  idle  waiting  limit  created  reused   p50    p99",
        "------------------------------------------------------------------------------",
        "db.example:5432          3     2        0     10       11      12     0  898us",
        "cache.example:6379       0     2        0     10        0       0     -      -",
        "------------------------------------------------------------------------------",
        "total                    3     4        0      -       11      12     -      -",
    ]


def test_a_pool_prints_as_two_tables_where_one_would_be_too_wide() -> None:
    """F135 and more: time-outs, the pool's own limit, the longest wait, and what it is due to."""
    counters = counters_of(waits=[0.0] * 90 + [1.5] * 10)
    counters.use_time.add(2.0)
    first = stats_of(active=6, counters=counters, connecting=0, oldest_wait=29.0)
    cache = stats_of(Endpoint("cache.example", 6379), waiting=0, paused=True)
    assert table_of(first, cache, limit=20).splitlines() == [
        "pool orders: 2 endpoints, 22 of 20 connections",
        "now                    active  idle  connecting  closing  waiting  oldest  limit",
        "--------------------------------------------------------------------------------",
        "db.example:5432             6     2           0        4        7     29s     10",
        "cache...6379 (paused)       3     2           1        4        0       0     10",
        "--------------------------------------------------------------------------------",
        "total                       9     4           1        8        7     29s     20",
        "",
        "                                                      timed  wait   wait",
        "so far                       created  reused  errors    out   p50    p99",
        "------------------------------------------------------------------------",
        "db.example:5432                   11      12      13     15     0  1.42s",
        "cache.example:6379 (paused)        0       0       0      0     -      -",
        "------------------------------------------------------------------------",
        "total                             11      12      13     15     -      -",
        "",
        "db.example:5432: 7 tasks wait: all 10 slots are taken (a lease lasts 2s, p50).",
        "  Raise max_connections_per_endpoint, or hold each for less time",
    ]


def test_a_width_can_be_given_and_a_wide_table_is_one() -> None:
    stats = stats_of(counters=counters_of(), oldest_wait=29.0, waiting=0)
    one, two = table_of(stats, width="120"), table_of(stats, width="80")
    assert "\nnow " not in one
    assert "\nnow " in two
    assert two == table_of(stats)
    assert max(map(len, one.splitlines())) <= 120
    assert f"{stats:100}".count("\n") <= str(stats).count("\n")


@pytest.mark.parametrize("spec", ["79", "-100", "s", ">80", "8²"])
def test_a_format_that_is_no_usable_width_is_refused(spec: str) -> None:
    for stats in (stats_of(), pool_of(1)):
        with pytest.raises(ValueError, match="a width of 80 or more as format, not '"):
            format(stats, spec)


@pytest.mark.parametrize("width", [80, 81, 100, 160, 300])
@pytest.mark.parametrize("count", [1, 30])
def test_no_line_is_wider_than_the_width(width: int, count: int) -> None:
    counters = counters_of(waits=[1.5])
    counters.other_leases = counters.total_created = counters.other_reused = 10**9
    members = [
        stats_of(
            Endpoint(f"{'x' * 60}{number}.example", 5432, login=Login("u" * 90, database="d" * 90)),
            counters=counters,
            oldest_wait=29.0,
            paused=bool(number % 2),
        )
        for number in range(count)
    ]
    text = table_of(*members, limit=12, width=str(width))
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii()
    for member in members:
        assert max(map(len, format(member, str(width)).splitlines())) <= width


def test_endpoints_that_would_look_alike_are_numbered() -> None:
    long = "db.a-very-long-name.eu-west-1.example.com"
    first, second, third = (
        calm(Endpoint(long.replace("eu-west", zone), 5432, login=Login("app", database="orders")))
        for zone in ("eu-west", "eu-east", "us-west")
    )
    rows = table_of(first, second, third).splitlines()[3:6]
    assert [row.split("  ")[0] for row in rows] == [
        "app@db.a-very-long-na...mple.com:5432/orders",
        "app@db.a-very-long-...ple.com:5432/orders #2",
        "app@db.a-very-long-...ple.com:5432/orders #3",
    ]


def test_an_empty_pool_prints_its_total() -> None:
    lines = str(pool_of(0)).splitlines()
    assert lines[0] == "pool orders: 0 endpoints"
    assert lines[-1].startswith("total")
    assert len(lines) == 6


# ── why tasks wait ──────────────────────────────────────────────────────────────


FULL: dict[str, Any] = {"active": 10, "idle": 0, "connecting": 0, "closing": 0}
FREE: dict[str, Any] = {"active": 1, "idle": 0, "connecting": 0, "closing": 0}


@pytest.mark.parametrize(
    ("numbers", "limit", "why"),
    [
        (FULL, None, "7 tasks wait: all 10 slots are taken. Raise max_connections_per_endp"),
        (FULL | {"active": 6, "closing": 4}, None, "7 tasks wait: all 10 slots are taken."),
        (FULL | {"waiting": 1}, None, "1 task waits: all 10 slots are taken."),
        (FREE, 1, "7 tasks wait: the pool's own limit of 1 is used up. Raise max_connections,"),
        (FREE | {"connecting": 2}, 3, "7 tasks wait: dials are under way, 13 have failed so far"),
        (FREE, None, "7 tasks wait: dials fail, 13 so far"),
        (FREE | {"counters": Counters()}, None, "7 tasks wait: not for long"),
        (FULL | {"circuit": CircuitState.OPEN}, None, "7 tasks wait: the circuit is open"),
    ],
)
def test_a_table_says_what_tasks_wait_for(
    numbers: dict[str, Any], limit: int | None, why: str
) -> None:
    stats = stats_of(**({"counters": counters_of()} | numbers))
    text = table_of(stats, limit=limit, width="300")
    assert text.splitlines()[-2] == ""
    mark = " (circuit open)" if "circuit" in numbers else ""
    assert text.splitlines()[-1].startswith(f"{ENDPOINT}{mark}: {why}")
    if limit is None and "not for long" not in why:
        assert f"\n  why           {why}" in f"{stats:300}"


def test_an_endpoint_alone_blames_the_pools_limit_where_nothing_of_its_own_is_in_the_way() -> None:
    stats = stats_of(**FREE)
    assert str(stats).endswith(
        "\n  why           7 tasks wait: the pool's own limit holds them back"
    )


@pytest.mark.parametrize(
    ("waits", "dial", "why"),
    [
        ([1.0] * 3, 0.9, "waits were long (p99 1s), and so are dials (p99 900ms). min_idle_per_"),
        ([1.0] * 3, 0.1, "waits were long (p99 1s), until a connection came back (a lease lasts"),
        ([0.0] * 98 + [1.0] * 2, 0.1, "waits were long (p99 906ms), until"),
        ([0.0, 1.0], 0.9, ""),  # one dial of a few leases: no news
        ([0.05] * 200, 0.05, ""),
    ],
)
def test_a_table_says_where_long_waits_came_from(waits: list[float], dial: float, why: str) -> None:
    counters = counters_of(waits=waits)
    counters.connect_time.add(dial)
    counters.use_time.add(0.7)
    lines = table_of(stats_of(counters=counters, waiting=0), width="300").splitlines()
    if why:
        assert lines[-1].startswith(f"{ENDPOINT}: {why}")
    else:
        assert lines[-1].startswith("total")


def test_no_more_than_three_endpoints_are_explained_the_busiest_first() -> None:
    members = [stats_of(Endpoint(f"db{n}.example", 1), waiting=n) for n in range(30)]
    lines = table_of(*members).splitlines()
    notes = lines[max(n for n, line in enumerate(lines) if not line) + 1 :]
    assert [note.partition(":")[0] for note in notes] == [f"db{n}.example" for n in (29, 28, 27)]


def test_one_endpoint_is_not_plural() -> None:
    assert str(pool_of(1)).startswith("pool orders: 1 endpoint\n")


def test_long_names_are_shortened_in_the_table() -> None:
    endpoint = Endpoint("x" * 60 + ".example", 5432)
    text = str(PoolStats.of("orders", {endpoint: stats_of(endpoint)}, Counters()))
    assert "xxx..." in text
    assert "example:5432  " in text


def test_twenty_endpoints_are_all_shown_in_their_order() -> None:
    lines = f"{pool_of(20, waiting=0):160}".splitlines()[4:-2]
    assert [line.split()[0] for line in lines] == [f"db{n}.example:5432" for n in range(20)]


def test_of_more_than_twenty_the_busiest_are_shown_and_the_rest_summed() -> None:
    endpoints = [Endpoint(f"db{number}.example", 5432) for number in range(30)]
    members: dict[AnyEndpoint, EndpointStats] = {
        endpoint: stats_of(endpoint, waiting=number) for number, endpoint in enumerate(endpoints)
    }
    lines = f"{PoolStats.of('orders', members, Counters()):160}".splitlines()
    assert lines[0] == "pool orders: 30 endpoints"
    shown = [line.split()[0] for line in lines[4:24]]
    assert shown == [f"db{number}.example:5432" for number in range(29, 9, -1)]
    assert " ".join(lines[24].split()) == "(10 more) 30 20 10 40 45 - 0 0 - -"
    assert lines[26].split()[:6] == ["total", "90", "60", "30", "120", str(sum(range(30)))]
