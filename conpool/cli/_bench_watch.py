"""Takes the time of each contender of `conpool bench`."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from conpool.cli._screen import Screen


@dataclass(frozen=True, slots=True)
class Result:
    """What one contender took."""

    case: str
    name: str
    seconds: float
    """For one request or one lease."""


@dataclass(slots=True)
class Stopwatch:
    """Takes the median of some rounds, and collects the results."""

    screen: Screen
    rounds: int
    tasks: int
    results: list[Result]

    async def measure(
        self, case: str, name: str, run: Callable[[], Awaitable[float]], times: int
    ) -> None:
        """Measure `run`, which returns the seconds that it took for `times` operations."""
        with self.screen.show_progress(f"{case}: {name}", self.rounds + 1) as advance:
            await run()
            advance()
            taken: list[float] = []
            for _ in range(self.rounds):
                taken.append(await run() / times)
                advance()
        self.results.append(Result(case, name, statistics.median(taken)))
