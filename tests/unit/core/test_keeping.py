"""Whether a connection that has come back may be kept, and why not."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest

from conpool._core import keeping
from conpool._core.outgoing import doom
from conpool._core.records import AnyEntry, Entry, Lease, Warmer
from conpool._values.states import CloseReason, ConnectionState, PoolState
from tests.support.shell import Refused, Shell, close_reasons, ids, lend_many, make_sub


def entry_with(**settings: Any) -> AnyEntry:
    """A connection without a fault, of a sub-pool with these settings."""
    entry: AnyEntry = Entry(1, make_sub(**settings), 0.0)
    entry.expires_at = entry.lapses_at = math.inf
    return entry


# ── one rule each ───────────────────────────────────────────────────────────────


def test_a_connection_without_a_fault_is_kept() -> None:
    assert keeping.why_not_kept(entry_with(), 0.0) is None


def test_what_is_doomed_is_closed_for_that_reason_whatever_else_holds() -> None:
    entry = entry_with()
    entry.doomed = CloseReason.MOVED
    entry.expires_at = 0.0
    assert keeping.why_not_kept(entry, 1.0) is CloseReason.MOVED


def test_what_is_older_than_a_clear_is_closed() -> None:
    """G24."""
    entry = entry_with()
    entry.sub.generation += 1
    assert keeping.why_not_kept(entry, 0.0) is CloseReason.CLEARED


@pytest.mark.parametrize(("now", "is_kept"), [(4.999, True), (5.0, False)])
def test_what_has_reached_the_end_of_its_lifetime_is_closed(now: float, is_kept: bool) -> None:
    """G21."""
    entry = entry_with()
    entry.expires_at = 5.0
    expected = None if is_kept else CloseReason.LIFETIME
    assert keeping.why_not_kept(entry, now) is expected


@pytest.mark.parametrize("was_idle", [True, False])
def test_only_what_nobody_has_used_since_is_closed_for_its_idle_time(was_idle: bool) -> None:
    """G21."""
    entry = entry_with()
    entry.lapses_at, entry.was_idle = 5.0, was_idle
    expected = CloseReason.IDLE_TIME if was_idle else None
    assert keeping.why_not_kept(entry, 5.0) is expected


def test_what_is_used_up_is_closed() -> None:
    """G21."""
    entry = entry_with(max_connection_uses=2)
    entry.uses = 2
    assert keeping.why_not_kept(entry, 0.0) is CloseReason.USES


def test_what_exceeds_the_limit_is_closed_even_if_somebody_waits() -> None:
    """G1."""
    shell = Shell(max_connections_per_endpoint=2)
    holder, _ = lend_many(shell, 2)
    shell.ask()
    shell.set_limit(1)
    assert holder.entry is not None
    assert keeping.why_not_kept(holder.entry, 0.0) is CloseReason.SURPLUS


def test_no_more_are_kept_idle_than_max_idle() -> None:
    shell = Shell(max_idle_per_endpoint=2)
    for caller in lend_many(shell, 4):
        shell.release(caller)
    assert (len(ids(shell)), close_reasons(shell)) == (2, {CloseReason.SURPLUS: 2})


def test_with_a_max_idle_of_none_nothing_is_kept_idle() -> None:
    shell = Shell(max_idle_per_endpoint=0)
    shell.release(shell.lend())
    assert close_reasons(shell) == {CloseReason.SURPLUS: 1}


def test_a_dial_that_nobody_needs_any_more_counts_for_max_idle() -> None:
    shell = Shell(max_idle_per_endpoint=0)
    shell.cancel(shell.ask())
    shell.dial_succeeds()
    assert close_reasons(shell) == {CloseReason.SURPLUS: 1}


def test_what_somebody_waits_for_is_never_one_too_many_for_max_idle() -> None:
    shell = Shell(max_idle_per_endpoint=0, max_connections_per_endpoint=1)
    holder, waiting = shell.lend(), shell.ask()
    shell.release(holder)
    assert waiting.entry is not None


def test_max_idle_closes_the_one_that_comes_back() -> None:
    shell = Shell(max_idle_per_endpoint=1)
    first, second = lend_many(shell, 2)
    shell.release(second)
    shell.release(first)
    assert ids(shell) == [2]


def test_what_is_checked_in_the_background_counts_for_max_idle() -> None:
    shell = Shell(max_idle_per_endpoint=1)
    first, second = lend_many(shell, 2)
    shell.release(first)
    shell.reserve(next(iter(shell.sub().idle)))
    shell.release(second)
    assert ids(shell) == [1]


def test_without_idle_time_nothing_is_kept_unless_somebody_waits() -> None:
    shell = Shell(max_idle_time=0, max_connections_per_endpoint=1)
    holder, waiting = shell.lend(), shell.ask()
    shell.release(holder)
    assert waiting.entry is not None
    shell.release(waiting)
    assert close_reasons(shell) == {CloseReason.IDLE_TIME: 1}


# ── when it ends ────────────────────────────────────────────────────────────────


def test_an_idle_connection_ends_with_its_idle_time_or_its_lifetime() -> None:
    entry = entry_with(max_idle_time=5)
    entry.was_idle = True
    entry.expires_at = 100.0
    keeping.begin_idling(entry, 10.0)
    assert (entry.idle_since, entry.lapses_at, entry.was_idle) == (10.0, 15.0, False)
    keeping.begin_idling(entry, 98.0)
    assert entry.lapses_at == 100.0


def test_the_reason_is_the_end_that_was_reached() -> None:
    entry = entry_with()
    entry.expires_at = 5.0
    assert keeping.why_lapsed(entry, 4.0) is CloseReason.IDLE_TIME
    assert keeping.why_lapsed(entry, 5.0) is CloseReason.LIFETIME


def test_a_life_begins_when_the_dial_ends() -> None:
    entry = entry_with()
    keeping.begin_life(entry, 30.0, 7.0)
    assert (entry.created_at, entry.expires_at) == (7.0, 37.0)


@pytest.mark.parametrize(
    ("was_idle", "silent_for", "is_due"),
    [(True, 3.0, True), (True, 2.9, False), (False, 9.0, False)],
)
def test_a_check_is_due_after_a_silence_on_the_idle_stack(
    was_idle: bool, silent_for: float, is_due: bool
) -> None:
    entry = entry_with()
    entry.sub.check_after = 3.0
    entry.was_idle = was_idle
    assert keeping.needs_check(entry, silent_for) == is_due


# ── the same rules, spelled out for speed ───────────────────────────────────────

NOW = 10.0

SITUATIONS = list(
    product(
        [9.0, 10.0, 11.0],  # expires at
        [1, 3],  # uses, of at most three
        [False, True],  # older than a clear
        [None, CloseReason.DISCARDED],  # doomed
        [math.inf, 5.0, 0.0],  # max_idle_time
        ["nothing", "surplus", "idle enough", "doubt", "a waiter", "a warmer", "was idle"],
        [PoolState.OPEN, PoolState.DRAINING],
    )
)


def in_situation(situation: tuple[Any, ...]) -> tuple[Shell, Any]:
    """A shell with one lease, of a connection in that situation."""
    expires_at, uses, is_old, doomed, max_idle_time, more, state = situation
    shell = Shell(
        is_watched=False,
        max_connection_uses=3,
        max_idle_time=max_idle_time,
        max_idle_per_endpoint=1 if more == "idle enough" else None,
    )
    holder = shell.lend()
    if more == "idle enough":
        shell.release(shell.lend())
    sub, entry = shell.sub(), holder.entry
    assert entry is not None
    entry.expires_at, entry.uses = expires_at, uses
    if doomed is not None:
        doom(entry, doomed)
    entry.was_idle = more == "was idle"
    sub.generation += is_old
    if more == "surplus":
        sub.limit.total = 0
        sub.note_rules()
    elif more == "doubt":
        sub.gate.failed(Refused(), 0.0, in_doubt=True)
        sub.note_rules()
    elif more == "a waiter":
        sub.limit.total = 1
        shell.ask()
    elif more == "a warmer":
        sub.warmers = {Warmer(sub, 2): None}
        sub.note_rules()
    shell.core.state = state
    return shell, holder


def decide_in_full(shell: Shell, entry: AnyEntry) -> CloseReason | None:
    """What the rules say of `entry` when it is given back after a use."""
    keeping.begin_idling(entry, NOW)
    if not shell.core.is_open:
        return CloseReason.POOL_CLOSED
    if entry.sub.gate.is_in_doubt:
        entry.sub.gate.proved()
        entry.sub.note_rules()
    return keeping.why_not_kept(entry, NOW)


@pytest.mark.parametrize("more", sorted({situation[5] for situation in SITUATIONS}))
def test_a_release_decides_as_the_rules_do(more: str) -> None:
    """`Core.released` repeats the rules of `why_not_kept` and `begin_idling`: both must agree."""
    outcomes = set()
    for situation in SITUATIONS:
        if situation[5] != more:
            continue
        full, holder = in_situation(situation)
        expected = decide_in_full(full, holder.entry)
        wanted = holder.entry.idle_since, holder.entry.lapses_at
        shell, holder = in_situation(situation)
        lease = holder.lease
        shell.core.released(lease, None, NOW)
        entry: AnyEntry = lease.entry
        assert entry.reason is expected, situation
        assert (entry.state is ConnectionState.CLOSING) == (expected is not None), situation
        assert (entry.idle_since, entry.lapses_at) == wanted, situation
        if expected is None and more != "a waiter":
            assert entry in shell.sub().idle
        outcomes.add(expected)
    assert outcomes >= {
        CloseReason.SURPLUS if more in {"surplus", "idle enough"} else None,
        CloseReason.CLEARED,
        CloseReason.DISCARDED,
        CloseReason.LIFETIME,
        CloseReason.POOL_CLOSED,
        CloseReason.USES,
    }


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 40])
def test_leases_that_share_a_connection_end_in_any_order(count: int) -> None:
    entry = entry_with()
    leases = [Lease(entry, str(number), 0.0) for number in range(count)]
    for number, lease in enumerate(leases):
        entry.leases = keeping.with_lease(lease)
        assert list(entry.leases) == leases[: number + 1]
    left = leases.copy()
    for lease in (*leases[1::2], *leases[::2]):
        keeping.end_lease(lease)
        left.remove(lease)
        assert list(entry.leases) == left
    assert entry.leases == ()
    with pytest.raises(ValueError, match="not in tuple"):
        keeping.end_lease(leases[0])


def test_many_leases_that_share_a_connection_begin_and_end_in_one_step_each() -> None:
    entry = entry_with()
    leases = [Lease(entry, str(number), 0.0) for number in range(6)]
    for lease in leases:
        entry.leases = keeping.with_lease(lease)
    before = entry.leases
    keeping.end_lease(leases[3])
    entry.leases = keeping.with_lease(leases[3])
    assert entry.leases is before
    keeping.end_lease(leases[3])
    with pytest.raises(KeyError):
        keeping.end_lease(leases[3])
