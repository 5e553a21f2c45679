"""Snapshots of what the pool has counted: immutable values that any thread may read.

A snapshot holds numbers, strings and endpoints, and nothing of the pool itself. One that is taken
in another thread than the pool's may fall into a change, so that its numbers do not quite add up.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final, Self, cast, final

from conpool._stats.counters import COUNTERS, Counters, ReasonCounts
from conpool._stats.histogram import Histogram
from conpool._stats.report import NO_BREAK, WIDTH, block, duration, shorten, table
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import Target
from conpool._values.states import CircuitState, CloseReason

_NAME_WIDTH: Final = 44
"""Enough for a usual host name, its port and a mark for TLS; the table has 160 columns at most."""

_ROWS: Final = 20
"""No more endpoints fit on a screen: the table shows the busiest, and the sum of the others."""

_COLUMNS: Final = (
    ("active", "active"),
    ("idle", "idle"),
    ("connecting", "connecting"),
    ("closing", "closing"),
    ("waiting", "waiting"),
    ("oldest", "oldest_wait"),
    ("limit", "limit"),
    ("created", "total_created"),
    ("reused", "total_reused"),
    ("errors", "errors"),
    ("timed out", "acquire_timeouts"),
    ("wait p50", "wait_time.p50"),
    ("wait p99", "wait_time.p99"),
)
"""The columns of a pool's table, after the name: header and field."""

_BAD_NEWS: Final = {"oldest_wait", "acquire_timeouts"}
"""The table leaves these columns out where all their numbers are zero."""

_PAUSED: Final = " (paused)"
_CIRCUITS: Final = {
    CircuitState.CLOSED: "",
    CircuitState.OPEN: " (circuit open)",
    CircuitState.HALF_OPEN: " (circuit half open)",
}


