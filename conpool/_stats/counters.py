"""What has happened so far at one endpoint: counters that only grow."""

from __future__ import annotations

from typing import final

from conpool._stats.histogram import Histogram
from conpool._values.states import CloseReason


@final
class Counters:
    """The counters of one endpoint, or of all endpoints that the pool has dropped.

    The shell counts here as things happen; when an endpoint's sub-pool is dropped, the pool's own
    counters absorbs its counters, so that totals never go back.

    `wait`, `connect` and `use` are how long acquiring, dialling and leases took, in seconds.
    """

    __slots__ = (
        "acquire_cancelled",
        "acquire_timeouts",
        "acquired",
        "by_reason",
        "closed",
        "connect",
        "created",
        "errors",
        "reused",
        "use",
        "wait",
    )

    def __init__(self) -> None:
        self.created: int = 0
        self.reused: int = 0
        self.closed: int = 0
        self.errors: int = 0
        self.acquired: int = 0
        self.acquire_timeouts: int = 0
        self.acquire_cancelled: int = 0
        self.by_reason: dict[CloseReason, int] = {}
        self.wait: Histogram = Histogram()
        self.connect: Histogram = Histogram()
        self.use: Histogram = Histogram()

    def count_closed(self, reason: CloseReason) -> None:
        """Count one connection closed for `reason`."""
        self.closed += 1
        self.by_reason[reason] = self.by_reason.get(reason, 0) + 1

    def absorb(self, other: Counters) -> None:
        """Add everything that `other` has counted; `other` is left as it was."""
        self.created += other.created
        self.reused += other.reused
        self.closed += other.closed
        self.errors += other.errors
        self.acquired += other.acquired
        self.acquire_timeouts += other.acquire_timeouts
        self.acquire_cancelled += other.acquire_cancelled
        for reason, count in other.by_reason.items():
            self.by_reason[reason] = self.by_reason.get(reason, 0) + count
        self.wait.absorb(other.wait)
        self.connect.absorb(other.connect)
        self.use.absorb(other.use)

    def __repr__(self) -> str:
        return (
            f"<Counters: {self.created} created, {self.reused} reused, {self.closed} closed,"
            f" {self.errors} errors, {self.acquired} acquired>"
        )
