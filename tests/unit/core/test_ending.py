"""The end of a pool, a few waiters and connections at a time (G17, G34)."""

from __future__ import annotations

import pytest

from conpool._core import ending
from conpool._core.chores import PIECE
from conpool._values.endpoint import Endpoint
from conpool._values.states import CloseReason, ConnectionState, WaitOutcome
from tests.support.shell import HERE, THERE, Shell, close_reasons, lend_many


def shut_slowly(shell: Shell) -> list[int]:
    """Close the pool; after each piece, how many waiters and idle connections are left."""
    shell.core.shut(shell.now)
    left = [count_left(shell)]
    while shell.core.ending.is_under_way:
        shell.report(shell.core.ending.went_on)
        left.append(count_left(shell))
    shell.advance(0.0)
    return left


def count_left(shell: Shell) -> int:
    shell.settle()
    subs = shell.core.subs.values()
    return sum(sub.waiting + len(sub.idle) + sub.count_leaving() for sub in subs)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "PIECE", 1)


def test_a_small_pool_ends_at_once() -> None:
    shell = Shell()
    shell.release(shell.lend())
    shell.core.shut(0.0)
    assert not shell.core.ending.is_under_way


def test_f147_many_waiters_are_turned_away_a_piece_at_a_time() -> None:
    shell = Shell(max_connections_per_endpoint=1, is_watched=False)
    shell.lend()
    waiting = [shell.ask() for _ in range(3 * PIECE)]
    left = shut_slowly(shell)
    assert max(a - b for a, b in zip([3 * PIECE, *left], left, strict=False)) <= PIECE
    assert {caller.outcome for caller in waiting} == {WaitOutcome.POOL_CLOSED}


def test_f147_many_idle_connections_are_closed_a_piece_at_a_time() -> None:
    shell = Shell(max_connections_per_endpoint=3 * PIECE, is_watched=False)
    for caller in lend_many(shell, 3 * PIECE):
        shell.release(caller)
    left = shut_slowly(shell)
    assert max(a - b for a, b in zip([3 * PIECE, *left], left, strict=False)) <= PIECE
    assert left[-1] == 0
    assert close_reasons(shell) == {CloseReason.POOL_CLOSED: 3 * PIECE}


def test_f147_many_endpoints_are_ended_a_piece_at_a_time() -> None:
    shell = Shell(is_watched=False)
    for number in range(3 * PIECE):
        shell.release(shell.lend(Endpoint("x.example", number + 1)))
    left = shut_slowly(shell)
    assert max(a - b for a, b in zip([3 * PIECE, *left], left, strict=False)) <= PIECE
    assert left[-1] == 0


@pytest.mark.usefixtures("small_pieces")
def test_nobody_is_served_while_the_pool_ends() -> None:
    shell = Shell(max_connections_per_endpoint=2)
    holder, _ = lend_many(shell, 2)
    waiting = [shell.ask() for _ in range(5)]
    shell.core.shut(0.0)
    assert shell.core.ending.is_under_way
    shell.release(holder)
    assert shell.dials == []
    assert all(caller.entry is None for caller in waiting)
    assert close_reasons(shell) == {CloseReason.POOL_CLOSED: 1}


@pytest.mark.usefixtures("small_pieces")
def test_one_that_is_cancelled_while_the_pool_ends_is_refused_by_nobody() -> None:
    """G10."""
    shell = Shell(max_connections_per_endpoint=1)
    shell.lend()
    waiting = [shell.ask() for _ in range(6)]
    shell.core.shut(0.0)
    shell.settle()
    assert waiting[5].is_waiting
    shell.cancel(waiting[5])
    while shell.core.ending.is_under_way:
        shell.report(shell.core.ending.went_on)
    assert waiting[5].outcome is None
    assert {caller.outcome for caller in waiting[:5]} == {WaitOutcome.POOL_CLOSED}


@pytest.mark.usefixtures("small_pieces")
def test_a_time_out_that_is_due_while_the_pool_ends_is_no_second_answer() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    shell.lend()
    waiting = [shell.ask(timeout=2.0 - number / 10) for number in range(6)]
    shell.core.shut(0.0)
    shell.settle()
    shell.advance(2.0)
    while shell.core.ending.is_under_way:
        shell.report(shell.core.ending.went_on)
    assert all(caller.outcome is not None for caller in waiting)


@pytest.mark.parametrize("how", ["taken", "handed over", "checked", "checked in the background"])
def test_what_is_active_without_a_lease_is_closed_by_the_end(how: str) -> None:
    shell = Shell(is_lazy=how == "handed over", is_checked=how == "checked")
    if how == "handed over":
        shell.ask()
        entry = shell.dial_succeeds()
    else:
        shell.release(shell.lend())
        (entry,) = shell.sub().idle
    if how == "taken":
        shell.take()
    elif how == "checked":
        shell.ask()
    elif how == "checked in the background":
        shell.reserve(entry)
    shell.shut()
    assert entry.state is ConnectionState.CLOSED
    assert entry.reason is CloseReason.POOL_CLOSED


def test_what_is_lent_is_left_to_its_holder() -> None:
    shell = Shell()
    holder = shell.lend()
    shell.shut()
    assert holder.entry is not None
    assert holder.entry.state is ConnectionState.ACTIVE


def test_a_clear_that_is_under_way_does_not_hold_up_the_end() -> None:
    count = 2 * PIECE
    shell = Shell(max_connections_per_endpoint=count, is_watched=False)
    for caller in lend_many(shell, count):
        shell.release(caller)
    shell.clear()
    shut_slowly(shell)
    assert not shell.sub().limit.borrowers


def test_news_that_is_being_told_gives_way_to_the_end() -> None:
    shell = Shell(outage_grace=0, max_connecting_per_endpoint=1, is_watched=False)
    shell.pause()
    waiting = [shell.ask() for _ in range(3 * PIECE)]
    shell.resume()
    shell.dial_fails()
    shut_slowly(shell)
    told = [caller.outcome for caller in waiting]
    assert told.count(WaitOutcome.DIAL_FAILED) == PIECE + 1
    assert told.count(WaitOutcome.POOL_CLOSED) == 2 * PIECE - 1


def test_those_who_warm_are_sent_on() -> None:
    shell = Shell()
    warmers = [shell.warm(1, HERE), shell.warm(1, THERE)]
    shell.shut()
    assert set(shell.warmed) == set(warmers)
    assert all(warmer.error is None for warmer in warmers)
