"""Breadth first through all states, so that the first path to a fault is a shortest one."""

from __future__ import annotations

import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, final

from tests.support.invariants import show
from tests.support.shell import Shell

from .state import EVERYTHING, digest, freeze, name_of, thaw
from .world import COOPERATIVE, Event, World, happen


@final
@dataclass
class Report:
    """What was found in one world, in which every law holds."""

    world: World
    states: int = 0
    steps: int = 0
    straight: int = 0
    """How many steps took the straight line, and were compared with the general way."""
    depth: int = 0
    seconds: float = 0.0
    """Of processor time."""
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
    onward: list[dict[int, Event]] = field(default_factory=list)
    """For each state, where cooperation alone leads, and by what."""
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
    started = time.process_time()
    report = Report(world)
    graph = _Graph()
    first = world.begin()
    numbers = {digest(world.name_of(first)): 0}
    frontier = deque([(0, freeze(first))])
    while frontier:
        state, frozen = frontier.popleft()
        onward: dict[int, Event] = {}
        shell = thaw(frozen)
        for event in world.find_events(shell):
            twin = thaw(frozen)
            try:
                happen(twin, event)
            except Exception as error:
                raise _explain(world, [*graph.find_path(state), event], error) from error
            report.steps += 1
            if twin.went_straight:
                report.straight += 1
                other = _go_the_general_way(frozen, event)
                if _all_of(world, twin) != _all_of(world, other):
                    path = [*graph.find_path(state), event]
                    what = "the straight line leads to another state"
                    raise _explain(world, path, AssertionError(what))
                twin.went_straight = 0
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
                onward[number] = event
        graph.onward.append(onward)
        if len(numbers) > limit:
            raise RuntimeError(f"{world.name}: more than {limit} states")
    report.states = len(numbers)
    report.depth = max(graph.depths)
    _check_liveness(world, graph)
    report.seconds = time.process_time() - started
    return report


def _go_the_general_way(frozen: bytes, event: Event) -> Shell:
    shell = thaw(frozen)
    shell.goes_straight = False
    happen(shell, event)
    return shell


def _all_of(world: World, shell: Shell) -> tuple[Any, ...]:
    """What the straight line must leave as the general way does: the state, and the counters."""
    counters = [sub.counters for sub in shell.core.subs.values()]
    counts = [(each.acquired, each.total_reused) for each in counters]
    is_symmetric = world.endpoints > 1 and world.policy is None
    return name_of(shell, is_symmetric=is_symmetric, matters=EVERYTHING), counts


def _check_liveness(world: World, graph: _Graph) -> None:
    """Everybody is served in the end, in whatever order dials, closes, leases and delays end.

    Of the states in which somebody waits, each has a way on, and there is no circle among them: so
    every way leads out of them.
    """
    ways: dict[int, int] = {}
    """For each state in which somebody waits, how many ways lead to another such."""
    back: dict[int, list[int]] = {}
    for state in graph.waiting:
        if not graph.onward[state]:
            raise _explain(world, graph.find_path(state), AssertionError("somebody waits for ever"))
        targets = graph.waiting.intersection(graph.onward[state])
        ways[state] = len(targets)
        for target in targets:
            back.setdefault(target, []).append(state)
    ended = [state for state, count in ways.items() if not count]
    while ended:
        for state in back.get(ended.pop(), ()):
            ways[state] -= 1
            if not ways[state]:
                ended.append(state)
    endless = {state for state, count in ways.items() if count}
    if endless:
        path, circle = _find_circle(graph, endless)
        raise _explain(world, path, AssertionError(f"this may go on for ever: {circle}"))


def _find_circle(graph: _Graph, endless: set[int]) -> tuple[list[Event], list[Event]]:
    """Return the way into a circle, and the way round."""
    state = min(endless)
    visited: list[int] = []
    while state not in visited:
        visited.append(state)
        state = next(target for target in graph.onward[state] if target in endless)
    circle = [*visited[visited.index(state) :], state]
    events = [graph.onward[one][other] for one, other in pairwise(circle)]
    return graph.find_path(state), events


def _explain(world: World, path: list[Event], error: Exception) -> CounterExample:
    """Replay `path`, showing the books after each step."""
    shell = world.begin()
    lines = [f"{world.name}: {type(error).__name__}: {error}", f"after {len(path)} steps:"]
    for number, event in enumerate(path, 1):
        lines.append(f"{number}. {event[0]} ({event[1]})")
        try:
            happen(shell, event)
        except Exception as again:  # noqa: BLE001 - what was found, once more
            lines.append(f"   {type(again).__name__}")
            break
        lines.append("   " + show(shell.core).replace("\n", "\n   "))
    return CounterExample("\n".join(lines))
