"""A connection in the books: what the pool knows of it, and in which state it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from conpool._states import TRANSITIONS, CloseReason, ConnectionState

if TYPE_CHECKING:
    from conpool._subpool import SubPool
    from conpool._waiter import Waiter, Warmer


@final
class Entry:
    """One connection from before its dial until after its close.

    The core writes the first group of fields. The second is the shell's: it is kept here so that a
    lease costs no look-up, and the core never reads it.
    """

    __slots__ = (
        "checked_at",
        "created_at",
        "dial_for",
        "expires_at",
        "generation",
        "holder",
        "id",
        "idle_since",
        "lapses_at",
        "leases",
        "lent_at",
        "link",
        "reason",
        "retired",
        "state",
        "sub",
        "uses",
        "was_idle",
    )

    def __init__(self, number: int, sub: SubPool, now: float) -> None:
        self.id = number
        self.sub = sub
        self.state = ConnectionState.CONNECTING
        self.generation = sub.generation
        self.created_at = now
        self.expires_at = now
        self.idle_since = now
        self.checked_at = now
        self.lapses_at = now
        """The earlier of two ends: lifetime, and idle time counted from `idle_since`."""
        self.was_idle = False
        """Whether it lay on the idle stack since it was last used, and so deserves another look."""
        self.uses = 0
        self.leases = 0
        self.retired = False
        self.dial_for: Waiter | Warmer | None = None
        """Whom a failure of the dial fails; nobody, once that one has gone."""
        self.reason: CloseReason | None = None

        self.link: Any = None
        self.holder: Any = None
        self.lent_at = now

    def move(self, state: ConnectionState) -> None:
        """Go to `state`; a move that is not in the table is a bug."""
        if (self.state, state) not in TRANSITIONS:
            raise AssertionError(f"{self!r} cannot become {state.value}")
        self.state = state

    def __repr__(self) -> str:
        return (
            f"<Entry {self.id} to {self.sub.endpoint} {self.state.value},"
            f" {self.leases} leases, {self.uses} uses>"
        )
