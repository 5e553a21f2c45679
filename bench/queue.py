"""Waiters: what it costs to hand a connection over, to cancel a waiter, and how long each waits."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, final

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import conpool

from .growth import order_tasks_alike
from .lease import Lend
from .measure import Aim, Race, Run, Scale, Table, count_bytecodes, race, take_turns
from .plain_pools import LimiterPool
from .rivals import HOLDS
from .server import HOST, serving

_SIZES: Final = (1, 100, 1_000, 10_000, 100_000)
_FLAT: Final = 1.2
_CACHES: Final = 1.8
"""How much longer 100,000 may take: the processor's caches do not hold them."""

_OURS: Final = "conpool"
_LIMITER: Final = "CapacityLimiter + deque, class"
_SLEEP: Final = "tasks that only sleep"


def measure_handover(scale: Scale) -> Table:
    """Time the step from one lease to the next while a number of tasks wait; count bytecodes."""
    sizes = scale.steps(*_SIZES, full=100_000, quick=10_000, tiny=1) + [10] * (scale.index == 2)
    bytecodes = trio.run(_count_handovers, sizes, scale, clock=MockClock())
    times = trio.run(_race_handovers, sizes, scale)
    rows: list[tuple[str, ...]] = []
    aims: list[Aim] = []
    for (name, size), codes in bytecodes.items():
        key, first = f"{name}, {size:,}", f"{name}, {sizes[0]:,}"
        limit = _CACHES if size == 100_000 else _FLAT
        target = f"≤ {limit:g}" if name == _OURS and key != first else ""
        micros, ratio = times.micros(key), times.ratio(key, first)
        rows.append((key, f"{codes:.1f}", f"{micros:.2f}", f"{ratio:.2f}", target))
        if target:
            aims.append(times.aim(f"handing over, {size:,} waiters to one", key, first, limit))
    ours = [codes for (name, _), codes in bytecodes.items() if name == _OURS]
    aims.append(Aim("handing over: most bytecodes, to one waiter", max(ours) / ours[0], 1.02))
    return Table(
        "Handing a connection over, by the number of waiters",
        ("", "bytecodes", "µs", "to one", "target"),
        rows,
        "One connection goes from task to task, in turn; each task asks again at once.",
        aims,
    )


async def _count_handovers(sizes: list[int], scale: Scale) -> dict[tuple[str, int], float]:
    count = scale.pick(320, 160, 32)
    found: dict[tuple[str, int], float] = {}
    async with AsyncExitStack() as stack:
        for key, turns in (await _queue_up(stack, sizes)).items():
            order_tasks_alike()
            found[key] = await count_bytecodes(turns.run, count)
    return found


async def _race_handovers(sizes: list[int], scale: Scale) -> Race:
    async with AsyncExitStack() as stack:
        queues = await _queue_up(stack, sizes)
        runs: dict[str, Run] = {f"{name}, {size:,}": q.run for (name, size), q in queues.items()}
        count, rounds = scale.pick(5_000, 2_000, 20), scale.pick(11, 5, 1)
        return await race(runs, count=count, rounds=rounds)


async def _queue_up(stack: AsyncExitStack, sizes: list[int]) -> dict[tuple[str, int], _Turns]:
    """Have so many tasks wait for one connection, in a pool of each kind for each size."""
    queues: dict[tuple[str, int], _Turns] = {}
    for size in sizes:
        for name, lend in (await _open_pools(stack, limit=1)).items():
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            turns = queues[name, size] = _Turns()
            for _ in range(size + 1):  # one has the connection
                nursery.start_soon(turns.take, lend)
            await turns.is_over.wait()
            await wait_all_tasks_blocked()
    return queues


@final
class _Turns:
    """Tasks that take turns for as many turns as they are told, and then stand still."""

    def __init__(self) -> None:
        self._left = 0
        self._may_go_on = trio.Event()
        self.is_over = trio.Event()

    async def take(self, lend: Lend) -> None:
        while True:
            async with lend():
                if not self._left:
                    self.is_over.set()
                    await self._may_go_on.wait()
                self._left -= 1

    async def run(self, count: int) -> None:
        self._left = count
        self.is_over = trio.Event()
        self._may_go_on.set()
        self._may_go_on = trio.Event()
        await self.is_over.wait()


async def measure_cancelling(scale: Scale) -> Table:
    """Time how long it takes to cancel a number of waiters at once."""
    sizes = scale.steps(100, 10_000, full=10_000, quick=10_000, tiny=100)
    rounds = scale.pick(9, 5, 1)
    async with AsyncExitStack() as stack:
        pools = {**await _open_pools(stack, limit=1), _SLEEP: _Sleep}
        races: dict[int, Race] = {}
        for size in sizes:

            async def time_one(name: str, size: int = size) -> float:
                return await _cancel(pools[name], size)

            races[size] = await take_turns(list(pools), time_one, rounds)
    most = races[sizes[-1]]
    return Table(
        "Cancelling waiters, all at once",
        ("µs each", *(f"{size:,} waiting" for size in sizes), "to sleep", "target"),
        [
            (
                name,
                *(f"{times.micros(name):.1f}" for times in races.values()),
                f"{most.ratio(name, _SLEEP):.2f}",
                "≤ 1.2" if name == _OURS else "",
            )
            for name in pools
        ],
        aims=[
            most.aim(f"cancelling {sizes[-1]:,} waiters, to tasks that sleep", _OURS, _SLEEP, 1.2)
        ],
    )


async def measure_fairness(scale: Scale) -> Table:
    """Compare the longest wait with the mean wait when a thousand tasks take turns."""
    tasks = scale.pick(1000, 1000, 30)
    rows: list[tuple[str, ...]] = []
    worst: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        for name, lend in (await _open_pools(stack, limit=10)).items():
            waits = await _waits(lend, tasks)
            mean = sum(waits) / len(waits)
            worst[name] = max(waits) / mean
            rows.append(
                (name, f"{mean * 1e3:.1f}", f"{max(waits) * 1e3:.1f}", f"{worst[name]:.2f}")
            )
    return Table(
        f"Waiting, {tasks:,} tasks over 10 connections",
        ("", "mean, ms", "longest, ms", "longest / mean"),
        rows,
        f"{HOLDS} leases for each task. If newcomers overtake, the last column is near 20.",
        [Aim(f"{tasks:,} tasks: the longest wait, to the mean", worst[_OURS], 2.0)],
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
        _OURS: lambda: pool.connection(endpoint),
        _LIMITER: limiter.connection,
    }


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
            asked = time.thread_time()
            async with lend():
                waits.append(time.thread_time() - asked)
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(hold)
    return waits
