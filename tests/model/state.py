"""Copies of a shell, and names for its states.

Two shells are in the same state if nothing that can happen from now on can tell them apart. So the
name of a state (`name_of`) leaves out what is only remembered: absolute times (what counts is how
far away they are), numbers of connections and waiters (what counts is their order), counters, and
rows of the timetable that would only have the core look once more.

Whatever is left out because an invariant ties it to something that is in, is checked at every step,
before states are told apart: so no difference that matters can hide behind an equal name.
"""

from __future__ import annotations

import io
import marshal
import math
import pickle
from collections.abc import Callable
from hashlib import blake2b
from itertools import chain
from random import Random
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from conpool._core import chores, records
from conpool._core.core import KEEP_BARE
from conpool._core.keeping import silent_since
from conpool._core.outgoing import why_leaving
from conpool._core.pool_limit import PoolLimit
from conpool._core.queue import NOBODY, Queue
from conpool._core.warming import SHORT_LIFE
from conpool._stats.histogram import Histogram
from conpool._values.config import CircuitBreaker, PoolConfig
from conpool._values.endpoint import Endpoint
from conpool._values.group import EndpointGroup
from conpool._values.states import CircuitState, CloseReason, ConnectionState
from tests.support.shell import Entry, Refused, Shell, SubPool, Waiter, is_newly_dialled

Name: TypeAlias = tuple[Any, ...]
AnyChore: TypeAlias = records.Chore

# ── copies ──────────────────────────────────────────────────────────────────────

_shared: Final[dict[int, object]] = {}
"""What all copies have in common, since nobody changes it."""


def share(thing: object) -> None:
    """Have copies refer to `thing` itself."""
    _shared[id(thing)] = thing


def _get_shared(number: int) -> object:
    return _shared[number]


def _refer(thing: object) -> tuple[Callable[[int], object], tuple[int]]:
    share(thing)
    return _get_shared, (id(thing),)


def _forget_durations(_: Histogram) -> tuple[type[Histogram], tuple[()]]:
    return Histogram, ()


def _refer_to_member(member: Any) -> tuple[Callable[[int], object], tuple[int]]:
    return _refer(member)


def _refer_if_shared(queue: Queue[Any]) -> Any:
    return _refer(queue) if queue is NOBODY else queue.__reduce_ex__(5)


_table: Final[dict[type, Callable[[Any], Any]]] = {
    CircuitBreaker: _refer,
    CircuitState: _refer_to_member,
    CloseReason: _refer_to_member,
    ConnectionState: _refer_to_member,
    Endpoint: _refer,
    EndpointGroup: _refer,
    Histogram: _forget_durations,
    MappingProxyType: _refer,
    PoolConfig: _refer,
    Queue: _refer_if_shared,
    Refused: _refer,
}


def freeze(shell: Shell) -> bytes:
    """Return `shell` as bytes. (Pickle copies the graph in C, ten times as fast as `deepcopy`.)"""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=5)
    pickler.dispatch_table = _table | {type(shell.core._random): _refer}
    pickler.dump(shell)
    return file.getvalue()


def thaw(frozen: bytes) -> Shell:
    """Return a new copy."""
    shell = pickle.loads(frozen)
    assert isinstance(shell, Shell)
    return shell


class OneSecond(Random):
    """Chance that never varies: every back-off takes one second, and no lifetime is shortened."""

    def random(self) -> float:
        return 0.0

    def uniform(self, a: float, b: float) -> float:
        return 1.0


# ── names ───────────────────────────────────────────────────────────────────────

_NEVER: Final = -1

EVERYTHING: Final = frozenset({"uses", "age", "warmth", "silence", "failures"})
"""What matters in some worlds only, so that it is no part of a state in the others.

Whether a connection has been used at all (a limit on uses always matters); when an endpoint was
used last; how soon connections were lost; for how long they have been silent, beside one another;
who had come when a dial began.
"""


def digest(name: Name) -> bytes:
    """A short stand-in for a name; sixteen bytes do not collide by chance."""
    return blake2b(marshal.dumps(name, 2), digest_size=16).digest()


