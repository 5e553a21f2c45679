"""What the pool is told, what it forgets and how it ends: the core's other half, as scenarios."""

from __future__ import annotations

from random import Random

from conpool._core.core import KEEP_BARE, Core
from conpool._core.seen import see
from conpool._values.config import PoolConfig
from conpool._values.states import CloseReason, ConnectionState, PoolState, WaitOutcome
from tests.support.shell import HERE, PATIENT, THERE, Shell, close_reasons, ids, lend_many

# ── a bounded queue ─────────────────────────────────────────────────────────────


def may_queue(shell: Shell, *, fresh: bool = False) -> bool:
    return shell.core.may_queue(shell.sub(), fresh, shell.now)


def test_without_a_bound_everybody_may_queue() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    for _ in range(50):
        shell.ask()
    assert may_queue(shell)


def test_a_full_queue_takes_only_those_who_are_dialled_for_at_once() -> None:
    shell = Shell(max_connections_per_endpoint=2, max_waiting_per_endpoint=1)
    assert may_queue(shell)
    shell.ask()
    assert may_queue(shell)  # a slot is free
    shell.ask()
    assert not may_queue(shell)


def test_a_full_queue_takes_nobody_behind_a_gate_or_at_any_limit() -> None:
    shell = Shell(max_waiting_per_endpoint=0, max_connecting_per_endpoint=1, max_connections=2)
    assert may_queue(shell)
    caller = shell.ask()
    assert not may_queue(shell)  # one dial at a time
    shell.dial_succeeds()
    assert may_queue(shell)
    other = shell.lend(THERE)
    assert not may_queue(shell)  # the pool is full
    shell.discard(other)
    shell.discard(caller)
    shell.ask()
    shell.dial_fails()
    assert not may_queue(shell)  # after a failure
    shell.advance(2.0)
    shell.pause()
    assert not may_queue(shell)


def test_f148_an_idle_connection_is_no_waiting_even_where_nobody_may_wait() -> None:
    shell = Shell(max_connections_per_endpoint=1, max_waiting_per_endpoint=0)
    shell.release(shell.lend())
    assert may_queue(shell)


def test_f148_an_idle_connection_makes_way_for_a_new_one_where_nobody_may_wait() -> None:
    shell = Shell(max_connections_per_endpoint=1, max_waiting_per_endpoint=0)
    shell.release(shell.lend())
    assert may_queue(shell, fresh=True)
    shell.ask(fresh=True)
    assert len(shell.dials) == 1
    assert not may_queue(shell, fresh=True)


def test_f148_an_idle_connection_elsewhere_makes_way_where_nobody_may_wait() -> None:
    shell = Shell(max_connections=1, max_waiting_per_endpoint=0)
    elsewhere = shell.lend(THERE)
    assert not may_queue(shell)
    shell.release(elsewhere)
    assert may_queue(shell)
    shell.ask()
    assert len(shell.dials) == 1


def test_f148_a_dial_that_nobody_waits_for_makes_way_where_nobody_may_wait() -> None:
    shell = Shell(max_connections=1, max_waiting_per_endpoint=0)
    shell.cancel(shell.ask(THERE))
    assert may_queue(shell)


def test_f148_what_is_checked_in_the_background_makes_no_way_for_a_new_one() -> None:
    shell = Shell(max_connections_per_endpoint=1, max_waiting_per_endpoint=0)
    shell.release(shell.lend())
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    assert not may_queue(shell)
    assert not may_queue(shell, fresh=True)


def test_f148_a_pause_lets_nobody_queue_where_nobody_may_wait() -> None:
    shell = Shell(max_waiting_per_endpoint=0)
    shell.release(shell.lend())
    shell.pause()
    assert not may_queue(shell)
    assert not may_queue(shell, fresh=True)


# ── clearing ────────────────────────────────────────────────────────────────────


def test_what_was_idle_before_a_clear_is_closed_at_once() -> None:
    """G24."""
    shell = Shell()
    for caller in lend_many(shell, 2):
        shell.release(caller)
    shell.clear()
    assert close_reasons(shell) == {CloseReason.CLEARED: 2}


