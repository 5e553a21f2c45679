"""What has happened so far at one endpoint: counters that only grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Final, final

from conpool._stats.histogram import MOST_RECENT, Histogram
from conpool._values.states import CloseReason


@final
class ReasonCounts(dict[CloseReason, int]):
    """How many connections were closed for each reason; a reason that never occurred reads as 0."""

    __slots__ = ()

    def __missing__(self, reason: CloseReason) -> int:
        return 0

    def absorb(self, other: Mapping[CloseReason, int]) -> None:
        """Add everything that `other` has counted; `other` is left as it was."""
        for reason, count in other.items():
            self[reason] += count


_NO_REASONS: Final[Mapping[CloseReason, int]] = MappingProxyType(ReasonCounts())
"""Where no connection has been closed yet; nobody can count here."""


@final
@dataclass(slots=True, eq=False)
class Counters:
    """The counters of one endpoint, or of all endpoints that the pool has forgotten.

    The core counts here; the acquirer counts the acquires that came to nothing. A snapshot has a
    field of the same name for each counter. Those of an endpoint outlive its sub-pool (`Memory`).
    """

    total_created: int = 0
    """Dials that succeeded."""
    hits: int = 0
    """Leases of an idle connection, lent before, that began without a wait: the commonest."""
    other_leases: int = 0
    other_reused: int = 0
    """The other leases of a connection that had been lent before."""
    total_closed: int = 0
    """Connections whose file was closed."""
    errors: int = 0
    """Dials that failed."""
    acquire_timeouts: int = 0
    """Acquires that ended in `AcquireTimeout`."""
    acquire_cancelled: int = 0
    """Acquires that were cancelled."""
    closed_by_reason: Mapping[CloseReason, int] = field(default_factory=lambda: _NO_REASONS)
    """`total_closed` by reason."""
    other_waits: Histogram = field(default_factory=Histogram)
    """How long acquires took that got a connection, but for the hits; and others, in vain."""
    connect_time: Histogram = field(default_factory=Histogram)
    """How long successful dials took."""
    use_time: Histogram = field(default_factory=Histogram)
    """How long leases lasted."""

    @property
    def acquired(self) -> int:
        """Leases that began."""
        return self.hits + self.other_leases

    @property
    def total_reused(self) -> int:
        """Leases of a connection that had been lent before."""
        return self.hits + self.other_reused

    @property
    def wait_time(self) -> Histogram:
        """How long acquires took that got a connection, and how long others waited in vain."""
        waits = Histogram()
        waits.absorb(self.other_waits)
        waits.add_zeros(self.hits)
        return waits

    def note_wait(self, waited: float) -> None:
        """Note how long an acquire took, in seconds, that is not counted as a hit."""
        recent = self.other_waits.recent
        recent.append(waited)
        if len(recent) >= MOST_RECENT:
            self.other_waits = self.other_waits.settled()

    def note_use(self, seconds: float) -> None:
        """Note how long a lease lasted."""
        recent = self.use_time.recent
        recent.append(seconds)
        if len(recent) >= MOST_RECENT:
            self.use_time = self.use_time.settled()

    def note_dial(self, seconds: float) -> None:
        """Note that a dial has succeeded, and how long it took."""
        self.total_created += 1
        recent = self.connect_time.recent
        recent.append(seconds)
        if len(recent) >= MOST_RECENT:
            self.connect_time = self.connect_time.settled()

    def count_closed(self, reason: CloseReason) -> None:
        """Count one connection closed for `reason`."""
        self.total_closed += 1
        self._count_reasons({reason: 1})

    def absorb(self, other: Counters) -> None:
        """Add everything that `other` has counted; `other` is left as it was."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _HISTOGRAMS:
            getattr(self, name).absorb(getattr(other, name))
        if other.closed_by_reason:
            self._count_reasons(other.closed_by_reason)

    def _count_reasons(self, more: Mapping[CloseReason, int]) -> None:
        counts = self.closed_by_reason
        if not isinstance(counts, ReasonCounts):
            counts = self.closed_by_reason = ReasonCounts()
        counts.absorb(more)


_NUMBERS: Final = tuple(field.name for field in fields(Counters) if field.type == "int")
_HISTOGRAMS: Final = tuple(field.name for field in fields(Counters) if field.type == "Histogram")

COUNTERS: Final = (
    "total_created",
    "total_reused",
    "total_closed",
    "errors",
    "acquired",
    "acquire_timeouts",
    "acquire_cancelled",
    "closed_by_reason",
    "wait_time",
    "connect_time",
    "use_time",
)
"""The names of the counters that a snapshot has."""
