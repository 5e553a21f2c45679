"""The shell, played by hand: a test says what happens outside, and sees what the core makes of it.

`Shell` does what the engine and `_lending` do, synchronously and without sockets: it performs
effects in order, looks at connections before they are lent, and reports. Dials, resets and graceful
closes stay pending until the test ends them; time passes when the test says so. After every step it
calls `invariants.check`, and at every hand-over it checks for itself, from what it has seen, that
the connection may be lent (G2, G21, G24) and that nobody was passed over (G13).

    shell = Shell(max_connections_per_endpoint=1)
    lease = shell.lend(HERE)
    waiting = shell.ask(HERE)
    shell.release(lease)
    assert waiting.entry is lease.entry
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any, Final, TypeAlias, TypeVar, TypeVarTuple, final

from conpool._core import keeping, records, straight
from conpool._core.core import Core
from conpool._core.effects import Check, CircuitChanged, Close, Dial, GiveUp, Reset
from conpool._core.gate import Gate
from conpool._core.records import AnySubPool
from conpool._values.config import PoolConfig
from conpool._values.endpoint import AnyEndpoint, Endpoint
from conpool._values.group import EndpointGroup, Target
from conpool._values.states import (
    CircuitState,
    CloseReason,
    ConnectionState,
    PoolState,
    WaitOutcome,
)

from .invariants import check

HERE: Final = Endpoint("here.example", 1)
THERE: Final = Endpoint("there.example", 2)

PATIENT: Final = {
    "acquire_timeout": math.inf,
    "max_idle_time": math.inf,
    "max_connection_lifetime": math.inf,
    "lifetime_jitter": 0.0,
}
"""Settings under which nothing happens merely because time passes."""


Ts = TypeVarTuple("Ts")
R = TypeVar("R")


class Refused(Exception):
    """What a dial fails with."""


@final
class Wire:
    """What the shell knows of an open connection, independently of the core."""

    __slots__ = (
        "capacity",
        "cleared",
        "dead",
        "idle_since",
        "is_handed_over",
        "is_spoilt",
        "leases",
        "needs_reset",
        "opened_at",
        "told",
    )

    def __init__(self, now: float, capacity: int = 1) -> None:
        self.opened_at = now
        self.idle_since = now
        self.leases = 0
        self.is_handed_over = False
        """Whether the caller to whom it was handed over has not run yet."""
        self.dead = False
        """Whether the peer has closed it. The core learns it when somebody looks."""
        self.cleared = False
        """Whether it was there when its endpoint was cleared."""
        self.capacity = capacity
        """How many leases may share it, as its peer says."""
        self.told = capacity
        """The same, as the core was told last."""
        self.is_spoilt = False
        """Whether the core has heard that it must take no new leases."""
        self.needs_reset = False
        """Whether a lease has ended since its last reset, if there are resets."""


@final
class Caller:
    """A task that asks for a connection."""

    __slots__ = (
        "came_after",
        "endpoint",
        "entry",
        "error",
        "failed",
        "is_hit",
        "lease",
        "outcome",
        "passed",
        "waiter",
    )

    def __init__(self, endpoint: Target, came_after: int = 0) -> None:
        self.endpoint = endpoint
        self.came_after = came_after
        """How many dials had begun when it asked."""
        self.failed: set[AnyEndpoint] = set()
        """Where a dial has failed that began after it had asked."""
        self.is_hit = False
        """Whether it got an idle connection, or joined one, without a wait."""
        self.waiter: Waiter | None = None
        """Its place in the queue, while it waits."""
        self.entry: Entry | None = None
        """The connection handed to it, until it gives that back."""
        self.lease: Lease | None = None
        """Its lease, which begins when it has run since the hand-over."""
        self.outcome: WaitOutcome | None = None
        self.error: Exception | None = None
        self.passed = 0
        """How many were served that came later, while it was first in line for the pool's slots."""

    @property
    def is_waiting(self) -> bool:
        return self.waiter is not None

    @property
    def has_begun(self) -> bool:
        return self.lease is not None

    def __repr__(self) -> str:
        state = self.waiter or self.entry or self.outcome or "done"
        return f"<Caller of {self.endpoint}: {state}>"


@final
class SteadyRandom(Random):
    """Chance that never varies: no jitter of lifetimes, and every back-off as long as it can be."""

    def random(self) -> float:
        return 0.0

    def uniform(self, a: float, b: float) -> float:
        return b