def test_what_was_lent_before_a_clear_is_closed_when_it_comes_back() -> None:
    """G24."""
    shell = Shell(max_connections_per_endpoint=1)
    holder, waiting = shell.lend(), shell.ask()
    shell.clear()
    shell.release(holder)
    assert waiting.is_waiting
    shell.dial_succeeds()
    assert waiting.entry is not None
    assert close_reasons(shell) == {CloseReason.CLEARED: 1}


def test_what_was_being_dialled_before_a_clear_is_not_lent() -> None:
    """G24."""
    shell = Shell(is_slow_to_give_up=True)
    caller = shell.ask()
    shell.clear()
    old, new = shell.dials
    shell.dial_succeeds(old)
    assert caller.is_waiting
    assert close_reasons(shell) == {CloseReason.CLEARED: 1}
    shell.dial_succeeds(new)
    assert caller.entry is not None


def test_f146_a_dial_that_a_clear_has_doomed_is_given_up() -> None:
    shell = Shell(is_slow_to_give_up=True)
    shell.ask()
    shell.clear()
    old, new = shell.dials
    assert (old.is_given_up, new.is_given_up) == (True, False)
    assert (shell.sub().connecting, shell.sub().void) == (2, 1)


def test_f146_a_doomed_dial_is_no_supply_for_a_newcomer() -> None:
    shell = Shell(is_slow_to_give_up=True)
    shell.cancel(shell.ask())
    shell.clear()
    newcomer = shell.ask()
    assert [entry.awaited_by for entry in shell.dials] == [None, newcomer.waiter]


def test_f146_the_slot_of_a_doomed_dial_goes_to_a_waiter_when_the_dial_has_ended() -> None:
    shell = Shell(max_connections_per_endpoint=1, is_slow_to_give_up=True)
    caller = shell.ask()
    shell.clear()
    (old,) = shell.dials
    shell.dial_ends(old)
    (new,) = shell.dials
    assert new.awaited_by is caller.waiter
    assert shell.sub().counters.errors == 0


def test_f146_a_clear_that_interrupts_ends_leases_and_dials_at_once() -> None:
    shell = Shell()
    holder = shell.lend()
    shell.cancel(shell.ask())
    shell.clear(interrupts=True)
    assert holder.entry is not None
    assert holder.entry.state is ConnectionState.CLOSED
    assert shell.dials == []
    shell.release(holder)
    assert not shell.sub().limit.borrowers


def test_a_clear_closes_what_is_checked_for_a_waiter() -> None:
    shell = Shell(max_connections_per_endpoint=1, is_checked=True)
    shell.release(shell.lend())
    waiting = shell.ask()
    (entry,) = shell.checks
    shell.clear()
    assert entry.state is ConnectionState.CLOSED
    shell.dial_succeeds()
    assert waiting.entry is not None


def test_a_clear_closes_what_is_checked_in_the_background() -> None:
    shell = Shell()
    shell.release(shell.lend())
    (entry,) = shell.sub().idle
    shell.reserve(entry)
    shell.clear()
    assert entry.state is ConnectionState.CLOSED
    shell.check_succeeds(entry)  # too late to matter
    assert close_reasons(shell) == {CloseReason.CLEARED: 1}


def test_a_lease_goes_on_after_a_clear_that_does_not_interrupt() -> None:
    shell = Shell()
    holder = shell.lend()
    shell.clear()
    assert holder.entry is not None
    assert holder.entry.state is ConnectionState.ACTIVE


def test_the_books_know_how_many_are_left_of_each_generation() -> None:
    shell = Shell()
    first = shell.lend()
    shell.clear()
    second = shell.lend()
    shell.clear()
    assert shell.sub().survivors == {0: 1, 1: 1}
    shell.release(second)
    assert shell.sub().survivors == {0: 1}
    shell.release(first)
    assert shell.sub().survivors == {}


def test_what_was_handed_over_before_a_clear_is_not_used_after_it() -> None:
    """G24."""
    shell = Shell(is_lazy=True)
    caller = shell.ask()
    shell.dial_succeeds()
    shell.clear()
    shell.begin(caller)
    assert caller.is_waiting
    shell.dial_succeeds()
    shell.begin(caller)
    assert caller.entry is not None


