"""The kernel's own table of TCP sockets: a witness that is not the pool."""

from __future__ import annotations

import enum
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Final, final

import pytest
import trio

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_OWN_FILES: Final = "/proc/self/fd"
_REMOTE_ADDRESS: Final = 2
_STATE: Final = 3
_INODE: Final = 9


class TCPState(enum.IntEnum):
    """What the kernel calls them (`include/net/tcp_states.h`)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


def need_kernel_table() -> None:
    """Skip the test where the kernel shows no such table."""
    if sys.platform != "linux" or not _TABLES[0].exists():
        pytest.skip("needs /proc/net/tcp, which is Linux's")


def client_sockets(port: int) -> Counter[TCPState]:
    """Count the files of this process that dial, or have dialled, `port`, by state.

    A socket is there from the moment it dials. Once its file is closed the kernel may wind it down
    for a while, but then it has no inode. Each inode counts once: the table is read in pieces, and
    a row can come up twice while others connect.
    """
    own = _own_inodes()
    suffix = f":{port:04X}"
    found: dict[str, TCPState] = {}
    for table in _TABLES:
        for line in _read(table):
            if suffix not in line:
                continue
            row = line.split()
            if row[_REMOTE_ADDRESS].endswith(suffix) and row[_INODE] in own:
                found[row[_INODE]] = TCPState(int(row[_STATE], 16))
    return Counter(found.values())


def _read(table: Path) -> list[str]:
    try:
        return table.read_text("ascii").splitlines()[1:]
    except FileNotFoundError:  # no IPv6
        return []


def _own_inodes() -> set[str]:
    inodes = set()
    for descriptor in os.listdir(_OWN_FILES):  # noqa: PTH208 - see below
        try:
            link = os.readlink(f"{_OWN_FILES}/{descriptor}")  # noqa: PTH115 - a path apiece takes longer
        except FileNotFoundError:  # the one that lists the folder
            continue
        if link.startswith("socket:["):
            inodes.add(link[len("socket:[") : -1])
    return inodes


@final
class Census(trio.abc.Instrument):
    """Counts the client sockets towards one port over and over, while tasks run.

    A look costs more than a millisecond, so it is taken after every `pace`-th step of any task.
    """

    def __init__(self, port: int, pace: int) -> None:
        self.looks = 0
        self.most = 0
        self.states: Counter[TCPState] = Counter()
        """In how many looks a state was seen."""
        self._port = port
        self._pace = pace
        self._steps = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps += 1
        if self._steps % self._pace == 0:
            self.look()

    def look(self) -> None:
        sockets = client_sockets(self._port)
        self.looks += 1
        self.most = max(self.most, sockets.total())
        self.states.update(sockets.keys())
