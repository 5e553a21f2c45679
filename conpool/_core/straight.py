"""The straight line: the two commonest ways, each in one function without a question too many.

An idle connection is lent, and it comes back clean, with nobody waiting. Where an endpoint is
`is_straight`, most of what the general path asks cannot matter, and these functions do the rest of
what it does: `take` abbreviates `Serving.pop_newest`, `begin` `Core.lease_began`, and `keep`
`Core.released`. Where one cannot tell, it changes nothing and says so, and its caller goes the
general way. The model checker compares both ways in every state that it visits.

A lease costs as much as the operations here: see `bench` before and after a change.
"""

from __future__ import annotations

from typing import Final

from conpool._core.records import AnyEntry, AnyLease, AnySubPool, Entry, Lease, LinkT, TaskT
from conpool._values.states import ConnectionState

_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE

MOST_RECENT: Final = 32
"""How many durations are kept as they are until a histogram counts them, in one go."""


def take(sub: AnySubPool, now: float) -> AnyEntry | None:
    """Take the newest idle connection of `sub`, which is straight and for which nobody waits.

    Returns None, and has changed nothing, if there is none or that one has lapsed.
    """
    idle = sub.idle
    if not idle:
        return None
    entry, _ = idle.popitem()
    if now >= entry.lapses_at:
        idle[entry] = None
        return None
    entry.state = _ACTIVE
    sub.used_at = now
    return entry


def begin(entry: Entry[LinkT, TaskT], holder: TaskT, now: float) -> Lease[LinkT, TaskT]:
    """A lease begins of `entry`, which was idle and taken at `now`, without a wait."""
    lease = Lease(entry, holder, now)
    entry.leases[lease] = None
    uses = entry.uses
    entry.uses = uses + 1
    counters = entry.sub.counters
    if uses:
        counters.hits += 1
    else:
        counters.count_lease(0.0, is_reused=False)
    return lease


def keep(lease: AnyLease, now: float) -> bool:
    """`lease` is over. Its connection is active, clean and alive, its endpoint is straight.

    Returns False, and has changed nothing, if the connection may not be kept.
    """
    entry = lease.entry
    sub = entry.sub
    lapses_at = now + sub.max_idle_time
    if lapses_at > entry.expires_at:  # near the end of its life, or doomed
        return False
    counters = sub.counters
    recent = counters.use_time.recent
    recent.append(now - lease.since)  # first: if it raises, the books still have the lease
    del entry.leases[lease]
    entry.was_idle = True
    entry.idle_since = now
    entry.lapses_at = lapses_at
    entry.state = _IDLE
    sub.used_at = now
    sub.idle[entry] = None
    if len(recent) >= MOST_RECENT:
        counters.use_time = counters.use_time.settled()
    return True
