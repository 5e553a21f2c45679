"""Errors about the pool itself: it is closed, its connections are all lent, or it may not dial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import trio

from conpool._errors.connect import ConnectError, DetailedError
from conpool._stats.report import duration
from conpool._stats.snapshot import EndpointStats, counts_text
from conpool._values.config_error import PoolError
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import Target
from conpool._values.states import AcquirePhase

_HOLDERS_SHOWN: Final = 10


class PoolClosed(PoolError, trio.ClosedResourceError):
    """The pool lends nothing: it is closed, closing, or not open yet."""


class AcquireTimeout(DetailedError, trio.TooSlowError):
    """The pool had no connection for the caller in time.

    It says in which phase the time ran out, who holds the connections, and the last connect error
    (which is also its cause).

    Attributes:
        endpoint: The endpoint or group that the caller asked for.
        phase: Where the time ran out: in the `"queue"`, during a dial made for this caller
            (`"connect"`), or in a health check (`"check"`).
        waited: How long the caller waited, in seconds.
        stats: The endpoint's numbers at that moment.
        holders: A line for each lease: task name, where it waits now, seconds held.
        deadlock: Whether every holder was itself waiting for the same endpoint.
        last_connect_error: The error of the endpoint's last dial, if that dial failed.
    """

    endpoint: Target
    phase: AcquirePhase
    waited: float
    stats: EndpointStats
    holders: tuple[str, ...]
    deadlock: bool
    last_connect_error: ConnectError | None

    def __init__(
        self,
        *,
        endpoint: Target,
        phase: AcquirePhase,
        waited: float,
        stats: EndpointStats,
        holders: Sequence[str],
        deadlock: bool,
        last_connect_error: ConnectError | None,
        pool_name: str,
        held_by_caller: int = 0,
    ) -> None:
        self.endpoint = endpoint
        self.phase = phase
        self.waited = waited
        self.stats = stats
        self.holders = tuple(holders)
        self.deadlock = deadlock
        self.last_connect_error = last_connect_error
        when = f"within {duration(waited)}" if waited > 0 else "at once"
        head = f"no connection to {endpoint} {when}, phase {phase}; {_counts(stats, pool_name)}"
        super().__init__("\n".join([head, *self._explanation(held_by_caller)]))

    def _explanation(self, held_by_caller: int) -> Iterator[str]:
        if self.last_connect_error is not None:
            yield f"last connect error: {self.last_connect_error}"
        if self.holders:
            yield "held by:"
            yield from (f"  {holder}" for holder in self.holders[:_HOLDERS_SHOWN])
        if len(self.holders) > _HOLDERS_SHOWN:
            yield f"  and {len(self.holders) - _HOLDERS_SHOWN} more (see .holders)"
        if held_by_caller:
            yield f"the caller itself holds {held_by_caller} of them"
        if self.deadlock:
            yield (
                "deadlock: the tasks that wait for a connection hold all connections themselves;"
                " acquire once and pass the connection on, or raise the limit above the number of"
                " such tasks"
            )
        elif self.phase == "queue":
            yield (
                "remedies: hold connections for less time; raise max_connections_per_endpoint or"
                " max_connections; turn callers away early with max_waiting_per_endpoint or"
                " queue_target_delay"
            )


class QueueFull(DetailedError):
    """`max_waiting_per_endpoint` tasks wait already, or the queue sheds load.

    Attributes:
        endpoint: The endpoint or group that the caller asked for.
        stats: The endpoint's numbers at that moment.
    """

    endpoint: Target
    stats: EndpointStats

    def __init__(
        self, *, endpoint: Target, stats: EndpointStats, pool_name: str, shed: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.stats = stats
        why = "tasks wait too long, so load is shed" if shed else "too many tasks wait already"
        knob = "queue_target_delay" if shed else "max_waiting_per_endpoint"
        super().__init__(
            f"no connection to {endpoint}, phase queue: {why}; {_counts(stats, pool_name)}\n"
            "remedies: try again later; send fewer requests at once; hold connections for less"
            f" time; raise max_connections_per_endpoint or max_connections; raise {knob}"
        )


class CircuitOpen(DetailedError):
    """The endpoint failed so often that the pool does not dial it for a while.

    Attributes:
        endpoint: The endpoint that failed.
        retry_after: Seconds until the pool tries it again.
    """

    endpoint: AnyEndpoint
    retry_after: float

    def __init__(self, *, endpoint: AnyEndpoint, retry_after: float) -> None:
        self.endpoint = endpoint
        self.retry_after = retry_after
        # 0: the circuit is half open, and all the dials that it allows are under way.
        when = f"tries again in {duration(retry_after)}" if retry_after > 0 else "is trying it now"
        super().__init__(
            f"no connection to {endpoint}, phase connect: its circuit is open after repeated"
            f" failures; the pool {when}"
        )


class NoHealthyEndpoint(DetailedError):
    """No server of a group can be used.

    Attributes:
        reasons: For each server of the group, why it cannot be used.
    """

    reasons: Mapping[AnyEndpoint, str]

    def __init__(self, *, reasons: Mapping[AnyEndpoint, str]) -> None:
        self.reasons = dict(reasons)
        lines = (f"  {endpoint}: {reason}" for endpoint, reason in reasons.items())
        count = len(self.reasons)
        super().__init__("\n".join([f"none of {count} servers can be used:", *lines]))


def _counts(stats: EndpointStats, pool_name: str) -> str:
    return f"{counts_text(stats)}, limit {stats.limit}; pool {pool_name}"
