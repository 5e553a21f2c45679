"""How many sockets a client holds open towards a server: a witness that is not the pool.

On Linux the kernel's own table says. A socket is in it from the moment it dials. When its
file is closed the entry may stay (the connection winds down), but without an inode, so that
counting inodes counts open sockets. Different inodes, that is: the table is read in pieces,
and while other programs open connections a row can come up twice (seen on a busy machine:
ten sockets in fifty rows). Where there is no such table the server counts the connections
whose client has not hung up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conpool.cli._demo_server import DemoServer

KERNEL_TABLE: Final = Path("/proc/net/tcp")

_LONG: Final = 10_000
"""Rows beyond which reading the table (a microsecond a row) at every turn would take too long."""

_LOCAL_ADDRESS: Final = 1
_REMOTE_ADDRESS: Final = 2
_INODE: Final = 9


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
    rows = _read(table)
    # Some sandboxes show a table that is empty: it must at least know the server itself.
    if len(rows) <= _LONG and _count(rows, _LOCAL_ADDRESS, suffix):
        return Witness("the kernel's table", lambda: _count(_read(table), _REMOTE_ADDRESS, suffix))
    return Witness("the server's count", server.count_clients)


def _read(table: Path) -> list[str]:
    try:
        return table.read_text("ascii").splitlines()[1:]
    except OSError:
        return []


def _count(rows: list[str], column: int, suffix: str) -> int:
    """Count the open sockets whose address in this column ends so."""
    # Split only what may matter: there can be thousands of rows, and this is done often.
    found = [row.split() for row in rows if suffix in row]
    inodes = {row[_INODE] for row in found if row[column].endswith(suffix)}
    return len(inodes - {"0"})