def name_of(shell: Shell, *, is_symmetric: bool, matters: frozenset[str]) -> Name:
    """Return the name of the state that `shell` is in.

    With `is_symmetric`, endpoints that have traded places make no difference. What `matters` here
    is a part of `EVERYTHING`.
    """
    core = shell.core
    queued = [*{waiter: None for sub in core.subs.values() for waiter in sub.queue}]
    queued.sort(key=lambda waiter: waiter.number)
    ranks = {waiter: rank for rank, waiter in enumerate(queued)}
    idle = [e for sub in core.subs.values() for e in (*sub.idle, *chain(*sub.leaving.values()))]
    ages = {e: age for age, e in enumerate(sorted(idle, key=lambda e: e.idle_since))}
    if not core.pool_limit.is_limited:
        ages = {}
    parts = [
        _name_sub(sub, shell, ranks, ages, matters)
        for _, sub in sorted(
            core.subs.items(),
            key=lambda item: item[0].port,  # type: ignore[union-attr]
        )
    ]
    if is_symmetric:
        parts.sort()
    else:
        parts = [(sub.endpoint.port, part) for sub, part in _with(core.subs, parts)]
    orphans = sorted(
        (at - shell.now, item.min_idle)
        for heap in (core.timetable._rows._rows, core.timetable._rows._left)
        for at, _, item in heap
        if isinstance(item, records.SubPool) and core.subs.get(item.endpoint) is not item
    )
    turns = tuple([group.turn for group in core.balancer._turns.values()])
    return (core.state.value, tuple(parts), tuple(orphans), turns)


def _with(subs: dict[Any, SubPool], parts: list[Name]) -> list[tuple[Any, Name]]:
    ordered = [sub for _, sub in sorted(subs.items(), key=lambda item: item[0].port)]
    return list(zip(ordered, parts, strict=True))


def _name_sub(
    sub: SubPool,
    shell: Shell,
    ranks: dict[Waiter, int],
    ages: dict[Entry, int],
    matters: frozenset[str],
) -> Name:
    now = shell.now
    borrowers = sub.limit.borrowers
    names = {entry: name_entry(entry, now, ranks, matters) for entry in borrowers}
    others = sorted(
        names[entry] for entry in borrowers if entry not in sub.idle and not why_leaving(entry)
    )
    return (
        tuple([(names[entry], ages.get(entry, 0)) for entry in sub.idle]),
        tuple([(names[entry], ages.get(entry, 0)) for entry in chain(*sub.leaving.values())]),
        tuple(others),
        tuple([_name_waiter(waiter, now, ranks) for waiter in sub.queue]),
        tuple([warmer.target for warmer in sub.warmers]),
        sub.limit.total,
        (sub.gate.is_told_to_pause, sub.gate.is_unhealthy),
        _name_circuit(sub, now),
        _name_codel(sub, now),
        (sub.is_strict, sub.is_straight),
        sub.resized,
        sub.is_resting,
        sub.looks if chores.PIECE < 9 else 0,  # else too few to matter in a small world
        sub.gate.is_failing,
        max(sub.gate._not_before - now, 0.0),
        sub.gate.is_in_doubt,
        sub.gate.is_trusted,
        _name_outage(sub, now, ranks),
        sub.gate.is_unhealthy,
        tuple([_name_chore(chore, names) for chore in sub.chores]),
        min(sub.silent, 2),
        (min(sub.short_lives, 1), max(sub.warm_not_before - now, -SHORT_LIFE))
        if "warmth" in matters
        else (),
        sub.wanted,
        _NEVER if sub.claim is None else ranks.get(sub.claim, _NEVER),
        _find_place(sub, shell.core.pool_limit),
        sum(
            caller.entry is not None
            and caller.entry.state in {ConnectionState.CLOSING, ConnectionState.CLOSED}
            and caller.entry.sub.endpoint == sub.endpoint
            and not caller.has_begun
            for caller in shell.callers
        ),
        min(now - sub.used_at, max(sub.max_idle_time, KEEP_BARE)) if "age" in matters else 0,
        (tuple([names[entry] for entry in sub.roomy]), min(sub.per_dial, 9)) if sub.shares else (),
    )


def _name_circuit(sub: SubPool, now: float) -> Name:
    """What the breaker has seen; which dials are trials is said of the dials."""
    circuit = sub.gate.circuit
    if circuit is None:
        return ()
    waits = max(circuit._tries_at - now, 0.0) if circuit.state is CircuitState.OPEN else 0.0
    failures = circuit._failures if circuit.state is CircuitState.CLOSED else 0
    return (circuit.state.value, failures, circuit._is_reported, waits)


def _name_codel(sub: SubPool, now: float) -> Name:
    """How the queue has fared in this interval; how long each waits is said of the waiters."""
    codel = sub.queue.codel
    if codel is None:
        return ()
    is_above = codel._least > codel._target
    return (codel.stands, is_above, max(codel._ends_at - now, 0.0), codel._turned_at == now)


def _is_after_opening(entry: Entry) -> bool:
    """Whether its failure would tell a half-open circuit how the server is."""
    circuit = entry.sub.gate.circuit
    if circuit is None or circuit.state is not CircuitState.HALF_OPEN:
        return False
    return entry.created_at > circuit._opened_at


