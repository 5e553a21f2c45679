"""Connections that are retired one after the other, and a pool-wide limit that changes."""

from __future__ import annotations

import pytest

from conpool._core.core import KEEP_BARE
from conpool._core.retiring import MOST
from conpool._values.states import CloseReason, ConnectionState
from tests.support.shell import HERE, THERE, Shell, close_reasons, ids, lend_many


def make_idle(shell: Shell, count: int) -> None:
    """Have `count` connections idle; number 1 has been idle for longest."""
    for caller in lend_many(shell, count):
        shell.release(caller)


# ── each at a time of its own ───────────────────────────────────────────────────


def test_each_connection_goes_at_a_time_of_its_own_the_longest_idle_first() -> None:
    shell = Shell()
    make_idle(shell, 4)
    shell.retire_all(8.0)
    left = []
    for _ in range(4):
        left.append(ids(shell))
        shell.advance(1.999)
        assert ids(shell) == left[-1]
        shell.advance(0.001)
    assert left == [[1, 2, 3, 4], [2, 3, 4], [3, 4], [4]]
    assert ids(shell) == []
    assert close_reasons(shell) == {CloseReason.CLEARED: 4}


def test_until_its_time_a_connection_is_lent_as_ever() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    make_idle(shell, 1)
    shell.retire_all(8.0)
    shell.advance(7.0)
    caller = shell.ask()
    assert caller.entry is not None
    assert caller.entry.id == 1


def test_what_is_lent_at_its_time_goes_when_its_lease_ends() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    caller = shell.lend()
    shell.retire_all(8.0)
    waiting = shell.ask()
    shell.advance(8.0)
    assert caller.entry is not None
    assert caller.entry.state is ConnectionState.ACTIVE
    shell.release(caller)
    assert waiting.is_waiting
    assert close_reasons(shell) == {CloseReason.CLEARED: 1}
    shell.dial_succeeds()
    assert waiting.entry is not None


def test_those_who_wait_are_served_by_the_others_meanwhile() -> None:
    shell = Shell(max_connections_per_endpoint=2)
    first, second = lend_many(shell, 2)
    shell.retire_all(8.0)
    shell.advance(4.0)
    waiting = shell.ask(), shell.ask()
    shell.release(first)
    shell.release(second)
    assert [caller.is_waiting for caller in waiting] == [False, True]
    assert len(shell.dials) == 1


def test_a_dial_that_is_still_under_way_at_its_time_is_given_up() -> None:
    shell = Shell(is_slow_to_give_up=True)
    shell.ask()
    (old,) = shell.dials
    shell.retire_all(8.0)
    given_up: list[bool] = []
    for seconds in (7.9, 0.1):
        shell.advance(seconds)
        given_up.append(old.is_given_up)
    assert given_up == [False, True]
    assert len(shell.dials) == 2, "its waiter is dialled for anew"


def test_what_is_opened_later_stays() -> None:
    shell = Shell()
    make_idle(shell, 1)
    shell.retire_all(8.0)
    shell.release(shell.lend())
    caller, late = shell.ask(), shell.lend()
    shell.advance(8.0)
    shell.release(late)
    shell.release(caller)
    assert ids(shell) == [2]


def test_what_has_gone_before_its_time_is_left_alone() -> None:
    shell = Shell()
    make_idle(shell, 2)
    shell.retire_all(8.0)
    shell.clear()
    make_idle(shell, 1)
    shell.advance(9.0)
    assert ids(shell) == [3]
    assert close_reasons(shell) == {CloseReason.CLEARED: 2}


def test_what_is_on_its_way_out_gets_no_time() -> None:
    shell = Shell(is_courteous=True)
    make_idle(shell, 2)
    shell.close_idle()
    assert len(shell.retire_all(8.0)) == 2, "whoever drains waits for these, too"
    assert shell.core.orders.retiring.plans == {}


def test_an_endpoint_that_is_checked_in_the_background_loses_that_connection_at_once() -> None:
    shell = Shell(is_courteous=True)
    make_idle(shell, 1)
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    shell.retire_all(8.0)
    shell.advance(8.0)
    assert shell.closes == [], "the check may be amid an exchange: no goodbye"
    assert entry.state is ConnectionState.CLOSED


def test_a_shared_connection_takes_no_new_leases_after_its_time() -> None:
    shell = Shell(shares=True)
    caller = shell.lend()
    shell.retire_all(8.0)
    shell.advance(8.0)
    assert shell.ask().is_waiting
    shell.release(caller)
    assert close_reasons(shell) == {CloseReason.CLEARED: 1}


# ── a few at once ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("count", "most"), [(5, 2), (30, 3), (600, MOST)])
def test_no_more_than_a_tenth_are_closing_at_once(count: int, most: int) -> None:
    """Goodbyes that take long hold slots: the others wait for them, however late they are."""
    shell = Shell(max_connections_per_endpoint=count, is_courteous=True, is_watched=count < 100)
    make_idle(shell, count)
    shell.retire_all(6.0)
    shell.advance(60.0)
    assert len(shell.closes) == most
    shell.close_ends()
    shell.advance(6.0)
    assert len(shell.closes) == most
    while shell.closes:
        shell.close_ends()
        shell.advance(6.0)
    assert ids(shell) == []


