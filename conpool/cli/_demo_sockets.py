"""Counts the sockets that clients of a server hold open, without asking the pool.

On Linux the kernel has a table of sockets. A socket is in it from the moment it dials. After its
file is closed, the row may stay while the connection winds down, but without an inode. So the
number of different inodes is the number of open sockets. (The kernel gives out the table in pieces,
and a row can come up twice while other programs open connections: on a busy machine we saw ten
sockets in fifty rows.) On other systems the server counts the connections whose client has not
closed its side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conpool.cli._demo_server import DemoServer

KERNEL_TABLE: Final = Path("/proc/net/tcp")

_LONG: Final = 10_000
"""With more rows, to read the table (a microsecond a row) at every turn would take too long."""

_LOCAL_ADDRESS: Final = 1
_REMOTE_ADDRESS: Final = 2
_INODE: Final = 9


@dataclass(frozen=True, slots=True)
class Witness:
    """A way to count sockets."""

    name: str
    count: Callable[[], int]


def find_witness(server: DemoServer, table: Path = KERNEL_TABLE) -> Witness:
    """Choose the best way that this machine offers to count the clients of a running server."""
    suffix = f":{server.port:04X}"
    rows = _read(table)
    # Some sandboxes show an empty table: trust it only if it has the server itself.
    if len(rows) <= _LONG and _count(rows, _LOCAL_ADDRESS, suffix):
        return Witness("the kernel's table", lambda: _count(_read(table), _REMOTE_ADDRESS, suffix))
    return Witness("the server's count", server.count_clients)


def _read(table: Path) -> list[str]:
    try:
        return table.read_text("ascii").splitlines()[1:]
    except OSError:
        return []


def _count(rows: list[str], column: int, suffix: str) -> int:
    """Count the open sockets whose address in `column` ends with `suffix`."""
    # Split only the rows that may matter: there can be thousands, at every turn of the loop.
    found = [row.split() for row in rows if suffix in row]
    inodes = {row[_INODE] for row in found if row[column].endswith(suffix)}
    return len(inodes - {"0"})
