"""Connections that several leases share: who joins which, what makes way (G12, G13, G16, G21)."""

from __future__ import annotations

import math

import pytest

from conpool._core import pool_limit
from conpool._values.states import CloseReason, ConnectionState
from tests.support.shell import HERE, THERE, Shell, close_reasons

ACTIVE = ConnectionState.ACTIVE


def test_nobody_joins_a_connection_that_one_of_its_leases_has_retired() -> None:
    shell = Shell(shares=True)
    first = shell.lend()
    shell.retire(first)
    second = shell.lend()
    assert second.entry is not first.entry
    shell.release(first)
    assert close_reasons(shell) == {CloseReason.DISCARDED: 1}


def test_nobody_joins_a_connection_to_an_address_that_its_name_has_left() -> None:
    shell = Shell(shares=True)
    first = shell.lend()
    assert first.entry is not None
    first.entry.address = "192.0.2.1"
    shell.report(shell.core.orders.moved, shell.sub(), frozenset({"192.0.2.2"}))
    assert shell.lend().entry is not first.entry
    shell.release(first)
    assert close_reasons(shell) == {CloseReason.MOVED: 1}


def test_leases_that_are_about_to_begin_count_as_uses() -> None:
    """G21."""
    shell = Shell(shares=True, is_lazy=True, max_connection_uses=1)
    callers = [shell.ask(), shell.ask()]
    shell.dial_succeeds()
    assert [caller.is_waiting for caller in callers] == [False, True]
    shell.dial_succeeds()
    assert callers[0].entry is not callers[1].entry


def test_the_place_of_who_was_about_to_begin_and_left_is_free_again() -> None:
    shell = Shell(shares=True, is_lazy=True, max_connection_uses=2)
    callers = [shell.ask() for _ in range(3)]
    shell.dial_succeeds()
    assert callers[2].is_waiting
    shell.cancel(callers[0])
    assert callers[2].entry is callers[1].entry


def test_one_dial_is_started_for_as_many_waiters_as_it_may_serve() -> None:
    shell = Shell(shares=True, max_connection_uses=1)
    shell.release(shell.lend())
    for _ in range(3):
        shell.ask()
    assert len(shell.dials) == 3


def test_one_who_wants_a_new_connection_is_not_starved_by_those_who_join() -> None:
    shell = Shell(shares=True, max_connections_per_endpoint=1)
    lease = shell.lend()
    fresh = shell.ask(fresh=True)
    behind = shell.ask()
    shell.release(lease)
    assert close_reasons(shell) == {CloseReason.EVICTED: 1}
    shell.dial_succeeds()
    assert fresh.entry is behind.entry is not None


def test_only_one_connection_makes_way_for_one_who_wants_a_new_one() -> None:
    """The others serve on, although there is somebody before their callers."""
    shell = Shell(shares=True, max_connections_per_endpoint=2)
    leases = [shell.lend() for _ in range(4)]
    shell.ask(fresh=True)
    behind = [shell.ask() for _ in range(2)]
    shell.release(leases[0])
    assert all(caller.is_waiting for caller in behind)
    shell.release(leases[2])
    assert behind[0].entry is leases[3].entry
    shell.release(leases[3])
    assert behind[1].entry is behind[0].entry


def test_only_one_connection_makes_way_for_another_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """G16."""
    monkeypatch.setattr(pool_limit, "MAX_OVERTAKES", 0)
    shell = Shell(shares=True, max_connections=2, max_connections_per_endpoint=2)
    leases = [shell.lend() for _ in range(4)]
    other = shell.ask(THERE)
    behind = [shell.ask() for _ in range(2)]
    shell.release(leases[0])
    assert all(caller.is_waiting for caller in behind)
    shell.release(leases[2])
    assert behind[0].entry is leases[3].entry
    shell.release(leases[1])
    shell.dial_succeeds(THERE)
    assert other.entry is not None
    assert shell.core.pool_limit.draining == {}


def test_what_has_been_cleared_is_joined_by_nobody() -> None:
    """G24."""
    shell = Shell(shares=True)
    first = shell.lend()
    shell.clear()
    assert shell.lend().entry is not first.entry
    shell.release(first)
    assert close_reasons(shell) == {CloseReason.CLEARED: 1}


def test_what_has_outlived_its_lifetime_is_joined_by_nobody() -> None:
    """G21."""
    shell = Shell(shares=True, max_connection_lifetime=5)
    first = shell.lend()
    shell.advance(5)
    assert shell.lend().entry is not first.entry
    shell.release(first)
    assert close_reasons(shell) == {CloseReason.LIFETIME: 1}


def test_the_fullest_connection_that_has_room_is_joined() -> None:
    shell = Shell(shares=True)
    leases = [shell.lend() for _ in range(4)]
    for lease in leases:
        assert lease.entry is not None
        lease.entry.link.capacity = 3
    shell.sweep()
    shell.release(leases[0])
    assert shell.lend().entry is leases[2].entry


def test_a_waiter_is_served_when_a_sweep_finds_room() -> None:
    shell = Shell(shares=True, max_connections_per_endpoint=1)
    leases = [shell.lend(), shell.lend()]
    waiting = shell.ask()
    assert leases[0].entry is not None
    shell.set_capacity(leases[0].entry, 3)
    assert waiting.is_waiting
    shell.sweep()
    assert waiting.entry is leases[0].entry


# ── resets ──────────────────────────────────────────────────────────────────────


def test_a_connection_is_reset_before_its_next_lease() -> None:
    shell = Shell(has_resets=True, max_connections_per_endpoint=1)
    lease = shell.lend()
    entry = lease.entry
    shell.release(lease)
    waiting = shell.ask()
    (being_reset,) = shell.resets
    assert waiting.is_waiting
    assert being_reset is entry
    shell.reset_succeeds(being_reset)
    assert waiting.entry is entry


def test_nobody_dials_for_one_whom_a_reset_will_serve() -> None:
    shell = Shell(has_resets=True)
    shell.release(shell.lend())
    shell.ask()
    assert not shell.dials


def test_the_slot_of_a_connection_whose_reset_fails_is_free_at_once() -> None:
    shell = Shell(has_resets=True, max_connections_per_endpoint=1)
    shell.release(shell.lend())
    waiting = shell.ask()
    shell.reset_fails(shell.resets[0])
    assert close_reasons(shell) == {CloseReason.ERROR: 1}
    shell.dial_succeeds(HERE)
    assert waiting.entry is not None


def test_a_reset_that_ends_after_its_connection_changes_nothing() -> None:
    shell = Shell(has_resets=True)
    shell.release(shell.lend())
    (entry,) = shell.resets
    shell.clear()
    assert close_reasons(shell) == {CloseReason.CLEARED: 1}
    shell.reset_fails(entry)
    assert close_reasons(shell) == {CloseReason.CLEARED: 1}
    assert shell.sub().resetting == 0
    assert shell.core.timetable.next_at == math.inf
