"""Look, without waiting, whether the peer has closed the connection or sent something unasked.

A connection is alive while nothing can be read from it. If something can, plain bytes and ends of file
speak for themselves. TLS is different: after a TLS 1.3 handshake the server's session tickets lie in
the socket, unread and harmless, so what is there must be decrypted before anyone can why_not_clean it.

Each layer is a source that can be asked twice: `poll` costs a fraction of a microsecond and nearly
always finds nothing; only if it does, `take_now` reads. Sources stack, as TLS does within TLS.

Reading is safe here because no task is inside the stream when the pool looks: between leases nobody
has it. What a look consumes is lost only to a connection that will be closed for it.
"""

from __future__ import annotations

import errno
import select
import socket as stdlib_socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

import trio

from conpool._connection.tls_tap import find_tap
from conpool._values.states import CloseReason

if TYPE_CHECKING:
    from conpool._connection.tls_tap import EncryptedStream, Tap

_CHUNK: Final = 16_384
"""What is read at a time: the size of a TLS record."""

_MAX_CHUNKS: Final = 16
"""A peer that sends more than this of nothing but tickets and key updates is up to no good."""


Poll: TypeAlias = Callable[[int], object]
"""Called with 0: true if there may be something to take."""


@final
class SocketSource:
    """The socket itself.

    `poll` is true if there may be something to take. `take_now` returns up to `size` bytes, `b""` at the end
    of the stream, None if nothing is there yet; it raises `OSError` (`ssl.SSLError` included) if the
    connection is broken.
    """

    __slots__ = ("_socket", "poll")

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        self.poll = _make_poll(sock)

    def take_now(self, size: int) -> bytes | None:
        sock = self._socket
        descriptor = sock.fileno()
        if descriptor < 0:  # closed by whoever made it; Python would raise a ValueError
            raise OSError(errno.EBADF, "the socket is closed")
        # trio's sockets can only be read by awaiting; this is the same file, borrowed for one call.
        borrowed = stdlib_socket.socket(sock.family, sock.type, sock.proto, fileno=descriptor)
        try:
            borrowed.setblocking(False)
            return borrowed.recv(size)
        except (BlockingIOError, InterruptedError):
            return None
        finally:
            borrowed.detach()


def _make_poll(sock: trio.socket.SocketType) -> Poll:
    """Return a function that is true if `sock` has anything to say."""
    if not hasattr(select, "poll"):
        return lambda _: sock.is_readable()
    poll = select.poll()
    # Registered once: making the object anew for each look doubles its cost.
    poll.register(sock.fileno(), select.POLLIN)
    return poll.poll


@final
class TLSSource:
    """A TLS layer above another source; `poll` and `take_now` as there."""

    __slots__ = ("_below", "_incoming", "_ssl")

    def __init__(self, tap: Tap, below: Source) -> None:
        self._ssl = tap.ssl_object
        self._incoming = tap.incoming
        self._below = below

    def poll(self, timeout: int, /) -> object:
        """Return something true if there may be data in any layer."""
        # The BIO counts too: one read from the socket may bring several records, of which the last
        # lie there undecrypted, and `pending` does not know of them.
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


Source: TypeAlias = SocketSource | TLSSource


def find_source(stream: trio.abc.Stream) -> Source | None:
    """Return what can be looked at beneath `stream`; None for streams without a socket."""
    if isinstance(stream, trio.SocketStream):
        return SocketSource(stream.socket)
    tap = find_tap(stream)
    if tap is None:
        return None
    below = find_source(cast("EncryptedStream", stream).transport_stream)
    return None if below is None else TLSSource(tap, below)


def probe(source: Source | None) -> CloseReason | None:
    """Return why the connection cannot be lent again; None if it is alive, as far as one can see.

    A stream without a socket is taken to be alive.
    """
    if source is None or not source.poll(0):
        return None
    try:
        data = source.take_now(1)
    except OSError:
        return CloseReason.PEER_CLOSED
    if data is None:
        return None
    return CloseReason.UNREAD_DATA if data else CloseReason.PEER_CLOSED
