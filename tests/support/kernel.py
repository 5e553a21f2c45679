"""The kernel's own table of TCP sockets: a witness that is not the pool.

It is asked as `ss` asks it (sock_diag(7)), by port and without those that merely expire: reading
/proc/net/tcp gives the same rows, but takes ten milliseconds where other programs have left ten
thousand connections in TIME_WAIT. Where that is not allowed, /proc is read.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator
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


Row = tuple[int, TCPState]
"""A socket's inode, and its state."""


def need_kernel_table() -> None:
    """Skip the test where the kernel shows no such table."""
    if sys.platform != "linux" or not _TABLES[0].exists():
        pytest.skip("needs the kernel's table of sockets, which is Linux's")


def client_sockets(port: int) -> Counter[TCPState]:
    """Count the files of this process that dial, or have dialled, `port`, by state.

    A socket is there from the moment it dials. Once its file is closed the kernel may wind it down
    for a while, but then it has no inode. Each inode counts once: the table is read in pieces, and
    a row can come up twice while others connect.
    """
    own = _own_inodes()
    try:
        rows = list(ask_kernel(port))
    except OSError:
        rows = list(read_tables(port))
    return Counter(dict(row for row in rows if row[0] in own).values())


def _own_inodes() -> set[int]:
    inodes = set()
    for descriptor in os.listdir(_OWN_FILES):  # noqa: PTH208 - see below
        try:
            link = os.readlink(f"{_OWN_FILES}/{descriptor}")  # noqa: PTH115 - a path takes longer
        except FileNotFoundError:  # the one that lists the folder
            continue
        if link.startswith("socket:["):
            inodes.add(int(link[len("socket:[") : -1]))
    return inodes


# ── by netlink ──────────────────────────────────────────────────────────────────

_SOCK_DIAG: Final = 4  # the netlink family
_BY_FAMILY: Final = 20  # the only question that it knows
_DUMP: Final = 0x301  # a request for all that match
_ERROR: Final = 2
_DONE: Final = 3
_HEADER: Final = struct.Struct("=IHHII")
_QUESTION: Final = struct.Struct("=BBBBI")
_ALL_BUT_EXPIRING: Final = 0xFFF & ~(1 << TCPState.TIME_WAIT)
_INODE_AT: Final = 68  # in struct inet_diag_msg


def ask_kernel(port: int) -> Iterator[Row]:
    """Every socket whose peer's port is `port`."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as link:
        for family in (socket.AF_INET, socket.AF_INET6):
            question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_BUT_EXPIRING)
            ports = struct.pack("!HH", 0, port).ljust(48, b"\0")
            length = _HEADER.size + len(question) + len(ports)
            link.send(_HEADER.pack(length, _BY_FAMILY, _DUMP, 0, 0) + question + ports)
            yield from _read_answer(link)


def _read_answer(link: socket.socket) -> Iterator[Row]:
    while True:
        data = memoryview(link.recv(1 << 16))
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind == _DONE:
                return
            if kind == _ERROR:
                (code,) = struct.unpack_from("=i", data, _HEADER.size)
                raise OSError(-code, os.strerror(-code))
            body = data[_HEADER.size : length]
            yield struct.unpack_from("=I", body, _INODE_AT)[0], TCPState(body[1])
            data = data[(length + 3) & ~3 :]


# ── from /proc ──────────────────────────────────────────────────────────────────


def read_tables(port: int) -> Iterator[Row]:
    """Every socket whose peer's port is `port`."""
    suffix = f":{port:04X}"
    for table in _TABLES:
        for line in _read(table):
            if suffix not in line:
                continue
            row = line.split()
            state = TCPState(int(row[_STATE], 16))
            if row[_REMOTE_ADDRESS].endswith(suffix) and state is not TCPState.TIME_WAIT:
                yield int(row[_INODE]), state


def _read(table: Path) -> list[str]:
    try:
        return table.read_text("ascii").splitlines()[1:]
    except FileNotFoundError:  # no IPv6
        return []


# ── over and over ───────────────────────────────────────────────────────────────


@final
class Census(trio.abc.Instrument):
    """Counts the client sockets towards one port after every `pace`-th step of any task."""

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
