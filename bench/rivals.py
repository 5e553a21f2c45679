"""Pools of other libraries, if they are installed, with connections that do nothing.

Thus only the pool itself is timed: the work of psycopg_pool around a connection, and the part of
httpcore that assigns requests to connections.

psycopg_pool runs on asyncio. Its loop runs during each round, and stands still between rounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, Self, final

import trio

TASKS = 1000
HOLDS = 10


@final
class PsycopgPool:
    """psycopg_pool's `AsyncConnectionPool`, with connections that are always in order."""

    def __init__(self, limit: int) -> None:
        pool_module = import_module("psycopg_pool")
        self.name = f"psycopg_pool {version('psycopg-pool')} (asyncio)"
        self._loop = asyncio.new_event_loop()
        self._pool: Any = pool_module.AsyncConnectionPool(
            "", connection_class=_fake_psycopg_connection(), min_size=limit, open=False
        )
        self._loop.run_until_complete(self._pool.open(wait=True))

    async def lease(self, count: int) -> None:
        """Borrow and give back."""

        async def lease() -> None:
            for _ in range(count):
                async with self._pool.connection():
                    pass

        self._loop.run_until_complete(lease())

    async def contend(self, tasks: int) -> None:
        """Have many tasks borrow in turn."""

        async def hold() -> None:
            for _ in range(HOLDS):
                async with self._pool.connection():
                    await asyncio.sleep(0)

        async def contend() -> None:
            await asyncio.gather(*(hold() for _ in range(tasks)))

        self._loop.run_until_complete(contend())

    def close(self) -> None:
        """Close the pool and its loop."""
        self._loop.run_until_complete(self._pool.close())
        self._loop.close()


def _fake_psycopg_connection() -> type:
    idle = import_module("psycopg").pq.TransactionStatus.IDLE

    class FakeConnection:
        autocommit = False
        closed = False
        pgconn = SimpleNamespace(transaction_status=idle)

        @classmethod
        async def connect(cls, _conninfo: str = "", **_options: object) -> Self:
            return cls()

        async def close(self) -> None:
            pass

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *exc_info: object) -> None:
            pass

    return FakeConnection


@final
class HttpcorePool:
    """The pool of httpcore, or of its fork httpcore2, whose connections answer at once."""

    def __init__(self, package: str, limit: int) -> None:
        self._package = import_module(package)
        self.name = f"{package} {version(package)}, pool part"
        response = self._package.Response
        url = self._package.URL("http://127.0.0.1/")
        self._request = self._package.Request("GET", url)
        self._pool: Any = self._package.AsyncConnectionPool(max_connections=limit)
        self._pool.create_connection = lambda origin: FakeHTTPConnection(origin, response)

    async def lease(self, count: int) -> None:
        """Make requests, one after the other."""
        for _ in range(count):
            response = await self._pool.handle_async_request(self._request)
            await response.aclose()

    async def contend(self, tasks: int) -> None:
        """Have many tasks make requests."""

        async def hold() -> None:
            for _ in range(HOLDS):
                response = await self._pool.handle_async_request(self._request)
                await trio.lowlevel.checkpoint()
                await response.aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(hold)

    def close(self) -> None:
        """Nothing is open."""


@final
class FakeHTTPConnection:
    """Answers with nothing, and is idle again once the answer has been read."""

    def __init__(self, origin: object, response: Callable[..., Any]) -> None:
        self._origin = origin
        self._response = response
        self._busy = False

    async def handle_async_request(self, _request: object) -> Any:
        """Answer at once."""
        self._busy = True
        return self._response(200, content=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b""

    async def aclose(self) -> None:
        """End the answer, or the connection; there is nothing to close."""
        self._busy = False

    def can_handle_request(self, origin: object) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        return not self._busy

    def is_idle(self) -> bool:
        return not self._busy

    def is_connected(self) -> bool:
        return True

    def can_multiplex(self) -> bool:
        return False

    def has_expired(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False


Rival = PsycopgPool | HttpcorePool


def open_rivals(limit: int) -> list[Rival]:
    """Open a pool of each library that is installed."""
    factories: list[Callable[[], Rival]] = [
        lambda: PsycopgPool(limit),
        lambda: HttpcorePool("httpcore2", limit),
        lambda: HttpcorePool("httpcore", limit),
    ]
    found: list[Rival] = []
    for factory in factories:
        try:
            found.append(factory())
        except ImportError:
            continue
    return found
