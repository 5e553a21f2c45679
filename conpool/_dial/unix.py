"""Connecting to UNIX sockets.

On Linux a `connect` to a listener with a full backlog does not wait: it fails with EAGAIN and
starts nothing. trio takes that for a connect under way, finds the socket writable and without an
error, and returns it as connected, although it is not. So we ask `getpeername`, and try again a
little later: the server is there and busy. (For TCP the system itself waits.)
"""

from __future__ import annotations

import errno
import socket
from typing import Final

import trio

from conpool._dial.progress import note_attempt, note_phase
from conpool._dial.socket_options import as_stream
from conpool._errors.connect import ConnectError
from conpool._errors.explain import as_connect_error
from conpool._values.endpoint import UnixEndpoint

FIRST_PAUSE: Final = 0.002
LONGEST_PAUSE: Final = 0.1
"""The pauses between attempts at a full backlog, in seconds: each doubles, up to this."""


async def connect_unix(endpoint: UnixEndpoint) -> trio.SocketStream:
    """Connect to a UNIX socket, waiting for a place in its backlog until the caller's deadline.

    Raises:
        ConnectError: It failed, with the system's errno. EAGAIN: the backlog is still full, and
            another attempt would come too close to the deadline. EAFNOSUPPORT: the platform has no
            UNIX sockets.

    Cancelling it closes the socket.
    """
    note_phase("tcp")
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise ConnectError(
            "this platform has no UNIX sockets",
            endpoint=endpoint,
            phase="tcp",
            errno=errno.EAFNOSUPPORT,
        )
    pause = FIRST_PAUSE
    while True:
        try:
            sock = await _connect_once(family, endpoint.path)
        except OSError as error:
            raise as_connect_error(error, endpoint, "tcp") from error
        if sock is not None:
            return as_stream(sock)
        full = BlockingIOError(errno.EAGAIN, "the listener's backlog is full")
        if pause == FIRST_PAUSE:
            note_attempt(full)
        # Stop a pause early: an attempt that the deadline cancels could not say why it failed.
        if trio.current_time() + 2 * pause >= trio.current_effective_deadline():
            raise as_connect_error(full, endpoint, "tcp") from None
        await trio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


async def _connect_once(family: int, path: str) -> trio.socket.SocketType | None:
    """Return a connected socket, or None if the backlog is full."""
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect(path)
        sock.getpeername()
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno == errno.ENOTCONN:
            return None
        raise
    return sock
