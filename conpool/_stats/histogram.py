"""How long things take, in a fixed amount of memory.

A histogram whose bucket bounds grow by a quarter from one to the next: about a hundred reach from
a microsecond to three hours, and a quantile is off by at most a ninth of its value.

`add` stands on the path of every lease, twice. What was measured (CPython 3.11): a binary search
in a tuple of floats is one C call and beats `math.frexp` or `int.bit_length`, which need several
bytecodes around them to reach the same resolution. A wait of exactly 0.0, the commonest of all,
is only counted: the zeros are what `count` says beyond the sum of the buckets.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import Final, final

SHORTEST: Final = 1e-6
"""The upper bound of the first bucket, in seconds: below it a clock's own noise begins."""

LONGEST: Final = 10_000.0
"""The last bucket takes whatever is at least about this long, in seconds."""

_GROWTH: Final = 1.25
_BOUNDS: Final = tuple(
    SHORTEST * _GROWTH**power
    for power in range(math.ceil(math.log(LONGEST / SHORTEST, _GROWTH)) + 1)
)
# Shared by all that are unused, so never changed in place: `_reach` replaces it.
_NO_BUCKETS: Final[list[int]] = []
# The value of a bucket that is off by the same share at both its ends: 2ab / (a + b).
_BELOW_BOUND: Final = 2.0 / (1.0 + _GROWTH)


@final
class Histogram:
    """Counts durations by their order of magnitude, so that quantiles can be told afterwards.

    Its size does not grow with the number of durations: an unused one has no buckets at all,
    and a used one as many as its longest duration needs, 106 at most.

    Example:
        >>> histogram = Histogram()
        >>> for seconds in (0.0, 0.010, 0.011, 2.5):
        ...     histogram.add(seconds)
        >>> histogram.count, histogram.max
        (4, 2.5)
        >>> 0.009 < histogram.quantile(0.5) < 0.012
        True
    """

    __slots__ = ("_buckets", "count", "max", "total")

    def __init__(self) -> None:
        self.count: int = 0
        self.total: float = 0.0
        self.max: float = 0.0
        self._buckets = _NO_BUCKETS

    def add(self, seconds: float) -> None:
        """Count one duration. Zero and below (which a clock never yields) count as zero."""
        self.count += 1
        if seconds > 0.0:
            self.total += seconds
            if seconds > self.max:  # noqa: PLR1730 - calling max() would double the cost
                self.max = seconds
            index = bisect_left(_BOUNDS, seconds)
            try:
                self._buckets[index] += 1
            except IndexError:
                self._reach(index)
                self._buckets[index] += 1

    def absorb(self, other: Histogram) -> None:
        """Add everything that `other` has counted; `other` is left as it was."""
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)
        self._reach(len(other._buckets) - 1)
        for index, count in enumerate(other._buckets):
            self._buckets[index] += count

    def quantile(self, q: float) -> float:
        """The duration in seconds that a share `q` (0…1) of all does not exceed; 0.0 if empty."""
        return self.quantiles(q)[0]

    def quantiles(self, *shares: float) -> tuple[float, ...]:
        """As `quantile` for each of `shares`, walking the buckets once."""
        if self.max == 0.0:
            return (0.0,) * len(shares)
        zeros = self.count - sum(self._buckets)
        reached = tuple(accumulate(self._buckets, initial=zeros))
        return tuple(self._at(reached, max(math.ceil(q * self.count), 1)) for q in shares)

    def __repr__(self) -> str:
        return f"<Histogram of {self.count} durations, {self.total:.6g} s, max {self.max:.6g} s>"

    def _at(self, reached: tuple[int, ...], rank: int) -> float:
        """The duration of the `rank`-th shortest; `reached[i]` are those before bucket i."""
        if rank >= self.count:
            return self.max
        position = bisect_left(reached, rank)
        if position == 0:
            return 0.0
        if position == len(_BOUNDS) + 1:
            return self.max
        return min(_BOUNDS[position - 1] * _BELOW_BOUND, self.max)

    def _reach(self, index: int) -> None:
        missing = index + 1 - len(self._buckets)
        if missing > 0:
            self._buckets = self._buckets + [0] * missing
