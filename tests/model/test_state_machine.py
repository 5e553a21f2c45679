"""Random walks that are longer than the model checker's paths, in larger worlds.

One machine compares the core step by step with `tests.model.reference`; the other has several
endpoints under a pool-wide limit, where only the laws are checked. Both end by letting everything
go its way: then nobody may wait any more, and at the end of the pool nothing may be left.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, final

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from conpool._values.config import CircuitBreaker
from conpool._values.endpoint import AnyEndpoint, Endpoint
from conpool._values.states import CloseReason, ConnectionState
from tests.model.reference import Peer, Reference
from tests.support.shell import HERE, THERE, Caller, Entry, Shell

ENDPOINTS = (HERE, THERE, Endpoint("elsewhere.example", 3))

IS_LARGE = "CONPOOL_LARGE_MODEL" in os.environ
"""Longer, and different each time; else always the same."""

WALKS = settings(
    derandomize=not IS_LARGE,
    max_examples=3000 if IS_LARGE else 150,
    stateful_step_count=80 if IS_LARGE else 50,
    deadline=None,
)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., None])

BY_FORCE = (
    CloseReason.CANCELLED,
    CloseReason.DETACHED,
    CloseReason.DISCARDED,
    CloseReason.ERROR,
    CloseReason.INCOMPLETE,
    CloseReason.PEER_CLOSED,
    CloseReason.UNREAD_DATA,
)
"""How a lease can end that leaves nothing worth keeping."""

which = st.integers(0, 99)
"""Which of several; taken modulo their number."""

seconds = st.sampled_from([0.01, 0.5, 1.0, 3.0, 7.0])


def pick(items: list[T], number: int) -> T:
    return items[number % len(items)]


@final
@dataclass(frozen=True)
class Deed:
    """One thing that can happen."""

    name: str
    weight: int
    """How often, beside the others that are possible at the time."""
    when: Callable[[Any], object]
    arguments: dict[str, st.SearchStrategy[Any]]


def deed(
    weight: int,
    *,
    when: Callable[[Any], object] = lambda _: True,
    **arguments: st.SearchStrategy[Any],
) -> Callable[[F], F]:
    """Mark a method as something that happens.

    Hypothesis's own rules would not do: it switches many of them off in each example, so that
    hardly any connection gets from its dial to its release.
    """

    def mark(method: F) -> F:
        name = method.__name__
        setattr(method, "deed", Deed(name, weight, when, arguments))  # noqa: B010 - not declared
        return method

    return mark


class Machine(RuleBasedStateMachine):
    """What can happen to any shell."""

    shell: Shell
    deeds: ClassVar[list[Deed]]
    done: ClassVar[Counter[str]]
    """How often each thing has happened, in all examples."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        marked = [getattr(method, "deed", None) for method in vars(cls).values()]
        cls.deeds = [found for found in marked if found is not None]
        cls.done = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.drained: set[Entry] = set()
        """All that some drain has covered: it waits until they are gone."""

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        possible = [
            found.name for found in self.deeds for _ in range(found.weight) if found.when(self)
        ]
        name = data.draw(st.sampled_from(possible), label="what happens")
        chosen = next(found for found in self.deeds if found.name == name)
        given = {key: data.draw(strategy, label=key) for key, strategy in chosen.arguments.items()}
        getattr(self, name)(**given)
        self.done[name] += 1

    def holders(self) -> list[Caller]:
        return [caller for caller in self.shell.callers if caller.has_begun]

    def drain_endpoint(self, endpoint: AnyEndpoint = HERE) -> None:
        """As `ConnectionPool.drain`: clear, and take down whose end is waited for."""
        self.drained |= set(self.shell.sub(endpoint).limit.borrowers)
        self.shell.clear(endpoint)

    def waiters(self) -> list[Caller]:
        return [caller for caller in self.shell.callers if caller.is_waiting]

    def teardown(self) -> None:
        if not hasattr(self, "shell"):
            return
        for sub in list(self.shell.core.subs.values()):
            self.shell.resume(sub.endpoint)
        self.let_all_go()
        assert self.shell.callers == []
        assert self.find_undrained() == [], "a drain would wait for ever"
        self.shell.shut()
        for entry in list(self.shell.closes):
            self.shell.close_ends(entry)
        for sub in self.shell.core.subs.values():
            assert not sub.limit.borrowers
            assert sub.counters.total_created == sub.counters.total_closed

    def find_undrained(self) -> list[int]:
        """What drains still wait for."""
        return sorted(e.id for e in self.drained if e.state is not ConnectionState.CLOSED)

    def let_all_go(self) -> None:
        """Dials succeed, closes end, leases are given back, time passes: until nothing is left."""
        for _ in range(500):
            shell = self.shell
            if shell.closes:
                shell.close_ends(shell.closes[0])
            elif shell.dials:
                end_dial(shell, shell.dials[0])
            elif holders := self.holders():
                shell.release(holders[0])
            elif shell.checks:
                shell.check_succeeds(shell.checks[0])
            elif shell.core.timetable.next_at != math.inf:
                shell.advance(shell.core.timetable.next_at - shell.now)
            else:
                return
        raise AssertionError("there is always something left to do")


