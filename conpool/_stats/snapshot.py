"""Snapshots of the pool's books: immutable values that any thread may read.

A snapshot holds numbers, strings and endpoints, and nothing of the pool itself. Whoever exports
metrics from another thread takes one in trio's and hands it over.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final, Self, cast, final

from conpool._stats.counters import Counters
from conpool._stats.histogram import Histogram
from conpool._stats.report import duration, shorten, table
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import Target
from conpool._values.states import CircuitState, CloseReason

_NAME_WIDTH: Final = 44
"""PoolLimit for a host name of usual length, a port and a mark for TLS, within a line of 160 columns."""

_ROWS: Final = 20
"""More endpoints than this do not fit a screen; the busiest are shown, the others summed."""

_HEADER: Final = (
    *("endpoint", "active", "idle", "connecting", "closing", "waiting", "limit"),
    *("created", "reused", "errors", "wait p50", "wait p99"),
)
_SUMMED: Final = (
    *("active", "idle", "connecting", "closing", "waiting"),
    *("total_created", "total_reused", "errors"),
)


@final
@dataclass(frozen=True, slots=True)
class LatencySummary:
    """How long something took: durations in seconds, from a histogram of fixed size.

    The quantiles are off by at most 12 % (and not at all at zero); `count`, `total` and `max`
    are exact. All are zero where nothing has been counted.

    Attributes:
        count: How many durations were counted.
        total: Their sum, in seconds.
        p50: The median, in seconds.
        p90: What nine of ten did not exceed, in seconds.
        p99: What 99 of 100 did not exceed, in seconds.
        max: The longest, in seconds.
    """

    count: int
    total: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, histogram: Histogram) -> LatencySummary:
        """Sum up `histogram` as it is now."""
        if histogram.count == 0:
            return _NOTHING
        p50, p90, p99 = histogram.quantiles(0.5, 0.9, 0.99)
        return cls(histogram.count, histogram.total, p50, p90, p99, histogram.max)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; a number without an end becomes None."""
        return {field.name: _finite(getattr(self, field.name)) for field in fields(self)}


_NOTHING: Final = LatencySummary(0, 0.0, 0.0, 0.0, 0.0, 0.0)


@final
@dataclass(frozen=True, slots=True)
class EndpointStats:
    """What the pool's books say about one endpoint, or about a group, at one instant.

    `limit` is never less than the sum of `active`, `idle`, `connecting` and `closing`.

    Attributes:
        endpoint: Whose numbers these are.
        limit: The most connections that may exist at once.
        active: Connections that are lent, being checked or being reset.
        idle: Connections that wait to be lent.
        connecting: Connections that are being dialled.
        closing: Connections whose file is not closed yet.
        waiting: Tasks that are parked in an acquire.
        total_created: Connections ever opened.
        total_reused: Leases of a connection that had been lent before.
        total_closed: Connections ever closed.
        errors: Failed dials.
        acquired: Leases ever given out.
        acquire_timeouts: Acquires that ended in `AcquireTimeout`.
        acquire_cancelled: Acquires that were cancelled.
        closed_by_reason: How many connections were closed for each reason. Read-only; holds the
            reasons that have occurred, and looking up any other yields 0.
        wait_time: How long acquires took that ended in a lease.
        connect_time: How long dials took that ended in a connection.
        use_time: How long leases lasted.
        circuit: The state of the circuit breaker; closed where there is none.
    """

    endpoint: Target
    limit: int
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
    acquire_cancelled: int
    closed_by_reason: Mapping[CloseReason, int]
    wait_time: LatencySummary
    connect_time: LatencySummary
    use_time: LatencySummary
    circuit: CircuitState

    @classmethod
    def of(
        cls,
        endpoint: Target,
        *,
        limit: int,
        active: int,
        idle: int,
        connecting: int,
        closing: int,
        waiting: int,
        counters: Counters,
        circuit: CircuitState = CircuitState.CLOSED,
    ) -> Self:
        """Join the numbers of this instant with those of `counters`, which is copied."""
        return cls(
            endpoint=endpoint,
            limit=limit,
            active=active,
            idle=idle,
            connecting=connecting,
            closing=closing,
            waiting=waiting,
            total_created=counters.total_created,
            total_reused=counters.total_reused,
            total_closed=counters.total_closed,
            errors=counters.errors,
            acquired=counters.acquired,
            acquire_timeouts=counters.acquire_timeouts,
            acquire_cancelled=counters.acquire_cancelled,
            closed_by_reason=counters.closed_by_reason,
            wait_time=LatencySummary.of(counters.wait_time),
            connect_time=LatencySummary.of(counters.connect_time),
            use_time=LatencySummary.of(counters.use_time),
            circuit=circuit,
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "closed_by_reason", _frozen_counts(self.closed_by_reason))

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: the endpoint as text, reasons and states by name in lower case."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)


