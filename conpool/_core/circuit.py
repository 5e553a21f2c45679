"""The circuit breaker of one endpoint: it stops the dials to a server that keeps failing.

1. CLOSED: dials go through. `failure_threshold` failures in a row open the circuit.
2. OPEN: no dial starts for `reset_timeout` seconds. What is still under way changes nothing, unless
   it succeeds.
3. HALF_OPEN: from then on, `half_open_max` dials at a time try the server. The first of these
   trials decides: one that fails opens the circuit again, one that succeeds closes it. A trial
   that is given up, or that this machine has failed, decides nothing: its place is free again. So
   a half-open circuit always has a trial under way, or a place for one.

A dial that began before the circuit opened is no trial: how it fails says nothing of the server as
it is now. A protocol may see failures that no dial shows (a server that accepts every connection,
and answers each request with an error). After such a report, a dial that succeeds does not end the
row of failures.

The breaker knows dials only. Leases go on, and an idle connection is lent as always.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Final, TypeAlias, final

from conpool._values.config import SHORTEST, CircuitBreaker
from conpool._values.states import CIRCUIT_TRANSITIONS, CircuitState

_CLOSED: Final = CircuitState.CLOSED
_OPEN: Final = CircuitState.OPEN
_HALF_OPEN: Final = CircuitState.HALF_OPEN

Tell: TypeAlias = Callable[[CircuitState, CircuitState], object]
"""Called with the old state and the new one."""


@final
class Circuit:
    """Counts failures, and says whether a dial may start."""

    __slots__ = (
        "_breaker",
        "_failures",
        "_is_reported",
        "_opened_at",
        "_tell",
        "_tries_at",
        "state",
        "trials",
    )

    def __init__(self, breaker: CircuitBreaker, tell: Tell) -> None:
        self._breaker = breaker
        self._tell = tell
        self._failures = 0
        self._is_reported = False
        """Whether a protocol has reported one of the failures in this row."""
        self._opened_at = -math.inf
        self._tries_at = -math.inf
        self.state: CircuitState = _CLOSED
        self.trials: int = 0
        """How many trials are under way."""

    # ── may a dial start ────────────────────────────────────────────────────────

    def count_places(self, now: float) -> int:
        """Return how many dials may start now."""
        if self.state is _CLOSED:
            return sys.maxsize
        if self.state is _OPEN and now < self._tries_at:
            return 0
        return self._breaker.half_open_max - self.trials

    @property
    def has_more_trials(self) -> bool:
        """Whether it is half open, and has a place for one more trial."""
        return self.state is _HALF_OPEN and self.trials < self._breaker.half_open_max

    @property
    def opens_at(self) -> float:
        """When the next dial may start; infinite if time alone does not change that."""
        if self.state is _OPEN:
            return self._tries_at
        return -math.inf if self.count_places(math.inf) else math.inf

    @property
    def remembered_until(self) -> float:
        """Until when it must be remembered, though nobody asks for the endpoint.

        That is for as long again as it was open: callers that come by now and then would otherwise
        find a new circuit each time, and dial as if nothing had happened.
        """
        return -math.inf if self.state is _CLOSED else self._tries_at + self._breaker.reset_timeout

    def retry_after(self, now: float) -> float:
        """Return in how many seconds it tries the server; 0 if it does already."""
        return max(0.0, self._tries_at - now) if self.state is _OPEN else 0.0

    # ── what happens ────────────────────────────────────────────────────────────

    def attempted(self) -> None:
        """A dial has started; there was a place for it."""
        if self.state is _OPEN:
            self._move(_HALF_OPEN)
        if self.state is _HALF_OPEN:
            self.trials += 1

    def dial_over(self, began_at: float) -> None:
        """A dial that began at `began_at` is over, in whatever way."""
        if self._is_trial(began_at):
            self.trials -= 1

    def failed(self, began_at: float, now: float) -> None:
        """The server has failed a dial, or a connection whose dial was over at `began_at`."""
        if self.state is _CLOSED:
            self._failures += 1
            if self._failures >= self._breaker.failure_threshold:
                self._open(now)
        elif self._is_trial(began_at):
            self._open(now)

    def connected(self) -> None:
        """A dial has succeeded, and nothing makes its connection doubtful."""
        if self.state is _HALF_OPEN or not self._is_reported:
            self.proved()

    def failure_reported(self, now: float) -> None:
        """A protocol says that the server has failed."""
        self.failed(math.inf, now)
        self._is_reported = True

    def proved(self) -> None:
        """The server has served."""
        self._failures = 0
        self._is_reported = False
        if self.state is not _CLOSED:
            self._move(_CLOSED)

    def _is_trial(self, began_at: float) -> bool:
        # Between its opening and its first trial no dial begins.
        return self.state is _HALF_OPEN and began_at > self._opened_at

    def _open(self, now: float) -> None:
        # It stays open for a moment at least: otherwise a trial could begin in the same instant.
        self._opened_at = now
        self._tries_at = now + max(self._breaker.reset_timeout, SHORTEST)
        self._move(_OPEN)

    def _move(self, state: CircuitState) -> None:
        """Go to `state`; a move that is not in the table is a bug."""
        old = self.state
        if (old, state) not in CIRCUIT_TRANSITIONS:
            raise AssertionError(f"a circuit that is {old.value} cannot become {state.value}")
        self.state = state
        self.trials = 0
        self._tell(old, state)

    def __repr__(self) -> str:
        return f"<Circuit {self.state.value}, {self._failures} failures, {self.trials} trials>"
