"""Finds out, without waiting, whether the peer has closed a connection or sent anything.

A connection is alive while there is nothing to read. If there is something, a plain stream is
simple: the peer has sent a byte, or closed. TLS is different: after a TLS 1.3 handshake the
server's session tickets lie in the socket, unread and harmless. So the probe has to decrypt the
bytes in the socket before it can judge them.

Each layer of a stream is a source. `poll` costs a fraction of a microsecond, and nearly always
finds nothing. Only if it finds something does `take_now` read. One source stands on another where
TLS runs inside TLS.

The probe may read because no task is inside the stream: between leases nobody has it. If the probe
takes a byte of data, the pool closes the connection, so nobody can miss that byte.
"""

from __future__ import annotations

import errno
import os
import select
import socket as stdlib_socket
import ssl
import sys
from collections.abc import Callable
from typing import Final, TypeAlias, cast, final

import trio

from conpool._connection.tls_tap import EncryptedStream, Tap, find_tap
from conpool._values.states import CloseReason

_CHUNK: Final = 16_384
"""How many bytes to read at a time: the size of a TLS record."""

_MAX_CHUNKS: Final = 16
"""A peer that sends more than this with no data in it (tickets, key updates) counts as broken."""

_DO_NOT_WAIT: Final[int] = getattr(stdlib_socket, "MSG_DONTWAIT", 0)
"""Leaves the mode of a socket alone that belongs to somebody else, where the system can."""

Poll: TypeAlias = Callable[[int], object]
"""Called with 0: returns something true if `take_now` may find something."""


@final
class SocketSource:
    """The socket itself.

    `take_now` returns up to `size` bytes, `b""` at the end of the stream, and None if nothing is
    there yet. It raises `OSError` (`ssl.SSLError` included) if the connection is broken.
    """

    __slots__ = ("_socket", "poll")

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        self.poll = _make_poll(sock)

    def take_now(self, size: int) -> bytes | None:
        sock = self._socket
        # Reading trio's socket takes an await; this is the same file, borrowed for one call.
        return _read(_borrow(sock.fileno(), sock.family, sock.type, sock.proto), size)


@final
class PeekingSource:
    """A socket whose bytes are somebody else's: they stay where they are.

    If the bytes are encrypted by that somebody (`is_opaque`), they tell nothing: only the end of
    the stream does. Where the system does not say so, bytes in front of it hide it.

    That somebody may close the socket as well, and the system may give its number to another file.
    So the number is asked for each time.
    """

    __slots__ = ("_descriptor", "_fileno", "_is_opaque", "_poll")

    def __init__(self, fileno: Callable[[], int], *, is_opaque: bool) -> None:
        self._fileno = fileno
        self._descriptor = fileno()
        self._is_opaque = is_opaque
        self._poll = _poll_descriptor(self._descriptor)

    def poll(self, timeout: int, /) -> object:
        return self._has_moved() or self._poll(timeout)

    def take_now(self, size: int) -> bytes | None:
        if self._has_moved():
            raise OSError(errno.EBADF, "the session has left its socket")
        flags = stdlib_socket.MSG_PEEK | _DO_NOT_WAIT
        # With a default time-out, Python makes every socket non-blocking that it meets.
        is_restored = (
            bool(_DO_NOT_WAIT)
            and stdlib_socket.getdefaulttimeout() is not None
            and os.get_blocking(self._descriptor)
        )
        try:
            data = _read(_borrow(self._descriptor), size, flags)
        finally:
            if is_restored:
                os.set_blocking(self._descriptor, True)
        if data and self._is_opaque:
            return b"" if _has_hung_up(self._descriptor) else None
        return data

    def _has_moved(self) -> bool:
        """Whether the session has closed its socket: the number may be a stranger's by now."""
        try:
            return self._fileno() != self._descriptor
        except Exception:  # noqa: BLE001 - a library may raise if the session has ended
            return True


def _borrow(
    descriptor: int, family: int = -1, kind: int = -1, protocol: int = -1
) -> stdlib_socket.socket:
    if descriptor < 0:  # somebody else closed it; Python would raise a ValueError
        raise OSError(errno.EBADF, "the socket is closed")
    return stdlib_socket.socket(family, kind, protocol, fileno=descriptor)


def _read(borrowed: stdlib_socket.socket, size: int, flags: int = 0) -> bytes | None:
    try:
        if not flags & _DO_NOT_WAIT:
            borrowed.setblocking(False)
        return borrowed.recv(size, flags)
    except (BlockingIOError, InterruptedError):
        return None
    finally:
        borrowed.detach()


def _poll_descriptor(descriptor: int) -> Poll:
    if not hasattr(select, "poll"):
        return lambda _: select.select([descriptor], [], [], 0)[0]
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll.poll


def _has_hung_up(descriptor: int) -> bool:
    """Whether the end of the stream has come, be it behind bytes that nobody has read."""
    if sys.platform != "linux":
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return bool(poll.poll(0))


def _make_poll(sock: trio.socket.SocketType) -> Poll:
    if not hasattr(select, "poll"):
        return lambda _: sock.fileno() < 0 or sock.is_readable()
    poll = select.poll()
    # Registered once: to make the object anew for each probe doubles the cost.
    poll.register(sock.fileno(), select.POLLIN)
    return poll.poll


@final
class TLSSource:
    """A TLS layer above another source."""

    __slots__ = ("_below", "_incoming", "_ssl")

    def __init__(self, tap: Tap, below: Source) -> None:
        self._ssl = tap.ssl_object
        self._incoming = tap.incoming
        self._below = below

    def poll(self, timeout: int, /) -> object:
        # The BIO counts, too: one read from the socket may bring several records, and `pending`
        # does not know of those that lie there undecrypted.
        return self._incoming.pending or self._ssl.pending() or self._below.poll(timeout)

    def take_now(self, size: int) -> bytes | None:
        for _ in range(_MAX_CHUNKS):
            try:
                return self._ssl.read(size)
            except ssl.SSLWantReadError:
                pass
            data = self._below.take_now(_CHUNK)
            if not data:
                return data
            self._incoming.write(data)
        raise OSError("the peer sends TLS records without end, and none with data")


Source: TypeAlias = SocketSource | PeekingSource | TLSSource


def find_source(stream: trio.abc.Stream) -> Source | None:
    """Return the source beneath `stream`; None if it has no socket that the pool can probe."""
    if isinstance(stream, trio.SocketStream):
        return SocketSource(stream.socket)
    tap = find_tap(stream)
    if tap is None:
        return None
    below = find_source(cast("EncryptedStream", stream).transport_stream)
    return None if below is None else TLSSource(tap, below)


def probe(source: Source | None) -> CloseReason | None:
    """Return why the connection cannot be lent again; None if it seems alive.

    The pool takes a stream without a socket to be alive.
    """
    try:
        if source is None or not source.poll(0):
            return None
        data = source.take_now(1)
    except OSError:  # also if somebody else has closed the descriptor
        return CloseReason.PEER_CLOSED
    if data is None:
        return None
    return CloseReason.UNREAD_DATA if data else CloseReason.PEER_CLOSED
