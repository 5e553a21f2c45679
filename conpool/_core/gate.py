"""The gate of an endpoint: may it dial now, and when does that change?

Two reasons close it: the caller has paused the endpoint, or a dial has failed and the next one
waits. After a failure each attempt puts off the next one for longer, whatever becomes of it, until
one succeeds: exponentially, with full jitter. A uniform draw from zero to the ceiling spreads the
clients of a restarted server best; jitter on top of a fixed delay keeps them in step.

A server that accepts and hangs up before its first byte fails its clients, too. There a dial that
succeeds proves nothing: the gate stays in doubt until a connection has been of use.
"""

from __future__ import annotations

import math
from random import Random
from typing import Final, final

FIRST: Final = 0.05
"""Ceiling of the first delay, in seconds: a listener that restarts is often back within 50 ms."""

CEILING: Final = 1.5
"""Ceiling of every delay, in seconds: the longest that a recovered server goes unnoticed."""

_ENOUGH_DOUBLINGS: Final = 16
"""More cannot matter below `CEILING`, and the power would overflow a float in the end."""


@final
class Gate:
    """Whether dials to one endpoint may start."""

    __slots__ = (
        "_failures",
        "_not_before",
        "_random",
        "is_in_doubt",
        "is_marked_unhealthy",
        "is_paused",
        "is_trusted",
        "last_error",
        "outage_since",
    )

    def __init__(self, random: Random) -> None:
        self._random = random
        self._failures = 0
        self._not_before = -math.inf
        self.is_paused: bool = False
        self.is_marked_unhealthy = False
        """Whether the caller has marked it: then groups go without it."""
        self.is_in_doubt = False
        """Whether the endpoint's connections die young, so that a dial alone proves nothing."""
        self.is_trusted = False
        """Whether the last dial has succeeded: then dials that nobody waits for may start."""
        self.last_error: Exception | None = None
        """What the last dial failed with; None once one has succeeded."""
        self.outage_since: float | None = None
        """When the first dial failed of those that have failed since one was of use."""

    def is_open(self, now: float) -> bool:
        """Whether a dial may start now."""
        return now >= self._not_before and not self.is_paused

    @property
    def is_failing(self) -> bool:
        """Whether no dial that began since one failed has succeeded: then one at a time is made."""
        return self._failures > 0

    @property
    def opens_at(self) -> float:
        """When it opens by itself; infinite during a pause, which does not end by itself."""
        return math.inf if self.is_paused else self._not_before

    def attempted(self, now: float) -> None:
        """A dial has started."""
        if self._failures:
            self._failures += 1
            self._put_off(now)

    def succeeded(self, began_at: float) -> None:
        """A dial that began at `began_at` has succeeded.

        One that ran beside the first that failed has met the server, or this machine, before the
        trouble: it is no news. Otherwise each such success would have all waiters dialled for.
        """
        is_news = self.outage_since is None or began_at > self.outage_since
        if is_news and not self.is_in_doubt:
            self._recover()

    def proved(self) -> None:
        """A connection has been of use."""
        self.is_in_doubt = False
        self._recover()

    def failed(self, error: Exception, now: float, *, in_doubt: bool = False) -> None:
        """A dial has failed, or, `in_doubt`, its connection has ended before its first byte.

        Dials that ran side by side met the same trouble and count as one failure: a busy client
        must not wait for seconds because a server was away for a moment.
        """
        self.last_error = error
        self.is_in_doubt |= in_doubt
        self.is_trusted = False
        if self.outage_since is None:
            self.outage_since = now
        self._failures = self._failures or 1
        self._put_off(now)

    def paused(self) -> None:
        """Stay closed until `resumed`."""
        self.is_paused = True

    def resumed(self) -> None:
        """The pause is over."""
        self.is_paused = False

    def marked(self, unhealthy: bool) -> None:
        """The caller has found out how the endpoint is."""
        self.is_marked_unhealthy = unhealthy

    @property
    def is_usable(self) -> bool:
        """Whether a group may use the endpoint at all, now or soon."""
        return not self.is_marked_unhealthy

    def draw_delay(self, failures: int) -> float:
        """Return a delay in seconds for the dial after `failures` (one or more) failed in a row."""
        ceiling: float = min(CEILING, FIRST * 2 ** min(failures - 1, _ENOUGH_DOUBLINGS))
        return self._random.uniform(0.0, ceiling)

    def _recover(self) -> None:
        self._failures = 0
        self._not_before = -math.inf
        self.is_trusted = True
        self.last_error = None
        self.outage_since = None

    def _put_off(self, now: float) -> None:
        self._not_before = now + self.draw_delay(self._failures)

    def __repr__(self) -> str:
        paused = "paused, " if self.is_paused else ""
        return f"<Gate {paused}{self._failures} failures, opens at {self.opens_at}>"
