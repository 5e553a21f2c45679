"""Dials: many at once where nothing is open yet, and one for each lease where the pool is full."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, TypeAlias

import trio
from trio.testing import MockClock

import conpool

from .growth import lease_in_turn, order_tasks_alike
from .measure import Aim, Run, Scale, Table, clock, count_bytecodes, race, take_turns
from .server import HOST, serving
from .weigh import NullConnector

_SIZES: Final = (10, 100, 1_000, 10_000)
_FLAT: Final = 1.2

Dial: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]


# ── a pool that is full ─────────────────────────────────────────────────────────


def measure_evictions(scale: Scale) -> Table:
    """Time a lease that must close another endpoint's idle connection first, and then dial."""
    sizes = scale.steps(*_SIZES, full=10_000, quick=10_000, tiny=100)
    operations = trio.run(_count_evictions, sizes, scale, clock=MockClock())
    count, rounds = scale.pick(2000, 1000, 50), scale.pick(11, 5, 2)

    async def race_all() -> tuple[list[tuple[str, ...]], list[Aim]]:
        async with AsyncExitStack() as stack:
            runs = await _open_full(stack, sizes)
            for size, run in zip(sizes, runs.values(), strict=True):
                await run(2 * size)
            times = await race(runs, count=count, rounds=rounds)
        few, *_, many = runs
        rows: list[tuple[str, ...]] = [
            (
                name,
                f"{operations[name]:.2f}",
                f"{times.micros(name):.2f}",
                f"{times.ratio(name, few):.2f}",
                "" if name == few else f"≤ {_FLAT:g}",
            )
            for name in runs
        ]
        lease = f"a lease that evicts, {sizes[-1]:,} endpoints to {sizes[0]}"
        more = operations[many] / operations[few]
        return rows, [
            times.aim(f"{lease}: time", many, few, _FLAT),
            Aim(f"{lease}: bytecodes", more, 1.05),
        ]

    rows, aims = trio.run(race_all)
    return Table(
        "A lease when the pool-wide limit is reached, and each evicts a connection",
        ("endpoints", "bytecodes", "µs", "to few", "target"),
        rows,
        "The limit is half the number of endpoints, which are asked in turn. Connections are in"
        " memory. The time has the close, the dial and the tasks that do them.",
        aims,
    )


async def _count_evictions(sizes: list[int], scale: Scale) -> dict[str, float]:
    found: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        for size, (name, run) in zip(sizes, (await _open_full(stack, sizes)).items(), strict=True):
            await run(2 * size)
            order_tasks_alike()
            found[name] = await count_bytecodes(run, scale.pick(200, 100, 20))
    return found


async def _open_full(stack: AsyncExitStack, sizes: list[int]) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for size in sizes:
        config = conpool.PoolConfig(
            max_connections=size // 2,
            max_idle_time=3600.0,
            max_connection_lifetime=86400.0,
            reap_interval=3600.0,  # sweeps come by the clock, not by the lease
        )
        pool = await stack.enter_async_context(
            conpool.ConnectionPool(config, connector=NullConnector())
        )
        endpoints = [conpool.Endpoint("a.example", 80, partition=n) for n in range(size)]
        runs[f"{size:,}, {size // 2:,} connections"] = lease_in_turn(pool, endpoints)
    return runs


# ── a pool that is cold ─────────────────────────────────────────────────────────


async def measure_burst(scale: Scale) -> Table:
    """Have many tasks ask at once where nothing is open, and keep what they get until all have."""
    tasks, rounds = scale.pick(1000, 1000, 20), scale.pick(7, 3, 1)
    async with serving() as port:
        loopback = partial(trio.open_tcp_stream, HOST, port)
        ways: dict[str, Run] = {
            "in memory, without a pool": partial(_burst_without, NullConnector().connect_nowhere),
            "in memory, conpool, one endpoint": partial(_burst, NullConnector, False, port),
            "in memory, conpool, an endpoint each": partial(_burst, NullConnector, True, port),
            "loopback, without a pool": partial(_burst_without, loopback),
            "loopback, conpool, one endpoint": partial(_burst, None, False, port),
            "loopback, conpool, an endpoint each": partial(_burst, None, True, port),
        }

        async def time_one(name: str) -> float:
            return await clock(ways[name], tasks)

        times = await take_turns(list(ways), time_one, rounds)
    rows: list[tuple[str, ...]] = []
    for name in ways:
        base = f"{name.partition(',')[0]}, without a pool"
        rows.append((name, f"{times.micros(name):.1f}", f"{times.ratio(name, base):.2f}"))
    return Table(
        f"{tasks:,} tasks that ask at once of a pool that is cold",
        ("", "µs each", "to none"),
        rows,
        "From the question to the last lease, and the end of the pool with all its connections."
        " Without a pool, each task opens a stream and closes it. The server's work is in it.",
    )


async def _burst(
    connector: Callable[[], conpool.Connector] | None, is_each: bool, port: int, tasks: int
) -> None:
    config = conpool.PoolConfig(
        max_connections_per_endpoint=tasks, max_connecting_per_endpoint=None, connect_timeout=60.0
    )
    made = None if connector is None else connector()
    async with conpool.ConnectionPool(config, connector=made) as pool:

        async def ask(number: int) -> None:
            partition = number if is_each else None
            async with pool.connection(conpool.Endpoint(HOST, port, partition=partition)):
                await meet()

        meet = _make_meeting(tasks)
        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(ask, number)


async def _burst_without(dial: Dial, tasks: int) -> None:
    async def ask() -> None:
        async with await dial():
            await meet()

    meet = _make_meeting(tasks)
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(ask)


def _make_meeting(tasks: int) -> Callable[[], Awaitable[None]]:
    """Return a function that waits until so many tasks have called it."""
    missing = tasks
    are_all_there = trio.Event()

    async def meet() -> None:
        nonlocal missing
        missing -= 1
        if missing == 0:
            are_all_there.set()
        await are_all_there.wait()

    return meet
