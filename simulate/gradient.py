"""A limit that finds itself: the gradient controller of Envoy's adaptive concurrency filter.

The rule is that of Envoy's documentation, "Adaptive Concurrency", section "Gradient Controller"
(envoyproxy.io, HTTP filters). Netflix's concurrency-limits has the same idea.

1. Now and then lower the limit to a few and take samples: their mean is the ideal time of a call.
2. Otherwise take the samples of a short window: their p90 is the time of a call now.
3. gradient = ideal time with a buffer / time now, kept between 0.5 and 2.
4. limit = gradient x limit + headroom, where the headroom is the square root of gradient x limit.
   Without it the limit could never grow.

If no queue forms at the server, the limit grows; if one does, it falls.
"""

from __future__ import annotations

import math
from typing import Final, final

WINDOW: Final = 1.0
"""Seconds for which samples are collected before the limit changes."""
RECALIBRATE: Final = 30.0
"""Seconds between two measurements of the ideal time."""
SAMPLES: Final = 50
"""Calls for one measurement of the ideal time."""
PROBING: Final = 3
"""The limit meanwhile."""
BUFFER: Final = 0.25
"""How much slower than the ideal a call may be that is no sign of a queue."""
QUANTILE: Final = 0.9


@final
class Gradient:
    """Chooses a limit between a floor and a ceiling, from how long calls take."""

    __slots__ = (
        "_ceiling",
        "_floor",
        "_ideal",
        "_limit",
        "_next_at",
        "_probe_at",
        "_samples",
        "_since",
    )

    def __init__(self, floor: int, ceiling: int) -> None:
        self._floor = floor
        self._ceiling = ceiling
        self._limit = float(floor)
        self._ideal: tuple[float, float] | None = None
        """The mean and the quantile of the measurement; None while it is under way."""
        self._probe_at = math.inf
        self._next_at = math.inf
        self._since = -math.inf
        """Calls that began before do not count: another limit held then."""
        self._samples: list[float] = []

    @property
    def limit(self) -> int:
        """The limit that holds now."""
        if self._ideal is None:
            return max(self._floor, min(PROBING, self._ceiling))
        return int(self._limit)

    def called(self, took: float, now: float) -> None:
        """A call has ended that took so many seconds."""
        if now - took < self._since:
            return
        self._samples.append(took)
        if self._ideal is None:
            if len(self._samples) >= SAMPLES:
                self._ideal = self._summarize()
                self._probe_at = now + RECALIBRATE
                self._next_at = now + WINDOW
                self._since = now
        elif now >= self._probe_at:
            self._ideal = None
            self._since = now
            self._samples.clear()
        elif now >= self._next_at:
            _, slow = self._summarize()
            self._next_at = now + WINDOW
            self._since = now
            # Both are quantiles, so that times which merely differ do not look like a queue.
            gradient = min(2.0, max(0.5, self._ideal[1] * (1 + BUFFER) / slow))
            ideal = gradient * self._limit
            self._limit = min(self._ceiling, max(self._floor, ideal + math.sqrt(ideal)))

    def _summarize(self) -> tuple[float, float]:
        ordered = sorted(self._samples)
        self._samples.clear()
        return sum(ordered) / len(ordered), ordered[int(QUANTILE * len(ordered))]
