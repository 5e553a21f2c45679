"""Breadth first through all states, so that the first path to a fault is a shortest one."""

from __future__ import annotations

import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import final

from ..support.invariants import show
from .state import digest, freeze, thaw
from .world import COOPERATIVE, Event, World, happen


@final
@dataclass
class Report:
    """What was found in one world, in which every law holds."""

    world: World
    states: int = 0
    steps: int = 0
    depth: int = 0
    seconds: float = 0.0
    passed: int = 0
    """How often the first in line for the pool-wide limit was passed, at most."""

    def __str__(self) -> str:
        return (
            f"{self.world.name}: {self.states} states, {self.steps} steps,"
            f" {self.depth} deep, passed {self.passed} times at most, {self.seconds:.1f} s"
        )


@final
class CounterExample(AssertionError):
    """A law is broken; the message has the shortest path to it."""


@final
@dataclass
class _Graph:
    """Where each state was first reached from, and where it leads by itself."""

    parents: array[int] = field(default_factory=lambda: array("q", [-1]))
    events: list[Event] = field(default_factory=lambda: [("", 0)])
    depths: array[int] = field(default_factory=lambda: array("q", [0]))
    onward: list[tuple[int, ...]] = field(default_factory=list)
    """Of each state, those that cooperation alone leads to."""
    waiting: set[int] = field(default_factory=set)
    """States in which somebody waits."""

    def find_path(self, state: int) -> list[Event]:
        path: list[Event] = []
        while self.parents[state] >= 0:
            path.append(self.events[state])
            state = self.parents[state]
        return path[::-1]


def explore(world: World, limit: int = 5_000_000) -> Report:
    """Visit every state of `world`.

    Raises:
        CounterExample: A law does not hold; or somebody waits who need not ever be served.
        RuntimeError: There are more than `limit` states.
    """
    started = time.monotonic()
    report = Report(world)
    graph = _Graph()
    first = world.begin()
    numbers = {digest(world.name_of(first)): 0}
    frontier = deque([(0, freeze(first))])
    while frontier:
        state, frozen = frontier.popleft()
        onward: list[int] = []
        shell = thaw(frozen)
        for event in world.find_events(shell):
            twin = thaw(frozen)
            try:
                happen(twin, event)
            except Exception as error:
                raise _explain(world, [*graph.find_path(state), event], error) from error
            report.steps += 1
            key = digest(world.name_of(twin))
            number = numbers.get(key)
            if number is None:
                number = numbers[key] = len(numbers)
                graph.parents.append(state)
                graph.events.append(event)
                graph.depths.append(graph.depths[state] + 1)
                report.passed = max(report.passed, *(c.passed for c in twin.callers), 0)
                if world.is_anyone_waiting(twin):
                    graph.waiting.add(number)
                frontier.append((number, freeze(twin)))
            if event[0] in COOPERATIVE and number != state:
                onward.append(number)
        graph.onward.append(tuple(onward))
        if len(numbers) > limit:
            raise RuntimeError(f"{world.name}: more than {limit} states")
    report.states = len(numbers)
    report.depth = max(graph.depths)
    _check_liveness(world, graph)
    report.seconds = time.monotonic() - started
    return report


def _check_liveness(world: World, graph: _Graph) -> None:
    """Everybody is served in the end, in whatever order dials, closes, leases and delays end.

    Two things are checked of the states in which somebody waits: from none of them is there no way on; and
    none is come back to (there is no circle), so that every way on leads out of them.
    """
    left = {state: 0 for state in graph.waiting}
    back: dict[int, list[int]] = {}
    for state in graph.waiting:
        if not graph.onward[state]:
            raise _explain(world, graph.find_path(state), AssertionError("somebody waits for ever"))
        for target in graph.onward[state]:
            if target in left:
                left[state] += 1
                back.setdefault(target, []).append(state)
    done = [state for state, count in left.items() if not count]
    cleared = 0
    while done:
        target = done.pop()
        cleared += 1
        for state in back.get(target, ()):
            left[state] -= 1
            if not left[state]:
                done.append(state)
    if cleared < len(left):
        state = min(state for state, count in left.items() if count)
        circle = _find_circle(state, graph, {s for s, count in left.items() if count})
        error = AssertionError(f"somebody may wait for ever: {circle}")
        raise _explain(world, graph.find_path(state), error)


def _find_circle(state: int, graph: _Graph, stuck: set[int]) -> str:
    """Describe a way on that never ends."""
    path: list[int] = []
    while state not in path:
        path.append(state)
        state = next(target for target in graph.onward[state] if target in stuck)
    return f"a circle of {len(path) - path.index(state)} states, entered at state {state}"


def _explain(world: World, path: list[Event], error: Exception) -> CounterExample:
    """Replay `path`, showing the books after each step."""
    shell = world.begin()
    lines = [f"{world.name}: {type(error).__name__}: {error}", f"after {len(path)} steps:"]
    for number, event in enumerate(path, 1):
        lines.append(f"{number}. {event[0]} ({event[1]})")
        try:
            happen(shell, event)
        except Exception as again:
            lines.append(f"   {type(again).__name__}")
            break
        lines.append("   " + show(shell.core).replace("\n", "\n   "))
    return CounterExample("\n".join(lines))
