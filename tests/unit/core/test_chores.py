"""Long work in short pieces (G34): a step is about `PIECE` waiters or connections at most."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from conpool._core import chores
from conpool._core.chores import PIECE, Chores
from conpool._core.ledger import Ledger
from conpool._core.pool_limit import PoolLimit
from conpool._core.records import (
    AnyEntry,
    AnySubPool,
    AnyWaiter,
    Entry,
    Outage,
    Waiter,
)
from conpool._values.states import CloseReason, ConnectionState, WaitOutcome
from tests.support.shell import Caller, Refused, Shell, close_reasons, lend_many, make_sub

MANY = 3 * PIECE


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(PoolLimit(None))


@pytest.fixture
def work(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Chores:
    monkeypatch.setattr(chores, "PIECE", 2)
    return Chores(ledger)


def entries_of(sub: AnySubPool, count: int) -> list[AnyEntry]:
    return [Entry(number, sub, 0.0) for number in range(count)]


def queued(ledger: Ledger, sub: AnySubPool, number: int) -> AnyWaiter:
    waiter: AnyWaiter = Waiter((sub,), 0.0, math.inf, False)
    waiter.number = number
    ledger.enqueue(waiter, 0.0)
    return waiter


# ── one step at a time ──────────────────────────────────────────────────────────


def test_the_first_piece_is_done_at_once_and_the_rest_falls_due(
    work: Chores, ledger: Ledger
) -> None:
    sub, done = make_sub(), list[AnyEntry]()
    entries = entries_of(sub, 5)
    work.begin(sub, lambda entry, _: done.append(entry), entries, 7.0)
    assert done == entries[:2]
    assert ledger.timetable.pop_due(7.0, 9) == [sub]


def test_each_step_does_a_piece_until_nothing_is_left(work: Chores, ledger: Ledger) -> None:
    sub, done = make_sub(), list[AnyEntry]()
    work.begin(sub, lambda entry, _: done.append(entry), entries_of(sub, 5), 7.0)
    counts = [len(done)]
    while ledger.timetable.pop_due(7.0, 9):
        work.go_on(sub, 7.0)
        counts.append(len(done))
    assert counts == [2, 4, 5]
    assert sub.chores == ()


def test_nothing_to_do_leaves_nothing_behind(work: Chores, ledger: Ledger) -> None:
    sub = make_sub()
    work.begin(sub, lambda *_: None, [], 7.0)
    assert (sub.chores, sub.due_at) == ((), math.inf)


def test_chores_are_done_in_the_order_in_which_they_were_begun(work: Chores) -> None:
    sub, done = make_sub(), list[tuple[str, int]]()
    work.begin(sub, lambda entry, _: done.append(("a", entry.id)), entries_of(sub, 3), 0.0)
    work.begin(sub, lambda entry, _: done.append(("b", entry.id)), entries_of(sub, 2), 0.0)
    work.go_on(sub, 0.0)
    assert done == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)]


def test_a_piece_may_end_one_chore_and_begin_the_next(work: Chores) -> None:
    sub, done = make_sub(), list[str]()
    work.begin(sub, lambda *_: done.append("a"), entries_of(sub, 3), 0.0)
    work.begin(sub, lambda *_: done.append("b"), entries_of(sub, 3), 0.0)
    assert done == ["a", "a", "a", "b"]


def test_news_is_told_to_those_who_had_come_and_to_no_others(work: Chores, ledger: Ledger) -> None:
    sub, error = make_sub(), Refused()
    waiters = [queued(ledger, sub, number) for number in range(1, 4)]
    work.tell(sub, Outage(error, arrivals=2), 0.0)
    work.go_on(sub, 0.0)
    outcomes = [(waiter.outcome, waiter.error) for waiter in waiters]
    assert outcomes == [(WaitOutcome.DIAL_FAILED, error)] * 2 + [(None, None)]
    assert sub.outage is None


def test_news_goes_before_chores(work: Chores, ledger: Ledger) -> None:
    sub, done = make_sub(), list[AnyEntry]()
    for number in range(1, 4):
        queued(ledger, sub, number)
    work.tell(sub, Outage(Refused(), arrivals=3), 0.0)
    work.begin(sub, lambda entry, _: done.append(entry), entries_of(sub, 2), 0.0)
    assert (sub.waiting, done) == (0, [])
    work.go_on(sub, 0.0)
    work.go_on(sub, 0.0)
    assert len(done) == 2


def test_later_news_takes_the_place_of_earlier(work: Chores, ledger: Ledger) -> None:
    sub, later = make_sub(), Refused()
    waiters = [queued(ledger, sub, number) for number in range(1, 5)]
    work.tell(sub, Outage(Refused(), arrivals=4), 0.0)
    work.tell(sub, Outage(later, arrivals=4), 0.0)
    assert waiters[3].error is later


# ── what is done in pieces ──────────────────────────────────────────────────────


def idle_shell(count: int, **settings: object) -> Shell:
    """That many idle connections; nobody looks at the books, which would take too long."""
    shell = Shell(max_connections_per_endpoint=count, is_watched=False, **settings)  # type: ignore[arg-type]
    holders: list[Caller] = lend_many(shell, count)
    for caller in holders:
        shell.release(caller)
    return shell


def count_steps(shell: Shell) -> list[int]:
    """How many slots are charged after each tick, until nothing is due."""
    charged = [len(shell.sub().limit.borrowers)]
    while shell.core.timetable.next_at <= shell.now:
        shell.report(shell.core.ticked)
        charged.append(len(shell.sub().limit.borrowers))
    return charged


def test_f147_a_clear_closes_many_a_piece_at_a_time() -> None:
    shell = idle_shell(MANY)
    shell.clear()
    assert count_steps(shell) == [2 * PIECE, PIECE, 0]


def test_f147_nothing_of_what_a_clear_has_yet_to_close_is_lent() -> None:
    """G24."""
    shell = idle_shell(MANY)
    shell.clear()
    assert shell.sub().count_leaving() == 2 * PIECE
    assert shell.ask().is_waiting


def test_f147_what_a_clear_has_yet_to_close_makes_way_for_a_waiter() -> None:
    shell = idle_shell(MANY)
    shell.clear()
    shell.ask()
    count_steps(shell)
    assert len(shell.dials) == 1
    assert close_reasons(shell) == {CloseReason.CLEARED: MANY}


def test_f147_closing_the_idle_takes_a_piece_at_a_time_and_counts_all() -> None:
    shell = idle_shell(MANY)
    assert shell.close_idle() == MANY
    assert count_steps(shell) == [2 * PIECE, PIECE, 0]


def test_f147_a_clear_that_interrupts_ends_many_leases_a_piece_at_a_time() -> None:
    shell = Shell(max_connections_per_endpoint=MANY, is_watched=False)
    lend_many(shell, MANY)
    shell.clear(interrupts=True)
    assert count_steps(shell) == [2 * PIECE, PIECE, 0]


def test_f147_a_clear_gives_up_many_dials_a_piece_at_a_time() -> None:
    shell = Shell(max_connections_per_endpoint=MANY, is_watched=False)
    for _ in range(MANY):
        shell.ask()
    shell.pause()
    shell.clear()
    assert count_steps(shell) == [2 * PIECE, PIECE, 0]


def test_f147_a_lowered_limit_closes_many_a_piece_at_a_time() -> None:
    shell = idle_shell(MANY)
    shell.set_limit(1)
    assert count_steps(shell) == [2 * PIECE, PIECE, 1]


def test_f147_a_lowered_limit_that_is_raised_again_closes_no_more() -> None:
    shell = idle_shell(MANY)
    shell.set_limit(1)
    shell.set_limit(MANY)
    assert set(count_steps(shell)) == {2 * PIECE}


def test_f147_a_moved_name_leaves_many_a_piece_at_a_time() -> None:
    shell = idle_shell(MANY)
    for entry in shell.sub().idle:
        entry.address = "old"
    shell.report(shell.core.orders.moved, shell.sub(), frozenset({"new"}))
    assert count_steps(shell) == [2 * PIECE, PIECE, 0]


def test_f147_many_that_do_not_answer_go_a_piece_at_a_time() -> None:
    shell = idle_shell(MANY)
    first, second = list(shell.sub().idle)[-2:]
    for entry in (first, second):
        shell.reserve(entry)
        shell.check_fails(entry)
    counts = count_steps(shell)
    assert counts[-1] == 0
    assert max(a - b for a, b in pairwise(counts)) <= PIECE


def test_f147_a_resume_dials_for_many_a_piece_at_a_time() -> None:
    shell = Shell(max_connections_per_endpoint=MANY, is_watched=False)
    shell.pause()
    for _ in range(MANY):
        shell.ask()
    shell.resume()
    assert len(shell.dials) == PIECE
    assert count_steps(shell) == [PIECE, 2 * PIECE, MANY]


def test_f147_a_resume_lends_many_idle_ones_a_piece_at_a_time() -> None:
    shell = idle_shell(MANY)
    shell.pause()
    waiting = [shell.ask() for _ in range(MANY)]
    shell.core.orders.resumed(shell.sub(), shell.now)
    shell.core.pump(shell.now)
    assert len(shell.core.effects) == PIECE
    shell.advance(0.0)
    assert all(caller.entry is not None for caller in waiting)


def test_f147_those_who_can_have_an_idle_connection_are_not_dialled_for_meanwhile() -> None:
    shell = idle_shell(MANY)
    shell.set_limit(2 * MANY)
    shell.pause()
    waiting = [shell.ask() for _ in range(MANY)]
    shell.resume()
    shell.advance(0.0)
    assert all(caller.entry is not None for caller in waiting)
    assert shell.dials == []


def test_f147_a_release_in_between_does_not_hurry_what_is_left() -> None:
    shell = Shell(max_connections_per_endpoint=MANY, is_watched=False)
    holder = shell.lend()
    shell.pause()
    for _ in range(MANY):
        shell.ask()
    shell.resume()
    shell.release(holder)
    assert len(shell.dials) == PIECE


def test_f147_warming_dials_many_a_piece_at_a_time() -> None:
    shell = Shell(max_connections_per_endpoint=MANY, is_watched=False)
    shell.warm(MANY)
    assert count_steps(shell)[:3] == [PIECE, 2 * PIECE, MANY]


def test_f147_many_idle_ones_make_way_for_new_ones_a_piece_at_a_time() -> None:
    shell = idle_shell(MANY)
    shell.pause()
    for _ in range(MANY):
        shell.ask(fresh=True)
    shell.resume()
    counts = []
    while shell.core.timetable.next_at <= shell.now:
        counts.append(close_reasons(shell).get(CloseReason.EVICTED, 0))
        shell.report(shell.core.ticked)
    assert counts[0] <= 2 * PIECE
    assert len(shell.dials) == MANY


def test_f147_slots_of_the_pool_are_shared_out_a_piece_at_a_time() -> None:
    shell = Shell(max_connections=MANY, max_connections_per_endpoint=MANY, is_watched=False)
    shell.pause()
    for _ in range(MANY):
        shell.ask()
    shell.core.orders.resumed(shell.sub(), shell.now)
    shell.core.pump(shell.now)
    assert len(shell.core.effects) == PIECE
    shell.advance(0.0)
    assert len(shell.dials) == MANY


def test_what_has_gone_by_itself_is_not_closed_twice() -> None:
    shell = idle_shell(MANY)
    entries = list(shell.sub().idle)
    shell.set_limit(1)
    for entry in entries[PIECE : PIECE + 9]:
        assert entry.state is ConnectionState.IDLE
        shell.core.condemned(entry, CloseReason.PEER_CLOSED, shell.now)
    shell.settle()
    count_steps(shell)
    assert close_reasons(shell) == {CloseReason.PEER_CLOSED: 9, CloseReason.SURPLUS: MANY - 10}