def test_a_clear_is_of_one_endpoint() -> None:
    shell = Shell()
    shell.release(shell.lend(HERE))
    shell.release(shell.lend(THERE))
    shell.clear(HERE)
    assert (len(shell.sub(HERE).idle), len(shell.sub(THERE).idle)) == (0, 1)


def test_closing_the_idle_leaves_the_lent_alone() -> None:
    shell = Shell()
    holder, other = lend_many(shell, 2)
    shell.release(other)
    assert shell.close_idle() == 1
    shell.release(holder)
    assert ids(shell) == [1]


def test_a_name_that_has_moved_leaves_its_old_addresses() -> None:
    shell = Shell()
    callers = lend_many(shell, 4)
    for caller, address in zip(callers, ("old", "new", "old", None), strict=True):
        assert caller.entry is not None
        caller.entry.address = address
    for caller in callers[:2]:
        shell.release(caller)
    shell.report(shell.core.orders.moved, shell.sub(), frozenset({"new"}))
    assert ids(shell) == [2]
    for caller in callers[2:]:
        shell.release(caller)
    assert ids(shell) == [2, 4]
    assert close_reasons(shell) == {CloseReason.MOVED: 2}


# ── limits that change ──────────────────────────────────────────────────────────


def test_raising_the_limit_dials_for_those_who_wait() -> None:
    """G12."""
    shell = Shell(max_connections_per_endpoint=1)
    shell.lend()
    waiting = [shell.ask(), shell.ask()]
    shell.set_limit(3)
    assert [entry.awaited_by for entry in shell.dials] == [caller.waiter for caller in waiting]


def test_lowering_the_limit_closes_surplus_idle_ones_the_oldest_first() -> None:
    shell = Shell(max_connections_per_endpoint=3)
    for caller in lend_many(shell, 3):
        shell.release(caller)
    shell.set_limit(1)
    assert ids(shell) == [3]
    assert close_reasons(shell) == {CloseReason.SURPLUS: 2}


def test_lent_surplus_is_closed_when_it_comes_back_even_if_somebody_waits() -> None:
    """G1."""
    shell = Shell(max_connections_per_endpoint=2)
    first, second = lend_many(shell, 2)
    waiting = shell.ask()
    shell.set_limit(1)
    shell.release(first)
    assert waiting.is_waiting
    assert close_reasons(shell) == {CloseReason.SURPLUS: 1}
    shell.release(second)
    assert waiting.entry is not None


def test_what_is_closing_already_is_no_surplus() -> None:
    shell = Shell(max_connections_per_endpoint=2, max_connection_uses=1, is_courteous=True)
    first, second = lend_many(shell, 2)
    shell.release(first)
    shell.set_limit(1)
    shell.sub().max_uses = 9
    shell.release(second)
    assert ids(shell) == [2]


def test_an_endpoint_back_at_its_usual_limit_is_not_resized() -> None:
    shell = Shell(max_connections_per_endpoint=2)
    shell.set_limit(1)
    assert shell.sub().resized
    shell.set_limit(2)
    assert not shell.sub().resized


# ── a pause ─────────────────────────────────────────────────────────────────────


def test_nothing_is_lent_or_dialled_in_a_pause() -> None:
    shell = Shell()
    shell.release(shell.lend())
    shell.pause()
    callers = [shell.ask() for _ in range(3)]
    assert all(caller.is_waiting for caller in callers)
    assert shell.dials == []
    shell.resume()
    assert callers[0].entry is not None
    assert len(shell.dials) == 2


def test_what_comes_back_in_a_pause_is_kept_for_those_who_wait() -> None:
    shell = Shell(max_connections_per_endpoint=1)
    holder = shell.lend()
    shell.pause()
    waiting = shell.ask()
    shell.release(holder)
    assert waiting.is_waiting
    shell.resume()
    assert waiting.entry is not None
    assert waiting.entry.id == 1


