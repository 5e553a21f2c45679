"""Sessions in the core: leases that share a connection, resets, and keys (G2, G13, G16)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import pytest

from conpool._core.affinity import remember
from conpool._core.core import Core
from conpool._core.effects import Close, Dial, Reset
from conpool._core.pool_limit import MAX_OVERTAKES
from conpool._core.records import AnyEntry, AnyLease, AnySubPool, AnyWaiter, Waiter
from conpool._values.config import PoolConfig
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import CloseReason, ConnectionState, PoolState
from tests.support.shell import HERE, PATIENT, THERE, SteadyRandom


@final
class Stand:
    """A core whose dials, resets and closes are ended by hand; a connection takes `room` leases."""

    def __init__(
        self, *, room: int = 1, shares: bool = False, resets: bool = False, **settings: Any
    ) -> None:
        chosen: dict[str, Any] = {**PATIENT, **settings}
        config = PoolConfig(**chosen)
        self.core: Core[Any, Any] = Core(config, {}, SteadyRandom(), resets=resets, shares=shares)
        self.core.move(PoolState.OPEN)
        self.room = room
        self.now = 0.0
        self.dials: list[AnyEntry] = []
        self.resets: list[AnyEntry] = []
        self.closed: list[tuple[AnyEntry, bool]] = []

    def sub(self, endpoint: AnyEndpoint = HERE) -> AnySubPool:
        return self.core.find_subpool(endpoint, self.now)

    def ask(self, endpoint: AnyEndpoint = HERE) -> AnyWaiter:
        waiter: AnyWaiter = Waiter((self.sub(endpoint),), self.now, math.inf, False)
        self.core.queued(waiter, self.now)
        self.settle()
        return waiter

    def dial_succeeds(self) -> AnyEntry:
        entry = self.dials.pop(0)
        if entry.sub.shares:
            self.core.sharing.capacity_noted(entry, self.room, self.now)
        self.core.dialled(entry, self.now)
        self.settle()
        return entry

    def begin(self, waiter: AnyWaiter) -> AnyLease:
        assert waiter.entry is not None
        return self.core.lease_began(waiter.entry, None, 0.0, self.now)

    def lend(self, endpoint: AnyEndpoint = HERE) -> AnyLease:
        """Somebody asks, and gets a connection that is dialled."""
        waiter = self.ask(endpoint)
        self.dial_succeeds()
        return self.begin(waiter)

    def fill(self, count: int) -> list[AnyLease]:
        """That many ask, and share the one connection that is dialled for them."""
        waiters = [self.ask() for _ in range(count)]
        self.dial_succeeds()
        return [self.begin(waiter) for waiter in waiters]

    def release(self, lease: AnyLease, reason: CloseReason | None = None) -> None:
        self.core.released(lease, reason, self.now)
        self.settle()

    def reset_ends(self, reason: CloseReason | None = None) -> AnyEntry:
        entry = self.resets.pop(0)
        self.core.reset_over(entry, reason, self.now)
        self.settle()
        return entry

    def settle(self) -> None:
        effects = self.core.effects
        while self.core.touched or effects:
            self.core.pump(self.now)
            while effects:
                effect = effects.popleft()
                if isinstance(effect, Dial):
                    self.dials.append(effect.entry)
                elif isinstance(effect, Reset):
                    self.resets.append(effect.entry)
                elif isinstance(effect, Close):
                    self.closed.append((effect.entry, effect.gracefully))
                    self.core.closed(effect.entry, self.now)

    def reasons(self, endpoint: AnyEndpoint = HERE) -> Mapping[CloseReason, int]:
        return self.sub(endpoint).counters.closed_by_reason


# ── leases that share a connection ──────────────────────────────────────────────


def test_as_many_share_a_connection_as_it_takes_and_no_more() -> None:
    stand = Stand(room=3, shares=True, max_connections_per_endpoint=1)
    waiters = [stand.ask() for _ in range(5)]
    entry = stand.dial_succeeds()
    assert [waiter.entry for waiter in waiters] == [entry, entry, entry, None, None]
    assert entry.holders == 3


def test_one_dial_is_for_as_many_as_the_last_connection_took() -> None:
    stand = Stand(room=2, shares=True)
    stand.fill(1)
    for _ in range(6):
        stand.ask()
    assert len(stand.dials) == 3  # one of the six has joined the first connection


def test_until_one_is_open_a_single_dial_is_for_all() -> None:
    stand = Stand(shares=True)
    for _ in range(5):
        stand.ask()
    assert len(stand.dials) == 1


def test_the_room_of_one_who_leaves_goes_to_the_oldest_waiter() -> None:
    stand = Stand(room=2, shares=True, max_connections_per_endpoint=1)
    first, _ = stand.fill(2)
    waiting, later = stand.ask(), stand.ask()
    stand.release(first)
    assert waiting.entry is first.entry
    assert later.entry is None


def test_the_fullest_connection_is_preferred() -> None:
    stand = Stand(room=3, shares=True, max_connections_per_endpoint=2)
    leases = [*stand.fill(3), *stand.fill(3)]
    for lease in (leases[0], leases[3], leases[4]):  # the first connection holds two, the other one
        stand.release(lease)
    assert stand.ask().entry is leases[0].entry


def test_a_connection_idles_only_when_the_last_has_left_it() -> None:
    stand = Stand(room=2, shares=True, max_idle_time=10.0)
    first, last = stand.fill(2)
    stand.release(first)
    assert first.entry.state is ConnectionState.ACTIVE
    stand.now = 5.0
    stand.release(last)
    assert (last.entry.state, last.entry.lapses_at) == (ConnectionState.IDLE, 15.0)


def test_a_connection_that_a_lease_has_spoilt_takes_no_more_and_ends_with_its_last() -> None:
    stand = Stand(room=3, shares=True, max_connections_per_endpoint=1)
    first, last = stand.fill(2)
    stand.release(first, CloseReason.INCOMPLETE)
    waiting = stand.ask()
    assert waiting.entry is None
    assert stand.closed == []
    stand.release(last)
    assert stand.closed == [(last.entry, False)]
    assert stand.reasons() == {CloseReason.INCOMPLETE: 1}


def test_a_connection_that_goes_away_takes_no_more_and_ends_with_its_last() -> None:
    stand = Stand(room=3, shares=True, max_connections_per_endpoint=1)
    first, last = stand.fill(2)
    stand.core.sharing.capacity_noted(first.entry, 0, stand.now)
    assert stand.ask().entry is None
    stand.release(first)
    stand.release(last)
    assert stand.closed == [(last.entry, True)]
    assert stand.reasons() == {CloseReason.DISCARDED: 1}


def test_a_connection_that_is_idle_when_it_goes_away_is_lent_to_nobody() -> None:
    stand = Stand(room=2, shares=True, max_connections_per_endpoint=1)
    (lease,) = stand.fill(1)
    stand.core.sharing.capacity_noted(lease.entry, 0, stand.now)
    stand.core.sharing.capacity_noted(lease.entry, 2, stand.now)  # it does not come back
    stand.release(lease)
    assert stand.reasons() == {CloseReason.DISCARDED: 1}


def test_more_room_serves_those_who_wait() -> None:
    stand = Stand(room=1, shares=True, max_connections_per_endpoint=1)
    (lease,) = stand.fill(1)
    waiting = [stand.ask(), stand.ask()]
    stand.core.sharing.capacity_noted(lease.entry, 2, stand.now)
    stand.settle()
    assert [waiter.entry for waiter in waiting] == [lease.entry, None]


@pytest.mark.parametrize(
    ("settings", "now"),
    [({"max_connection_lifetime": 10.0}, 10.0), ({"max_connection_uses": 2}, 1.0)],
)
def test_a_connection_that_is_too_old_takes_no_new_leases(
    settings: dict[str, Any], now: float
) -> None:
    stand = Stand(room=5, shares=True, max_connections_per_endpoint=1, **settings)
    first, last = stand.fill(2)
    stand.now = now
    waiting = stand.ask()
    assert waiting.entry is None
    stand.release(first)
    assert stand.closed == []
    stand.release(last)
    assert [entry for entry, _ in stand.closed] == [last.entry]
    assert waiting.coming is not None


def test_after_a_clear_nobody_joins_a_connection_from_before() -> None:
    stand = Stand(room=3, shares=True, max_connections_per_endpoint=2)
    first, last = stand.fill(2)
    stand.core.orders.cleared(stand.sub(), False, stand.now)
    stand.settle()
    assert stand.ask().entry is None
    stand.release(first)
    assert stand.ask().entry is None
    stand.release(last)
    assert stand.reasons() == {CloseReason.CLEARED: 1}


def test_in_a_pause_nobody_joins() -> None:
    stand = Stand(room=2, shares=True)
    stand.fill(1)
    stand.core.orders.paused(stand.sub(), stand.now)
    waiting = stand.ask()
    assert waiting.entry is None
    stand.core.orders.resumed(stand.sub(), stand.now)
    stand.settle()
    assert waiting.entry is not None


def test_those_who_share_overtake_another_endpoint_a_bounded_number_of_times() -> None:
    """G16."""
    stand = Stand(room=2, shares=True, max_connections=1)
    (lease,) = stand.fill(1)
    elsewhere = stand.ask(THERE)
    for _ in range(MAX_OVERTAKES):
        waiter = stand.ask()
        assert waiter.entry is lease.entry
        stand.release(lease)
        lease = stand.begin(waiter)
    assert stand.ask().entry is None
    stand.release(lease)
    assert stand.reasons() == {CloseReason.EVICTED: 1}
    assert [entry.awaited_by for entry in stand.dials] == [elsewhere]


def test_one_that_was_handed_room_and_does_not_begin_leaves_it_to_the_next() -> None:
    stand = Stand(room=2, shares=True, max_connections_per_endpoint=1)
    lease, _ = stand.fill(2)
    cancelled, waiting = stand.ask(), stand.ask()
    stand.release(lease)
    assert cancelled.entry is lease.entry
    stand.core.returned_unused(lease.entry, None, stand.now)
    stand.settle()
    assert waiting.entry is lease.entry


# ── resets ──────────────────────────────────────────────────────────────────────


def test_what_was_used_is_reset_before_it_is_lent_again() -> None:
    stand = Stand(resets=True, max_connections_per_endpoint=1)
    lease = stand.lend()
    waiting = stand.ask()
    stand.release(lease)
    assert (waiting.entry, stand.resets) == (None, [lease.entry])
    stand.reset_ends()
    assert waiting.entry is lease.entry


def test_what_nobody_has_used_is_not_reset() -> None:
    stand = Stand(resets=True)
    waiter = stand.ask()
    entry = stand.dial_succeeds()
    assert waiter.entry is entry
    stand.core.returned_unused(entry, None, stand.now)
    stand.settle()
    assert (entry.state, stand.resets) == (ConnectionState.IDLE, [])


def test_a_reset_that_fails_closes_the_connection_and_makes_room() -> None:
    stand = Stand(resets=True, max_connections_per_endpoint=1)
    lease = stand.lend()
    waiting = stand.ask()
    stand.release(lease)
    stand.reset_ends(CloseReason.ERROR)
    assert stand.closed == [(lease.entry, False)]
    assert [entry.awaited_by for entry in stand.dials] == [waiting]


def test_no_dial_starts_for_one_whom_a_reset_may_serve() -> None:
    stand = Stand(resets=True)
    stand.release(stand.lend())
    stand.ask()
    assert stand.dials == []


def test_a_reset_counts_as_use_of_the_connection() -> None:
    """Its idle time begins when the reset is over."""
    stand = Stand(resets=True, max_idle_time=10.0)
    stand.release(stand.lend())
    stand.now = 3.0
    entry = stand.reset_ends()
    assert (entry.state, entry.idle_since, entry.lapses_at) == (ConnectionState.IDLE, 3.0, 13.0)


def test_what_is_closed_amid_its_reset_is_reset_no_more() -> None:
    stand = Stand(resets=True, max_connections_per_endpoint=1)
    lease = stand.lend()
    stand.release(lease)
    stand.core.orders.cleared(stand.sub(), False, stand.now)
    stand.settle()
    assert [entry for entry, _ in stand.closed] == [lease.entry]
    assert (stand.sub().resetting, lease.entry.is_resetting) == (0, False)
    stand.reset_ends(CloseReason.ERROR)
    assert len(stand.closed) == 1


# ── keys ────────────────────────────────────────────────────────────────────────


def serve(stand: Stand, *keys: str | None) -> list[AnyEntry]:
    """As many connections, idle, each of which has served its key; the last is the newest."""
    leases = [stand.lend() for _ in keys]
    for lease, key in zip(leases, keys, strict=True):
        if key is not None:
            remember(lease.entry, key)
        stand.release(lease)
    return [lease.entry for lease in leases]


def test_a_key_finds_the_idle_connection_that_has_served_it_last() -> None:
    stand = Stand()
    known, newest = serve(stand, "key", None)
    assert stand.core.pop_known(stand.sub(), stand.now, "key") is known
    assert stand.core.pop_known(stand.sub(), stand.now, "key") is newest


def test_a_connection_is_known_by_the_last_key_only() -> None:
    stand = Stand()
    first, newest = serve(stand, "old", None)
    remember(first, "new")
    assert stand.core.pop_known(stand.sub(), stand.now, "old") is newest
    assert dict(stand.sub().known) == {"new": first}


def test_a_key_does_not_find_what_has_lapsed() -> None:
    stand = Stand(max_idle_time=10.0)
    (entry,) = serve(stand, "key")
    stand.now = 10.0
    assert stand.core.pop_known(stand.sub(), stand.now, "key") is None
    assert entry.state is ConnectionState.CLOSING


def test_a_key_is_forgotten_with_its_connection() -> None:
    stand = Stand()
    (entry,) = serve(stand, "key")
    stand.core.condemned(entry, CloseReason.PEER_CLOSED, stand.now)
    stand.settle()
    assert stand.sub().known == {}
