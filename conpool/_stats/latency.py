"""How long something took: a summary of a histogram, immutable as all snapshots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from conpool._stats.histogram import Histogram, count_within, spread
from conpool._stats.report import duration


@final
@dataclass(frozen=True, slots=True)
class LatencySummary:
    """How long something took: durations in seconds, from a histogram of fixed size.

    `count`, `total` and `max` are exact. A quantile of zero is exact, too, and one between a
    microsecond and 10,000 seconds is off by at most a ninth (11 %). With no durations, all are 0.
    """

    count: int
    """How many durations were counted."""
    total: float
    """Their sum, in seconds."""
    p50: float
    """The median, in seconds."""
    p90: float
    """90 of 100 did not exceed this, in seconds."""
    p99: float
    """99 of 100 did not exceed this, in seconds."""
    max: float
    """The longest, in seconds."""
    _buckets: tuple[int, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(cls, histogram: Histogram) -> LatencySummary:
        """Sum up `histogram` as it is now."""
        histogram = histogram.settled()
        if histogram.count == 0:
            return _NOTHING
        p50, p90, p99 = histogram.quantiles(0.5, 0.9, 0.99)
        buckets = histogram.copy_buckets()
        return cls(histogram.count, histogram.total, p50, p90, p99, histogram.max, buckets)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON; a number that is not finite becomes None."""
        return {name: finite(getattr(self, name)) for name in _LATENCIES}

    def __str__(self) -> str:
        if not self.count:
            return "-"
        return f"p50 {duration(self.p50)}, p99 {duration(self.p99)}, max {duration(self.max)}"

    def __repr__(self) -> str:
        return f"<LatencySummary of {self.count} durations: {self}>"


def spread_of(summary: LatencySummary) -> tuple[int, ...]:
    """Return how many durations there are of each of `histogram.SPREAD`."""
    buckets = summary._buckets  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - ours
    return spread(buckets, summary.count)


def count_within_each(summary: LatencySummary, limits: Sequence[float]) -> list[int]:
    """Return how many durations did not exceed each of `limits`, within a ninth."""
    buckets = summary._buckets  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - ours
    return count_within(buckets, summary.count, limits)


_LATENCIES: Final = ("count", "total", "p50", "p90", "p99", "max")
_NOTHING: Final = LatencySummary(0, 0.0, 0.0, 0.0, 0.0, 0.0)


def finite(number: float) -> float | None:
    """Return `number` for JSON, which knows no infinity."""
    return number if math.isfinite(number) else None