def _name_outage(sub: SubPool, now: float, ranks: dict[Waiter, int]) -> Name:
    """For how long the endpoint has failed, and who is still to be told of it."""
    since = sub.gate.outage_since
    lasts = _NEVER if since is None else min(now - since, sub.config.outage_grace, 9.0)
    told, warmers = _NEVER, 0
    if sub.outage is not None:
        told = sum(waiter.number <= sub.outage.arrivals for waiter in ranks)
        warmers = len(sub.outage.warmers)
    is_grouped = sub.gate.is_failing and any(waiter.group for waiter in ranks)
    news = sum(waiter.number <= sub.bad_news for waiter in ranks) if is_grouped else 0
    return (lasts, told, warmers, news)


def _name_chore(chore: AnyChore, names: dict[Entry, Name]) -> Name:
    """What is to be done, and to which connections that still exist; the last comes first."""
    do: Any = getattr(chore.do, "func", chore.do)
    return (do.__name__, tuple([names.get(item, ()) for item in chore.entries]))


def _find_place(sub: SubPool, pool_limit: PoolLimit) -> int:
    """Return which one `sub` is of those that wait for a slot to be warm."""
    return list(pool_limit.cold).index(sub) if sub in pool_limit.cold else _NEVER


def name_entry(entry: Entry, now: float, ranks: dict[Waiter, int], matters: frozenset[str]) -> Name:
    """What can matter about a connection from now on."""
    state, sub = entry.state, entry.sub
    is_old = entry.generation != sub.generation
    awaited_by = entry.awaited_by
    if awaited_by is None or not awaited_by.queued:
        number = _NEVER
    elif isinstance(awaited_by, records.Waiter):
        number = ranks[awaited_by]
    else:
        number = 100 + [*sub.warmers].index(awaited_by)
    waits = 0
    if "failures" in matters and entry.uses < 2:
        waits = sum(waiter.number <= entry.arrivals for waiter in ranks if sub in waiter.subs)
    if state is ConnectionState.CONNECTING:
        since = sub.gate.outage_since
        is_beside = since is not None and entry.created_at <= since
        is_trial = _is_after_opening(entry)
        return (1, is_old, entry.is_given_up, is_beside, is_trial, number, waits)
    if state is ConnectionState.CLOSING:
        return (4, entry.link.is_handed_over)
    is_kept = state is ConnectionState.IDLE
    is_taken = not is_kept and not entry.leases
    used = min(entry.uses, sub.max_uses) if sub.max_uses != math.inf else 0
    if "uses" in matters and not used:
        used = min(entry.uses, 1)
    return (
        2 if is_kept else 3,
        len(entry.leases),
        entry.link.is_handed_over,
        is_old,
        entry.link.dead,
        used,
        is_taken and not is_newly_dialled(entry) and entry.was_idle,
        (entry in sub.reserved, entry.is_checking, number),
        max(entry.expires_at - now, 0.0),
        _name_silence(entry, now, matters) if is_kept or is_taken else (),
        min(now - entry.created_at, SHORT_LIFE) if "warmth" in matters and not entry.uses else 0.0,
        waits,
        _is_after_opening(entry) if "failures" in matters else False,
        entry.is_resetting,
        _name_sharing(entry) if sub.shares else (),
    )


def _name_sharing(entry: Entry) -> Name:
    """Who holds a connection, how many may, and how many may as far as the core knows."""
    doomed = "" if entry.doomed is None else entry.doomed.value
    return (entry.holders, entry.capacity, entry.link.capacity, doomed)


def _name_silence(entry: Entry, now: float, matters: frozenset[str]) -> Name:
    """How far an idle connection is from its end and from its next check, and beside the others."""
    sub = entry.sub
    idle_for = (
        0.0 if sub.max_idle_time == math.inf else min(now - entry.idle_since, sub.max_idle_time)
    )
    if "silence" not in matters:
        return (idle_for,)
    since = silent_since(entry)
    unchecked_for = 0.0 if sub.check_after == math.inf else min(now - since, sub.check_after)
    return (idle_for, unchecked_for, sum(silent_since(other) < since for other in sub.idle))


def _name_waiter(waiter: Waiter, now: float, ranks: dict[Waiter, int]) -> Name:
    return (
        ranks[waiter],
        waiter.fresh,
        waiter.deadline - now,
        waiter.is_timed,
        waiter.coming is not None,
        waiter.overtaken,
        waiter.task.passed if waiter.task else 0,
        _name_group(waiter),
        _name_patience(waiter, now),
    )


def _name_patience(waiter: Waiter, now: float) -> Name:
    """For how long it has waited, where that may be too long."""
    codel = waiter.subs[0].queue.codel
    if codel is None:
        return ()
    return (waiter.since > codel._turned_at, min(now - waiter.since, 2 * codel._target + 1))


def _name_group(waiter: Waiter) -> Name:
    """In which order a waiter of a group prefers the members, and where it has something."""
    if waiter.group is None:
        return ()
    at = _NEVER if waiter.coming is None else waiter.subs.index(waiter.coming.sub)
    return (*[sub.endpoint.port for sub in waiter.subs], at)  # type: ignore[union-attr]
