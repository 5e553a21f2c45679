"""Random walks that are longer than the model checker's paths, in larger worlds.

One machine compares the core step by step with `tests.model.reference`; the other has several endpoints under a
pool-wide limit, where only the laws are checked. Both end by letting everything go its way: then nobody may
wait any more, and at the end of the pool nothing may be left.
"""

from __future__ import annotations

import math
import os
from typing import Any, TypeVar

from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from conpool._books import Entry
from conpool._endpoint import Endpoint
from conpool._states import ConnectionState

from .model.reference import Peer, Reference
from .support.shell import HERE, THERE, Caller, Shell

ENDPOINTS = (HERE, THERE, Endpoint("elsewhere.example", 3))

IS_LARGE = "CONPOOL_LARGE_MODEL" in os.environ
"""Longer, and different each time; else always the same."""

WALKS = settings(
    derandomize=not IS_LARGE,
    max_examples=3000 if IS_LARGE else 100,
    stateful_step_count=80 if IS_LARGE else 50,
    deadline=None,
)

T = TypeVar("T")

which = st.integers(0, 99)
"""Which of several; taken modulo their number."""

seconds = st.sampled_from([0.01, 0.5, 1.0, 3.0, 7.0])


def pick(items: list[T], number: int) -> T:
    return items[number % len(items)]


class Machine(RuleBasedStateMachine):
    """What can happen to any shell."""

    shell: Shell

    def holders(self) -> list[Caller]:
        return [caller for caller in self.shell.callers if caller.has_begun]

    def waiters(self) -> list[Caller]:
        return [caller for caller in self.shell.callers if caller.is_waiting]

    def teardown(self) -> None:
        if not hasattr(self, "shell"):
            return
        for sub in list(self.shell.core.subs.values()):
            self.shell.resume(sub.endpoint)
        self.let_all_go()
        assert self.shell.callers == []
        self.shell.shut()
        for entry in list(self.shell.closes):
            self.shell.close_ends(entry)
        for sub in self.shell.core.subs.values():
            assert not sub.capacity.borrowers
            assert sub.tally.created == sub.tally.closed

    def let_all_go(self) -> None:
        """Dials succeed, closes end, leases are given back, time passes: until nothing is left to do."""
        for _ in range(500):
            shell = self.shell
            if shell.closes:
                shell.close_ends(shell.closes[0])
            elif shell.dials:
                shell.dial_succeeds(shell.dials[0])
            elif holders := self.holders():
                shell.release(holders[0])
            elif reserved := find_reserved(shell):
                shell.put_back_unused(reserved[0])
            elif shell.core.agenda.next_at != math.inf:
                shell.advance(shell.core.agenda.next_at - shell.now)
            else:
                return
        raise AssertionError("there is always something left to do")


