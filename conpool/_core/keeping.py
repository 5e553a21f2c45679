"""Whether a connection may be kept: its age, uses, generation, fate, and its endpoint's limits.

Only the shell knows what has moved on it, and whether its peer is still there.
"""

from __future__ import annotations

from conpool._core.records import AnyEntry, AnySubPool
from conpool._values.states import CloseReason


def why_not_kept(entry: AnyEntry, now: float) -> CloseReason | None:
    """Return why `entry`, which came back clean, must be closed; None if it may be lent again."""
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
    return _why_unwanted(sub) if sub.may_be_unwanted else None


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


def set_limit(sub: AnySubPool, total: int) -> list[AnyEntry]:
    """Change the limit of `sub`; return the idle connections that are now surplus, oldest first."""
    sub.limit.total = total
    sub.resized = total != sub.config.max_connections_per_endpoint
    surplus = _count_surplus(sub)
    sub.may_be_unwanted = surplus > 0 or not sub.max_idle_time
    return list(sub.idle)[: max(0, surplus)]


def _why_unwanted(sub: AnySubPool) -> CloseReason | None:
    if _count_surplus(sub) > 0:
        return CloseReason.SURPLUS
    is_wanted = sub.max_idle_time or sub.queue or sub.warmers
    return None if is_wanted else CloseReason.IDLE_TIME


def _count_surplus(sub: AnySubPool) -> int:
    """Return by how much the connections that are not on their way out exceed the limit."""
    return len(sub.limit.borrowers) - sub.closing - sub.limit.total
