"""The gate of an endpoint: may it dial now, and when does that change?

Three reasons close it: the caller has paused the endpoint, or marked it unhealthy; a dial has
failed, and the next one waits; or the circuit breaker lets none through (`circuit`).

After a failure each attempt puts off the next one for longer, whatever becomes of it, until one
succeeds: exponentially, with full jitter. A uniform draw from zero to the ceiling spreads the
clients of a restarted server best; jitter on top of a fixed delay keeps them in step.

A server that accepts and hangs up before its first byte fails its clients, too. There a dial that
succeeds proves nothing: the gate stays in doubt until a connection has been of use.
"""

from __future__ import annotations

import math
from random import Random
from typing import Final, final

from conpool._core.circuit import Circuit
from conpool._values.states import CircuitState

FIRST: Final = 0.05
"""Ceiling of the first delay, in seconds: a listener that restarts is often back within 50 ms."""

CEILING: Final = 1.5
"""Ceiling of every delay, in seconds: the longest that a recovered server goes unnoticed."""

_ENOUGH_DOUBLINGS: Final = 16
"""More cannot matter below `CEILING`, and the power would overflow a float in the end."""

_LONG_AGO: Final = -math.inf
"""One object for all gates: `-math.inf` would make one for each."""


@final
class Gate:
    """Whether dials to one endpoint may start."""

    __slots__ = (
        "_failures",
        "_not_before",
        "_random",
        "circuit",
        "is_in_doubt",
        "is_paused",
        "is_told_to_pause",
        "is_trusted",
        "is_unhealthy",
        "last_error",
        "outage_since",
    )

    def __init__(self, random: Random) -> None:
        self._random = random
        self._failures = 0
        self._not_before = _LONG_AGO
        self.circuit: Circuit | None = None
        """None: there is no breaker."""
        self.is_paused: bool = False
        """Whether it lends and dials nothing: it was told to pause, or marked unhealthy."""
        self.is_told_to_pause: bool = False
        self.is_unhealthy: bool = False
        """Whether the caller has marked the endpoint unhealthy: then nobody waits for it."""
        self.is_in_doubt: bool = False
        """Whether the endpoint's connections die young, so that a dial alone proves nothing."""
        self.is_trusted: bool = False
        """Whether the last dial has succeeded: then dials that nobody waits for may start."""
        self.last_error: Exception | None = None
        """What the last dial failed with; None once one has succeeded."""
        self.outage_since: float | None = None
        """When the first dial failed of those that have failed since one was of use."""

    def is_open(self, now: float) -> bool:
        """Whether a dial may start now."""
        is_let_through = self.circuit is None or self.circuit.count_places(now) > 0
        return is_let_through and now >= self._not_before and not self.is_paused

    def is_cut_off(self, now: float) -> bool:
        """Whether its circuit lets no dial through now: then nobody waits for one."""
        return self.circuit is not None and not (self.circuit.count_places(now) or self.is_paused)

    @property
    def is_wary(self) -> bool:
        """Whether each dial may close it, so that dials start one by one."""
        return self._failures > 0 or self.circuit_state is not CircuitState.CLOSED

    @property
    def circuit_state(self) -> CircuitState:
        """The state of its circuit; closed if there is no breaker."""
        return CircuitState.CLOSED if self.circuit is None else self.circuit.state

    @property
    def is_failing(self) -> bool:
        """Whether no dial that began since one failed has succeeded: then one at a time is made."""
        return self._failures > 0

    @property
    def opens_at(self) -> float:
        """When it opens by itself; infinite during a pause, which does not end by itself."""
        if self.is_paused:
            return math.inf
        if self.circuit is None:
            return self._not_before
        return max(self._not_before, self.circuit.opens_at)

    @property
    def remembered_until(self) -> float:
        """Until when its trouble must be remembered, though nobody asks for the endpoint."""
        circuit = self.circuit
        return max(self.opens_at, -math.inf if circuit is None else circuit.remembered_until)

    def attempted(self, now: float) -> None:
        """A dial has started."""
        circuit = self.circuit
        if circuit is not None:
            circuit.attempted()
        if self._failures:
            self._failures += 1
            if circuit is None or self.is_in_doubt or not circuit.has_more_trials:
                self._put_off(now)

    def dial_over(self, began_at: float) -> None:
        """A dial that began at `began_at` is over, in whatever way."""
        if self.circuit is not None:
            self.circuit.dial_over(began_at)

    def succeeded(self, began_at: float) -> None:
        """A dial that began at `began_at` has succeeded.

        One that ran beside the first that failed has met the server, or this machine, before the
        trouble: it is no news. Otherwise each such success would have all waiters dialled for.
        """
        self.dial_over(began_at)
        is_news = self.outage_since is None or began_at > self.outage_since
        if is_news and not self.is_in_doubt:
            self._recover()

    def proved(self) -> None:
        """A connection has been of use."""
        self.is_in_doubt = False
        self._recover()

    def failed(
        self,
        error: Exception,
        now: float,
        *,
        began_at: float = math.inf,
        in_doubt: bool = False,
        is_servers: bool = True,
    ) -> None:
        """A dial has failed, or, `in_doubt`, its connection has ended before its first byte.

        Dials that ran side by side met the same trouble and count as one failure: a busy client
        must not wait for seconds because a server was away for a moment. (The breaker counts each:
        its threshold is the user's.)

        Args:
            error: Why.
            now: The time.
            began_at: When the dial began, or that connection was open.
            in_doubt: Whether the dial itself had succeeded.
            is_servers: Whether the error says something about the server, so that the breaker
                counts it.
        """
        self.last_error = error
        self.is_in_doubt |= in_doubt
        self.is_trusted = False
        if self.outage_since is None:
            self.outage_since = now
        self._failures = self._failures or 1
        self._put_off(now)
        if self.circuit is not None and is_servers:
            self.circuit.failed(began_at, now)

    def paused(self) -> None:
        """Stay closed until `resumed`."""
        self.is_told_to_pause = self.is_paused = True

    def resumed(self) -> None:
        """The pause is over."""
        self.is_told_to_pause = False
        self.is_paused = self.is_unhealthy

    def marked(self, *, is_unhealthy: bool) -> None:
        """The caller says how the endpoint is; while it is unhealthy, the gate stays closed."""
        self.is_unhealthy = is_unhealthy
        self.is_paused = is_unhealthy or self.is_told_to_pause

    def forget(self) -> None:
        """Nobody asks for the endpoint any more: its circuit is closed, as a new one would be."""
        if self.circuit is not None:
            self.circuit.proved()

    def is_usable(self, now: float) -> bool:
        """Whether a group may use the endpoint: nobody has marked it, nor is its circuit open."""
        return not (self.is_unhealthy or self.is_cut_off(now))

    def draw_delay(self, failures: int) -> float:
        """Return a delay in seconds for the dial after `failures` (one or more) failed in a row."""
        ceiling: float = min(CEILING, FIRST * 2 ** min(failures - 1, _ENOUGH_DOUBLINGS))
        return self._random.uniform(0.0, ceiling)

    def _recover(self) -> None:
        self._failures = 0
        self._not_before = _LONG_AGO
        self.is_trusted = True
        self.last_error = None
        self.outage_since = None
        if self.circuit is not None:
            self.circuit.connected()

    def _put_off(self, now: float) -> None:
        self._not_before = now + self.draw_delay(self._failures)

    def __repr__(self) -> str:
        paused = "paused, " if self.is_paused else ""
        circuit = "" if self.circuit is None else f", {self.circuit!r}"
        return f"<Gate {paused}{self._failures} failures, opens at {self.opens_at}{circuit}>"
