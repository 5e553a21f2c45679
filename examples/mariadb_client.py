"""A MariaDB client in a page: trio-mysql does all the talking, conpool lends its connections.

    MYSQL_PWD=... python examples/mariadb_client.py 127.0.0.1 3306 me mydatabase

trio-mysql wants a socket of its own, so its driver is a `NativeDriver`: `connect` opens the socket,
and the pool only looks at its descriptor. A session is a connection of trio-mysql with all that it
can do: cursors, transactions, streamed rows. After each lease the server resets it, so that the
next caller finds no settings, locks or temporary tables of the last one. A query whose caller has
left is stopped at the server.

Give the login a database: `USE` may leave it, and the reset goes back to the login's.
"""

from __future__ import annotations

import os
import sys
from typing import Any, TypeAlias

import trio
from trio_mysql.connections import Connection
from trio_mysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from trio_mysql.err import MySQLError

import conpool

Row: TypeAlias = tuple[Any, ...]

COM_RESET_CONNECTION = 0x1F


class Session(Connection):  # type: ignore[misc]  # trio-mysql has no types
    """A connection of trio-mysql, on a socket that we can close without waiting."""

    def __init__(self, stream: trio.SocketStream, endpoint: conpool.AnyEndpoint) -> None:
        login = self.login = endpoint.login or conpool.Login()
        super().__init__(
            user=login.username or "",
            password=login.password or "",
            database=login.database,
            charset="utf8mb4",
            use_unicode=True,
            autocommit=True,  # else each SELECT begins a transaction
            defer_connect=True,
        )
        self.stream = stream
        self.endpoint = endpoint

    async def fetch(self, sql: str, *values: object) -> list[Row]:
        """Run one statement, with its values for %s, and return all rows."""
        async with self.cursor() as cursor:
            await cursor.execute(sql, values)
            return list(await cursor.fetchall())

    async def reset(self) -> None:
        """Roll back, drop temporary tables, forget settings and locks."""
        await self._execute_command(COM_RESET_CONNECTION, b"")
        await self._read_ok_packet()
        await self.autocommit(True)  # sends nothing unless the server's default is another
        if self.login.database is not None:
            await self.select_db(self.login.database)  # the reset leaves what USE has chosen

    async def _write_bytes(self, data: bytes) -> None:
        # A cancelled read makes trio-mysql give up the connection. A cancelled write must, too.
        try:
            await super()._write_bytes(data)
        except BaseException:
            self._force_close()
            raise

    def abort(self) -> None:
        """Close the socket without a word."""
        if self._result is not None:
            # trio-mysql complains of rows that nobody has fetched when it is garbage collected.
            self._result.unbuffered_active = False
        self.stream.socket.close()

    def is_clean(self) -> bool:
        """Whether the connection is alive, has nothing to read and is in no transaction."""
        result = self._result
        has_unread = self._rbuf_offset < len(self._rbuf)
        has_more = result is not None and (result.unbuffered_active or result.has_next)
        in_transaction = self.server_status & SERVER_STATUS_IN_TRANS
        return self.open and not (has_unread or has_more or in_transaction)


class MariaDBDriver(conpool.NativeDriver[Session]):
    """Logs in and out of MariaDB; `connector` opens the sockets."""

    def __init__(self, connector: conpool.Connector | None = None) -> None:
        self.connector = connector or conpool.TCPConnector()

    async def connect(self, endpoint: conpool.AnyEndpoint) -> Session:
        if endpoint.tls is not None:
            raise NotImplementedError("this example does not speak TLS")
        stream = await self.connector.connect(endpoint)
        assert isinstance(stream, trio.SocketStream)
        session = Session(stream, endpoint)
        try:
            await session.connect(stream)
        except BaseException:
            self.abort(session)
            raise
        return session

    def fileno(self, session: Session) -> int:
        return session.stream.socket.fileno()

    def abort(self, session: Session) -> None:
        session.abort()

    def is_clean(self, session: Session) -> bool:
        return session.is_clean()

    async def check(self, session: Session) -> bool:
        await session.ping(reconnect=False)
        return True

    async def reset(self, session: Session) -> None:
        await session.reset()

    async def close(self, session: Session) -> None:
        await session.aclose()

    async def cancel(self, session: Session) -> None:
        helper = await self.connect(session.endpoint)
        try:
            await helper.fetch("KILL %s", session.thread_id())
        except MySQLError:
            pass  # the server has ended it by itself
        finally:
            self.abort(helper)


class Database:
    """Runs SQL over `pool`, inside `async with db.pool`."""

    def __init__(self, endpoint: conpool.AnyEndpoint) -> None:
        config = conpool.PoolConfig(max_connections_per_endpoint=20, health_check_after=5.0)
        self.pool = conpool.ConnectionPool(config, driver=MariaDBDriver(), name="mariadb")
        self.endpoint = endpoint

    async def fetch(self, sql: str, *values: object) -> list[Row]:
        """Run one statement, with its values for %s, on any connection."""
        async with self.pool.connection(self.endpoint) as conn:
            return await conn.session.fetch(sql, *values)


async def main(
    host: str, port: int, user: str, password: str, database: str, *, queries: int = 100
) -> int:
    """Run a hundred queries at once over twenty connections; return the number of logins."""
    login = conpool.Login(user, password, database)
    db = Database(conpool.Endpoint(host, port, login=login))

    async def square(number: int) -> None:
        assert await db.fetch("SELECT %s * %s", number, number) == [(number * number,)]

    async with db.pool:
        async with trio.open_nursery() as nursery:
            for number in range(queries):
                nursery.start_soon(square, number)
        logins = db.pool.stats(db.endpoint).total_created
        print(f"{queries} queries, {logins} logins")
        print(db.pool.all_stats())
    return logins


if __name__ == "__main__":
    host, port, user, database = sys.argv[1:]
    trio.run(main, host, int(port), user, os.environ["MYSQL_PWD"], database)
