"""The pools that one observer watches: their numbers, and for whom they dial."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, final

from opentelemetry.context import Context, get_current
from trio.lowlevel import Task, current_task

from conpool._extend.observer import ConnectionInfo
from conpool._pool.pool import ConnectionPool
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import ConnectionState, PoolState

_MOST: Final = 100
"""From so many pools on, closed ones are dropped also if nobody has asked for their last numbers:
without OpenTelemetry's SDK, nobody ever does."""


@final
@dataclass(eq=False, slots=True)
class Told:
    """How much of something that only grows has been told so far."""

    counts: list[int] = field(default_factory=list[int])
    total: float = 0.0


@final
@dataclass(eq=False, slots=True)
class WatchedPool:
    """A pool, and what has been told of its endpoints so far."""

    pool: ConnectionPool[Any]
    told: dict[AnyEndpoint, defaultdict[str, Told]] = field(default_factory=dict[Any, Any])
    """Of each endpoint, by field of its statistics."""

    @property
    def is_closed(self) -> bool:
        return self.pool._core.state is PoolState.CLOSED  # noqa: SLF001

    def idle_range(self, endpoint: AnyEndpoint) -> tuple[int, int] | None:
        """Return the fewest and most idle connections that are kept; None: it has nothing now."""
        sub = self.pool._core.subs.get(endpoint)  # noqa: SLF001
        return None if sub is None else (sub.min_idle, int(min(sub.max_idle, sub.limit.total)))


@final
class Watched:
    """The pools of one observer."""

    def __init__(self) -> None:
        self.pools: list[WatchedPool] = []

    def add(self, pool: ConnectionPool[Any]) -> None:
        """Watch `pool`, too."""
        if len(self.pools) >= _MOST:
            self.pools = [watched for watched in self.pools if not watched.is_closed]
        self.pools.append(WatchedPool(pool))

    def find_context(self, info: ConnectionInfo) -> Context:
        """Return the context of the task for which a dial begins; an empty one if for none."""
        for entry in self._find_dials(info.endpoint):
            if entry.id == info.id and entry.created_at == info.created_at:
                if entry.awaited_by is None:
                    return Context()
                task: Task | None = entry.awaited_by.task
                if task is None or task is current_task():  # it has just asked
                    return get_current()
                return task.context.run(get_current)
        return Context()

    def _find_dials(self, endpoint: AnyEndpoint) -> Iterator[Any]:
        for watched in self.pools:
            sub = watched.pool._core.subs.get(endpoint)  # noqa: SLF001
            for entry in () if sub is None else sub.limit.borrowers:
                if entry.state is ConnectionState.CONNECTING:
                    yield entry
