"""The numbers of all pools for JSON: of every endpoint, or of the few that matter most."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, Final, NamedTuple, TypeAlias, final

import trio

from conpool import __version__
from conpool._connection.pooled import PooledCore, PooledSub
from conpool._engine.holders import Slots
from conpool._pool.pool import ConnectionPool
from conpool._stats.snapshot import EndpointStats
from conpool._values.endpoint import AnyEndpoint

Pools: TypeAlias = tuple[ConnectionPool[Any], ...]

_MANY: Final = 50
"""With more endpoints, a snapshot takes milliseconds: a thread takes it, and the loop goes on."""


def _busyness(stats: EndpointStats) -> tuple[float, ...]:
    return (stats.waiting, stats.active, stats.connecting, stats.idle, stats.acquired)


SORTS: Final[Mapping[str, Callable[[EndpointStats], Any]]] = {
    "busiest": _busyness,
    "waiting": lambda stats: (stats.waiting, stats.oldest_wait),
    "slowest": lambda stats: stats.wait_time.p99,
    "errors": lambda stats: (stats.errors, stats.acquire_timeouts),
    "closes": lambda stats: stats.total_closed,
}
"""The orders in which endpoints can be asked for; the largest come first."""


class Wanted(NamedTuple):
    """Which endpoints a request wants to see."""

    top: int | None = None
    """How many of each pool; None: all."""
    sort: str = "busiest"
    match: str = ""
    """Only those whose text has this in it, in upper or lower case."""
    also: frozenset[int] = frozenset()
    """The ids of endpoints that are wanted, too, though they are not among the top."""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Wanted:
        """Read the options of a request.

        Raises:
            ValueError: One of them makes no sense; the message is for the caller.
        """
        top, sort = query.get("top"), query.get("sort", "busiest")
        if top is not None and not _is_number(top):
            raise ValueError("top must be a number")
        if sort not in SORTS:
            raise ValueError(f"sort must be one of {', '.join(SORTS)}")
        also = frozenset(int(one) for one in query.get("also", "").split(",") if _is_number(one))
        match = query.get("match", "").lower()
        return cls(None if top is None else int(top), sort, match, also)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


class Trouble(NamedTuple):
    """What keeps an endpoint from working."""

    status: str
    """`ok`, `paused`, `unhealthy` or `failing`."""
    error: str | None
    """What the last dial failed with."""
    failing_for: float | None
    """Seconds since the first dial failed, if none has been of use since."""


def core_of(pool: ConnectionPool[Any]) -> PooledCore:
    """Return the records of `pool`, which say more than its statistics do."""
    return pool._core  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def find_trouble(sub: PooledSub | None, now: float) -> Trouble:
    """Say whether an endpoint's last dials failed; the error of a dial shows no secret."""
    if sub is None:  # dropped a moment ago
        return Trouble("ok", None, None)
    gate = sub.gate
    error = None if gate.last_error is None else str(gate.last_error)
    if gate.outage_since is not None:
        return Trouble("failing", error, now - gate.outage_since)
    status = "unhealthy" if gate.is_unhealthy else "paused" if gate.is_paused else "ok"
    return Trouble(status, error, None)


@final
class Numbers:
    """Reads the pools. Endpoints that look alike are told apart by an `id` of their own."""

    __slots__ = ("_ids", "_next_id", "_one_at_a_time", "_pools")

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._ids: list[dict[AnyEndpoint, int]] = [{} for _ in pools]
        self._next_id = count(1)
        # Many viewers must not take many threads.
        self._one_at_a_time = trio.CapacityLimiter(1)

    async def read(self, wanted: Wanted) -> bytes:
        """Return what `/stats.json` answers."""
        now = trio.current_time()
        if sum(len(core_of(pool).subs) for pool in self._pools) <= _MANY:
            return self._read(wanted, now)
        limiter = self._one_at_a_time
        return await trio.to_thread.run_sync(self._read, wanted, now, limiter=limiter)

    def find_holders(self, number: int) -> dict[str, Any] | None:
        """Say who holds the connections of the endpoint with this id; None if there is none.

        It looks at the frames of tasks, so it must be called in the thread of the pools.
        """
        for pool, ids in zip(self._pools, self._ids, strict=True):
            for endpoint, sub in core_of(pool).subs.items():
                if ids.get(endpoint) == number:
                    slots = Slots(sub.limit, is_pool_wide=False, is_deadlock=False)
                    lines, others, *_ = slots.find_holders(trio.current_time())
                    return {"endpoint": str(endpoint), "holders": lines, "others": others}
        return None

    def _read(self, wanted: Wanted, now: float) -> bytes:
        pools = [self._read_pool(place, wanted, now) for place in range(len(self._pools))]
        return json.dumps({"version": __version__, "at": now, "pools": pools}).encode()

    def _read_pool(self, place: int, wanted: Wanted, now: float) -> dict[str, Any]:
        pool, known = self._pools[place], self._ids[place]
        core = core_of(pool)
        stats, subs = pool.all_stats(), core.subs.copy()
        ids = {one: known.get(one) or next(self._next_id) for one in stats.endpoints}
        self._ids[place] = ids
        found = [endpoint for endpoint in stats.endpoints if wanted.match in str(endpoint).lower()]
        rank, top = SORTS[wanted.sort], len(found) if wanted.top is None else wanted.top
        shown = heapq.nlargest(top, found, key=lambda endpoint: rank(stats.endpoints[endpoint]))
        if wanted.also:
            shown += [one for one in found if ids[one] in wanted.also and one not in shown]
        members: list[dict[str, Any]] = []
        for endpoint in shown:
            trouble = find_trouble(subs.get(endpoint), now)._asdict()
            members.append({"id": ids[endpoint]} | stats.endpoints[endpoint].to_dict() | trouble)
        return replace(stats, endpoints={}).to_dict() | {
            "state": core.state.value,
            "known": len(ids),
            "matching": len(found),
            "endpoints": members,
        }
