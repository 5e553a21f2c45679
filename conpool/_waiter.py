"""Those who wait: for a connection (`Waiter`), or for an endpoint to be warm (`Warmer`)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from conpool._entry import Entry
    from conpool._subpool import SubPool


class Refusal(enum.Enum):
    """Why a waiter gets no connection."""

    TIMEOUT = "timeout"
    DIAL_FAILED = "dial failed"
    POOL_CLOSED = "pool closed"


@final
class Waiter:
    """A task parked in acquire, as the core sees it.

    It stands in the queue of each of its sub-pools and leaves all of them at once: served, refused or
    withdrawn. It has at most one dial of its own across all of them.
    """

    # No __slots__: fields that most waiters never change cost nothing as defaults of the class, and one
    # waiter is made for every lease that has to wait.

    number = 0
    """Its place in the order of arrival, across the whole pool."""
    queued = False
    dial: Entry | None = None
    overtaken = 0
    """How often a younger waiter was lent a connection that could have made room for this one."""
    entry: Entry | None = None
    refusal: Refusal | None = None
    error: Exception | None = None
    task: Any = None

    def __init__(
        self, subs: tuple[SubPool, ...], deadline: float, fresh: bool, has_own_deadline: bool = True
    ) -> None:
        self.subs = subs
        self.deadline = deadline
        self.fresh = fresh
        self.has_own_deadline = has_own_deadline
        """Whether the deadline is not the sub-pool's usual one, counted from arrival."""

    def __repr__(self) -> str:
        state = "queued" if self.queued else self.refusal or self.entry or "idle"
        return f"<Waiter {self.number} {state}>"


@final
class Warmer:
    """A task that waits until `target` connections of one sub-pool are open."""

    __slots__ = ("error", "queued", "sub", "target", "task")

    def __init__(self, sub: SubPool, target: int) -> None:
        self.sub = sub
        self.target = target
        self.queued = True
        self.error: Exception | None = None
        self.task: Any = None

    def __repr__(self) -> str:
        return f"<Warmer to {self.target}{'' if self.queued else ' done'}>"
