"""How long things take, in a fixed amount of memory.

Each bucket's bound is a quarter above the one before: about a hundred buckets reach from a
microsecond to 10,000 seconds, and a quantile is off by at most a ninth (11 %) of its value.

Measured on CPython 3.11: a binary search in a tuple of floats is one C call, and faster than
`math.frexp` or `int.bit_length`, which need several bytecodes more for the same resolution. A wait
of exactly 0.0 is the commonest, and has no bucket: the number of zeros is `count` less the sum of
the buckets.

Who counts often appends to `recent` instead, and has `settled` count a few dozen in one go. It
sorts them, and so needs two searches for each bucket and not one for each duration: a fifth of the
cost of `add`.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, repeat
from operator import add
from typing import Final, final

SHORTEST: Final = 1e-6
"""The upper bound of the first bucket, in seconds: shorter durations are noise of the clock."""

LONGEST: Final = 10_000.0
"""The last bucket takes every duration above about this, in seconds, and no quantile is longer.

`max` and the quantile 1.0 are exact however long they are.
"""

_GROWTH: Final = 1.25
_BOUNDS: Final = tuple(
    SHORTEST * _GROWTH**power
    for power in range(math.ceil(math.log(LONGEST / SHORTEST, _GROWTH)) + 1)
)
_LIMITS: Final = (*_BOUNDS, math.inf)
"""As `_BOUNDS`, with one for the last bucket."""
# All unused histograms share this list. Nobody changes it: `_reach` puts a new list in its place.
_NO_BUCKETS: Final[list[int]] = []

MOST_RECENT: Final = 40
"""How many durations should be kept as they are until they are counted."""

_FEW: Final = 8
"""Durations that are counted sooner one by one than in one go."""

QUANTILE_ERROR: Final = (_GROWTH - 1.0) / (_GROWTH + 1.0)
"""How far a quantile may be off, as a share of the true value: a ninth.

A bucket from a to b answers 2ab / (a + b), which is off by the same share at both its ends.
"""


_USUAL: Final = tuple(bound * (1.0 - QUANTILE_ERROR) for bound in _BOUNDS)
"""What stands for each bucket's durations."""

SPREAD: Final = (0.0, *_USUAL, _BOUNDS[-1])
"""What stands for the durations that `spread` counts in each place, in seconds."""


def spread(buckets: Sequence[int], count: int) -> tuple[int, ...]:
    """Return how many durations there are of each of `SPREAD`, as far as any has been counted."""
    return (max(count - sum(buckets), 0), *buckets)


def count_within(buckets: Sequence[int], count: int, limits: Sequence[float]) -> list[int]:
    """Return how many of `count` durations did not exceed each of `limits`, in seconds.

    A duration may be off by as much as a quantile. `buckets` come from `Histogram.copy_buckets`.
    """
    reached = tuple(accumulate(spread(buckets, count)))
    return [reached[min(bisect_right(_USUAL, limit), len(buckets))] for limit in limits]


