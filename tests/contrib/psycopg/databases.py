"""What the tests of psycopg share: connection strings, and a look at what the server does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import trio
from psycopg.conninfo import make_conninfo

from conpool import CloseReason, ConnectionPool, PoolConfig
from conpool.contrib.psycopg import AsyncConnection, AsyncConnectionPool, PsycopgDriver
from tests.servers import Postgres

PATIENCE = 30.0
"""How long a test waits for what must happen, in seconds."""


class Database:
    """A server, seen by its clients."""

    def __init__(self, server: Postgres) -> None:
        self.server = server

    def conninfo(self, **changes: Any) -> str:
        server = self.server
        params = {
            "host": server.host,
            "port": server.port,
            "user": server.user,
            "password": server.password,
            "dbname": server.database,
            **changes,
        }
        return make_conninfo(**params)

    async def connect(self, **options: Any) -> AsyncConnection[Any]:
        return await AsyncConnection[Any].connect(self.conninfo(), autocommit=True, **options)

    def ask(self, sql: str) -> Any:
        """Ask a question on a connection of its own, without trio: return the first value."""
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            row = conn.execute(sql.encode()).fetchone()
            return None if row is None else row[0]

    async def count(self, what: str) -> int:
        """Return how many of `pg_stat_activity`'s client backends are such, but for our own."""
        count: int = await trio.to_thread.run_sync(
            self.ask,
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            f" AND pid <> pg_backend_pid() AND ({what})",
        )
        return count

    async def wait_until_none(self, what: str) -> None:
        """Wait until no client backend is such."""
        with trio.fail_after(PATIENCE):
            while await self.count(what):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.005)  # a pause between two questions

    async def wait_until_some(self, what: str) -> None:
        with trio.fail_after(PATIENCE):
            while not await self.count(what):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.005)


class Log:
    """Why the connections of a pool were closed."""

    def __init__(self) -> None:
        self.reasons: list[CloseReason] = []

    def on_closed(self, info: object, reason: CloseReason) -> None:
        self.reasons.append(reason)


@asynccontextmanager
async def lending(
    db: Database, driver: PsycopgDriver | None = None, **config: Any
) -> AsyncGenerator[tuple[ConnectionPool[AsyncConnection[Any]], Any, Log]]:
    """A pool with a driver, an endpoint for it, and its log."""
    log = Log()
    with trio.fail_after(PATIENCE):
        async with ConnectionPool(
            PoolConfig(**config), driver=driver or PsycopgDriver(), on_closed=log.on_closed
        ) as pool:
            yield pool, PsycopgDriver.endpoint(db.conninfo()), log


def open_pool(db: Database, **config: Any) -> AsyncConnectionPool:
    return AsyncConnectionPool(db.conninfo(), PoolConfig(**config))


async def first(conn: AsyncConnection[Any], sql: str, *params: Any) -> Any:
    """The first value of the answer."""
    row = await (await conn.execute(sql.encode(), params or None)).fetchone()
    assert row is not None
    return row[0]
