"""Lent connections that will serve nobody else: each is closed when its last lease ends.

They are counted, so that nobody has to look at all connections to learn whether one may come back.
"""

from __future__ import annotations

import math

from conpool._core.records import AnyEntry, AnySubPool
from conpool._values.states import CloseReason, ConnectionState

_ACTIVE = ConnectionState.ACTIVE


def is_outgoing(entry: AnyEntry) -> bool:
    """Whether `entry` takes no new leases."""
    return entry.doomed is not None or entry.generation != entry.sub.generation


def doom(entry: AnyEntry, reason: CloseReason) -> None:
    """`entry`, which is not idle, takes no new leases, for `reason`."""
    if entry.state is _ACTIVE and not is_outgoing(entry):
        entry.sub.outgoing += 1
    entry.doomed = entry.doomed or reason
    entry.expires_at = -math.inf  # so nobody needs to ask for `doomed` where the age is asked for


def why_leaving(entry: AnyEntry) -> CloseReason | None:
    """Return why `entry` is closed soon, which was idle and set aside; None if it was not."""
    return next((why for why, some in entry.sub.leaving.items() if entry in some), None)


def is_in_circulation(sub: AnySubPool) -> bool:
    """Whether a connection is lent, checked or reset that may serve a waiter in a moment."""
    return bool(sub.reserved) or sub.active > sub.outgoing
