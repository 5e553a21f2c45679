"""What one lease costs: uncontended, and when a thousand tasks want one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, Final, TypeAlias

import trio

import conpool
from conpool.cli._certificates import make_contexts

from .measure import Aim, Run, Scale, Table, race
from .plain_pools import ChannelPool, LimiterPool
from .rivals import HOLDS, open_rivals
from .server import HOST, serving

Lend: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]

_LIMIT: Final = 10
_CHECKPOINT: Final = "a bare checkpoint"
_LIMITER: Final = "CapacityLimiter + deque, class"
_TIMED_LIMITER: Final = "the same, a time-out for each"
_TIMED: Final = "conpool, a time-out for each"
_PATIENCE: Final = 600.0
"""Seconds; no time-out of a benchmark ever comes."""

_NOISE: Final = 1.02
"""Two that cost the same may differ by so much in one run."""


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
            _CHECKPOINT: checkpoints,
            "conpool": repeat(lambda: pool.connection(plain)),
            "conpool, TLS": repeat(lambda: pool.connection(tls)),
            "conpool, with an observer": repeat(lambda: watched.connection(plain)),
            "conpool, acquire and release": acquire_and_release(pool, plain),
            _LIMITER: repeat(limiter.connection),
            "CapacityLimiter + deque, generator": repeat(limiter.generated_connection),
            "memory channel": repeat(channel.connection),
            "CapacityLimiter alone": repeat(lambda: bare_limiter),
        }
        for rival in open_rivals(_LIMIT):
            stack.callback(rival.close)
            runs[rival.name] = rival.lease
        times = await race(runs, count=scale.pick(3000, 1000, 20), rounds=scale.pick(25, 11, 2))
    targets = {"conpool": "≤ 1.9", "conpool, TLS": "≤ 2"}
    lease = "an uncontended lease"
    aims = [
        times.aim(f"{lease}, to a bare checkpoint", "conpool", _CHECKPOINT, 1.9),
        Aim(
            f"{lease} over TLS: how much more, in checkpoints",
            times.ratio("conpool, TLS", _CHECKPOINT) - times.ratio("conpool", _CHECKPOINT),
            0.1,
        ),
        times.aim(
            "acquire and release, to the block", "conpool, acquire and release", "conpool", _NOISE
        ),
    ]
    aims += [
        times.aim(f"{lease}, to psycopg_pool on asyncio", "conpool", name, _NOISE)
        for name in runs
        if name.startswith("psycopg_pool")
    ]
    return Table(
        "Uncontended lease",
        ("", "µs", "to checkpoint", "target"),
        times.rows(_CHECKPOINT, targets),
        "On an open loopback connection, with everything on: the probes before and after the lease,"
        " counters, holders, age.",
        aims,
    )


async def measure_contended(scale: Scale) -> Table:
    """Time a lease where many tasks take turns on ten connections, each for one checkpoint."""
    tasks = scale.pick(1000, 1000, 30)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving())
        config = conpool.PoolConfig(max_connections_per_endpoint=_LIMIT, acquire_timeout=_PATIENCE)
        pool = await stack.enter_async_context(conpool.ConnectionPool(config))
        endpoint = conpool.Endpoint(HOST, port)
        limiter = LimiterPool(_LIMIT, partial(trio.open_tcp_stream, HOST, port))
        stack.callback(limiter.close)
        channel = ChannelPool(_LIMIT)
        stack.callback(channel.close)
        await channel.fill(_LIMIT, partial(trio.open_tcp_stream, HOST, port))
        runs: dict[str, Run] = {
            "conpool": contend(lambda: pool.connection(endpoint)),
            _TIMED: contend(lambda: pool.connection(endpoint, timeout=_PATIENCE)),
            _LIMITER: contend(limiter.connection),
            _TIMED_LIMITER: contend(lambda: limiter.timed_connection(_PATIENCE)),
            "CapacityLimiter + deque, generator": contend(limiter.generated_connection),
            "memory channel": contend(channel.connection),
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
    targets = {"conpool": "≤ 1.1", _TIMED: "≤ 1.25"}
    rows = times.rows(_LIMITER, targets) + rivals.rows(_LIMITER)[1:]
    lease = f"a lease that {tasks:,} tasks want"
    return Table(
        f"A lease that {tasks:,} tasks want, over {_LIMIT} connections",
        ("", "µs", "to limiter", "target"),
        rows,
        f"Each task holds {HOLDS} leases, for one checkpoint each. To the limiter with a time-out"
        f" for each, ours takes {times.ratio(_TIMED, _TIMED_LIMITER):.2f}.",
        [
            times.aim(f"{lease}, to limiter and deque", "conpool", _LIMITER, 1.1),
            times.aim(f"{lease}, a time-out for each, to the same", _TIMED, _LIMITER, 1.25),
        ],
    )


async def checkpoints(count: int) -> None:
    """Do what trio does in every lease, and nothing else."""
    for _ in range(count):
        await trio.lowlevel.checkpoint()


def repeat(lend: Lend) -> Run:
    """Lend, and give back, in a block."""

    async def run(count: int) -> None:
        for _ in range(count):
            async with lend():
                pass

    return run


def acquire_and_release(pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint) -> Run:
    """Lend, and give back, without a block."""

    async def run(count: int) -> None:
        for _ in range(count):
            pool.release(await pool.acquire(endpoint))

    return run


def contend(lend: Lend) -> Run:
    """Have a tenth as many tasks as leases lend in turn."""

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
