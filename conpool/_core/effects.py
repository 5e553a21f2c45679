"""What the core wants done: its half of the conversation with the shell.

The core puts effects into its outbox while it changes the books; the shell performs them, in order,
once the books are right, and reports back what became of each.

A waiter or a warmer in the outbox is to be woken; its own fields say with what. (They stand for
themselves because one is made for every lease that had to wait.)
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from conpool._core.records import Entry, Waiter, Warmer


class Dial(NamedTuple):
    """Open `entry`, then report `dialled` or `dial_failed`."""

    entry: Entry


class Close(NamedTuple):
    """Close `entry`, with a goodbye if `gracefully`, then report `closed`."""

    entry: Entry
    gracefully: bool


Effect: TypeAlias = Waiter | Warmer | Dial | Close
