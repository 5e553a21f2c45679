"""What keeps a caller from a connection, in words: which limit or trouble, and what helps.

Remedies follow from the cause: nobody is told to hold connections for less time when nobody holds
any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from conpool._errors.connect import ConnectError
from conpool._stats.report import duration
from conpool._stats.snapshot import EndpointStats
from conpool._values.states import AcquirePhase, CircuitState


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacles:
    """What stood between a caller and a connection when the pool gave up on it."""

    stats: EndpointStats
    """The endpoint's numbers at that moment."""
    last_connect_error: ConnectError | None = None
    """The error of the endpoint's last dial, if that dial failed."""
    failing_for: float | None = None
    """Seconds since the first dial failed, if none has succeeded since."""
    next_dial_in: float = 0.0
    """Seconds until the back-off lets the next dial start."""
    whole_pool: str = ""
    """The counts of the whole pool, if its own limit is what kept the caller waiting."""
    max_connecting: int | None = None
    """How many dials the endpoint may have at once, if that many are under way."""
    holders: tuple[str, ...] = ()
    """A line for each of the leases that have lasted longest."""
    held_by_others: int = 0
    """How many leases there are beyond `holders`."""
    held_by_caller: int = 0
    """How many of all these leases are the caller's own."""
    is_deadlock: bool = False
    """Whether all who hold these connections wait for such connections themselves."""

    @property
    def is_endpoint_full(self) -> bool:
        """Whether the endpoint's own limit is used up."""
        stats = self.stats
        return stats.active + stats.idle + stats.connecting + stats.closing >= stats.limit

    def name_foremost(self) -> str:
        """Say in a few words what is in the way most of all."""
        if self.stats.paused:
            return "the endpoint is paused"
        if self.failing_for is not None:
            return "dials back off after a failure"
        if self.whole_pool:
            return "the pool-wide limit is used up"
        return "all slots are taken" if self.is_endpoint_full else "a dial is under way already"

    def explain(self) -> Iterator[str]:
        """Say what is in the way, a line for each thing."""
        if self.stats.paused:
            yield "the endpoint is paused: the pool lends and dials nothing until resume is called"
        if self.whole_pool:
            yield f"the pool-wide limit is used up: {self.whole_pool}"
        if self.failing_for is not None:
            when = self._describe_next_dial()
            yield f"no dial has succeeded for {duration(self.failing_for)}{when}"
        if self.stats.circuit is not CircuitState.CLOSED:
            yield f"its circuit is {self.stats.circuit.value}: few dials may start, or none"
        if self.last_connect_error is not None:
            yield f"last connect error: {self.last_connect_error}"
        if self.holders:
            yield "held by:"
            yield from (f"  {holder}" for holder in self.holders)
        if self.held_by_others:
            yield f"  and {self.held_by_others} more"
        if self.held_by_caller:
            yield f"the caller itself holds {self.held_by_caller} of them"
        if self.is_deadlock:
            limit = "max_connections" if self.whole_pool else "max_connections_per_endpoint"
            yield (
                "deadlock: the tasks that hold these connections all wait for a connection"
                " themselves; acquire once and pass the connection on, or raise"
                f" {limit} above the number of such tasks"
            )

    def _describe_next_dial(self) -> str:
        if self.stats.connecting:
            return "; an attempt is under way"
        if self.stats.paused or not 0 < self.next_dial_in < math.inf:
            return ""
        return f"; dials back off, the next attempt is due in {duration(self.next_dial_in)}"

    def name_remedies(self, phase: AcquirePhase) -> Iterator[str]:
        """Say what helps a caller that came as far as `phase`."""
        if self.stats.paused:
            yield "call resume for the endpoint"
            return
        if self.failing_for is not None:
            yield "mend what the last connect error names"
        elif phase == "connect":
            yield "allow more time"
            yield "open connections ahead of need with warm or min_idle_per_endpoint"
        elif phase == "check":
            yield "allow more time"
            yield "lower health_check_timeout"
        if phase != "queue" or self.is_deadlock:
            return
        yield from self._name_remedies_for_limits()

    def _name_remedies_for_limits(self) -> Iterator[str]:
        is_held = bool(self.holders) or self.stats.active > 0
        if is_held:
            yield "hold connections for less time"
        if self.whole_pool:
            yield "raise max_connections"
        elif self.is_endpoint_full:
            yield "raise max_connections_per_endpoint"
        elif self.max_connecting is not None and self.failing_for is None:
            yield "raise max_connecting_per_endpoint"
