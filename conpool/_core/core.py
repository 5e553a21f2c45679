"""The whole policy of the pool, without I/O: who is lent what, what is dialled, what is closed.

The shell (`_pool`) asks questions and reports what has happened, in the past tense; the core changes
its books at once and puts into `effects` what is to be done about it. It takes `now` as an
argument, awaits nothing, and knows neither tasks nor sockets, so the real code can be model-checked.

1. An idle connection is taken with `take_idle`, newest first; those that have lapsed are closed on the
   way. The shell looks at what it got, and lends it or reports it `condemned`.
2. Whoever finds none is `queued`. Every waiter stands in line by arrival. Its dial, if the limits and
   the gate allow one, runs on its own account: the waiter takes whatever comes first.
3. A connection comes back (`given_back`), or comes into being (`dialled`). Both settle alike: closed,
   if it has outlived its lifetime, uses, generation or limit; lent to the oldest waiter that can
   have it; else laid on the idle stack.
4. A connection that leaves (`condemned`) keeps its slot until the shell reports it `closed`.
5. Under a pool-wide limit slots go to those in line for them, oldest first (`_room`).
6. Whatever has happened, `_pump` comes last: the one place that turns free slots into dials. A report
   that frees something and does not end there would be a lost wake-up.

Connections change state only here:

    CONNECTING → ACTIVE  dialled            ACTIVE → IDLE     given_back
    CONNECTING → CLOSED  dial_failed        ACTIVE → CLOSING  condemned, given_back
    IDLE → ACTIVE        take_idle          CLOSING → CLOSED  closed
    IDLE → CLOSING       condemned and all that expires, evicts or clears
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, final

from conpool._core.dials import DialPolicy
from conpool._core.ledger import Ledger
from conpool._core.pool_limit import PoolLimit
from conpool._core.records import SubPool, Waiter, WaitOutcome
from conpool._stats.counters import Counters
from conpool._values.states import CloseReason, ConnectionState

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Mapping
    from random import Random

    from conpool._core.effects import Effect
    from conpool._core.records import Entry, Warmer
    from conpool._core.timetable import Timetable
    from conpool._values.config import PoolConfig
    from conpool._values.endpoint import AnyEndpoint

_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE

_BY_PEER: Final = frozenset(
    {CloseReason.PEER_CLOSED, CloseReason.UNREAD_DATA, CloseReason.UNHEALTHY}
)
"""What ends a connection that nobody here wanted to end."""

KEEP_BARE: Final = 5.0
"""Seconds for which an endpoint's books outlive its last use when they hold nothing but counters.

