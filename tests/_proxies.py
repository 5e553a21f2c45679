"""Proxies in the test's own process: some work, and some follow a script."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from ._net import LOOPBACK

Serve = Callable[[trio.abc.Stream], Awaitable[None]]


@contextlib.asynccontextmanager
async def proxy_at_work(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve each connection to a port with `serve`, until the block ends."""

    async def handle(stream: trio.SocketStream) -> None:
        end: trio.abc.Stream = stream
        if tls is not None:
            end = trio.SSLStream(stream, tls, server_side=True)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                await serve(end)

    (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def read_head(stream: trio.abc.Stream) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = await stream.receive_some(1)
        assert piece, "the client hung up"
        head += piece
    return head


async def read_exactly(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        assert piece, "the client hung up"
        data += piece
    return data


async def relay(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
    """Pass bytes on in both directions until one side ends."""

    async def pump(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in source:
                await sink.send_all(data)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, one, other)
        nursery.start_soon(pump, other, one)


class Connecting:
    """An HTTP proxy that opens tunnels to ports of this machine, whatever the host."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def __call__(self, stream: trio.abc.Stream) -> None:
        head = await read_head(stream)
        self.heads.append(head)
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        async with await trio.open_tcp_stream(LOOPBACK, port) as target:
            await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await relay(stream, target)


class Socks:
    """A SOCKS5 proxy that opens tunnels to ports of this machine, whatever the host."""

    def __init__(self, *, credentials: tuple[bytes, bytes] | None = None) -> None:
        self.credentials = credentials
        self.asked: list[tuple[int, bytes, int]] = []

    async def __call__(self, stream: trio.abc.Stream) -> None:
        _, count = await read_exactly(stream, 2)
        methods = await read_exactly(stream, count)
        wanted = 0 if self.credentials is None else 2
        if wanted not in methods:
            await stream.send_all(b"\x05\xff")
            return
        await stream.send_all(bytes([5, wanted]))
        if self.credentials is not None:
            (_, size) = await read_exactly(stream, 2)
            username = await read_exactly(stream, size)
            (size,) = await read_exactly(stream, 1)
            password = await read_exactly(stream, size)
            right = (username, password) == self.credentials
            await stream.send_all(b"\x01\x00" if right else b"\x01\x01")
        _, _, _, kind = await read_exactly(stream, 4)
        size = (await read_exactly(stream, 1))[0] if kind == 3 else {1: 4, 4: 16}[kind]
        host = await read_exactly(stream, size)
        (port,) = struct.unpack("!H", await read_exactly(stream, 2))
        self.asked.append((kind, host, port))
        async with await trio.open_tcp_stream(LOOPBACK, port) as target:
            await stream.send_all(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34")
            await relay(stream, target)


def reset(stream: trio.abc.Stream) -> None:
    """Close a connection with RST."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    assert isinstance(stream, trio.SocketStream)
    linger = struct.pack("ii", 1, 0)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    stream.socket.close()


class Script:
    """The far end of a stream in memory: waits for so many bytes, then sends a reply, and so on."""

    def __init__(self, *replies: tuple[int, Iterable[bytes]], hang_up: bool = False) -> None:
        self.replies = replies
        self.hang_up = hang_up
        self.received = b""
        self.client, self._server = memory_stream_pair()

    async def play(self) -> None:
        for size, pieces in self.replies:
            # 0 stands for a head of HTTP, whose size is not known.
            read = read_exactly(self._server, size) if size else read_head(self._server)
            self.received += await read
            for piece in pieces:
                await self._server.send_all(piece)
        if self.hang_up:
            await self._server.send_eof()
        async for data in self._server:
            self.received += data

    async def run(self, talk: Callable[[trio.abc.Stream], Awaitable[None]]) -> None:
        """Run `talk` with the near end, and raise its exception as it is."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.play)
            try:
                await talk(self.client)
            except Exception as error:  # noqa: BLE001 - raised below, outside the nursery's group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def left_over(self) -> bytes:
        """Return the bytes that the client would read next."""
        data = b""

        async def read() -> None:
            nonlocal data
            while piece := await self.client.receive_some():
                data += piece

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return data


def one_by_one(data: bytes) -> Iterable[bytes]:
    return (data[i : i + 1] for i in range(len(data)))
