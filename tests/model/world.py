"""What can happen next in a small world: the alphabet of the model checker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, final

from conpool import _room
from conpool._books import Entry, SubPool, Waiter
from conpool._endpoint import AnyEndpoint
from conpool._states import ConnectionState

from ..support.shell import HERE, THERE, Caller, Shell
from .state import Name, OneSecond, name_entry, name_of, share

Event: TypeAlias = tuple[str, int]
"""What happens, and to which: a place in one of the shell's lists, or the number of an endpoint."""

ENDPOINTS: Final = (HERE, THERE)

COOPERATIVE: Final = frozenset(
    {"dialled", "closed", "released", "a second passes", "resumed", "put back", "begun", "swept"}
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
    waiters: int = 3
    """How many may wait, or not have run since a hand-over, at the same time."""
    is_courteous: bool = False
    """Whether graceful closes take their time."""
    is_lazy: bool = False
    """Whether tasks may run late after a hand-over."""
    happens: frozenset[str] = field(default_factory=frozenset)
    """Which of the events happen that not every world has; see `_find_events`."""
    at_least: int = 100
    """How many states must be found, lest the world is smaller than it was meant to be."""

    def begin(self) -> Shell:
        """Return the shell of the first state."""
        settings = dict(self.settings)
        shell = Shell(
            random=OneSecond(), is_courteous=self.is_courteous, is_lazy=self.is_lazy, **settings
        )
        share(shell.core._config)
        for endpoint in ENDPOINTS[: self.endpoints]:
            shell.sub(endpoint)
        return shell

    def name_of(self, shell: Shell) -> Name:
        """Return the name of the shell's state."""
        return name_of(
            shell,
            is_symmetric=self.endpoints > 1,
            with_uses="ask fresh" in self.happens,
            with_age="a second passes" in self.happens
            and ("swept" in self.happens or bool(self.settings.get("min_idle_per_endpoint"))),
        )

    def is_anyone_waiting(self, shell: Shell) -> bool:
        """Whether somebody waits who must not wait for ever.

        Warming waits for as long as other endpoints need the slots, and starts again when what it has
        opened gets too old; where there is neither, it must end too.
        """
        must_end = self.endpoints == 1 and "a second passes" not in self.happens
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
        happens = self.happens
        waiting = sum(caller.entry is None or not caller.has_begun for caller in shell.callers)
        if shell.core.is_open:
            if waiting < self.waiters:
                yield from self._each("ask")
                if "ask fresh" in happens:
                    yield from self._each("ask fresh")
                if "ask impatiently" in happens:
                    yield from self._each("ask impatiently")
            yield from self._find_orders(shell)
        for position, caller in enumerate(shell.callers):
            if caller.waiter is not None:
                yield "cancelled", position, position
            elif caller.entry is not None and not caller.has_begun:
                likeness = self._liken(caller.entry, shell)
                yield "begun", position, likeness
                yield "cancelled late", position, likeness
            elif caller.entry is not None:
                likeness = self._liken(caller.entry, shell)
                for kind in ("released", "discarded", "interrupted"):
                    is_possible = caller.entry.state is ConnectionState.ACTIVE
                    if kind == "released" or (kind in happens and is_possible):
                        yield kind, position, likeness
        for position, entry in enumerate(shell.dials):
            yield "dialled", position, self._liken(entry, shell)
            if "dial failed" in happens:
                yield "dial failed", position, self._liken(entry, shell)
        for position, entry in enumerate(shell.closes):
            yield "closed", position, self._liken(entry, shell)
        yield from self._find_looks(shell, waiting)
        if "a second passes" in happens:
            yield "a second passes", 0, 0

    def _find_orders(self, shell: Shell) -> Iterator[tuple[str, int, Any]]:
        """What the pool may be told."""
        for number in range(self.endpoints):
            sub = shell.core.subs.get(ENDPOINTS[number])
            if sub is None:
                continue
            if "cleared" in self.happens:
                yield "cleared", number, number
            if "paused" in self.happens:
                yield "resumed" if sub.paused else "paused", number, number
            if "limit set" in self.happens:
                yield "raised" if sub.capacity.total == 1 else "lowered", number, number
            if "warming" in self.happens:
                if sub.warmers:
                    yield "warming cancelled", number, number
                elif sub.capacity.total >= 2:
                    yield "warming", number, number
        for kind in ("shut", "swept"):
            if kind in self.happens:
                yield kind, 0, 0

    def _find_looks(self, shell: Shell, waiting: int) -> Iterator[tuple[str, int, Any]]:
        """What happens to connections of their own accord, or because somebody looks."""
        for position, entry in enumerate(_find_idle(shell)):
            if "peer closed" in self.happens and not entry.link.dead:
                yield "peer closed", position, position
            if "reserved" in self.happens:
                yield "reserved", position, position
        for position, entry in enumerate(_find_taken(shell)):
            yield "put back", position, self._liken(entry, shell)
            yield "check failed", position, self._liken(entry, shell)
            if waiting < self.waiters and shell.core.is_open:
                yield "asked again", position, self._liken(entry, shell)
            if "peer closed" in self.happens and not entry.link.dead:
                yield "peer closed in a check", position, self._liken(entry, shell)

    def _each(self, kind: str) -> Iterator[tuple[str, int, Any]]:
        for number in range(self.endpoints):
            yield kind, number, number

    def _liken(self, entry: Entry, shell: Shell) -> Any:
        ranks = {
            waiter: waiter.number for sub in shell.core.subs.values() for waiter in sub.queue
        }
        return entry.sub.endpoint, name_entry(entry, shell.now, ranks, True)


def happen(shell: Shell, event: Event) -> None:
    """Let `event` happen, and count for whoever is first in line how many pass it."""
    kind, position = event
    room = shell.core.room
    if room is None or room.closing >= room.wanted or (first := room.find_first()) is None:
        _DEEDS[kind](shell, position)
        return
    claim = first.claim
    assert claim is not None
    younger = [caller for caller in shell.callers if _is_younger(caller, claim)]
    _DEEDS[kind](shell, position)
    if claim.queued and claim.dial is None:
        claim.task.passed += sum(caller.entry is not None for caller in younger)
        assert claim.task.passed <= _room.MAX_OVERTAKES, f"{claim!r} was passed too often"


def _is_younger(caller: Caller, claim: Waiter) -> bool:
    return caller.waiter is not None and caller.waiter.number > claim.number


def _find_idle(shell: Shell) -> list[Entry]:
    return [entry for sub in _in_order(shell) for entry in sub.idle]


def _find_taken(shell: Shell) -> list[Entry]:
    """Active, and nobody's: reserved for a check."""
    held = {caller.entry for caller in shell.callers}
    found = [
        entry
        for sub in _in_order(shell)
        for entry in sub.capacity.borrowers
        if entry.state is ConnectionState.ACTIVE and entry not in held
    ]
    return sorted(found, key=lambda entry: entry.id)


def _in_order(shell: Shell) -> list[SubPool]:
    subs = shell.core.subs
    return [subs[endpoint] for endpoint in ENDPOINTS if endpoint in subs]


# ── deeds ───────────────────────────────────────────────────────────────────────


def _on_endpoint(deed: Callable[[Shell, AnyEndpoint], object]) -> Callable[[Shell, int], None]:
    def do(shell: Shell, number: int) -> None:
        deed(shell, ENDPOINTS[number])

    return do


def _ask_again(shell: Shell, position: int) -> None:
    entry = _find_taken(shell)[position]
    shell.check_fails(entry)
    shell.ask(entry.sub.endpoint, is_first=True)


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
    "closed": lambda shell, position: shell.close_ends(shell.closes[position]),
    "peer closed": lambda shell, position: shell.peer_closes(_find_idle(shell)[position]),
    "peer closed in a check": lambda shell, p: shell.peer_closes(_find_taken(shell)[p]),
    "reserved": lambda shell, position: shell.reserve(_find_idle(shell)[position]),
    "put back": lambda shell, position: shell.put_back_unused(_find_taken(shell)[position]),
    "asked again": _ask_again,
    "check failed": lambda shell, position: shell.check_fails(_find_taken(shell)[position]),
    "cleared": _on_endpoint(lambda shell, endpoint: shell.clear(endpoint)),
    "swept": lambda shell, _: shell.sweep(),
    "paused": _on_endpoint(lambda shell, endpoint: shell.pause(endpoint)),
    "resumed": _on_endpoint(lambda shell, endpoint: shell.resume(endpoint)),
    "raised": _on_endpoint(lambda shell, endpoint: shell.set_limit(2, endpoint)),
    "lowered": _on_endpoint(lambda shell, endpoint: shell.set_limit(1, endpoint)),
    "warming": _on_endpoint(lambda shell, endpoint: shell.warm(2, endpoint)),
    "warming cancelled": _on_endpoint(
        lambda shell, endpoint: shell.cancel_warming(shell.sub(endpoint).warmers[0])
    ),
    "shut": lambda shell, _: shell.shut(),
    "a second passes": lambda shell, _: shell.advance(1.0),
}
