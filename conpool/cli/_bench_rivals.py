"""The contenders of `conpool bench` that need asyncio: psycopg_pool and redis-py.

Their servers say just enough for a login, because a lease of an idle connection sends nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from conpool.cli._bench_watch import Stopwatch
from conpool.cli._demo_server import LOOPBACK

LIMIT: Final = 10
"""Connections that the tasks share."""

_LEASES: Final = 500


@dataclass(frozen=True, slots=True)
class Rival:
    """A library to compare with, if it is installed."""

    package: str
    module: str

    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    def label(self) -> str:
        return f"{self.package} {importlib.metadata.version(self.package)}"


HTTPX2: Final = Rival("httpx2", "httpx2")
PSYCOPG: Final = Rival("psycopg-pool", "psycopg_pool")
REDIS: Final = Rival("redis", "redis")
RIVALS: Final = (HTTPX2, PSYCOPG, REDIS)


def measure_rivals(watch: Stopwatch) -> None:
    """Measure those that are installed, each in a loop of its own."""
    for rival, open_pool in ((PSYCOPG, _open_psycopg), (REDIS, _open_redis)):
        if rival.is_installed():
            asyncio.run(_measure(watch, rival.label(), open_pool))


_Lease = Callable[[], AbstractAsyncContextManager[Any]]


async def _measure(
    watch: Stopwatch, name: str, open_pool: Callable[[], AbstractAsyncContextManager[_Lease]]
) -> None:
    async with open_pool() as lease:

        async def take_many() -> float:
            began_at = time.perf_counter()
            for _ in range(_LEASES):
                async with lease():
                    pass
            return time.perf_counter() - began_at

        async def take_one() -> None:
            async with lease():
                await asyncio.sleep(0)

        async def share() -> float:
            began_at = time.perf_counter()
            await asyncio.gather(*(take_one() for _ in range(watch.tasks)))
            return time.perf_counter() - began_at

        await watch.measure("lease", name, take_many, _LEASES)
        await watch.measure("shared", name, share, watch.tasks)


@asynccontextmanager
async def _open_psycopg() -> AsyncGenerator[_Lease]:
    module = importlib.import_module("psycopg_pool")
    async with _serving(_greet_as_postgres) as port:
        where = f"host={LOOPBACK} port={port} user=bench sslmode=disable gssencmode=disable"
        pool = module.AsyncConnectionPool(where, min_size=0, max_size=LIMIT, open=False)
        await pool.open()
        try:
            yield pool.connection
        finally:
            await pool.close()


@asynccontextmanager
async def _open_redis() -> AsyncGenerator[_Lease]:
    module = importlib.import_module("redis.asyncio")
    async with _serving(_answer_as_redis) as port:
        pool = module.BlockingConnectionPool(
            host=LOOPBACK, port=port, max_connections=LIMIT, protocol=2, timeout=30
        )

        @asynccontextmanager
        async def lease() -> AsyncGenerator[Any]:
            connection = await pool.get_connection()
            try:
                yield connection
            finally:
                await pool.release(connection)

        try:
            yield lease
        finally:
            await pool.disconnect()


# ── servers ─────────────────────────────────────────────────────────────────────

_Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _serving(talk: _Talk) -> AsyncGenerator[int]:
    talks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the pool hangs up when it is closed
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*talks)  # the pool has hung up, so each of them ends


_AUTHENTICATED: Final = b"R\0\0\0\x08\0\0\0\0"
_READY: Final = b"Z\0\0\0\x05I"


async def _greet_as_postgres(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let anybody in, and wait for the end."""
    size = int.from_bytes(await reader.readexactly(4), "big")
    await reader.readexactly(size - 4)
    status = b"".join(
        b"S" + (4 + len(pair)).to_bytes(4, "big") + pair
        for pair in (b"server_version\x0016.0\0", b"client_encoding\0UTF8\0")
    )
    writer.write(_AUTHENTICATED + status + _READY)
    await reader.read()


async def _answer_as_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Agree to every command: `*2`, then for each of its words `$4` and the word."""
    while head := await reader.readline():
        for _ in range(int(head[1:])):
            size = int((await reader.readline())[1:])
            await reader.readexactly(size + 2)
        writer.write(b"+OK\r\n")
