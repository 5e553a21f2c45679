"""What can happen next in a small world: the alphabet of the model checker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, final

from conpool._core import pool_limit as limits
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import EndpointGroup, Policy
from conpool._values.states import ConnectionState
from tests.support.shell import HERE, THERE, Caller, Entry, Shell, SubPool, Waiter

from .state import EVERYTHING, Name, OneSecond, name_entry, name_of, share

Event: TypeAlias = tuple[str, int]
"""What happens, and to which: a place in one of the shell's lists, or the number of an endpoint."""

ENDPOINTS: Final = (HERE, THERE)

ALWAYS: Final = frozenset({"released", "dialled"})
"""What happens in every world."""

_POLICIES: Final = ("round_robin", "least_loaded", "first_available")
_GROUPS: Final = [EndpointGroup(ENDPOINTS, policy=policy) for policy in _POLICIES]

_CAPACITIES: Final = {"goes away": 0, "takes one": 1, "takes two": 2}
"""How many leases a connection takes from now on, as its peer says. It goes away for ever."""

COOPERATIVE: Final = frozenset(
    {
        "begun",
        "check succeeded",
        "closed",
        "dial ended",
        "dialled",
        "released",
        "reset succeeded",
        "resumed",
        "a second passes",
        "swept",
        "ticked",
        "unmarked",
    }
)
"""What will happen by itself, sooner or later, where nobody asks for more and nothing fails."""


