"""The numbers of pools for Prometheus, through prometheus-client (extra `prometheus`).

    REGISTRY.register(PoolCollector(pool))

A scrape reads the pools' snapshots, and a lease costs nothing more than without.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final, TypeAlias, cast, final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from conpool._pool.pool import ConnectionPool
from conpool._stats.latency import LatencySummary, count_within_each
from conpool._stats.snapshot import EndpointStats, PoolStats
from conpool._values.config_error import named
from conpool._values.states import CircuitState

_FORGOTTEN: Final = "(forgotten)"
"""The label of all endpoints that a pool has forgotten (see `PoolStats.endpoints`)."""

_LIMITS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0)
"""The upper bounds of a histogram's buckets, in seconds: from a dial nearby to a time-out."""

_TOTAL: Final = "_total"
_CLOSED: Final = "connections_closed"

_GAUGES: Final = {
    "connections": "Connections that exist now, by state.",
    "connections_limit": "Most connections to the endpoint that may exist at once.",
    "pool_connections_limit": "Most connections of the pool that may exist at once.",
    "waiting": "Tasks that wait for a connection.",
    "oldest_wait_seconds": "For how long the first of them has waited.",
    "paused": "1 while the endpoint is paused.",
    "circuit_open": "1 while the endpoint's circuit is open.",
}
_COUNTERS: Final = {
    "connections_created": ("Dials that succeeded.", "total_created"),
    "connect_errors": ("Dials that failed.", "errors"),
    "acquires": ("Leases that began.", "acquired"),
    "acquires_reused": ("Leases of a connection that had been lent before.", "total_reused"),
    "acquire_timeouts": ("Acquires that ended in AcquireTimeout.", "acquire_timeouts"),
    "acquires_cancelled": ("Acquires that were cancelled.", "acquire_cancelled"),
    _CLOSED: ("Connections that were closed, by reason.", ""),
}
_HISTOGRAMS: Final = {
    "acquire_wait_seconds": ("How long acquires took, and others waited in vain.", "wait_time"),
    "connect_seconds": ("How long successful dials took.", "connect_time"),
    "use_seconds": ("How long leases lasted.", "use_time"),
}
_LAST_LABEL: Final = {"connections": "state", _CLOSED: "reason"}
_STATES: Final = ("active", "idle", "connecting", "closing")
_BOUNDS: Final = (*map(str, _LIMITS), "+Inf")

_Key: TypeAlias = tuple[str, ...]
"""Which metric, the suffix of the sample, and the values of its labels."""


class PoolCollector(Collector):
    """Shows the numbers of pools to Prometheus, as metrics named `conpool_*`.

    Most have the labels `pool` and `endpoint`. Endpoints that look alike, because they differ only
    in what is secret, share their numbers, and so do pools of the same name. Counters never go
    back, whatever the pools close or forget. A scrape may come from any thread.

    >>> from conpool import ConnectionPool
    >>> from prometheus_client import CollectorRegistry
    >>> registry = CollectorRegistry()
    >>> registry.register(PoolCollector(ConnectionPool(name="orders")))

    Args:
        *pools: Open or not. The collector keeps them for as long as it is registered.

    Raises:
        TypeError: One of `pools` is no pool.
    """

    def __init__(self, *pools: ConnectionPool[Any]) -> None:
        for pool in cast("tuple[object, ...]", pools):
            if not isinstance(pool, ConnectionPool):
                raise TypeError(f"not a ConnectionPool but {named(pool)}")
        self._pools = pools
        self._lock = threading.Lock()
        self._shown: dict[_Key, float] = {}
        """What the last scrape has shown of everything that only grows."""

    def describe(self) -> Iterable[Metric]:
        """Return nothing: so several collectors can be registered."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return all metrics as they are now."""
        numbers = _Numbers()
        for pool in self._pools:
            numbers.add_pool(pool.all_stats())
        growing = numbers.growing
        with self._lock:
            # A pool in another thread may be amid a change, and a number be one less a moment
            # later. Prometheus would take that for a restart, and count everything anew.
            for key, number in growing.items():
                growing[key] = max(number, self._shown.get(key, number))
            self._shown = growing
        return _metrics(numbers)


