"""What the traffic talks to: for each kind of server, a numbered request and its right answer."""

from __future__ import annotations

import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, final

import psutil
import trio

import conpool

from .echo import UNASKED

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))


class WrongAnswer(Exception):
    """An answer to a request of somebody else: a connection was reused that must not have been."""


class ServerMisbehaved(Exception):
    """The server hung up, failed, or spoke unasked: bad luck, not a fault of the pool."""


class Service(ABC):
    """One server, and how to talk to it."""

    def __init__(self, name: str, find: Callable[[Random], conpool.AnyEndpoint]) -> None:
        self.name = name
        self.find = find
        """Picks one of the endpoints under which the server is known."""

    @abstractmethod
    def request(self, number: int, padding: int) -> bytes:
        """A request."""

    @abstractmethod
    def answer(self, number: int) -> bytes:
        """What it is answered with."""

    def is_error(self, received: bytes | bytearray) -> bool:
        """Whether this is the server's way to refuse, or to say goodbye."""
        return False

    async def prepare(self, conn: conpool.Connection[None], known: set[int]) -> None:
        """Log in, unless the connection's id is among `known`."""

    async def send(self, conn: conpool.Connection[None], number: int, padding: int = 0) -> None:
        try:
            await conn.send_all(self.request(number, padding))
        except trio.BrokenResourceError as exc:
            raise ServerMisbehaved("broken at send") from exc

    async def receive(self, conn: conpool.Connection[None], number: int, buffer: bytearray) -> None:
        """Read on from `buffer` until the answer is complete.

        Raises:
            WrongAnswer: It is not the answer to this request.
            ServerMisbehaved: There will be none, or more came with it.
        """
        expected = self.answer(number)
        while not (said := buffer.replace(UNASKED, b"")).startswith(expected):
            if self.is_error(said):
                raise ServerMisbehaved("refused")
            if said.removesuffix(UNASKED[:1]) != expected[: len(said.removesuffix(UNASKED[:1]))]:
                raise WrongAnswer(f"{self.name}: {bytes(buffer[:200])!r} is not {expected!r}")
            try:
                data = await conn.receive_some()
            except trio.BrokenResourceError as exc:
                raise ServerMisbehaved("broken at receive") from exc
            if not data:
                raise ServerMisbehaved("hung up")
            buffer += data
        rest = said[len(expected) :].removesuffix(UNASKED[:1])
        if rest and not self.is_error(rest):
            raise WrongAnswer(f"{self.name}: {bytes(buffer[:200])!r} goes on after {expected!r}")
        if len(buffer) != len(expected):
            raise ServerMisbehaved("unasked")


@final
class Echo(Service):
    """The embedded server."""

    def request(self, number: int, padding: int) -> bytes:
        return b"%d %s\n" % (number, b"x" * padding)

    def answer(self, number: int) -> bytes:
        return b"%d\n" % number


@final
class ValkeyService(Service):
    """Valkey or Redis: ECHO."""

    def __init__(self, server: Any) -> None:
        self.server = server
        local = conpool.UnixEndpoint(server.path)
        remote = [conpool.Endpoint(server.host, server.port, partition=n) for n in range(3)]
        endpoints: list[conpool.AnyEndpoint] = [local, *remote]
        super().__init__("valkey", lambda random: random.choice(endpoints))

    def request(self, number: int, padding: int) -> bytes:
        return b"ECHO %d\r\n" % number

    def answer(self, number: int) -> bytes:
        return b"$%d\r\n%d\r\n" % (len(b"%d" % number), number)

    def is_error(self, received: bytes | bytearray) -> bool:
        return received.startswith(b"-")

    def disturb(self, random: Random) -> None:
        """Cut all clients; rarely restart. Blocks: for a thread."""
        if random.randrange(3) == 0:
            self.server.restart()
        else:
            self.server.ask(b"CLIENT KILL TYPE normal\r\n")

    def count_sessions(self) -> int:
        """Clients but for the one that asks."""
        info = self.server.ask(b"INFO clients\r\n")
        return int(info.split(b"connected_clients:")[1].split(b"\r\n")[0]) - 1


@final
class PostgresService(Service):
    """PostgreSQL: SELECT, in the simple protocol, after a login by SCRAM."""

    def __init__(self, server: Any) -> None:
        self.server = server
        endpoint = conpool.Endpoint(server.host, server.port, partition=server.user)
        super().__init__("postgres", lambda _: endpoint)

    def request(self, number: int, padding: int) -> bytes:
        sql = b"SELECT '%d' AS n\0" % number
        return b"Q" + struct.pack("!i", 4 + len(sql)) + sql

    def answer(self, number: int) -> bytes:
        text = b"%d" % number
        column = b"n\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
        parts = (
            (b"T", struct.pack("!h", 1) + column),
            (b"D", struct.pack("!hi", 1, len(text)) + text),
            (b"C", b"SELECT 1\0"),
            (b"Z", b"I"),
        )
        return b"".join(kind + struct.pack("!i", 4 + len(body)) + body for kind, body in parts)

    def is_error(self, received: bytes | bytearray) -> bool:
        return received.startswith(b"E")

    async def prepare(self, conn: conpool.Connection[None], known: set[int]) -> None:
        from postgres_client import Session, SQLError

        if conn.id in known:
            return
        server = self.server
        login = conpool.Login(server.user, server.password, server.database)
        try:
            await Session(conn, conn.endpoint).log_in(login)
        except (SQLError, trio.BrokenResourceError) as exc:
            raise ServerMisbehaved("no login") from exc
        known.add(conn.id)

    def disturb(self, random: Random) -> None:
        """Restart. Blocks: for a thread."""
        self.server.restart()

    def count_sessions(self) -> int:
        """Its processes that serve a client: their titles say for whom."""
        family = psutil.Process(self.server.pid).children()
        return sum(self.server.user in " ".join(child.cmdline()) for child in family)
