"""The policy of one endpoint once more, but brief: lists, and rules applied until none fits.

It shares nothing with the core but its words. It knows no pool-wide limit and no warming. It is
told how long a back-off lasts, since that is a matter of arithmetic and tested as such.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, final


@final
@dataclass(eq=False)
class Peer:
    """One connection."""

    number: int
    awaited_by: int | None = None
    """For whom it is dialled or checked; that one may have gone since."""
    came_before: int = 0
    """How many had come when its dial began."""
    began_at: float = 0.0
    """When its dial began."""
    opened_at: float = 0.0
    idle_since: float = 0.0
    checked_at: float = 0.0
    uses: int = 0
    is_old: bool = False
    """Whether it was there at the last clear, or was retired."""
    is_dead: bool = False
    was_idle: bool = False
    is_reserved: bool = False
    """Whether it is checked in the background."""

    @property
    def silent_since(self) -> float:
        return max(self.idle_since, self.checked_at)


@final
@dataclass
class Reference:
    """What one endpoint should look like; callers and connections are numbers."""

    limit: int
    max_connecting: float = math.inf
    max_idle: float = math.inf
    max_uses: float = math.inf
    max_idle_time: float = math.inf
    max_lifetime: float = math.inf
    outage_grace: float = 1.0
    check_after: float = math.inf
    threshold: float = math.inf
    """How many failures in a row open the circuit."""
    reset_timeout: float = 0.0
    trials: float = math.inf
    """How many dials may try the server at a time."""
    is_courteous: bool = False
    is_slow_to_give_up: bool = False

    now: float = 0.0
    gate_opens_at: float = -math.inf
    has_failed: bool = False
    is_in_doubt: bool = False
    circuit: Literal["closed", "open", "half open"] = "closed"
    failures: int = 0
    """How many in a row."""
    is_reported: bool = False
    """Whether one of them was reported."""
    opened_at: float = -math.inf
    outage_since: float | None = None
    silent: int = 0
    """How many checks in a row had no answer."""
    is_paused: bool = False
    is_open: bool = True
    dialled: int = 0
    came: int = 0
    """How many have queued."""
    places: dict[int, int] = field(default_factory=dict)
    """For each caller, how many had queued when it did, itself included."""
    queue: list[int] = field(default_factory=list)
    aside: set[int] = field(default_factory=set)
    """Those for whom something was under way at some time."""
    fresh: set[int] = field(default_factory=set)
    """Those who want a new connection."""
    deadlines: dict[int, float] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    lent: dict[int, Peer] = field(default_factory=dict)
    idle: list[Peer] = field(default_factory=list)
    dials: list[Peer] = field(default_factory=list)
    void: list[Peer] = field(default_factory=list)
    """Dials that have been given up and have not ended."""
    checking: list[Peer] = field(default_factory=list)
    """Those that are checked before they are lent."""
    closing: list[Peer] = field(default_factory=list)
    drained: list[Peer] = field(default_factory=list)
    """Those that were there at some drain."""

    # ── callers ─────────────────────────────────────────────────────────────────

    def ask(self, caller: int, *, fresh: bool, deadline: float) -> None:
        if not (fresh or self.queue or self.is_paused):
            while (peer := self.pop_newest()) is not None and peer.is_dead:
                self.close(peer, gracefully=False)
            if peer is not None:
                if not self.needs_check(peer):
                    self.lend(peer, caller)
                    return
                self.take_back(peer)
        self.came += 1
        self.places[caller] = self.came
        self.queue.append(caller)
        self.deadlines[caller] = deadline
        if fresh:
            self.fresh.add(caller)
        self.settle()

    def leave(self, caller: int) -> None:
        self.queue.remove(caller)
        self.settle()

    def release(self, caller: int) -> None:
        peer = self.lent.pop(caller)
        peer.idle_since, peer.was_idle = self.now, False
        if self.is_in_doubt:
            self.is_in_doubt = False
            self.recover()
        self.take_back(peer)
        self.settle()

    def discard(self, caller: int) -> None:
        self.close(self.lent.pop(caller), gracefully=False)
        self.settle()

    def lose_early(self, caller: int) -> None:
        peer = self.lent.pop(caller)
        self.close(peer, gracefully=False)
        self.is_in_doubt = True
        self.fail(peer, None)

    # ── the world outside ───────────────────────────────────────────────────────

    def dial_succeeds(self, number: int) -> None:
        peer = self.take_out(self.dials + self.void, number)
        is_news = self.outage_since is None or peer.began_at > self.outage_since
        if is_news and not self.is_in_doubt:
            self.recover()
        peer.opened_at = peer.idle_since = self.now
        peer.awaited_by = None
        self.take_back(peer)
        self.settle()

    def dial_fails(self, number: int) -> None:
        peer = self.take_out(self.dials + self.void, number)
        self.fail(peer, peer.awaited_by if peer.awaited_by in self.queue else None)

    def dial_ends(self, number: int) -> None:
        self.take_out(self.void, number)
        self.settle()

    def close_ends(self, number: int) -> None:
        self.take_out(self.closing, number)
        self.settle()

    def advance(self, now: float) -> None:
        """Go on to `now`, at which at most one thing falls due for each caller."""
        self.now = now
        for caller in list(self.queue):
            if self.deadlines[caller] <= now:
                self.refuse(caller, "timeout")
        self.settle()

    # ── checks ──────────────────────────────────────────────────────────────────

    def reserve(self, number: int) -> None:
        next(peer for peer in self.idle if peer.number == number).is_reserved = True

    def check_succeeds(self, number: int) -> None:
        self.silent = 0
        for peer in [*self.idle, *self.checking]:
            if peer.number != number:
                continue
            peer.checked_at = self.now
            if peer in self.checking:
                self.checking.remove(peer)
                self.take_back(peer)
            elif not self.is_fit(peer) or self.surplus() > 0:
                self.idle.remove(peer)
                self.close(peer, gracefully=True)
            peer.is_reserved = False
        self.settle()

    def check_fails(self, number: int) -> None:
        for peer in [*self.idle, *self.checking]:
            if peer.number != number:
                continue
            self.take_out(self.idle + self.checking, number)
            self.close(peer, gracefully=False)
            self.silent += 1
            if self.silent > 1:
                for other in list(self.idle):
                    if not other.is_reserved and other.silent_since <= peer.silent_since:
                        self.idle.remove(other)
                        self.close(other, gracefully=False)
        self.settle()

    def sweep(self) -> None:
        for peer in list(self.idle):
            if not peer.is_reserved and (peer.is_dead or not self.is_fit(peer)):
                self.idle.remove(peer)
                self.close(peer, gracefully=not peer.is_dead)
        self.settle()

    # ── orders ──────────────────────────────────────────────────────────────────

    def clear(self) -> None:
        for peer in self.lent.values():
            peer.is_old = True
        self.checking = []
        self.idle = [peer for peer in self.idle if not peer.is_reserved]
        for peer in self.dials:
            peer.is_old, peer.awaited_by = True, None
        if self.is_slow_to_give_up:
            self.void += self.dials
        self.dials = []
        self.close_idle()

    def drain(self) -> None:
        self.drained += self.find_all()
        self.clear()

    def close_idle(self) -> int:
        leaving = [peer for peer in self.idle if not peer.is_reserved]
        self.idle = [peer for peer in self.idle if peer.is_reserved]
        for peer in leaving:
            self.close(peer, gracefully=True)
        self.settle()
        return len(leaving)

    def set_limit(self, limit: int) -> None:
        self.limit = limit
        for peer in list(self.idle):
            if not peer.is_reserved and self.surplus() > 0:
                self.idle.remove(peer)
                self.close(peer, gracefully=True)
        self.settle()

    def shut(self) -> None:
        self.is_open = False
        for caller in list(self.queue):
            self.refuse(caller, "pool closed")
        self.dials, self.void, self.checking = [], [], []
        self.idle = [peer for peer in self.idle if not peer.is_reserved]
        self.close_idle()

    # ── the rules ───────────────────────────────────────────────────────────────

    def settle(self) -> None:
        while self.look_at_idle() or self.dial() or self.evict() or self.turn_away():
            pass

    def look_at_idle(self) -> bool:
        """Look at the newest idle connection on behalf of a waiter."""
        usual = [caller for caller in self.queue if caller not in self.fresh]
        unprovided = next((c for c in usual if c in self.find_unprovided()), None)
        if self.is_paused or (unprovided is None and len(self.checking) >= len(usual)):
            return False
        peer = self.pop_newest()
        if peer is None:
            return False
        if peer.is_dead:
            self.close(peer, gracefully=False)
        elif self.needs_check(peer):
            peer.awaited_by = unprovided
            if unprovided is not None:
                self.aside.add(unprovided)
            self.checking.append(peer)
        else:
            self.take_back(peer)
        return True

    def dial(self) -> bool:
        """Start a dial for the oldest waiter for whom nothing is under way."""
        unprovided = self.find_unprovided()
        wanted = min(len(self.queue) - self.coming(), len(unprovided))
        if wanted <= 0 or self.count() >= self.limit or not self.may_dial():
            return False
        self.dialled += 1
        oldest, came = unprovided[0], self.came
        self.dials.append(Peer(self.dialled, oldest, came_before=came, began_at=self.now))
        self.aside.add(oldest)
        if self.circuit == "open":
            self.circuit = "half open"
        has_more = self.circuit == "half open" and self.count_places() > 0 and not self.is_in_doubt
        if self.has_failed and not has_more:
            self.gate_opens_at = math.inf  # until the core has been asked for how long
        return True

    def turn_away(self) -> bool:
        """Refuse the youngest of those whom only a dial could serve that the circuit forbids."""
        can_dial = self.idle or self.count() < self.limit
        if self.is_paused or self.count_places() > 0 or not can_dial:
            return False
        unprovided = self.find_unprovided()
        if self.has_circulation():
            unprovided = [caller for caller in unprovided if caller in self.fresh]
            spare = sum(peer.awaited_by not in self.queue for peer in self.dials)
            excess = len(unprovided) - spare - len(self.void)
        else:
            excess = len(self.queue) - self.coming() - len(self.void)
        in_line = [caller for caller in unprovided if caller not in self.aside]
        aside = sorted(self.aside.intersection(unprovided), key=lambda c: (c not in self.fresh, c))
        if excess <= 0 or not unprovided:
            return False
        self.refuse(in_line[-1] if in_line else aside[0], "circuit open")
        return True

    def evict(self) -> bool:
        """Close the oldest idle connection for one who wants a new one."""
        if not (self.queue and self.idle) or not self.must_make_way(self.queue):
            return False
        peer = self.idle.pop(0)
        self.close(peer, gracefully=not peer.is_reserved)
        return True

    def take_back(self, peer: Peer) -> None:
        """Lend `peer`, which nobody holds, keep it or close it."""
        is_wanted = bool(self.queue)
        has_room = is_wanted or (len(self.idle) < self.max_idle and self.max_idle_time > 0)
        is_kept = self.is_open and not peer.is_old and has_room and self.surplus(peer) <= 0
        if not is_kept or not self.is_fit(peer):
            self.close(peer, gracefully=True)
            return
        if not self.is_paused:
            takers = [c for c in self.queue if c not in self.fresh or self.is_new(peer)]
            before = self.queue[: self.queue.index(takers[0])] if takers else self.queue
            if not self.is_new(peer) and self.must_make_way(before, peer):
                self.close(peer, gracefully=True)
                return
            if takers:
                self.queue.remove(takers[0])
                self.lend(peer, takers[0])
                return
        peer.was_idle = True
        self.idle.append(peer)

    def fail(self, peer: Peer, awaited_by: int | None) -> None:
        """A dial has failed, or was of no use: tell who cannot be served in spite of it."""
        self.has_failed, self.gate_opens_at = True, math.inf  # until the core says how long
        if self.outage_since is None:
            self.outage_since = self.now
        self.count_failure(peer.opened_at or peer.began_at)
        is_helped = bool(self.has_circulation() or self.dials)
        if awaited_by is not None and (awaited_by in self.fresh or not is_helped):
            self.refuse(awaited_by, "dial failed")
        if not is_helped and self.now - self.outage_since >= self.outage_grace:
            for caller in list(self.queue):
                if self.places[caller] <= peer.came_before:
                    self.refuse(caller, "dial failed")
        self.settle()

    def recover(self) -> None:
        self.has_failed, self.gate_opens_at, self.outage_since = False, -math.inf, None
        if self.circuit == "half open" or not self.is_reported:
            self.close_circuit()

    # ── the circuit ─────────────────────────────────────────────────────────────

    def count_failure(self, began_at: float) -> None:
        if self.circuit == "closed":
            self.failures += 1
            if self.failures >= self.threshold:
                self.circuit, self.opened_at = "open", self.now
        elif self.circuit == "half open" and began_at > self.opened_at:
            self.circuit, self.opened_at = "open", self.now

    def close_circuit(self) -> None:
        self.circuit, self.failures, self.is_reported = "closed", 0, False

    def report_failure(self) -> None:
        self.count_failure(math.inf)
        self.is_reported = True
        self.settle()

    def report_success(self) -> None:
        self.close_circuit()
        self.settle()

    def count_places(self) -> float:
        """How many dials the circuit lets through now."""
        if self.circuit == "closed":
            return math.inf
        if self.circuit == "open" and self.now < self.opened_at + self.reset_timeout:
            return 0
        tries = [peer for peer in [*self.dials, *self.void] if peer.began_at > self.opened_at]
        return self.trials - len(tries)

    def has_circulation(self) -> bool:
        reserved = [peer for peer in self.idle if peer.is_reserved]
        lasting = [peer for peer in self.lent.values() if not peer.is_old]
        return bool(lasting or self.checking or reserved)

    # ── questions ───────────────────────────────────────────────────────────────

    def must_make_way(self, before: list[int], extra: Peer | None = None) -> bool:
        """Whether one of those in `before` wants a new connection, and needs one more slot."""
        unprovided = self.find_unprovided()
        wanting = sum(caller in self.fresh and caller in unprovided for caller in before)
        if not wanting or self.count(extra) < self.limit or not self.may_dial():
            return False
        spare = sum(peer.awaited_by not in self.queue for peer in self.dials)
        most = 1 if self.has_failed else self.max_connecting - len(self.dials) - len(self.void)
        return len(self.closing) + len(self.void) < min(wanting - spare, most)

    def may_dial(self) -> bool:
        if self.is_paused or self.now < self.gate_opens_at or self.count_places() <= 0:
            return False
        return len(self.dials) + len(self.void) < self.max_connecting

    def coming(self) -> int:
        """How many dials and checks under way may serve a waiter."""
        usual = sum(caller not in self.fresh for caller in self.queue)
        return len(self.dials) + min(len(self.checking), usual)

    def find_unprovided(self) -> list[int]:
        """Those for whom nothing is under way."""
        have = {peer.awaited_by for peer in [*self.dials, *self.checking]}
        return [caller for caller in self.queue if caller not in have]

    def pop_newest(self) -> Peer | None:
        """Take the newest idle connection that may be lent; close those that have lapsed."""
        for peer in reversed(list(self.idle)):
            if peer.is_reserved:
                continue
            self.idle.remove(peer)
            if self.is_fit(peer):
                return peer
            self.close(peer, gracefully=True)
        return None

    def needs_check(self, peer: Peer) -> bool:
        return peer.was_idle and self.now - peer.silent_since >= self.check_after

    def is_fit(self, peer: Peer) -> bool:
        is_young = self.now - peer.opened_at < self.max_lifetime
        is_warm = not peer.was_idle or self.now - peer.idle_since < self.max_idle_time
        return is_young and is_warm and peer.uses < self.max_uses

    def is_new(self, peer: Peer) -> bool:
        return not peer.uses and not peer.was_idle

    def surplus(self, extra: Peer | None = None) -> int:
        """By how much those that are to stay exceed the limit."""
        return self.count(extra) - len(self.closing) - len(self.void) - self.limit

    def count(self, extra: Peer | None = None) -> int:
        """How many slots are taken, that of `extra` included."""
        return len(self.find_all()) + (extra is not None)

    def find_all(self) -> list[Peer]:
        """All that hold a slot."""
        dials = [*self.dials, *self.void]
        return [*self.lent.values(), *self.idle, *dials, *self.checking, *self.closing]

    def find_undrained(self) -> list[Peer]:
        """Those that were to go, and are still there."""
        return [peer for peer in self.find_all() if peer in self.drained]

    # ── changes ─────────────────────────────────────────────────────────────────

    def lend(self, peer: Peer, caller: int) -> None:
        peer.uses += 1
        self.lent[caller] = peer

    def refuse(self, caller: int, why: str) -> None:
        self.queue.remove(caller)
        self.refused[caller] = why

    def close(self, peer: Peer, *, gracefully: bool) -> None:
        if gracefully and self.is_courteous:
            self.closing.append(peer)

    def take_out(self, peers: list[Peer], number: int) -> Peer:
        """Remove the connection of that number from whichever list it is in."""
        peer = next(peer for peer in peers if peer.number == number)
        for group in (self.idle, self.dials, self.void, self.checking, self.closing):
            if peer in group:
                group.remove(peer)
        return peer