def test_a_dial_that_ends_in_a_pause_serves_after_it() -> None:
    shell = Shell()
    waiting = shell.ask()
    shell.pause()
    shell.dial_succeeds()
    assert waiting.is_waiting
    shell.resume()
    assert waiting.entry is not None


def test_time_goes_on_in_a_pause() -> None:
    shell = Shell(acquire_timeout=5)
    shell.pause()
    waiting = shell.ask()
    shell.advance(5.0)
    assert waiting.outcome is WaitOutcome.TIMEOUT


# ── endpoints that nobody needs ─────────────────────────────────────────────────


def test_an_endpoint_without_connections_is_forgotten_after_a_while() -> None:
    shell = Shell()
    shell.discard(shell.lend())
    shell.advance(KEEP_BARE - 0.001)
    shell.sweep()
    assert HERE in shell.core.subs
    shell.advance(0.001)
    shell.sweep()
    assert HERE not in shell.core.subs


def test_the_counters_of_a_forgotten_endpoint_are_kept_and_go_on() -> None:
    """G30."""
    shell = Shell()
    shell.discard(shell.lend())
    shell.advance(KEEP_BARE)
    shell.sweep()
    kept = shell.core.memory.kept[HERE]
    assert (kept.total_created, kept.total_closed) == (1, 1)
    assert shell.core.peek(HERE).counters is kept
    assert HERE not in shell.core.subs
    shell.discard(shell.lend())
    assert not shell.core.memory.kept
    assert shell.sub().counters is kept
    assert (kept.total_created, kept.total_closed) == (2, 2)


def test_an_endpoint_is_not_forgotten_while_it_is_idle_waited_for_told_or_in_delay() -> None:
    shell = Shell(max_connections=1)
    shell.release(shell.lend())  # idle
    shell.advance(KEEP_BARE)
    shell.sweep()
    assert HERE in shell.core.subs
    shell.pause(THERE)  # told
    shell.advance(KEEP_BARE)
    shell.sweep()
    assert THERE in shell.core.subs


def test_a_back_off_is_not_forgotten_before_it_is_over() -> None:
    """G31."""
    shell = Shell()
    shell.ask()
    shell.dial_fails()
    shell.sub().gate._not_before = 2 * KEEP_BARE
    shell.advance(KEEP_BARE)
    shell.sweep()
    assert HERE in shell.core.subs


def test_a_timer_of_a_forgotten_endpoint_dials_nothing() -> None:
    """Found by the model checker: it opened a connection that was in no books."""
    usual = PoolConfig(
        **(PATIENT | {"max_connections": 1, "acquire_timeout": 6}),  # type: ignore[arg-type]
    )
    shell = Shell(usual, overrides={HERE: usual.replace(min_idle_per_endpoint=1)})
    first = shell.ask(HERE)
    shell.dial_succeeds(HERE)
    other = shell.ask(THERE)
    shell.discard(first)
    shell.advance(KEEP_BARE)
    shell.sweep()
    assert HERE not in shell.core.subs
    shell.cancel(other)
    shell.dial_fails(THERE)
    shell.advance(1.0)
    assert shell.dials == []


def test_a_forgotten_endpoint_is_not_warmed_when_the_pool_has_a_slot_again() -> None:
    usual = PoolConfig(**(PATIENT | {"max_connections": 1}))  # type: ignore[arg-type]
    shell = Shell(usual, overrides={HERE: usual.replace(min_idle_per_endpoint=1)})
    cold = shell.ask(HERE)
    shell.dial_succeeds(HERE)
    other = shell.ask(THERE)
    shell.discard(cold)
    shell.dial_succeeds(THERE)
    shell.sweep()
    shell.advance(KEEP_BARE)
    shell.sweep()
    assert HERE not in shell.core.subs
    shell.discard(other)
    assert shell.dials == []


def test_reading_about_an_unknown_endpoint_opens_no_books() -> None:
    shell = Shell()
    assert see(shell.core.peek(HERE), shell.now).active == 0
    assert HERE not in shell.core.subs


