"""Pools in many processes, behind PgBouncer or HAProxy.

    python examples/many_processes.py postgresql://me:secret@127.0.0.1:6432/shop --requests 1000
    python examples/many_processes.py redis://127.0.0.1:6379
    python examples/many_processes.py http://127.0.0.1:8080/

Each process has a pool of its own, and tasks that ask again and again. Enter has every pool replace
its connections while they work (`drain`). Ctrl-D ends it all, and so does `--requests`. Then the
program says how many answers came from which server.

The three are set up for what stands in between: see `postgres`, `redis` and `http`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import http_client
import redis_client
import trio

import conpool
from conpool.contrib.psycopg import PsycopgDriver

Ask: TypeAlias = Callable[[], Awaitable[str]]
"""Asks once; returns the name of the server that has answered."""

Client: TypeAlias = AbstractAsyncContextManager[tuple[conpool.ConnectionPool[Any], Ask]]


@asynccontextmanager
async def postgres(
    url: str, config: conpool.PoolConfig
) -> AsyncGenerator[tuple[conpool.ConnectionPool[Any], Ask]]:
    # Behind PgBouncer each transaction may run in another session of the server. So nothing may
    # outlive a transaction: no prepared statements, and SET LOCAL in place of SET.
    driver = PsycopgDriver(prepare_threshold=None)
    endpoint = driver.endpoint(url)

    async def ask() -> str:
        async with pool.connection(endpoint) as lease, lease.session.transaction():
            await lease.session.execute("SET LOCAL statement_timeout = '5s'")
            cursor = await lease.session.execute("SELECT pg_backend_pid()")
            [(pid,)] = await cursor.fetchall()
            return f"session {pid}"

    async with conpool.ConnectionPool(config, driver=driver) as pool:
        yield pool, ask


@asynccontextmanager
async def redis(
    url: str, config: conpool.PoolConfig
) -> AsyncGenerator[tuple[conpool.ConnectionPool[Any], Ask]]:
    # HAProxy passes TCP on: a connection stays with its server for life. So its life is short,
    # and `drain` leaves a server at once.
    config = config.replace(max_connection_lifetime=60.0)
    endpoint = conpool.Endpoint.from_url(url)

    async def ask() -> str:
        async with pool.connection(endpoint) as lease:
            text = (await lease.session.command("INFO", "server")).decode()
        lines = (line.partition(":") for line in text.splitlines())
        return next(f"port {value}" for name, _, value in lines if name == "tcp_port")

    async with conpool.ConnectionPool(config, driver=redis_client.RedisDriver()) as pool:
        yield pool, ask


@asynccontextmanager
async def http(
    url: str, config: conpool.PoolConfig
) -> AsyncGenerator[tuple[conpool.ConnectionPool[Any], Ask]]:
    # HAProxy understands HTTP: it chooses a server for each request. The connection to it can stay.
    parts = urlsplit(url)
    endpoint = conpool.Endpoint(parts.hostname or "localhost", parts.port or 80)

    async def ask() -> str:
        answer = await http_client.get(pool, endpoint, parts.path or "/")
        assert answer.status == 200, f"status {answer.status}"
        return answer.headers.get(b"x-server", b"a server").decode()

    async with conpool.ConnectionPool(config) as pool:
        yield pool, ask


CLIENTS: dict[str, Callable[[str, conpool.PoolConfig], Client]] = {
    "http": http,
    "postgresql": postgres,
    "redis": redis,
}


async def work(options: argparse.Namespace) -> Counter[str]:
    """Ask in one process; count the answers by server, and the failures by kind."""
    config = conpool.PoolConfig(max_connections_per_endpoint=options.connections)
    counts: Counter[str] = Counter()
    left = options.requests or sys.maxsize

    async def ask_often(ask: Ask) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            try:
                counts[await ask()] += 1
            except (OSError, EOFError, trio.BrokenResourceError, conpool.PoolError) as error:
                counts[f"failed with {type(error).__name__}"] += 1

    async def obey() -> None:
        nonlocal left
        async with trio.lowlevel.FdStream(os.dup(0)) as orders:
            async for _ in orders:
                await pool.drain(over=1.0)
        if not options.requests:
            left = 0

    client = CLIENTS[urlsplit(options.url).scheme](options.url, config)
    async with client as (pool, ask), trio.open_nursery() as nursery:
        nursery.start_soon(obey)
        async with trio.open_nursery() as asking:
            for _ in range(options.tasks):
                asking.start_soon(ask_often, ask)
        nursery.cancel_scope.cancel()
    return counts


async def lead(options: argparse.Namespace) -> Counter[str]:
    """Start the processes, hand on what is typed, and add up their counts."""
    command = [sys.executable, __file__, "--worker", *sys.argv[1:]]
    total: Counter[str] = Counter()

    async def follow(process: trio.Process) -> None:
        assert process.stdout is not None
        total.update(json.loads(b"".join([data async for data in process.stdout])))

    async def hand_on(processes: list[trio.Process]) -> None:
        inputs = [process.stdin for process in processes if process.stdin is not None]
        async with trio.lowlevel.FdStream(os.dup(0)) as typed:
            async for data in typed:
                for stdin in inputs:
                    await stdin.send_all(data)
        for stdin in inputs:
            await stdin.aclose()

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    start = partial(trio.run_process, command, **pipes)
    async with trio.open_nursery() as nursery:
        processes = [await nursery.start(start) for _ in range(options.processes)]
        nursery.start_soon(hand_on, processes)
        async with trio.open_nursery() as following:
            for process in processes:
                following.start_soon(follow, process)
        nursery.cancel_scope.cancel()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description="Pools in many processes.")
    parser.add_argument("url", help=f"of one of the kinds {', '.join(CLIENTS)}")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--connections", type=int, default=5, help="of each pool, at most")
    parser.add_argument("--tasks", type=int, default=20, help="in each process")
    parser.add_argument("--requests", type=int, default=0, help="of each process; 0: no end")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(trio.run(work, options)))
        return
    for name, count in sorted(trio.run(lead, options).items()):
        print(f"{name}: {count}")


if __name__ == "__main__":
    main()