def find_reserved(shell: Shell) -> list[Entry]:
    """Those that are being checked, the oldest first."""
    found = [
        entry
        for sub in shell.core.subs.values()
        for entry in sub.capacity.borrowers
        if entry.state is ConnectionState.ACTIVE and not entry.leases
    ]
    return sorted(found, key=lambda entry: entry.id)


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
        is_courteous=st.booleans(),
    )
    def open(
        self,
        limit: int,
        max_connecting: int | None,
        max_uses: int | None,
        max_idle_time: float,
        max_lifetime: float,
        is_courteous: bool,
    ) -> None:
        self.shell = Shell(
            max_connections_per_endpoint=limit,
            max_connecting_per_endpoint=max_connecting,
            max_connection_uses=max_uses,
            max_idle_time=max_idle_time,
            max_connection_lifetime=max_lifetime,
            acquire_timeout=20.0,
            is_courteous=is_courteous,
        )
        self.reference = Reference(
            limit=limit,
            max_connecting=max_connecting or math.inf,
            max_uses=max_uses or math.inf,
            max_idle_time=max_idle_time,
            max_lifetime=max_lifetime,
            is_courteous=is_courteous,
        )

    # ── callers ─────────────────────────────────────────────────────────────────

    @precondition(lambda self: len(self.waiters()) < 6)
    @rule(fresh=st.booleans() | st.just(False), is_impatient=st.booleans())
    def ask(self, fresh: bool, is_impatient: bool) -> None:
        number = len(self.numbers)
        # No two deadlines at the same moment: which comes first would be a matter of taste.
        timeout = 2.0 + number / 1000 if is_impatient else None
        deadline = self.shell.now + (timeout or 20.0)
        caller = self.shell.ask(fresh=fresh, timeout=timeout)
        self.numbers[caller] = number
        self.reference.ask(number, fresh=fresh, deadline=deadline)

    @precondition(lambda self: self.waiters())
    @rule(number=which)
    def cancel(self, number: int) -> None:
        caller = pick(self.waiters(), number)
        self.shell.cancel(caller)
        self.reference.leave(self.numbers[caller])

    @precondition(lambda self: self.holders())
    @rule(number=which)
    def release(self, number: int) -> None:
        caller = pick(self.holders(), number)
        self.shell.release(caller)
        self.reference.release(self.numbers[caller])

    @precondition(lambda self: self.holders())
    @rule(number=which, is_interrupted=st.booleans())
    def discard(self, number: int, is_interrupted: bool) -> None:
        caller = pick(self.holders(), number)
        if is_interrupted:
            self.shell.interrupt(caller)
        self.shell.discard(caller)
        self.reference.discard(self.numbers[caller])

    # ── the world outside ───────────────────────────────────────────────────────

    @precondition(lambda self: self.shell.dials)
    @rule(number=which)
    def dial_succeeds(self, number: int) -> None:
        entry = self.shell.dial_succeeds(pick(self.shell.dials, number))
        self.reference.dial_succeeds(entry.id)

    @precondition(lambda self: self.shell.dials)
    @rule(number=which)
    def dial_fails(self, number: int) -> None:
        entry = self.shell.dial_fails(pick(self.shell.dials, number))
        self.reference.dial_fails(entry.id)

    @precondition(lambda self: self.shell.closes)
    @rule(number=which)
    def close_ends(self, number: int) -> None:
        entry = pick(self.shell.closes, number)
        self.shell.close_ends(entry)
        self.reference.close_ends(entry.id)

    @precondition(lambda self: self.shell.sub().idle and not self.shell.sub().paused)
    @rule(number=which)
    def peer_closes(self, number: int) -> None:
        entry = pick(list(self.shell.sub().idle), number)
        self.shell.peer_closes(entry)
        find(self.reference.idle, entry).is_dead = True

    @rule(duration=seconds)
    def advance(self, duration: float) -> None:
        until = self.shell.now + duration
        while (moment := min(self.shell.core.agenda.next_at, until)) < until:
            self.shell.advance(moment - self.shell.now)
            self.reference.advance(moment)
            self.tell_delay()
        self.shell.advance(until - self.shell.now)
        self.reference.advance(until)

    # ── checks ──────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.shell.sub().idle)
    @rule(number=which)
    def check(self, number: int) -> None:
        entry = pick(list(self.shell.sub().idle), number)
        self.shell.reserve(entry)
        self.reference.check(entry.id)

    @precondition(lambda self: bool(find_reserved(self.shell)))
    @rule(number=which, is_well=st.booleans())
    def check_ends(self, number: int, is_well: bool) -> None:
        entry = pick(find_reserved(self.shell), number)
        if is_well:
            self.shell.put_back_unused(entry)
            self.reference.check_succeeds(entry.id)
        else:
            self.shell.check_fails(entry)
            self.reference.check_fails(entry.id)

    @rule()
    def sweep(self) -> None:
        sub = self.shell.sub()
        sub.used_at = self.shell.now  # keeps it
        self.shell.sweep()
        self.reference.sweep()

    # ── orders ──────────────────────────────────────────────────────────────────

    @rule()
    def clear(self) -> None:
        self.shell.clear()
        self.reference.clear()

    @rule()
    def close_idle(self) -> None:
        count = self.shell.close_idle()
        assert count == len(self.reference.idle)
        self.reference.close_idle(count)

    @rule(limit=st.integers(1, 4))
    def set_limit(self, limit: int) -> None:
        self.shell.set_limit(limit)
        self.reference.set_limit(limit)

    @precondition(lambda self: not any(peer.is_dead for peer in self.reference.idle))
    @rule()
    def pause(self) -> None:
        self.shell.pause()
        self.reference.is_paused = True

    @precondition(lambda self: self.shell.sub().paused)
    @rule()
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
        self.reference.gate_opens_at = sub.dial_not_before
        assert self.reference.has_failed == (sub.failures > 0)

    def seen(self) -> dict[str, Any]:
        shell, sub = self.shell, self.shell.sub()
        callers = {caller.waiter: number for caller, number in self.numbers.items()}
        return {
            "waiting": [callers[waiter] for waiter in sub.queue],
            "lent": {self.numbers[c]: c.entry.id for c in self.holders() if c.entry is not None},
            "refused": {n: c.refusal.value for c, n in self.numbers.items() if c.refusal},
            "idle": [entry.id for entry in sub.idle],
            "dialled": [
                (e.id, callers[e.dial_for] if e.dial_for in sub.queue else None)  # type: ignore[index]
                for e in shell.dials
            ],
            "checked": [entry.id for entry in find_reserved(shell)],
            "closing": [entry.id for entry in shell.closes],
        }

    def expected(self) -> dict[str, Any]:
        reference = self.reference
        return {
            "waiting": reference.queue,
            "lent": {caller: peer.number for caller, peer in reference.lent.items()},
            "refused": reference.refused,
            "idle": [peer.number for peer in reference.idle],
            "dialled": [
                (p.number, p.dialled_for if p.dialled_for in reference.queue else None)
                for p in reference.dials
            ],
            "checked": sorted(peer.number for peer in reference.checked),
            "closing": [peer.number for peer in reference.closing],
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
        is_courteous=st.booleans(),
        is_lazy=st.booleans(),
    )
    def open(
        self,
        limit: int,
        total: int,
        max_connecting: int | None,
        min_idle: int,
        max_idle_time: float,
        is_courteous: bool,
        is_lazy: bool,
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
        )

    @precondition(lambda self: len(self.waiters()) < 9)
    @rule(
        endpoint=st.sampled_from(ENDPOINTS),
        fresh=st.booleans() | st.just(False),
        timeout=st.none() | st.just(2.0),
    )
    def ask(self, endpoint: Endpoint, fresh: bool, timeout: float | None) -> None:
        self.shell.ask(endpoint, fresh=fresh, timeout=timeout)

    @precondition(lambda self: self.waiters())
    @rule(number=which)
    def cancel(self, number: int) -> None:
        self.shell.cancel(pick(self.waiters(), number))

    def late(self) -> list[Caller]:
        return [c for c in self.shell.callers if c.entry is not None and not c.has_begun]

    @precondition(lambda self: self.late())
    @rule(number=which, is_cancelled=st.booleans() | st.just(False))
    def begin(self, number: int, is_cancelled: bool) -> None:
        caller = pick(self.late(), number)
        if is_cancelled:
            self.shell.cancel(caller)
        else:
            self.shell.begin(caller)

    @precondition(lambda self: self.holders())
    @rule(number=which, how=st.sampled_from(["release", "release", "discard", "interrupt"]))
    def give_back(self, number: int, how: str) -> None:
        caller = pick(self.holders(), number)
        if how == "interrupt":
            self.shell.interrupt(caller)
        getattr(self.shell, "release" if how == "release" else "discard")(caller)

    @precondition(lambda self: self.shell.dials)
    @rule(number=which, is_well=st.booleans() | st.just(True))
    def dial_ends(self, number: int, is_well: bool) -> None:
        entry = pick(self.shell.dials, number)
        if is_well:
            self.shell.dial_succeeds(entry)
        else:
            self.shell.dial_fails(entry)

    @precondition(lambda self: self.shell.closes)
    @rule(number=which)
    def close_ends(self, number: int) -> None:
        self.shell.close_ends(pick(self.shell.closes, number))

    def idle(self) -> list[Entry]:
        return [entry for sub in self.shell.core.subs.values() for entry in sub.idle]

    @precondition(lambda self: self.idle())
    @rule(number=which, is_checked=st.booleans())
    def look(self, number: int, is_checked: bool) -> None:
        entry = pick(self.idle(), number)
        if is_checked:
            self.shell.reserve(entry)
        else:
            self.shell.peer_closes(entry)

    def reserved(self) -> list[Entry]:
        held = {caller.entry for caller in self.shell.callers}
        return [entry for entry in find_reserved(self.shell) if entry not in held]

    @precondition(lambda self: self.reserved())
    @rule(number=which, is_well=st.booleans())
    def check_ends(self, number: int, is_well: bool) -> None:
        entry = pick(self.reserved(), number)
        if is_well:
            self.shell.put_back_unused(entry)
        else:
            self.shell.check_fails(entry)

    @rule(duration=seconds)
    def advance(self, duration: float) -> None:
        self.shell.advance(duration)

    @rule()
    def sweep(self) -> None:
        self.shell.sweep()

    @rule(endpoint=st.sampled_from(ENDPOINTS), order=st.sampled_from(["clear", "close_idle"]))
    def clear(self, endpoint: Endpoint, order: str) -> None:
        getattr(self.shell, order)(endpoint)

    @rule(endpoint=st.sampled_from(ENDPOINTS), limit=st.integers(1, 4))
    def set_limit(self, endpoint: Endpoint, limit: int) -> None:
        self.shell.set_limit(limit, endpoint)

    @rule(endpoint=st.sampled_from(ENDPOINTS))
    def pause_or_resume(self, endpoint: Endpoint) -> None:
        if self.shell.sub(endpoint).paused:
            self.shell.resume(endpoint)
        else:
            self.shell.pause(endpoint)

    @rule(endpoint=st.sampled_from(ENDPOINTS), count=st.integers(1, 3))
    def warm(self, endpoint: Endpoint, count: int) -> None:
        sub = self.shell.sub(endpoint)
        if sub.warmers:
            self.shell.cancel_warming(sub.warmers[0])
        elif count <= sub.capacity.total:
            self.shell.warm(count, endpoint)

    def let_all_go(self) -> None:
        self.shell.is_lazy = False
        for caller in self.late():
            self.shell.begin(caller)
        for sub in self.shell.core.subs.values():
            sub.min_idle = 0  # or there would always be something to do
        super().let_all_go()


TestCompared = ComparedMachine.TestCase
TestCompared.settings = WALKS
TestShared = SharedMachine.TestCase
TestShared.settings = WALKS
