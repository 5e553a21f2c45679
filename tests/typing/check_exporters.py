"""What the exporters look like to a type checker."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_type

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import REGISTRY
from prometheus_client.core import Metric

import conpool
from conpool.contrib.opentelemetry import OpenTelemetryObserver
from conpool.contrib.prometheus import PoolCollector


def prometheus(pool: conpool.ConnectionPool[None], other: conpool.ConnectionPool[bytes]) -> None:
    collector = PoolCollector(pool, other)
    REGISTRY.register(collector)
    assert_type(collector.collect(), Iterable[Metric])
    PoolCollector("pool")  # type: ignore[arg-type]


def opentelemetry() -> None:
    observer = OpenTelemetryObserver(
        convention="db", meter_provider=MeterProvider(), tracer_provider=TracerProvider()
    )
    conpool.ConnectionPool(observers=[observer, OpenTelemetryObserver(convention="http")])
    OpenTelemetryObserver(convention="sql")  # type: ignore[arg-type]
    OpenTelemetryObserver("db")  # type: ignore[call-arg]
