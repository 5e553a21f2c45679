"""Servers of three kinds; the test accepts each connection and holds the server's end."""

from __future__ import annotations

import abc
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, Self, TypeAlias, cast, final

import trio
from trio.abc import Stream

from conpool import TLS, AnyEndpoint, Endpoint, UnixEndpoint
from tests.support.clean import PATIENCE, Case
from tests.support.faults import LOOPBACK, FaultyProxy, close_stream
from tests.support.loopback_servers import TLSServer, tls_server

ProxyTo: TypeAlias = Callable[[int], Awaitable[FaultyProxy]]
"""Starts a proxy to a port: the fixture `proxy_to`."""


class Site(abc.ABC):
    """A server that the pool can dial; `accept` gives the test the other end of a connection."""

    endpoint: AnyEndpoint

    def __init__(self) -> None:
        self.accepted: list[Stream] = []

    @abc.abstractmethod
    async def _accept(self) -> Stream:
        """Return the server's end of the next connection."""

    async def accept(self) -> Stream:
        """The server's end of the next connection, in the order in which they came."""
        with trio.fail_after(PATIENCE):
            stream = await self._accept()
        self.accepted.append(stream)
        return stream

    async def lend(self, case: Case) -> Stream:
        """Have the pool open a connection, keep it, and return the server's end."""
        async with case.pool.connection(self.endpoint):
            return await self.accept()

    def end(self, stream: Stream, how: Literal["close", "reset"] = "close") -> None:
        """End a connection at the level of its socket, at once."""
        close_stream(socket_of(stream), how)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for stream in self.accepted:
            socket_of(stream).socket.close()


@final
class TCPSite(Site):
    def __init__(self, listener: trio.SocketListener) -> None:
        super().__init__()
        self.listener = listener
        self.port = cast("int", listener.socket.getsockname()[1])
        self.endpoint = Endpoint(LOOPBACK, self.port)

    async def _accept(self) -> trio.SocketStream:
        return await self.listener.accept()

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__()
        self.listener.socket.close()


@final
class UnixSite(Site):
    def __init__(self, path: Path) -> None:
        super().__init__()
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.listen(100)
        sock.setblocking(False)
        self.listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self.endpoint = UnixEndpoint(path)

    async def _accept(self) -> trio.SocketStream:
        return await self.listener.accept()

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__()
        self.listener.socket.close()


@final
class TLSSite(Site):
    def __init__(self, server: TLSServer) -> None:
        super().__init__()
        self.server = server
        self.port = server.endpoint.port
        self.endpoint = server.endpoint

    async def _accept(self) -> Stream:
        return await self.server.accept()

    @classmethod
    @asynccontextmanager
    async def open(cls, context: ssl.SSLContext, tls: TLS) -> AsyncIterator[TLSSite]:
        async with tls_server(context, tls) as server:
            with TLSSite(server) as site:
                try:
                    yield site
                finally:
                    server.close()


def at(port: int, tls: TLS, host: str = LOOPBACK) -> Endpoint:
    """A server with TLS on this machine."""
    return Endpoint(host, port, tls=tls)


def socket_of(stream: Stream) -> trio.SocketStream:
    """The socket stream below `stream`."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    assert isinstance(stream, trio.SocketStream)
    return stream


async def say_goodbye(stream: Stream) -> None:
    """Send close_notify and keep the socket open, which trio itself never does."""
    assert isinstance(stream, trio.SSLStream)
    await stream._retry(stream._ssl_object.unwrap, ignore_want_read=True)
