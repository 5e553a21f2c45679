"""The contenders of `conpool bench` that run on trio: the pool, none at all, and httpx2."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

import conpool
from conpool.cli._bench_rivals import HTTPX2, LIMIT
from conpool.cli._bench_watch import Stopwatch
from conpool.cli._demo_server import LOOPBACK, DemoServer, ask

_REQUESTS: Final = 50
_LEASES: Final = 500


async def measure_trio(watch: Stopwatch) -> None:
    """Measure requests and leases, with a server that lives as long."""
    server = DemoServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        endpoint = conpool.Endpoint(LOOPBACK, server.port)
        config = conpool.PoolConfig(max_connections_per_endpoint=LIMIT, shutdown_grace=0.0)
        async with conpool.ConnectionPool(config) as pool:
            pooled = functools.partial(_ask_pooled, pool, endpoint)
            fresh = functools.partial(_ask_afresh, server.port)
            await watch.measure("request", "conpool", _many(pooled), _REQUESTS)
            await watch.measure("request", "fresh connections", _many(fresh), _REQUESTS)
            if HTTPX2.is_installed():
                await _measure_httpx2(watch, server.port)
            lease = functools.partial(_lease, pool, endpoint)
            await watch.measure("lease", "conpool", lease, _LEASES)
            share = functools.partial(_share, pool, endpoint, watch.tasks)
            await watch.measure("shared", "conpool", share, watch.tasks)
        nursery.cancel_scope.cancel()


def _many(request: Callable[[int], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
    async def run() -> float:
        began_at = time.perf_counter()
        for number in range(_REQUESTS):
            await request(number)
        return time.perf_counter() - began_at

    return run


async def _ask_pooled(
    pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint, number: int
) -> None:
    async with pool.connection(endpoint) as conn:
        await ask(conn, number)


async def _ask_afresh(port: int, number: int) -> None:
    async with await trio.open_tcp_stream(LOOPBACK, port) as stream:
        await ask(stream, number)


async def _measure_httpx2(watch: Stopwatch, port: int) -> None:
    """Measure its client with its own transport, and with ours."""
    httpx2 = importlib.import_module("httpx2")
    transports: dict[str, Any] = {HTTPX2.label(): httpx2.AsyncHTTPTransport()}
    try:
        ours = importlib.import_module("conpool.contrib.httpx2")
        transports["httpx2 over conpool"] = ours.AsyncPoolTransport()
    except ModuleNotFoundError:
        pass  # h11 or h2 is not installed
    for name, transport in transports.items():
        async with httpx2.AsyncClient(transport=transport) as client:

            async def request(number: int, client: Any = client) -> None:
                await client.get(f"http://{LOOPBACK}:{port}/now/{number}")

            await watch.measure("request", name, _many(request), _REQUESTS)


async def _lease(pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint) -> float:
    began_at = time.perf_counter()
    for _ in range(_LEASES):
        async with pool.connection(endpoint):
            pass
    return time.perf_counter() - began_at


async def _share(
    pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint, tasks: int
) -> float:
    async def lease() -> None:
        async with pool.connection(endpoint):
            await trio.lowlevel.checkpoint()

    began_at = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(lease)
    return time.perf_counter() - began_at
