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

    __slots__ = ("_acquirer", "_affinity", "_endpoint", "_fresh", "_timeout", "connection")

    def __init__(
        self,
        acquirer: Acquirer,
        endpoint: Target,
        timeout: float | None,
        fresh: bool,
        affinity: Hashable,
    ) -> None:
        self._acquirer = acquirer
        self._endpoint = endpoint
        self._timeout = timeout
        self._fresh = fresh
        self._affinity = affinity
        self.connection: Connection[SessionT] | CoroutineType[Any, Any, Any] | None = None
        """What was lent for this block, as the acquirer notes; before that, the acquire itself."""

    def __aenter__(self) -> CoroutineType[Any, Any, Connection[SessionT]]:
        # Not `async def`: a coroutine around the acquirer's costs a lease a quarter microsecond.
        if self.connection is not None:
            self._refuse_if_in_use()
        self.connection = entering = self._acquirer.acquire(  # type: ignore[assignment] # mypy: it is
            self._endpoint, self._timeout, self._fresh, self._affinity, self
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

    def __await__(self) -> NoReturn:
        raise TypeError(_HOW_TO_ENTER)

    def __enter__(self) -> NoReturn:
        raise TypeError(_HOW_TO_ENTER)

    def __exit__(self, *_: object) -> None:
        """Without it, Python would not even try `__enter__`, and complain in other words."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("a block cannot be copied or pickled: call connection() for each")

    def __repr__(self) -> str:
        return f"<pool.connection({self._endpoint})>"


_HOW_TO_ENTER: Final = (
    "pool.connection(…) is not a connection yet; write"
    " `async with pool.connection(…) as conn:`, or `await pool.acquire(…)`"
)


@final
class NotYet:
    """A name that a `Connection` has and a block has not. Asking for it raises an error."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(f"no {self._name!r} here: {_HOW_TO_ENTER}")


# Not a `__getattr__`: it would make each attribute of a block as dear to read as a call.
for _name in dir(Connection):
    if not _name.startswith("_"):
        setattr(LeaseBlock, _name, NotYet(_name))
