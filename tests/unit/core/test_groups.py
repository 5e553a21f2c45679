"""Groups in the core: who is served where, and who is refused."""

from __future__ import annotations

import pytest

from conpool._core import balancer, records
from conpool._values.endpoint import Endpoint
from conpool._values.group import EndpointGroup
from conpool._values.states import WaitOutcome
from tests.support.shell import HERE, THERE, Shell, Waiter

ELSEWHERE = Endpoint("elsewhere.example", 3)
TURNS = EndpointGroup([HERE, THERE])
FIRST = EndpointGroup([HERE, THERE], policy="first_available")
LEAST = EndpointGroup([HERE, THERE], policy="least_loaded")


def dialled(shell: Shell) -> list[Endpoint]:
    """Where dials are under way."""
    found = [entry.sub.endpoint for entry in shell.dials]
    return [endpoint for endpoint in found if isinstance(endpoint, Endpoint)]


def test_one_dial_for_a_waiter_across_all_members() -> None:
    shell = Shell()
    shell.ask(FIRST)
    assert dialled(shell) == [HERE]
    shell.dial_fails(HERE)
    assert dialled(shell) == [THERE]


def test_a_member_that_failed_it_is_dialled_again_only_if_no_other_can_be() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    holder = shell.lend(THERE)
    waiting = shell.ask(FIRST)
    shell.dial_fails(HERE)
    assert (waiting.is_waiting, shell.dials) == (True, [])
    shell.advance(1.5)
    assert dialled(shell) == [HERE]
    shell.release(holder)
    assert waiting.entry is not None


def test_the_dials_of_others_count() -> None:
    """G29: each member is tried once, for whomever."""
    shell = Shell(max_connections_per_endpoint=1)
    one, other = shell.ask(FIRST), shell.ask(FIRST)
    assert dialled(shell) == [HERE, THERE]
    shell.dial_fails(THERE)  # began when both had come
    assert (one.is_waiting, other.is_waiting) == (True, True)
    shell.dial_fails(HERE)  # began when only the first had
    assert one.outcome is WaitOutcome.ALL_FAILED
    assert other.is_waiting


def test_a_dial_that_began_before_a_caller_came_tells_it_nothing() -> None:
    shell = Shell()
    shell.ask(HERE)
    late = shell.ask(FIRST)
    assert dialled(shell) == [HERE, HERE]
    shell.dial_fails(shell.dials[1])
    shell.dial_fails(THERE)
    assert late.outcome is WaitOutcome.ALL_FAILED


def test_nobody_is_refused_in_a_pause() -> None:
    shell = Shell()
    shell.pause(THERE)
    waiting = shell.ask(FIRST)
    shell.dial_fails(HERE)
    assert waiting.is_waiting
    shell.resume(THERE)
    assert dialled(shell) == [THERE]


def test_nobody_is_refused_while_a_connection_may_come_back() -> None:
    """G33."""
    shell = Shell(max_connections_per_endpoint=1)
    holder = shell.lend(THERE)
    waiting = shell.ask(FIRST)
    shell.sub(THERE).gate.failed(RuntimeError(), shell.now)
    shell.sub(THERE).bad_news = 99
    shell.dial_fails(HERE)
    assert waiting.is_waiting
    shell.release(holder)
    assert waiting.entry is not None


def test_bad_news_is_out_of_date_once_a_dial_succeeds() -> None:
    shell = Shell(max_connections_per_endpoint=2)
    waiting = shell.ask(FIRST)
    shell.dial_fails(HERE)
    shell.advance(1.5)
    holder = shell.ask(HERE)
    shell.dial_succeeds(HERE)
    assert waiting.entry is not None or holder.entry is not None
    assert shell.sub(HERE).gate.last_error is None


@pytest.mark.parametrize("group", [TURNS, FIRST, LEAST], ids=str)
def test_an_idle_connection_waits_for_the_policy(group: EndpointGroup) -> None:
    shell = Shell(max_connections_per_endpoint=1)
    shell.release(shell.lend(THERE))
    shell.ask(group)
    assert dialled(shell) == [HERE]
    assert len(shell.sub(THERE).idle) == 1


def test_a_waiter_that_has_something_elsewhere_takes_only_what_is_given_back() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    holder = shell.lend(THERE)
    waiting = shell.ask(FIRST)
    entry = holder.entry
    shell.release(holder)
    assert waiting.entry is entry
    assert len(shell.sub(HERE).spare_dials) == 1


