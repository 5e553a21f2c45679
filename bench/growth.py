"""Whether a lease costs more when the pool has more endpoints."""

from __future__ import annotations

import itertools
import resource
import socket
from contextlib import AsyncExitStack
from typing import Final, final

import trio
from trio.testing import MockClock

import conpool

from .measure import Race, Run, Scale, Table, count_bytecodes, count_calls, race

_SIZES: Final = (1, 10, 100, 1_000, 10_000)
_FILES_EACH: Final = 1.5
"""Files for each endpoint of the largest pool: its socket, and a share of the smaller pools."""


@final
class TwinConnector(conpool.Connector):
    """Opens the same socket again and again, so that ten thousand cost no ports and few files."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        """Open a twin: a file of its own, with nothing to read."""
        await trio.lowlevel.checkpoint()
        return trio.SocketStream(trio.socket.from_stdlib_socket(self._ours.dup()))

    def close(self) -> None:
        """Close the first of the twins, and their peer."""
        self._ours.close()
        self._theirs.close()


def measure_growth(scale: Scale) -> Table:
    """Time a lease when each of many endpoints has an idle connection; count its operations."""
    sizes = [
        size for size in scale.steps(*_SIZES, full=10_000, quick=10_000, tiny=10) if _fits(size)
    ]
    # Time stands still while operations are counted. Otherwise a duration could fall into another
    # bucket of a histogram than the one before, and that would look like growth.
    operations = trio.run(_count, sizes, clock=MockClock())
    times = trio.run(_race, sizes, scale)
    names = list(operations)
    rows: list[tuple[str, ...]] = []
    for number, name in enumerate(names):
        ratio = times.ratio(name, names[number % 2])
        calls, bytecodes = operations[name]
        rows.append(
            (
                name,
                f"{calls:.2f}",
                f"{bytecodes:.2f}",
                f"{times.micros(name):.2f}",
                f"{ratio:.2f}",
                "" if number % 2 else "0.8…1.2",
            )
        )
    return Table(
        "A lease, when each of many endpoints has an idle connection",
        ("endpoints", "calls", "bytecodes", "µs", "to one", "target"),
        rows,
        "Calls and bytecodes include trio's own. Taking turns among thousands costs the same"
        " operations, but the processor's caches do not hold them all.",
    )


async def _count(sizes: list[int]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    async with AsyncExitStack() as stack:
        for name, run in (await _open_all(stack, sizes)).items():
            await run(2 * sizes[-1])  # the first use of a connection does more
            _order_tasks_alike()
            calls = await count_calls(run, 100)
            _order_tasks_alike()
            found[name] = calls, await count_bytecodes(run, 100)
    return found


async def _race(sizes: list[int], scale: Scale) -> Race:
    async with AsyncExitStack() as stack:
        # Pools of all sizes are open at once, so that the machine's moods are the same for all.
        runs = await _open_all(stack, sizes)
        for run in runs.values():
            await run(2 * sizes[-1])
        count, rounds = scale.pick(2000, 500, 20), scale.pick(15, 7, 2)
        return await race(runs, count=count, rounds=rounds)


async def _open_all(stack: AsyncExitStack, sizes: list[int]) -> dict[str, Run]:
    config = conpool.PoolConfig(max_idle_time=3600.0, max_connection_lifetime=3600.0)
    runs: dict[str, Run] = {}
    for size in sizes:
        connector = TwinConnector()
        stack.callback(connector.close)
        pool = await stack.enter_async_context(conpool.ConnectionPool(config, connector=connector))
        endpoints = [conpool.Endpoint("a.example", 80, partition=n) for n in range(size)]
        for endpoint in endpoints:
            await pool.warm(endpoint, 1)
        runs[f"{size:,}, the same each time"] = _lease(pool, endpoints[:1])
        runs[f"{size:,}, each in turn"] = _lease(pool, endpoints)
    return runs


def _order_tasks_alike() -> None:
    """Have trio run tasks in the same order again; on purpose it draws the order by lot."""
    trio._core._run._r.seed(0)


def _lease(pool: conpool.ConnectionPool[None], endpoints: list[conpool.Endpoint]) -> Run:
    turns = itertools.cycle(endpoints)

    async def run(count: int) -> None:
        for endpoint in itertools.islice(turns, count):
            async with pool.connection(endpoint):
                pass

    return run


def _fits(size: int) -> bool:
    """Raise the limit on open files if need be; return whether it is enough for `size`."""
    wanted = int(_FILES_EACH * size)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted <= resource.getrlimit(resource.RLIMIT_NOFILE)[0]
