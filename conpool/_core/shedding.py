"""When a queue sheds load: the rule for how long is too long.

The length of a queue tells little: a burst makes it long for a moment, and does no harm. A queue
that *stands* is bad: all wait, for longer and longer, although the server serves as fast as it can.
CoDel (K. Nichols, V. Jacobson: Controlling Queue Delay, Communications of the ACM, July 2012) sees
the difference: of all waits that end within an interval, even the shortest is above the target. We
use its rule as B. Maurer adapted it for queues of requests (Fail at Scale, ACM Queue, August 2015):

1. Each time the turn of a waiter comes, note how long it has waited, and keep the least of each
   interval.
2. If the least of an interval was above the target, the queue stands for the next interval.
3. While it stands, turn away those at its head that have waited for more than twice the target. The
   next one has waited for less, and can still make use of its connection.
4. The last one in the queue is served in any case, so no connection is idle for want of a waiter.
5. If the oldest waiter came after the last turn, the queue was empty in between. It does not stand.

All of it takes a few comparisons a turn.
"""

from __future__ import annotations

import math
from typing import Final, final

SHORTEST_INTERVAL: Final = 0.1
"""Seconds. Within it a burst may drain; CoDel's authors found it good for round trips of up to a
second. Where the target is longer, the interval is as long, so that several turns fall into it."""


@final
class Codel:
    """Says of each waiter whose turn comes whether it has waited for too long."""

    __slots__ = ("_ends_at", "_interval", "_least", "_target", "_turned_at", "stands")

    def __init__(self, target: float) -> None:
        self._target = target
        self._interval = max(target, SHORTEST_INTERVAL)
        self._ends_at = -math.inf
        """When the interval ends."""
        self._least = 0.0
        """The shortest wait that has ended in this interval."""
        self._turned_at = -math.inf
        """When the last turn was."""
        self.stands: bool = False
        """Whether the queue stands."""

    def is_too_late(self, since: float, now: float, *, is_last: bool) -> bool:
        """Whether to turn away one that waits since `since`, and whose turn has come.

        Args:
            since: When it asked, in seconds.
            now: The time.
            is_last: Whether nobody waits behind it.
        """
        waited = now - since
        if since > self._turned_at:
            self.stands = False
            self._least = 0.0
            self._ends_at = now + self._interval
        elif now >= self._ends_at:
            self.stands = self._least > self._target
            self._least = waited
            self._ends_at = now + self._interval
        elif waited < self._least:
            self._least = waited
        self._turned_at = now
        return self.stands and not is_last and waited > 2 * self._target

    def __repr__(self) -> str:
        return f"<Codel {'stands' if self.stands else 'flows'}, least {self._least}>"
