"""What a server that is away, or of no use, costs its callers, and what it sees of them."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

import conpool

from .measure import Scale, Table
from .server import HOST

_RESETS: Final = struct.pack("ii", 1, 0)


class _Dials(conpool.Observer):
    def __init__(self) -> None:
        self.count = 0

    def connecting(self, info: conpool.ConnectionInfo) -> None:
        self.count += 1


class _Server:
    """A port that refuses until it listens, and then accepts, or resets, each connection."""

    def __init__(self, *, resets: bool = False) -> None:
        self._resets = resets
        self.sock = _bound(0)
        self.endpoint = conpool.Endpoint(HOST, self.sock.getsockname()[1])

    async def listen(self, after: float) -> None:
        await trio.sleep(after)
        self.sock.listen(1024)
        accepted: list[trio.socket.SocketType] = []
        try:
            while True:
                sock, _ = await self.sock.accept()
                if self._resets:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
                    sock.close()
                else:
                    accepted.append(sock)
        finally:
            for sock in accepted:
                sock.close()


async def measure_outages(scale: Scale) -> Table:
    """Have many callers ask at once, as the server is away for a while; then one that hangs up."""
    many, some = scale.pick(1000, 1000, 20), scale.pick(200, 200, 10)
    unit = scale.pick(10, 10, 1) / 10
    rows = [
        await _away(f"away for good, {many:,} callers", many, None),
        await _away(f"away for {0.8 * unit:g} s, {some} callers", some, 0.8 * unit),
        await _away(f"away for {3 * unit:g} s, {some} callers", some, 3 * unit),
        await _away(
            f"the same, outage_grace=math.inf and {5 * unit:g} s to wait",
            some,
            None,
            outage_grace=float("inf"),
            acquire_timeout=5 * unit,
        ),
        await _of_no_use(f"resets each connection, {some} callers ask for {unit:g} s", some, unit),
    ]
    return Table(
        "A server that is away: how long the last caller waits, and what the server sees",
        ("", "last answer, s", "served", "refused", "timed out", "attempts"),
        rows,
        "On loopback, with the defaults unless it says otherwise.",
    )


async def _away(name: str, callers: int, back: float | None, **settings: Any) -> tuple[str, ...]:
    dials = _Dials()
    waits: list[float] = []
    outcomes: list[str] = []

    async def ask() -> None:
        since = trio.current_time()
        try:
            async with pool.connection(server.endpoint):
                outcomes.append("served")
        except conpool.ConnectError:
            outcomes.append("refused")
        except conpool.AcquireTimeout:
            outcomes.append("timed out")
        waits.append(trio.current_time() - since)

    async with (
        _port() as server,
        trio.open_nursery() as nursery,
        conpool.ConnectionPool(conpool.PoolConfig(**settings), observers=[dials]) as pool,
    ):
        if back is not None:
            nursery.start_soon(server.listen, back)
        async with trio.open_nursery() as asking:
            for _ in range(callers):
                asking.start_soon(ask)
        nursery.cancel_scope.cancel()
    counts = [f"{outcomes.count(outcome):,}" for outcome in ("served", "refused", "timed out")]
    return (name, f"{max(waits):.2f}", *counts, str(dials.count))


async def _of_no_use(name: str, callers: int, seconds: float) -> tuple[str, ...]:
    dials = _Dials()
    failures = 0

    async def insist() -> None:
        nonlocal failures
        while True:
            try:
                async with pool.connection(server.endpoint) as conn:
                    await conn.send_all(b"?")
                    await conn.receive_some()
            except (conpool.PoolError, trio.BrokenResourceError):
                failures += 1
                await trio.lowlevel.checkpoint()

    async with (
        _port(resets=True) as server,
        trio.open_nursery() as nursery,
        conpool.ConnectionPool(observers=[dials]) as pool,
    ):
        nursery.start_soon(server.listen, 0)
        for _ in range(callers):
            nursery.start_soon(insist)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()
    return (name, "-", "0", f"{failures:,}", "0", str(dials.count))


@asynccontextmanager
async def _port(*, resets: bool = False) -> AsyncIterator[_Server]:
    server = _Server(resets=resets)
    with server.sock:
        yield server


def _bound(port: int) -> trio.socket.SocketType:
    sock = socket.socket()
    sock.bind((HOST, port))
    return trio.socket.from_stdlib_socket(sock)