def test_an_endpoint_may_have_its_own_settings() -> None:
    usual = PoolConfig(**PATIENT)  # type: ignore[arg-type]
    shell = Shell(usual, overrides={HERE: usual.replace(max_connections_per_endpoint=3)})
    assert shell.sub(HERE).limit.total == 3
    assert shell.sub(THERE).limit.total == 10


# ── the end ─────────────────────────────────────────────────────────────────────


def test_closing_refuses_all_waiters_and_closes_all_that_is_idle() -> None:
    """G17."""
    shell = Shell(max_connections_per_endpoint=2, max_connections=3)
    holder, other = lend_many(shell, 2)
    shell.release(other)
    waiting = [shell.ask(HERE, fresh=True), shell.ask(THERE), shell.ask(THERE)]
    warmer = shell.warm(2)
    shell.shut()
    assert [caller.outcome for caller in waiting] == [WaitOutcome.POOL_CLOSED] * 3
    assert warmer in shell.warmed
    assert shell.sub().idle == {}
    assert holder.entry is not None
    shell.release(holder)
    assert not shell.sub().limit.borrowers


def test_what_comes_back_after_the_end_is_closed() -> None:
    shell = Shell()
    holder = shell.lend()
    shell.shut()
    shell.release(holder)
    assert close_reasons(shell) == {CloseReason.POOL_CLOSED: 1}


def test_a_dial_that_succeeds_after_the_end_is_closed() -> None:
    shell = Shell()
    shell.ask()
    (entry,) = shell.dials
    shell.core.shut(0.0)
    shell.settle()
    shell.dial_succeeds(entry)
    assert close_reasons(shell) == {CloseReason.POOL_CLOSED: 1}


def test_nothing_is_warmed_after_the_end() -> None:
    shell = Shell(min_idle_per_endpoint=1)
    shell.lend()
    shell.shut()
    shell.sweep()
    assert shell.dials == []


def test_what_was_handed_over_before_the_end_is_not_lent_after_it() -> None:
    shell = Shell(is_lazy=True)
    caller = shell.ask()
    shell.dial_succeeds()
    shell.shut()
    shell.begin(caller)
    assert shell.callers == []
    assert not shell.sub().limit.borrowers


# ── counters ────────────────────────────────────────────────────────────────────


def test_each_event_is_counted_once() -> None:
    """G30."""
    shell = Shell()
    shell.release(shell.lend())
    shell.discard(shell.lend(), CloseReason.CANCELLED)
    shell.ask()
    shell.dial_fails()
    counters = shell.sub().counters
    assert (counters.total_created, counters.total_reused, counters.acquired) == (1, 1, 2)
    assert (counters.total_closed, counters.errors) == (1, 1)
    assert (counters.wait_time.count, counters.use_time.count, counters.connect_time.count) == (
        2,
        2,
        1,
    )
    assert counters.closed_by_reason == {CloseReason.CANCELLED: 1}


def test_the_length_of_dials_and_leases_is_noted() -> None:
    shell = Shell()
    caller = shell.ask()
    shell.advance(2.0)
    shell.dial_succeeds()
    shell.advance(3.0)
    shell.release(caller)
    counters = shell.sub().counters
    assert (counters.connect_time.total, counters.use_time.total) == (2.0, 3.0)


def test_a_lease_whose_connection_was_closed_under_it_ends_all_the_same() -> None:
    """G11."""
    shell = Shell(max_connections_per_endpoint=1)
    holder, waiting = shell.lend(), shell.ask()
    shell.interrupt(holder)
    assert len(shell.dials) == 1
    shell.release(holder)
    shell.dial_succeeds()
    assert waiting.entry is not None
    assert shell.sub().counters.use_time.count == 1


def test_the_core_shows_its_state() -> None:
    core: Core[None, None] = Core(PoolConfig(max_connections=3), {}, Random())
    core.move(PoolState.OPEN)
    core.find_subpool(HERE, 0.0)
    assert repr(core) == "<Core open, 1 endpoints, <PoolLimit <Limit 0/3>, 0 wanted, 0 closing>>"
    core.shut(0.0)
    assert repr(core).startswith("<Core draining, ")
