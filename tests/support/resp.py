"""A driver for Redis and Valkey: enough of RESP to send commands and read their replies."""

from __future__ import annotations

from typing import TypeAlias

import trio

from conpool import AnyEndpoint, Driver

Reply: TypeAlias = "bytes | int | list[Reply] | None"


class ReplyError(Exception):
    """The server refused a command; the connection is as good as before."""


class Resp:
    """A connection to a server: one command at a time, each followed by its reply."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self.owed = 0
        """Commands whose reply has not been read in full."""

    async def call(self, *words: bytes) -> Reply:
        """Send one command and read its reply.

        If it is cancelled, the reply stays owed, and the connection is of no more use.
        """
        parts = [b"*%d" % len(words)]
        for word in words:
            parts += [b"$%d" % len(word), word]
        self.owed += 1
        await self._stream.send_all(b"\r\n".join([*parts, b""]))
        try:
            reply = await self._read()
        except ReplyError:
            self.owed -= 1
            raise
        self.owed -= 1
        return reply

    @property
    def is_clean(self) -> bool:
        return not (self.owed or self._buffer)

    async def _read(self) -> Reply:
        line = await self._read_line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise ReplyError(rest.decode())
        number = int(rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"$":
            return (await self._read_exactly(number + 2))[:-2]
        assert kind == b"*", line
        return [await self._read() for _ in range(number)]

    async def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            await self._receive()
        return (await self._read_exactly(end + 2))[:-2]

    async def _read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._receive()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def _receive(self) -> None:
        data = await self._stream.receive_some()
        if not data:
            raise EOFError("the server hung up")
        self._buffer += data


class RespDriver(Driver[Resp]):
    """Logs nobody in; one command shows that the server is willing."""

    async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Resp:
        session = Resp(stream)
        await session.call(b"PING")
        return session

    async def check(self, session: Resp) -> bool:
        return await session.call(b"PING") == b"PONG"

    def is_clean(self, session: Resp) -> bool:
        return session.is_clean
