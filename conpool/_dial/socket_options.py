"""What is set on each TCP socket so that a peer which vanished is noticed.

Two things are needed, since neither covers the other (both were measured on Linux):

- keepalive asks a *silent* connection whether its peer is still there;
- a user time-out ends one on which bytes that were *sent* are not acknowledged. Keepalive does
  nothing for those, and the system alone goes on repeating them for a quarter of an hour.

| | Linux | macOS | Windows |
| --- | --- | --- | --- |
| keepalive | TCP_KEEPIDLE, -INTVL, -CNT | TCP_KEEPALIVE, -INTVL, -CNT | TCP_KEEPIDLE, -INTVL, -CNT |
| user time-out | TCP_USER_TIMEOUT | TCP_RXT_CONNDROPTIME | TCP_MAXRT |

Where a system has none of these, keepalive runs at the system's own pace (often two hours), and
bytes in flight are given up when the system gives up.
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
"""So many unanswered questions end a connection; fewer where the time is but a second or two."""

_MAX_KEEPALIVE: Final = 32_767
"""Linux refuses more seconds than this."""

_MAX_INT: Final = 2**31 - 1

# Known to the systems for longer than to Python; the numbers are those of their headers.
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
    """Return what to set on a socket before it connects.

    Args:
        keepalive: Silence after which the peer is asked, in seconds; it has as long again to
            answer. None for never.
        user_timeout: How long bytes may stay unacknowledged, in seconds. None for as long as the
            system likes.
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
    """Set them, as far as this system knows them: they are precautions, and no dial fails for one."""
    for level, name, value in options:
        with contextlib.suppress(OSError):
            sock.setsockopt(level, name, value)


def bind_late(sock: trio.socket.SocketType) -> None:
    """Have `bind` fix the address alone, and `connect` choose the port.

    Otherwise the port must be free for *every* peer, and a machine with 28,000 of them can have that
    many connections from one address in all, rather than to each peer.
    """
    if _BIND_LATE is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _BIND_LATE, 1)
