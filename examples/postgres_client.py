"""A PostgreSQL client in a page: pygwire and scramp speak the protocol, conpool lends the sessions.

    PGPASSWORD=... python examples/postgres_client.py 127.0.0.1 5432 me mydatabase

The driver logs in on each new connection, with the login of its endpoint. The pool then lends the
session again and again. It keeps a session after a statement that the server refused. It closes one
that is in a transaction or whose reply is still to come, and has the server stop the query first.
"""

# pygwire's class decorator hides the fields of its messages from pyright (mypy sees them).
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
from __future__ import annotations

import os
import sys
from typing import TypeAlias, TypeVar

import pygwire
import scramp
import trio
from pygwire import messages as pg

import conpool

Row: TypeAlias = tuple[str | None, ...]
Message = TypeVar("Message", bound=pg.PGMessage)

LAST_WORDS = {"FATAL", "PANIC"}


class SQLError(Exception):
    """The server refused a statement, or ended the connection."""


class Session:
    """One connection to a database: runs one statement after the other."""

    def __init__(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> None:
        self.stream = stream
        self.endpoint = endpoint
        self.wire = pygwire.FrontendConnection()
        self.status: pygwire.TransactionStatus | None = None
        self.key = pg.BackendKeyData()

    async def query(self, sql: str, *values: object) -> list[Row]:
        """Run one statement, with its values for $1, $2, ..., and read the reply to its end."""
        texts = [None if value is None else str(value).encode() for value in values]
        request = (pg.Parse(query=sql), pg.Bind(param_values=texts), pg.Execute(), pg.Sync())
        await self.stream.send_all(b"".join(map(self.wire.send, request)))
        rows, error = list[Row](), None
        while not self.wire.is_ready:
            for message in await self.receive():
                if isinstance(message, pg.DataRow):
                    rows.append(tuple(c if c is None else c.decode() for c in message.columns))
                elif isinstance(message, pg.ErrorResponse):
                    error = SQLError(f"{message.code}: {message.message}")
        if error:
            raise error
        return rows

    async def log_in(self, login: conpool.Login) -> None:
        """Log in with SCRAM: the server, too, must prove that it knows the password."""
        user, database = login.username or "", login.database or ""
        hello = pg.StartupMessage({"user": user, "database": database})
        offer = await self.step(hello, pg.AuthenticationSASL)
        scram = scramp.ScramClient(offer.mechanisms, user, login.password)
        first = pg.SASLInitialResponse(scram.mechanism_name, scram.get_client_first().encode())
        challenge = await self.step(first, pg.AuthenticationSASLContinue)
        scram.set_server_first(challenge.data.decode())
        final = pg.SASLResponse(scram.get_client_final().encode())
        proof = await self.step(final, pg.AuthenticationSASLFinal)
        scram.set_server_final(proof.data.decode())
        while not self.wire.is_ready:
            await self.receive()

    async def step(self, sent: pg.PGMessage, wanted: type[Message]) -> Message:
        """Take one step of the login; the answer must be of the type `wanted`."""
        await self.stream.send_all(self.wire.send(sent))
        answer, *_ = await self.receive()
        if not isinstance(answer, wanted):
            raise SQLError(f"{answer} has no place in a SCRAM login")
        return answer

    async def receive(self) -> list[pg.PGMessage]:
        """Wait for at least one message; raise the last words of a server that hangs up."""
        messages: list[pg.PGMessage] = []
        while not messages:
            received = await self.stream.receive_some()
            if not received:
                raise trio.BrokenResourceError("the server hung up in mid-reply")
            messages += self.wire.receive(bytes(received))
        for message in messages:
            if isinstance(message, pg.ReadyForQuery):
                self.status = message.status
            elif isinstance(message, pg.BackendKeyData):
                self.key = message
            elif isinstance(message, pg.ErrorResponse) and message.fields["V"] in LAST_WORDS:
                raise SQLError(f"{message.code}: {message.message}")
        return messages


async def dial(server: conpool.AnyEndpoint) -> trio.SocketStream:
    if isinstance(server, conpool.UnixEndpoint):
        return await trio.open_unix_socket(server.path)
    return await trio.open_tcp_stream(server.host, server.port)


class PostgresDriver(conpool.Driver[Session]):
    """Logs in and out of PostgreSQL; `logins` counts the logins."""

    def __init__(self) -> None:
        self.logins = 0

    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> Session:
        session = Session(stream, endpoint)
        await session.log_in(endpoint.login or conpool.Login())
        self.logins += 1
        return session

    async def check(self, session: Session) -> bool:
        return await session.query("") == []

    async def reset(self, session: Session) -> None:
        await session.query("DISCARD ALL")  # settings, temporary tables, prepared statements, locks

    async def close(self, session: Session) -> None:
        await session.stream.send_all(session.wire.send(pg.Terminate()))

    async def cancel(self, session: Session) -> None:
        request = pg.CancelRequest(session.key.process_id, session.key.secret_key)
        async with await dial(session.endpoint) as stream:
            await stream.send_all(request.to_wire())
            async for _ in stream:  # the server hangs up once it has passed the request on
                pass

    def is_clean(self, session: Session) -> bool:
        return session.wire.is_ready and session.status is pygwire.TransactionStatus.IDLE


class Database:
    """Runs SQL over `pool`, inside `async with db.pool`."""

    def __init__(self, host: str, port: int, user: str, password: str, database: str) -> None:
        config = conpool.PoolConfig(max_connections_per_endpoint=20, health_check_after=5.0)
        self.driver = PostgresDriver()
        self.pool = conpool.ConnectionPool(config, driver=self.driver, name="postgres")
        # Another user or database never gets a connection that is logged in as this one.
        login = conpool.Login(user, password, database)
        self.endpoint = conpool.Endpoint(host, port, login=login)

    async def query(self, sql: str, *values: object) -> list[Row]:
        """Run one statement, with its values for $1, $2, ..., on any connection."""
        async with self.pool.connection(self.endpoint) as conn:
            return await conn.session.query(sql, *values)


async def main(
    host: str, port: int, user: str, password: str, database: str, *, queries: int = 100
) -> int:
    """Run a hundred queries at once over twenty connections; return the number of logins."""
    db = Database(host, port, user, password, database)

    async def square(number: int) -> None:
        rows = await db.query("SELECT $1::int * $1::int", number)
        assert rows == [(str(number * number),)]

    async with db.pool:
        async with trio.open_nursery() as nursery:
            for number in range(queries):
                nursery.start_soon(square, number)
        print(f"{queries} queries, {db.driver.logins} logins")
        print(db.pool.all_stats())
    return db.driver.logins


if __name__ == "__main__":
    host, port, user, database = sys.argv[1:]
    trio.run(main, host, int(port), user, os.environ["PGPASSWORD"], database)
