"""Errors about the pool itself: it is closed, its connections are all lent, or it may not dial."""

from __future__ import annotations

import math
from collections.abc import Mapping

import trio

from conpool._errors.connect import ConnectError, DetailedError
from conpool._errors.obstacles import Obstacles
from conpool._stats.report import duration
from conpool._stats.snapshot import EndpointStats, counts_text
from conpool._values.config_error import PoolError
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import Target
from conpool._values.states import AcquirePhase


class PoolClosed(PoolError, trio.ClosedResourceError):
    """The pool lends nothing: it is closed, closing, or not open yet."""


class AcquireTimeout(DetailedError, trio.TooSlowError):
    """The pool had no connection for the caller in time.

    It says in which phase the time ran out, what was in the way, who holds the connections, and the
    last connect error (which is also its cause). Where the pool-wide limit is what kept the caller
    waiting, the holders are those of all endpoints.

    Attributes:
        endpoint: The endpoint or group that the caller asked for.
        phase: Where the time ran out: in the `"queue"`, during a dial made for this caller
            (`"connect"`), or in a health check (`"check"`).
        waited: How long the caller waited, in seconds.
        stats: The endpoint's numbers at that moment.
        holders: A line for each lease, the longest first, a dozen at most: task name, where it
            waits now, seconds held.
        deadlock: Whether those who hold the connections all wait for one themselves, of this
            endpoint or of another one, whose holders wait in turn. False where the pool cannot
            tell: where more than a thousand leases would have to be looked at, or a holder waits
            for a child task that waits for a connection.
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
        obstacles: Obstacles,
        *,
        endpoint: Target,
        phase: AcquirePhase,
        waited: float,
        pool_name: str,
    ) -> None:
        self.endpoint = endpoint
        self.phase = phase
        self.waited = waited
        self.stats = obstacles.stats
        self.holders = obstacles.holders
        self.deadlock = obstacles.is_deadlock
        self.last_connect_error = obstacles.last_connect_error
        when = f"within {duration(waited)}" if waited > 0 else "at once"
        remedies = list(obstacles.name_remedies(phase))
        if obstacles.whole_pool or obstacles.is_endpoint_full:
            if phase == "queue" and remedies and not self.stats.paused:
                remedies.append("turn callers away early with max_waiting_per_endpoint")
        elif not (remedies or self.deadlock):
            remedies.append("allow more time: opening a connection takes longer")
        super().__init__(
            _message(
                f"no connection to {endpoint} {when}, phase {phase}", obstacles, remedies, pool_name
            )
        )


class QueueFull(DetailedError):
    """`max_waiting_per_endpoint` tasks wait already, or the queue sheds load.

    With a limit of 0 nobody may wait, and this says what the caller would have had to wait for. If
    that is the back-off after failed dials, the last connect error is its cause.

    Attributes:
        endpoint: The endpoint or group that the caller asked for.
        stats: The endpoint's numbers at that moment.
    """

    endpoint: Target
    stats: EndpointStats

    def __init__(
        self, obstacles: Obstacles, *, endpoint: Target, pool_name: str, shed: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.stats = stats = obstacles.stats
        if shed:
            why, knob = "tasks wait too long, so load is shed", "queue_target_delay"
        elif stats.waiting:
            why, knob = "too many tasks wait already", "max_waiting_per_endpoint"
        else:
            knob = "max_waiting_per_endpoint"
            why = f"{obstacles.name_foremost()}, and {knob} lets nobody wait"
        remedies = ["try again later", *obstacles.name_remedies("queue"), f"raise {knob}"]
        super().__init__(
            _message(
                f"no connection to {endpoint}, phase queue: {why}", obstacles, remedies, pool_name
            )
        )


def _message(head: str, obstacles: Obstacles, remedies: list[str], pool_name: str) -> str:
    stats = obstacles.stats
    counts = f"{counts_text(stats)}, limit {stats.limit}; pool {pool_name}"
    advice = [f"remedies: {'; '.join(remedies)}"] if remedies else []
    return "\n".join([f"{head}; {counts}", *obstacles.explain(), *advice])


class CircuitOpen(DetailedError):
    """The endpoint failed so often that the pool does not dial it for a while.

    Attributes:
        endpoint: The endpoint that failed.
        retry_after: Seconds until the pool tries it again; 0 if it does so now; `math.inf` if it
            never does by itself.
    """

    endpoint: AnyEndpoint
    retry_after: float

    def __init__(self, *, endpoint: AnyEndpoint, retry_after: float) -> None:
        self.endpoint = endpoint
        self.retry_after = retry_after
        # 0: the circuit is half open, and all the dials that it allows are under way.
        when = f"tries again in {duration(retry_after)}" if retry_after > 0 else "is trying it now"
        if retry_after == math.inf:
            when = "does not try again until it is told that the server is well"
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
        what = "the server cannot" if count == 1 else f"none of {count} servers can"
        super().__init__("\n".join([f"{what} be used:", *lines]))