def test_no_more_than_one_slot_is_freed_for_a_waiter_of_a_group() -> None:
    shell = Shell(max_connections=2, max_connections_per_endpoint=2, is_courteous=True)
    for holder in [shell.lend(ELSEWHERE), shell.lend(ELSEWHERE)]:
        shell.release(holder)
    shell.ask(FIRST)
    assert len(shell.closes) == 1


def test_marking_lets_go_of_a_dial_and_unmarking_serves_again() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    holder = shell.lend(THERE)
    waiting = shell.ask(FIRST)
    shell.mark(HERE, is_unhealthy=True)
    assert len(shell.sub(HERE).spare_dials) == 1
    shell.dial_succeeds(HERE)
    assert waiting.is_waiting
    shell.mark(HERE, is_unhealthy=False)
    assert waiting.entry is not None
    assert holder.entry is not None


def test_the_turn_is_remembered_for_the_groups_asked_for_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(balancer, "MOST_TURNS", 2)
    shell = Shell()
    find = shell.core.balancer
    assert find.pick(TURNS, 0.0, fresh=False).endpoint == HERE
    assert find.pick(TURNS, 0.0, fresh=False).endpoint == THERE
    assert find.pick(TURNS, 0.0, fresh=False).endpoint == HERE
    for group in (FIRST, LEAST):
        find.pick(group, 0.0, fresh=False)
    assert len(find._turns) == 2
    assert find.pick(TURNS, 0.0, fresh=False).endpoint == HERE


def test_a_marked_member_is_kept_in_mind() -> None:
    """Its sub-pool would otherwise be dropped when nobody asks for it, and the mark with it."""
    shell = Shell()
    shell.mark(HERE, is_unhealthy=True)
    shell.advance(1000.0)
    shell.sweep()
    assert shell.core.subs.keys() == {HERE}
    shell.mark(HERE, is_unhealthy=False)
    shell.sweep()
    assert not shell.core.subs


# ── what makes a member a bad choice ────────────────────────────────────────────


def picked(shell: Shell) -> object:
    return shell.core.balancer.pick(FIRST, shell.now, fresh=False).endpoint


def test_a_member_that_backs_off_is_passed_over_though_it_has_an_idle_connection() -> None:
    shell = Shell()
    shell.release(shell.lend(HERE))
    shell.ask(HERE, fresh=True)
    shell.dial_fails(HERE)
    assert picked(shell) == THERE
    shell.advance(1.5)
    assert picked(shell) == HERE


def test_a_paused_member_is_passed_over() -> None:
    shell = Shell()
    shell.release(shell.lend(HERE))
    shell.pause(HERE)
    assert picked(shell) == THERE


def test_a_member_is_passed_over_while_somebody_finds_out_whether_it_is_back() -> None:
    shell = Shell()
    shell.ask(HERE)
    shell.dial_fails(HERE)
    shell.ask(HERE)
    shell.advance(1.5)
    assert dialled(shell) == [HERE]
    shell.advance(1.5)
    assert shell.sub(HERE).gate.is_open(shell.now)
    assert picked(shell) == THERE
    shell.dial_succeeds(HERE)
    assert picked(shell) == HERE


def waiter_of_failing_members(shell: Shell) -> Waiter:
    """One who came before a dial to each member began that has failed, five seconds apart."""
    waiter: Waiter = records.Waiter((shell.sub(HERE), shell.sub(THERE)), 0.0, 100.0, False)
    waiter.number = 3
    for at, sub in enumerate(waiter.subs):
        sub.gate.failed(RuntimeError(), 5.0 * at)
        sub.bad_news = 3
    return waiter


def test_bad_news_counts_until_a_dial_succeeds() -> None:
    waiter = waiter_of_failing_members(Shell())
    assert balancer.is_lost(waiter, 5.0, is_patient=False)
    waiter.subs[1].gate.succeeded(6.0)
    assert not balancer.is_lost(waiter, 6.0, is_patient=False)


def test_the_outage_of_each_member_must_last_for_the_grace() -> None:
    waiter = waiter_of_failing_members(Shell(outage_grace=2))
    assert not balancer.is_lost(waiter, 6.9, is_patient=True)
    assert balancer.is_lost(waiter, 6.9, is_patient=False)
    assert balancer.is_lost(waiter, 7.0, is_patient=True)
