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
from typing import Any

from conpool._core import pool_limit
from conpool._core.core import Core
from conpool._core.pool_limit import PoolLimit
from conpool._core.records import AnyEntry, AnySubPool, AnyWaiter, SubPool, Waiter, Warmer
from conpool._core.timetable import Timetable
from conpool._values.states import ConnectionState

IDLE = ConnectionState.IDLE
ACTIVE = ConnectionState.ACTIVE
CONNECTING = ConnectionState.CONNECTING
CLOSING = ConnectionState.CLOSING


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
        lines += [f"    {entry!r} for {entry.dial_for!r}" for entry in entries]
        lines += [f"    {waiter!r} dial {waiter.dial!r}" for waiter in sub.queue]
    return "\n".join(lines)


def _find_faults(core: Core[Any, Any], now: float | None) -> Iterator[str]:
    if core.effects:
        yield f"effects are pending: {list(core.effects)}"
    for sub in core.subs.values():
        for fault in _find_faults_of(sub, core):
            yield f"{sub.endpoint}: {fault}"
    if core.pool_limit.is_limited:
        yield from _check_pool_limit(core.pool_limit, core)
    yield from _check_timetable(core.timetable, core)
    if now is not None and core.is_open and core.timetable.next_at > now:
        for sub in core.subs.values():
            for fault in _check_no_lost_wakeup(sub, core.pool_limit, now):
                yield f"{sub.endpoint}: {fault}"
            if any(
                _lacks_warmth(sub, warmer.target, core.pool_limit, now) for warmer in sub.warmers
            ):
                yield f"{sub.endpoint}: somebody warms, and a slot is free (G12)"


def _find_faults_of(sub: AnySubPool, core: Core[Any, Any]) -> Iterator[str]:
    yield from _check_connections(sub)
    yield from _check_queue(sub)
    yield from _check_dials(sub)
    yield from _check_tally(sub)
    if not core.is_open and (sub.queue or sub.idle or sub.warmers):
        yield "the pool has closed, and this is idle or waits"


# ── connections ─────────────────────────────────────────────────────────────────


