"""What one lease costs: uncontended, and when a thousand tasks want one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, Final, TypeAlias

import trio

import conpool
from conpool.cli._certificates import make_contexts

from .measure import Run, Scale, Table, race
from .plain_pools import ChannelPool, LimiterPool
from .rivals import HOLDS, open_rivals
from .server import HOST, serving

Lend: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]

_LIMIT: Final = 10
_CHECKPOINT: Final = "a bare checkpoint"
_LIMITER: Final = "CapacityLimiter + deque, class"


class Watcher(conpool.Observer):
    """Hears of each acquire and release and does nothing: the cheapest observer."""

    def acquire_started(self, endpoint: conpool.AnyEndpoint) -> None:
        pass

    def acquired(self, info: conpool.ConnectionInfo, waited: float) -> None:
        pass

    def released(self, info: conpool.ConnectionInfo, held: float) -> None:
        pass


async def measure_uncontended(scale: Scale) -> Table:
    """Time `async with pool.connection(endpoint): pass` on an endpoint with an idle connection."""
    server_context, client_context = make_contexts()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving())
        tls_port = await stack.enter_async_context(serving(server_context))
        pool = await stack.enter_async_context(conpool.ConnectionPool())
        watched = await stack.enter_async_context(conpool.ConnectionPool(observers=[Watcher()]))
        plain = conpool.Endpoint(HOST, port)
        tls = conpool.Endpoint(HOST, tls_port, tls=conpool.TLS(context=client_context))

        limiter = LimiterPool(_LIMIT, partial(trio.open_tcp_stream, HOST, port))
        stack.callback(limiter.close)
        channel = ChannelPool(_LIMIT)
        stack.callback(channel.close)
        await channel.fill(_LIMIT, partial(trio.open_tcp_stream, HOST, port))
        bare_limiter = trio.CapacityLimiter(_LIMIT)

        runs: dict[str, Run] = {
            _CHECKPOINT: _checkpoints,
            "conpool": _repeat(lambda: pool.connection(plain)),
            "conpool, TLS": _repeat(lambda: pool.connection(tls)),
            "conpool, with an observer": _repeat(lambda: watched.connection(plain)),
            "conpool, acquire and release": _acquire(pool, plain),
            _LIMITER: _repeat(limiter.connection),
            "CapacityLimiter + deque, generator": _repeat(limiter.generated_connection),
            "memory channel": _repeat(channel.connection),
            "CapacityLimiter alone": _repeat(lambda: bare_limiter),
        }
        for rival in open_rivals(_LIMIT):
            stack.callback(rival.close)
            runs[rival.name] = rival.lease
        times = await race(runs, count=scale.pick(3000, 1000, 20), rounds=scale.pick(25, 11, 2))
    targets = {"conpool": "≤ 2.5", "conpool, TLS": "≤ 2.6"}
    return Table(
        "Uncontended lease",
        ("", "µs", "to checkpoint", "target"),
        times.rows(_CHECKPOINT, targets),
        "On an open loopback connection, with everything on: the probes before and after the lease,"
        " counters, holders, age.",
    )


async def measure_contended(scale: Scale) -> Table:
    """Time a lease where many tasks take turns on ten connections, each for one checkpoint."""
    tasks = scale.pick(1000, 1000, 30)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving())
        config = conpool.PoolConfig(max_connections_per_endpoint=_LIMIT)
        pool = await stack.enter_async_context(conpool.ConnectionPool(config))
        endpoint = conpool.Endpoint(HOST, port)
        limiter = LimiterPool(_LIMIT, partial(trio.open_tcp_stream, HOST, port))
        stack.callback(limiter.close)
        channel = ChannelPool(_LIMIT)
        stack.callback(channel.close)
        await channel.fill(_LIMIT, partial(trio.open_tcp_stream, HOST, port))
        runs: dict[str, Run] = {
            "conpool": _contend(lambda: pool.connection(endpoint)),
            "conpool, a time-out for each": _contend(
                lambda: pool.connection(endpoint, timeout=20.0)
            ),
            _LIMITER: _contend(limiter.connection),
            "CapacityLimiter + deque, generator": _contend(limiter.generated_connection),
            "memory channel": _contend(channel.connection),
        }
        slow: dict[str, Run] = {}
        for rival in open_rivals(_LIMIT):
            stack.callback(rival.close)
            slow[rival.name] = _per_lease(rival.contend)
        leases = tasks * HOLDS
        times = await race(runs, count=leases, rounds=scale.pick(15, 7, 2))
        # These take ten to a hundred times as long, so there is time for a few rounds only.
        rivals = await race(
            {_LIMITER: runs[_LIMITER], **slow}, count=leases, rounds=scale.pick(3, 1, 1)
        )
    rows = times.rows(_LIMITER, {"conpool": "≤ 1.4"}) + rivals.rows(_LIMITER)[1:]
    return Table(
        f"A lease that {tasks:,} tasks want, over {_LIMIT} connections",
        ("", "µs", "to limiter", "target"),
        rows,
        f"Each task holds {HOLDS} leases, for one checkpoint each.",
    )


async def _checkpoints(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


def _repeat(lend: Lend) -> Run:
    async def run(count: int) -> None:
        for _ in range(count):
            async with lend():
                pass

    return run


def _acquire(pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint) -> Run:
    async def run(count: int) -> None:
        for _ in range(count):
            pool.release(await pool.acquire(endpoint))

    return run


def _contend(lend: Lend) -> Run:
    async def hold() -> None:
        for _ in range(HOLDS):
            async with lend():
                await trio.lowlevel.checkpoint()

    async def contend(tasks: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(hold)

    return _per_lease(contend)


def _per_lease(contend: Run) -> Run:
    async def run(leases: int) -> None:
        await contend(max(1, leases // HOLDS))

    return run