Long enough that one asked every second keeps its statistics, short enough that a crawler's million
endpoints take the memory of those of the last few seconds.
"""


@final
class Core:
    """The policy of one pool, and the way into its books."""

    __slots__ = (
        "_arrivals",
        "_config",
        "_dials",
        "_ledger",
        "_overrides",
        "_random",
        "dropped_counters",
        "effects",
        "is_open",
        "pool_limit",
        "subs",
        "timetable",
    )

    def __init__(
        self, config: PoolConfig, overrides: Mapping[AnyEndpoint, PoolConfig], random: Random
    ) -> None:
        self._config = config
        self._overrides = overrides
        self._random = random
        self.pool_limit = (
            None if config.max_connections is None else PoolLimit(config.max_connections)
        )
        self._ledger = Ledger(self.pool_limit)
        self._dials = DialPolicy(self._ledger, random)
        self.effects: deque[Effect] = self._ledger.effects
        self.timetable: Timetable = self._ledger.timetable
        self.subs: dict[AnyEndpoint, SubPool] = {}
        self.dropped_counters = Counters()
        """The counters of sub-pools that have been dropped."""
        self.is_open = True
        self._arrivals = 0

    # ── somebody needs a connection ─────────────────────────────────────────────

    def find_subpool(self, endpoint: AnyEndpoint, now: float) -> SubPool:
        """Return the books of `endpoint`, opened if need be."""
        sub = self.subs.get(endpoint)
        if sub is None:
            sub = self.subs[endpoint] = SubPool(endpoint, self._config_of(endpoint), now)
        return sub

    def peek(self, endpoint: AnyEndpoint) -> SubPool:
        """Return the books of `endpoint` for reading; empty ones, if there are none."""
        return self.subs.get(endpoint) or SubPool(endpoint, self._config_of(endpoint), -math.inf)

    def pop_newest(self, sub: SubPool, now: float) -> Entry | None:
        """Take the newest idle connection that has not lapsed; it is ACTIVE from here on."""
        sub.used_at = now
        while sub.idle:
            entry = self._ledger.pop_newest(sub)
            if now < entry.lapses_at:
                return entry
            self._ledger.condemn(entry, _why_lapsed(entry, now), gracefully=True)
        return None

    def may_queue(self, sub: SubPool, now: float) -> bool:
        """Whether one more waiter is welcome: the queue is short enough, or it is dialled for at once."""
        if sub.max_waiting is None or len(sub.queue) < sub.max_waiting:
            return True
        has_slot = sub.limit.has_free_slot and (
            self.pool_limit is None or self.pool_limit.limit.has_free_slot
        )
        return has_slot and sub.is_gate_open(now) and sub.connecting < sub.max_connecting

    def queued(self, waiter: Waiter, now: float, is_first: bool = False) -> None:
        """`waiter` has come to the end of the line, or back to its head: its turn has been before."""
        if is_first:
            self._ledger.put_back(waiter)
        else:
            self._arrivals += 1
            waiter.number = self._arrivals
            self._ledger.enqueue(waiter)
        for sub in waiter.subs:
            sub.used_at = now
            self._pump(sub, now)

    def withdrawn(self, waiter: Waiter, now: float) -> None:
        """`waiter` was cancelled. Its dial, if it has one, goes on for whoever needs it."""
        self._ledger.dequeue(waiter)
        for sub in waiter.subs:
            self._pump(sub, now)

    def offer_failed(self, waiter: Waiter, reason: CloseReason, now: float) -> None:
        """The idle connection lent to `waiter` turned out dead: back to the head of the line."""
        entry = waiter.entry
        assert entry is not None
        waiter.entry = None
        self._ledger.put_back(waiter)
        self.condemned(entry, reason, now)

    def lease_began(self, entry: Entry, waited: float) -> None:
        """A lease of `entry` has begun, after `waited` seconds."""
        entry.leases += 1
        entry.uses += 1
        counters = entry.sub.counters
        counters.acquired += 1
        if entry.uses > 1:
            counters.total_reused += 1
        counters.wait_time.add(waited)

    # ── a connection is opened ──────────────────────────────────────────────────

    def dialled(self, entry: Entry, now: float) -> None:
        """The dial of `entry` has succeeded."""
        sub = entry.sub
        self._ledger.activate(entry)
        sub.failures = 0
        sub.dial_not_before = -math.inf
        sub.last_error = None
        sub.counters.total_created += 1
        sub.counters.connect_time.add(now - entry.created_at)
        self._ledger.dial_over(entry)
        config = sub.config
        jitter = config.lifetime_jitter * self._random.random()
        entry.created_at = now
        entry.expires_at = now + config.max_connection_lifetime * (1.0 - jitter)
        self.given_back(entry, now)

    def dial_failed(self, entry: Entry, error: Exception | None, now: float) -> None:
        """The dial of `entry` has failed with `error`, or was given up (None) since the pool closes."""
        sub = entry.sub
        self._ledger.strike_off(entry)
        debtor = self._ledger.dial_over(entry)
        if error is not None:
            sub.counters.errors += 1
            sub.last_error = error
            self._dials.failed(sub, now)
            if isinstance(debtor, Waiter):
                self._ledger.refuse(debtor, WaitOutcome.DIAL_FAILED, error)
            elif debtor is not None:
                self._ledger.end_warming(debtor, error)
        self._pump(sub, now)

    # ── a connection comes back, or goes ────────────────────────────────────────

    def lease_ended(self, entry: Entry, now: float) -> None:
        """A lease of `entry` is over; what becomes of the connection is the next report."""
        entry.leases -= 1
        sub = entry.sub
        sub.used_at = now
        sub.counters.use_time.add(now - entry.lent_at)

    def given_back(self, entry: Entry, now: float, *, unused: bool = False) -> None:
        """`entry` is clean and alive: keep it, if age, uses, generation and limits allow it.

        `unused` is for one that was taken and then not wanted: its idle time goes on as before.
        """
        if entry.state is not _ACTIVE:
            raise AssertionError(f"{entry!r} cannot be given back")
        sub = entry.sub
        reason = self._why_not_kept(entry, sub, now)
        if unused and reason is None and now >= entry.lapses_at:
            reason = CloseReason.IDLE_TIME
        if reason is not None:
            self._ledger.condemn(entry, reason, gracefully=True)
        else:
            if not unused:
                entry.was_idle = False
                entry.idle_since = now
                lapses_at = now + sub.max_idle_time
                expires_at = entry.expires_at
                # Spelled out, since min() is a call too many here.
                entry.lapses_at = lapses_at if lapses_at < expires_at else expires_at  # noqa: FURB136
            if sub.queue and not sub.paused:
                self._give(entry, now)
            elif unused:
                self._ledger.push_idle_back(entry)
            else:
                self._ledger.push_idle(entry)
        self._pump(sub, now)

    def condemned(
        self, entry: Entry, reason: CloseReason, now: float, *, gracefully: bool = False
    ) -> None:
        """`entry`, idle or active, is to be closed."""
        if not entry.uses and reason in _BY_PEER:
            self._dials.lost_unused(entry, now)
        self._ledger.condemn(entry, reason, gracefully=gracefully)
        self._pump(entry.sub, now)

    def closed(self, entry: Entry, now: float) -> None:
        """The file of `entry` is closed: its slot is free."""
        sub = entry.sub
        self._ledger.strike_off(entry)
        assert entry.reason is not None
        sub.counters.count_closed(entry.reason)
        self._pump(sub, now)

    # ── the pool or an endpoint is told something ───────────────────────────────

    def cleared(self, sub: SubPool, now: float) -> None:
        """Nothing of `sub` that exists now may be lent again."""
        sub.generation += 1
        self._dismiss(sub, CloseReason.CLEARED, now)

    def moved(self, sub: SubPool, addresses: frozenset[str], now: float) -> None:
        """The name of `sub` leads to `addresses` now: leave the others, those lent when they return."""
        for entry in list(sub.limit.borrowers):
            if entry.address is None or entry.address in addresses:
                continue
            if entry.state is _IDLE:
                self._ledger.condemn(entry, CloseReason.CLEARED, gracefully=True)
            elif entry.state is _ACTIVE:
                entry.generation = -1
        self._pump(sub, now)

    def close_idle(self, sub: SubPool, reason: CloseReason, now: float) -> int:
        """Close the idle connections of `sub`; return how many there were."""
        entries = list(sub.idle)
        for entry in entries:
            self._ledger.condemn(entry, reason, gracefully=True)
        self._pump(sub, now)
        return len(entries)

    def limit_set(self, sub: SubPool, total: int, now: float) -> None:
        """The limit of `sub` is now `total`; what is too many goes, the idle at once."""
        sub.limit.total = total
        sub.resized = total != sub.config.max_connections_per_endpoint
        sub.may_be_unwanted = sub.count_surplus() > 0 or not sub.max_idle_time
        for entry in list(sub.idle)[: max(0, sub.count_surplus())]:
            self._ledger.condemn(entry, CloseReason.SURPLUS, gracefully=True)
        self._pump(sub, now)

    def paused(self, sub: SubPool) -> None:
        """`sub` lends and dials nothing until it is `resumed`."""
        sub.paused = True
        if self.pool_limit is not None:
            self.pool_limit.stand_in_line(sub, None, 0)

    def resumed(self, sub: SubPool, now: float) -> None:
        """`sub` goes on."""
        sub.paused = False
        self._pump(sub, now)

    def warming_asked(self, warmer: Warmer, now: float) -> None:
        """Somebody waits until a number of connections are open."""
        warmer.sub.warmers.append(warmer)
        warmer.sub.used_at = now
        self._pump(warmer.sub, now)

    def warming_ended(self, warmer: Warmer) -> None:
        """The one who waited for warmth is gone."""
        if warmer.queued:
            warmer.queued = False
            warmer.sub.warmers.remove(warmer)

    def ticked(self, now: float) -> None:
        """Time has passed: refuse those whose time is up, go on where a gate has opened."""
        for item in self.timetable.pop_due(now):
            if isinstance(item, Waiter):
                self._ledger.refuse(item, WaitOutcome.TIMEOUT)
                for sub in item.subs:
                    self._pump(sub, now)
            else:
                self._time_out_queue(item, now)
                self._pump(item, now)

    def inspected(self, entry: Entry, reason: CloseReason | None, now: float) -> None:
        """Somebody has looked at `entry`, idle, and found nothing or a reason to close it."""
        if reason is not None:
            self.condemned(entry, reason, now)
        elif now >= entry.lapses_at:
            self.condemned(entry, _why_lapsed(entry, now), now, gracefully=True)

    def reserved(self, entry: Entry, now: float) -> None:
        """`entry`, idle, is to be checked: nobody else gets it until it is given back."""
        self._ledger.reserve(entry)
        entry.checked_at = now

    def swept(self, sub: SubPool, now: float) -> bool:
        """Once in a while: go on with what waits for nothing but time, or drop what nobody needs.

        The counters of a dropped sub-pool are kept, with those of all that went before. Returns whether
        it was dropped; then the timetable should be tidied, which remembers it until it would have fallen due.
        """
        self._pump(sub, now)
        kept_until = max(sub.used_at + KEEP_BARE, sub.dial_not_before, sub.warm_not_before)
        if now >= kept_until and sub.is_bare and self.subs.get(sub.endpoint) is sub:
            del self.subs[sub.endpoint]
            self.dropped_counters.absorb(sub.counters)
            sub.counters = (
                self.dropped_counters
            )  # the end of a lease that was cut off may be yet to come
            self._ledger.forget(sub)
            return True
        return False

    def shut(self, now: float) -> None:
        """The pool closes: nobody is served any more, nothing idle is kept."""
        self.is_open = False
        for sub in self.subs.values():
            for waiter in list(sub.queue):
                self._ledger.refuse(waiter, WaitOutcome.POOL_CLOSED)
            for warmer in list(sub.warmers):
                self._ledger.end_warming(warmer, None)
            self._ledger.forget(sub)
        for sub in self.subs.values():
            self._dismiss(sub, CloseReason.POOL_CLOSED, now)

    def _dismiss(self, sub: SubPool, reason: CloseReason, now: float) -> None:
        """Close what is idle, and what was taken, handed over or checked: no lease of that may begin."""
        for entry in list(sub.limit.borrowers):
            if entry.state is _ACTIVE and not entry.leases:
                self._ledger.condemn(entry, reason, gracefully=False)
        self.close_idle(sub, reason, now)

    def _time_out_queue(self, sub: SubPool, now: float) -> None:
        """Refuse those in the queue whose time is up; they are the first, but for own deadlines."""
        late: list[Waiter] = []
        for waiter in sub.queue:
            if waiter.has_own_deadline:
                continue
            if waiter.deadline > now:
                self.timetable.look_at(sub, waiter.deadline)
                break
            late.append(waiter)
        for waiter in late:
            self._ledger.refuse(waiter, WaitOutcome.TIMEOUT)

    # ── the rules ───────────────────────────────────────────────────────────────

    def _pump(self, sub: SubPool, now: float) -> None:
        """Do all that can be done for `sub` now. Every report ends here."""
        if sub.queue:
            if sub.idle and not sub.paused:
                self._serve_from_idle(sub, now)
            capacity = sub.limit
            if len(capacity.borrowers) < capacity.total or sub.claim is not None or sub.idle:
                self._dials.dial_for_waiters(sub, now)
        if (sub.min_idle or sub.warmers) and self.is_open:
            self._dials.warm(sub, now)
        if self.pool_limit is not None and (self.pool_limit.wanted or self.pool_limit.cold):
            self._dials.share_out(self.pool_limit, now)

    def _give(self, entry: Entry, now: float) -> None:
        """Lend `entry` to the oldest waiter that can have it, or else lay it on the idle stack."""
        sub = entry.sub
        passed = 0
        for waiter in sub.queue:
            if waiter.fresh and (entry.uses or entry.was_idle):
                passed += waiter.dial is None
                if waiter.dial is None and self._dials.lacks_slot(sub, passed, now):
                    self._ledger.condemn(entry, CloseReason.EVICTED, gracefully=True)
                    return
                continue
            if self.pool_limit is not None and self.pool_limit.must_make_way(waiter):
                self._ledger.condemn(entry, CloseReason.EVICTED, gracefully=True)
            else:
                self._ledger.hand_over(waiter, entry)
            return
        self._ledger.push_idle_back(entry)  # it may have been idle before, and not the youngest

    def _serve_from_idle(self, sub: SubPool, now: float) -> None:
        """Waiters and idle connections at once: after a pause, or where some want new ones only."""
        while sub.idle:
            waiter = next((waiter for waiter in sub.queue if not waiter.fresh), None)
            entry = None if waiter is None else self.pop_newest(sub, now)
            if waiter is None or entry is None:
                break
            self._ledger.hand_over(waiter, entry)

    def _why_not_kept(self, entry: Entry, sub: SubPool, now: float) -> CloseReason | None:
        if not self.is_open:
            return CloseReason.POOL_CLOSED
        if entry.retired:
            return CloseReason.DISCARDED
        if entry.generation != sub.generation:
            return CloseReason.CLEARED
        if now >= entry.expires_at:
            return CloseReason.LIFETIME
        if entry.uses >= sub.max_uses:
            return CloseReason.USES
        return sub.find_surplus() if sub.may_be_unwanted else None

    def _config_of(self, endpoint: AnyEndpoint) -> PoolConfig:
        return self._overrides.get(endpoint, self._config)

    def __repr__(self) -> str:
        return f"<Core {'open' if self.is_open else 'shut'}, {len(self.subs)} endpoints, {self.pool_limit!r}>"


def _why_lapsed(entry: Entry, now: float) -> CloseReason:
    return CloseReason.LIFETIME if now >= entry.expires_at else CloseReason.IDLE_TIME