Entry: TypeAlias = records.Entry[Wire, Caller]
Lease: TypeAlias = records.Lease[Wire, Caller]
SubPool: TypeAlias = records.SubPool[Wire, Caller]
Waiter: TypeAlias = records.Waiter[Wire, Caller]
Warmer: TypeAlias = records.Warmer[Caller]


@final
class Shell:
    """One core, and all that surrounds it."""

    __slots__ = (
        "callers",
        "checks",
        "circuits",
        "closes",
        "core",
        "dialled",
        "dials",
        "goes_straight",
        "has_resets",
        "is_courteous",
        "is_lazy",
        "is_slow_to_give_up",
        "is_watched",
        "now",
        "resets",
        "shares",
        "warmed",
        "went_straight",
    )

    def __init__(
        self,
        config: PoolConfig | None = None,
        *,
        overrides: dict[AnyEndpoint, PoolConfig] | None = None,
        random: Random | None = None,
        is_courteous: bool = False,
        is_lazy: bool = False,
        is_slow_to_give_up: bool = False,
        is_checked: bool = False,
        is_watched: bool = True,
        has_resets: bool = False,
        shares: bool = False,
        **settings: Any,
    ) -> None:
        """`settings` are fields of the configuration; whatever they leave out is `PATIENT`."""
        config = config or PoolConfig(**(PATIENT | settings))
        self.core: Core[Wire, Caller] = Core(
            config,
            overrides or {},
            random or SteadyRandom(),
            is_checked=is_checked,
            resets=has_resets,
            shares=shares,
        )
        self.core.move(PoolState.OPEN)
        self.is_courteous = is_courteous
        """Whether connections say goodbye: their graceful closes take until `close_ends`."""
        self.is_lazy = is_lazy
        """Whether tasks run late: a lease begins only with `begin`, and much may happen before."""
        self.is_slow_to_give_up = is_slow_to_give_up
        """Whether a dial that is given up goes on until the test ends it."""
        self.has_resets = has_resets
        """Whether a connection is reset after each lease."""
        self.is_watched = is_watched
        """Whether the books are checked after each step; not where thousands of waiters are."""
        self.shares = shares
        """Whether leases share connections: two each, at first."""
        self.goes_straight = True
        """Whether it takes the straight line where it may."""
        self.went_straight = 0
        """How often it has taken it."""
        self.now = 0.0
        self.dials: list[Entry] = []
        """Dials under way, the oldest first."""
        self.dialled = 0
        """How many dials have begun."""
        self.checks: list[Entry] = []
        """Checks under way, the oldest first."""
        self.closes: list[Entry] = []
        """Graceful closes under way, the oldest first."""
        self.resets: list[Entry] = []
        """Resets under way, the oldest first; their connection may have been closed since."""
        self.callers: list[Caller] = []
        """Those who wait or hold a connection."""
        self.circuits: dict[AnyEndpoint, CircuitState] = {}
        """The state of each circuit that has changed, as the core has said."""
        self.warmed: list[Warmer] = []
        """Warmers that have been told to go on."""

    def sub(self, endpoint: AnyEndpoint = HERE) -> SubPool:
        return self.core.find_subpool(endpoint, self.now)

    # ── asking ──────────────────────────────────────────────────────────────────

    def ask(
        self,
        endpoint: Target = HERE,
        *,
        fresh: bool = False,
        timeout: float | None = None,
        is_first: bool = False,
    ) -> Caller:
        """Somebody asks for a connection: it gets an idle one, or joins the queue."""
        caller = Caller(endpoint, self.dialled)
        if isinstance(endpoint, EndpointGroup):
            sub: SubPool = self.core.balancer.pick(endpoint, self.now, fresh=fresh)
            if not sub.gate.is_usable(self.now):
                caller.outcome = WaitOutcome.ALL_FAILED
                return caller
        else:
            sub = self.sub(endpoint)
        entry = None if fresh or is_first else self.join_or_take(sub.endpoint)
        self.callers.append(caller)
        if entry is not None:
            caller.is_hit = True
            self._hand_over(entry, caller)
            self.settle()
            return caller
        deadline = self.now + (sub.acquire_timeout if timeout is None else timeout)
        waiter: Waiter = records.Waiter((sub,), self.now, deadline, fresh)
        if isinstance(endpoint, EndpointGroup):
            self.core.balancer.join(waiter, endpoint, sub, self.now)
        waiter.had_turn = is_first
        self._queue(caller, waiter)
        return caller

    def _queue(self, caller: Caller, waiter: Waiter) -> None:
        waiter.task = caller
        caller.waiter = waiter
        self.report(self.core.queued, waiter)

    def join_or_take(self, endpoint: AnyEndpoint) -> Entry | None:
        """Join a connection that has room, or take an idle one."""
        sub = self.sub(endpoint)
        if self.goes_straight and sub.is_straight and not sub.waiting:
            entry = straight.take(sub, self.now)
            if entry is not None and not entry.link.dead:
                self.went_straight += 1
                return entry
            if entry is not None:
                self.report(self.core.returned_unused, entry, None)
        if not self.shares:
            return self._take_unless_due(endpoint)
        if sub.queue or sub.gate.is_paused or self.core.pool_limit.wanted:
            return None
        if not sub.roomy:
            self.ask_all(sub)
        while (entry := self.core.sharing.find_room(sub, self.now)) is not None:
            if entry.holders < self.note_capacity(entry):
                self.core.sharing.join(entry, self.now)
                return entry
        while (entry := self._take_unless_due(endpoint)) is not None:
            if self.note_capacity(entry) > 0:
                self.core.sharing.join(entry, self.now)
                return entry
            self.core.returned_unused(entry, None, self.now)
        return None

    def _take_unless_due(self, endpoint: AnyEndpoint) -> Entry | None:
        entry = self.take(endpoint)
        if entry is not None and keeping.needs_check(entry, self.now):
            self.core.returned_unused(entry, None, self.now)
            return None
        return entry

    def take(self, endpoint: AnyEndpoint = HERE) -> Entry | None:
        """Take the newest idle connection that is alive, unless others come first."""
        sub = self.sub(endpoint)
        if sub.queue or sub.gate.is_paused:
            return None
        while (entry := self.core.pop_newest(sub, self.now)) is not None:
            if not entry.link.dead:
                break
            self.core.condemned(entry, CloseReason.PEER_CLOSED, self.now)
        self.settle()
        return entry

    def lend(self, endpoint: AnyEndpoint = HERE) -> Caller:
        """Somebody asks for a connection and gets one, dialled if need be."""
        caller = self.ask(endpoint)
        if caller.is_waiting:
            self.dial_succeeds(endpoint)
        assert caller.entry is not None, caller
        return caller

    def begin(self, caller: Caller) -> None:
        """`caller` runs again: its lease begins, or it goes back, as its connection was closed."""
        entry = caller.entry
        assert entry is not None
        assert not caller.has_begun
        is_fit = entry.state is ConnectionState.ACTIVE and entry.generation == entry.sub.generation
        if is_fit and (not entry.holders or entry.holders <= self.note_capacity(entry)):
            self._begin(entry, caller)
            self.settle()
            return
        caller.entry = None
        caller.is_hit = False
        self._note_hand_over(entry)
        self.core.returned_unused(entry, None, self.now)
        if self.core.is_open:
            # What it came from may have been dropped.
            target = caller.endpoint
            sub = self.sub(entry.sub.endpoint if isinstance(target, EndpointGroup) else target)
            waiter: Waiter = records.Waiter((sub,), self.now, math.inf, False)
            waiter.had_turn = True
            if isinstance(target, EndpointGroup):
                self.core.balancer.join(waiter, target, sub, self.now)
            self._queue(caller, waiter)
        else:
            self.callers.remove(caller)

    def cancel(self, caller: Caller) -> None:
        """`caller` is cancelled while it waits, or between hand-over and lease."""
        self.callers.remove(caller)
        if caller.waiter is not None:
            waiter, caller.waiter = caller.waiter, None
            if self.goes_straight and straight.withdraw(waiter, self.core.timetable):
                self.went_straight += 1
                self.settle()
            else:
                self.report(self.core.withdrawn, waiter)
        else:
            entry, caller.entry = caller.entry, None
            assert entry is not None
            assert not caller.has_begun
            self._note_hand_over(entry)
            self.report(self.core.returned_unused, entry, None)

    # ── giving back ─────────────────────────────────────────────────────────────

    def release(self, caller: Caller) -> None:
        """The lease ends, and the connection is clean."""
        lease = self._end_lease(caller)
        entry = lease.entry
        if entry.state is ConnectionState.ACTIVE:
            entry.link.idle_since = self.now
            if self.shares:
                self.note_capacity(entry)
        sub = entry.sub
        is_simple = entry.state is ConnectionState.ACTIVE and self.core.is_open
        if self.goes_straight and sub.is_straight and is_simple:
            waiter = straight.pass_on(lease, self.now, self.core.timetable) if sub.waiting else None
            if waiter is not None:
                self.went_straight += 1
                self._wake(waiter)
                self.settle()
                return
            if not sub.waiting and straight.keep(lease, self.now):
                self.went_straight += 1
                self.settle()
                return
        self.report(self.core.released, lease, None)

    def discard(self, caller: Caller, reason: CloseReason = CloseReason.ERROR) -> None:
        """The lease ends, and the connection is not clean: it is closed by force.

        If others share it, it is closed after them.
        """
        lease = self._end_lease(caller)
        lease.entry.link.is_spoilt = True
        self.report(self.core.released, lease, reason)

    def retire(self, caller: Caller) -> None:
        """The holder wants the connection closed when the lease ends."""
        assert caller.lease is not None
        caller.lease.entry.link.is_spoilt = True
        self.report(self.core.retired, caller.lease)

    def interrupt(self, caller: Caller) -> None:
        """The connection is closed under its lease, which goes on."""
        assert caller.entry is not None
        self.report(self.core.condemned, caller.entry, CloseReason.CLEARED)

    def put_back_unused(self, entry: Entry) -> None:
        """What was taken is not wanted after all."""
        self.report(self.core.returned_unused, entry, None)

    def lose_early(self, caller: Caller) -> None:
        """The peer ends the connection in its first lease, before its first byte."""
        lease = self._end_lease(caller)
        self.core.released(lease, CloseReason.PEER_CLOSED, self.now)
        self.report(self.core.failures.lost_early, lease.entry, Refused())

    # ── sharing ─────────────────────────────────────────────────────────────────

    def set_capacity(self, entry: Entry, capacity: int) -> None:
        """The peer of `entry` takes that many leases from now on; the core learns it when asked."""
        entry.link.capacity = capacity

    def note_capacity(self, entry: Entry) -> int:
        """Tell the core how many leases `entry` can take now."""
        wire = entry.link
        wire.told = wire.capacity
        wire.is_spoilt = wire.is_spoilt or not wire.capacity
        self.core.sharing.capacity_noted(entry, wire.capacity, self.now)
        return wire.capacity

    def ask_all(self, sub: SubPool) -> None:
        """Find out how many leases the lent connections of `sub` can take now."""
        for entry in sub.limit.borrowers:
            if entry.holders:
                self.note_capacity(entry)

    def companion_ends(self, entry: Entry) -> None:
        """What runs beside `entry` is over: it is closed under its leases."""
        self.report(self.core.condemned, entry, CloseReason.PEER_CLOSED)

    # ── resets ──────────────────────────────────────────────────────────────────

    def reset_succeeds(self, entry: Entry) -> None:
        """What the last lease of `entry` has left behind is cleared."""
        self.resets.remove(entry)
        entry.link.needs_reset = False
        self.report(self.core.reset_over, entry, None)

    def reset_fails(self, entry: Entry, reason: CloseReason = CloseReason.ERROR) -> None:
        """`entry` could not be reset."""
        self.resets.remove(entry)
        self.report(self.core.reset_over, entry, reason)

    # ── checks ──────────────────────────────────────────────────────────────────

    def reserve(self, entry: Entry) -> None:
        """An idle connection is checked in the background."""
        self.report(self.core.checks.reserved, entry)
        self.checks.append(entry)

    def check_succeeds(self, entry: Entry) -> None:
        """The peer of a connection that is checked has answered."""
        self.checks.remove(entry)
        self.core.checks.answered(entry, self.now)
        self.report(self.core.checked, entry, None)

    def check_fails(self, entry: Entry, reason: CloseReason = CloseReason.UNHEALTHY) -> None:
        """The check of a connection has failed."""
        self.checks.remove(entry)
        self.report(self.core.checked, entry, reason)

    # ── what happens outside ────────────────────────────────────────────────────

    def dial_succeeds(self, which: AnyEndpoint | Entry = HERE) -> Entry:
        """The dial `which`, or the oldest one to that endpoint, succeeds."""
        entry = self._pop_dial(which)
        wire = Wire(self.now, 2 if self.shares else 1)
        wire.cleared = hasattr(entry, "link") and entry.link.cleared
        entry.link = wire
        if self.shares:
            self.note_capacity(entry)
        self.report(self.core.dialled, entry)
        return entry

    def dial_fails(self, which: AnyEndpoint | Entry = HERE, *, is_servers: bool = True) -> Entry:
        """The dial `which`, or the oldest one to that endpoint, fails; `is_servers`: its fault."""
        entry = self._pop_dial(which)
        for caller in self.callers:
            if entry.id > caller.came_after:
                caller.failed.add(entry.sub.endpoint)
        failed = partial(self.core.failures.dial_failed, is_servers=is_servers)
        self.report(failed, entry, Refused())
        return entry

    def dial_ends(self, entry: Entry) -> None:
        """A dial that was given up is over."""
        assert entry.is_given_up
        self.dials.remove(entry)
        self.report(self.core.failures.dial_failed, entry, None)

    def close_ends(self, which: AnyEndpoint | Entry = HERE) -> None:
        """The graceful close `which`, or the oldest one of that endpoint, ends."""
        entry = which if isinstance(which, records.Entry) else _find(self.closes, which)
        self.closes.remove(entry)
        self.report(self.core.closed, entry)

    def peer_closes(self, entry: Entry) -> None:
        """The peer closes an open connection; nobody has looked yet."""
        entry.link.dead = True

    def advance(self, seconds: float) -> None:
        """Time passes, and the timer rings as often as the core has asked for."""
        until = self.now + seconds
        assert until < math.inf, "nothing is expected any more"
        while (next_at := self.core.timetable.next_at) <= until:
            self.now = max(self.now, next_at)
            self.report(self.core.ticked)
        self.now = until
        self.settle()

    def sweep(self) -> None:
        """The reaper looks at everything once."""
        for sub in list(self.core.subs.values()):
            self.ask_all(sub)
            self.report(self.core.swept, sub)
            for entry in list(sub.idle):
                if entry.state is ConnectionState.IDLE and entry not in sub.reserved:
                    reason = CloseReason.PEER_CLOSED if entry.link.dead else None
                    self.report(self.core.inspected, entry, reason)

    # ── what the pool is told ───────────────────────────────────────────────────

    def clear(self, endpoint: AnyEndpoint = HERE, *, interrupts: bool = False) -> None:
        sub = self.sub(endpoint)
        for entry in sub.limit.borrowers:
            if not hasattr(entry, "link"):  # still being dialled
                entry.link = Wire(self.now)
            entry.link.cleared = True
        self.report(self.core.orders.cleared, sub, interrupts)

    def close_idle(self, endpoint: AnyEndpoint = HERE) -> int:
        return self.report(self.core.orders.idle_closed, self.sub(endpoint), CloseReason.CLEARED)

    def pause(self, endpoint: AnyEndpoint = HERE) -> None:
        self.report(self.core.orders.paused, self.sub(endpoint))

    def resume(self, endpoint: AnyEndpoint = HERE) -> None:
        self.report(self.core.orders.resumed, self.sub(endpoint))

    def mark(self, endpoint: AnyEndpoint = HERE, *, is_unhealthy: bool = True) -> None:
        self.report(self.core.orders.marked, self.sub(endpoint), is_unhealthy)

    def report_failure(self, endpoint: AnyEndpoint = HERE) -> None:
        self.report(self.core.orders.failure_reported, self.sub(endpoint))

    def report_success(self, endpoint: AnyEndpoint = HERE) -> None:
        self.report(self.core.orders.success_reported, self.sub(endpoint))

    def set_limit(self, total: int, endpoint: AnyEndpoint = HERE) -> None:
        self.report(self.core.orders.limit_set, self.sub(endpoint), total)

    def set_pool_limit(self, total: int) -> None:
        self.report(self.core.orders.pool_limit_set, total)

    def retire_all(
        self, over: float, endpoint: AnyEndpoint = HERE, share: float = 1.0
    ) -> list[Entry]:
        """Have all that is there now retired in the next `over` seconds."""
        return self.report(self.core.orders.retiring.begin, self.sub(endpoint), over, share)

    def warm(self, count: int, endpoint: AnyEndpoint = HERE) -> Warmer:
        warmer: Warmer = records.Warmer(self.sub(endpoint), count)
        self.report(self.core.orders.warming_asked, warmer)
        return warmer

    def cancel_warming(self, warmer: Warmer) -> None:
        self.report(self.core.orders.warming_ended, warmer)

    def shut(self) -> None:
        """The pool closes; its dials are given up."""
        self.report(self.core.shut)
        while self.core.ending.is_under_way:
            self.report(self.core.ending.went_on)
        for entry in list(self.dials):
            self.dials.remove(entry)
            self.report(self.core.failures.dial_failed, entry, None)

    # ── the other half of the conversation ──────────────────────────────────────

    def report(self, happened: Callable[[*Ts, float], R], *args: *Ts) -> R:
        """Report to the core what has `happened`, as the engine does."""
        outcome = happened(*args, self.now)
        self.settle()
        return outcome

    def settle(self) -> None:
        """Do what the core wants done, then look whether its books are right."""
        self.perform()
        if self.is_watched:
            check(self.core, self.now)
            if self.shares:
                self._check_sharing()

    def _check_sharing(self) -> None:
        """A connection is held by whom the core says, and outlives its last lease if it may."""
        held = Counter(caller.entry for caller in self.callers if caller.entry is not None)
        for sub in self.core.subs.values():
            for entry in sub.limit.borrowers:
                if entry.state in {ConnectionState.ACTIVE, ConnectionState.IDLE}:
                    assert entry.holders == held[entry], f"{entry!r} is held by {held[entry]}"
                    assert held[entry] or not entry.link.is_spoilt, f"{entry!r} is kept"

    def perform(self) -> None:
        effects = self.core.effects
        while True:
            self.core.pump(self.now)
            if not effects:
                break
            effect = effects.popleft()
            if isinstance(effect, records.Waiter):
                self._wake(effect)
            elif isinstance(effect, records.Warmer):
                self.warmed.append(effect)
            elif isinstance(effect, Dial):
                self.dials.append(effect.entry)
                self.dialled += 1
            elif isinstance(effect, GiveUp):
                self._give_up(effect.entry)
            elif isinstance(effect, Check):
                self._check(effect.entry)
            elif isinstance(effect, Reset):
                self.resets.append(effect.entry)
            elif isinstance(effect, CircuitChanged):
                assert self.circuits.get(effect.endpoint, CircuitState.CLOSED) is effect.old
                self.circuits[effect.endpoint] = effect.new
            else:
                assert isinstance(effect, Close), effect
                self._close(effect)

    def _give_up(self, entry: Entry) -> None:
        if not self.is_slow_to_give_up:
            self.dials.remove(entry)
            self.core.failures.dial_failed(entry, None, self.now)

    def _check(self, entry: Entry) -> None:
        if entry.link.dead:
            self.core.checked(entry, CloseReason.PEER_CLOSED, self.now)
        elif keeping.needs_check(entry, self.now):
            self.checks.append(entry)
        else:
            self.core.checked(entry, None, self.now)

    def _close(self, effect: Close[Wire, Caller]) -> None:
        if effect.gracefully and self.is_courteous:
            self.closes.append(effect.entry)
        else:
            self.core.closed(effect.entry, self.now)

    def _wake(self, waiter: Waiter) -> None:
        caller = waiter.task
        assert caller is not None
        entry = waiter.entry
        caller.waiter = None
        if entry is None:
            caller.outcome, caller.error = waiter.outcome, waiter.error
            self.callers.remove(caller)
            if waiter.outcome is WaitOutcome.ALL_FAILED:
                _check_refusal(waiter, caller, self.now)
            return
        self._check_turn(waiter, entry)
        assert self.now < waiter.deadline, f"{waiter!r} is served too late"
        self._hand_over(entry, caller)

    def _check_turn(self, waiter: Waiter, entry: Entry) -> None:
        """G13: nobody who came before, and could have had `entry`, still waits."""
        is_new = is_newly_dialled(entry)
        assert is_new or not waiter.fresh, f"{waiter!r} wanted a new connection, got {entry!r}"
        for other in entry.sub.queue:
            is_barred = other.group is not None and entry.sub.gate.is_unhealthy
            if other.number < waiter.number and not is_barred:
                passed_over = is_new or not other.fresh
                assert not passed_over, f"{waiter!r} was served before {other!r} (G13)"

    def _hand_over(self, entry: Entry, caller: Caller) -> None:
        sub, wire = entry.sub, entry.link
        assert not sub.gate.is_paused, f"{entry!r} is lent in a pause"
        is_group = isinstance(caller.endpoint, EndpointGroup)
        assert not (is_group and sub.gate.is_unhealthy), "a group goes without it"
        sharing = [caller for caller in self.callers if caller.entry is entry]
        begun = sum(caller.has_begun for caller in sharing)
        assert wire.leases + len(sharing) - begun < sub.max_uses, f"{entry!r} is used up (G21)"
        assert len(sharing) < wire.told, f"{entry!r} is lent {len(sharing)} times (G2)"
        assert not wire.is_spoilt, f"{entry!r} takes no new leases"
        assert sharing or not wire.needs_reset, f"{entry!r} is not as it was"
        assert self.now - wire.opened_at < sub.config.max_connection_lifetime, "too old (G21)"
        if entry.was_idle:
            assert self.now - wire.idle_since < sub.max_idle_time, "idle for too long (G21)"
        caller.entry = entry
        wire.is_handed_over = True
        if not self.is_lazy:
            self._begin(entry, caller)

    def _note_hand_over(self, entry: Entry) -> None:
        """One to whom `entry` was handed over has run."""
        entry.link.is_handed_over = any(
            caller.entry is entry and not caller.has_begun for caller in self.callers
        )

    def _begin(self, entry: Entry, caller: Caller) -> None:
        assert entry.state is ConnectionState.ACTIVE, entry
        assert len(entry.leases) < entry.link.told, f"{entry!r} is lent already (G2)"
        assert not entry.link.cleared, f"{entry!r} was cleared (G24)"
        entry.link.leases += 1
        entry.link.needs_reset = self.has_resets
        if self.goes_straight and caller.is_hit and entry.sub.is_straight:
            self.went_straight += 1
            caller.lease = straight.begin(entry, caller, self.now)
        else:
            caller.lease = self.core.lease_began(entry, caller, 0.0, self.now)
        self._note_hand_over(entry)

    def _end_lease(self, caller: Caller) -> Lease:
        lease = caller.lease
        assert lease is not None, caller
        caller.entry = caller.lease = None
        self.callers.remove(caller)
        return lease

    def _pop_dial(self, which: AnyEndpoint | Entry) -> Entry:
        entry = which if isinstance(which, records.Entry) else _find(self.dials, which)
        self.dials.remove(entry)
        return entry


