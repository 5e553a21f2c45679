"""The pool-wide limit: who is first in line, who makes way, and how often anybody may be passed."""

from __future__ import annotations

import math

import pytest

from conpool._core import pool_limit
from conpool._core.pool_limit import MAX_OVERTAKES, PoolLimit
from conpool._core.records import AnySubPool, AnyWaiter, Waiter
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


def reasons(shell: Shell, endpoint: Endpoint) -> dict[CloseReason, int]:
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
    assert len(pool_limit._line) < 100
    assert pool_limit.find_first() is first


def test_shows_its_counts() -> None:
    pool_limit = PoolLimit(4)
    standing(pool_limit, 1)
    pool_limit.closing = 2
    assert repr(pool_limit) == "<PoolLimit <Limit 0/4>, 1 wanted, 2 closing>"


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
