"""`async with pool.connection(…)`: one lease for the length of a block."""

from __future__ import annotations

from collections.abc import Hashable
from types import CoroutineType, TracebackType
from typing import Any, Final, Generic, NoReturn, final

from trio.lowlevel import enable_ki_protection

from conpool._extend.driver import SessionT
from conpool._lending.acquire import Acquirer
from conpool._lending.lease import Connection
from conpool._values.group import Target


@final
class LeaseBlock(Generic[SessionT]):
    """`async with pool.connection(…)`: acquires on entry, gives back on exit.

    A class and not a generator, since that saves a lease the cost of a checkpoint. It holds no
    cancel scope or nursery, so leases may end in any order, and in other tasks.
    """

    __slots__ = ("_acquirer", "_request", "connection")

    def __init__(
        self,
        acquirer: Acquirer,
        endpoint: Target,
        timeout: float | None,
        fresh: bool,
        affinity: Hashable,
    ) -> None:
        self._acquirer = acquirer
        # One attribute for all: with `__getattr__` below, each costs as much as a call to read.
        self._request = endpoint, timeout, fresh, affinity
        self.connection: Connection[SessionT] | CoroutineType[Any, Any, Any] | None = None
        """What was lent for this block, as the acquirer notes; before that, the acquire itself."""

    def __aenter__(self) -> CoroutineType[Any, Any, Connection[SessionT]]:
        # Not `async def`: a coroutine around the acquirer's costs a lease a quarter microsecond.
        if self.connection is not None:
            self._refuse_if_in_use()
        endpoint, timeout, fresh, affinity = self._request
        self.connection = entering = self._acquirer.acquire(  # type: ignore[assignment] # mypy: it is
            endpoint, timeout, fresh, affinity, self
        )
        return entering  # type: ignore[return-value]

    def _refuse_if_in_use(self) -> None:
        entered = self.connection
        if isinstance(entered, Connection) or (entered is not None and entered.cr_frame):
            raise RuntimeError("this block has been entered already: call connection() for each")

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        connection: Any = self.connection
        self.connection = None
        connection._owner.give_back(connection, exc)  # noqa: SLF001 - one fewer to carry along

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"no {name!r} here: {_HOW_TO_ENTER}")

    def __await__(self) -> NoReturn:
        raise TypeError(_HOW_TO_ENTER)

    def __enter__(self) -> NoReturn:
        raise TypeError(_HOW_TO_ENTER)

    def __exit__(self, *_: object) -> None:
        """Without it, Python would not even try `__enter__`, and complain in other words."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("a block cannot be copied or pickled: call connection() for each")

    def __repr__(self) -> str:
        return f"<pool.connection({self._request[0]})>"


_HOW_TO_ENTER: Final = (
    "pool.connection(…) is not a connection yet; write"
    " `async with pool.connection(…) as conn:`, or `await pool.acquire(…)`"
)
