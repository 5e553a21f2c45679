"""The policy as a whole, told as scenarios: what happens outside, and what the core makes of it."""

from __future__ import annotations

import pytest

from conpool._values.states import CloseReason, ConnectionState
from tests.support.shell import HERE, THERE, Shell, close_reasons, ids, lend_many

# ── lending ─────────────────────────────────────────────────────────────────────


def test_the_first_to_ask_is_dialled_for() -> None:
    shell = Shell()
    caller = shell.ask()
    assert caller.is_waiting
    shell.dial_succeeds()
    assert caller.entry is not None


def test_the_newest_idle_connection_is_lent_so_that_surplus_ages() -> None:
    shell = Shell()
    for caller in lend_many(shell, 3):
        shell.release(caller)
    assert ids(shell) == [1, 2, 3]
    caller = shell.ask()
    assert caller.entry is not None
    assert caller.entry.id == 3


def test_a_connection_is_lent_to_one_at_a_time() -> None:
    """G2."""
    shell = Shell()
    first, second = lend_many(shell, 2)
    assert first.entry is not second.entry


def test_dead_connections_are_passed_over_and_closed() -> None:
    shell = Shell()
    for caller in lend_many(shell, 3):
        shell.release(caller)
    for entry in list(shell.sub().idle)[1:]:
        shell.peer_closes(entry)
    caller = shell.ask()
    assert caller.entry is not None
    assert caller.entry.id == 1
    assert close_reasons(shell) == {CloseReason.PEER_CLOSED: 2}


def test_a_release_hands_to_the_oldest_waiter() -> None:
    """G13."""
    shell = Shell(max_connections_per_endpoint=1)
    holder = shell.lend()
    waiting = [shell.ask() for _ in range(3)]
    for caller in waiting:
        shell.release(holder)
        assert caller.entry is not None
        holder = caller


def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    """G13: not even in the step in which a connection comes back."""
    shell = Shell(max_connections_per_endpoint=1)
    holder, waiting = shell.lend(), shell.ask()
    shell.pause()
    shell.release(holder)
    newcomer = shell.ask()
    shell.resume()
    assert waiting.entry is not None
    assert newcomer.is_waiting


def test_whoever_waits_takes_a_return_or_a_dial_whichever_comes_first() -> None:
    shell = Shell()
    holder, waiting = shell.lend(), shell.ask()
    shell.release(holder)
    assert waiting.entry is not None
    entry = shell.dial_succeeds()
    assert entry.state is ConnectionState.IDLE


def test_a_dial_whose_caller_has_gone_becomes_idle() -> None:
    """G10."""
    shell = Shell()
    shell.cancel(shell.ask())
    shell.dial_succeeds()
    assert ids(shell) == [1]


def test_a_waiter_that_is_cancelled_leaves_the_rest_in_order() -> None:
    """G10, G13."""
    shell = Shell(max_connections_per_endpoint=1)
    holder = shell.lend()
    first, second, third = (shell.ask() for _ in range(3))
    shell.cancel(second)
    shell.release(holder)
    assert first.entry is not None
    shell.release(first)
    assert third.entry is not None


def test_cancelling_all_leaves_the_books_as_if_nobody_had_asked() -> None:
    """G10."""
    shell = Shell(max_connections_per_endpoint=1, max_connections=1)
    holder = shell.lend()
    before = repr(shell.sub()), repr(shell.core)
    callers = [shell.ask(endpoint, timeout=9.0) for endpoint in (HERE, THERE, HERE, THERE)]
    for position in (2, 0, 1, 0):
        shell.cancel(callers.pop(position))
    shell.advance(9.0)  # else the timetable looks at the endpoints then
    del shell.core.subs[THERE]
    assert (repr(shell.sub()), repr(shell.core)) == before
    assert repr(shell.core.timetable).startswith("<Timetable of 0")
    assert holder.entry is not None


def test_a_connection_that_dies_while_lent_makes_room_for_a_waiter() -> None:
    """G12."""
    shell = Shell(max_connections_per_endpoint=1)
    holder, waiting = shell.lend(), shell.ask()
    shell.discard(holder)
    shell.dial_succeeds()
    assert waiting.entry is not None


