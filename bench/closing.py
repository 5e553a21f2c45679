"""Leaving a pool with many idle connections, beside closing as many bare streams."""

from __future__ import annotations

import socket
import time
from contextlib import AsyncExitStack
from typing import Final, final

import trio

import conpool

from .growth import fits
from .measure import Scale, Table, take_turns
from .server import HOST

_RAW: Final = "bare streams, `await aclose()` each"
_SOCKETS: Final = "their sockets alone, `close()` each"
_POOL: Final = "conpool, one endpoint"
_POOL_EACH: Final = "conpool, an endpoint for each"
_LIMIT: Final = 1.5
_BACKLOG: Final = 128
"""The most that every system allows."""


async def measure_closing(scale: Scale) -> Table:
    """Close many connected sockets, in a pool and without one."""
    count = scale.pick(10_000, 10_000, 50)
    while not fits(count, files_each=1.1):
        count = count * 9 // 10
    rounds = scale.pick(9, 5, 1)
    ways = {_RAW: _close_raw, _SOCKETS: _close_sockets, _POOL: _leave, _POOL_EACH: _leave_each}

    async def time_one(name: str) -> float:
        return await ways[name](count) / count * 1e6

    times = await take_turns(list(ways), time_one, rounds)
    return Table(
        f"Closing {count:,} idle connections",
        ("", "µs each", "to bare streams", "target"),
        times.rows(_RAW, {_POOL: f"≤ {_LIMIT:g}", _POOL_EACH: f"≤ {_LIMIT:g}"}),
        "TCP on loopback. The servers do not accept, so that 10,000 files suffice.",
        [
            times.aim(f"leaving a pool with {count:,} idle connections", _POOL, _RAW, _LIMIT),
            times.aim(f"the same, {count:,} endpoints", _POOL_EACH, _RAW, _LIMIT),
        ],
    )


@final
class FarConnector(conpool.Connector):
    """Connects over TCP to servers that never accept: their ends take no files."""

    def __init__(self) -> None:
        self._listeners: list[socket.socket] = []
        self._left = 0

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.SocketStream:
        """Connect, which takes no time: the kernel answers."""
        await trio.lowlevel.checkpoint()
        return self.open()

    def open(self) -> trio.SocketStream:
        """Return a stream to a server, at the end of its backlog."""
        if not self._left:
            listener = socket.socket()
            listener.bind((HOST, 0))
            listener.listen(_BACKLOG)
            self._listeners.append(listener)
            self._left = _BACKLOG - 8  # what counts as full is up to the system
        self._left -= 1
        sock = socket.socket()
        sock.connect(self._listeners[-1].getsockname())
        return trio.SocketStream(trio.socket.from_stdlib_socket(sock))

    def close(self) -> None:
        """Close the other ends."""
        for listener in self._listeners:
            listener.close()


async def _close_raw(count: int) -> float:
    connector = FarConnector()
    streams = [connector.open() for _ in range(count)]
    started = time.thread_time()
    for stream in streams:
        await stream.aclose()
    took = time.thread_time() - started
    connector.close()
    return took


async def _close_sockets(count: int) -> float:
    connector = FarConnector()
    streams = [connector.open() for _ in range(count)]
    started = time.thread_time()
    for stream in streams:
        stream.socket.close()
    took = time.thread_time() - started
    connector.close()
    await trio.lowlevel.checkpoint()
    return took


async def _leave(count: int) -> float:
    return await _leave_pool(count, is_each=False)


async def _leave_each(count: int) -> float:
    return await _leave_pool(count, is_each=True)


async def _leave_pool(count: int, *, is_each: bool) -> float:
    connector = FarConnector()
    config = conpool.PoolConfig(
        max_connections_per_endpoint=count, max_idle_time=3600.0, max_connection_lifetime=86400.0
    )
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(conpool.ConnectionPool(config, connector=connector))
        if is_each:
            for number in range(count):
                await pool.warm(conpool.Endpoint("a.example", 80, partition=number), 1)
        else:
            await pool.warm(conpool.Endpoint("a.example", 80), count)
        started = time.thread_time()
        await stack.aclose()
        took = time.thread_time() - started
    connector.close()
    return took
