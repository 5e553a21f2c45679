"""What the SDK exports of the numbers of pools."""

from __future__ import annotations

import gc
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, ConfigError, ConnectionPool, Endpoint, Login, UnixEndpoint
from conpool.contrib._otel import meters as meters_module, watched as watched_module
from conpool.contrib.opentelemetry import OpenTelemetryObserver
from tests.support.pools import HERE, THERE, Network, exchange, hold, open_pool, settle

from .sdk import SDK


@pytest.fixture
def sdk() -> SDK:
    return SDK()


PREFIXES = {
    "conpool": "conpool.connection",
    "db": "db.client.connection",
    "http": "conpool.connection",
}


@pytest.mark.parametrize("convention", PREFIXES)
async def test_every_metric_has_the_name_and_unit_of_its_convention(
    sdk: SDK, convention: str, autojump_clock: MockClock
) -> None:
    prefix = PREFIXES[convention]
    async with open_pool(observers=[sdk.observer(convention=convention)]) as pool:
        async with pool.connection(HERE):
            pass
        pool.close_idle()
        await settle()
        found = {name: (metric.unit, metric.kind) for name, metric in sdk.read().items()}
    count = f"{prefix}.count" if convention != "http" else "http.client.open_connections"
    expected = {
        count: ("{connection}", "Sum"),
        f"{prefix}.max": ("{connection}", "Sum"),
        f"{prefix}.idle.max": ("{connection}", "Sum"),
        f"{prefix}.idle.min": ("{connection}", "Sum"),
        f"{prefix}.pending_requests": ("{request}", "Sum"),
        f"{prefix}.timeouts": ("{timeout}", "Sum"),
        f"{prefix}.wait_time": ("s", "Histogram"),
        f"{prefix}.create_time": ("s", "Histogram"),
        f"{prefix}.use_time": ("s", "Histogram"),
    }
    if convention == "http":
        expected["http.client.connection.duration"] = ("s", "Histogram")
    assert found == expected


def test_the_page_names_every_metric() -> None:
    page = (Path(__file__).parents[3] / "docs" / "howto" / "metrics.rst").read_text("utf-8")
    assert set(re.findall(r"^``db\.client\.connection\.([\w.]+)``", page, re.MULTILINE)) == {
        "count",
        "max",
        "idle.max",
        "idle.min",
        "pending_requests",
        "timeouts",
        "wait_time",
        "create_time",
        "use_time",
    }