@final
@dataclass(frozen=True, kw_only=True)
class World:
    """Limits, times, and which kinds of events there are."""

    name: str
    settings: Mapping[str, Any]
    """Fields of the configuration."""
    endpoints: int = 1
    policy: Policy | None = None
    """If there is one, the endpoints are a group, too, that may be asked for."""
    waiters: int = 3
    """How many may wait, or not have run since a hand-over, at the same time."""
    is_courteous: bool = False
    """Whether graceful closes take their time."""
    is_lazy: bool = False
    """Whether tasks may run late after a hand-over."""
    is_checked: bool = False
    """Whether connections are checked before they are lent, if they have been silent."""
    is_slow: bool = False
    """Whether dials that are given up take their time to end."""
    has_resets: bool = False
    """Whether connections are reset after each lease."""
    shares: bool = False
    """Whether leases share connections: two each, at first."""
    happens: frozenset[str] = field(default_factory=frozenset)
    """Which events there are, beside those of every world; `_DEEDS` lists them."""
    at_least: int = 100
    """How many states must be found, lest the world is smaller than it was meant to be."""

    def begin(self) -> Shell:
        """Return the shell of the first state."""
        settings = dict(self.settings)
        shell = Shell(
            random=OneSecond(),
            is_courteous=self.is_courteous,
            is_lazy=self.is_lazy,
            is_checked=self.is_checked,
            is_slow_to_give_up=self.is_slow,
            has_resets=self.has_resets,
            shares=self.shares,
            **settings,
        )
        share(shell.core._config)
        share(shell.core._config.circuit_breaker)
        for endpoint in ENDPOINTS[: self.endpoints]:
            shell.sub(endpoint)
        return shell

    def name_of(self, shell: Shell) -> Name:
        """Return the name of the shell's state."""
        is_symmetric = self.endpoints > 1 and self.policy is None
        return name_of(shell, is_symmetric=is_symmetric, matters=self.find_what_matters())

    def find_what_matters(self) -> frozenset[str]:
        """Return which part of `EVERYTHING` can make a difference here."""
        is_kept_warm = bool(self.settings.get("min_idle_per_endpoint"))
        has_time = "a second passes" in self.happens
        found = {
            "uses": "ask fresh" in self.happens,
            "age": has_time and ("swept" in self.happens or is_kept_warm),
            "warmth": is_kept_warm or "warming" in self.happens,
            "silence": has_time and (self.is_checked or "reserved" in self.happens),
            "failures": bool(self.happens & {"dial failed", "failed here", "lost early"}),
        }
        assert found.keys() == EVERYTHING
        return frozenset(what for what, is_there in found.items() if is_there)

    def is_anyone_waiting(self, shell: Shell) -> bool:
        """Whether somebody waits who must not wait for ever.

        Warming waits for as long as other endpoints need the slots, and starts again when what it
        has opened gets too old or is lost; where nothing of that happens, it must end too.
        """
        must_end = self.endpoints == 1 and not self.happens & {"a second passes", "reserved"}
        return any(sub.queue or (sub.warmers and must_end) for sub in shell.core.subs.values())

    def find_events(self, shell: Shell) -> list[Event]:
        """All that can happen next; of events that cannot be told apart, only one."""
        seen: set[Any] = set()
        events = []
        for kind, position, likeness in self._find_events(shell):
            if (kind, likeness) not in seen:
                seen.add((kind, likeness))
                events.append((kind, position))
        return events

    def _find_events(self, shell: Shell) -> Iterator[tuple[str, int, Any]]:
        """Each event with its position, and with what makes it like others of its kind."""
        waiting = sum(caller.entry is None or not caller.has_begun for caller in shell.callers)
        may_ask = shell.core.is_open and waiting < self.waiters
        if may_ask:
            kinds = self._among("ask", "ask fresh", "ask impatiently")
            for kind in kinds if self.policy is not None else ["ask", *kinds]:
                yield from ((kind, number, number) for number in range(self.endpoints))
            if self.policy is not None:
                for kind in self._among("ask the group", "ask the group freshly"):
                    yield kind, _POLICIES.index(self.policy), 0
        if shell.core.is_open:
            yield from self._find_orders(shell)
        yield from self._find_ends_of_leases(shell)
        for position, entry in enumerate(shell.dials):
            for kind in self._among("dialled", "dial failed", "failed here"):
                yield kind, position, _liken(entry, shell)
            if entry.is_given_up:
                yield "dial ended", position, _liken(entry, shell)
        for position, entry in enumerate(shell.closes):
            yield "closed", position, _liken(entry, shell)
        yield from self._find_looks(shell)
        if shell.core.timetable.next_at <= shell.now:
            yield "ticked", 0, 0
        yield from ((kind, 0, 0) for kind in self._among("a second passes"))

    def _among(self, *kinds: str) -> list[str]:
        """Those of `kinds` that happen in this world."""
        return [kind for kind in kinds if kind in self.happens or kind in ALWAYS]

    def _find_ends_of_leases(self, shell: Shell) -> Iterator[tuple[str, int, Any]]:
        for position, caller in enumerate(shell.callers):
            entry = caller.entry
            if entry is None:
                yield "cancelled", position, position
            elif not caller.has_begun:
                for kind in ("begun", "cancelled late"):
                    yield kind, position, _liken(entry, shell)
            elif entry.state is ConnectionState.ACTIVE:
                for kind in self._among("released", "discarded", "interrupted", "retired"):
                    yield kind, position, _liken(entry, shell)
                if entry.link.leases == 1:
                    for kind in self._among("lost early"):
                        yield kind, position, _liken(entry, shell)
            else:
                yield "released", position, _liken(entry, shell)

    def _find_orders(self, shell: Shell) -> Iterator[tuple[str, int, Any]]:
        """What the pool may be told."""
        for number in range(self.endpoints):
            sub = shell.core.subs.get(ENDPOINTS[number])
            if sub is None:
                continue
            yield from ((kind, number, number) for kind in self._find_words(sub))
            is_busy = len(sub.chores) > 1  # or there would be ever more to do
            for kind in self._among("cleared", "cleared and interrupted"):
                if not is_busy:
                    yield kind, number, number
            yield from ((kind, number, number) for kind in self._find_switches(sub))
            if "limit set" in self.happens and not is_busy:
                yield "raised" if sub.limit.total == 1 else "lowered", number, number
            if "warming" in self.happens:
                if sub.warmers:
                    yield "warming cancelled", number, number
                elif sub.limit.total >= 2:
                    yield "warming", number, number
        for kind in ("shut", "swept"):
            if kind in self.happens:
                yield kind, 0, 0

    def _find_switches(self, sub: SubPool) -> Iterator[str]:
        """What an endpoint may be told, and what undoes it."""
        if "paused" in self.happens:
            yield "resumed" if sub.gate.is_told_to_pause else "paused"

    def _find_words(self, sub: SubPool) -> Iterator[str]:
        """What the pool may be told about a server."""
        if "marked" in self.happens and len(sub.chores) < 2:
            yield "unmarked" if sub.gate.is_unhealthy else "marked"
        yield from self._among("failure reported", "success reported")

    def _find_looks(self, shell: Shell) -> Iterator[tuple[str, int, Any]]:
        """What happens to connections of their own accord, or because somebody looks."""
        for position, entry in enumerate(_find_idle(shell)):
            for kind in self._among("peer closed", "reserved"):
                if kind != "peer closed" or not entry.link.dead:
                    yield kind, position, position
        for position, entry in enumerate(shell.checks):
            likeness = _liken(entry, shell)
            yield "check succeeded", position, likeness
            yield "check failed", position, likeness
        for position, entry in enumerate(shell.resets):
            for kind in ("reset succeeded", *self._among("reset failed")):
                yield kind, position, _liken(entry, shell)
        for position, entry in enumerate(_find_open(shell)):
            likeness = _liken(entry, shell)
            yield from ((kind, position, likeness) for kind in self._among("companion ended"))
            for kind in self._among(*_CAPACITIES):
                if entry.link.capacity not in {0, _CAPACITIES[kind]}:
                    yield kind, position, likeness


