"""The instruments of one provider. What they show is taken from the pools when somebody looks.

OpenTelemetry has no way to hand over a histogram that is already counted. So each duration that has
come since the last look is recorded then, by the thread that looks: a record takes longer than half
a lease. Durations come from the pool's own buckets, and are off by a ninth at most; their sum is
exact.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, TypeAlias, final

from opentelemetry.metrics import (
    CallbackOptions,
    CallbackT,
    Histogram,
    Meter,
    MeterProvider,
    Observation,
    get_meter,
)

from conpool._stats.histogram import QUANTILE_ERROR, SPREAD
from conpool._stats.latency import LatencySummary, spread_of
from conpool._stats.snapshot import EndpointStats
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import Target
from conpool.contrib._otel.names import (
    CONVENTIONS,
    SCOPE,
    SECONDS,
    Attributes,
    Convention,
    Names,
    describe_endpoint,
)
from conpool.contrib._otel.watched import Told, Watched, WatchedPool

Key: TypeAlias = tuple[tuple[str, str | int], ...]
"""Attributes, to be a key."""

_LONGEST: Final = 3.0
"""Seconds that recording durations may take at a time, of the ten that the SDK allows.

The rest follows when somebody looks again.
"""

_PIECE: Final = 500
"""So many records between two looks at the clock: a few milliseconds."""


@final
class Meters:
    """The instruments of one provider in one convention, for all observers that want these."""

    def __init__(self, names: Names, provider: MeterProvider | None) -> None:
        meter = get_meter(SCOPE, meter_provider=provider)
        self._names = names
        self._watched: list[weakref.ref[Watched]] = []
        self._lock = threading.Lock()
        self._seen: dict[str, dict[Key, int]] = {}
        """What the last look has found, by instrument; each may be asked for once."""
        self._timeouts: defaultdict[Key, int] = defaultdict(int)
        prefix = names.prefix
        self._histograms = {
            field: _durations(meter, f"{prefix}.{name}", text)
            for field, name, text in (
                ("wait_time", "wait_time", "How long acquires took, and others waited in vain."),
                ("connect_time", "create_time", "How long successful dials took."),
                ("use_time", "use_time", "How long leases lasted."),
            )
        }
        self._lifetime = None
        if names.lifetime is not None:
            text = "How long connections were open."
            self._lifetime = _durations(meter, names.lifetime, text)
        for name, unit, text in (
            (names.count, "{connection}", "Connections that are open."),
            (f"{prefix}.max", "{connection}", "Most connections that may exist at once."),
            (f"{prefix}.idle.max", "{connection}", "Most idle connections that are kept."),
            (f"{prefix}.idle.min", "{connection}", "Idle connections that are kept in stock."),
            (f"{prefix}.pending_requests", "{request}", "Tasks that wait for a connection."),
        ):
            meter.create_observable_up_down_counter(name, [self._observing(name)], unit, text)
        name = f"{prefix}.timeouts"
        text = "Acquires that timed out."
        meter.create_observable_counter(name, [self._observing(name)], "{timeout}", text)

    def add(self, watched: Watched) -> None:
        """Show the numbers of these pools, too, for as long as their observer exists."""
        self._watched.append(weakref.ref(watched, self._watched.remove))

    def record_lifetime(self, endpoint: AnyEndpoint, seconds: float) -> None:
        """Record how long a connection has lived, if the convention wants to know."""
        if self._lifetime is not None:
            self._lifetime.record(max(seconds, 0.0), self._describe_server(endpoint))

    # ── a look ──────────────────────────────────────────────────────────────────

    def _observing(self, name: str) -> CallbackT:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            with self._lock:
                if name not in self._seen:  # it was asked for before: look again
                    self._seen = self._look()
                found = self._seen.pop(name)
            return [Observation(number, dict(key)) for key, number in found.items()]

        return observe

    def _look(self) -> dict[str, dict[Key, int]]:
        """Find what every instrument shows now, and record the durations that have come."""
        names = self._names
        found: dict[str, defaultdict[Key, int]] = {
            name: defaultdict(int)
            for name in (
                names.count,
                *(f"{names.prefix}.{what}" for what in ("max", "idle.max", "idle.min")),
                f"{names.prefix}.pending_requests",
            )
        }
        until = time.monotonic() + _LONGEST
        for watched in [seen for ref in self._watched.copy() if (seen := ref()) is not None]:
            for pool in watched.pools.copy():
                is_last = pool.is_closed
                self._look_at_pool(pool, found, until)
                if is_last:
                    watched.pools.remove(pool)
        timeouts = f"{names.prefix}.timeouts"
        return {**found, timeouts: self._timeouts.copy()}

    def _look_at_pool(
        self, watched: WatchedPool, found: dict[str, defaultdict[Key, int]], until: float
    ) -> None:
        names, stats = self._names, watched.pool.all_stats()
        told, watched.told = watched.told, {}
        for endpoint, member in stats.endpoints.items():
            before = watched.told[endpoint] = told.get(endpoint) or defaultdict(Told)
            attributes = describe_endpoint(endpoint) | {f"{names.prefix}.pool.name": stats.name}
            key = tuple(attributes.items())
            self._count_connections(found[names.count], member, key)
            found[f"{names.prefix}.max"][key] += member.limit
            found[f"{names.prefix}.pending_requests"][key] += member.waiting
            if (idle := watched.idle_range(endpoint)) is not None:
                found[f"{names.prefix}.idle.min"][key] += idle[0]
                found[f"{names.prefix}.idle.max"][key] += idle[1]
            self._timeouts[key] += max(int(member.acquire_timeouts - before["timeouts"].total), 0)
            before["timeouts"].total = member.acquire_timeouts
            for field, histogram in self._histograms.items():
                summary = getattr(member, field)
                _record_new(histogram, summary, before[field], attributes, until)

    def _count_connections(
        self, counts: defaultdict[Key, int], member: EndpointStats, key: Key
    ) -> None:
        names = self._names
        if names.lifetime is not None:
            key = tuple(self._describe_server(member.endpoint).items())
        counts[*key, (names.state, names.used)] += member.active
        counts[*key, (names.state, "idle")] += member.idle

    def _describe_server(self, endpoint: Target) -> Attributes:
        """Return the attributes of HTTP's own metrics."""
        attributes = describe_endpoint(endpoint)
        return {name: value for name, value in attributes.items() if name in _SERVER}


