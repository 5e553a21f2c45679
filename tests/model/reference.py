"""The policy of one endpoint once more, but brief: lists, and rules applied until none fits.

It shares nothing with the core but its words. It knows no pool-wide limit and no warming. It is
told how long a back-off lasts, since that is a matter of arithmetic and tested as such.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final


@final
@dataclass(eq=False)
class Peer:
    """One connection."""

    number: int
    opened_at: float = 0.0
    idle_since: float = 0.0
    uses: int = 0
    is_old: bool = False
    """Whether it was there at the last clear, or was retired."""
    is_dead: bool = False
    was_idle: bool = False
    dialled_for: int | None = None


@final
@dataclass
class Reference:
    """What one endpoint should look like; callers and connections are numbers."""

    limit: int
    max_connecting: float = math.inf
    max_uses: float = math.inf
    max_idle_time: float = math.inf
    max_lifetime: float = math.inf
    is_courteous: bool = False

    now: float = 0.0
    gate_opens_at: float = -math.inf
    has_failed: bool = False
    is_paused: bool = False
    is_open: bool = True
    dialled: int = 0
    queue: list[int] = field(default_factory=list)
    fresh: set[int] = field(default_factory=set)
    """Those who want a new connection."""
    deadlines: dict[int, float] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    lent: dict[int, Peer] = field(default_factory=dict)
    idle: list[Peer] = field(default_factory=list)
    dials: list[Peer] = field(default_factory=list)
    checked: list[Peer] = field(default_factory=list)
    closing: list[Peer] = field(default_factory=list)
    drained: list[Peer] = field(default_factory=list)
    """Those that were there at some drain."""

    # ── what happens ────────────────────────────────────────────────────────────

    def ask(self, caller: int, *, fresh: bool, deadline: float) -> None:
        if not (fresh or self.queue or self.is_paused):
            while self.idle:
                peer = self.idle.pop()
                if self.is_fit(peer) and not peer.is_dead:
                    self.lend(peer, caller)
                    return
                self.close(peer, gracefully=not self.is_fit(peer))
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
        self.take_back(peer)

    def discard(self, caller: int) -> None:
        self.close(self.lent.pop(caller), gracefully=False)
        self.settle()

    def dial_succeeds(self, number: int) -> None:
        peer = self.take_out(self.dials, number)
        self.has_failed, self.gate_opens_at = False, -math.inf
        peer.opened_at = peer.idle_since = self.now
        peer.dialled_for = None
        self.take_back(peer)

    def dial_fails(self, number: int) -> None:
        peer = self.take_out(self.dials, number)
        self.has_failed, self.gate_opens_at = True, math.inf  # until the core says how long
        if peer.dialled_for in self.queue:
            self.queue.remove(peer.dialled_for)
            self.refused[peer.dialled_for] = "dial failed"
        self.settle()

    def close_ends(self, number: int) -> None:
        self.take_out(self.closing, number)
        self.settle()

    def check(self, number: int) -> None:
        self.checked.append(self.take_out(self.idle, number))

    def check_succeeds(self, number: int) -> None:
        self.take_back(self.take_out(self.checked, number))

    def check_fails(self, number: int) -> None:
        self.close(self.take_out(self.checked, number), gracefully=False)
        self.settle()

    def sweep(self) -> None:
        for peer in list(self.idle):
            if peer.is_dead or not self.is_fit(peer):
                self.idle.remove(peer)
                self.close(peer, gracefully=not peer.is_dead)
        self.settle()

    def clear(self) -> None:
        for peer in [*self.lent.values(), *self.dials]:
            peer.is_old = True
        for peer in self.checked:
            self.close(peer, gracefully=False)
        self.checked = []
        self.close_idle(len(self.idle))

    def drain(self) -> None:
        self.drained += self.find_all()
        self.clear()

    def close_idle(self, count: int) -> None:
        for _ in range(count):
            self.close(self.idle.pop(0), gracefully=True)
        self.settle()

    def set_limit(self, limit: int) -> None:
        self.limit = limit
        self.close_idle(min(len(self.idle), max(0, self.count() - len(self.closing) - limit)))

    def advance(self, now: float) -> None:
        """Go on to `now`, at which at most one thing falls due for each caller."""
        self.now = now
        for caller in list(self.queue):
            if self.deadlines[caller] <= now:
                self.queue.remove(caller)
                self.refused[caller] = "timeout"
        self.settle()

    def shut(self) -> None:
        self.is_open = False
        self.refused |= dict.fromkeys(self.queue, "pool closed")
        self.queue.clear()
        self.dials.clear()
        for peer in self.checked:
            self.close(peer, gracefully=False)
        self.checked = []
        self.close_idle(len(self.idle))

    # ── the rules ───────────────────────────────────────────────────────────────

    def settle(self) -> None:
        while self.lend_idle() or self.dial() or self.evict():
            pass

    def lend_idle(self) -> bool:
        """Lend the newest idle connection to the oldest waiter that would have it."""
        takers = [caller for caller in self.queue if caller not in self.fresh]
        if self.is_paused or not self.idle or not takers:
            return False
        peer = self.idle.pop()
        if self.is_fit(peer) and not peer.is_dead:
            self.queue.remove(takers[0])
            self.lend(peer, takers[0])
        else:
            self.close(peer, gracefully=not self.is_fit(peer))
        return True

    def dial(self) -> bool:
        """Start a dial for the oldest waiter that has none."""
        if self.lacking() <= 0 or self.count() >= self.limit:
            return False
        have = {peer.dialled_for for peer in self.dials}
        self.dialled += 1
        caller = next(caller for caller in self.queue if caller not in have)
        self.dials.append(Peer(self.dialled, dialled_for=caller))
        if self.has_failed:
            self.gate_opens_at = math.inf  # until the core has been asked for how long
        return True

    def evict(self) -> bool:
        """Close the longest idle connection for one who wants a new one."""
        if self.lacking() <= len(self.closing) or self.count() < self.limit or not self.idle:
            return False
        self.close(self.idle.pop(0), gracefully=True)
        return True

    def take_back(self, peer: Peer) -> None:
        """Keep `peer`, or close it."""
        surplus = self.count() + 1 - len(self.closing) - self.limit
        spoilt = peer.is_old or surplus > 0 or not self.is_open
        if spoilt or not self.is_fit(peer) or self.is_wanted_gone(peer):
            self.close(peer, gracefully=True)
        else:
            place = len(self.idle)
            while place and peer.was_idle and self.idle[place - 1].idle_since > peer.idle_since:
                place -= 1
            takers = [c for c in self.queue if c not in self.fresh or self.is_new(peer)]
            if takers and not self.is_paused and (not peer.is_dead or not peer.was_idle):
                self.queue.remove(takers[0])
                self.lend(peer, takers[0])
            elif takers and not self.is_paused:
                self.close(peer, gracefully=False)
            else:
                self.idle.insert(place, peer)
                peer.was_idle = True
        self.settle()

    def is_wanted_gone(self, peer: Peer) -> bool:
        """Whether the slot of `peer` is for one who wants a new connection, and came first."""
        if self.is_new(peer) or self.is_paused or self.count() + 1 < self.limit:
            return False
        have = {other.dialled_for for other in self.dials}
        lacking = -sum(other.dialled_for not in self.queue for other in self.dials)
        for caller in self.queue:
            if caller not in self.fresh:
                return False
            lacking += caller not in have
            most = 1 if self.has_failed else self.max_connecting - len(self.dials)
            may_dial = caller not in have and self.now >= self.gate_opens_at
            if may_dial and min(lacking, most) > len(self.closing):
                return True
        return False

    def lacking(self) -> float:
        """How many dials more there should be, if there were slots."""
        if self.is_paused or self.now < self.gate_opens_at:
            return 0
        lacking = min(len(self.queue), self.max_connecting) - len(self.dials)
        return min(lacking, 1) if self.has_failed else lacking

    def lend(self, peer: Peer, caller: int) -> None:
        peer.uses += 1
        self.lent[caller] = peer

    def close(self, peer: Peer, *, gracefully: bool) -> None:
        if gracefully and self.is_courteous:
            self.closing.append(peer)

    def is_fit(self, peer: Peer) -> bool:
        is_young = self.now - peer.opened_at < self.max_lifetime
        is_warm = not peer.was_idle or self.now - peer.idle_since < self.max_idle_time
        return is_young and is_warm and peer.uses < self.max_uses

    def is_new(self, peer: Peer) -> bool:
        return not peer.uses and not peer.was_idle

    def find_all(self) -> list[Peer]:
        """All that hold a slot."""
        return [*self.lent.values(), *self.idle, *self.dials, *self.checked, *self.closing]

    def find_undrained(self) -> list[Peer]:
        """Those that were to go, and are still there."""
        return [peer for peer in self.find_all() if peer in self.drained]

    def count(self) -> int:
        kept = len(self.lent) + len(self.idle) + len(self.checked)
        return kept + len(self.dials) + len(self.closing)

    def take_out(self, peers: list[Peer], number: int) -> Peer:
        peer = next(peer for peer in peers if peer.number == number)
        peers.remove(peer)
        return peer
