"""What a scrape reads, by prometheus-client's own parsers."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition, parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock, wait_all_tasks_blocked

from conpool import AcquireTimeout, ConnectionPool, Endpoint, Login
from conpool._stats import memory
from conpool._stats.counters import Counters
from conpool._stats.snapshot import PoolStats
from conpool.contrib.prometheus import _LIMITS, PoolCollector
from tests.support.pools import HERE, Network, exchange, open_pool

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

EXPECTED: Final = {
    "conpool_connections": "gauge",
    "conpool_connections_limit": "gauge",
    "conpool_pool_connections_limit": "gauge",
    "conpool_waiting": "gauge",
    "conpool_oldest_wait_seconds": "gauge",
    "conpool_paused": "gauge",
    "conpool_circuit_open": "gauge",
    "conpool_connections_created": "counter",
    "conpool_connect_errors": "counter",
    "conpool_acquires": "counter",
    "conpool_acquires_reused": "counter",
    "conpool_acquire_timeouts": "counter",
    "conpool_acquires_cancelled": "counter",
    "conpool_connections_closed": "counter",
    "conpool_acquire_wait_seconds": "histogram",
    "conpool_connect_seconds": "histogram",
    "conpool_use_seconds": "histogram",
}


class Scrapes:
    """Reads the metrics of pools; no counter may go back from one scrape to the next."""

    def __init__(self, *pools: ConnectionPool[Any]) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(PoolCollector(*pools))
        self.growing: Samples = {}
        self.read()

    def read(self) -> Samples:
        text = generate_latest(self.registry).decode()
        samples: Samples = {}
        growing: Samples = {}
        for family in text_string_to_metric_families(text):
            assert EXPECTED[family.name] == family.type
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in samples, "Prometheus refuses two samples with the same labels"
                samples[key] = sample.value
                if family.type != "gauge":
                    growing[key] = sample.value
        for key in growing.keys() & self.growing.keys():
            assert growing[key] >= self.growing[key], key
        self.growing = growing
        self.samples = samples
        return samples

    def get(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels."""
        wanted = labels.items()
        found = [
            value
            for (sample, has), value in self.samples.items()
            if sample == f"conpool_{name}" and wanted <= has
        ]
        assert found, f"no {name} with {labels}"
        return sum(found)


@pytest.fixture
def network() -> Network:
    return Network(delay=0.05)


async def test_a_scrape_has_every_number_by_pool_and_endpoint(
    network: Network, autojump_clock: MockClock
) -> None:
    refused = Endpoint("refused.example", 5432)
    network.refuse(refused)
    async with open_pool(
        network, name="orders", max_connections_per_endpoint=1, max_connections=7, acquire_timeout=2
    ) as pool:
        scrapes = Scrapes(pool)
        with pytest.raises(OSError, match="refused"):
            await pool.acquire(refused)
        async with pool.connection(HERE) as first:
            await exchange(first)
        async with pool.connection(HERE) as conn, trio.open_nursery() as nursery:
            await exchange(conn)

            async def wait_in_vain() -> None:
                with pytest.raises(AcquireTimeout):
                    await pool.acquire(HERE)

            nursery.start_soon(wait_in_vain)
            with trio.move_on_after(0.5):
                await pool.acquire(HERE)
            scrapes.read()
            assert scrapes.get("waiting", pool="orders", endpoint=str(HERE)) == 1
            assert scrapes.get("oldest_wait_seconds", endpoint=str(HERE)) == pytest.approx(0.5)
            assert scrapes.get("connections", endpoint=str(HERE), state="active") == 1
            assert scrapes.get("connections", endpoint=str(HERE)) == 1
        pool.pause(HERE)
        pool.close_idle(HERE)
        await wait_all_tasks_blocked()
        scrapes.read()
    here = {"pool": "orders", "endpoint": str(HERE)}
    assert {name.removesuffix("_total") for name, _ in scrapes.samples} >= {
        name for name, kind in EXPECTED.items() if kind != "histogram"
    }
    assert scrapes.get("connections_limit", **here) == 1
    assert scrapes.get("pool_connections_limit", pool="orders") == 7
    assert scrapes.get("paused", **here) == 1
    assert scrapes.get("circuit_open", **here) == 0
    assert scrapes.get("connections_created_total", **here) == 1
    assert scrapes.get("connect_errors_total", endpoint=str(refused)) == 1
    assert scrapes.get("acquires_total", **here) == 2
    assert scrapes.get("acquires_reused_total", **here) == 1
    assert scrapes.get("acquire_timeouts_total", **here) == 1
    assert scrapes.get("acquires_cancelled_total", **here) == 1
    assert scrapes.get("connections_closed_total", reason="cleared", **here) == 1
    assert scrapes.get("acquire_wait_seconds_count", **here) == 4
    assert scrapes.get("acquire_wait_seconds_sum", **here) == pytest.approx(2.55)
    wait = {le: scrapes.get("acquire_wait_seconds_bucket", le=le, **here) for le in bounds()}
    # A hit, a dial of 50 ms, one cancelled after half a second, one timed out after two.
    assert list(wait.values()) == [1, 1, 1, 2, 3, 3, 4, 4, 4]
    assert scrapes.get("connect_seconds_count", **here) == 1
    assert scrapes.get("use_seconds_count", **here) == 2


def bounds() -> list[str]:
    return [*map(str, _LIMITS), "+Inf"]


