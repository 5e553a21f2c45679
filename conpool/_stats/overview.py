"""Numbers as text for people: a table that fits the width, and what a high wait comes from.

The snapshots import this file, so it knows them by the names of their fields alone.
"""

from __future__ import annotations

import heapq
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from conpool._stats.latency import LatencySummary
from conpool._stats.report import duration, shorten, table, width_of
from conpool._values.states import CircuitState

HIGH: Final = 0.1
"""From so many seconds on (p99), a wait that is over is explained: people notice it."""

_ROWS: Final = 20
"""No more endpoints fit on a screen: the table shows the busiest, and the sum of the others."""

_EXPLAINED: Final = 3
"""So many endpoints have their waits explained, the busiest first."""

_NAME_WIDTH: Final = 44
"""Enough for a usual host name, its port and a mark for TLS, whatever the width."""

_LEAST_NAME_WIDTH: Final = 20
"""So many columns are left by the other columns of 80, the widest table of two."""

_NOW: Final = (
    ("active", "active"),
    ("idle", "idle"),
    ("connecting", "connecting"),
    ("closing", "closing"),
    ("waiting", "waiting"),
    ("oldest", "oldest_wait"),
    ("limit", "limit"),
)
_SO_FAR: Final = (
    ("created", "total_created"),
    ("reused", "total_reused"),
    ("errors", "errors"),
    ("timed\nout", "acquire_timeouts"),
    ("wait\np50", "wait_time.p50"),
    ("wait\np99", "wait_time.p99"),
)
"""The columns of a pool's table, after the name: header and field."""

_IF_ANY: Final = {"connecting", "closing", "oldest_wait", "errors", "acquire_timeouts"}
"""Columns that are left out where they have only zeros."""

_PAUSED: Final = " (paused)"
_CIRCUITS: Final = {
    CircuitState.CLOSED: "",
    CircuitState.OPEN: " (circuit open)",
    CircuitState.HALF_OPEN: " (circuit half open)",
}

Numbers: TypeAlias = Any
"""An `EndpointStats`, or a `PoolStats` where a sum will do."""

Columns: TypeAlias = Sequence[tuple[str, str]]


def pool_text(pool: Numbers, title: str, add_up: Callable[[list[Any]], Numbers], width: int) -> str:
    """Lay out the numbers of `pool` in one table if it fits into `width`, and in two if not."""
    members = list(pool.endpoints.values())
    busiest = members
    if len(members) > _ROWS:
        busiest = heapq.nlargest(_ROWS, members, key=_busyness)
    shown = set(map(id, busiest))
    rest = [member for member in members if id(member) not in shown]
    sums = [add_up(rest), pool] if rest else [pool]
    names = [f"({len(rest)} more)", "total"] if rest else ["total"]

    def part(first: str, columns: Columns, room: float) -> str:
        cells = [[_cell(row, path) for _, path in columns] for row in [*busiest, *sums]]
        header = [header for header, _ in columns]
        if not room:
            room = max(width - width_of([header, *cells]), _LEAST_NAME_WIDTH)
        labels = [*_labels(busiest, min(int(room), _NAME_WIDTH)), *names]
        rows = [[label, *row] for label, row in zip(labels, cells, strict=True)]
        return table([first, *header], rows[:-1], rows[-1])

    now, so_far = ([c for c in some if _is_shown(c[1], pool)] for some in (_NOW, _SO_FAR))
    text = part("endpoint", [*now, *so_far], _NAME_WIDTH)
    if max(map(len, text.splitlines())) > width:
        text = f"{part('now', now, 0)}\n\n{part('so far', so_far, 0)}"
    reasons = [why_waiting(member, pool) for member in busiest]
    labels = _labels(busiest, _NAME_WIDTH)
    notes = [f"{label}: {why}" for label, why in zip(labels, reasons, strict=True) if why]
    wrapped = [textwrap.fill(note, width, subsequent_indent="  ") for note in notes[:_EXPLAINED]]
    return "\n".join([title, text, *([""] if notes else []), *wrapped])