@final
@dataclass(frozen=True, slots=True)
class LatencySummary:
    """How long something took: durations in seconds, from a histogram of fixed size.

    `count`, `total` and `max` are exact. A quantile of zero is exact, too, and one between a
    microsecond and 10,000 seconds is off by at most a ninth (11 %). With no durations, all are 0.
    """

    count: int
    """How many durations were counted."""
    total: float
    """Their sum, in seconds."""
    p50: float
    """The median, in seconds."""
    p90: float
    """90 of 100 did not exceed this, in seconds."""
    p99: float
    """99 of 100 did not exceed this, in seconds."""
    max: float
    """The longest, in seconds."""

    @classmethod
    def of(cls, histogram: Histogram) -> LatencySummary:
        """Sum up `histogram` as it is now."""
        if histogram.count == 0:
            return _NOTHING
        p50, p90, p99 = histogram.quantiles(0.5, 0.9, 0.99)
        return cls(histogram.count, histogram.total, p50, p90, p99, histogram.max)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON; a number that is not finite becomes None."""
        return {field.name: _finite(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        if not self.count:
            return "-"
        return f"p50 {duration(self.p50)}, p99 {duration(self.p99)}, max {duration(self.max)}"

    def __repr__(self) -> str:
        return f"<LatencySummary of {self.count} durations: {self}>"


_NOTHING: Final = LatencySummary(0, 0.0, 0.0, 0.0, 0.0, 0.0)


@final
@dataclass(frozen=True, slots=True)
class EndpointStats:
    """The numbers of one endpoint, or of a group, at one instant.

    `print(pool.stats(endpoint))` shows them to people. `limit` is at least the sum of `active`,
    `idle`, `connecting` and `closing`. After `set_limit` has lowered it, that holds once the
    surplus connections have been given back and closed.
    """

    endpoint: Target
    """Whose numbers these are."""
    limit: int
    """Most connections that may exist at once."""
    active: int
    """Connections that are lent, being checked or being reset."""
    idle: int
    """Connections that wait to be lent."""
    connecting: int
    """Connections that are being dialled."""
    closing: int
    """Connections that are being closed; their file is still open."""
    waiting: int
    """Tasks that wait for a connection."""
    oldest_wait: float
    """How long the first of them has waited so far, in seconds; 0.0 if nobody waits."""
    paused: bool
    """Whether `pause` has stopped it: then it lends and dials nothing."""
    total_created: int
    """Connections ever opened."""
    total_reused: int
    """Leases of a connection that had been lent before."""
    total_closed: int
    """Connections ever closed."""
    errors: int
    """Failed dials, without those that the pool gave up."""
    acquired: int
    """Leases ever begun."""
    acquire_timeouts: int
    """Acquires that ended in `AcquireTimeout`."""
    acquire_cancelled: int
    """Acquires that were cancelled."""
    closed_by_reason: Mapping[CloseReason, int]
    """Connections closed for each reason that occurred; any other reads as 0. Read-only."""
    wait_time: LatencySummary
    """How long acquires took that got a connection, and how long others waited in vain: those that
    timed out, and those that were cancelled or failed in the queue."""
    connect_time: LatencySummary
    """How long successful dials took."""
    use_time: LatencySummary
    """How long leases lasted."""
    circuit: CircuitState
    """The state of the circuit breaker; closed if there is none."""

    @classmethod
    def of(
        cls,
        endpoint: Target,
        *,
        counters: Counters,
        circuit: CircuitState = CircuitState.CLOSED,
        oldest_wait: float = 0.0,
        paused: bool = False,
        **state: int,
    ) -> Self:
        """Join `state`, the numbers of this instant, with copies of `counters`."""
        numbers: dict[str, Any] = state | {"oldest_wait": oldest_wait, "paused": paused}
        for name in COUNTERS:
            counted = getattr(counters, name)
            is_histogram = isinstance(counted, Histogram)
            numbers[name] = LatencySummary.of(counted) if is_histogram else counted
        return cls(endpoint=endpoint, circuit=circuit, **numbers)

    def __post_init__(self) -> None:
        object.__setattr__(self, "closed_by_reason", _read_only(self.closed_by_reason))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON: the endpoint as text, reasons and states in lower case."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        open_now = self.active + self.idle + self.connecting + self.closing
        reasons = [
            f"{count} {reason.value}".replace(" ", NO_BREAK)
            for reason, count in sorted(self.closed_by_reason.items(), key=lambda item: -item[1])
        ]
        lines = {
            "connections": f"{open_now} of {self.limit}: {self.active} active, {self.idle} idle,"
            f" {self.connecting} connecting, {self.closing} closing",
            "waiting": f"{self.waiting}{self._describe_oldest()}",
            "acquires": f"{self.acquired} lent ({self.total_reused} reused),"
            f" {self.acquire_timeouts} timed out, {self.acquire_cancelled} cancelled",
            "dials": f"{self.total_created} opened, {self.errors} failed",
            "closed": f"{self.total_closed}{': ' if reasons else ''}{', '.join(reasons)}",
            "wait time": f"{self.wait_time}",
            "connect time": f"{self.connect_time}",
            "use time": f"{self.use_time}",
        }
        if self.circuit is not CircuitState.CLOSED:
            lines["circuit"] = self.circuit.value
        if self.paused:
            lines["paused"] = "yes: it lends and dials nothing until it is resumed"
        return block(shorten(str(self.endpoint), WIDTH), lines)

    def _describe_oldest(self) -> str:
        return f", the first for {duration(self.oldest_wait)}" if self.oldest_wait else ""

    def __repr__(self) -> str:
        paused = ", paused" if self.paused else ""
        return (
            f"<EndpointStats of {self.endpoint}: {counts_text(self)}, limit {self.limit}"
            f"{_timeouts_text(self)}{paused}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)


@final
@dataclass(frozen=True, slots=True)
class PoolStats:
    """The numbers of a pool at one instant; `print(pool.all_stats())` is a table for people.

    Each count is the sum of the same field of `EndpointStats`. The sums include endpoints that
    the pool has dropped, because nobody asked for them any more; `endpoints` does not.
    """

    name: str
    """The pool's name."""
    limit: int | None
    """Most connections of all endpoints at once (`max_connections`); None: no limit."""
    oldest_wait: float
    """How long the first of those who wait has waited so far, in seconds; 0.0 if nobody waits."""
    endpoints: Mapping[AnyEndpoint, EndpointStats]
    """The numbers of each endpoint that the pool knows now. Read-only."""
    active: int
    idle: int
    connecting: int
    closing: int
    waiting: int
    total_created: int
    total_reused: int
    total_closed: int
    errors: int
    acquired: int
    acquire_timeouts: int
    closed_by_reason: Mapping[CloseReason, int]

    @classmethod
    def of(
        cls,
        name: str,
        endpoints: Mapping[AnyEndpoint, EndpointStats],
        dropped_counters: Counters,
        limit: int | None = None,
    ) -> Self:
        """Sum up `endpoints` and the counters of those that the pool dropped."""
        members = endpoints.values()
        sums = {
            field: getattr(dropped_counters, field, 0)
            + sum(getattr(member, field) for member in members)
            for field in _SUMMED
        }
        reasons = ReasonCounts(dropped_counters.closed_by_reason)
        for member in members:
            reasons.absorb(member.closed_by_reason)
        return cls(
            name=name,
            limit=limit,
            oldest_wait=max((member.oldest_wait for member in members), default=0.0),
            endpoints=endpoints,
            closed_by_reason=reasons,
            **sums,
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoints", MappingProxyType(dict(self.endpoints)))
        object.__setattr__(self, "closed_by_reason", _read_only(self.closed_by_reason))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON; `endpoints` is a list, because two may look the same."""
        members = [member.to_dict() for member in self.endpoints.values()]
        names = (field.name for field in fields(self) if field.name != "endpoints")
        plain = {name: _plain(getattr(self, name)) for name in names}
        return plain | {"endpoints": members}

    def __str__(self) -> str:
        shown = dict(self.endpoints)
        if len(shown) > _ROWS:
            busiest = heapq.nlargest(_ROWS, shown.items(), key=lambda item: _busyness(item[1]))
            shown = dict(busiest)
        columns = [
            column for column in _COLUMNS if column[1] not in _BAD_NEWS or getattr(self, column[1])
        ]
        rows = [_row(_label(stats), stats, columns) for stats in shown.values()]
        others = {one: stats for one, stats in self.endpoints.items() if one not in shown}
        if others:
            rest = PoolStats.of(self.name, others, Counters())
            rows.append(_row(f"({len(others)} more)", rest, columns))
        header = ("endpoint", *(header for header, _ in columns))
        return f"{self._title()}\n{table(header, rows, _row('total', self, columns))}"

    def _title(self) -> str:
        count = len(self.endpoints)
        return f"pool {self.name}: {count} {'endpoint' if count == 1 else 'endpoints'}"

    def __repr__(self) -> str:
        limit = "" if self.limit is None else f", limit {self.limit}"
        return f"<PoolStats of {self._title()}, {counts_text(self)}{limit}{_timeouts_text(self)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)


_SUMMED: Final = {field.name for field in fields(EndpointStats) if field.type == "int"} & {
    field.name for field in fields(PoolStats) if field.type == "int"
}
"""The counts that a pool has, too: the sums of those of its endpoints."""


def _read_only(counts: Mapping[CloseReason, int]) -> Mapping[CloseReason, int]:
    return MappingProxyType(ReasonCounts(counts))


def _reduce(snapshot: EndpointStats | PoolStats) -> tuple[Any, ...]:
    """Pickle through the constructor: a read-only view of a dict cannot be pickled."""
    values = (getattr(snapshot, field.name) for field in fields(snapshot))
    return type(snapshot), tuple(map(_thawed, values))


def _thawed(value: object) -> object:
    if isinstance(value, MappingProxyType):
        return dict(cast("Mapping[Any, Any]", value))
    return value


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _plain(value: object) -> Any:
    """Return one field for JSON."""
    match value:
        case None:
            return None
        case int() | float():
            return _finite(value)
        case LatencySummary():
            return value.to_dict()
        case CircuitState():
            return value.name.lower()
        case MappingProxyType():
            counts = cast("Mapping[CloseReason, int]", value)
            return {reason.name.lower(): count for reason, count in counts.items()}
        case _:
            return str(value)


def counts_text(stats: EndpointStats | PoolStats) -> str:
    """Say how many connections are in each state, and how many tasks wait."""
    return (
        f"{stats.active} active, {stats.idle} idle, {stats.connecting} connecting,"
        f" {stats.closing} closing, {stats.waiting} waiting"
    )


def _timeouts_text(stats: EndpointStats | PoolStats) -> str:
    return f", {stats.acquire_timeouts} timed out" if stats.acquire_timeouts else ""


def _busyness(member: EndpointStats) -> tuple[int, ...]:
    connections = member.idle + member.connecting + member.closing
    return (member.waiting, member.active, connections, member.acquired, member.errors)


def _label(member: EndpointStats) -> str:
    mark = _PAUSED if member.paused else _CIRCUITS[member.circuit]
    return shorten(str(member.endpoint), _NAME_WIDTH - len(mark)) + mark


def _row(
    label: str, stats: EndpointStats | PoolStats, columns: Iterable[tuple[str, str]]
) -> tuple[str, ...]:
    return (label, *(_cell(stats, path) for _, path in columns))


def _cell(stats: EndpointStats | PoolStats, path: str) -> str:
    """Show one number; a sum over several endpoints has no quantiles, and perhaps no limit."""
    name, _, quantile = path.partition(".")
    match getattr(stats, name, None):
        case int() as number:
            return str(number)
        case float() as seconds:
            return duration(seconds)
        case LatencySummary(count=count) as summary if count:
            return duration(getattr(summary, quantile))
        case _:
            return "-"
