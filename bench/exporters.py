"""What a lease costs while exporters watch, and what their own thread pays later."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Final

import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

import conpool
from conpool.contrib.opentelemetry import OpenTelemetryObserver
from conpool.contrib.prometheus import PoolCollector

from .measure import Run, Scale, Table, race
from .server import HOST, serving

_ALL: Final = "all exporters, uncontended"
_ALL_CONTENDED: Final = "all exporters, each lease waits a little"
_TASKS: Final = 20


async def measure_exporters(scale: Scale) -> Table:
    """Time leases without exporters, and with all of them on."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving())
        endpoint = conpool.Endpoint(HOST, port)
        config = conpool.PoolConfig(max_connections_per_endpoint=5)
        reader, registry, spans = InMemoryMetricReader(), CollectorRegistry(), TracerProvider()
        spans.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
        observer = OpenTelemetryObserver(
            meter_provider=MeterProvider([reader]), tracer_provider=spans
        )
        bare = await stack.enter_async_context(conpool.ConnectionPool(config))
        watched = await stack.enter_async_context(
            conpool.ConnectionPool(config, observers=[observer])
        )
        registry.register(PoolCollector(watched))
        count, rounds = scale.pick(2000, 1000, 20), scale.pick(15, 7, 2)
        first = await race(
            {"no exporter, uncontended": _repeat(bare, endpoint), _ALL: _repeat(watched, endpoint)},
            count=count,
            rounds=rounds,
        )
        second = await race(
            {
                "no exporter, each lease waits a little": _contend(bare, endpoint),
                _ALL_CONTENDED: _contend(watched, endpoint),
            },
            count=count,
            rounds=rounds,
        )
        for _ in range(5):  # one time may be too short for all of them
            reader.get_metrics_data()
        await _repeat(watched, endpoint)(count)
        started = time.thread_time()
        reader.get_metrics_data()
        later = (time.thread_time() - started) / count * 1e6
        started = time.thread_time()
        for _ in range(count):
            observer.acquire_failed(endpoint, trio.WouldBlock(), 1.0)
        span = (time.thread_time() - started) / count * 1e6
        scraped = len(generate_latest(registry))
    return Table(
        "A lease with exporters on",
        ("", "µs", "to none", "target"),
        first.rows("no exporter, uncontended", {_ALL: "≤ 1.5"})
        + second.rows("no exporter, each lease waits a little"),
        "OpenTelemetry with its SDK, metrics and spans, and Prometheus, with a scrape of"
        f" {scraped:,} bytes. The thread that collects metrics pays {later:.0f} µs for each lease"
        f" later, and a wait of a millisecond or more has a span, for {span:.0f} µs.",
    )


def _repeat(pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint) -> Run:
    async def run(count: int) -> None:
        for _ in range(count):
            async with pool.connection(endpoint):
                pass

    return run


def _contend(pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint) -> Run:
    async def hold(leases: int) -> None:
        for _ in range(leases):
            async with pool.connection(endpoint):
                await trio.lowlevel.checkpoint()

    async def run(count: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(_TASKS):
                nursery.start_soon(hold, max(1, count // _TASKS))

    return run
