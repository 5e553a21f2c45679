"""Weigh one thing, and print the result as JSON. `memory` runs this in a process of its own."""

from __future__ import annotations

import gc
import json
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, final

import psutil
import trio
from trio.testing import wait_all_tasks_blocked

import conpool

from .plain_pools import LimiterPool
from .server import HOST

_FIRST: Final = 20
"""Connections to open before any is weighed: they pay for what all connections share."""

_REST: Final = 12.0
"""Seconds after which the pool has forgotten a bare endpoint: its own time and two sweeps."""


async def weigh_idle(kind: str, port: int, count: int) -> dict[str, Any]:
    """Open `count` connections of a kind."""
    tls = _trusting_context() if kind.startswith("tls") else None
    async with AsyncExitStack() as stack:
        open_one = await _opener(stack, kind, port, tls, count + _FIRST)
        for number in range(_FIRST):
            await open_one(number)
        before = resident()
        for number in range(count):
            await open_one(_FIRST + number)
        return {"bytes": resident() - before}


async def _opener(
    stack: AsyncExitStack, kind: str, port: int, tls: ssl.SSLContext | None, limit: int
) -> Callable[[int], Awaitable[None]]:
    """Return a function that opens the n-th connection, and keeps it open as long as `stack`."""

    async def open_stream(_number: int) -> None:
        raw = await trio.open_tcp_stream(HOST, port)
        stack.callback(raw.socket.close)
        if tls is not None:
            stream = trio.SSLStream(raw, tls)
            await stream.do_handshake()
            stack.callback(lambda: stream)  # keeps it alive

    if "pool" not in kind:
        return open_stream
    config = conpool.PoolConfig(
        max_connections_per_endpoint=limit, max_idle_time=3600.0, max_connection_lifetime=86400.0
    )
    pool = await stack.enter_async_context(conpool.ConnectionPool(config))
    given = False if tls is None else conpool.TLS(context=tls)

    async def open_pooled(number: int) -> None:
        if kind.endswith("pool-each"):
            endpoint = conpool.Endpoint(HOST, port, tls=given, partition=number)
            await pool.warm(endpoint, 1)
            if kind.startswith("used"):
                async with pool.connection(endpoint):
                    pass
        else:
            await pool.warm(conpool.Endpoint(HOST, port, tls=given), number + 1)

    return open_pooled


async def weigh_waiting(kind: str, count: int) -> dict[str, Any]:
    """Have `count` tasks wait."""
    config = conpool.PoolConfig(max_connections_per_endpoint=1, acquire_timeout=3600.0)
    endpoint = conpool.Endpoint("a.example", 80)
    limiter = LimiterPool(1, NullConnector().connect_nowhere)
    async with (
        conpool.ConnectionPool(config, connector=NullConnector()) as pool,
        trio.open_nursery() as nursery,
    ):
        lends: dict[str, Callable[[], AbstractAsyncContextManager[object]]] = {
            "sleep": _Sleep,
            "limiter": limiter.connection,
            "pool": lambda: pool.connection(endpoint),
            "timed-pool": lambda: pool.connection(endpoint, timeout=3600.0),
        }
        lend = lends[kind]

        async def wait() -> None:
            async with lend():
                await trio.sleep_forever()

        for _ in range(_FIRST):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        before = resident()
        for _ in range(count):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        taken = resident() - before
        nursery.cancel_scope.cancel()
    return {"bytes": taken}


@final
class _Sleep:
    """A block that is never entered."""

    __slots__ = ()

    async def __aenter__(self) -> None:
        await trio.sleep_forever()

    async def __aexit__(self, *exc_info: object) -> None:
        pass


async def weigh_passing(count: int) -> dict[str, Any]:
    """Use each of `count` endpoints once."""
    async with conpool.ConnectionPool(connector=NullConnector()) as pool:
        books = pool._core.subs
        await _pass(pool, range(_FIRST))
        before = resident()
        samples: list[tuple[int, int, int]] = []
        step = max(1, count // 10)
        for done in range(0, count, step):
            await _pass(pool, range(done, done + step))
            samples.append((done + step, len(books), resident() - before))
        await trio.sleep(_REST if count > 1000 else 0)
        samples.append((done + step, len(books), resident() - before))
        bytes_each = max(taken / max(kept, 1) for _, kept, taken in samples[:1])
    return {"samples": samples, "bytes_each": bytes_each}


async def _pass(pool: conpool.ConnectionPool[None], numbers: range) -> None:
    for number in numbers:
        lease = await pool.acquire(conpool.Endpoint("a.example", 80, partition=number))
        pool.discard(lease)


@final
class NullConnector(conpool.Connector):
    """Connects to nothing."""

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        """Return a stream that never moves a byte."""
        return await self.connect_nowhere()

    async def connect_nowhere(self) -> trio.abc.Stream:
        """Return a stream that never moves a byte."""
        await trio.lowlevel.checkpoint()
        return NullStream()


@final
class NullStream(trio.abc.Stream):
    """Never moves a byte, and is closed at once, as a socket is."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return b""

    def close(self) -> None:
        """Close at once."""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def resident() -> int:
    """Return the resident memory of this process in bytes, garbage collected."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def _trusting_context() -> ssl.SSLContext:
    """Return a client's context that trusts every server: nothing secret is sent here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def main(what: str, *args: str) -> None:
    """Weigh one thing and print the result."""
    if what == "idle":
        kind, port, count = args
        found = trio.run(weigh_idle, kind, int(port), int(count))
    elif what == "waiting":
        found = trio.run(weigh_waiting, args[0], int(args[1]))
    else:
        found = trio.run(weigh_passing, int(args[0]))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
