"""A limit on connections: trio's `CapacityLimiter` without its waiting face.

Who waits, and in which order, is the core's business. What is left is the arithmetic that must
never go wrong: a token is charged before the dial and repaid once, after the close.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar, final

T = TypeVar("T")

_FEW: Final = 4
"""As many borrowers are a tuple: a set of one takes 216 bytes."""


@final
class Limit(Generic[T]):
    """At most `total` borrowers, each named.

    `total` may be lowered below what is borrowed: nothing is taken away, and nothing more is lent
    until enough has been repaid.
    """

    __slots__ = ("borrowers", "total")

    def __init__(self, total: int) -> None:
        self.total: int = total
        self.borrowers: tuple[T, ...] | set[T] = ()

    def charge(self, borrower: T) -> None:
        """Lend a token to `borrower`; one that has a token already, or a full limit, is a bug."""
        if borrower in self.borrowers or not self.has_free_slot:
            raise AssertionError(f"{self!r} cannot charge {borrower!r}")
        if isinstance(self.borrowers, set):
            self.borrowers.add(borrower)
        elif len(self.borrowers) < _FEW:
            self.borrowers = (*self.borrowers, borrower)
        else:
            self.borrowers = {*self.borrowers, borrower}

    def repay(self, borrower: T) -> None:
        """Take the token of `borrower` back. Idempotent."""
        if isinstance(self.borrowers, set):
            self.borrowers.discard(borrower)
            self.borrowers = self.borrowers or ()
        else:
            self.borrowers = tuple([one for one in self.borrowers if one != borrower])

    @property
    def has_free_slot(self) -> bool:
        """Whether one more token can be lent."""
        return len(self.borrowers) < self.total

    def __repr__(self) -> str:
        return f"<Limit {len(self.borrowers)}/{self.total}>"
