"""A pool for one connection string, for those who know psycopg_pool."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self

import psycopg
import trio

from conpool._pool.pool import ConnectionPool
from conpool._stats.snapshot import PoolStats
from conpool._values.config import PoolConfig
from conpool.contrib._psycopg.connection import AsyncConnection
from conpool.contrib._psycopg.driver import PsycopgDriver

_DEFAULT: Final = PoolConfig(health_check_after=30.0)


class AsyncConnectionPool:
    """For those who know psycopg_pool: lends the connections of one connection string.

    >>> async def use() -> None:
    ...     async with AsyncConnectionPool("postgresql://app@db.example/orders") as pool:
    ...         async with pool.connection() as conn:
    ...             await conn.execute("UPDATE stock SET count = count - 1")

    Args:
        conninfo: A URL, or `key=value` pairs; see `PsycopgDriver.endpoint`.
        config: Limits and times. psycopg_pool's `min_size` is `min_idle_per_endpoint`, `max_size`
            is `max_connections_per_endpoint`, and `timeout` is `acquire_timeout`. By default the
            server is not asked about a connection that was idle for less than 30 seconds.
        driver: Opens and keeps the connections. psycopg_pool's `configure` and `reset` are its.
        name: Of the pool, for logs and statistics.

    Raises:
        ConfigError: `conninfo` cannot be read.
    """

    def __init__(
        self,
        conninfo: str = "",
        config: PoolConfig = _DEFAULT,
        *,
        driver: PsycopgDriver | None = None,
        name: str | None = None,
    ) -> None:
        self._endpoint = PsycopgDriver.endpoint(conninfo)
        self._pool = ConnectionPool(config, driver=driver or PsycopgDriver(), name=name)

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._pool.__aexit__(*exc_info)  # noqa: ASYNC102 - bounds itself

    @asynccontextmanager
    async def connection(
        self, timeout: float | None = None
    ) -> AsyncGenerator[AsyncConnection[Any]]:
        """Lend a connection for a block, which commits if it ends well.

        If it raises or is cancelled, it is rolled back: shielded, within the connection's
        `cancel_timeout`.

        Args:
            timeout: For the wait, in seconds; None: the configured `acquire_timeout`.

        Raises:
            AcquireTimeout: There was no connection in time.
            ConnectError: The server could not be reached, or did not let us in.
            QueueFull: Too many wait already.
            PoolClosed: The pool is not open.
        """
        async with self._pool.connection(self._endpoint, timeout=timeout) as lease:
            conn = lease.session
            try:
                yield conn
            except BaseException:
                await _roll_back(conn)  # noqa: ASYNC102 - shields and bounds itself
                raise
            if not conn.closed:
                await conn.commit()

    @property
    def pool(self) -> ConnectionPool[AsyncConnection[Any]]:
        """The pool underneath, with all that it can do."""
        return self._pool

    def stats(self) -> PoolStats:
        """Return a snapshot of the pool's numbers."""
        return self._pool.all_stats()

    def __repr__(self) -> str:
        return f"<AsyncConnectionPool to {self._endpoint}: {self._pool!r}>"


async def _roll_back(conn: AsyncConnection[Any]) -> None:
    """Roll back at once, as others may wait for a lock. What fails here, the pool closes."""
    deadline = trio.current_time() + conn.cancel_timeout
    with suppress(psycopg.Error), trio.CancelScope(shield=True, deadline=deadline):
        await conn.rollback()
