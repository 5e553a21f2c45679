"""A limit on connections: trio's `CapacityLimiter` without its waiting face.

Who waits, and in which order, is the core's business. What is left is the arithmetic that must never
go wrong: a token is charged before the dial and repaid once, after the close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from conpool._entry import Entry


@final
class Capacity:
    """At most `total` borrowers, each named.

    `total` may be lowered below what is borrowed: nothing is taken away, and nothing more is lent
    until enough has been repaid.
    """

    __slots__ = ("borrowers", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.borrowers: set[Entry] = set()

    def charge(self, entry: Entry) -> None:
        """Lend a token to `entry`; one that has a token already, or a full limit, is a bug."""
        if entry in self.borrowers or not self.has_room:
            raise AssertionError(f"{self!r} cannot charge {entry!r}")
        self.borrowers.add(entry)

    def repay(self, entry: Entry) -> None:
        """Take the token of `entry` back. Idempotent."""
        self.borrowers.discard(entry)

    @property
    def has_room(self) -> bool:
        """Whether one more token can be lent."""
        return len(self.borrowers) < self.total

    def __repr__(self) -> str:
        return f"<Capacity {len(self.borrowers)}/{self.total}>"
