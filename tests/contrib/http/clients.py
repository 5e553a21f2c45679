"""The client library that a test runs with, and servers that answer as the test tells them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
import pytest
import trio

LIBRARIES = ["httpx", "httpx2"]
LOOPBACK = "127.0.0.1"

ONE_LIBRARY = pytest.mark.parametrize("client", ["httpx2"], indirect=True)
"""For what takes long: both have the same implementation."""


@dataclass
class Client:
    """One of the two client libraries, with conpool's transport for it."""

    lib: Any
    contrib: Any

    def transport(self, *args: Any, **options: Any) -> Any:
        return self.contrib.AsyncPoolTransport(*args, **options)

    @asynccontextmanager
    async def open(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        """A client over a transport of its own; what it still holds at the end is a leak."""
        transport = self.transport(*args, **options)
        async with self.lib.AsyncClient(transport=transport, timeout=5) as client:
            yield client

    @staticmethod
    def pool_of(client: Any) -> Any:
        """The pool behind a client."""
        transport = client._transport
        return transport._given or transport._host._pool


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: trio.abc.Stream, server: Server, number: int) -> None:
        self.stream = stream
        self.number = number
        self._server = server
        self._http = h11.Connection(h11.SERVER)

    async def head(self) -> h11.Request | None:
        """Read the head of the next request; None if there is none."""
        if self._http.our_state is not h11.IDLE:
            self._http = h11.Connection(h11.SERVER)
        event = await self._next()
        return event if isinstance(event, h11.Request) else None

    async def piece(self) -> bytes:
        """Read a piece of the request's body; empty at its end."""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def request(self) -> Request | None:
        """Read the next request; None if there is none."""
        head = await self.head()
        if head is None:
            return None
        body = b""
        while piece := await self.piece():
            body += piece
        headers = {name.decode(): value.decode() for name, value in head.headers}
        request = Request(head.method.decode(), head.target.decode(), headers, body)
        self._server.requests.append(request)
        self._http = h11.Connection(h11.SERVER)
        return request

    async def _next(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(bytes(await self.stream.receive_some()))

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        while await self.stream.receive_some():
            pass

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, body: bytes = b"hello", status: int = 200, extra: bytes = b"") -> None:
        head = b"HTTP/1.1 %d Fine\r\n%sContent-Length: %d\r\n\r\n" % (status, extra, len(body))
        await self.send(head + body)


@dataclass
class Server:
    """What a server has seen."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    tls: bool = False
    open: int = 0
    _closed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    async def all_gone(self) -> None:
        """Wait until no connection is open."""
        while self.open:
            await self._closed.park()

    def closed_one(self) -> None:
        self.open -= 1
        self._closed.unpark_all()

    def url(self, path: str = "/") -> str:
        return f"http{'s' * self.tls}://{LOOPBACK}:{self.port}{path}"


Script = Callable[[Peer], Awaitable[object]]


async def answer_all(peer: Peer) -> None:
    """Answer each request with its path and its body."""
    while (request := await peer.request()) is not None:
        await peer.answer(request.target.encode() + b" " + request.body)


@asynccontextmanager
async def serving(
    script: Script = answer_all, context: ssl.SSLContext | None = None, *, within: float = 20
) -> AsyncIterator[Server]:
    """Run a server that does with each connection what `script` says."""
    server = Server(tls=context is not None)

    async def serve(stream: trio.abc.Stream) -> None:
        server.connections += 1
        server.open += 1
        peer = Peer(stream, server, server.connections)
        try:
            await script(peer)
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            pass
        finally:
            with trio.move_on_after(1, shield=True):
                await stream.aclose()
            server.closed_one()

    async with trio.open_nursery() as nursery:
        if context is None:
            serve_it: Any = partial(trio.serve_tcp, serve, 0, host=LOOPBACK)
        else:
            serve_it = partial(
                trio.serve_ssl_over_tcp, serve, 0, context, host=LOOPBACK, https_compatible=True
            )
        listeners: Any = await nursery.start(serve_it)
        listener = getattr(listeners[0], "transport_listener", listeners[0])
        server.port = listener.socket.getsockname()[1]
        with trio.fail_after(within):
            yield server
        nursery.cancel_scope.cancel()
