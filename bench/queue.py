"""Waiters: what it costs to hand a connection over, to cancel a waiter, and how long each waits."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import trio
from trio.testing import wait_all_tasks_blocked

import conpool

from .lease import Lend
from .measure import Scale, Table
from .plain_pools import LimiterPool
from .rivals import HOLDS
from .server import HOST, serving

_SIZES: Final = (1, 10, 100, 1_000, 10_000)


async def measure_handover(scale: Scale) -> Table:
    """Time the step from one lease to the next while a number of tasks wait."""
    sizes = scale.steps(*_SIZES, full=10_000, quick=10_000, tiny=10)
    count, rounds = scale.pick(10_000, 3_000, 20), scale.pick(5, 3, 1)

    async def pass_on(lend: Lend, size: int) -> float:
        return await _pass_on(lend, size, count)

    figures = await _compare(pass_on, sizes, rounds)
    return _tabulate(f"Handing a connection over, {count:,} times", figures, sizes, "µs")


async def measure_cancelling(scale: Scale) -> Table:
    """Time how long it takes to cancel a number of waiters at once."""
    sizes = scale.steps(100, 10_000, full=10_000, quick=10_000, tiny=100)
    figures = await _compare(_cancel, sizes, scale.pick(5, 3, 1), {"tasks that only sleep": _Sleep})
    return _tabulate("Cancelling waiters, all at once", figures, sizes, "µs each")


async def measure_fairness(scale: Scale) -> Table:
    """Compare the longest wait with the mean wait when a thousand tasks take turns."""
    tasks = scale.pick(1000, 1000, 30)
    rows: list[tuple[str, ...]] = []
    async with AsyncExitStack() as stack:
        for name, lend in (await _open_pools(stack, limit=10)).items():
            waits = await _waits(lend, tasks)
            mean = sum(waits) / len(waits)
            rows.append(
                (name, f"{mean * 1e3:.1f}", f"{max(waits) * 1e3:.1f}", f"{max(waits) / mean:.2f}")
            )
    return Table(
        f"Waiting, {tasks:,} tasks over 10 connections",
        ("", "mean, ms", "longest, ms", "longest / mean"),
        rows,
        f"{HOLDS} leases for each task. If newcomers overtake, the last column is near 20.",
    )


class _Sleep:
    """Stands in for a lease when only waiting is timed."""

    async def __aenter__(self) -> None:
        await trio.sleep_forever()

    async def __aexit__(self, *exc_info: object) -> None:
        pass


async def _open_pools(stack: AsyncExitStack, limit: int) -> dict[str, Lend]:
    port = await stack.enter_async_context(serving())
    config = conpool.PoolConfig(max_connections_per_endpoint=limit, acquire_timeout=600.0)
    pool = await stack.enter_async_context(conpool.ConnectionPool(config))
    endpoint = conpool.Endpoint(HOST, port)
    limiter = LimiterPool(limit, partial(trio.open_tcp_stream, HOST, port))
    stack.callback(limiter.close)
    return {
        "conpool": lambda: pool.connection(endpoint),
        "CapacityLimiter + deque, class": limiter.connection,
    }


async def _compare(
    measure: Callable[[Lend, int], Awaitable[float]],
    sizes: list[int],
    rounds: int,
    more: dict[str, Lend] | None = None,
) -> dict[tuple[str, int], float]:
    """Return the median in microseconds of each pool at each size, over rounds in turn."""
    times: dict[tuple[str, int], list[float]] = {}
    async with AsyncExitStack() as stack:
        pools = {**await _open_pools(stack, limit=1), **(more or {})}
        for _ in range(rounds):
            for size in sizes:
                for name, lend in pools.items():
                    times.setdefault((name, size), []).append(await measure(lend, size))
    return {key: sorted(values)[len(values) // 2] for key, values in times.items()}


def _tabulate(
    title: str, figures: dict[tuple[str, int], float], sizes: list[int], unit: str
) -> Table:
    names = list(dict.fromkeys(name for name, _ in figures))
    return Table(
        title,
        (unit, *(f"{size:,} waiting" for size in sizes)),
        [(name, *(f"{figures[name, size]:.1f}" for size in sizes)) for name in names],
    )


async def _pass_on(lend: Lend, size: int, count: int) -> float:
    served = 0
    ended = trio.Event()

    async def wait_in_turn() -> None:
        nonlocal served
        while served < count:
            async with lend():
                served += 1
        ended.set()

    async with trio.open_nursery() as nursery:
        async with lend():
            for _ in range(size + 1):
                nursery.start_soon(wait_in_turn)
            await wait_all_tasks_blocked()
            started = time.thread_time()
        await ended.wait()
        took = time.thread_time() - started
    return took / count * 1e6


async def _cancel(lend: Lend, size: int) -> float:
    async def wait() -> None:
        async with lend():
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(size + 1):  # the first gets the connection
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        started = time.thread_time()
        nursery.cancel_scope.cancel()
    return (time.thread_time() - started) / size * 1e6


async def _waits(lend: Lend, tasks: int) -> list[float]:
    waits: list[float] = []

    async def hold() -> None:
        for _ in range(HOLDS):
            asked = time.perf_counter()
            async with lend():
                waits.append(time.perf_counter() - asked)
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(hold)
    return waits