def test_a_slot_is_free_only_when_the_file_is_closed() -> None:
    """G1."""
    shell = Shell(max_connections_per_endpoint=1, max_connection_uses=1, is_courteous=True)
    holder, waiting = shell.lend(), shell.ask()
    shell.release(holder)
    assert not shell.dials
    shell.close_ends()
    shell.dial_succeeds()
    assert waiting.entry is not None


def test_a_lease_cannot_end_twice() -> None:
    shell = Shell()
    holder = shell.lend()
    lease = holder.lease
    assert lease is not None
    shell.release(holder)
    with pytest.raises(ValueError, match="not in tuple"):
        shell.core.released(lease, None, 0.0)


# ── an offer that fails ─────────────────────────────────────────────────────────


def test_a_waiter_offered_a_dead_connection_keeps_its_turn() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    holder = shell.lend()
    shell.pause()
    entry = holder.entry
    assert entry is not None
    shell.release(holder)
    first, second = shell.ask(), shell.ask()
    shell.peer_closes(entry)
    shell.resume()
    shell.dial_succeeds()
    assert first.entry is not None
    assert second.is_waiting


def test_waiters_offered_dead_connections_at_once_keep_their_order() -> None:
    """Found by reading: whoever failed last stood first."""
    shell = Shell(max_connections_per_endpoint=2, is_courteous=True)
    holders = lend_many(shell, 2)
    shell.pause()
    for holder in holders:
        shell.release(holder)
    callers = [shell.ask() for _ in range(3)]
    for entry in shell.sub().idle:
        shell.peer_closes(entry)
    shell.resume()
    assert list(shell.sub().queue) == [caller.waiter for caller in callers]


def test_a_waiter_whose_offer_fails_still_has_its_dial() -> None:
    """Found by the model checker: the dial was forgotten, and the counts went wrong."""
    shell = Shell(max_connections_per_endpoint=2)
    holder, waiting = shell.lend(), shell.ask()
    entry = holder.entry
    assert entry is not None
    shell.pause()
    shell.release(holder)
    shell.peer_closes(entry)
    shell.resume()
    assert waiting.waiter is not None
    assert waiting.waiter.coming is shell.dials[0]
    shell.dial_succeeds()
    assert waiting.entry is not None


# ── a new connection, please ────────────────────────────────────────────────────


def test_fresh_is_dialled_though_one_is_idle() -> None:
    shell = Shell()
    shell.release(shell.lend())
    caller = shell.ask(fresh=True)
    assert caller.is_waiting
    shell.dial_succeeds()
    assert caller.entry is not None
    assert caller.entry.uses == 1


def test_fresh_keeps_its_turn_and_closes_what_comes_back_for_its_slot() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    holder = shell.lend()
    first, second = shell.ask(fresh=True), shell.ask()
    shell.release(holder)
    assert close_reasons(shell) == {CloseReason.EVICTED: 1}
    shell.dial_succeeds()
    assert first.entry is not None
    assert second.is_waiting


def test_a_returned_connection_goes_to_one_who_came_before_those_who_want_a_new_one() -> None:
    """G13. Found by a random walk: it was closed for one whose dial had served an older waiter."""
    shell = Shell(max_connections_per_endpoint=3, is_checked=True)
    holders = lend_many(shell, 2)
    for holder in holders:
        shell.release(holder)
    first, second = shell.ask(), shell.ask()
    wants_new, _ = shell.ask(fresh=True), shell.ask()
    shell.dial_succeeds()
    assert first.entry is not None
    shell.release(first)
    assert second.entry is not None
    assert wants_new.is_waiting


# ── checks ──────────────────────────────────────────────────────────────────────


def test_nobody_gets_what_is_reserved_for_a_check() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    shell.release(shell.lend())
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    waiting = shell.ask()
    assert waiting.is_waiting
    shell.check_succeeds(entry)
    assert waiting.entry is entry


def test_a_failed_check_makes_room() -> None:
    """G12."""
    shell = Shell(max_connections_per_endpoint=1)
    shell.release(shell.lend())
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    waiting = shell.ask()
    shell.check_fails(entry)
    shell.dial_succeeds()
    assert waiting.entry is not None


def test_whoever_goes_back_to_the_head_of_the_line_is_served_first() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    holder = shell.lend()
    waiting = shell.ask()
    put_back = shell.ask(is_first=True)
    shell.release(holder)
    assert put_back.entry is not None
    assert waiting.is_waiting