def end_dial(shell: Shell, entry: Entry) -> None:
    """A dial succeeds, or ends if it was given up."""
    if entry.is_given_up:
        shell.dial_ends(entry)
    else:
        shell.dial_succeeds(entry)


class ComparedMachine(Machine):
    """One endpoint, beside its reference."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[Caller, int] = {}
        self.reference: Reference

    @initialize(
        limit=st.integers(1, 3),
        max_connecting=st.sampled_from([None, 1, 2]),
        max_uses=st.sampled_from([None, 1, 3]),
        max_idle_time=st.sampled_from([math.inf, 5.0]),
        max_lifetime=st.sampled_from([math.inf, 9.0]),
        max_idle=st.sampled_from([None, None, 0, 1]),
        outage_grace=st.sampled_from([0.0, 1.0, math.inf]),
        check_after=st.sampled_from([None, 0.0, 2.0]),
        threshold=st.sampled_from([None, None, None, 1, 2]),
        trials=st.sampled_from([1, 2]),
        is_courteous=st.booleans(),
        is_slow_to_give_up=st.booleans(),
    )
    def open(
        self,
        limit: int,
        max_connecting: int | None,
        max_uses: int | None,
        max_idle_time: float,
        max_lifetime: float,
        max_idle: int | None,
        outage_grace: float,
        check_after: float | None,
        threshold: int | None,
        trials: int,
        is_courteous: bool,
        is_slow_to_give_up: bool,
    ) -> None:
        breaker = CircuitBreaker(
            failure_threshold=threshold or 1, reset_timeout=3.0, half_open_max=trials
        )
        self.shell = Shell(
            circuit_breaker=breaker if threshold else None,
            max_connections_per_endpoint=limit,
            max_idle_per_endpoint=max_idle,
            outage_grace=outage_grace,
            health_check_after=check_after or 0.0,
            is_checked=check_after is not None,
            is_slow_to_give_up=is_slow_to_give_up,
            max_connecting_per_endpoint=max_connecting,
            max_connection_uses=max_uses,
            max_idle_time=max_idle_time,
            max_connection_lifetime=max_lifetime,
            acquire_timeout=20.0,
            is_courteous=is_courteous,
        )
        self.reference = Reference(
            limit=limit,
            threshold=threshold or math.inf,
            reset_timeout=3.0,
            trials=trials,
            max_idle=math.inf if max_idle is None else max_idle,
            outage_grace=outage_grace,
            check_after=math.inf if check_after is None else check_after,
            is_slow_to_give_up=is_slow_to_give_up,
            max_connecting=max_connecting or math.inf,
            max_uses=max_uses or math.inf,
            max_idle_time=max_idle_time,
            max_lifetime=max_lifetime,
            is_courteous=is_courteous,
        )

    # ── callers ─────────────────────────────────────────────────────────────────

    @deed(
        10,
        when=lambda self: len(self.waiters()) < 6,
        fresh=st.booleans() | st.just(False),
        is_impatient=st.booleans(),
    )
    def ask(self, fresh: bool, is_impatient: bool) -> None:
        number = len(self.numbers)
        # No two deadlines at the same moment: which comes first would be a matter of taste.
        timeout = 2.0 + number / 1000 if is_impatient else None
        deadline = self.shell.now + (timeout or 20.0)
        caller = self.shell.ask(fresh=fresh, timeout=timeout)
        self.numbers[caller] = number
        self.reference.ask(number, fresh=fresh, deadline=deadline)

    @deed(2, when=lambda self: self.waiters(), number=which)
    def cancel(self, number: int) -> None:
        caller = pick(self.waiters(), number)
        self.shell.cancel(caller)
        self.reference.leave(self.numbers[caller])

    @deed(16, when=lambda self: self.holders(), number=which)
    def release(self, number: int) -> None:
        caller = pick(self.holders(), number)
        self.shell.release(caller)
        self.reference.release(self.numbers[caller])

    @deed(
        4,
        when=lambda self: self.holders(),
        number=which,
        reason=st.sampled_from(BY_FORCE),
        is_interrupted=st.booleans(),
    )
    def discard(self, number: int, reason: CloseReason, is_interrupted: bool) -> None:
        caller = pick(self.holders(), number)
        if is_interrupted:
            self.shell.interrupt(caller)
        self.shell.discard(caller, reason)
        self.reference.discard(self.numbers[caller])

    @deed(2, when=lambda self: self.holders(), number=which)
    def retire(self, number: int) -> None:
        caller = pick(self.holders(), number)
        assert caller.entry is not None
        self.shell.retire(caller)
        self.reference.lent[self.numbers[caller]].is_old = True

    # ── the world outside ───────────────────────────────────────────────────────

    @deed(16, when=lambda self: self.shell.dials, number=which)
    def dial_succeeds(self, number: int) -> None:
        entry = self.shell.dial_succeeds(pick(self.shell.dials, number))
        self.reference.dial_succeeds(entry.id)

    @deed(4, when=lambda self: self.shell.dials, number=which)
    def dial_fails(self, number: int) -> None:
        entry = self.shell.dial_fails(pick(self.shell.dials, number))
        self.reference.dial_fails(entry.id)

    def given_up(self) -> list[Entry]:
        return [entry for entry in self.shell.dials if entry.is_given_up]

    @deed(16, when=lambda self: self.given_up(), number=which)
    def dial_ends(self, number: int) -> None:
        entry = pick(self.given_up(), number)
        self.shell.dial_ends(entry)
        self.reference.dial_ends(entry.id)

    def beginners(self) -> list[Caller]:
        return [c for c in self.holders() if c.entry is not None and c.entry.uses == 1]

    @deed(2, when=lambda self: self.beginners(), number=which)
    def lose_early(self, number: int) -> None:
        caller = pick(self.beginners(), number)
        self.shell.lose_early(caller)
        self.reference.lose_early(self.numbers[caller])

    @deed(10, when=lambda self: self.shell.closes, number=which)
    def close_ends(self, number: int) -> None:
        entry = pick(self.shell.closes, number)
        self.shell.close_ends(entry)
        self.reference.close_ends(entry.id)

    @deed(
        8,
        when=lambda self: self.shell.sub().idle and not self.shell.sub().gate.is_paused,
        number=which,
    )
    def peer_closes(self, number: int) -> None:
        entry = pick(list(self.shell.sub().idle), number)
        self.shell.peer_closes(entry)
        find(self.reference.idle, entry).is_dead = True

    @deed(5, duration=seconds)
    def advance(self, duration: float) -> None:
        until = self.shell.now + duration
        while (moment := min(self.shell.core.timetable.next_at, until)) < until:
            self.shell.advance(moment - self.shell.now)
            self.reference.advance(moment)
            self.tell_delay()
        self.shell.advance(until - self.shell.now)
        self.reference.advance(until)

    # ── checks ──────────────────────────────────────────────────────────────────

    def unreserved(self) -> list[Entry]:
        sub = self.shell.sub()
        return [entry for entry in sub.idle if entry not in sub.reserved]

    @deed(8, when=lambda self: self.unreserved(), number=which)
    def check(self, number: int) -> None:
        entry = pick(self.unreserved(), number)
        self.shell.reserve(entry)
        self.reference.reserve(entry.id)

    @deed(10, when=lambda self: self.shell.checks, number=which, is_well=st.booleans())
    def check_ends(self, number: int, is_well: bool) -> None:
        entry = pick(self.shell.checks, number)
        if is_well:
            self.shell.check_succeeds(entry)
            self.reference.check_succeeds(entry.id)
        else:
            self.shell.check_fails(entry)
            self.reference.check_fails(entry.id)

    @deed(2)
    def sweep(self) -> None:
        sub = self.shell.sub()
        sub.used_at = self.shell.now  # keeps it
        self.shell.sweep()
        self.reference.sweep()

    # ── orders ──────────────────────────────────────────────────────────────────

    @deed(1)
    def clear(self) -> None:
        self.shell.clear()
        self.reference.clear()

    @deed(5, when=lambda self: self.shell.dials)
    def clear_amid_dials(self) -> None:
        self.clear()

    @deed(1)
    def drain(self) -> None:
        self.drain_endpoint()
        self.reference.drain()

    @deed(1)
    def close_idle(self) -> None:
        assert self.shell.close_idle() == self.reference.close_idle()

    @deed(1, when=lambda self: self.shell.sub().gate.circuit is not None)
    def report_failure(self) -> None:
        self.shell.report_failure()
        self.reference.report_failure()

    @deed(1, when=lambda self: self.shell.sub().gate.circuit is not None)
    def report_success(self) -> None:
        self.shell.report_success()
        self.reference.report_success()

    @deed(2, limit=st.integers(1, 4))
    def set_limit(self, limit: int) -> None:
        self.shell.set_limit(limit)
        self.reference.set_limit(limit)

    @deed(1, when=lambda self: not any(peer.is_dead for peer in self.reference.idle))
    def pause(self) -> None:
        self.shell.pause()
        self.reference.is_paused = True

    @deed(8, when=lambda self: self.shell.sub().gate.is_paused)
    def resume(self) -> None:
        self.shell.resume()
        self.reference.is_paused = False
        self.reference.settle()

    # ── the comparison ──────────────────────────────────────────────────────────

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "shell"):
            return
        self.tell_delay()
        assert self.seen() == self.expected()

    def tell_delay(self) -> None:
        sub = self.shell.sub()
        self.reference.gate_opens_at = sub.gate._not_before
        assert self.reference.has_failed == sub.gate.is_failing
        assert self.reference.circuit == sub.gate.circuit_state.value

    def seen(self) -> dict[str, Any]:
        shell, sub = self.shell, self.shell.sub()
        callers: dict[object, int] = {
            caller.waiter: n for caller, n in self.numbers.items() if caller.is_waiting
        }
        return {
            "waiting": [callers[waiter] for waiter in sub.queue],
            "lent": {self.numbers[c]: c.entry.id for c in self.holders() if c.entry is not None},
            "refused": {n: c.outcome.value for c, n in self.numbers.items() if c.outcome},
            "idle": [entry.id for entry in sub.idle],
            "dialled": [(e.id, callers.get(e.awaited_by)) for e in shell.dials],
            "checking": {
                e.id: callers.get(e.awaited_by) for e in sub.limit.borrowers if e.is_checking
            },
            "reserved": sorted(entry.id for entry in sub.reserved),
            "closing": [entry.id for entry in shell.closes],
            "undrained": self.find_undrained(),
        }

    def still_waiting(self, peer: Peer) -> int | None:
        """For whom `peer` is dialled or checked, if that one has not gone."""
        return peer.awaited_by if peer.awaited_by in self.reference.queue else None

    def expected(self) -> dict[str, Any]:
        reference = self.reference
        return {
            "waiting": reference.queue,
            "lent": {caller: peer.number for caller, peer in reference.lent.items()},
            "refused": reference.refused,
            "idle": [peer.number for peer in reference.idle],
            "dialled": sorted(
                (p.number, self.still_waiting(p)) for p in [*reference.dials, *reference.void]
            ),
            "checking": {p.number: self.still_waiting(p) for p in reference.checking},
            "reserved": sorted(peer.number for peer in reference.idle if peer.is_reserved),
            "closing": [peer.number for peer in reference.closing],
            "undrained": sorted(peer.number for peer in reference.find_undrained()),
        }


def find(peers: list[Peer], entry: Entry) -> Peer:
    return next(peer for peer in peers if peer.number == entry.id)


class SharedMachine(Machine):
    """Three endpoints under a pool-wide limit, with everything that can happen to them."""

    @initialize(
        limit=st.integers(1, 3),
        total=st.integers(1, 5),
        max_connecting=st.sampled_from([None, 1]),
        min_idle=st.sampled_from([0, 0, 1]),
        max_idle_time=st.sampled_from([math.inf, 6.0]),
        max_idle=st.sampled_from([None, 1]),
        outage_grace=st.sampled_from([0.0, 1.0, math.inf]),
        is_courteous=st.booleans(),
        is_lazy=st.booleans(),
        is_checked=st.booleans(),
        is_slow_to_give_up=st.booleans(),
    )
    def open(
        self,
        limit: int,
        total: int,
        max_connecting: int | None,
        min_idle: int,
        max_idle_time: float,
        max_idle: int | None,
        outage_grace: float,
        is_courteous: bool,
        is_lazy: bool,
        is_checked: bool,
        is_slow_to_give_up: bool,
    ) -> None:
        self.shell = Shell(
            max_connections_per_endpoint=limit,
            max_connections=total,
            max_connecting_per_endpoint=max_connecting,
            min_idle_per_endpoint=min_idle,
            max_idle_time=max_idle_time,
            acquire_timeout=20.0,
            is_courteous=is_courteous,
            is_lazy=is_lazy,
            is_checked=is_checked,
            is_slow_to_give_up=is_slow_to_give_up,
            max_idle_per_endpoint=max_idle,
            outage_grace=outage_grace,
        )

    @deed(
        10,
        when=lambda self: len(self.waiters()) < 9,
        endpoint=st.sampled_from(ENDPOINTS),
        fresh=st.booleans() | st.just(False),
        timeout=st.none() | st.just(2.0),
    )
    def ask(self, endpoint: Endpoint, fresh: bool, timeout: float | None) -> None:
        self.shell.ask(endpoint, fresh=fresh, timeout=timeout)

    @deed(2, when=lambda self: self.waiters(), number=which)
    def cancel(self, number: int) -> None:
        self.shell.cancel(pick(self.waiters(), number))

    def late(self) -> list[Caller]:
        return [c for c in self.shell.callers if c.entry is not None and not c.has_begun]

    @deed(
        12, when=lambda self: self.late(), number=which, is_cancelled=st.booleans() | st.just(False)
    )
    def begin(self, number: int, is_cancelled: bool) -> None:
        caller = pick(self.late(), number)
        if is_cancelled:
            self.shell.cancel(caller)
        else:
            self.shell.begin(caller)

    @deed(
        20,
        when=lambda self: self.holders(),
        number=which,
        how=st.sampled_from(["release", "release", "retire", "discard", "interrupt", "lose early"]),
        reason=st.sampled_from(BY_FORCE),
    )
    def give_back(self, number: int, how: str, reason: CloseReason) -> None:
        caller = pick(self.holders(), number)
        assert caller.entry is not None
        if how == "interrupt":
            self.shell.interrupt(caller)
        if how == "retire":
            self.shell.retire(caller)
        if how in {"release", "retire"}:
            self.shell.release(caller)
        elif how == "lose early" and caller.entry.uses == 1:
            self.shell.lose_early(caller)
        else:
            self.shell.discard(caller, reason)

    @deed(
        16, when=lambda self: self.shell.dials, number=which, is_well=st.booleans() | st.just(True)
    )
    def dial_ends(self, number: int, is_well: bool) -> None:
        entry = pick(self.shell.dials, number)
        if is_well:
            end_dial(self.shell, entry)
        else:
            self.shell.dial_fails(entry)

    @deed(10, when=lambda self: self.shell.closes, number=which)
    def close_ends(self, number: int) -> None:
        self.shell.close_ends(pick(self.shell.closes, number))

    def idle(self) -> list[Entry]:
        subs = self.shell.core.subs.values()
        return [entry for sub in subs for entry in sub.idle if entry not in sub.reserved]

    @deed(10, when=lambda self: self.idle(), number=which, is_checked=st.booleans())
    def look(self, number: int, is_checked: bool) -> None:
        entry = pick(self.idle(), number)
        if is_checked:
            self.shell.reserve(entry)
        else:
            self.shell.peer_closes(entry)

    @deed(10, when=lambda self: self.shell.checks, number=which, is_well=st.booleans())
    def check_ends(self, number: int, is_well: bool) -> None:
        entry = pick(self.shell.checks, number)
        if is_well:
            self.shell.check_succeeds(entry)
        else:
            self.shell.check_fails(entry)

    @deed(5, duration=seconds)
    def advance(self, duration: float) -> None:
        self.shell.advance(duration)

    @deed(2)
    def sweep(self) -> None:
        self.shell.sweep()

    @deed(
        2,
        endpoint=st.sampled_from(ENDPOINTS),
        order=st.sampled_from(["clear", "drain", "close_idle"]),
    )
    def clear(self, endpoint: Endpoint, order: str) -> None:
        if order == "drain":
            self.drain_endpoint(endpoint)
        else:
            getattr(self.shell, order)(endpoint)

    @deed(2, endpoint=st.sampled_from(ENDPOINTS), limit=st.integers(1, 4))
    def set_limit(self, endpoint: Endpoint, limit: int) -> None:
        self.shell.set_limit(limit, endpoint)

    @deed(2, endpoint=st.sampled_from(ENDPOINTS))
    def pause_or_resume(self, endpoint: Endpoint) -> None:
        if self.shell.sub(endpoint).gate.is_paused:
            self.shell.resume(endpoint)
        else:
            self.shell.pause(endpoint)

    @deed(4, endpoint=st.sampled_from(ENDPOINTS), count=st.integers(1, 3))
    def warm(self, endpoint: Endpoint, count: int) -> None:
        sub = self.shell.sub(endpoint)
        if sub.warmers:
            self.shell.cancel_warming(next(iter(sub.warmers)))
        elif count <= sub.limit.total:
            self.shell.warm(count, endpoint)

    def let_all_go(self) -> None:
        self.shell.is_lazy = False
        for caller in self.late():
            self.shell.begin(caller)
        for sub in self.shell.core.subs.values():
            sub.min_idle = 0  # or there would always be something to do
        super().let_all_go()


@pytest.mark.timeout(3600 if IS_LARGE else 300)  # what is found must also be made short
@pytest.mark.parametrize("machine", [ComparedMachine, SharedMachine])
def test_long_walks_keep_to_the_rules(
    machine: type[Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    machine.done.clear()
    run_state_machine_as_test(machine, settings=WALKS)
    with capsys.disabled():
        print(f"\n  {machine.__name__}: {machine.done.total()} steps", end="")
    # Walks that never get anywhere would find everything in order.
    rare = {found.name: machine.done[found.name] for found in machine.deeds}
    assert min(rare.values()) >= 20, rare
    assert rare["release" if machine is ComparedMachine else "give_back"] >= 200