def test_the_page_names_every_metric_and_no_other() -> None:
    page = (Path(__file__).parents[3] / "docs" / "howto" / "metrics.rst").read_text("utf-8")
    rows = re.findall(r"^``(\w+)`` +(gauge|counter|histogram)  ", page, re.MULTILINE)
    assert {f"conpool_{name.removesuffix('_total')}": kind for name, kind in rows} == EXPECTED
    alarms = page.partition("alarms")[2].partition("Counters never")[0]
    named = set(re.findall(r"conpool_\w+", alarms))
    assert {re.sub("_(total|bucket)$", "", name) for name in named} <= set(EXPECTED)
    assert len(named) == 3


async def test_the_text_is_valid_openmetrics_too(network: Network) -> None:
    async with open_pool(network) as pool:
        async with pool.connection(HERE):
            pass
        registry = CollectorRegistry(auto_describe=True)
        registry.register(PoolCollector(pool))
        text = exposition.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
        families = list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
        assert {family.name for family in families} == set(EXPECTED)


async def test_counters_outlast_connections_endpoints_and_the_pool(
    network: Network, autojump_clock: MockClock
) -> None:
    async with open_pool(network, max_idle_time=10, reap_interval=1) as pool:
        scrapes = Scrapes(pool)
        async with pool.connection(HERE):
            pass
        scrapes.read()
        await trio.sleep(100)
        assert HERE not in pool._core.subs
        scrapes.read()
        assert scrapes.get("acquires_total", endpoint=str(HERE)) == 1
        async with pool.connection(HERE):
            pass
        scrapes.read()
        assert scrapes.get("acquires_total", endpoint=str(HERE)) == 2
    scrapes.read()
    assert scrapes.get("acquires_total", endpoint=str(HERE)) == 2
    assert scrapes.get("connections_closed_total", endpoint=str(HERE)) == 2


async def test_the_counts_of_forgotten_endpoints_are_shown_in_one_series(
    network: Network, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "KEPT", 2)
    network.refuse(Endpoint("host0.example", 80))
    async with open_pool(network, max_idle_time=10, reap_interval=1) as pool:
        scrapes = Scrapes(pool)
        lengths: list[int] = []
        for number in range(5):
            endpoint = Endpoint(f"host{number}.example", 80)
            if number:
                async with pool.connection(endpoint):
                    pass
            else:
                with pytest.raises(OSError, match="refused"):
                    await pool.acquire(endpoint)
            await trio.sleep(100)
            lengths.append(len(scrapes.read()))
            assert scrapes.get("acquires_total") == number
        assert scrapes.get("acquires_total", endpoint="(forgotten)") == 2
        assert scrapes.get("connect_errors_total", endpoint="(forgotten)") == 1
        assert scrapes.get("connections_closed_total", endpoint="(forgotten)") == 2
        assert scrapes.get("connections_closed_total", reason="idle_time") == 4
        assert lengths[-1] == lengths[-2], "the number of series is bounded"


async def test_endpoints_that_look_alike_are_one_series() -> None:
    async with open_pool(name="same") as pool, open_pool(name="same") as other:
        for password, lender in (("canary-1", pool), ("canary-2", pool), ("canary-2", other)):
            endpoint = Endpoint("db.example", 1, login=Login("app", password, "orders"))
            async with lender.connection(endpoint):
                pass
        scrapes = Scrapes(pool, other)
        assert scrapes.get("acquires_total", endpoint="app@db.example:1/orders") == 3
        assert scrapes.get("connections", state="idle", pool="same") == 3
        assert "canary" not in generate_latest(scrapes.registry).decode()


async def test_several_collectors_can_be_registered_and_pools_need_not_be_open() -> None:
    registry = CollectorRegistry(auto_describe=True)
    for name in ("one", "two"):
        registry.register(PoolCollector(ConnectionPool(name=name)))
    assert list(PoolCollector().collect())
    assert b"\nconpool_" not in generate_latest(registry)


@pytest.mark.parametrize("wrong", [None, "pool", ConnectionPool])
def test_only_pools_are_collected(wrong: Any) -> None:
    with pytest.raises(TypeError, match="not a ConnectionPool but"):
        PoolCollector(wrong)


async def test_a_scrape_from_another_thread_sees_no_counter_go_back(network: Network) -> None:
    """A lease counts itself first, and a little later its duration."""
    network.delay = 0.0
    has_ended = threading.Event()
    async with open_pool(network) as pool, trio.open_nursery() as nursery:
        scrapes = Scrapes(pool)

        def scrape() -> None:
            for _ in range(100):
                scrapes.read()
            has_ended.set()

        nursery.start_soon(trio.to_thread.run_sync, scrape)
        while not has_ended.is_set():
            async with pool.connection(HERE):
                pass


def test_a_number_that_looks_smaller_for_a_moment_is_shown_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = ConnectionPool()
    counters = Counters()
    counters.other_leases = 5
    collector = PoolCollector(pool)

    def shown() -> Iterable[float]:
        stats = pool.stats(HERE)
        stats = type(stats).of(HERE, counters=counters, **NONE)
        monkeypatch.setattr(pool, "all_stats", lambda: PoolStats.of("p", {HERE: stats}, Counters()))
        for metric in collector.collect():
            if metric.name == "conpool_acquires":
                return [sample.value for sample in metric.samples]
        raise AssertionError("it is gone")

    assert shown() == [5]
    counters.other_leases = 4
    assert shown() == [5]
    counters.other_leases = 6
    assert shown() == [6]


NONE: dict[str, Any] = dict.fromkeys(
    ("limit", "active", "idle", "connecting", "closing", "waiting"), 0
)
