"""Options that we set on each TCP socket, so that the system notices a peer that has vanished.

We need two, because neither does the other's work (both were measured on Linux):

- keepalive asks the peer of a *silent* connection whether it is still there;
- a user time-out ends a connection on which *sent* bytes stay unacknowledged. Keepalive does
  nothing then, and the system repeats the bytes for a quarter of an hour.

|         | keepalive                   | user time-out        |
| ------- | --------------------------- | -------------------- |
| Linux   | TCP_KEEPIDLE, -INTVL, -CNT  | TCP_USER_TIMEOUT     |
| macOS   | TCP_KEEPALIVE, -INTVL, -CNT | TCP_RXT_CONNDROPTIME |
| Windows | TCP_KEEPIDLE, -INTVL, -CNT  | TCP_MAXRT            |

On a system with none of these, keepalive runs at the system's own pace (often two hours), and the
system alone decides when to give up sent bytes.
"""

from __future__ import annotations

import contextlib
import math
import socket
import sys
from typing import Final, TypeAlias

import trio

Option: TypeAlias = tuple[int, int, int]
"""Level, name, value: the arguments of `setsockopt`."""

PROBES: Final = 4
"""How many unanswered questions end a connection; fewer if `keepalive` is a second or two."""

_MAX_KEEPALIVE: Final = 32_767
"""Linux refuses more seconds than this."""

_MAX_INT: Final = 2**31 - 1

# Python does not name some options that systems have; the numbers are from the systems' headers.
_IDLE: Final[int | None] = getattr(
    socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", {"darwin": 0x10}.get(sys.platform))
)
_INTERVAL: Final[int | None] = getattr(socket, "TCP_KEEPINTVL", None)
_COUNT: Final[int | None] = getattr(socket, "TCP_KEEPCNT", None)
_BIND_LATE: Final[int | None] = getattr(
    socket, "IP_BIND_ADDRESS_NO_PORT", {"linux": 24}.get(sys.platform)
)
_USER_TIMEOUT_MS: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)
_USER_TIMEOUT_S: Final[int | None] = {"darwin": 0x80, "win32": 5}.get(sys.platform)


def socket_options(keepalive: float | None, user_timeout: float | None) -> tuple[Option, ...]:
    """Return the options to set on a socket before it connects.

    Args:
        keepalive: Seconds of silence after which the system asks the peer, which has as long
            again to answer. None: never.
        user_timeout: Seconds that sent bytes may stay unacknowledged. None: the system decides.
    """
    options: list[Option] = []
    if keepalive is not None and keepalive != math.inf:
        idle = min(math.ceil(keepalive), _MAX_KEEPALIVE)
        options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
        _add(options, _IDLE, idle)
        interval = math.ceil(idle / PROBES)
        _add(options, _INTERVAL, interval)
        _add(options, _COUNT, math.ceil(idle / interval))
    if user_timeout is not None and user_timeout != math.inf:
        if _USER_TIMEOUT_MS is not None:
            _add(options, _USER_TIMEOUT_MS, min(math.ceil(user_timeout * 1000), _MAX_INT))
        else:
            _add(options, _USER_TIMEOUT_S, min(math.ceil(user_timeout), _MAX_INT))
    return tuple(options)


def _add(options: list[Option], name: int | None, value: int) -> None:
    if name is not None:
        options.append((socket.IPPROTO_TCP, name, value))


def apply_options(sock: trio.socket.SocketType, options: tuple[Option, ...]) -> None:
    """Set the options, and leave out those that the system refuses: a dial works without them."""
    for level, name, value in options:
        with contextlib.suppress(OSError):
            sock.setsockopt(level, name, value)


def bind_late(sock: trio.socket.SocketType) -> None:
    """Make `bind` fix the address only, so that `connect` chooses the port.

    Otherwise `bind` takes a port that is free towards *every* peer. One local address then has
    enough ports for 28,000 connections in all, instead of 28,000 to each peer.
    """
    if _BIND_LATE is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _BIND_LATE, 1)


def as_stream(sock: trio.socket.SocketType) -> trio.SocketStream:
    """Make a stream of a connected socket, or close it."""
    try:
        return trio.SocketStream(sock)
    except BaseException:
        sock.close()
        raise
