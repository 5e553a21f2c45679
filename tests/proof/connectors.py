"""Servers behind real sockets in simulated time, and streams that are no pleasure to close."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias, final

import trio
from trio.abc import Stream

import conpool
from conpool.testing import MemoryConnector

Serve: TypeAlias = Callable[[Stream], Awaitable[object]]
Mood: TypeAlias = Literal["closes", "raises", "hangs"]


async def serve_echo(stream: Stream) -> None:
    """Answer after a quarter of a second, so that there is time to be cancelled in between."""
    async for data in stream:
        await trio.sleep(0.25)
        await stream.send_all(data)


def encrypted(context: ssl.SSLContext, serve: Serve = serve_echo) -> Serve:
    """Serve the same over TLS."""

    async def serve_tls(stream: Stream) -> None:
        await serve(trio.SSLStream(stream, context, server_side=True))

    return serve_tls


@final
class PairConnector(conpool.Connector):
    """Connects through pairs of sockets, which the pool can look into as it cannot into memory."""

    def __init__(self, serve: Serve = serve_echo, *, delay: float = 1.0) -> None:
        self._serve = serve
        self._delay = delay
        self._clients: list[trio.SocketStream] = []
        self._peers: list[trio.socket.SocketType] = []

    async def connect(self, endpoint: conpool.AnyEndpoint) -> Stream:
        await trio.sleep(self._delay)
        ours, theirs = trio.socket.socketpair()
        client = trio.SocketStream(ours)
        self._clients.append(client)
        self._peers.append(theirs)
        server = trio.SocketStream(theirs)
        trio.lowlevel.spawn_system_task(self._run_server, server, name="memory server")
        return client

    @property
    def live(self) -> int:
        return sum(client.socket.fileno() != -1 for client in self._clients)

    def close_peer(self, number: int) -> None:
        """Have the server end the connection of this dial, counted from 0, at once."""
        self._peers[number].close()

    def speak(self, number: int, data: bytes) -> None:
        """Have the server send, unasked, on the connection of this dial, at once."""
        theirs = self._peers[number]
        borrowed = socket.socket(fileno=theirs.fileno())
        try:
            borrowed.sendall(data)
        finally:
            borrowed.detach()

    async def _run_server(self, stream: trio.SocketStream) -> None:
        try:
            await self._serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            stream.socket.close()


class AwkwardConnector(MemoryConnector):
    """Connects to streams that can only be closed by awaiting, and are slow or rude about it."""

    def __init__(self, mood: Mood, serve: Serve = serve_echo, *, delay: float = 1.0) -> None:
        super().__init__(serve, delay=delay)
        self._mood = mood

    async def connect(self, endpoint: conpool.AnyEndpoint) -> Stream:
        return AwkwardStream(await super().connect(endpoint), self._mood)


@final
class AwkwardStream(Stream):
    """A stream with a mood."""

    def __init__(self, stream: Stream, mood: Mood) -> None:
        self._stream = stream
        self._mood = mood

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        try:
            if self._mood == "hangs":
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
        finally:
            await trio.aclose_forcefully(self._stream)
        if self._mood == "raises":
            raise RuntimeError("closing failed")


class BareConnector(conpool.Connector):
    """Connects to nobody: streams that answer themselves, and bring no tasks into the schedule.

    With `lingers`, they can only be closed by awaiting.
    """

    def __init__(self, *, delay: float = 0.0, lingers: bool = False) -> None:
        self.delay = delay
        self.live = 0
        self.refuses = False
        self._lingers = lingers

    def accept(self) -> None:
        self.refuses = False

    async def connect(self, endpoint: conpool.AnyEndpoint) -> Stream:
        await trio.sleep(self.delay)
        if self.refuses:
            raise ConnectionRefusedError("nobody listens")
        self.live += 1
        return LingeringStream(self) if self._lingers else BareStream(self)


class LingeringStream(Stream):
    """Receives what it has sent."""

    def __init__(self, connector: BareConnector) -> None:
        self._connector = connector
        self._data = b""
        self._is_open = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._data += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        data, self._data = self._data, b""
        return data

    async def aclose(self) -> None:
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self._end()

    def _end(self) -> None:
        self._connector.live -= self._is_open
        self._is_open = False


class BareStream(LingeringStream):
    """Can be closed at once."""

    def close(self) -> None:
        self._end()
