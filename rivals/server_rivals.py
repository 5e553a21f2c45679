"""Pools for the protocol of one server: redis-py with Valkey, psycopg_pool with PostgreSQL."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, final

from tests.servers import Postgres, Valkey

from .rival import Rival

_IMPATIENT: Final = 0.03
_LATER: Final = 0.1


class LeaseRival(Rival):
    """What these two share: a caller can borrow a connection and hold it without a request."""

    library = "asyncio"

    def __init__(self) -> None:
        self._holders = 0
        self._go = asyncio.Event()

    @property
    def is_held(self) -> bool:
        return self._holders > 0

    def let_go(self) -> None:
        self._go.set()
        self._go = asyncio.Event()

    async def _stay(self) -> None:
        self._holders += 1
        try:
            await self._go.wait()
        finally:
            self._holders -= 1


@final
class RedisRival(LeaseRival):
    """redis-py's `BlockingConnectionPool`, whose callers queue."""

    label = "redis-py"
    package = "redis"

    def __init__(self, valkey: Valkey) -> None:
        super().__init__()
        self._valkey = valkey
        self.port = valkey.port

    async def open(self, limit: int) -> None:
        module = import_module("redis.asyncio")
        self._pool: Any = module.BlockingConnectionPool(
            host=self._valkey.host, port=self.port, max_connections=limit, timeout=5
        )
        self._client: Any = module.Redis(connection_pool=self._pool)

    async def close(self) -> None:
        await self._client.aclose()
        await self._pool.aclose()

    async def ask(self, number: int) -> int:
        return int(await self._client.echo(str(number)))

    async def hold(self) -> None:
        connection = await self._pool.get_connection()
        try:
            await self._stay()
        finally:
            await self._pool.release(connection)

    async def ask_and_lose_patience(self) -> None:
        async with self._client.client() as one:
            with suppress(TimeoutError):
                async with asyncio.timeout(_IMPATIENT):
                    await one.blpop("nobody's", timeout=_LATER)

    async def receive_unasked(self) -> None:
        connection = await self._pool.get_connection()
        await connection.send_command("SUBSCRIBE", "news")
        await connection.read_response(push_request=True)
        await self._pool.release(connection)
        with socket.create_connection((self._valkey.host, self.port)) as other:
            other.sendall(b"PUBLISH news 9999\r\n")
            other.recv(100)
        await asyncio.sleep(0.05)


@final
class PsycopgRival(LeaseRival):
    """psycopg_pool's `AsyncConnectionPool`."""

    label = "psycopg_pool"
    package = "psycopg-pool"

    def __init__(self, postgres: Postgres) -> None:
        super().__init__()
        self._postgres = postgres
        self.port = postgres.port

    async def open(self, limit: int) -> None:
        server = self._postgres
        module = import_module("psycopg_pool")
        self._pool: Any = module.AsyncConnectionPool(
            kwargs={
                "host": server.host,
                "port": server.port,
                "user": server.user,
                "password": server.password,
                "dbname": server.database,
                "autocommit": True,
            },
            min_size=0,
            max_size=limit,
            timeout=5.0,
            open=False,
        )
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close(timeout=1.0)

    async def ask(self, number: int) -> int:
        async with self._pool.connection() as connection:
            cursor = await connection.execute("SELECT %s::int", (number,))
            return int((await cursor.fetchone())[0])

    async def hold(self) -> None:
        async with self._pool.connection():
            await self._stay()

    async def ask_and_lose_patience(self) -> None:
        async with self._pool.connection() as connection:
            with suppress(TimeoutError):
                async with asyncio.timeout(_IMPATIENT):
                    await connection.execute("SELECT pg_sleep(%s)", (_LATER,))

    async def receive_unasked(self) -> None:
        async with self._pool.connection() as connection:
            await connection.execute("LISTEN news")
        other = await import_module("psycopg").AsyncConnection.connect(**self._pool.kwargs)
        async with other:
            await other.execute("NOTIFY news, '9999'")
        await asyncio.sleep(0.05)