def _check_refusal(waiter: Waiter, caller: Caller, now: float) -> None:
    """G29, G33: no member may yet serve it.

    Each was tried since it came, or is marked, or its circuit lets no dial through.
    """
    for sub in waiter.subs:
        circuit = sub.gate.circuit
        is_cut_off = circuit is not None and not circuit.count_places(now)
        if sub.gate.is_unhealthy:
            continue
        is_tried = sub.endpoint in caller.failed
        assert is_tried or is_cut_off, f"{waiter!r} was refused before {sub!r} was tried"
        assert not sub.gate.is_paused, f"{waiter!r} was refused in a pause of {sub!r}"
        in_use = [e for e in sub.limit.borrowers if e.state is ConnectionState.ACTIVE]
        lasting = [e for e in in_use if e.doomed is None and e.generation == sub.generation]
        assert waiter.fresh or not lasting, f"{waiter!r} was refused, and {sub!r} may serve it"
    assert set(waiter.reasons or ()) == {sub.endpoint for sub in waiter.subs}


def make_sub(endpoint: AnyEndpoint = HERE, now: float = 0.0, **settings: Any) -> AnySubPool:
    """Make a sub-pool that belongs to no core."""
    return records.SubPool(endpoint, PoolConfig(**settings), Gate(SteadyRandom()), now)


def lend_many(shell: Shell, count: int) -> list[Caller]:
    """That many ask for connections and get one each."""
    return [shell.lend() for _ in range(count)]


def ids(shell: Shell) -> list[int]:
    """The numbers of the idle connections, the oldest first."""
    return [entry.id for entry in shell.sub().idle]


def close_reasons(shell: Shell) -> Mapping[CloseReason, int]:
    """How many connections were closed for each reason."""
    return shell.sub().counters.closed_by_reason


def is_newly_dialled(entry: Entry) -> bool:
    """Whether nobody has had `entry` yet, and it was not laid aside either."""
    return not entry.uses and not entry.was_idle


def _find(entries: list[Entry], endpoint: AnyEndpoint) -> Entry:
    return next(entry for entry in entries if entry.sub.endpoint == endpoint)
