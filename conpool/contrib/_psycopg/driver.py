"""What a pool must know of psycopg: how to open, check, clean, stop and end its connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo
from psycopg.rows import AsyncRowFactory

from conpool._extend.driver import NativeDriver
from conpool._values.config_error import ConfigError
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import EndpointGroup
from conpool.contrib._psycopg.connection import AsyncConnection
from conpool.contrib._psycopg.endpoints import IDENTITY, make_endpoint, make_group, params_of
from conpool.contrib._psycopg.inside import is_in_block
from conpool.contrib._psycopg.reporting import stop_telling, tell_breaker, untold

_IDLE: Final = pq.TransactionStatus.IDLE
_AT_REST: Final = frozenset({_IDLE, pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR})
"""The server waits for us; a transaction may be open."""

_OF_PSYCOPG: Final = ("prepare_threshold", "context", "cursor_factory")
"""What `connect` takes that is no parameter of libpq's."""

_Hook = Callable[[AsyncConnection[Any]], Awaitable[object]]


class _Habits(NamedTuple):
    """What a caller may set on a connection without asking the server."""

    autocommit: bool
    isolation_level: Any
    read_only: bool | None
    deferrable: bool | None
    row_factory: Any
    cursor_factory: Any
    server_cursor_factory: Any
    prepare_threshold: int | None
    prepared_max: int | None

    @classmethod
    def of(cls, session: AsyncConnection[Any]) -> _Habits:
        return cls(*(getattr(session, name) for name in cls._fields))


