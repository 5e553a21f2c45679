"""One side of `bench compare`: does what it is told, in a process of its own.

It reads a line `CASE COUNT` at a time, and answers each with a line: the microseconds of one
operation, or its bytecodes. It uses only such names of conpool as any commit has.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final, TypeAlias

import trio
from trio.testing import MockClock

import conpool

from .growth import TwinConnector, order_tasks_alike
from .measure import Run, clock, count_bytecodes
from .server import HOST, serving
from .weigh import NullConnector

BYTECODES: Final = " bytecodes"
"""Ends the names of the cases that are counted, not timed."""

_TASKS: Final = 100
_MANY: Final = 1_000
_PATIENCE: Final = 600.0

Ask: TypeAlias = Callable[[str, int], Awaitable[float]]


def main() -> None:
    """Answer until there is nothing more to read."""
    print(conpool.__file__, flush=True)
    for line in sys.stdin:
        case, _, count = line.rstrip("\n").rpartition(" ")
        if case.endswith(BYTECODES):
            # Time stands still: a duration that falls into another bucket would count.
            answer = trio.run(_count, case.removesuffix(BYTECODES), int(count), clock=MockClock())
        else:
            answer = trio.run(_time, case, int(count))
        print(f"{answer:.4f}", flush=True)


async def _count(case: str, count: int) -> float:
    async with AsyncExitStack() as stack:
        run = await CASES[case](stack)
        await run(32)
        order_tasks_alike()
        return await count_bytecodes(run, count)


async def _time(case: str, count: int) -> float:
    async with AsyncExitStack() as stack:
        run = await CASES[case](stack)
        await run(max(10, count // 5))
        return await clock(run, count)


async def _lease(stack: AsyncExitStack) -> Run:
    pool, endpoint = await _open(stack)

    async def run(count: int) -> None:
        for _ in range(count):
            async with pool.connection(endpoint):
                pass

    return run


async def _by_hand(stack: AsyncExitStack) -> Run:
    pool, endpoint = await _open(stack)

    async def run(count: int) -> None:
        for _ in range(count):
            pool.release(await pool.acquire(endpoint))

    return run


async def _contended(stack: AsyncExitStack) -> Run:
    return await _contend(stack)


async def _timed(stack: AsyncExitStack) -> Run:
    return await _contend(stack, timeout=_PATIENCE)


async def _contend(stack: AsyncExitStack, **options: Any) -> Run:
    pool, endpoint = await _open(stack, max_connections_per_endpoint=10)

    async def hold(leases: int) -> None:
        for _ in range(leases):
            async with pool.connection(endpoint, **options):
                await trio.lowlevel.checkpoint()

    async def run(count: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(_TASKS):
                nursery.start_soon(hold, max(1, count // _TASKS))

    return run


async def _among_many(stack: AsyncExitStack) -> Run:
    connector = TwinConnector()
    stack.callback(connector.close)
    pool = await stack.enter_async_context(conpool.ConnectionPool(connector=connector))
    endpoints = [conpool.Endpoint("a.example", 80, partition=n) for n in range(_MANY)]
    for endpoint in endpoints:
        await pool.warm(endpoint, 1)

    async def run(count: int) -> None:
        for number in range(count):
            async with pool.connection(endpoints[number % _MANY]):
                pass

    return run


async def _dial(stack: AsyncExitStack) -> Run:
    pool = await stack.enter_async_context(conpool.ConnectionPool(connector=NullConnector()))
    endpoint = conpool.Endpoint("a.example", 80)

    async def run(count: int) -> None:
        for _ in range(count):
            pool.discard(await pool.acquire(endpoint))

    return run


async def _open(
    stack: AsyncExitStack, **settings: Any
) -> tuple[conpool.ConnectionPool[None], conpool.Endpoint]:
    config = conpool.PoolConfig(acquire_timeout=_PATIENCE, **settings)
    endpoint = conpool.Endpoint(HOST, await stack.enter_async_context(serving()))
    pool = await stack.enter_async_context(conpool.ConnectionPool(config))
    return pool, endpoint


CASES: Final[dict[str, Callable[[AsyncExitStack], Awaitable[Run]]]] = {
    "lease": _lease,
    "lease by acquire and release": _by_hand,
    "lease among 100 tasks": _contended,
    "lease among 100 tasks, timeout=": _timed,
    "lease among 1,000 endpoints": _among_many,
    "dial and discard, in memory": _dial,
}


if __name__ == "__main__":
    main()