def why_waiting(member: Numbers, pool: Numbers | None = None) -> str:
    """Say what tasks wait for, or waited for if that took long; nothing if nobody waited long.

    Args:
        member: An endpoint's numbers.
        pool: Those of its pool, where they are known.
    """
    if not member.waiting:
        return _why_waited(member) if _is_high(member.wait_time) else ""
    tasks = "1 task waits" if member.waiting == 1 else f"{member.waiting} tasks wait"
    return f"{tasks}: {_find_obstacle(member, pool)}"


def _find_obstacle(member: Numbers, pool: Numbers | None) -> str:
    if member.paused or member.circuit is CircuitState.OPEN:
        return "the endpoint is paused" if member.paused else "the circuit is open"
    if member.connecting:
        failed = f", {member.errors} have failed so far" if member.errors else ""
        return f"dials are under way{_usually('one takes', member.connect_time)}{failed}"
    if member.active and member.active + member.closing >= member.limit:
        lasts = _usually("a lease lasts", member.use_time)
        return (
            f"all {member.limit} slots are taken{lasts}. Raise max_connections_per_endpoint,"
            " or hold each for less time"
        )
    if pool is not None and pool.limit is not None and _count(pool) >= pool.limit:
        return (
            f"the pool's own limit of {pool.limit} is used up. Raise max_connections, or hold"
            " connections for less time"
        )
    failed = f"dials fail, {member.errors} so far" if member.errors else ""
    return failed or ("the pool's own limit holds them back" if pool is None else "not for long")


def _is_high(wait: LatencySummary) -> bool:
    """Whether more than the odd caller waited long: a first dial alone is no news."""
    return wait.p99 >= HIGH and (wait.count >= 100 or wait.p50 >= HIGH)


def _why_waited(member: Numbers) -> str:
    wait, dial = member.wait_time, member.connect_time
    long = f"waits were long (p99 {duration(wait.p99)})"
    if dial.p99 * 2.0 >= wait.p99:
        return (
            f"{long}, and so are dials (p99 {duration(dial.p99)}). min_idle_per_endpoint keeps"
            " connections in stock"
        )
    return (
        f"{long}, until a connection came back{_usually('a lease lasts', member.use_time)}. Raise"
        " the limit, or hold each for less time"
    )


def _usually(what: str, durations: LatencySummary) -> str:
    return f" ({what} {duration(durations.p50)}, p50)" if durations.p50 else ""


def _count(numbers: Numbers) -> int:
    return int(numbers.active + numbers.idle + numbers.connecting + numbers.closing)


def _busyness(member: Numbers) -> tuple[int, ...]:
    connections = member.idle + member.connecting + member.closing
    return (member.waiting, member.active, connections, member.acquired, member.errors)


def _labels(members: list[Any], width: int) -> list[str]:
    """Name each, within `width`. Those that would look alike are numbered."""
    seen: Counter[str] = Counter()
    labels: list[str] = []
    for member in members:
        text, mark = str(member.endpoint), _PAUSED if member.paused else _CIRCUITS[member.circuit]
        label = shorten(text, width - len(mark)) + mark
        seen[label] += 1
        if seen[label] > 1:
            mark = f" #{seen[label]}{mark}"
            label = shorten(text, width - len(mark)) + mark
        labels.append(label)
    return labels


def _is_shown(path: str, pool: Numbers) -> bool:
    return path not in _IF_ANY or bool(getattr(pool, path))


def _cell(numbers: Numbers, path: str) -> str:
    """Show one number; a sum over several endpoints has no quantiles, and perhaps no limit."""
    name, _, quantile = path.partition(".")
    match getattr(numbers, name, None):
        case int() as number:
            return str(number)
        case float() as seconds:
            return duration(seconds)
        case LatencySummary(count=count) as summary if count:
            return duration(getattr(summary, quantile))
        case _:
            return "-"