@final
class Histogram:
    """Counts durations in buckets, and estimates quantiles from the counts.

    Its size does not grow with the number of durations: it has as many buckets as its longest
    duration needs, none at first and 106 at most.

    Example:
        >>> histogram = Histogram()
        >>> for seconds in (0.0, 0.010, 0.011, 2.5):
        ...     histogram.add(seconds)
        >>> histogram.count, histogram.max
        (4, 2.5)
        >>> 0.009 < histogram.quantile(0.5) < 0.012
        True
    """

    __slots__ = ("_buckets", "_count", "_max", "_total", "recent")

    def __init__(self) -> None:
        self._count: int = 0
        self._total: float = 0.0
        self._max: float = 0.0
        self._buckets = _NO_BUCKETS
        self.recent: list[float] = []
        """Durations that belong to it, and have not been counted."""

    @property
    def count(self) -> int:
        """How many durations there are."""
        return self._count + len(self.recent)

    @property
    def total(self) -> float:
        """Their sum, in seconds."""
        return sum(self.recent, self._total)

    @property
    def max(self) -> float:
        """The longest, in seconds; 0.0 if there is none."""
        return max((self._max, *self.recent))

    def add(self, seconds: float) -> None:
        """Count one duration; a negative one, which a clock never yields, counts as zero."""
        self._count += 1
        if seconds > 0.0:
            self._total += seconds
            if seconds > self._max:  # noqa: PLR1730 - calling max() would double the cost
                self._max = seconds
            index = bisect_left(_BOUNDS, seconds)
            try:
                self._buckets[index] += 1
            except IndexError:
                self._reach(index)
                self._buckets[index] += 1

    def add_all(self, durations: Sequence[float]) -> None:
        """Count durations, none of them negative. If they are many, bucket by bucket."""
        if len(durations) < _FEW:
            for seconds in durations:
                self.add(seconds)
            return
        ordered = sorted(durations)
        self._count += len(ordered)
        self._total = sum(ordered, self._total)
        longest = ordered[-1]
        self._max = max(self._max, longest)
        begin = bisect_right(ordered, 0.0)  # zeros have no bucket
        if begin < len(ordered):
            self._reach(bisect_left(_BOUNDS, longest))
        while begin < len(ordered):
            index = bisect_left(_BOUNDS, ordered[begin])
            end = bisect_right(ordered, _LIMITS[index], begin)
            self._buckets[index] += end - begin
            begin = end

    def add_zeros(self, count: int) -> None:
        """Count so many durations of 0.0."""
        self._count += count

    def absorb(self, other: Histogram) -> None:
        """Add all durations of `other`; `other` is left as it was."""
        if other._count:
            self._count += other._count
            self._total += other._total
            self._max = max(self._max, other._max)
            if len(other._buckets) > len(self._buckets):
                self._reach(len(other._buckets) - 1)
            self._buckets[:] = map(add, self._buckets, chain(other._buckets, repeat(0)))
        if other.recent:
            self.add_all(other.recent.copy())

    def settled(self) -> Histogram:
        """Return one that has counted `recent`, too; this one is left as it was.

        To count them for good, put it in the place of this one. That is a single step, so a thread
        that reads meanwhile sees none of them missing, and none twice.
        """
        if not self.recent:
            return self
        new = Histogram()
        new.absorb(self)
        return new

    def copy_buckets(self) -> tuple[int, ...]:
        """Return how many durations each bucket has; zeros are in none."""
        return self.settled().copy_buckets() if self.recent else tuple(self._buckets)

    def quantile(self, q: float) -> float:
        """Return the seconds that a share `q` (0…1) of durations do not exceed; 0.0 if empty."""
        return self.quantiles(q)[0]

    def quantiles(self, *shares: float) -> tuple[float, ...]:
        """Return the quantile for each of `shares`; this walks the buckets once."""
        if self.recent:
            return self.settled().quantiles(*shares)
        if self._max == 0.0:
            return (0.0,) * len(shares)
        zeros = self._count - sum(self._buckets)
        reached = tuple(accumulate(self._buckets, initial=zeros))
        return tuple(self._at(reached, max(math.ceil(q * self._count), 1)) for q in shares)

    def __repr__(self) -> str:
        return f"<Histogram of {self.count} durations, {self.total:.6g} s, max {self.max:.6g} s>"

    def _at(self, reached: tuple[int, ...], rank: int) -> float:
        """Return the `rank`-th shortest duration; `reached[i]` of them are before bucket i."""
        if rank >= self._count:
            return self._max
        position = bisect_left(reached, rank)
        if position == 0:
            return 0.0
        if position == len(_BOUNDS) + 1:
            return _BOUNDS[-1]  # how much longer it was is not known
        return min(_BOUNDS[position - 1] * (1.0 - QUANTILE_ERROR), self._max)

    def _reach(self, index: int) -> None:
        missing = index + 1 - len(self._buckets)
        if missing > 0:
            self._buckets = self._buckets + [0] * missing