def _check_connections(sub: AnySubPool) -> Iterator[str]:
    """G1, G2, G30."""
    borrowers = sub.limit.borrowers
    found = Counter(entry.state for entry in borrowers)
    booked = {
        IDLE: len(sub.idle),
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
    ages = [entry.idle_since for entry in sub.idle]
    if ages != sorted(ages):
        yield f"the stack is not in order: idle since {ages}"
    surplus = len(borrowers) - sub.closing - sub.limit.total
    if surplus > 0 and not sub.may_be_unwanted:
        yield f"{len(borrowers)} connections, with a limit of {sub.limit.total} (G1)"
    if sub.idle and surplus > 0:
        yield "idle connections are kept beyond the limit"
    for entry in borrowers:
        yield from _check_entry(entry, sub)


def _check_entry(entry: AnyEntry, sub: AnySubPool) -> Iterator[str]:
    state = entry.state
    if entry.sub is not sub:
        yield f"{entry!r} belongs elsewhere"
    if (entry in sub.idle) != (state is IDLE):
        yield f"{entry!r} is on the idle stack, or is not"
    if len(entry.leases) > 1:
        yield f"{entry!r} is lent {len(entry.leases)} times (G2)"
    if any(lease.entry is not entry for lease in entry.leases):
        yield f"{entry!r} has a lease of another connection"
    if entry.leases and state not in {ACTIVE, CLOSING}:
        yield f"{entry!r} is lent"
    if (entry.reason is None) == (state is CLOSING):
        yield f"{entry!r} closes because of {entry.reason}"
    if entry.dial_for is not None and state is not CONNECTING:
        yield f"{entry!r} is open, and still dialled for {entry.dial_for!r}"
    if state is IDLE and (entry.leases or not entry.was_idle):
        yield f"{entry!r} is idle and lent, or does not know that it was idle"
    if state is IDLE and entry.generation != sub.generation:
        yield f"{entry!r} is idle, and older than the last clear (G24)"


# ── those who wait ──────────────────────────────────────────────────────────────


def _check_queue(sub: AnySubPool) -> Iterator[str]:
    """G10, G13."""
    latest = -1
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
    for warmer in sub.warmers:
        if not warmer.queued or warmer.sub is not sub:
            yield f"{warmer!r} is in a list where it does not wait"


def _check_dials(sub: AnySubPool) -> Iterator[str]:
    """Every dial knows whom it is for, and that one knows its dial."""
    with_dial = 0
    for waiter in sub.queue:
        dial = waiter.dial
        if dial is not None:
            with_dial += 1
            if dial.state is not CONNECTING or dial.dial_for is not waiter:
                yield f"{waiter!r} counts on {dial!r}, which is for {dial.dial_for!r}"
    if with_dial != sub.dialled_for:
        yield f"{with_dial} in the queue have a dial, the books say {sub.dialled_for}"
    for entry in sub.limit.borrowers:
        debtor = entry.dial_for
        if isinstance(debtor, Waiter) and debtor.queued and debtor.dial is not entry:
            yield f"{entry!r} is dialled for {debtor!r}, which does not know"
        if isinstance(debtor, Warmer) and debtor.queued and debtor not in sub.warmers:
            yield f"{entry!r} is dialled for {debtor!r}, which is not in the list"
    if sub.connecting > sub.max_connecting:
        yield f"{sub.connecting} dials, at most {sub.max_connecting} are allowed"


# ── the pool-wide limit ─────────────────────────────────────────────────────────


def _check_pool_limit(pool_limit: PoolLimit, core: Core[Any, Any]) -> Iterator[str]:
    subs = core.subs.values()
    charged = {entry for sub in subs for entry in sub.limit.borrowers}
    if pool_limit.limit.borrowers != charged:
        odd = pool_limit.limit.borrowers ^ charged
        yield f"charged to an endpoint or to the pool, not to both: {odd} (G1)"
    if len(pool_limit.limit.borrowers) > pool_limit.limit.total:
        yield f"{len(charged)} connections, with {pool_limit.limit.total} for the whole pool (G1)"
    if pool_limit.idle_by_age.keys() != {entry for sub in subs for entry in sub.idle}:
        yield "the pool's list of idle connections is not its endpoints'"
    for sub in subs:
        if list(sub.idle) != [entry for entry in pool_limit.idle_by_age if entry.sub is sub]:
            yield f"{sub.endpoint}: the order by age is not the stack's"
        yield from _check_claim(sub, pool_limit)
    for name in ("closing", "wanted"):
        parts = sum(getattr(sub, name) for sub in subs)
        if getattr(pool_limit, name) != parts:
            yield f"{name} is {getattr(pool_limit, name)}, the endpoints have {parts}"


def _check_claim(sub: AnySubPool, pool_limit: PoolLimit) -> Iterator[str]:
    claim = sub.claim
    if (claim is None) != (sub.wanted == 0):
        yield f"{sub.endpoint}: wants {sub.wanted} slots, in line with {claim!r}"
    if claim is None:
        return
    if claim not in sub.queue or claim.dial is not None:
        yield f"{sub.endpoint}: stands in line with {claim!r}"
    if sub.gate.is_paused:
        yield f"{sub.endpoint}: stands in line, though it is paused"
    if (claim.number, sub) not in [(number, row) for number, _, row in pool_limit._line]:
        yield f"{sub.endpoint}: has a claim, and no place in line"


# ── no lost wake-up ─────────────────────────────────────────────────────────────


def _check_no_lost_wakeup(sub: AnySubPool, pool_limit: PoolLimit, now: float) -> Iterator[str]:
    """G12: no slot is free, and nothing idle is fit, while somebody waits who could have it."""
    if sub.gate.is_paused or not sub.queue:
        return
    if sub.idle and any(not waiter.fresh for waiter in sub.queue):
        yield "somebody waits, and there is an idle connection (G12)"
    wanted = min(len(sub.queue), sub.max_connecting) - sub.connecting
    undialled = next((waiter for waiter in sub.queue if waiter.dial is None), None)
    if wanted <= 0 or undialled is None:
        return
    if now < sub.gate.opens_at:
        if sub.due_at > sub.gate.opens_at and (sub.limit.has_free_slot or sub.idle):
            yield "nobody will say that the gate has opened (G12)"
        return
    if sub.gate.is_failing:
        wanted = 1
    if not sub.limit.has_free_slot:
        if sub.idle and sub.closing < wanted:
            yield "somebody waits for a new connection, an idle one holds its slot (G12)"
    elif not pool_limit.is_limited:
        yield "somebody waits, and a slot is free (G12)"
    else:
        yield from _check_no_slot_left(sub, undialled, wanted, pool_limit)


def _check_no_slot_left(
    sub: AnySubPool, undialled: AnyWaiter, wanted: int, pool_limit: PoolLimit
) -> Iterator[str]:
    """`undialled` can only wait for the pool-wide limit: it is in line, with nothing to give it."""
    wanted = min(wanted, sub.limit.total - len(sub.limit.borrowers))
    if sub.wanted != wanted or sub.claim is not undialled:
        yield f"{wanted} slots are wanted, {sub.wanted} with {sub.claim!r} in line (G12)"
    if pool_limit.limit.has_free_slot:
        yield "somebody stands in line, and the pool has a slot (G12)"
    elif pool_limit.idle_by_age and pool_limit.closing < pool_limit.wanted:
        yield "somebody stands in line, and an idle connection holds a slot (G12)"


def _lacks_warmth(sub: AnySubPool, target: int, pool_limit: PoolLimit, now: float) -> bool:
    """Whether one who warms waits, with a slot free that nobody else wants."""
    opening = len(sub.limit.borrowers) - sub.closing
    is_held_back = sub.gate.is_paused or now < max(sub.gate.opens_at, sub.warm_not_before)
    is_full = not sub.limit.has_free_slot or sub.connecting >= sub.max_connecting
    if pool_limit.is_limited and (pool_limit.wanted or not pool_limit.limit.has_free_slot):
        is_full = True
    return opening < target and len(sub.queue) <= sub.connecting and not (is_held_back or is_full)


# ── time ────────────────────────────────────────────────────────────────────────


def _check_timetable(timetable: Timetable, core: Core[Any, Any]) -> Iterator[str]:
    rows = timetable._heap
    if rows and timetable.next_at > rows[0][0]:
        yield f"looks at {timetable.next_at}, the first is due at {rows[0][0]}"
    waiters = {waiter for sub in core.subs.values() for waiter in sub.queue}
    expected = {w for w in waiters if w.has_own_deadline and w.deadline != math.inf}
    listed = {item for at, _, item in rows if isinstance(item, Waiter) and at == item.deadline}
    if not expected <= listed:
        yield f"nobody will say that the time of {expected - listed} is up"
    attended = {(at, item) for at, _, item in rows if isinstance(item, SubPool)}
    living = len(expected) + sum(at == sub.due_at for at, sub in attended)
    if timetable._current != living:
        yield f"{timetable._current} rows of the timetable matter, counted again: {living}"
    for sub in core.subs.values():
        if sub.due_at != math.inf and (sub.due_at, sub) not in attended:
            yield f"{sub.endpoint}: is to be attended at {sub.due_at}, nobody knows"
        usual = (w.deadline for w in sub.queue if not w.has_own_deadline)
        if sub.due_at > min(usual, default=math.inf):
            yield f"{sub.endpoint}: nobody will say that the time of its first waiter is up"


# ── counters ────────────────────────────────────────────────────────────────────


def _check_tally(sub: AnySubPool) -> Iterator[str]:
    counters = sub.counters
    opened = len(sub.idle) + sub.active + sub.closing
    if counters.total_created - counters.total_closed != opened:
        difference = f"{counters.total_created} created less {counters.total_closed} closed"
        yield f"{difference} is not the {opened} that exist"
    reasons = sum(counters.closed_by_reason.values())
    if reasons != counters.total_closed:
        yield f"{counters.total_closed} closed, for {reasons} reasons"
    if not 0 <= counters.total_reused <= counters.acquired:
        yield f"{counters.total_reused} reused, of {counters.acquired} lent"
