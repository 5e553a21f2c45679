"""The whole policy of the pool, without I/O: who is lent what, what is dialled, what is closed.

The shell (`_engine`, and above it `_lending` and `_pool`) asks questions, and reports in the past
tense what has happened. The core changes its books at once; `pump` then decides what can be done,
and `effects` says what the shell must do. The core takes `now` as an argument, awaits nothing, and
knows neither tasks nor sockets, so the real code can be model-checked.

1. `pop_newest` takes an idle connection, the newest first, and closes those that have lapsed on
   the way. The shell probes what it got, and lends it or reports it `condemned`.
2. A caller that finds none, or one that must be checked, is `queued`. A dial or a check is under
   way for a waiter if the limits and the gate allow one; the waiter takes whatever comes first.
3. A connection comes back (`released`, `returned_unused`), has been `checked` or reset
   (`reset_over`), or comes into being (`dialled`). All of them end in `Serving.place`: closed, if
   it has outlived its lifetime, uses, generation or limit; lent to the oldest waiter that can have
   it; else laid on the idle stack.
4. A connection that leaves (`condemned`) keeps its slot until the shell reports it `closed`.
5. A dial that has failed is news (`failures`). Nobody is told of it who may still be served.
6. Under a pool-wide limit slots go to the sub-pools in line for them, oldest waiter first.
7. The ledger notes every sub-pool that a report has touched. `pump` turns free slots and idle
   connections into leases and dials there until none is left. Only it does: no wake-up is lost.
8. What concerns many is done a few at a time (`chores`).

These calls and the pump change a connection's state:

    CONNECTING → ACTIVE  dialled            ACTIVE → IDLE     released, returned_unused, dialled,
    CONNECTING → CLOSED  dial_failed                          checked, reset_over
    IDLE → ACTIVE        pop_newest, pump   ACTIVE → CLOSING  the same five, and condemned
    IDLE → CLOSING       condemned, and whatever expires, evicts or clears
    CLOSING → CLOSED     closed
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Final, Generic, final

from conpool._core import keeping, standing
from conpool._core.balancer import Balancer
from conpool._core.checks import Checks
from conpool._core.chores import Chores
from conpool._core.dials import Dials
from conpool._core.effects import Effect
from conpool._core.ending import Ending
from conpool._core.failures import Failures
from conpool._core.gate import Gate
from conpool._core.ledger import Ledger
from conpool._core.orders import Orders
from conpool._core.pool_limit import PoolLimit
from conpool._core.records import (
    AnyEntry,
    AnyLease,
    AnySubPool,
    AnyWaiter,
    Entry,
    Lease,
    LinkT,
    SubPool,
    TaskT,
)
from conpool._core.refusing import Refusing, equip
from conpool._core.serving import Serving
from conpool._core.sharing import Sharing
from conpool._core.timetable import Timetable
from conpool._core.warming import Warming
from conpool._stats.histogram import MOST_RECENT
from conpool._stats.memory import Memory
from conpool._values.config import PoolConfig
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import POOL_TRANSITIONS, CloseReason, ConnectionState, PoolState

_ACTIVE = ConnectionState.ACTIVE
_OPEN = PoolState.OPEN

KEEP_BARE: Final = 5.0
"""Seconds after its last use for which the pool remembers an endpoint that holds only counters.

