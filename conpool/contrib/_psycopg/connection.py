"""psycopg's `AsyncConnection`, whose waits are trio's."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, ClassVar, Final, Self, cast

import psycopg
import trio
from psycopg import capabilities, errors, generators, pq
from psycopg.abc import RV, AdaptContext, ConnDict, ConnParam, PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo, timeout_from_conninfo
from psycopg.rows import AsyncRowFactory, Row, tuple_row

from conpool.contrib._psycopg import inside
from conpool.contrib._psycopg.ending import AsyncServerCursor, Transaction
from conpool.contrib._psycopg.lock import Lock
from conpool.contrib._psycopg.names import find_attempts
from conpool.contrib._psycopg.reporting import is_servers
from conpool.contrib._psycopg.stopping import finish_exchange
from conpool.contrib._psycopg.waiting import drive, drive_connecting

_log: Final = logging.getLogger("conpool")

_ACTIVE: Final = pq.TransactionStatus.ACTIVE
_OFF: Final = pq.PipelineStatus.OFF

_AS_TUPLES: Final = cast("AsyncRowFactory[Any]", tuple_row)


class AsyncConnection(psycopg.AsyncConnection[Row]):
    """psycopg's own, on trio: cursors, transactions, COPY, pipeline, NOTIFY, cancellation.

    It needs no pool. All that psycopg documents of its `AsyncConnection` holds here, but for this:

    - A cancelled operation has its query stopped at the server, and what the server still sends is
      read, so that the connection can be used again. This is shielded and takes `cancel_timeout`
      at most; then the connection is closed. Without pipelines and transactions around it, an
      operation that is cancelled before it has sent anything sends nothing.
    - A `transaction` block that is cancelled is rolled back, within `cancel_timeout`, too.
    - Host names are looked up by conpool: no look-up blocks the loop, nor trio's threads. libpq
      itself looks up the hosts of a service file, and blocks: give `host` instead.
    - `AsyncQueuedLibpqWriter` needs asyncio; COPY's usual writer does not.

    >>> async def first(conninfo: str) -> object:
    ...     async with await AsyncConnection.connect(conninfo) as conn:
    ...         cursor = await conn.execute("SELECT 1")
    ...         return await cursor.fetchone()
    """

    __module__ = "conpool.contrib.psycopg"

    cancel_timeout: ClassVar[float] = 1.0
    """For how long a cancelled task waits until its query has stopped, in seconds."""

    _tell: Callable[[bool], object] | None = None
    """Hears of each exchange whether the server has served, or the connection was lost."""

    def __init__(
        self,
        pgconn: pq.abc.PGconn,
        row_factory: AsyncRowFactory[Row] = _AS_TUPLES,
    ) -> None:
        super().__init__(pgconn, row_factory)
        ours = cast("type[psycopg.AsyncServerCursor[Row]]", AsyncServerCursor)
        self.server_cursor_factory: type[psycopg.AsyncServerCursor[Row]] = ours
        # psycopg uses no more of a lock than `async with`.
        self.lock: Any = Lock()

    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[Row] | None = None,
        cursor_factory: type[psycopg.AsyncCursor[Row]] | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect to the first host that takes us, and log in.

        Args:
            conninfo: A URL, or `key=value` pairs. What it lacks comes from the environment (PG*).
            autocommit: Start no transactions unasked.
            prepare_threshold: After how many runs a query is prepared; None: never.
            context: Whose adapters to take.
            row_factory: Makes the rows.
            cursor_factory: Makes the cursors.
            **kwargs: Parameters of the connection, in place of those in `conninfo`.

        Raises:
            psycopg.OperationalError: No host could be resolved, was reached or let us in; its text
                names each. `psycopg.errors.ConnectionTimeout` if the last one took longer than
                `connect_timeout`.
            psycopg.ProgrammingError: `conninfo` is none. The text may show parts of it.

        Cancelling it leaves no socket open.
        """
        params = conninfo_to_dict(conninfo, **kwargs)
        conn = await cls._try_all(await find_attempts(params), timeout_from_conninfo(params))
        _warn_of_gssapi(conn, params)
        inside.start_autocommit(conn, autocommit)
        if row_factory is not None:
            conn.row_factory = row_factory
        if cursor_factory is not None:
            conn.cursor_factory = cursor_factory
        if context is not None:
            inside.adapt(conn, context)
        conn.prepare_threshold = prepare_threshold
        return conn

    @classmethod
    async def _try_all(cls, attempts: list[ConnDict], timeout: float) -> Self:
        failures: list[tuple[psycopg.Error, str]] = []
        for attempt in attempts:
            where = ", ".join(f"{k}: {attempt.get(k)!r}" for k in ("host", "port", "hostaddr"))
            try:
                return await cls._try_one(attempt, timeout)
            except psycopg.Error as error:
                _log.debug("connecting to %s failed: %s", where, error)
                failures.append((error.with_traceback(None), where))
        last, _ = failures[-1]
        if len(failures) == 1:
            raise last
        lines = [str(last), "Multiple connection attempts failed. All failures were:"]
        lines += [f"- {where}: {failure}" for failure, where in failures]
        raise type(last)("\n".join(lines), pgconn=last.pgconn)

    @classmethod
    async def _try_one(cls, attempt: ConnDict, timeout: float) -> Self:
        generator = inside.connecting(cls, make_conninfo("", **attempt))
        with trio.move_on_after(timeout):
            conn: Self = await drive_connecting(generator)
            return conn
        raise errors.ConnectionTimeout("connection timeout expired")

    # ── waiting ─────────────────────────────────────────────────────────────────

    async def wait(
        self, gen: PQGen[RV], interval: float = math.inf, timeout: float | None = None
    ) -> RV:
        """Run one of psycopg's generators to its end.

        If it is cancelled in the middle of an exchange, the exchange is stopped.
        """
        try:
            result = await drive(gen, self.pgconn.socket, interval, timeout)
        except trio.Cancelled:
            if self._is_under_way():
                await self._stop(gen)  # noqa: ASYNC102 - shields and bounds itself
            raise
        except psycopg.OperationalError as error:
            tell = self._tell
            if tell is not None and self.broken and is_servers(error):
                self._tell = None  # no connection is lost twice
                tell(False)
            raise
        if self._tell is not None:
            self._tell(True)
        return result

    def _is_under_way(self) -> bool:
        """Whether the server owes an answer."""
        pgconn = self.pgconn
        return pgconn.transaction_status == _ACTIVE or pgconn.pipeline_status != _OFF

    async def _stop(self, gen: PQGen[Any]) -> None:
        """Have the server stop, and read what it still sends; close the connection if it does not.

        The generator is given up: it might go on with another query. But where a pipeline is open,
        it alone knows how many answers are owed.
        """
        deadline = trio.current_time() + self.cancel_timeout
        is_over = False
        with trio.CancelScope(shield=True, deadline=deadline):
            try:
                await self.cancel_safe(timeout=0)
                if self.pgconn.pipeline_status == _OFF:
                    gen.close()
                    await drive(finish_exchange(self.pgconn), self.pgconn.socket)
                else:
                    await drive(gen, self.pgconn.socket)
                is_over = True
            except psycopg.Error as error:
                _log.debug("stopping a query: %s", error)
                is_over = self.pgconn.pipeline_status != _OFF and not self.closed
        if not is_over:
            self._close_now()

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Have the server stop what it does for this connection.

        Args:
            timeout: How long the request may take, in seconds; 0 for no limit.

        Raises:
            psycopg.errors.CancellationTimeout: The request took longer.
            psycopg.OperationalError: The server could not be asked.
            psycopg.ProgrammingError: A two-phase transaction is prepared.

        The query may have ended before, or go on for a moment.
        """
        if not inside.may_cancel(self):
            return
        with trio.move_on_after(timeout or math.inf):
            if not capabilities.has_cancel_safe():  # pragma: no cover: needs a libpq before 17
                await trio.to_thread.run_sync(self.cancel, abandon_on_cancel=True)
                return
            request = self.pgconn.cancel_conn()
            try:
                request.start()
                await drive_connecting(generators.cancel(request))
            finally:
                request.finish()
            return
        raise errors.CancellationTimeout("cancellation timeout expired")

    async def _try_cancel(self, *, timeout: float = 5.0) -> None:
        """Cancel what psycopg's own clean-up wants to: also in a scope that is cancelled itself."""
        with trio.CancelScope(shield=True):
            await super()._try_cancel(timeout=min(timeout, self.cancel_timeout))

    # ── blocks ──────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncGenerator[psycopg.AsyncTransaction]:
        """Begin a transaction, or a savepoint inside one, for a block.

        The block commits if it ends well. If it raises or is cancelled, it is rolled back.

        Args:
            savepoint_name: Of the savepoint; psycopg chooses one.
            force_rollback: Roll back in any case.
        """
        transaction = Transaction(self, savepoint_name, force_rollback)
        async with AsyncExitStack() as stack:
            has_pipeline = self.pgconn.pipeline_status != _OFF
            if has_pipeline:
                await stack.enter_async_context(self.pipeline())
            await stack.enter_async_context(transaction)
            if has_pipeline:
                await stack.enter_async_context(self.pipeline())
            yield transaction

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Commit or roll back, and close the connection in any case."""
        try:
            await super().__aexit__(exc_type, exc_val, exc_tb)  # noqa: ASYNC102 - it may be given up
        finally:
            await self.close()  # noqa: ASYNC102 - it waits for nothing

    async def close(self) -> None:
        """Close the connection at once; tasks that wait for it get `psycopg.OperationalError`."""
        if not self.closed:
            trio.lowlevel.notify_closing(self.pgconn.socket)
            await super().close()

    def _close_now(self) -> None:
        self._tell = None
        if not self.closed:
            trio.lowlevel.notify_closing(self.pgconn.socket)
            self.pgconn.finish()


def _warn_of_gssapi(conn: psycopg.AsyncConnection[Any], params: ConnDict) -> None:
    """Warn, as psycopg does, of a login that the parameters do not mention."""
    if (
        capabilities.has_used_gssapi()
        and conn.pgconn.used_gssapi
        and not inside.get_param(params, "gssencmode")
    ):
        warnings.warn(
            "the connection was obtained using the GSSAPI relying on the 'gssencmode=prefer' "
            "libpq default; set 'gssencmode' or PGGSSENCMODE to 'prefer' or 'require'",
            RuntimeWarning,
            stacklevel=3,
        )
