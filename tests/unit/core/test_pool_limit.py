"""The pool-wide limit: who is first in line, who makes way, and how often anybody may be passed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from conpool._core import pool_limit
from conpool._core.pool_limit import MAX_OVERTAKES, PoolLimit
from conpool._core.records import AnyEntry, AnySubPool, AnyWaiter, Entry, Waiter
from conpool._values.endpoint import Endpoint
from conpool._values.states import CloseReason
from tests.support.shell import HERE, THERE, Caller, Shell, make_sub

ELSEWHERE = Endpoint("elsewhere.example", 3)


def standing(pool_limit: PoolLimit, number: int, wanted: int = 1) -> AnySubPool:
    """A sub-pool in line with a waiter of that number."""
    sub = make_sub()
    pool_limit.stand_in_line(sub, waiter_of(sub, number), wanted)
    return sub


def waiter_of(sub: AnySubPool, number: int) -> AnyWaiter:
    waiter = Waiter((sub,), 0.0, math.inf, False)
    waiter.number = number
    return waiter


def entry_idle_since(since: float) -> AnyEntry:
    entry: AnyEntry = Entry(1, make_sub(), 0.0)
    entry.idle_since = since
    return entry


def reasons(shell: Shell, endpoint: Endpoint) -> Mapping[CloseReason, int]:
    return shell.sub(endpoint).counters.closed_by_reason


# ── the line ────────────────────────────────────────────────────────────────────


def test_whoever_has_waited_longest_is_first_in_line() -> None:
    pool_limit = PoolLimit(1)
    _, first, _ = (standing(pool_limit, number) for number in (7, 3, 5))
    assert pool_limit.find_first() is first
    assert pool_limit.wanted == 3


def test_those_who_step_out_are_forgotten() -> None:
    pool_limit = PoolLimit(1)
    first, second = (standing(pool_limit, number) for number in (1, 2))
    pool_limit.stand_in_line(first, None, 0)
    assert pool_limit.find_first() is second
    pool_limit.stand_in_line(second, None, 0)
    assert pool_limit.find_first() is None
    assert pool_limit.wanted == 0


def test_a_new_claim_takes_the_place_of_the_old() -> None:
    pool_limit = PoolLimit(1)
    first, second = (standing(pool_limit, number) for number in (1, 2))
    pool_limit.stand_in_line(first, waiter_of(first, 3), 2)
    assert pool_limit.find_first() is second
    assert pool_limit.wanted == 3


def test_wanting_more_keeps_the_place_in_line() -> None:
    pool_limit = PoolLimit(1)
    first = standing(pool_limit, 1)
    pool_limit.stand_in_line(first, first.claim, 4)
    assert (pool_limit.find_first(), pool_limit.wanted, len(pool_limit._line)) == (first, 4, 1)


def test_the_line_does_not_grow_with_those_who_have_left() -> None:
    pool_limit = PoolLimit(1)
    first = standing(pool_limit, 0)
    sub = make_sub(THERE)
    for number in range(1, 10_000):
        pool_limit.stand_in_line(sub, waiter_of(sub, number), 1)
    assert len(pool_limit._line._rows) + len(pool_limit._line._left) < 200
    assert pool_limit.find_first() is first


def test_shows_its_counts() -> None:
    pool_limit = PoolLimit(4)
    standing(pool_limit, 1)
    pool_limit.closing = 2
    assert repr(pool_limit) == "<PoolLimit <Limit 0/4>, 1 wanted, 2 closing>"


def test_f147_whoever_leaves_the_line_is_gone_in_one_short_step() -> None:
    """G34: thousands of endpoints step out, in the worst order."""
    pool_limit = PoolLimit(1)
    subs = [standing(pool_limit, number) for number in range(1000)]
    for sub in reversed(subs[1:]):
        pool_limit.stand_in_line(sub, None, 0)
    assert pool_limit.find_first() is subs[0]
    assert (pool_limit.wanted, len(pool_limit._rows)) == (1, 1)


# ── idle connections, by age ────────────────────────────────────────────────────


def test_f153_the_longest_idle_is_the_one_that_was_used_least_lately() -> None:
    pool_limit = PoolLimit(9)
    first, second = (entry_idle_since(since) for since in (1.0, 2.0))
    for entry in (first, second):
        pool_limit.became_idle(entry)
    assert pool_limit.find_longest_idle() is first
    pool_limit.left_idle(first)
    assert pool_limit.find_longest_idle() is second


def test_f153_what_was_put_back_unused_counts_from_its_last_use() -> None:
    pool_limit = PoolLimit(9)
    first, second, third = (entry_idle_since(since) for since in (1.0, 2.0, 3.0))
    for entry in (second, third, first):
        pool_limit.became_idle(entry)
    assert pool_limit.find_longest_idle() is first
    pool_limit.left_idle(first)
    pool_limit.left_idle(second)
    assert pool_limit.find_longest_idle() is third


def test_f153_of_those_put_back_the_longest_idle_comes_first_and_each_can_leave() -> None:
    pool_limit = PoolLimit(9)
    entries = [entry_idle_since(since) for since in (9.0, 5.0, 3.0, 4.0)]
    for entry in entries:
        pool_limit.became_idle(entry)
    found = []
    while (longest := pool_limit.find_longest_idle()) is not None:
        found.append(longest.idle_since)
        pool_limit.left_idle(longest)
    assert found == [3.0, 4.0, 5.0, 9.0]
    assert pool_limit._put_back_rows == {}


def test_f153_a_cancelled_acquire_does_not_make_a_connection_young() -> None:
    shell = Shell(max_connections=2)
    here, there = shell.lend(HERE), shell.lend(THERE)
    shell.release(here)
    shell.advance(1.0)
    shell.release(there)
    shell.advance(1.0)
    taken = shell.take(HERE)
    assert taken is not None
    shell.put_back_unused(taken)
    shell.ask(ELSEWHERE)
    assert taken.reason is CloseReason.EVICTED
    assert len(shell.sub(THERE).idle) == 1


def test_f153_a_check_does_not_make_a_connection_young() -> None:
    shell = Shell(max_connections=2)
    here, there = shell.lend(HERE), shell.lend(THERE)
    shell.release(here)
    shell.advance(1.0)
    shell.release(there)
    (entry,) = shell.sub(HERE).idle
    shell.reserve(entry)
    shell.check_succeeds(entry)
    shell.ask(ELSEWHERE)
    assert entry.reason is CloseReason.EVICTED


# ── eviction ────────────────────────────────────────────────────────────────────


def test_a_full_pool_evicts_the_longest_idle_connection_of_any_endpoint() -> None:
    shell = Shell(max_connections=3)
    first, second, third = (shell.lend(endpoint) for endpoint in (HERE, THERE, ELSEWHERE))
    for caller in (second, first, third):
        shell.release(caller)
    shell.lend(HERE)
    newcomer = shell.ask(HERE)
    assert reasons(shell, THERE) == {CloseReason.EVICTED: 1}
    shell.dial_succeeds(HERE)
    assert newcomer.entry is not None


def test_nothing_is_evicted_while_there_is_a_free_slot() -> None:
    shell = Shell(max_connections=2)
    shell.release(shell.lend(HERE))
    shell.lend(THERE)
    assert len(shell.sub(HERE).idle) == 1


def test_no_more_is_evicted_than_those_in_line_want() -> None:
    shell = Shell(max_connections=3, is_courteous=True)
    for caller in [shell.lend(HERE) for _ in range(3)]:
        shell.release(caller)
    shell.ask(THERE)
    assert len(shell.closes) == 1
    shell.ask(THERE)
    assert len(shell.closes) == 2
    assert len(shell.sub(HERE).idle) == 1


def test_the_slot_of_the_evicted_goes_to_the_first_in_line_once_its_file_is_closed() -> None:
    """G1: not before."""
    shell = Shell(max_connections=1, is_courteous=True)
    shell.release(shell.lend(HERE))
    first, second = shell.ask(THERE), shell.ask(ELSEWHERE)
    assert not shell.dials
    shell.close_ends(HERE)
    assert shell.dials[0].awaited_by is first.waiter
    assert second.is_waiting


def test_a_waiter_blocked_by_its_endpoint_does_not_block_others() -> None:
    """G13."""
    shell = Shell(max_connections=3, max_connections_per_endpoint=1)
    shell.lend(HERE)
    waiting = shell.ask(HERE)
    assert shell.lend(THERE).entry is not None
    assert waiting.is_waiting
    assert shell.core.pool_limit.wanted == 0


def test_a_slot_goes_to_the_longest_waiter_of_all_endpoints() -> None:
    """G12, G13."""
    shell = Shell(max_connections=1)
    holder = shell.lend(HERE)
    first, second = shell.ask(THERE), shell.ask(ELSEWHERE)
    shell.discard(holder)
    assert shell.dials[0].awaited_by is first.waiter
    shell.dial_fails(THERE)
    assert shell.dials[0].awaited_by is second.waiter


def test_a_waiter_that_leaves_the_line_makes_way_for_the_next() -> None:
    """G10."""
    shell = Shell(max_connections=1)
    holder = shell.lend(HERE)
    first, second = shell.ask(THERE), shell.ask(ELSEWHERE)
    shell.cancel(first)
    shell.discard(holder)
    assert shell.dials[0].awaited_by is second.waiter


def test_a_waiter_that_leaves_the_line_makes_way_for_the_next_of_its_endpoint() -> None:
    """G10, G12."""
    shell = Shell(max_connections=1)
    holder = shell.lend(HERE)
    first, second = shell.ask(THERE), shell.ask(THERE)
    shell.cancel(first)
    shell.discard(holder)
    assert shell.dials[0].awaited_by is second.waiter


def test_a_slot_freed_in_a_pause_goes_to_another_endpoint() -> None:
    """Found by the model checker: a paused endpoint kept its place in line, and was dialled."""
    shell = Shell(max_connections=1)
    holder = shell.lend(HERE)
    paused, other = shell.ask(THERE), shell.ask(ELSEWHERE)
    shell.pause(THERE)
    shell.discard(holder)
    assert shell.dials[0].awaited_by is other.waiter
    shell.resume(THERE)
    shell.discard(served(shell, other))
    assert shell.dials[0].awaited_by is paused.waiter


def served(shell: Shell, caller: Caller) -> Caller:
    assert isinstance(caller.endpoint, Endpoint)
    shell.dial_succeeds(caller.endpoint)
    assert caller.entry is not None
    return caller


def test_an_endpoint_behind_a_shut_gate_is_not_in_line() -> None:
    shell = Shell(max_connections=1)
    failing = shell.ask(THERE)
    shell.dial_fails(THERE)
    assert failing.error is not None
    holder = shell.lend(HERE)
    shell.ask(THERE)
    assert shell.core.pool_limit.wanted == 0
    shell.advance(2.0)
    assert shell.core.pool_limit.wanted == 1
    shell.release(holder)
    assert len(shell.dials) == 1


def test_f130_an_endpoint_in_failure_evicts_one_connection_at_most_in_each_delay() -> None:
    shell = Shell(max_connections=5, is_courteous=True, outage_grace=math.inf)
    shell.ask(THERE)
    shell.dial_fails(THERE)
    for caller in [shell.lend(HERE) for _ in range(5)]:
        shell.release(caller)
    for _ in range(5):
        shell.ask(THERE)
    evicted = []
    for _ in range(3):
        assert shell.closes == []
        shell.advance(shell.core.timetable.next_at - shell.now)
        evicted.append(len(shell.closes))
        shell.close_ends(HERE)
    assert evicted == [1, 1, 1]
    assert len(shell.dials) == 3  # all of them hang


def test_f130_a_dead_endpoint_costs_another_one_connection_however_long_it_is_asked() -> None:
    shell = Shell(max_connections=5, outage_grace=math.inf)
    for caller in [shell.lend(HERE) for _ in range(5)]:
        shell.release(caller)
    while shell.now < 60.0:
        shell.ask(THERE)
        while shell.dials:
            shell.dial_fails(THERE)
        shell.advance(min(shell.core.timetable.next_at, shell.now + 1.0) - shell.now)
    assert len(shell.sub(HERE).idle) == 4


# ── what nobody waits for ───────────────────────────────────────────────────────


def test_f129_a_dial_whose_waiter_has_gone_makes_way_for_a_waiter_elsewhere() -> None:
    """G16."""
    shell = Shell(max_connections=1)
    shell.cancel(shell.ask(HERE))
    waiting = shell.ask(THERE)
    assert [entry.awaited_by for entry in shell.dials] == [waiting.waiter]


def test_f129_its_slot_is_free_only_when_the_dial_has_ended() -> None:
    """G1."""
    shell = Shell(max_connections=1, is_slow_to_give_up=True)
    shell.cancel(shell.ask(HERE))
    waiting = shell.ask(THERE)
    (old,) = shell.dials
    assert old.is_given_up
    shell.dial_ends(old)
    assert [entry.awaited_by for entry in shell.dials] == [waiting.waiter]


def test_f129_a_dial_that_warms_makes_way_for_a_waiter_elsewhere() -> None:
    shell = Shell(max_connections=1)
    warmer = shell.warm(1, HERE)
    waiting = shell.ask(THERE)
    assert [entry.awaited_by for entry in shell.dials] == [waiting.waiter]
    assert warmer.queued
    shell.discard(served(shell, waiting))
    assert [entry.awaited_by for entry in shell.dials] == [warmer]  # it goes on


def test_f129_a_check_in_the_background_makes_way_for_a_waiter_elsewhere() -> None:
    shell = Shell(max_connections=1)
    shell.release(shell.lend(HERE))
    (entry,) = shell.sub(HERE).idle
    shell.reserve(entry)
    waiting = shell.ask(THERE)
    assert entry.reason is CloseReason.EVICTED
    assert served(shell, waiting).entry is not None


def test_f129_a_check_whose_waiter_has_gone_makes_way_for_a_waiter_elsewhere() -> None:
    shell = Shell(max_connections=1, is_checked=True)
    shell.release(shell.lend(HERE))
    shell.cancel(shell.ask(HERE))
    (entry,) = shell.checks
    waiting = shell.ask(THERE)
    assert entry.reason is CloseReason.EVICTED
    assert served(shell, waiting).entry is not None


def test_f129_no_more_make_way_than_those_in_line_want() -> None:
    shell = Shell(max_connections=3, is_slow_to_give_up=True)
    for caller in [shell.ask(HERE) for _ in range(3)]:
        shell.cancel(caller)
    shell.ask(THERE)
    assert sum(entry.is_given_up for entry in shell.dials) == 1
    shell.ask(THERE)
    assert sum(entry.is_given_up for entry in shell.dials) == 2


def test_f129_a_dial_that_somebody_waits_for_does_not_make_way() -> None:
    shell = Shell(max_connections=1)
    shell.ask(HERE)
    shell.ask(THERE)
    assert [entry.sub.endpoint for entry in shell.dials] == [HERE]


def test_f129_a_dial_whose_waiter_has_gone_serves_the_next_of_its_endpoint_first() -> None:
    shell = Shell(max_connections=1)
    shell.cancel(shell.ask(HERE))
    shell.ask(HERE)
    shell.ask(THERE)
    assert [entry.sub.endpoint for entry in shell.dials] == [HERE]


def test_f129_an_idle_connection_makes_way_before_a_dial() -> None:
    shell = Shell(max_connections=2)
    shell.release(shell.lend(HERE))
    shell.ask(HERE, fresh=True)
    shell.cancel(shell.callers[0])
    shell.ask(THERE)
    assert reasons(shell, HERE) == {CloseReason.EVICTED: 1}
    assert len(shell.dials) == 2


def test_f129_a_black_hole_delays_nobody_elsewhere() -> None:
    """G16: all slots are taken by dials that have been abandoned."""
    shell = Shell(max_connections=10, acquire_timeout=1)
    for _ in range(10):
        shell.ask(HERE)
    shell.advance(1.0)
    assert len(shell.dials) == 10
    waiting = [shell.ask(THERE) for _ in range(3)]
    assert [e.awaited_by for e in shell.dials][-3:] == [caller.waiter for caller in waiting]


# ── overtaking ──────────────────────────────────────────────────────────────────


def pass_by(shell: Shell, holder: Caller) -> Caller:
    """A younger waiter of the holder's endpoint gets what the holder gives back, if it may."""
    younger = shell.ask(HERE)
    shell.release(holder)
    return younger


