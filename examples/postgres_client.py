"""A PostgreSQL client in a page: pygwire and scramp speak the protocol, conpool lends.

    PGPASSWORD=... python examples/postgres_client.py 127.0.0.1 5432 me mydatabase

The client logs in on each new connection, and then sends any number of queries over it. It keeps
the state of the protocol under `conn.id`, until the pool has closed the connection.
"""

# pygwire's class decorator hides the fields of its messages from pyright (mypy sees them).
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
from __future__ import annotations

import os
import sys
from typing import NamedTuple, TypeAlias, TypeVar

import pygwire
import scramp
import trio
from pygwire import messages as pg
from trio.abc import Stream

import conpool

Wire: TypeAlias = pygwire.FrontendConnection
Row: TypeAlias = tuple[str | None, ...]
Message = TypeVar("Message", bound=pg.PGMessage)


class SQLError(Exception):
    """The server refused a statement; its reply was read to the end."""


class Result(NamedTuple):
    rows: list[Row]
    error: SQLError | None
    in_transaction: bool


class Database:
    """Runs SQL over `pool`, inside `async with db.pool`; `logins` counts the logins."""

    def __init__(self, host: str, port: int, user: str, password: str, database: str) -> None:
        config = conpool.PoolConfig(max_connections_per_endpoint=20)
        self.pool = conpool.ConnectionPool(config, on_closed=self._forget, name="postgres")
        # Another user or database must never get a connection that is logged in as this one.
        login = conpool.Login(user, password, database)
        self.endpoint = conpool.Endpoint(host, port, login=login)
        self.logins = 0
        self._account = (user, password, database)
        self._wires: dict[int, Wire] = {}

    async def query(self, sql: str, *values: object) -> list[Row]:
        """Run one statement, with its values for $1, $2, ..., on any connection."""
        async with self.pool.connection(self.endpoint) as conn:
            result = await self.ask(conn, sql, *values)
            if result.in_transaction:
                conn.retire()  # the next caller must not end up inside this transaction
        # After the block: the reply was read to its end, so the pool may keep the connection.
        if result.error:
            raise result.error
        return result.rows

    async def ask(self, conn: conpool.Connection[None], sql: str, *values: object) -> Result:
        """Run one statement on this connection, and read the reply to its end."""
        wire = self._wires.get(conn.id)
        if wire is None:
            wire = self._wires[conn.id] = await log_in(conn, *self._account)
            self.logins += 1
        texts = [None if value is None else str(value).encode() for value in values]
        request = (pg.Parse(query=sql), pg.Bind(param_values=texts), pg.Execute(), pg.Sync())
        await conn.send_all(b"".join(map(wire.send, request)))
        rows, error, status = list[Row](), None, pygwire.TransactionStatus.IDLE
        while not wire.is_ready:
            for message in await receive(conn, wire):
                if isinstance(message, pg.DataRow):
                    rows.append(tuple(c if c is None else c.decode() for c in message.columns))
                elif isinstance(message, pg.ErrorResponse):
                    error = SQLError(f"{message.code}: {message.message}")
                elif isinstance(message, pg.ReadyForQuery):
                    status = message.status
        return Result(rows, error, status is not pygwire.TransactionStatus.IDLE)

    def _forget(self, info: conpool.ConnectionInfo, reason: conpool.CloseReason) -> None:
        self._wires.pop(info.id, None)


async def log_in(stream: Stream, user: str, password: str, database: str) -> Wire:
    """Log in with SCRAM: the server, too, must prove that it knows the password."""
    wire = Wire()
    hello = pg.StartupMessage({"user": user, "database": database})
    offer = await step(stream, wire, hello, pg.AuthenticationSASL)
    scram = scramp.ScramClient(offer.mechanisms, user, password)
    first = pg.SASLInitialResponse(scram.mechanism_name, scram.get_client_first().encode())
    challenge = await step(stream, wire, first, pg.AuthenticationSASLContinue)
    scram.set_server_first(challenge.data.decode())
    final = pg.SASLResponse(scram.get_client_final().encode())
    proof = await step(stream, wire, final, pg.AuthenticationSASLFinal)
    scram.set_server_final(proof.data.decode())
    while not wire.is_ready:
        await receive(stream, wire)
    return wire


async def step(stream: Stream, wire: Wire, sent: pg.PGMessage, wanted: type[Message]) -> Message:
    """Take one step of the login; the answer must be of the type `wanted`."""
    await stream.send_all(wire.send(sent))
    answer, *_ = await receive(stream, wire)
    if not isinstance(answer, wanted):
        raise SQLError(f"{answer} has no place in a SCRAM login")
    return answer


async def receive(stream: Stream, wire: Wire) -> list[pg.PGMessage]:
    """Wait for at least one message; raise the error with which a server ends the connection."""
    messages: list[pg.PGMessage] = []
    while not messages:
        received = await stream.receive_some()
        if not received:
            raise trio.BrokenResourceError("the server hung up in mid-reply")
        messages += wire.receive(bytes(received))
    for message in messages:
        if isinstance(message, pg.ErrorResponse) and message.fields["V"] in {"FATAL", "PANIC"}:
            raise SQLError(f"{message.code}: {message.message}")
    return messages


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
        print(f"{queries} queries, {db.logins} logins")
        print(db.pool.all_stats())
    return db.logins


if __name__ == "__main__":
    host, port, user, database = sys.argv[1:]
    trio.run(main, host, int(port), user, os.environ["PGPASSWORD"], database)
