"""UNIX sockets in the test's own hands: listening, deaf, full, or not for us."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def bound(
    path: Path | str, backlog: int | None = None, *, kind: int = socket.SOCK_STREAM
) -> Iterator[socket.socket]:
    """A socket at `path`; without a backlog it does not listen."""
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(os.fspath(path))
        if backlog is not None:
            server.listen(backlog)
        yield server


@contextlib.contextmanager
def full_backlog(path: Path | str) -> Iterator[socket.socket]:
    """A server that accepts nobody, with as many waiting as it lets in."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(bound(path, 0))
        for _ in range(100):
            filler = stack.enter_context(socket.socket(socket.AF_UNIX))
            filler.setblocking(False)
            try:
                filler.connect(os.fspath(path))
            except BlockingIOError:
                break
        else:
            pytest.skip("this system's backlog has no end")
        yield server


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Not be root for a moment, since root may do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
