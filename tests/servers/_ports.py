"""Free ports, as far as a port can be promised to anyone."""

from __future__ import annotations

import contextlib
import socket

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """`count` different ports that nothing on the loopback interface listens on now.

    Between now and the server's own `bind` another program may take one; who starts
    a server must be ready to try again with others.
    """
    with contextlib.ExitStack() as open_sockets:
        ports: list[int] = []
        for _ in range(count):
            # Held until all are known, else the kernel could name the same one twice.
            sock = open_sockets.enter_context(socket.socket())
            sock.bind((LOOPBACK, 0))
            ports.append(sock.getsockname()[1])
        return ports


def free_port() -> int:
    """One port that nothing on the loopback interface listens on now."""
    return free_ports(1)[0]
