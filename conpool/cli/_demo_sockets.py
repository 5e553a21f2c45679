"""How many sockets a client holds open towards a server: a witness that is not the pool.

On Linux the kernel's own table says. A socket is in it from the moment it dials. When its
file is closed the entry may stay (the connection winds down), but without an inode, so that
counting inodes counts open sockets. Where there is no such table the server counts the
connections whose client has not hung up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conpool.cli._demo_server import DemoServer

KERNEL_TABLE = Path("/proc/net/tcp")

_REMOTE_ADDRESS = 2
_LOCAL_ADDRESS = 1
_INODE = 9


@dataclass(frozen=True, slots=True)
class Witness:
    """Who counts, and how."""

    name: str
    count: Callable[[], int]


def find_witness(server: DemoServer, table: Path = KERNEL_TABLE) -> Witness:
    """Choose the best count that this machine offers of the clients of a running server.

    Args:
        server: The server; it must be listening.
        table: Where the kernel keeps its table of IPv4 sockets.
    """
    suffix = f":{server.port:04X}"
    # Some sandboxes show a table that is empty: it must at least know the server itself.
    if _ports(table, _LOCAL_ADDRESS, suffix):
        return Witness("the kernel's table", lambda: _ports(table, _REMOTE_ADDRESS, suffix))
    return Witness("the server's count", server.count_clients)


def _ports(table: Path, column: int, suffix: str) -> int:
    """Count the open sockets whose address in this column ends so; 0 without a table."""
    try:
        lines = table.read_text("ascii").splitlines()[1:]
    except OSError:
        return 0
    rows = (line.split() for line in lines)
    return sum(row[column].endswith(suffix) and row[_INODE] != "0" for row in rows)