async def test_the_numbers_are_right_and_have_pool_and_endpoint(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    network = Network(delay=0.05)
    async with open_pool(
        network,
        observers=[sdk.observer(convention="db")],
        name="orders",
        max_connections_per_endpoint=2,
        min_idle_per_endpoint=1,
        max_idle_per_endpoint=1,
        acquire_timeout=3,
    ) as pool:
        async with pool.connection(HERE), pool.connection(HERE), trio.open_nursery() as nursery:

            async def wait_in_vain() -> None:
                with pytest.raises(AcquireTimeout):
                    await pool.acquire(HERE)

            nursery.start_soon(wait_in_vain)
            await trio.sleep(1.0)
            assert count(sdk, "used") == 2
            assert count(sdk, "idle") == 0
            assert sdk.number("db.client.connection.pending_requests") == 1
            assert sdk.number("db.client.connection.timeouts") == 0
        await settle()
        assert count(sdk, "used") == 0
        assert count(sdk, "idle") == 1
        here = {
            "db_client_connection_pool_name": "orders",
            "conpool_endpoint": str(HERE),
            "server_address": HERE.host,
            "server_port": HERE.port,
        }
        assert sdk.number("db.client.connection.timeouts", **here) == 1
        assert sdk.number("db.client.connection.pending_requests", **here) == 0
        assert sdk.number("db.client.connection.max", **here) == 2
        assert sdk.number("db.client.connection.idle.max", **here) == 1
        assert sdk.number("db.client.connection.idle.min", **here) == 1
        waits = sdk.durations("db.client.connection.wait_time", **here)
        assert waits == (3, pytest.approx(0.1 + 3.0))
        assert sdk.durations("db.client.connection.create_time", **here) == (2, pytest.approx(0.1))
        assert sdk.durations("db.client.connection.use_time", **here) == (
            2,
            pytest.approx(6.0 + 0.05),
        )


def count(sdk: SDK, state: str) -> Any:
    return sdk.number("db.client.connection.count", db_client_connection_state=state)


async def test_http_knows_active_and_idle_by_server_and_how_long_connections_lived(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    async with open_pool(observers=[sdk.observer(convention="http")]) as pool:
        async with pool.connection(HERE), pool.connection(THERE):
            await trio.sleep(2.0)
        pool.close_idle(THERE)
        await settle()
        points = {
            (point.attributes["server.address"], point.attributes["http.connection.state"]): point
            for point in sdk.read()["http.client.open_connections"].points
        }
        assert {key: point.value for key, point in points.items()} == {
            (HERE.host, "idle"): 1,
            (HERE.host, "active"): 0,
            (THERE.host, "idle"): 0,
            (THERE.host, "active"): 0,
        }
        keys = {"server.address", "server.port", "http.connection.state"}
        assert all(set(point.attributes) == keys for point in points.values())
        lived = sdk.durations("http.client.connection.duration", server_address=THERE.host)
        assert lived == (1, pytest.approx(2.0))


async def test_durations_fall_into_buckets_of_seconds(sdk: SDK, autojump_clock: MockClock) -> None:
    async with open_pool(observers=[sdk.observer()]) as pool:
        for seconds in (0.03, 0.03, 4.0):
            await hold(pool, HERE, seconds)
        (point,) = sdk.read()["conpool.connection.use_time"].points
    in_use = dict(zip(point.explicit_bounds, point.bucket_counts, strict=False))
    assert {bound: n for bound, n in in_use.items() if n} == {0.05: 2, 5.0: 1}
    assert point.sum == pytest.approx(4.06)


async def test_each_duration_is_told_once_however_often_somebody_looks(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    async with open_pool(observers=[sdk.observer()]) as pool:
        for number in range(1, 4):
            await hold(pool, HERE, 1.0)
            for _ in range(2):
                assert sdk.durations("conpool.connection.use_time") == (
                    number,
                    pytest.approx(number),
                )
        assert sdk.durations("conpool.connection.wait_time")[0] == 3


async def test_what_takes_too_long_to_record_follows_when_somebody_looks_again(
    sdk: SDK, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meters_module, "_PIECE", 2)
    async with open_pool(observers=[sdk.observer()]) as pool:
        for _ in range(5):
            async with pool.connection(HERE):
                pass
        monkeypatch.setattr(meters_module, "_LONGEST", -1.0)
        assert "conpool.connection.use_time" not in sdk.read()
        monkeypatch.undo()
        uses = sdk.durations("conpool.connection.use_time")
        assert uses == (5, pytest.approx(pool.stats(HERE).use_time.total))


async def test_a_lease_of_an_idle_connection_makes_no_call_of_the_sdk(
    sdk: SDK, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = sdk.observer(convention="http")
    async with open_pool(observers=[observer]) as pool:
        async with pool.connection(HERE):
            pass
        with monkeypatch.context() as patched:
            for histogram in observer._meters._histograms.values():
                patched.setattr(histogram, "record", pytest.fail)
            patched.setattr(observer._tracer, "start_span", pytest.fail)
            async with pool.connection(HERE) as conn:
                await exchange(conn)
        assert sdk.durations("conpool.connection.use_time")[0] == 2


async def test_pools_and_observers_share_a_provider_and_what_looks_alike_is_added_up(
    sdk: SDK,
) -> None:
    shared = sdk.observer()
    endpoints = [
        Endpoint("db.example", 1, login=Login("app", password))
        for password in ("canary", "canary2")
    ]
    async with (
        open_pool(observers=[shared], name="one") as one,
        open_pool(observers=[shared], name="one") as two,
        open_pool(observers=[sdk.observer()], name="three") as three,
    ):
        for pool in (one, two, three):
            for endpoint in endpoints:
                async with pool.connection(endpoint):
                    pass
        idle = {"conpool_connection_state": "idle", "conpool_endpoint": "app@db.example:1"}
        name = "conpool.connection.count"
        assert sdk.number(name, conpool_connection_pool_name="one", **idle) == 4
        assert sdk.number(name, conpool_connection_pool_name="three", **idle) == 2
        assert sdk.durations("conpool.connection.use_time")[0] == 6
        assert "canary" not in str(sdk.read())
        assert "canary" not in str([span.to_json() for span in sdk.spans])


async def test_a_closed_pool_is_told_to_the_end_and_let_go(sdk: SDK) -> None:
    observer = sdk.observer()
    async with open_pool(observers=[observer], name="again") as pool, pool.connection(HERE):
        pass
    assert sdk.number("conpool.connection.count") == 0
    assert sdk.durations("conpool.connection.use_time") == (1, pytest.approx(0, abs=1))
    assert not observer._watched.pools
    async with open_pool(observers=[observer], name="again") as pool:
        async with pool.connection(HERE):
            pass
        assert sdk.durations("conpool.connection.use_time")[0] == 2


async def test_timeouts_never_go_back_when_a_pool_is_replaced(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    observer = sdk.observer()
    network = Network()
    network.silent.add(HERE)
    for number in (1, 2):
        async with open_pool(network, observers=[observer], name="again") as pool:
            with pytest.raises(AcquireTimeout):
                await pool.acquire(HERE, timeout=1)
            assert sdk.number("conpool.connection.timeouts") == number
        assert sdk.number("conpool.connection.timeouts") == number


async def test_an_observer_that_is_gone_is_not_asked(sdk: SDK) -> None:
    observer = sdk.observer()
    async with open_pool(observers=[observer]) as pool:
        async with pool.connection(HERE):
            pass
        meters = observer._meters
        assert len(meters._watched) == 1
    del observer, pool
    gc.collect()
    assert not meters._watched


async def test_without_the_sdk_closed_pools_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_module, "_MOST", 3)
    observer = OpenTelemetryObserver()
    assert observer._meters is OpenTelemetryObserver()._meters
    for _ in range(8):
        async with open_pool(observers=[observer]) as pool, pool.connection(HERE):
            pass
    assert len(observer._watched.pools) <= 3


async def test_a_unix_socket_has_a_path_for_an_address(sdk: SDK) -> None:
    async with open_pool(observers=[sdk.observer()]) as pool:
        async with pool.connection(UnixEndpoint("\0bus")):
            pass
        (point,) = sdk.read()["conpool.connection.max"].points
    assert point.attributes["server.address"] == "@bus"
    assert point.attributes["network.transport"] == "unix"
    assert "server.port" not in point.attributes


async def test_another_thread_may_look_while_leases_come_and_go(sdk: SDK) -> None:
    has_ended = threading.Event()
    leases = 0
    async with open_pool(observers=[sdk.observer()], every_step=False) as pool:

        def look() -> None:
            for _ in range(20):
                sdk.read()
            has_ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, look)
            while not has_ended.is_set():
                async with pool.connection(HERE):
                    leases += 1
        used, total = sdk.durations("conpool.connection.use_time")
        assert used == leases
        assert total == pytest.approx(pool.stats(HERE).use_time.total, rel=0.2)


@pytest.mark.parametrize("wrong", ["sql", "", None, 1])
def test_an_unknown_convention_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match='must be "conpool", "db" or "http", not'):
        OpenTelemetryObserver(convention=wrong)


def test_a_pool_that_was_never_opened_has_nothing_to_show(sdk: SDK) -> None:
    pool = ConnectionPool(observers=[sdk.observer()])
    assert all(not metric.points for metric in sdk.read().values())
    assert not pool.all_stats().endpoints
