"""The open end of a connection: its streams, how to probe it and how to close it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any, Self, cast, final

import trio

from conpool._connection.closing import try_close_now
from conpool._connection.exchange import (
    CUT_SEND,
    ENCRYPTED,
    ENDED,
    HALF_CLOSED,
    JUDGED,
    SHARED,
    ExchangeStream,
)
from conpool._connection.probe import PeekingSource, Source, find_source, probe
from conpool._connection.session import NO_SESSIONS, REFUSING, NativeStream, SessionRules
from conpool._connection.tls_tap import EncryptedStream, find_tap
from conpool._errors.pool_log import NO_LOG, PoolLog
from conpool._extend.driver import NativeDriver
from conpool._values.states import CloseReason


@final
class Link:
    """What the shell knows of one open connection, from the end of its dial to its close."""

    __slots__ = (
        "_source",
        "exchange",
        "has_companion",
        "log",
        "offered",
        "peer_address",
        "poll",
        "rules",
        "session",
        "ssl_object",
        "stream",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        rules: SessionRules = NO_SESSIONS,
        *,
        encrypted: bool = False,
        session: Any = None,
        log: PoolLog = NO_LOG,
    ) -> None:
        """Look at an open stream; `encrypted`: its outermost layer is the endpoint's own TLS."""
        self.stream = stream
        self.exchange = ExchangeStream(stream)
        self.rules = rules
        self.log = log
        self.session: Any = session
        self.offered: trio.abc.HalfCloseableStream = self.exchange
        """What leases may read from and write to."""
        # Without TLS of the endpoint's own, an outermost layer of TLS is the way to a proxy.
        tap = find_tap(stream) if encrypted else None
        self.ssl_object: ssl.SSLObject | None = None if tap is None else tap.ssl_object
        self._source: Source | None = find_source(stream)
        self.poll = _find_nothing if self._source is None else self._source.poll
        """Called with 0: true if `probe` may find something. For a plain socket, one C call."""
        self.has_companion = False
        """Whether the driver's `run` reads beside the leases."""
        self.peer_address = _find_peer_address(stream)
        self.exchange.taints = JUDGED * rules.judges | SHARED * rules.shares

    def begin_session(self, session: Any) -> None:
        """The driver has opened `session`; nothing is owed from here on.

        Raises:
            ConnectionError: What the driver has left behind is of no use to anybody.
        """
        exchange = self.exchange
        if exchange.in_progress or exchange.taints & (CUT_SEND | HALF_CLOSED | ENDED):
            raise ConnectionError("the driver's open() has left a connection that has ended")
        self.session = session
        if exchange.taints & ENCRYPTED:  # the driver's own TLS: nobody else can read its bytes
            sock = _find_socket(self.stream)
            self._peek(None if sock is None else sock.fileno, is_opaque=True)
        exchange.taints &= JUDGED | SHARED
        self._follow_rules()

    def _follow_rules(self) -> None:
        self.has_companion = self.rules.has_companion(self.session, self.log)
        if self.has_companion:  # it reads: whatever has come is its own business
            self._source = None
            self.poll = _find_nothing

    def _peek(self, fileno: Callable[[], int] | None, *, is_opaque: bool) -> None:
        self._source = None
        if fileno is not None and fileno() >= 0:
            self._source = PeekingSource(fileno, is_opaque=is_opaque)
        self.poll = _find_nothing if self._source is None else self._source.poll

    @classmethod
    def of_native(cls, session: Any, rules: SessionRules, log: PoolLog = NO_LOG) -> Self:
        """Return the link of a session that has opened a socket of its own."""
        driver = cast("NativeDriver[Any]", rules.driver)
        stream = NativeStream(driver, session)
        link = cls(stream, rules, session=session, log=log)
        link.offered = REFUSING
        link.exchange.has_received = True  # its library has logged in; nobody counts the bytes
        link._peek(stream.fileno, is_opaque=False)
        link._follow_rules()
        return link

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
        if isinstance(self.stream, NativeStream):
            return self.stream.fileno()
        sock = _find_socket(self.stream)
        return -1 if sock is None else sock.fileno()

    @property
    def has_goodbye(self) -> bool:
        """Whether a graceful close says goodbye to the peer."""
        return self.rules.says_goodbye or isinstance(self.stream, trio.SSLStream)

    def note_goodbye(self) -> None:
        """The driver has said goodbye, and may have closed a socket of its own."""
        if isinstance(self.stream, NativeStream):
            self.stream.note_goodbye()

    def try_close_now(self, why: str = "closed by the pool") -> bool:
        """Close by force, without awaiting; return False if only an await can close the stream.

        `why` is what a task learns that still uses the connection.
        """
        self.exchange.cut(why)
        return try_close_now(self.stream, self.log)

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
