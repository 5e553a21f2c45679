"""The pool for threads: `with pool.blocking.connection(endpoint) as conn`.

The connections, their tasks and the books stay where they are, in trio's thread. Every call is sent
there and the thread waits for it. In a worker thread of trio the call belongs to the task that
waits for the thread, so that its cancel scopes hold; in any other thread it is a system task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any, Generic, TypeVar, TypeVarTuple, Unpack, final

import trio
from trio.lowlevel import TrioToken

from conpool._errors.pool import PoolClosed
from conpool._extend.driver import SessionT
from conpool._lending.lease import Connection
from conpool._values.group import Target
from conpool._values.guesses import ON_LEASE, answers_attributes
from conpool._values.validation import valid_seconds

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


@answers_attributes(ON_LEASE)
@final
class BlockingConnection(Generic[SessionT]):
    """One lease, for a thread: its methods wait until trio's thread has done what they ask.

    It is for one thread at a time, and worth nothing after its block. Every method that talks to
    the peer takes `timeout` in seconds; None waits for as long as it takes.

    Raises:
        trio.TooSlowError: The time is up. What has been sent or received of the exchange is
            unknown, so the pool closes the connection when the lease ends.
        trio.Cancelled: The task that waits for this worker thread of trio has been cancelled.
        trio.RunFinishedError: trio's run has ended, and the pool with it.
    """

    __slots__ = ("_pool", "connection")

    def __init__(self, pool: BlockingPool[SessionT], connection: Connection[SessionT]) -> None:
        self._pool = pool
        self.connection: Connection[SessionT] = connection
        """The lease itself, for what runs in trio's thread (see `run`)."""

    def send_all(
        self, data: bytes | bytearray | memoryview, *, timeout: float | None = None
    ) -> None:
        """As `Connection.send_all`."""
        self.run(self.connection.send_all, data, timeout=timeout)

    def receive_some(
        self, max_bytes: int | None = None, *, timeout: float | None = None
    ) -> bytes | bytearray:
        """As `Connection.receive_some`."""
        return self.run(self.connection.receive_some, max_bytes, timeout=timeout)

    def run(
        self,
        function: Callable[[Unpack[Ts]], Awaitable[R]],
        *args: *Ts,
        timeout: float | None = None,
    ) -> R:
        """Run `await function(*args)` in trio's thread, and return what it returns.

        That is how a thread uses the session of a driver, whose methods are asynchronous:

            with pool.blocking.connection(endpoint) as conn:
                reply = conn.run(conn.session.execute, "GET", "key", timeout=5)
        """
        return self._pool.run(function, *args, timeout=timeout)

    @property
    def session(self) -> SessionT:
        """As `Connection.session`."""
        return self._pool.call(lambda: self.connection.session)

    def mark_clean(self) -> None:
        """As `Connection.mark_clean`."""
        self._pool.call(self.connection.mark_clean)

    def retire(self) -> None:
        """As `Connection.retire`."""
        self._pool.call(self.connection.retire)

    def __repr__(self) -> str:
        return f"<blocking {self.connection!r}>"


@final
class BlockingPool(Generic[SessionT]):
    """A pool as threads see it. `ConnectionPool.blocking` makes it; keep it or make it anew."""

    __slots__ = ("_acquire", "_find_token", "_give_back", "_name")

    def __init__(
        self,
        acquire: Callable[..., Awaitable[Connection[SessionT]]],
        give_back: Callable[[Connection[SessionT], BaseException | None], object],
        find_token: Callable[[], TrioToken | None],
        name: str,
    ) -> None:
        self._acquire = acquire
        self._give_back = give_back
        self._find_token = find_token
        self._name = name

    def connection(
        self,
        endpoint: Target,
        *,
        timeout: float | None = None,
        fresh: bool = False,
        affinity: Hashable = None,
    ) -> AbstractContextManager[BlockingConnection[SessionT]]:
        """Lend a connection to this thread for the length of a `with` block.

        Arguments and errors are those of `ConnectionPool.connection`. A block that raises closes
        the connection; a block that ends well gives it back, if it is clean. If the pool ends
        before the thread does, the pool closes the connection at the end of its grace: then the
        thread's calls raise, and the block ends without an error of its own.

        Raises, besides:
            RuntimeError: This is the pool's own thread, which must not block.
            trio.Cancelled: The task that waits for this worker thread of trio has been cancelled.
            trio.RunFinishedError: trio's run has ended.
        """
        if timeout is not None:
            timeout = valid_seconds("timeout", timeout, positive=False)
        return _Block(self, endpoint, timeout, fresh, affinity)

    def run(
        self,
        function: Callable[[Unpack[Ts]], Awaitable[R]],
        *args: *Ts,
        timeout: float | None = None,
    ) -> R:
        """Run `await function(*args)` in trio's thread, within `timeout` seconds.

        Raises:
            trio.TooSlowError: The time is up.
        """
        if timeout is not None:
            timeout = valid_seconds("timeout", timeout, positive=False)
        if trio.lowlevel.in_trio_run():
            raise RuntimeError(
                "pool.blocking is for threads: in a task, write"
                " `async with pool.connection(…) as conn:`"
            )
        return trio.from_thread.run(_within, timeout, function, *args, trio_token=self._token())

    def call(self, function: Callable[[], R]) -> R:
        """Run `function()` in trio's thread."""
        return trio.from_thread.run_sync(function, trio_token=self._find_token())

    # ── what a block does ───────────────────────────────────────────────────────

    def lend(
        self, endpoint: Target, timeout: float | None, fresh: bool, affinity: Hashable
    ) -> BlockingConnection[SessionT]:
        """Acquire for this thread."""
        lent = self.run(self._acquire, endpoint, timeout, fresh, affinity)
        return BlockingConnection(self, lent)

    def take_back(self, lent: BlockingConnection[SessionT], exc: BaseException | None) -> None:
        """End the lease. If trio's run has ended, the pool has done so."""
        connection = lent.connection
        with suppress(trio.RunFinishedError):
            self.call(lambda: self._give_back(connection, exc))

    def _token(self) -> TrioToken | None:
        """Return the way into the pool's run; None in a worker thread of trio: it has its own."""
        try:
            trio.from_thread.check_cancelled()
        except RuntimeError:  # it is a thread of somebody else
            token = self._find_token()
            if token is None:
                raise PoolClosed(f"pool {self._name} is not open: use `async with`") from None
            return token
        return None


@final
class _Block(AbstractContextManager[BlockingConnection[SessionT]]):
    __slots__ = ("_lent", "_pool", "_request")

    def __init__(self, pool: BlockingPool[SessionT], *request: Any) -> None:
        self._pool = pool
        self._request = request
        self._lent: BlockingConnection[SessionT] | None = None

    def __enter__(self) -> BlockingConnection[SessionT]:
        if self._lent is not None:
            raise RuntimeError("this block has been entered already: call connection() for each")
        self._lent = self._pool.lend(*self._request)
        return self._lent

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        lent, self._lent = self._lent, None
        assert lent is not None
        self._pool.take_back(lent, exc)


async def _within(timeout: float | None, function: Callable[..., Awaitable[R]], *args: object) -> R:
    if timeout is None:
        return await function(*args)
    with trio.fail_after(timeout):
        return await function(*args)
