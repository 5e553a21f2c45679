"""Servers and pairs of streams on loopback, plain and with TLS, in the same process as the test."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, cast, final

import trio
from trio.abc import Stream

from conpool import TLS, Endpoint
from conpool._connection.tls_tap import EncryptedStream, encrypt

from .faults import LOOPBACK
from .pools import echo

_PATIENCE = 10.0

ServerTLS: TypeAlias = "trio.SSLStream[Stream]"


async def exchange(stream: Stream, data: bytes = b"ping") -> None:
    """Ask an echo server something and read all of its answer."""
    await stream.send_all(data)
    assert await receive_exactly(stream, len(data)) == data


async def receive_exactly(stream: Stream, count: int) -> bytes:
    got = b""
    while len(got) < count:
        data = await stream.receive_some(count - len(got))
        assert data, f"the stream ended after {got!r}"
        got += data
    return got


@final
class Serving:
    """A server that runs one coroutine for each connection."""

    def __init__(self, listener: trio.SocketListener, context: ssl.SSLContext | None) -> None:
        self.port = cast("int", listener.socket.getsockname()[1])
        self.endpoint = Endpoint(LOOPBACK, self.port)
        self.accepted = 0
        self.live: set[trio.SocketStream] = set()
        """The connections that this end has not closed."""
        self._listener = listener
        self._context = context
        self._changed = trio.Event()

    async def run(self, handler: Callable[[Stream], Awaitable[object]]) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                stream = await self._listener.accept()
                self.accepted += 1
                self.live.add(stream)
                self._tell()
                nursery.start_soon(self._serve, stream, handler)

    async def _serve(
        self, socket_stream: trio.SocketStream, handler: Callable[[Stream], Awaitable[object]]
    ) -> None:
        try:
            stream: Stream = socket_stream
            if self._context is not None:
                stream = await shake_hands(socket_stream, self._context)
            await handler(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has gone, or the test has closed it
        finally:
            socket_stream.socket.close()
            self.live.discard(socket_stream)
            self._tell()

    async def wait_live(self, count: int) -> None:
        """Wait until exactly `count` connections are open."""
        with trio.fail_after(_PATIENCE):
            while len(self.live) != count:
                await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def serving(
    handler: Callable[[Stream], Awaitable[object]] = echo, context: ssl.SSLContext | None = None
) -> AsyncIterator[Serving]:
    """Run a server for the length of the block."""
    (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    async with listener, trio.open_nursery() as nursery:
        server = Serving(listener, context)
        nursery.start_soon(server.run, handler)
        yield server
        nursery.cancel_scope.cancel()


@final
class TLSServer:
    """Shakes hands with each client, and gives the stream to the test."""

    def __init__(self, port: int, tls: TLS) -> None:
        self.endpoint = Endpoint(LOOPBACK, port, tls=tls)
        self._streams: trio.MemoryReceiveChannel[ServerTLS]
        self._sink, self._streams = trio.open_memory_channel[ServerTLS](100)
        self.errors: list[BaseException] = []
        """Why handshakes failed."""

    async def accept(self) -> ServerTLS:
        """The server's end of the next connection, once its handshake is complete."""
        with trio.fail_after(_PATIENCE):
            return await self._streams.receive()

    def close(self) -> None:
        """Close the connections that the test has not accepted."""
        while True:
            try:
                stream = self._streams.receive_nowait()
            except trio.WouldBlock:
                return
            below = stream.transport_stream
            assert isinstance(below, trio.SocketStream)
            below.socket.close()

    async def run(self, listener: trio.SocketListener, context: ssl.SSLContext) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._greet, await listener.accept(), context)

    async def _greet(self, stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        try:
            encrypted = await shake_hands(stream, context)
        except trio.BrokenResourceError as error:
            self.errors.append(error)
            stream.socket.close()
        except BaseException:
            stream.socket.close()
            raise
        else:
            self._sink.send_nowait(encrypted)


@asynccontextmanager
async def tls_server(context: ssl.SSLContext, client: TLS) -> AsyncIterator[TLSServer]:
    """A TLS server; the test gets its connections, and closes them."""
    (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    async with listener, trio.open_nursery() as nursery:
        server = TLSServer(listener.socket.getsockname()[1], client)
        nursery.start_soon(server.run, listener, context)
        yield server
        nursery.cancel_scope.cancel()


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """A client's and a server's end of one TCP connection."""
    (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    async with listener:
        client = await trio.open_tcp_stream(LOOPBACK, listener.socket.getsockname()[1])
        return client, await listener.accept()


async def tls_pair(
    server: ssl.SSLContext, tls: TLS, below: tuple[Stream, Stream] | None = None
) -> tuple[EncryptedStream, trio.SSLStream[Stream]]:
    """A client's end, as a dial makes it, and a server's end, over `below` or over TCP."""
    client_below, server_below = below or await tcp_pair()
    accepted = trio.SSLStream(server_below, server, server_side=True)
    made: list[EncryptedStream] = []

    async def dial() -> None:
        made.append(await encrypt(client_below, tls, "localhost"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        await accepted.do_handshake()
    await send_tickets(accepted)
    return made[0], accepted


async def shake_hands(stream: Stream, context: ssl.SSLContext) -> ServerTLS:
    """Do a server's handshake; if it fails, send the alert, which trio's own server does not."""
    encrypted: ServerTLS = trio.SSLStream(stream, context, server_side=True)
    try:
        await encrypted.do_handshake()
    except trio.BrokenResourceError:
        await stream.send_all(encrypted._outgoing.read())
        raise
    await send_tickets(encrypted)
    return encrypted


async def send_tickets(server: trio.SSLStream[Stream]) -> None:
    """Send the session tickets of TLS 1.3 at once; trio's own server holds them back."""
    tickets, server._delayed_outgoing = server._delayed_outgoing, None
    if tickets:
        await server.transport_stream.send_all(tickets)
