"""A limit on connections: trio's `CapacityLimiter` without its waiting face.

Who waits, and in which order, is the core's business. What is left is the arithmetic that must
never go wrong: a token is charged before the dial and repaid once, after the close.
"""

from __future__ import annotations

from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class Limit(Generic[T]):
    """At most `total` borrowers, each named.

    `total` may be lowered below what is borrowed: nothing is taken away, and nothing more is lent
    until enough has been repaid.
    """

    __slots__ = ("borrowers", "total")

    def __init__(self, total: int) -> None:
        self.total: int = total
        self.borrowers: set[T] = set()

    def charge(self, borrower: T) -> None:
        """Lend a token to `borrower`; one that has a token already, or a full limit, is a bug."""
        if borrower in self.borrowers or not self.has_free_slot:
            raise AssertionError(f"{self!r} cannot charge {borrower!r}")
        self.borrowers.add(borrower)

    def repay(self, borrower: T) -> None:
        """Take the token of `borrower` back. Idempotent."""
        self.borrowers.discard(borrower)

    @property
    def has_free_slot(self) -> bool:
        """Whether one more token can be lent."""
        return len(self.borrowers) < self.total

    def __repr__(self) -> str:
        return f"<Limit {len(self.borrowers)}/{self.total}>"
