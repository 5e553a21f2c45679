"""What a pool is told about its endpoints: clear, pause, resize, warm, leave old addresses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain, filterfalse, islice
from operator import attrgetter
from typing import final

from conpool._core import standing
from conpool._core.chores import Chores
from conpool._core.failures import Failures
from conpool._core.few import entered
from conpool._core.ledger import Ledger
from conpool._core.outgoing import why_leaving
from conpool._core.pool_limit import PoolLimit
from conpool._core.records import AnyEntry, AnySubPool, AnyWarmer
from conpool._core.retiring import find_staying
from conpool._values.states import CloseReason, ConnectionState

_CONNECTING = ConnectionState.CONNECTING
_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE


@final
class Orders:
    """The caller's orders. Each changes the books at once.

    Where there are many connections, it takes a few steps to close them; none is lent meanwhile.
    """

    __slots__ = ("_chores", "_failures", "_ledger", "_pool_sizes", "retiring")

    def __init__(self, ledger: Ledger, chores: Chores, failures: Failures) -> None:
        self._ledger = ledger
        self._chores = chores
        self.retiring = chores.retiring
        self._failures = failures
        self._pool_sizes = 0
        """How often the limit of the pool has changed."""

    def cleared(self, sub: AnySubPool, interrupts: bool, now: float) -> None:
        """Nothing of `sub` that exists now may be lent again; with `interrupts`, nor used."""
        for entry in list(sub.reserved):  # a check must not hold up what has to go
            self._ledger.condemn(entry, CloseReason.CLEARED, gracefully=False)
        self._ledger.begin_generation(sub)
        self.idle_closed(sub, CloseReason.CLEARED, now)
        if sub.active or sub.connecting:
            do = self._interrupt_old if interrupts else self._end_old
            self._chores.begin(sub, do, sub.limit.borrowers, now)

    def moved(self, sub: AnySubPool, addresses: frozenset[str], now: float) -> None:
        """The name leads to `addresses` now: close idle connections to others, lent ones later."""
        do = partial(self._leave, addresses)
        self._chores.begin(sub, do, sub.limit.borrowers, now)

    def idle_closed(self, sub: AnySubPool, reason: CloseReason, now: float) -> int:
        """The idle connections of `sub` must go, for `reason`; return how many there are."""
        count = len(sub.idle) - len(sub.reserved)
        if count:
            self._ledger.set_idle_aside(sub, reason)
            self._chores.begin(sub, self._close_leaving, sub.leaving[reason], now)
        return count

    def limit_set(self, sub: AnySubPool, total: int, now: float) -> None:
        """The limit of `sub` is now `total`; surplus connections go, the idle ones at once."""
        sub.limit.total = total
        sub.resized = total != sub.config.max_connections_per_endpoint
        sub.note_rules()
        self._ledger.touch(sub)
        surplus = sub.count_surplus()
        if surplus > 0:
            oldest = islice(sub.idle, surplus + len(sub.reserved))
            self._chores.begin(sub, self._shed, oldest, now)

    def pool_limit_set(self, total: int, now: float) -> None:
        """The limit of the whole pool is now `total`; the surplus goes, the lent ones later.

        The longest idle go first, then the latest leases (whoever has held a connection for long
        may hold it for longer), then the latest dials.
        """
        pool_limit = self._ledger.pool_limit
        limit = pool_limit.limit
        limit.total = total
        surplus = len(limit.borrowers) - pool_limit.closing - total
        self._pool_sizes += 1
        if surplus > 0:
            do = partial(self._shed_of_pool, self._pool_sizes)
            going = islice(_order_of_shedding(pool_limit), surplus)
            self._chores.begin(next(iter(limit.borrowers)).sub, do, going, now)
        next_sub = pool_limit.find_first() or next(iter(pool_limit.cold), None)
        if next_sub is not None:
            self._ledger.touch(next_sub)

    def paused(self, sub: AnySubPool, now: float) -> None:
        """`sub` lends and dials nothing until it is `resumed`."""
        sub.gate.paused()
        sub.note_rules()
        self._ledger.pool_limit.stand_in_line(sub, None, 0)

    def resumed(self, sub: AnySubPool, now: float) -> None:
        """`sub` goes on."""
        sub.gate.resumed()
        sub.note_rules()
        self._ledger.touch(sub)

    def marked(self, sub: AnySubPool, is_unhealthy: bool, now: float) -> None:
        """The caller says how `sub` is. While it is unhealthy, nobody waits for it."""
        sub.gate.marked(is_unhealthy=is_unhealthy)
        standing.bar_groups(sub, bars=is_unhealthy)
        sub.note_rules()
        if is_unhealthy:
            self._ledger.pool_limit.stand_in_line(sub, None, 0)
            self._failures.review(sub, now)
        self._ledger.touch(sub)

    def failure_reported(self, sub: AnySubPool, now: float) -> None:
        """A protocol says that the server of `sub` has failed."""
        if sub.gate.circuit is not None:
            sub.used_at = now
            sub.gate.circuit.failure_reported(now)
            self._ledger.touch(sub)
            if sub.gate.is_cut_off(now):
                self._failures.review(sub, now)

    def success_reported(self, sub: AnySubPool, now: float) -> None:
        """A protocol, or the caller, says that the server of `sub` serves."""
        if sub.gate.circuit is not None:
            sub.gate.circuit.proved()
            self._ledger.touch(sub)

    def warming_asked(self, warmer: AnyWarmer, now: float) -> None:
        """`warmer` waits until its number of connections are open."""
        sub = warmer.sub
        sub.used_at = now
        sub.warmers = entered(sub.warmers, warmer, None)
        sub.note_rules()
        self._ledger.touch(sub)

    def warming_ended(self, warmer: AnyWarmer, now: float) -> None:
        """The task of `warmer` is gone."""
        if warmer.queued:
            self._ledger.leave_warming(warmer)

    # ── what they do to one connection ──────────────────────────────────────────

    def _end_old(self, entry: AnyEntry, now: float) -> None:
        """End what belongs to an older generation, but for the leases that have begun."""
        if entry.generation == entry.sub.generation:
            return
        if entry.state is _CONNECTING:
            self._ledger.give_up(entry)
        elif entry.state is _ACTIVE and not entry.leases:
            self._ledger.condemn(entry, CloseReason.CLEARED, gracefully=False)

    def _interrupt_old(self, entry: AnyEntry, now: float) -> None:
        if entry.state is _ACTIVE and entry.generation != entry.sub.generation:
            self._ledger.condemn(entry, CloseReason.CLEARED, gracefully=False)
        else:
            self._end_old(entry, now)

    def _leave(self, addresses: frozenset[str], entry: AnyEntry, now: float) -> None:
        if entry.address is not None and entry.address not in addresses:
            self.retiring.retire(entry, CloseReason.MOVED)

    def _close_leaving(self, entry: AnyEntry, now: float) -> None:
        reason = why_leaving(entry)
        if reason is not None:
            self._ledger.condemn(entry, reason, gracefully=True)

    def _shed_of_pool(self, number: int, entry: AnyEntry, now: float) -> None:
        if number == self._pool_sizes:  # otherwise the limit has changed again
            self.retiring.retire(entry, CloseReason.SURPLUS)

    def _shed(self, entry: AnyEntry, now: float) -> None:
        sub = entry.sub
        if entry in sub.idle and entry not in sub.reserved and sub.count_surplus() > 0:
            self._ledger.condemn(entry, CloseReason.SURPLUS, gracefully=True)


def _order_of_shedding(pool_limit: PoolLimit) -> Iterator[AnyEntry]:
    """Find what may go, in its order; however much there is, it costs loops in C alone."""
    latest_dial_first = sorted(pool_limit.limit.borrowers, key=attrgetter("id"), reverse=True)
    leases = chain.from_iterable(map(attrgetter("leases"), latest_dial_first))
    latest_lease_first = sorted(leases, key=attrgetter("since"), reverse=True)
    lent = map(attrgetter("entry"), latest_lease_first)
    everyone = dict.fromkeys(chain(pool_limit.find_idle(), lent, latest_dial_first))
    return filterfalse(attrgetter("is_given_up"), find_staying(everyone))
