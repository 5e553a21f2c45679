"""What the core wants done: its half of the conversation with the shell.

The core puts effects into its outbox while it changes the books; the shell performs them, in order,
once the books are right, and reports back what became of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from conpool._entry import Entry
    from conpool._states import CloseReason
    from conpool._waiter import Waiter, Warmer


class Lend(NamedTuple):
    """Wake `waiter` with the connection that is now its own."""

    waiter: Waiter


class Refuse(NamedTuple):
    """Wake `waiter`; its `refusal` and `error` say why it gets nothing."""

    waiter: Waiter


class Dial(NamedTuple):
    """Open `entry`, then report `dialled` or `dial_failed`."""

    entry: Entry


class Close(NamedTuple):
    """Close `entry`, with a goodbye if `gracefully`, then report `closed`."""

    entry: Entry
    reason: CloseReason
    gracefully: bool


class Warmed(NamedTuple):
    """Wake `warmer`: its target is reached, or its `error` says why not."""

    warmer: Warmer


Effect: TypeAlias = Lend | Refuse | Dial | Close | Warmed
