"""Retiring the connections of an endpoint one after the other, each at a time of its own.

After a change of credentials or servers every connection must go, but not all at the same time: a
busy endpoint would stand still until as many dials had succeeded. So each gets a time in the window
that the caller names. Until then it is lent as ever; then it is closed if it is idle, and else when
its lease ends. The idle ones go first, the longest idle before all others: they are missed least.

While as many of an endpoint are closing as may close at once, the next one waits, however late it
is: a goodbye that the peer does not answer takes `close_timeout`, and holds its slot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain, compress, repeat
from operator import attrgetter, is_not
from typing import Final, final

from conpool._core.few import without
from conpool._core.ledger import Ledger
from conpool._core.outgoing import doom
from conpool._core.records import AnyEntry, AnySubPool
from conpool._values.states import CloseReason, ConnectionState

FEWEST: Final = 2
MOST: Final = 50
"""How many connections of an endpoint may close at once: a tenth of them, between these two."""

_SHORTEST: Final = 0.01
"""Seconds until the next look, at least, where too many are closing."""

_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE
_CLOSING = ConnectionState.CLOSING
_state_of = attrgetter("state")


@final
class Plan:
    """When which connections of one sub-pool go."""

    __slots__ = ("at_once", "left", "next_at", "pace")

    def __init__(self, entries: list[AnyEntry], pace: float, next_at: float) -> None:
        self.at_once = min(max(FEWEST, len(entries) // 10), MOST)
        """How many may close at the same time."""
        self.pace = pace
        """Seconds from one to the next."""
        self.next_at = next_at
        self.left = entries[::-1]
        """The last goes first."""


@final
class Retiring:
    """The plans of one pool."""

    __slots__ = ("_ledger", "plans")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.plans: dict[AnySubPool, list[Plan]] = {}

    def begin(self, sub: AnySubPool, over: float, share: float, now: float) -> list[AnyEntry]:
        """Retire all that `sub` has now within `over` seconds; return them, the closing ones too.

        `share`, above 0 and up to 1, moves all of them by this part of the pause between two, so
        that endpoints with few connections do not take the same moments.
        """
        oldest_first = sorted(sub.limit.borrowers, key=attrgetter("id"))
        entries = [*dict.fromkeys(chain(sub.idle, find_staying(oldest_first)))]
        if entries:
            pace = over / len(entries)
            plan = Plan(entries, pace, now + pace * share)
            self.plans.setdefault(sub, []).append(plan)
            self._ledger.timetable.look_at(sub, plan.next_at)
        return oldest_first

    def went_on(self, sub: AnySubPool, now: float) -> None:
        """Retire what has fallen due of `sub`."""
        plans = self.plans.get(sub)
        if plans is None:
            return
        for plan in plans:
            self._go_on(sub, plan, now)
        plans[:] = (plan for plan in plans if plan.left)
        if not plans:
            del self.plans[sub]

    def _go_on(self, sub: AnySubPool, plan: Plan, now: float) -> None:
        for _ in range(plan.at_once):
            if not plan.left or plan.next_at > now or sub.closing >= plan.at_once:
                break
            plan.next_at += plan.pace
            self.retire(plan.left.pop(), CloseReason.CLEARED)
        if plan.left:
            is_full = sub.closing >= plan.at_once
            soon = now + max(plan.pace, _SHORTEST) if is_full else now
            self._ledger.timetable.look_at(sub, max(soon, plan.next_at))

    def retire(self, entry: AnyEntry, reason: CloseReason) -> None:
        """Close `entry` now if nobody has it, and otherwise when it comes back."""
        sub = entry.sub
        if entry.state is _IDLE:
            is_checked = entry in sub.reserved
            self._ledger.condemn(entry, reason, gracefully=not is_checked)
        elif entry.state is _ACTIVE:
            doom(entry, reason)
            sub.roomy = without(sub.roomy, entry)
        elif entry.state is ConnectionState.CONNECTING:
            self._ledger.give_up(entry)


def find_staying(entries: Collection[AnyEntry]) -> Iterator[AnyEntry]:
    """Find what is not on its way out already. It costs a loop in C, however many there are."""
    return compress(entries, map(is_not, map(_state_of, entries), repeat(_CLOSING)))
