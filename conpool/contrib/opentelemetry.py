"""Metrics and spans for OpenTelemetry, through its API (extra `opentelemetry`).

    ConnectionPool(observers=[OpenTelemetryObserver()])

The API of OpenTelemetry does nothing until the program sets up its SDK, or passes providers.
"""

from __future__ import annotations

import time
from typing import Any, Final, cast, get_args

import trio
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_tracer

from conpool._extend.observer import ConnectionInfo, Observer
from conpool._pool.pool import ConnectionPool
from conpool._values.config_error import ConfigError
from conpool._values.group import Target
from conpool._values.states import CloseReason
from conpool.contrib._otel.meters import find_meters
from conpool.contrib._otel.names import SCOPE, Attributes, Convention, describe_endpoint
from conpool.contrib._otel.watched import Watched

_SHORTEST: Final = 0.001
"""A wait of fewer seconds has no span, unless a dial was its reason: to make one takes as long as
several leases, and then at most a twentieth of what it shows."""


class OpenTelemetryObserver(Observer):
    """Shows the numbers of pools as metrics, and what callers wait for as spans.

    The metrics are those of the semantic conventions for connection pools, taken from the numbers
    of the pools when somebody collects them. Each acquire that took a millisecond or a dial, and
    each dial, is a span: a child of the one in which the caller asked. No attribute has a secret.
    Several pools may share an observer if they run in the same thread.

    >>> from conpool import ConnectionPool
    >>> pool = ConnectionPool(observers=[OpenTelemetryObserver(convention="db")])

    Args:
        convention: Whose names the metrics have: `db.client.connection.*`, `http.client.*` (with
            `conpool.connection.*` for what this does not name), or `conpool.connection.*` alone.
        meter_provider: Where metrics go; None: the global one.
        tracer_provider: Where spans go; None: the global one.

    Raises:
        ConfigError: There is no such convention.
    """

    def __init__(
        self,
        *,
        convention: Convention = "conpool",
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        if convention not in get_args(Convention):
            raise ConfigError(f'convention must be "conpool", "db" or "http", not {convention!r}')
        self._tracer = get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._meters = find_meters(convention, meter_provider)
        self._watched = Watched()
        self._meters.add(self._watched)
        self._dials: dict[ConnectionInfo, Context] = {}
        """In which context each dial under way was asked for."""

    def _joined(self, pool: object) -> None:
        self._watched.add(cast("ConnectionPool[Any]", pool))

    # A span begins when the observer hears that it is over, with the time at which it should have.

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        """Show an acquire that had to wait."""
        if waited >= _SHORTEST or info.uses == 1:
            more: Attributes = {"conpool.connection.id": info.id}
            self._show("conpool.acquire", info.endpoint, waited, more)

    def acquire_failed(self, endpoint: Target, error: BaseException, waited: float) -> None:
        """Show an acquire that came to nothing."""
        self._show("conpool.acquire", endpoint, waited, {}, error=error)

    def connecting(self, info: ConnectionInfo) -> None:
        """Note for whom this dial is."""
        self._dials[info] = self._watched.find_context(info)

    def connected(self, info: ConnectionInfo, took: float) -> None:
        """Show a dial."""
        self._show_dial(info, took, None)

    def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
        """Show a failed dial."""
        self._show_dial(info, took, error)

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        """Record how long a connection has lived, if the convention wants to know."""
        self._meters.record_lifetime(info.endpoint, trio.current_time() - info.created_at)

    def _show_dial(self, info: ConnectionInfo, took: float, error: BaseException | None) -> None:
        self._show(
            "conpool.connect",
            info.endpoint,
            took,
            {"conpool.connection.id": info.id},
            error=error,
            kind=SpanKind.CLIENT,
            context=self._dials.pop(info, None),
        )

    def _show(
        self,
        name: str,
        endpoint: Target,
        seconds: float,
        attributes: Attributes,
        *,
        error: BaseException | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        context: Context | None = None,
    ) -> None:
        """Make a span that ends now; None: in the context of this task."""
        span = self._tracer.start_span(
            name,
            context,
            kind=kind,
            attributes=describe_endpoint(endpoint) | attributes,
            start_time=time.time_ns() - round(seconds * 1e9),
        )
        if error is not None and span.is_recording():
            kind_of_error = f"{type(error).__module__}.{type(error).__qualname__}"
            span.set_attribute("error.type", kind_of_error)
            if not isinstance(error, trio.Cancelled):
                # Without the traceback: when ten thousand time out at once, nobody can write it.
                details = {"exception.type": kind_of_error, "exception.message": str(error)}
                span.add_event("exception", details)
                span.set_status(Status(StatusCode.ERROR, str(error)))
        span.end()
