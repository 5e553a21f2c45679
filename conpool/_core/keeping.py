"""Whether a connection may be kept: age, uses, generation and fate, and its endpoint's limits.

What has moved on it, and whether its peer is still there, is not known here: the shell reports it.
`Core.released` and `straight.keep` abbreviate `why_not_kept`: change all three.
"""

from __future__ import annotations

from typing import Final

from conpool._core.records import AnyEntry, AnyLease, AnySubPool
from conpool._values.states import CloseReason

_FEW: Final = 4
"""As many leases of a connection are a tuple, which takes less memory; more are a dict."""


def why_not_kept(entry: AnyEntry, now: float) -> CloseReason | None:
    """Return why `entry`, which has come back clean, must be closed; None if it may be kept."""
    sub = entry.sub
    if entry.doomed is not None:
        return entry.doomed
    if entry.generation != sub.generation:
        return CloseReason.CLEARED
    if now >= entry.expires_at:
        return CloseReason.LIFETIME
    if entry.was_idle and now >= entry.lapses_at:  # it was taken, and nobody has used it
        return CloseReason.IDLE_TIME
    if entry.uses >= sub.max_uses:
        return CloseReason.USES
    return _why_unwanted(sub) if sub.is_strict else None


def why_lapsed(entry: AnyEntry, now: float) -> CloseReason:
    """Return which of its two ends an idle connection has reached."""
    return CloseReason.LIFETIME if now >= entry.expires_at else CloseReason.IDLE_TIME


def begin_life(entry: AnyEntry, lifetime: float, now: float) -> None:
    """`entry` has just been opened, and is lent for at most `lifetime` seconds from now."""
    entry.created_at = now
    entry.expires_at = now + lifetime


def begin_idling(entry: AnyEntry, now: float) -> None:
    """Count the idle time of `entry` from now."""
    entry.was_idle = False
    entry.idle_since = now
    lapses_at = now + entry.sub.max_idle_time
    expires_at = entry.expires_at
    # Spelled out, since min() is a call too many here.
    entry.lapses_at = lapses_at if lapses_at < expires_at else expires_at  # noqa: FURB136


def silent_since(entry: AnyEntry) -> float:
    """Return when `entry`, which is not lent, was last used or has last answered a check."""
    return max(entry.idle_since, entry.checked_at)


def needs_check(entry: AnyEntry, now: float) -> bool:
    """Whether `entry` must be checked before it is lent."""
    return entry.was_idle and now - silent_since(entry) >= entry.sub.check_after


def with_lease(lease: AnyLease) -> tuple[AnyLease, ...] | dict[AnyLease, None]:
    """Return the leases of a shared connection with `lease`, which begins, among them."""
    leases = lease.entry.leases
    if isinstance(leases, dict):
        leases[lease] = None
        return leases
    return (*leases, lease) if len(leases) < _FEW else dict.fromkeys((*leases, lease))


def end_lease(lease: AnyLease) -> None:
    """`lease` is over; one that has ended before is a bug."""
    entry = lease.entry
    leases = entry.leases
    if isinstance(leases, dict):
        del leases[lease]
        entry.leases = leases or ()
    else:
        place = leases.index(lease)
        entry.leases = leases[:place] + leases[place + 1 :]


def _why_unwanted(sub: AnySubPool) -> CloseReason | None:
    if sub.count_surplus() > 0:
        return CloseReason.SURPLUS
    if sub.waiting or sub.warmers:
        return None
    if len(sub.idle) >= sub.max_idle:
        return CloseReason.SURPLUS
    return None if sub.max_idle_time else CloseReason.IDLE_TIME