def find_meters(convention: Convention, provider: MeterProvider | None) -> Meters:
    """Return the instruments of `provider`: it has one of a name, for all observers."""
    known = _of_the_global_one if provider is None else _of_provider.setdefault(provider, {})
    if convention not in known:
        known[convention] = Meters(CONVENTIONS[convention], provider)
    return known[convention]


def _durations(meter: Meter, name: str, text: str) -> Histogram:
    return meter.create_histogram(name, "s", text, explicit_bucket_boundaries_advisory=SECONDS)


def _record_new(
    histogram: Histogram, summary: LatencySummary, told: Told, attributes: Attributes, until: float
) -> None:
    """Record the durations that have come since the last look."""
    counts = spread_of(summary)
    told.counts += [0] * (len(counts) - len(told.counts))
    new = [(place, count - told.counts[place]) for place, count in enumerate(counts)]
    new = [(place, count) for place, count in new if count > 0]
    expected = sum(SPREAD[place] * count for place, count in new)
    # Stretched a little, so that their sum is right.
    stretch = (summary.total - told.total) / expected if expected else 1.0
    if abs(stretch - 1.0) > 2.0 * QUANTILE_ERROR:  # the pool is amid a change
        stretch = 1.0
    for place, count in new:
        seconds = SPREAD[place] * stretch
        for begin in range(0, count, _PIECE):
            if time.monotonic() > until:
                return
            piece = min(_PIECE, count - begin)
            for _ in range(piece):
                histogram.record(seconds, attributes)
            told.counts[place] += piece
            told.total += seconds * piece


_SERVER: Final = ("server.address", "server.port")

_of_provider: Final[weakref.WeakKeyDictionary[MeterProvider, dict[Convention, Meters]]] = (
    weakref.WeakKeyDictionary()
)
_of_the_global_one: Final[dict[Convention, Meters]] = {}