def test_the_first_in_line_is_passed_a_bounded_number_of_times() -> None:
    shell = Shell(max_connections=1)
    holder, first = shell.lend(HERE), shell.ask(THERE)
    for _ in range(MAX_OVERTAKES):
        holder = pass_by(shell, holder)
        assert holder.entry is not None
    too_late = pass_by(shell, holder)
    assert too_late.is_waiting
    assert reasons(shell, HERE) == {CloseReason.EVICTED: 1}
    assert served(shell, first).entry is not None


def test_each_who_comes_first_in_line_may_be_passed_as_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_limit, "MAX_OVERTAKES", 2)
    shell = Shell(max_connections=2)
    holder, other = shell.lend(HERE), shell.lend(HERE)
    first, second = shell.ask(THERE), shell.ask(THERE)
    for _ in range(2):
        holder = pass_by(shell, holder)
    turned_back = pass_by(shell, holder)
    served(shell, first)
    shell.release(other)
    assert turned_back.entry is not None
    holder = pass_by(shell, turned_back)
    assert pass_by(shell, holder).is_waiting
    served(shell, second)


def test_passing_does_not_count_while_a_slot_is_on_its_way() -> None:
    shell = Shell(max_connections=2, is_courteous=True)
    shell.set_limit(2)  # so that those who wait here do not stand in line
    holder, other = shell.lend(HERE), shell.lend(HERE)
    first = shell.ask(THERE)
    assert other.entry is not None
    shell.retire(other)
    shell.release(other)
    for _ in range(2 * MAX_OVERTAKES):
        holder = pass_by(shell, holder)
    assert holder.entry is not None
    assert first.waiter is not None
    assert first.waiter.overtaken == 0
    shell.close_ends(HERE)
    assert served(shell, first).entry is not None


def test_an_older_waiter_of_the_same_endpoint_is_not_passing_anybody() -> None:
    shell = Shell(max_connections=1)
    holder = shell.lend(HERE)
    shell.ask(HERE)
    younger = shell.ask(THERE)
    shell.release(holder)
    assert younger.waiter is not None
    assert younger.waiter.overtaken == 0