def _liken(entry: Entry, shell: Shell) -> Any:
    """What is equal of two connections only if it does not matter which of them an event hits."""
    numbers = {waiter: waiter.number for sub in shell.core.subs.values() for waiter in sub.queue}
    return entry.sub.endpoint, name_entry(entry, shell.now, numbers, EVERYTHING)


def happen(shell: Shell, event: Event) -> None:
    """Let `event` happen, and count for whoever is first in line how many pass it."""
    kind, position = event
    pool_limit = shell.core.pool_limit
    lacks_slots = pool_limit.closing + len(pool_limit.draining) < pool_limit.count_wanted()
    first = pool_limit.find_first() if lacks_slots else None
    if first is None or kind == "ticked":  # a tick may make room first, and lend then
        _DEEDS[kind](shell, position)
        return
    claim = first.claim
    assert claim is not None
    younger = [caller for caller in shell.callers if _is_younger(caller, claim)]
    _DEEDS[kind](shell, position)
    if claim.queued and claim.coming is None:
        assert claim.task is not None
        claim.task.passed += sum(caller.entry is not None for caller in younger)
        assert claim.task.passed <= limits.MAX_OVERTAKES, f"{claim!r} was passed too often"


def _is_younger(caller: Caller, claim: Waiter) -> bool:
    return caller.waiter is not None and caller.waiter.number > claim.number


def _find_idle(shell: Shell) -> list[Entry]:
    return [entry for sub in _in_order(shell) for entry in sub.idle if entry not in sub.reserved]


def _find_open(shell: Shell) -> list[Entry]:
    found = [entry for sub in _in_order(shell) for entry in sub.limit.borrowers]
    states = {ConnectionState.ACTIVE, ConnectionState.IDLE}
    return sorted((entry for entry in found if entry.state in states), key=lambda entry: entry.id)


def _in_order(shell: Shell) -> list[SubPool]:
    subs = shell.core.subs
    return [subs[endpoint] for endpoint in ENDPOINTS if endpoint in subs]


# ── deeds ───────────────────────────────────────────────────────────────────────


def _on_endpoint(deed: Callable[[Shell, AnyEndpoint], object]) -> Callable[[Shell, int], None]:
    def do(shell: Shell, number: int) -> None:
        deed(shell, ENDPOINTS[number])

    return do


def _have_capacity(capacity: int) -> Callable[[Shell, int], None]:
    def do(shell: Shell, position: int) -> None:
        shell.set_capacity(_find_open(shell)[position], capacity)

    return do