@final
class _Numbers:
    """What one scrape shows. Numbers with the same labels are added up."""

    def __init__(self) -> None:
        self.gauges: defaultdict[_Key, float] = defaultdict(float)
        self.growing: defaultdict[_Key, float] = defaultdict(float)
        """Counters, and all that belongs to histograms."""

    def add_pool(self, stats: PoolStats) -> None:
        if stats.limit is not None:
            self.gauges["pool_connections_limit", "", stats.name] += stats.limit
        for endpoint, member in stats.endpoints.items():
            labels = (stats.name, str(endpoint))
            self._add_state(member, labels)
            for name, (_, field) in _COUNTERS.items():
                if field:
                    self.growing[name, _TOTAL, *labels] += getattr(member, field)
            for reason, count in member.closed_by_reason.items():
                self.growing[_CLOSED, _TOTAL, *labels, reason.name.lower()] += count
            for name, (_, field) in _HISTOGRAMS.items():
                self._add_durations(name, getattr(member, field), labels)
        self._add_forgotten(stats)

    def _add_state(self, member: EndpointStats, labels: _Key) -> None:
        gauges = self.gauges
        for state in _STATES:
            gauges["connections", "", *labels, state] += getattr(member, state)
        gauges["connections_limit", "", *labels] += member.limit
        gauges["waiting", "", *labels] += member.waiting
        oldest = ("oldest_wait_seconds", "", *labels)
        gauges[oldest] = max(gauges[oldest], member.oldest_wait)
        paused = ("paused", "", *labels)
        gauges[paused] = max(gauges[paused], member.paused)
        is_open = ("circuit_open", "", *labels)
        gauges[is_open] = max(gauges[is_open], member.circuit is CircuitState.OPEN)

    def _add_durations(self, name: str, summary: LatencySummary, labels: _Key) -> None:
        growing = self.growing
        counts = [*count_within_each(summary, _LIMITS), summary.count]
        for bound, count in zip(_BOUNDS, counts, strict=True):
            growing[name, "_bucket", *labels, bound] += count
        growing[name, "_count", *labels] += summary.count
        growing[name, "_sum", *labels] += summary.total

    def _add_forgotten(self, stats: PoolStats) -> None:
        """Count what is in the pool's totals and in none of its endpoints."""
        labels = (stats.name, _FORGOTTEN)
        members = stats.endpoints.values()
        for name, (_, field) in _COUNTERS.items():
            total = getattr(stats, field, 0)
            if rest := total - sum(getattr(member, field) for member in members if total):
                self.growing[name, _TOTAL, *labels] += rest
        for reason, total in stats.closed_by_reason.items():
            if rest := total - sum(member.closed_by_reason[reason] for member in members):
                self.growing[_CLOSED, _TOTAL, *labels, reason.name.lower()] += rest


def _metrics(numbers: _Numbers) -> list[Metric]:
    """Put the samples of each metric together, as Prometheus wants them."""
    metrics = {
        name: Metric(f"conpool_{name}", text, kind)
        for kind, texts in (
            ("gauge", _GAUGES),
            ("counter", {name: text for name, (text, _) in _COUNTERS.items()}),
            ("histogram", {name: text for name, (text, _) in _HISTOGRAMS.items()}),
        )
        for name, text in texts.items()
    }
    for (name, suffix, *labels), number in (numbers.gauges | numbers.growing).items():
        names = ("pool", "endpoint", _LAST_LABEL.get(name, "le"))
        # strict=False: a pool's own limit has no endpoint, and most have no third label.
        labelled = dict(zip(names, labels, strict=False))
        metrics[name].add_sample(f"conpool_{name}{suffix}", labelled, number)
    return list(metrics.values())
