"""GET of one Valkey: by the example's client, and by coredis and redis-py if they are installed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, final

import trio

import conpool
from tests.servers import Valkey

from .measure import Aim, Run, Scale, Table, race

SHARED: Final = "conpool, one connection for all"
TARGET: Final = 3.0
"""How many times as fast as coredis, with 20 tasks."""


def measure_redis(scale: Scale) -> Table:
    """Compare the clients, in turns."""
    with Valkey() as valkey:
        return trio.run(_measure, scale, valkey)


async def _measure(scale: Scale, valkey: Valkey) -> Table:
    rows: list[tuple[str, ...]] = []
    aims: list[Aim] = []
    count, rounds = scale.pick(4_000, 2_000, 200), scale.pick(11, 5, 2)
    async with AsyncExitStack() as stack:
        clients = await _open(stack, valkey)
        first = next(iter(clients))
        redis_py = RedisPy.open(stack, valkey)
        for tasks in (1, 20):
            runs = {name: _asking(get, tasks) for name, get in clients.items()}
            if redis_py is not None:
                runs[redis_py.name] = redis_py.asking(tasks)
            times = await race(runs, count=count, rounds=rounds)
            for name in runs:
                target = f"≥ {TARGET:g}" if name == SHARED and tasks == 20 else ""
                ratio = "" if name == first else f"{times.ratio(first, name):.1f}"
                rows.append(
                    (f"{name}, {tasks} at once", f"{times.micros(name):.1f}", ratio, target)
                )
                if target and first != name:
                    text = f"Redis, {name}, {tasks} at once: times as fast as {first}"
                    aims.append(Aim(text, times.ratio(first, name), TARGET, is_floor=True))
    return Table(
        "GET of one Valkey, 64 bytes",
        ("", "µs", "times as fast", "target"),
        rows,
        f"The client's processor time for each GET; to compare with {first}.",
        aims,
    )


async def _open(stack: AsyncExitStack, valkey: Valkey) -> dict[str, Callable[[], Awaitable[Any]]]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    example = import_module("redis_client")
    endpoint = conpool.Endpoint(valkey.host, valkey.port)
    alone = await stack.enter_async_context(example.open_pool())
    shared = await stack.enter_async_context(example.open_shared_pool())
    await example.execute(alone, endpoint, "SET", "key", "x" * 64)
    clients: dict[str, Callable[[], Awaitable[Any]]] = {}
    try:
        coredis = import_module("coredis")
    except ImportError:
        pass
    else:
        client = coredis.Redis(host=valkey.host, port=valkey.port)
        await stack.enter_async_context(client)
        clients[f"coredis {version('coredis')}"] = lambda: client.get("key")
    clients["conpool, a connection for each"] = lambda: example.execute(
        alone, endpoint, "GET", "key"
    )
    clients[SHARED] = lambda: example.execute(shared, endpoint, "GET", "key")
    return clients


@final
class RedisPy:
    """redis-py on asyncio; its loop runs during each round, and stands still between rounds."""

    def __init__(self, module: Any, valkey: Valkey) -> None:
        self.name = f"redis-py {version('redis')} (asyncio)"
        self._loop = asyncio.new_event_loop()
        self._client: Any = module.Redis(
            connection_pool=module.BlockingConnectionPool(
                host=valkey.host, port=valkey.port, max_connections=20
            )
        )

    @classmethod
    def open(cls, stack: AsyncExitStack, valkey: Valkey) -> RedisPy | None:
        """Return a client, or None if redis-py is not installed."""
        try:
            module = import_module("redis.asyncio")
        except ImportError:
            return None
        client = cls(module, valkey)
        stack.callback(client.close)
        return client

    def asking(self, tasks: int) -> Run:
        async def ask(count: int) -> None:
            for _ in range(count):
                assert len(await self._client.get("key")) == 64

        async def ask_all(count: int) -> None:
            await asyncio.gather(*(ask(count // tasks) for _ in range(tasks)))

        async def run(count: int) -> None:
            self._loop.run_until_complete(ask_all(count))

        return run

    def close(self) -> None:
        self._loop.run_until_complete(self._client.connection_pool.disconnect())
        self._loop.close()


def _asking(get: Callable[[], Awaitable[Any]], tasks: int) -> Run:
    async def ask(count: int) -> None:
        for _ in range(count):
            assert len(await get()) == 64

    async def run(count: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(ask, count // tasks)

    return run