_DEEDS: Final[dict[str, Callable[[Shell, int], object]]] = {
    "ask": _on_endpoint(lambda shell, endpoint: shell.ask(endpoint)),
    "ask fresh": _on_endpoint(lambda shell, endpoint: shell.ask(endpoint, fresh=True)),
    "ask impatiently": _on_endpoint(lambda shell, endpoint: shell.ask(endpoint, timeout=1.0)),
    "begun": lambda shell, position: shell.begin(shell.callers[position]),
    "cancelled late": lambda shell, position: shell.cancel(shell.callers[position]),
    "cancelled": lambda shell, position: shell.cancel(shell.callers[position]),
    "released": lambda shell, position: shell.release(shell.callers[position]),
    "discarded": lambda shell, position: shell.discard(shell.callers[position]),
    "interrupted": lambda shell, position: shell.interrupt(shell.callers[position]),
    "dialled": lambda shell, position: shell.dial_succeeds(shell.dials[position]),
    "dial failed": lambda shell, position: shell.dial_fails(shell.dials[position]),
    "failed here": lambda shell, position: shell.dial_fails(
        shell.dials[position], is_servers=False
    ),
    "dial ended": lambda shell, position: shell.dial_ends(shell.dials[position]),
    "lost early": lambda shell, position: shell.lose_early(shell.callers[position]),
    "closed": lambda shell, position: shell.close_ends(shell.closes[position]),
    "peer closed": lambda shell, position: shell.peer_closes(_find_idle(shell)[position]),
    "reserved": lambda shell, position: shell.reserve(_find_idle(shell)[position]),
    "check succeeded": lambda shell, position: shell.check_succeeds(shell.checks[position]),
    "check failed": lambda shell, position: shell.check_fails(shell.checks[position]),
    "reset succeeded": lambda shell, position: shell.reset_succeeds(shell.resets[position]),
    "reset failed": lambda shell, position: shell.reset_fails(shell.resets[position]),
    "companion ended": lambda shell, position: shell.companion_ends(_find_open(shell)[position]),
    "retired": lambda shell, position: shell.retire(shell.callers[position]),
    **{kind: _have_capacity(capacity) for kind, capacity in _CAPACITIES.items()},
    "cleared": _on_endpoint(lambda shell, endpoint: shell.clear(endpoint)),
    "cleared and interrupted": _on_endpoint(
        lambda shell, endpoint: shell.clear(endpoint, interrupts=True)
    ),
    "swept": lambda shell, _: shell.sweep(),
    "paused": _on_endpoint(lambda shell, endpoint: shell.pause(endpoint)),
    "resumed": _on_endpoint(lambda shell, endpoint: shell.resume(endpoint)),
    "ask the group": lambda shell, number: shell.ask(_GROUPS[number]),
    "ask the group freshly": lambda shell, number: shell.ask(_GROUPS[number], fresh=True),
    "marked": _on_endpoint(lambda shell, endpoint: shell.mark(endpoint)),
    "unmarked": _on_endpoint(lambda shell, endpoint: shell.mark(endpoint, is_unhealthy=False)),
    "failure reported": _on_endpoint(lambda shell, endpoint: shell.report_failure(endpoint)),
    "success reported": _on_endpoint(lambda shell, endpoint: shell.report_success(endpoint)),
    "raised": _on_endpoint(lambda shell, endpoint: shell.set_limit(2, endpoint)),
    "lowered": _on_endpoint(lambda shell, endpoint: shell.set_limit(1, endpoint)),
    "warming": _on_endpoint(lambda shell, endpoint: shell.warm(2, endpoint)),
    "warming cancelled": _on_endpoint(
        lambda shell, endpoint: shell.cancel_warming(next(iter(shell.sub(endpoint).warmers)))
    ),
    "shut": lambda shell, _: shell.shut(),
    "ticked": lambda shell, _: shell.report(shell.core.ticked),
    "a second passes": lambda shell, _: shell.advance(1.0),
}
