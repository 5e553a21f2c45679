"""What a lease costs with a group, a limit of the pool, an observer, or in a thread."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Final

import trio

import conpool

from .lease import Watcher, repeat
from .measure import Run, Scale, Table, count_bytecodes, race
from .server import HOST, serving

_PLAIN: Final = "an endpoint"
_THREAD: Final = "from a worker thread"
_MEMBERS: Final = (3, 10, 100)


async def measure_options(scale: Scale) -> Table:
    """Time a lease with one thing more than usual."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving())
        endpoint = conpool.Endpoint(HOST, port)
        plain = await _open(stack)
        runs: dict[str, Run] = {_PLAIN: repeat(lambda: plain.connection(endpoint))}
        limited = await _open(stack, max_connections=100)
        runs["a pool-wide limit, not reached"] = repeat(lambda: limited.connection(endpoint))
        timed = await _open(stack)
        runs["timeout="] = repeat(lambda: timed.connection(endpoint, timeout=600.0))
        watched = await stack.enter_async_context(conpool.ConnectionPool(observers=[Watcher()]))
        runs["an observer that does nothing"] = repeat(lambda: watched.connection(endpoint))
        logged = await stack.enter_async_context(
            conpool.ConnectionPool(observers=[conpool.LoggingObserver()])
        )
        runs["LoggingObserver, nothing logged"] = repeat(lambda: logged.connection(endpoint))
        for members in _MEMBERS:
            runs[f"a group of {members}"] = await _lease_of_group(stack, port, members)
        count, rounds = scale.pick(1000, 500, 20), scale.pick(15, 7, 2)
        threaded = await _open(stack)
        slow: dict[str, Run] = {_PLAIN: runs[_PLAIN], _THREAD: _from_thread(threaded, endpoint)}
        times = await race(runs, count=count, rounds=rounds)
        far = await race(slow, count=count // 5, rounds=rounds)
        rows: list[tuple[str, ...]] = []
        for name, micros, ratio, _ in times.rows(_PLAIN):
            codes = await count_bytecodes(runs[name], scale.pick(320, 320, 32))
            rows.append((name, micros, ratio, f"{codes:.0f}"))
        rows += [(*row[:3], "") for row in far.rows(_PLAIN)[1:]]
    return Table(
        "An uncontended lease, with one thing more",
        ("", "µs", "to an endpoint", "bytecodes"),
        rows,
        "On open loopback connections; a group has an idle connection to each member. In the row of"
        " the thread is trio's thread alone: the worker's own time comes on top.",
    )


async def _open(stack: AsyncExitStack, **settings: Any) -> conpool.ConnectionPool[None]:
    config = conpool.PoolConfig(**settings)
    return await stack.enter_async_context(conpool.ConnectionPool(config))


async def _lease_of_group(stack: AsyncExitStack, port: int, members: int) -> Run:
    pool = await _open(stack)
    group = conpool.EndpointGroup(
        [conpool.Endpoint(HOST, port, partition=n) for n in range(members)]
    )
    for member in group.endpoints:
        await pool.warm(member, 1)
    return repeat(lambda: pool.connection(group))


def _from_thread(pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint) -> Run:
    def lease_all(count: int) -> None:
        for _ in range(count):
            with pool.blocking.connection(endpoint):
                pass

    async def run(count: int) -> None:
        await trio.to_thread.run_sync(lease_all, count)

    return run
