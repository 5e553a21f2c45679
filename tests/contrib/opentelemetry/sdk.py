"""OpenTelemetry's own SDK, which keeps in memory what it exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from conpool.contrib.opentelemetry import OpenTelemetryObserver


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str | None
    kind: str
    points: list[Any]


class SDK:
    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))

    def observer(self, **options: Any) -> OpenTelemetryObserver:
        return OpenTelemetryObserver(
            meter_provider=self.meters, tracer_provider=self.tracers, **options
        )

    @property
    def tracer(self) -> Tracer:
        """The caller's own."""
        return self.tracers.get_tracer("caller")

    # ── spans ───────────────────────────────────────────────────────────────────

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, without the caller's own."""
        return [
            span for span in self._exporter.get_finished_spans() if span.name.startswith("conpool.")
        ]

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    # ── metrics ─────────────────────────────────────────────────────────────────

    def read(self) -> dict[str, Metric]:
        """Collect, as an exporter does."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: Metric(
                metric.name, metric.unit, type(metric.data).__name__, list(metric.data.data_points)
            )
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def number(self, name: str, **attributes: Any) -> Any:
        """The sum of a metric's points that have these attributes (`_` for `.`)."""
        return sum(point.value for point in self._points(name, attributes, NumberDataPoint))

    def durations(self, name: str, **attributes: Any) -> tuple[int, Any]:
        """How many durations a histogram has, and their sum."""
        points = self._points(name, attributes, HistogramDataPoint)
        return sum(point.count for point in points), sum(point.sum for point in points)

    def _points(self, name: str, wanted: Mapping[str, Any], kind: type) -> list[Any]:
        points = self.read()[name].points
        assert all(isinstance(point, kind) for point in points)
        return [
            point
            for point in points
            if {key.replace(".", "_"): value for key, value in point.attributes.items()}.items()
            >= wanted.items()
        ]


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id