So a crawler's million endpoints take the memory of those of the last few seconds.
"""


@final
class Core(Generic[LinkT, TaskT]):
    """The policy of one pool, and the way into its books."""

    __slots__ = (
        "_chores",
        "_config",
        "_dials",
        "_is_plain",
        "_ledger",
        "_overrides",
        "_random",
        "_refusing",
        "_resets",
        "_serving",
        "_shares",
        "_warming",
        "balancer",
        "checks",
        "effects",
        "ending",
        "failures",
        "is_checked",
        "may_queue",
        "memory",
        "orders",
        "pool_limit",
        "pop_known",
        "pop_newest",
        "queued",
        "sharing",
        "state",
        "subs",
        "ticked",
        "timetable",
        "touched",
    )

    def __init__(
        self,
        config: PoolConfig,
        overrides: Mapping[AnyEndpoint, PoolConfig],
        random: Random,
        *,
        is_checked: bool = False,
        resets: bool = False,
        shares: bool = False,
        is_plain: bool = True,
    ) -> None:
        self._config = config
        self._overrides = overrides
        self._random = random
        self.pool_limit = PoolLimit(config.max_connections)
        self.is_checked = is_checked
        """Whether there is a way to ask a peer: otherwise no check is ever due."""
        self._resets = resets
        self._is_plain = is_plain
        self._shares = shares
        self._ledger = Ledger(self.pool_limit)
        self._chores = Chores(self._ledger)
        self._warming = Warming(self._ledger)
        self._refusing = Refusing(self._ledger)
        self.balancer = Balancer(self.find_subpool)
        self._dials = Dials(self._ledger, self._warming, self._refusing, self.balancer)
        self.sharing = Sharing(self._ledger, self._dials, self._refusing)
        self._serving = Serving(self._ledger, self._dials, self.sharing, self._refusing, self)
        self.checks = Checks(self._ledger, self._chores, self._warming)
        self.failures = Failures(self._ledger, self._chores)
        self.ending = Ending(self._ledger, self._chores)
        self.orders = Orders(self._ledger, self._chores, self.failures)
        self.pop_newest: Callable[[AnySubPool, float], Entry[LinkT, TaskT] | None]
        self.pop_newest = self._serving.pop_newest
        self.pop_known = self._serving.pop_known
        self.may_queue = self._dials.may_queue
        self.queued = self._ledger.enqueue
        self.ticked = self._chores.ticked
        self.effects: deque[Effect[LinkT, TaskT]] = self._ledger.effects
        self.touched: dict[SubPool[LinkT, TaskT], None] = self._ledger.touched
        """Not empty: `pump` has something to look at."""
        self.timetable: Timetable = self._ledger.timetable
        self.subs: dict[AnyEndpoint, SubPool[LinkT, TaskT]] = {}
        self.memory = Memory()
        """The counters of sub-pools that have been dropped."""
        self.state = PoolState.NEW

    # ── the pool as a whole ─────────────────────────────────────────────────────

    @property
    def is_open(self) -> bool:
        """Whether the pool lends connections."""
        return self.state is _OPEN

    def move(self, state: PoolState) -> None:
        """Go to `state`; a move that is not in the table is a bug."""
        if (self.state, state) not in POOL_TRANSITIONS:
            raise AssertionError(f"a pool that is {self.state.value} cannot become {state.value}")
        self.state = state

    def shut(self, now: float) -> None:
        """The pool closes: it serves nobody any more and keeps nothing idle."""
        self.move(PoolState.DRAINING)
        self.ending.begin(self.subs.values(), now)

    # ── a caller needs a connection ─────────────────────────────────────────────

    def find_subpool(self, endpoint: AnyEndpoint, now: float) -> SubPool[LinkT, TaskT]:
        """Return the sub-pool of `endpoint`; make one if there is none."""
        sub = self.subs.get(endpoint)
        if sub is None:
            sub = self.subs[endpoint] = self._make_subpool(endpoint, now)
            self.memory.pop(endpoint)
        return sub

    def peek(self, endpoint: AnyEndpoint) -> SubPool[LinkT, TaskT]:
        """Return the sub-pool of `endpoint` to be read; if there is none, one with its counters."""
        return self.subs.get(endpoint) or self._make_subpool(endpoint, -math.inf)

    def withdrawn(self, waiter: AnyWaiter, now: float) -> None:
        """`waiter` was cancelled. What is under way for it goes on for whoever needs it."""
        self._ledger.dequeue(waiter)

    def lease_began(
        self, entry: AnyEntry, holder: TaskT, waited: float, now: float
    ) -> Lease[LinkT, TaskT]:
        """A lease of `entry` begins, after its caller has waited for `waited` seconds."""
        counters = entry.sub.counters
        # First: if it raises, no lease has begun. `note_wait`, spelled out.
        recent = counters.other_waits.recent
        recent.append(waited)
        if len(recent) >= MOST_RECENT:
            counters.other_waits = counters.other_waits.settled()
        counters.other_leases += 1
        if entry.uses:
            counters.other_reused += 1
        lease = Lease(entry, holder, now)
        entry.leases = keeping.with_lease(lease) if entry.leases else (lease,)
        entry.uses += 1
        return lease

    # ── a connection is opened ──────────────────────────────────────────────────

    def dialled(self, entry: AnyEntry, now: float) -> None:
        """The dial of `entry` has succeeded."""
        sub = entry.sub
        self._ledger.activate(entry)
        self._ledger.dial_over(entry)
        sub.gate.succeeded(entry.created_at)
        if not sub.gate.is_failing:
            sub.outage = None  # the news is out of date
        sub.counters.note_dial(now - entry.created_at)
        jitter = sub.config.lifetime_jitter * self._random.random()
        keeping.begin_life(entry, sub.config.max_connection_lifetime * (1.0 - jitter), now)
        keeping.begin_idling(entry, now)
        self._serving.place(entry, now)

    # ── a connection comes back, or goes ────────────────────────────────────────

    def released(self, lease: AnyLease, reason: CloseReason | None, now: float) -> None:
        """`lease` is over. Its connection is clean and alive, or must be closed for `reason`.

        A lease whose connection the pool has closed meanwhile is only counted: its sub-pool may
        have been dropped, but the memory has its counters.
        """
        entry = lease.entry
        sub = entry.sub
        sub.used_at = now
        if entry.state is not _ACTIVE:
            pass
        elif reason is not None:
            if sub.shares:
                self._leave(entry, reason, now)
            else:
                self.condemned(entry, reason, now)
        else:
            # `begin_idling`, `why_not_kept` and `lend_or_keep`, spelled out for the commonest
            # case: the connection may be kept, and nobody has a use for it now.
            entry.was_idle = False
            entry.idle_since = now
            lapses_at = now + sub.max_idle_time
            expires_at = entry.expires_at
            entry.lapses_at = lapses_at if lapses_at < expires_at else expires_at  # noqa: FURB136
            if (
                now < expires_at
                and entry.uses < sub.max_uses
                and entry.generation == sub.generation
                and not sub.is_strict
                and self.state is _OPEN
            ):
                if sub.waiting or sub.is_scarce:
                    self._serving.lend_or_keep(entry, now)
                else:
                    self._ledger.push_idle(entry)
            else:
                if sub.gate.is_in_doubt:
                    self.failures.was_of_use(entry, now)
                if sub.shares:
                    self._leave(entry, None, now)
                else:
                    self._serving.place(entry, now, is_used=True)
        # Last: if a call above raises, the books still have the lease, and it can be ended again.
        keeping.end_lease(lease)
        sub.counters.note_use(now - lease.since)

    def _leave(self, entry: AnyEntry, reason: CloseReason | None, now: float) -> None:
        """A lease of `entry`, which others may share, is over; for `reason` it takes no more."""
        if reason is not None:
            self.sharing.spoil(entry, reason, now)
        if self.sharing.leave(entry, now):
            keeping.begin_idling(entry, now)
            self._serving.place(entry, now, is_used=True)

    def returned_unused(self, entry: AnyEntry, reason: CloseReason | None, now: float) -> None:
        """Nobody has used `entry`, which was taken: close it for `reason`, or let it idle on."""
        if entry.state is not _ACTIVE:
            return
        if entry.holders and not self.sharing.leave(entry, now):
            return  # others share it
        if reason is not None:
            self.condemned(entry, reason, now)
        else:
            self._serving.place(entry, now)

    def condemned(self, entry: AnyEntry, reason: CloseReason, now: float) -> None:
        """`entry`, idle or active, must be closed by force."""
        self._warming.lost(entry, reason, now)
        self._ledger.condemn(entry, reason, gracefully=False)

    def retired(self, lease: AnyLease, now: float) -> None:
        """The holder of `lease` wants the connection closed when the lease ends."""
        self.sharing.spoil(lease.entry, CloseReason.DISCARDED, now)

    def closed(self, entry: AnyEntry, now: float) -> None:
        """The file of `entry` is closed: its slot is free."""
        assert entry.reason is not None
        self._ledger.strike_off(entry)
        entry.sub.counters.count_closed(entry.reason)

    def inspected(self, entry: AnyEntry, reason: CloseReason | None, now: float) -> None:
        """The shell has probed `entry`, which is idle, and found `reason` to close it, or none."""
        if reason is not None:
            self.condemned(entry, reason, now)
        elif now >= entry.lapses_at:
            self._ledger.condemn(entry, keeping.why_lapsed(entry, now), gracefully=True)

    def checked(self, entry: AnyEntry, reason: CloseReason | None, now: float) -> None:
        """The check of `entry` is over, and has found `reason` to close it, or none."""
        if self.checks.over(entry, reason, now):
            self._serving.place(entry, now)

    def reset_over(self, entry: AnyEntry, reason: CloseReason | None, now: float) -> None:
        """`entry` has been reset, and there is `reason` to close it, or none."""
        if not entry.is_resetting:
            return  # it was closed meanwhile
        self._ledger.end_reset(entry)
        keeping.begin_idling(entry, now)
        self.returned_unused(entry, reason, now)

    # ── time passes ─────────────────────────────────────────────────────────────

    def swept(self, sub: AnySubPool, now: float) -> None:
        """Once in a while: go on with what waits for time alone, or drop what nobody needs."""
        self._ledger.touch(sub)
        self.pump(now)
        standing.close_queue(sub)
        kept_until = max(sub.used_at + KEEP_BARE, sub.gate.remembered_until, sub.warm_not_before)
        is_kept = now < kept_until or sub in self._chores.retiring.plans
        if is_kept or not sub.is_bare or self.subs.get(sub.endpoint) is not sub:
            return
        self.memory.keep(sub.endpoint, sub.counters)
        del self.subs[sub.endpoint]
        sub.gate.forget()
        self._ledger.forget(sub)

    # ── the rules ───────────────────────────────────────────────────────────────

    def pump(self, now: float) -> None:
        """Do all that can be done now, in every sub-pool that has been touched."""
        touched, pool_limit = self.touched, self.pool_limit
        while touched:
            sub, _ = touched.popitem()
            if self.state is not _OPEN or sub.is_resting:
                continue
            limit = sub.limit
            if sub.waiting and sub.gate.is_unhealthy:
                self._refusing.turn_away_all(sub, now)
            if sub.waiting and (
                sub.idle or len(limit.borrowers) < limit.total or sub.claim is not None or sub.roomy
            ):
                is_done = not sub.roomy or self.sharing.fill(sub, now)
                if is_done and (not sub.idle or self._serving.look_at_idle(sub, now)):
                    self._dials.dial_for_waiters(sub, now)
                else:
                    # Whoever can have a connection that is open needs no dial.
                    pool_limit.stand_in_line(sub, None, 0)
            if sub.groups:
                self._dials.dial_elsewhere(sub, now)
                self.failures.review_hopeless(sub, now)
            if sub.min_idle or sub.warmers:
                self._warming.warm(sub, now)
            if pool_limit.wanted or pool_limit.cold:
                self._dials.share_out(now)

    def _make_subpool(self, endpoint: AnyEndpoint, now: float) -> SubPool[LinkT, TaskT]:
        config = self._overrides.get(endpoint, self._config)
        sub: SubPool[LinkT, TaskT]
        sub = SubPool(endpoint, config, Gate(self._random), now, self.pool_limit.is_limited)
        if self.is_checked:
            sub.check_after = config.health_check_after
        sub.resets, sub.shares, sub.is_plain = self._resets, self._shares, self._is_plain
        sub.counters = self.memory.kept.get(endpoint, sub.counters)
        sub.note_rules()
        equip(sub, self.effects)
        return sub

    def __repr__(self) -> str:
        return f"<Core {self.state.value}, {len(self.subs)} endpoints, {self.pool_limit!r}>"
