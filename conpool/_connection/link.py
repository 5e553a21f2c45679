"""The open end of a connection: its streams, how to probe it and how to close it."""

from __future__ import annotations

import socket
import ssl
from typing import Any, cast, final

import trio

from conpool._connection.closing import try_close_now
from conpool._connection.exchange import ExchangeStream
from conpool._connection.probe import find_source, probe
from conpool._connection.tls_tap import EncryptedStream, find_tap
from conpool._values.states import CloseReason


@final
class Link:
    """What the shell knows of one open connection, from the end of its dial to its close."""

    __slots__ = ("_source", "exchange", "peer_address", "poll", "session", "ssl_object", "stream")

    def __init__(self, stream: trio.abc.Stream, *, encrypted: bool = False) -> None:
        """Look at an open stream; `encrypted`: its outermost layer is the endpoint's own TLS."""
        self.stream = stream
        self.exchange = ExchangeStream(stream)
        self.session: Any = None
        # Without TLS of the endpoint's own, an outermost layer of TLS is the way to a proxy.
        tap = find_tap(stream) if encrypted else None
        self.ssl_object: ssl.SSLObject | None = None if tap is None else tap.ssl_object
        self._source = find_source(stream)
        self.poll = _find_nothing if self._source is None else self._source.poll
        """Called with 0: true if `probe` may find something. For a plain socket, one C call."""
        self.peer_address = _find_peer_address(stream)

    def probe(self) -> CloseReason | None:
        """Return why this connection cannot be lent again; None if the probe finds no reason."""
        return probe(self._source)

    @property
    def peer_ip(self) -> str | None:
        """The peer's IP address; None for a UNIX socket, and where there is no socket."""
        sock = _find_socket(self.stream)
        is_ip = sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}
        return str(self.peer_address[0]) if is_ip and self.peer_address else None

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 if the socket is closed, or there is none."""
        sock = _find_socket(self.stream)
        return -1 if sock is None else sock.fileno()

    @property
    def has_goodbye(self) -> bool:
        """Whether a graceful close says goodbye to the peer."""
        return isinstance(self.stream, trio.SSLStream)

    def try_close_now(self) -> bool:
        """Close by force, without awaiting; return False if only an await can close the stream."""
        self.exchange.cut()
        return try_close_now(self.stream)

    def __repr__(self) -> str:
        return f"<Link to {self.peer_address}, {self.exchange!r}>"


def _find_nothing(_: int) -> object:
    return None


def _find_socket(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    while isinstance(stream, trio.SSLStream):
        stream = cast("EncryptedStream", stream).transport_stream
    return stream.socket if isinstance(stream, trio.SocketStream) else None


def _find_peer_address(stream: trio.abc.Stream) -> Any:
    sock = _find_socket(stream)
    try:
        return None if sock is None else sock.getpeername()
    except OSError:  # the peer has gone already; the first probe will say so
        return None