class PsycopgDriver(NativeDriver[AsyncConnection[Any]]):
    """Sessions are `AsyncConnection`s: for a pool of your own, `ConnectionPool(driver=...)`.

    A lease that leaves a transaction open has it rolled back, and gets autocommit, isolation level,
    factories and the like back to what they were after `configure`. A session is closed if a lease
    leaves it in the middle of something: a query, a COPY, a pipeline, a prepared two-phase
    transaction. The server is asked to stop that first. What SQL has set (`SET`, `LISTEN`,
    temporary tables) stays, unless `reset` clears it.

    >>> from conpool import ConnectionPool
    >>> endpoint = PsycopgDriver.endpoint("postgresql://app@db.example/orders")
    >>> async def use() -> None:
    ...     async with ConnectionPool(driver=PsycopgDriver(autocommit=True)) as pool:
    ...         async with pool.connection(endpoint) as lease:
    ...             await lease.session.execute("SELECT 1")

    Args:
        autocommit: Start no transactions unasked.
        row_factory: Makes the rows.
        configure: Runs once for each connection, after the login. It must end its transaction.
        reset: Runs after each lease whose connection is to be kept, when its transaction has been
            rolled back. It must end its own.
        **options: `prepare_threshold`, `context`, `cursor_factory`, and libpq's parameters, such as
            `application_name`. What an endpoint has comes first.

    Raises:
        ConfigError: An option is unknown, or says who connects to which server. That is what an
            endpoint is for.
    """

    def __init__(
        self,
        *,
        autocommit: bool = False,
        row_factory: AsyncRowFactory[Any] | None = None,
        configure: _Hook | None = None,
        reset: _Hook | None = None,
        **options: Any,
    ) -> None:
        own: dict[str, Any] = {name: options.pop(name) for name in _OF_PSYCOPG if name in options}
        for name in IDENTITY:
            if name in options:
                raise ConfigError(f"{name} belongs into the endpoint")
        try:
            make_conninfo(**options)
        except psycopg.ProgrammingError:
            raise ConfigError(f"unknown options among {', '.join(options)}") from None
        self._own: dict[str, Any] = {"autocommit": autocommit, "row_factory": row_factory, **own}
        self._options = options
        self._configure = configure
        self._reset = reset
        self._habits: WeakKeyDictionary[AsyncConnection[Any], _Habits] = WeakKeyDictionary()

    @staticmethod
    def endpoint(conninfo: str = "", **options: Any) -> AnyEndpoint:
        """Return what libpq would connect to: a URL or `key=value`, the environment included.

        Several hosts are one endpoint, named after the first. Each dial tries them as psycopg does,
        with `load_balance_hosts` and `target_session_attrs`. `group` makes an endpoint of each.

        Args:
            conninfo: A URL, or `key=value` pairs.
            **options: Parameters in place of those in `conninfo`.

        Raises:
            ConfigError: It cannot be read, or names a service. The text shows nothing of it.
        """
        return make_endpoint(conninfo, options)

    @staticmethod
    def group(conninfo: str = "", **options: Any) -> EndpointGroup:
        """Return a group with an endpoint for each host, for limits and statistics of each.

        Its policy is `first_available`, or `round_robin` with `load_balance_hosts=random`.

        Raises:
            ConfigError: See `endpoint`; or a host is there twice.
        """
        return make_group(conninfo, options)

    async def connect(self, endpoint: AnyEndpoint) -> AsyncConnection[Any]:
        """Log in, and `configure`."""
        params = {**self._options, **params_of(endpoint), **self._own}
        session = await AsyncConnection[Any].connect(**params)
        try:
            if self._configure is not None:
                await self._configure(session)
            _check_idle(session, "configure")
            self._habits[session] = _Habits.of(session)
        except BaseException:
            self.abort(session)
            raise
        return session

    async def check(self, session: AsyncConnection[Any]) -> bool:
        """Send an empty query."""
        with untold(session):  # a server may have closed what was idle
            await session.wait(_ping(session.pgconn))
        return session.pgconn.transaction_status == _IDLE

    async def reset(self, session: AsyncConnection[Any]) -> None:
        """Roll back, undo what a caller has set on the connection, then run the given `reset`."""
        await session.rollback()  # raises in a block, or if a two-phase transaction is prepared
        habits = self._habits[session]
        if (now := _Habits.of(session)) != habits:
            await _restore(session, now, habits)
        if self._reset is not None:
            await self._reset(session)
        _check_idle(session, "reset")

    def needs_reset(self, session: AsyncConnection[Any]) -> bool:
        """Return whether there is anything to roll back, undo or run."""
        return (
            self._reset is not None
            or session.pgconn.transaction_status != _IDLE
            or is_in_block(session)
            or _Habits.of(session) != self._habits[session]
        )

    async def cancel(self, session: AsyncConnection[Any]) -> None:
        """Have the server stop what a lease left under way."""
        await session.cancel_safe(timeout=0)  # the pool limits it

    def is_clean(self, session: AsyncConnection[Any]) -> bool:
        """Return whether the server waits for us, and no task of the caller's for the server."""
        pgconn = session.pgconn
        return (
            pgconn.transaction_status in _AT_REST
            and pgconn.pipeline_status == pq.PipelineStatus.OFF
            and not session.lock.locked()
        )

    def fileno(self, session: AsyncConnection[Any]) -> int:
        """Return libpq's socket."""
        try:
            return session.pgconn.socket
        except psycopg.OperationalError:  # it is closed
            return -1

    def abort(self, session: AsyncConnection[Any]) -> None:
        """Say goodbye if that can be done without waiting, and close the socket."""
        stop_telling(session)
        session.pgconn.finish()

    def _opened(self, session: AsyncConnection[Any], endpoint: AnyEndpoint, pool: object) -> None:
        """Have a circuit breaker told of what becomes of the session."""
        tell_breaker(session, endpoint, pool)


def _check_idle(session: AsyncConnection[Any], hook: str) -> None:
    if session.pgconn.transaction_status != _IDLE:
        raise psycopg.ProgrammingError(f"{hook} must end its transaction")


def _ping(pgconn: pq.abc.PGconn) -> PQGen[None]:
    pgconn.send_query(b"")
    yield from generators.execute(pgconn)


async def _restore(session: AsyncConnection[Any], now: _Habits, habits: _Habits) -> None:
    for name, value in habits._asdict().items():
        if getattr(now, name) == value:
            continue
        if name in ("autocommit", "isolation_level", "read_only", "deferrable"):
            await getattr(session, f"set_{name}")(value)
        else:
            setattr(session, name, value)