def test_one_that_waits_for_others_to_close_is_not_asked_after_all_the_time() -> None:
    shell = Shell(max_connections_per_endpoint=3, is_courteous=True)
    make_idle(shell, 3)
    shell.retire_all(1e-9)
    shell.advance(1.0)
    assert len(shell.closes) == 2
    assert shell.sub().due_at >= 1.0
    assert shell.sub().due_at <= 1.01


# ── several endpoints, several orders ───────────────────────────────────────────


def test_endpoints_take_turns() -> None:
    shell = Shell()
    for endpoint in (HERE, THERE):
        shell.release(shell.lend(endpoint))
    shell.retire_all(8.0, HERE, 0.5)
    shell.retire_all(8.0, THERE, 1.0)
    shell.advance(4.0)
    assert (len(shell.sub(HERE).idle), len(shell.sub(THERE).idle)) == (0, 1)
    shell.advance(4.0)
    assert not shell.sub(THERE).idle


def test_a_second_order_covers_what_has_come_since_and_the_first_goes_on() -> None:
    shell = Shell()
    make_idle(shell, 1)
    shell.retire_all(8.0)
    caller, late = shell.ask(), shell.lend()
    shell.release(late)
    shell.release(caller)
    shell.retire_all(20.0)
    shell.advance(8.0)
    assert ids(shell) == [2]
    shell.advance(12.0)
    assert ids(shell) == []
    assert shell.core.orders.retiring.plans == {}


def test_an_endpoint_is_remembered_until_its_plan_is_over() -> None:
    shell = Shell()
    make_idle(shell, 1)
    shell.retire_all(10 * KEEP_BARE)
    shell.close_idle()
    shell.advance(2 * KEEP_BARE)
    shell.sweep()
    assert HERE in shell.core.subs
    shell.advance(8 * KEEP_BARE)
    shell.sweep()
    assert HERE not in shell.core.subs
    assert shell.core.orders.retiring.plans == {}


def test_a_pool_that_ends_meanwhile_ends_as_ever() -> None:
    shell = Shell()
    make_idle(shell, 2)
    caller = shell.ask()
    shell.retire_all(8.0)
    shell.shut()
    shell.release(caller)
    assert close_reasons(shell) == {CloseReason.POOL_CLOSED: 2}
    shell.advance(9.0)


# ── the pool's own limit ────────────────────────────────────────────────────────


def test_lowering_the_pools_limit_closes_the_longest_idle_ones_wherever_they_are() -> None:
    shell = Shell(max_connections=4)
    first = shell.lend(HERE)
    second, third = shell.lend(THERE), shell.lend(THERE)
    shell.release(second)
    shell.advance(1.0)
    shell.release(first)
    shell.advance(1.0)
    shell.release(third)
    shell.set_pool_limit(1)
    assert not shell.sub(HERE).idle
    assert [entry.id for entry in shell.sub(THERE).idle] == [3]
    assert close_reasons(shell) == {CloseReason.SURPLUS: 1}


def test_surplus_that_is_lent_goes_when_it_comes_back_the_latest_lease_first() -> None:
    shell = Shell(max_connections=3)
    old = shell.lend()
    shell.advance(1.0)
    young, other = lend_many(shell, 2)
    shell.set_pool_limit(1)
    waiting = shell.ask()
    shell.release(young)
    assert waiting.is_waiting
    shell.release(other)
    assert waiting.is_waiting
    shell.release(old)
    assert waiting.entry is not None
    assert waiting.entry.id == 1
    assert len(shell.core.pool_limit.limit.borrowers) == 1
    assert close_reasons(shell) == {CloseReason.SURPLUS: 2}


def test_what_is_closing_or_given_up_already_is_no_surplus_of_the_pool() -> None:
    shell = Shell(max_connections=4, is_courteous=True, is_slow_to_give_up=True)
    caller, other = lend_many(shell, 2)
    shell.release(other)
    shell.close_idle()
    shell.set_pool_limit(1)
    shell.release(caller)
    assert len(shell.closes) == 1
    assert ids(shell) == [1], "the other one is closing"


def test_dials_go_last_of_all() -> None:
    shell = Shell(max_connections=3, is_slow_to_give_up=True)
    caller = shell.lend()
    shell.ask(THERE), shell.ask(THERE)
    shell.set_pool_limit(1)
    assert [entry.is_given_up for entry in shell.dials].count(True) == 1
    shell.release(caller)
    assert close_reasons(shell) == {CloseReason.SURPLUS: 1}


def test_raising_the_pools_limit_dials_for_those_in_line() -> None:
    shell = Shell(max_connections=1)
    shell.lend()
    waiting = [shell.ask(), shell.ask(THERE)]
    assert shell.dials == []
    shell.set_pool_limit(3)
    assert [entry.awaited_by for entry in shell.dials] == [caller.waiter for caller in waiting]


def test_raising_the_pools_limit_goes_on_warming() -> None:
    shell = Shell(max_connections=1)
    shell.lend()
    shell.warm(2)
    assert shell.dials == []
    shell.set_pool_limit(2)
    assert len(shell.dials) == 1


def test_a_pool_wide_limit_that_is_raised_again_closes_no_more() -> None:
    shell = Shell(max_connections=300, max_connections_per_endpoint=300)
    make_idle(shell, 300)
    shell.set_pool_limit(1)
    left = len(ids(shell))
    assert left == 200, "a piece of them is closed at once, the others in the next ticks"
    shell.set_pool_limit(300)
    shell.advance(1.0)
    assert len(ids(shell)) == left
