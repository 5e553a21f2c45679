"""Dials and checks under way that no waiter needs: whoever comes next may have one, or it ends.

These are the ones that nobody asked for, and those whose waiter has gone.
"""

from __future__ import annotations

from typing import Final

from conpool._core.few import entered, without
from conpool._core.records import AnyEntry
from conpool._values.states import ConnectionState

_CONNECTING: Final = ConnectionState.CONNECTING


def note(entry: AnyEntry) -> None:
    """Nobody waits for what is under way with `entry`. A dial in vain is of no use to anybody."""
    sub = entry.sub
    if entry.is_checking:
        sub.spare_checks = entered(sub.spare_checks, entry, None)
    elif entry.state is _CONNECTING and not entry.is_void:
        sub.spare_dials = entered(sub.spare_dials, entry, None)


def claim(entry: AnyEntry) -> None:
    """What is under way with `entry` is over, or somebody waits for it."""
    sub = entry.sub
    sub.spare_dials = without(sub.spare_dials, entry)
    sub.spare_checks = without(sub.spare_checks, entry)
