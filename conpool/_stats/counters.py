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
        "closed_by_reason",
        "connect_time",
        "errors",
        "total_closed",
        "total_created",
        "total_reused",
        "use_time",
        "wait_time",
    )

    def __init__(self) -> None:
        self.total_created: int = 0
        self.total_reused: int = 0
        self.total_closed: int = 0
        self.errors: int = 0
        self.acquired: int = 0
        self.acquire_timeouts: int = 0
        self.acquire_cancelled: int = 0
        self.closed_by_reason: dict[CloseReason, int] = {}
        self.wait_time: Histogram = Histogram()
        self.connect_time: Histogram = Histogram()
        self.use_time: Histogram = Histogram()

    def count_closed(self, reason: CloseReason) -> None:
        """Count one connection closed for `reason`."""
        self.total_closed += 1
        self.closed_by_reason[reason] = self.closed_by_reason.get(reason, 0) + 1

    def absorb(self, other: Counters) -> None:
        """Add everything that `other` has counted; `other` is left as it was."""
        self.total_created += other.total_created
        self.total_reused += other.total_reused
        self.total_closed += other.total_closed
        self.errors += other.errors
        self.acquired += other.acquired
        self.acquire_timeouts += other.acquire_timeouts
        self.acquire_cancelled += other.acquire_cancelled
        for reason, count in other.closed_by_reason.items():
            self.closed_by_reason[reason] = self.closed_by_reason.get(reason, 0) + count
        self.wait_time.absorb(other.wait_time)
        self.connect_time.absorb(other.connect_time)
        self.use_time.absorb(other.use_time)

    def __repr__(self) -> str:
        return (
            f"<Counters: {self.total_created} created, {self.total_reused} reused, {self.total_closed} closed,"
            f" {self.errors} errors, {self.acquired} acquired>"
        )
