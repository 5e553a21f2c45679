"""`async with pool.connection(…)`: a lease for the length of a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

from trio.lowlevel import enable_ki_protection

if TYPE_CHECKING:
    from types import CoroutineType, TracebackType

    from conpool._lending.acquire import Lender
    from conpool._lending.lease import Connection
    from conpool._values.group import Target

SessionT = TypeVar("SessionT")


@final
class LeaseBlock(Generic[SessionT]):
    """Acquires on entry, gives back on exit.

    A class and not a generator, since that costs a checkpoint's worth less; and it holds no cancel scope
    or nursery, so that the lease may be released by another task or in another order.
    """

    __slots__ = ("_endpoint", "_fresh", "_lender", "_timeout", "lease")

    def __init__(
        self, lender: Lender, endpoint: Target, timeout: float | None, fresh: bool
    ) -> None:
        self._lender = lender
        self._endpoint = endpoint
        self._timeout = timeout
        self._fresh = fresh
        self.lease: Connection[SessionT] | None = None
        """What the lender lent for this block; it notes that here itself (`Lender.acquire`)."""

    def __aenter__(self) -> CoroutineType[Any, Any, Connection[SessionT]]:
        # Not `async def`: a coroutine around the lender's would cost every lease a quarter microsecond.
        if self.lease is not None:
            raise RuntimeError("this block has been entered already: call connection() for each")
        return self._lender.acquire(self._endpoint, self._timeout, self._fresh, self)  # type: ignore[return-value] # mypy: it is

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        lease = self.lease
        assert lease is not None
        self.lease = None
        self._lender.give_back(lease, exc)