@final
@dataclass(frozen=True, slots=True)
class PoolStats:
    """What the pool's books say at one instant; `print(pool.all_stats())` is meant for people.

    The sums go over everything since the pool was opened: endpoints that it has dropped since,
    because nobody asked for them any more, are in the totals but no longer in `endpoints`.

    Attributes:
        name: The pool's name.
        endpoints: The numbers of each endpoint that the pool knows now. Read-only.
        active: Connections that are lent, being checked or being reset.
        idle: Connections that wait to be lent.
        connecting: Connections that are being dialled.
        closing: Connections whose file is not closed yet.
        waiting: Tasks that are parked in an acquire.
        total_created: Connections ever opened.
        total_reused: Leases of a connection that had been lent before.
        total_closed: Connections ever closed.
        errors: Failed dials.
        acquired: Leases ever given out.
        acquire_timeouts: Acquires that ended in `AcquireTimeout`.
        closed_by_reason: How many connections were closed for each reason. Read-only; holds the
            reasons that have occurred, and looking up any other yields 0.
    """

    name: str
    endpoints: Mapping[AnyEndpoint, EndpointStats]
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
        cls, name: str, endpoints: Mapping[AnyEndpoint, EndpointStats], dropped_counters: Counters
    ) -> Self:
        """Sum up `endpoints` and the counters of those that were dropped, `dropped_counters`."""
        members = tuple(endpoints.values())
        by_reason = dict(dropped_counters.closed_by_reason)
        for member in members:
            for reason, count in member.closed_by_reason.items():
                by_reason[reason] = by_reason.get(reason, 0) + count
        return cls(
            name=name,
            endpoints=endpoints,
            active=sum(member.active for member in members),
            idle=sum(member.idle for member in members),
            connecting=sum(member.connecting for member in members),
            closing=sum(member.closing for member in members),
            waiting=sum(member.waiting for member in members),
            total_created=dropped_counters.total_created
            + sum(member.total_created for member in members),
            total_reused=dropped_counters.total_reused
            + sum(member.total_reused for member in members),
            total_closed=dropped_counters.total_closed
            + sum(member.total_closed for member in members),
            errors=dropped_counters.errors + sum(member.errors for member in members),
            acquired=dropped_counters.acquired + sum(member.acquired for member in members),
            acquire_timeouts=dropped_counters.acquire_timeouts
            + sum(member.acquire_timeouts for member in members),
            closed_by_reason=by_reason,
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoints", MappingProxyType(dict(self.endpoints)))
        object.__setattr__(self, "closed_by_reason", _frozen_counts(self.closed_by_reason))

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; `endpoints` is a list, since two endpoints may read the same."""
        members = [member.to_dict() for member in self.endpoints.values()]
        names = (field.name for field in fields(self) if field.name != "endpoints")
        plain = {name: _plain(getattr(self, name)) for name in names}
        return plain | {"endpoints": members}

    def __str__(self) -> str:
        members = tuple(self.endpoints.values())
        shown = members
        if len(members) > _ROWS:
            shown = tuple(heapq.nlargest(_ROWS, members, key=_busyness))
        rows = [_row(member) for member in shown]
        if len(shown) < len(members):
            chosen = set(map(id, shown))
            rest = [member for member in members if id(member) not in chosen]
            rows.append(_sums(f"({len(rest)} more)", lambda name: _sum(rest, name)))
        total = _sums("total", lambda name: getattr(self, name))
        noun = "endpoint" if len(members) == 1 else "endpoints"
        return f"pool {self.name}: {len(members)} {noun}\n{table(_HEADER, rows, total)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)


class _Counts(dict[CloseReason, int]):
    """Only what occurred is stored, shown and compared; what did not reads as 0."""

    __slots__ = ()

    def __missing__(self, reason: CloseReason) -> int:
        return 0


def _frozen_counts(counts: Mapping[CloseReason, int]) -> Mapping[CloseReason, int]:
    return MappingProxyType(_Counts(counts))


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
    """What JSON makes of one field."""
    match value:
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


def _busyness(member: EndpointStats) -> tuple[int, ...]:
    connections = member.idle + member.connecting + member.closing
    return (member.waiting, member.active, connections, member.acquired, member.errors)


def _sum(members: Iterable[EndpointStats], name: str) -> int:
    return sum(getattr(member, name) for member in members)


def _row(member: EndpointStats) -> tuple[str, ...]:
    wait = member.wait_time
    quantiles = (duration(wait.p50), duration(wait.p99)) if wait.count else ("-", "-")
    name = shorten(str(member.endpoint), _NAME_WIDTH)
    cells = _sums(name, lambda name: getattr(member, name))
    return (*cells[:6], str(member.limit), *cells[7:10], *quantiles)


def _sums(label: str, number: Callable[[str], int]) -> tuple[str, ...]:
    """A row of the columns that can be summed; a limit or a quantile of several says nothing."""
    cells = [str(number(name)) for name in _SUMMED]
    return (label, *cells[:5], "-", *cells[5:], "-", "-")
