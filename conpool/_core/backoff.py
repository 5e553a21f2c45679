"""How long the next dial of an endpoint waits after a failure: exponential, with full jitter.

Full jitter (a uniform draw from zero to the ceiling) spreads the clients of a restarted server best;
adding jitter on top of a fixed delay keeps them in step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

FIRST: Final = 0.05
"""Ceiling of the first delay, in seconds: a listener that restarts is often back within 50 ms."""

CEILING: Final = 2.0
"""Ceiling of every delay, in seconds: the longest that a recovered server goes unnoticed."""

_ENOUGH_DOUBLINGS: Final = 16
"""More cannot matter below `CEILING`, and the power would overflow a float in the end."""


def backoff(failures: int, random: Random) -> float:
    """Return a delay in seconds for the dial after `failures` (one or more) failed in a row."""
    ceiling: float = min(CEILING, FIRST * 2 ** min(failures - 1, _ENOUGH_DOUBLINGS))
    return random.uniform(0.0, ceiling)
