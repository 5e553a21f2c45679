"""All that must hold of the core's books whenever control is back with its caller, in one place.

`check` is the only judge: unit tests, the model checker, the state machine and the tests of the
shell call it after every step. Nothing here relies on the core's own conclusions: whatever can
be counted from the connections themselves, or from the queues, is counted again.

The guarantees are DESIGN's: G1 (bound), G2 (exclusive), G10 (nothing left of those who went), G12
(no lost wake-up), G13 (order), G30 (books that balance).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from conpool._core import pool_limit
from conpool._core.core import Core
from conpool._core.outgoing import is_outgoing, why_leaving
from conpool._core.pool_limit import PoolLimit
from conpool._core.records import AnyEntry, AnySubPool, AnyWaiter, Waiter, Warmer
from conpool._core.timetable import Timetable
from conpool._values.states import CircuitState, CloseReason, ConnectionState

IDLE = ConnectionState.IDLE
ACTIVE = ConnectionState.ACTIVE
CONNECTING = ConnectionState.CONNECTING
CLOSING = ConnectionState.CLOSING
CLOSED = ConnectionState.CLOSED


def check(core: Core[Any, Any], now: float | None = None) -> None:
    """Raise AssertionError, with all that is wrong, unless the books of `core` are in order.

    To be called at rest: after a report, when the effects have been performed. With `now`, what
    depends on the time is checked too: that nobody waits behind an open gate, and that whoever
    waits for a moment will be woken then.
    """
    wrong = list(_find_faults(core, now))
    if wrong:
        raise AssertionError("the books are wrong:\n  " + "\n  ".join(wrong) + f"\n{show(core)}")


def show(core: Core[Any, Any]) -> str:
    """The books, for people: a line for each sub-pool, connection and waiter."""
    lines = [repr(core)]
    for sub in core.subs.values():
        lines.append(f"  {sub!r}{' paused' if sub.gate.is_paused else ''}")
        entries = sorted(sub.limit.borrowers, key=lambda entry: entry.id)
        lines += [f"    {entry!r}{_mark(entry)} for {entry.awaited_by!r}" for entry in entries]
        lines += [f"    {waiter!r} coming {waiter.coming!r}" for waiter in sub.queue]
    return "\n".join(lines)


def _mark(entry: AnyEntry) -> str:
    marks = {
        "reserved": entry in entry.sub.reserved,
        "leaving": why_leaving(entry) is not None,
        "checked": entry.is_checking,
        "void": entry.state is CONNECTING and entry.is_void,
    }
    return "".join(f" {mark}" for mark, is_set in marks.items() if is_set)


def _find_faults(core: Core[Any, Any], now: float | None) -> Iterator[str]:
    if core.effects:
        yield f"effects are pending: {list(core.effects)}"
    for sub in core.subs.values():
        for fault in _find_faults_of(sub, core):
            yield f"{sub.endpoint}: {fault}"
    for entry in core.pool_limit.draining:
        if entry.state is not ACTIVE or entry.doomed is not CloseReason.EVICTED:
            yield f"{entry!r} is to make way, and does not"
    if core.pool_limit.is_limited:
        yield from _check_pool_limit(core.pool_limit, core)
    yield from _check_timetable(core.timetable, core)
    if now is not None and core.is_open and core.timetable.next_at > now:
        yield from _check_group_waiters(core, now)
        for sub in core.subs.values():
            for fault in _check_no_lost_wakeup(sub, core.pool_limit, now):
                yield f"{sub.endpoint}: {fault}"
            for fault in _check_circuit(sub, now):
                yield f"{sub.endpoint}: {fault}"
            if any(
                _lacks_warmth(sub, warmer.target, core.pool_limit, now) for warmer in sub.warmers
            ):
                yield f"{sub.endpoint}: somebody warms, and a slot is free (G12)"


def _find_faults_of(sub: AnySubPool, core: Core[Any, Any]) -> Iterator[str]:
    yield from _check_connections(sub, core.is_open)
    yield from _check_outgoing(sub)
    yield from _check_straightness(sub)
    yield from _check_queue(sub)
    yield from _check_warmers(sub)
    yield from _check_dials(sub)
    yield from _check_gate(sub)
    yield from _check_tally(sub)
    if core.is_open and sub.queue.bars_groups != sub.gate.is_unhealthy:
        yield "it is marked or not, and its queue does not know"
    is_over = not core.is_open and not core.ending.is_under_way
    if is_over and (sub.queue or sub.idle or sub.leaving or sub.warmers):
        yield "the pool has closed, and this is idle or waits"


# ── connections ─────────────────────────────────────────────────────────────────


def _check_connections(sub: AnySubPool, is_open: bool) -> Iterator[str]:
    """G1, G2, G30."""
    borrowers = set(sub.limit.borrowers)
    found = Counter(entry.state for entry in borrowers)
    booked = {
        IDLE: len(sub.idle) + sub.count_leaving(),
        ACTIVE: sub.active,
        CONNECTING: sub.connecting,
        CLOSING: sub.closing,
    }
    for state, count in booked.items():
        if found[state] != count:
            yield f"{found[state]} connections are {state.value}, the books say {count}"
    if len(borrowers) != sum(booked.values()):
        yield f"{len(borrowers)} slots are charged for {sum(booked.values())} connections"
    if not sub.idle.keys() <= borrowers:
        yield "an idle connection has no slot"
    surplus = sub.count_surplus()
    if surplus > 0 and not sub.is_strict:
        yield f"{len(borrowers)} connections, with a limit of {sub.limit.total} (G1)"
    if is_open and set(sub.idle) - set(sub.reserved) and surplus > 0 and not sub.chores:
        yield "idle connections are kept beyond the limit"
    if not sub.reserved.keys() <= sub.idle.keys() or any(map(why_leaving, sub.idle)):
        yield f"{sub.reserved} are reserved, {sub.leaving} leave"
    void = sum(entry.state is CONNECTING and entry.is_void for entry in borrowers)
    checking = sum(entry.is_checking for entry in borrowers)
    resetting = sum(entry.is_resetting for entry in borrowers)
    if (void, checking, resetting) != (sub.void, sub.checking, sub.resetting):
        yield f"{void} void, {checking} checked, {resetting} reset, and the books say other numbers"
    old = Counter(e.generation for e in borrowers if e.generation != sub.generation)
    if old != sub.survivors:
        yield f"{old} are left of older generations, the books say {sub.survivors}"
    if any(entry.generation != sub.generation for entry in sub.idle):
        yield "an idle connection is older than the last clear (G24)"
    for entry in borrowers:
        yield from _check_entry(entry, sub)
        yield from _check_sharing(entry, sub)


def _check_sharing(entry: AnyEntry, sub: AnySubPool) -> Iterator[str]:
    if entry.holders and not (sub.shares and entry.state in {ACTIVE, CLOSING, CLOSED}):
        yield f"{entry!r} is held {entry.holders} times"
    if entry.is_resetting and (entry.state is not ACTIVE or entry.leases):
        yield f"{entry!r} is reset"
    if entry in sub.roomy and not _has_room(entry):
        yield f"{entry!r} has room"
    if len(entry.leases) > entry.holders and entry.state is ACTIVE and sub.shares:
        yield f"{entry!r} is held {entry.holders} times"


def _has_room(entry: AnyEntry) -> bool:
    """Whether `entry` is lent, and could be lent once more at the same time."""
    is_sound = entry.doomed is None and entry.generation == entry.sub.generation
    return entry.state is ACTIVE and is_sound and 0 < entry.holders < entry.capacity


def _may_be_joined(entry: AnyEntry, now: float) -> bool:
    """Whether `entry` has room, and is neither too old nor used up."""
    uses = entry.uses + entry.holders - len(entry.leases)
    return _has_room(entry) and now < entry.expires_at and uses < entry.sub.max_uses


def _check_entry(entry: AnyEntry, sub: AnySubPool) -> Iterator[str]:
    state = entry.state
    if entry.sub is not sub:
        yield f"{entry!r} belongs elsewhere"
    if (entry in sub.idle or why_leaving(entry) is not None) != (state is IDLE):
        yield f"{entry!r} is on the idle stack, or is not"
    if len(entry.leases) > (entry.holders if sub.shares else 1):
        yield f"{entry!r} is lent {len(entry.leases)} times (G2)"
    if any(lease.entry is not entry for lease in entry.leases):
        yield f"{entry!r} has a lease of another connection"
    if entry.leases and state not in {ACTIVE, CLOSING}:
        yield f"{entry!r} is lent"
    if (entry.reason is None) == (state is CLOSING):
        yield f"{entry!r} closes because of {entry.reason}"
    if entry.awaited_by is not None and not (state is CONNECTING or entry.is_checking):
        yield f"nothing of {entry!r} is under way, and {entry.awaited_by!r} awaits it"
    if entry.is_checking and state is not ACTIVE:
        yield f"{entry!r} is checked for a waiter, and not active"
    if state is IDLE and (entry.leases or not entry.was_idle):
        yield f"{entry!r} is idle and lent, or does not know that it was idle"


# ── those who wait ──────────────────────────────────────────────────────────────


def find_served(sub: AnySubPool) -> list[AnyWaiter]:
    """Those who may be served by `sub`: without those who ask for groups, if these do without."""
    return [waiter for waiter in sub.queue if waiter.group is None or not sub.queue.bars_groups]


def _find_needy(sub: AnySubPool) -> list[AnyWaiter]:
    """Those of them who have nothing under way elsewhere."""
    return [w for w in find_served(sub) if w.coming is None or w.coming.sub is sub]


def _check_outgoing(sub: AnySubPool) -> Iterator[str]:
    """G34: nobody counts them anew."""
    active = [entry for entry in sub.limit.borrowers if entry.state is ACTIVE]
    outgoing = sum(map(is_outgoing, active))
    if outgoing != sub.outgoing:
        yield f"{outgoing} active connections will serve nobody else, the books say {sub.outgoing}"


def _check_straightness(sub: AnySubPool) -> Iterator[str]:
    """G31: it is straight only where a closer look says so, too."""
    noted = sub.is_strict, sub.is_scarce, sub.is_straight
    sub.note_rules()
    if noted[2] and not sub.is_straight:
        yield "it is not straight any more, and the books say that it is"
    sub.is_strict, sub.is_scarce, sub.is_straight = noted


def _check_queue(sub: AnySubPool) -> Iterator[str]:
    """G10, G13."""
    latest = -1
    if len(find_served(sub)) != sub.waiting:
        yield f"{len(find_served(sub))} in the queue, the books say {sub.waiting}"
    groups = Counter(waiter.group for waiter in sub.queue if waiter.group is not None)
    if groups != sub.groups:
        yield f"{groups} have members that wait here, the books say {sub.groups}"
    if sub.timed != sum(waiter.is_timed for waiter in sub.queue.line):
        yield f"not {sub.timed} of those in line have a row in the timetable"
    for line in (sub.queue.line, sub.queue.fresh_line):
        if any(waiter.coming is not None for waiter in line):
            yield "somebody stands in line for whom something is under way"
        if [*line] != sorted(line, key=lambda waiter: waiter.number):
            yield "a line is not in order (G13)"
    for waiter in sub.queue:
        if not waiter.queued or sub not in waiter.subs:
            yield f"{waiter!r} stands in a queue where it does not wait"
        if waiter.entry is not None or waiter.outcome is not None:
            yield f"{waiter!r} still waits, though it has been answered"
        if waiter.number < latest:
            yield f"{waiter!r} stands behind number {latest} (G13)"
        latest = waiter.number
        if not 0 <= waiter.overtaken <= pool_limit.MAX_OVERTAKES:
            yield f"{waiter!r} was overtaken {waiter.overtaken} times"


def _check_warmers(sub: AnySubPool) -> Iterator[str]:
    for warmer in sub.warmers:
        if not warmer.queued or warmer.sub is not sub:
            yield f"{warmer!r} is in a list where it does not wait"


def _check_dials(sub: AnySubPool) -> Iterator[str]:
    """Every dial and check knows whom it is for, and that one knows it."""
    unprovided = 0
    for waiter in find_served(sub):
        coming = waiter.coming
        unprovided += coming is None
        if coming is not None and coming.awaited_by is not waiter:
            yield f"{waiter!r} counts on {coming!r}, which is for {coming.awaited_by!r}"
    if unprovided != sub.queue.count_unprovided():
        yield f"nothing is under way for {unprovided}, not {sub.queue.count_unprovided()}"
    usual = sum(not waiter.fresh for waiter in _find_needy(sub))
    if usual != sub.queue.count_usual():
        yield f"{usual} take a used connection, not {sub.queue.count_usual()}"
    for entry in sub.limit.borrowers:
        awaited_by = entry.awaited_by
        is_awaited = isinstance(awaited_by, Waiter) and awaited_by.queued
        if isinstance(awaited_by, Waiter) and is_awaited and awaited_by.coming is not entry:
            yield f"{entry!r} is for {awaited_by!r}, which does not know"
        if isinstance(awaited_by, Warmer) and awaited_by.queued and awaited_by not in sub.warmers:
            yield f"{entry!r} is for {awaited_by!r}, which is not in the list"
        is_spare_dial = entry.state is CONNECTING and not entry.is_void and not is_awaited
        if is_spare_dial != (entry in sub.spare_dials):
            yield f"{entry!r} is a spare dial, or is not"
        if (entry.is_checking and not is_awaited) != (entry in sub.spare_checks):
            yield f"{entry!r} is a spare check, or is not"
    if sub.connecting > sub.max_connecting:
        yield f"{sub.connecting} dials, at most {sub.max_connecting} are allowed"


# ── the gate ────────────────────────────────────────────────────────────────────


def _check_gate(sub: AnySubPool) -> Iterator[str]:
    """G28."""
    gate, circuit = sub.gate, sub.gate.circuit
    if gate.is_paused != (gate.is_told_to_pause or gate.is_unhealthy):
        yield f"{gate!r} is not as it was told to be"
    if circuit is None:
        return
    is_trying = circuit.state is CircuitState.HALF_OPEN
    trials = find_trials(sub)
    if circuit.trials != len(trials):
        yield f"{circuit!r}, and {trials} try the server (G28)"
    most = sub.config.circuit_breaker
    assert most is not None
    if len(trials) > most.half_open_max:
        yield f"{len(trials)} try the server, at most {most.half_open_max} are allowed (G28)"
    if is_trying and not trials and circuit.opens_at > -math.inf:
        yield f"{circuit!r} is half open, nothing tries the server, and nothing may (G28)"


def find_trials(sub: AnySubPool) -> list[AnyEntry]:
    """The dials that have begun since the circuit is half open."""
    circuit = sub.gate.circuit
    if circuit is None or circuit.state is not CircuitState.HALF_OPEN:
        return []
    dials = [entry for entry in sub.limit.borrowers if entry.state is CONNECTING]
    return [entry for entry in dials if entry.created_at > circuit._opened_at]


def _check_circuit(sub: AnySubPool, now: float) -> Iterator[str]:
    """Nobody waits for a dial that the circuit does not allow, nor for what is unhealthy."""
    gate, circuit = sub.gate, sub.gate.circuit
    if gate.is_unhealthy and find_served(sub):
        yield "somebody waits for an endpoint that is unhealthy"
    if circuit is None or gate.is_paused or circuit.count_places(now) or sub.is_resting:
        return
    if not (sub.idle or sub.limit.has_free_slot):
        return  # nothing could be dialled anyway
    has_circulation = bool(sub.reserved or _find_lasting(sub))
    waiting = [w for w in sub.queue if w.coming is None and (w.fresh or not has_circulation)]
    single = [w for w in waiting if w.group is None]
    if len(single) > len(sub.spare_dials) + sub.void and not sub.shares:
        yield f"{len(single)} wait for a dial that the circuit does not allow (G33)"


def _check_group_waiters(core: Core[Any, Any], now: float) -> Iterator[str]:
    """Nobody waits for a group of which no member can lend or dial."""
    waiters = {waiter for sub in core.subs.values() for waiter in sub.queue if waiter.group}
    for waiter in waiters:
        if waiter.coming is None and not any(_may_help(waiter, sub, now) for sub in waiter.subs):
            yield f"{waiter!r} waits for a group whose circuits are open (G33)"


def _may_help(waiter: AnyWaiter, sub: AnySubPool, now: float) -> bool:
    """Whether `sub` may serve `waiter`, which asks for a group, before its circuit lets a dial."""
    gate, circuit = sub.gate, sub.gate.circuit
    if gate.is_unhealthy:
        return False
    if circuit is None or gate.is_paused or circuit.count_places(now):
        return True
    return not waiter.fresh and bool(sub.idle or _find_lasting(sub))


def _find_lasting(sub: AnySubPool) -> list[AnyEntry]:
    """The connections that are lent, checked or reset, and may be lent again."""
    active = [entry for entry in sub.limit.borrowers if entry.state is ACTIVE]
    return [e for e in active if e.generation == sub.generation and e.doomed is None]


# ── the pool-wide limit ─────────────────────────────────────────────────────────


def _check_pool_limit(pool_limit: PoolLimit, core: Core[Any, Any]) -> Iterator[str]:
    subs = core.subs.values()
    charged = {entry for sub in subs for entry in sub.limit.borrowers}
    borrowers = set(pool_limit.limit.borrowers)
    if borrowers != charged:
        odd = borrowers ^ charged
        yield f"charged to an endpoint or to the pool, not to both: {odd} (G1)"
    was_lowered = pool_limit.limit.total < (core._config.max_connections or 0)
    staying = [entry for entry in charged if not (was_lowered and _is_going(entry))]
    is_shedding = was_lowered and any(sub.chores for sub in core.subs.values())
    if len(staying) > pool_limit.limit.total and not is_shedding:
        yield f"{len(charged)} connections, with {pool_limit.limit.total} for the whole pool (G1)"
    idle = {entry for sub in subs for entry in (*sub.idle, *chain(*sub.leaving.values()))}
    if {*pool_limit._idle, *pool_limit._put_back_rows} != idle:
        yield "the pool's list of idle connections is not its endpoints'"
    longest = pool_limit.find_longest_idle()
    oldest = min((entry.idle_since for entry in idle), default=None)
    if oldest != (None if longest is None else longest.idle_since):
        yield f"{longest!r} is not the one that has been idle for longest"
    for sub in subs if core.is_open else ():
        if (sub.find_spare() is not None) != (sub in pool_limit._spare):
            yield f"{sub.endpoint}: has a spare dial or check, and the pool does not know"
        yield from _check_claim(sub, pool_limit)
    closing = sum(sub.closing for sub in subs)
    closing += sum(e.is_given_up and e.state is CONNECTING for e in charged)
    if pool_limit.closing != closing:
        yield f"{closing} are on their way out, not {pool_limit.closing}"
    waiters = {waiter for sub in subs for waiter in sub.queue}
    extra = sum(len(w.subs) - 1 for w in waiters if w.group is not None and w.coming is None)
    if pool_limit.extra != extra:
        yield f"{extra} are counted too often, not {pool_limit.extra}"
    if pool_limit.wanted != sum(sub.wanted for sub in subs):
        yield f"{sum(sub.wanted for sub in subs)} slots are wanted, not {pool_limit.wanted}"


def _is_going(entry: AnyEntry) -> bool:
    return entry.state is CLOSING or entry.is_given_up or entry.doomed is not None


def _check_claim(sub: AnySubPool, pool_limit: PoolLimit) -> Iterator[str]:
    claim = sub.claim
    if (claim is None) != (sub.wanted == 0):
        yield f"{sub.endpoint}: wants {sub.wanted} slots, in line with {claim!r}"
    if claim is None:
        return
    if claim not in sub.queue or claim.coming is not None:
        yield f"{sub.endpoint}: stands in line with {claim!r}"
    if sub.gate.is_paused:
        yield f"{sub.endpoint}: stands in line, though it is paused"
    row = pool_limit._rows.get(sub)
    if row is None or (row[0], row[2]) != (claim.number, sub):
        yield f"{sub.endpoint}: has a claim, and no place in line"


# ── no lost wake-up ─────────────────────────────────────────────────────────────


def _check_no_lost_wakeup(sub: AnySubPool, pool_limit: PoolLimit, now: float) -> Iterator[str]:
    """G12: no slot is free, and nothing idle is fit, while somebody waits who could have it."""
    needy = _find_needy(sub)
    if sub.gate.is_paused or not needy:
        return
    usual = sum(not waiter.fresh for waiter in needy)
    if set(sub.idle) - set(sub.reserved) and usual > sub.checking:
        yield "somebody waits, and there is an idle connection (G12)"
    if usual and any(_may_be_joined(entry, now) for entry in sub.limit.borrowers):
        yield "somebody waits, and a connection has room (G12)"
    coming = sub.connecting - sub.void + min(sub.checking + sub.resetting, usual)
    needed = max(1, math.ceil(len(needy) / sub.per_dial)) if sub.shares else len(needy)
    wanted = min(needed - coming, sub.max_connecting - sub.connecting)
    unprovided = next((w for w in needy if w.coming is None and not _is_covered(w, sub)), None)
    wanted = min(wanted, sum(w.coming is None for w in needy))
    if wanted <= 0 or unprovided is None:
        return
    if now < sub.gate.opens_at:
        if sub.due_at > sub.gate.opens_at and (sub.limit.has_free_slot or sub.idle):
            yield "nobody will say that the gate has opened (G12)"
        return
    if sub.gate.is_wary:
        wanted = 1
    if not sub.limit.has_free_slot:
        fresh = sum(waiter.fresh and waiter.coming is None for waiter in needy)
        wanted = min(wanted, fresh - len(sub.spare_dials))
        if sub.idle and sub.closing + sub.void + sub.count_leaving() < wanted:
            yield "somebody waits for a new connection, an idle one holds its slot (G12)"
    elif not pool_limit.is_limited:
        yield "somebody waits, and a slot is free (G12)"
    else:
        yield from _check_no_slot_left(sub, unprovided, wanted, pool_limit)


def _is_covered(waiter: AnyWaiter, sub: AnySubPool) -> bool:
    """Whether another member than `sub` dials a connection that several will share."""
    return any(
        other is not sub and other.shares and other.connecting > other.void for other in waiter.subs
    )


def _check_no_slot_left(
    sub: AnySubPool, unprovided: AnyWaiter, wanted: int, pool_limit: PoolLimit
) -> Iterator[str]:
    """`unprovided` can only wait for the pool-wide limit: it is in line, as nothing is free."""
    wanted = min(wanted, sub.limit.total - len(sub.limit.borrowers))
    if sub.wanted != wanted or sub.claim is not unprovided:
        yield f"{wanted} slots are wanted, {sub.wanted} with {sub.claim!r} in line (G12)"
    if pool_limit.limit.has_free_slot:
        yield "somebody stands in line, and the pool has a slot (G12)"
    elif pool_limit.closing < pool_limit.count_wanted() and (
        pool_limit.find_longest_idle() or pool_limit.find_spare()
    ):
        yield "somebody stands in line, and what nobody needs holds a slot (G12)"


def _lacks_warmth(sub: AnySubPool, target: int, pool_limit: PoolLimit, now: float) -> bool:
    """Whether one who warms waits, with a slot free that nobody else wants."""
    opening = len(sub.limit.borrowers) - sub.closing - sub.void - sub.count_leaving()
    is_held_back = sub.gate.is_paused or now < max(sub.gate.opens_at, sub.warm_not_before)
    is_full = not sub.limit.has_free_slot or sub.connecting >= sub.max_connecting
    if pool_limit.is_limited and (pool_limit.wanted or not pool_limit.limit.has_free_slot):
        is_full = True
    return (
        opening < target
        and len(_find_needy(sub)) <= sub.count_coming()
        and not (is_held_back or is_full)
    )


# ── time ────────────────────────────────────────────────────────────────────────


def _check_timetable(timetable: Timetable, core: Core[Any, Any]) -> Iterator[str]:
    rows = [row for heap in (timetable._rows._rows, timetable._rows._left) for row in heap]
    live = {(at, item) for at, _, item in rows if item is not None}
    if live and timetable.next_at > min(at for at, _ in live):
        yield f"looks at {timetable.next_at}, the first is due at {min(at for at, _ in live)}"
    waiters = {waiter for sub in core.subs.values() for waiter in sub.queue}
    expected = {(w.deadline, w) for w in waiters if w.is_timed and w.deadline != math.inf}
    subs = {(sub.due_at, sub) for sub in core.subs.values() if sub.due_at != math.inf}
    if live != expected | subs:
        yield f"the timetable has {live}, not {expected | subs}"
    if timetable._rows.live != len(live):
        yield f"{len(live)} rows of the timetable matter, not {timetable._rows.live}"
    for sub in core.subs.values():
        untimed = [not waiter.is_timed for waiter in sub.queue.line]
        if untimed != sorted(untimed, reverse=True):
            yield f"{sub.endpoint}: somebody without a row stands behind one with a row"
        aside = sub.queue.rows.keys() | sub.queue.fresh_line.keys()
        if not all(waiter.is_timed for waiter in aside):
            yield f"{sub.endpoint}: somebody stands aside and has no row"
        usual = (w.deadline for w in sub.queue if not w.is_timed)
        if sub.due_at > min(usual, default=math.inf):
            yield f"{sub.endpoint}: nobody will say that the time of its first waiter is up"


# ── counters ────────────────────────────────────────────────────────────────────


def _check_tally(sub: AnySubPool) -> Iterator[str]:
    counters = sub.counters
    opened = len(sub.idle) + sub.count_leaving() + sub.active + sub.closing
    if counters.total_created - counters.total_closed != opened:
        difference = f"{counters.total_created} created less {counters.total_closed} closed"
        yield f"{difference} is not the {opened} that exist"
    reasons = sum(counters.closed_by_reason.values())
    if reasons != counters.total_closed:
        yield f"{counters.total_closed} closed, for {reasons} reasons"
    if not 0 <= counters.total_reused <= counters.acquired:
        yield f"{counters.total_reused} reused, of {counters.acquired} lent"
