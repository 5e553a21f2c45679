"""Whether a lease costs more when the pool has more endpoints, or more idle connections.

Sockets go up to 10,000, because a process may seldom open more files. For 100,000 the connections
are in memory; then there is no file to probe, for one as for many.
"""

from __future__ import annotations

import itertools
import resource
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, TypeAlias, final

import trio
from trio.testing import MockClock

import conpool

from .measure import Aim, Race, Run, Scale, Table, count_bytecodes, count_calls, race
from .weigh import NullConnector

_SIZES: Final = (1, 10, 100, 1_000, 10_000)
_MASSES: Final = (1, 10_000, 100_000)
_EQUAL: Final = 1.02
"""Once in a while a lease sums up what others have noted: in some counts once more often."""

_FLAT: Final = 1.2
_CACHES: Final = 1.8
"""How much longer 100,000 may take: the processor's caches do not hold them."""

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
        size for size in scale.steps(*_SIZES, full=10_000, quick=10_000, tiny=10) if fits(size)
    ]
    fewest, most = sizes[0], sizes[-1]
    operations, times = _measure({"": _open_all}, sizes, scale)
    rows: list[tuple[str, ...]] = []
    for number, name in enumerate(operations):
        first = list(operations)[number % 2]
        row = _row(name, first, operations, times)
        rows.append((*row, "" if number % 2 else f"0.8…{_FLAT:g}"))
    same, turns = (f"{most:,}, {how}" for how in _WAYS)
    first, first_turns = (f"{fewest:,}, {how}" for how in _WAYS)
    lease = f"a lease with {most:,} endpoints"
    return Table(
        "A lease, when each of many endpoints has an idle connection",
        ("endpoints", *_HEAD, "target"),
        rows,
        "Calls and bytecodes include trio's own. Taking turns among thousands costs the same"
        " operations, but the processor's caches do not hold them all.",
        [
            times.aim(f"{lease}, to one: time", same, first, _FLAT),
            times.aim(f"{lease}, each in turn, to one: time", turns, first_turns, _FLAT),
            _same_operations(f"{lease}: bytecodes, to one", operations.values()),
        ],
    )


def measure_masses(scale: Scale) -> Table:
    """As `measure_growth`, up to 100,000, with connections in memory."""
    sizes = scale.steps(*_MASSES, full=100_000, quick=10_000, tiny=1) + [10] * (scale.index == 2)
    openers = {"endpoints: ": _open_all, "idle connections of one endpoint: ": _open_idle}
    operations, times = _measure(openers, sizes, scale, in_memory=True)
    rows: list[tuple[str, ...]] = []
    aims: list[Aim] = []
    for name in operations:
        what, _, rest = name.rpartition(": ")
        size, _, how = rest.partition(", ")
        first = f"{what}: {sizes[0]:,}, {how}"
        limit = _CACHES if size == "100,000" else _FLAT
        rows.append((*_row(name, first, operations, times), f"≤ {limit:g}" * (name != first)))
        if name != first and (what.startswith("idle") or how == _WAYS[1]):
            count = f"a lease with {size} {what}"
            aims.append(times.aim(f"{count}, {how}, to one: time", name, first, limit))
    for what in openers:
        costs = [found for name, found in operations.items() if name.startswith(what)]
        aims.append(_same_operations(f"a lease, {what[:-2]}: most bytecodes, to one", costs))
    return Table(
        "A lease, with connections in memory",
        ("", *_HEAD, "target"),
        rows,
        "Streams without a socket, as files do not suffice for 100,000: there is nothing to probe.",
        aims,
    )


_HEAD: Final = ("calls", "bytecodes", "µs", "to one")
_WAYS: Final = ("the same each time", "each in turn")

Operations: TypeAlias = dict[str, tuple[float, float]]
"""Calls and bytecodes of one lease."""

Opener: TypeAlias = Callable[[AsyncExitStack, str, list[int], bool], Awaitable[dict[str, Run]]]


def _measure(
    openers: Mapping[str, Opener], sizes: list[int], scale: Scale, *, in_memory: bool = False
) -> tuple[Operations, Race]:
    # Time stands still while operations are counted. Otherwise a duration could fall into another
    # bucket of a histogram than the one before, and that would look like growth.
    clock = MockClock()
    operations = trio.run(_count, openers, sizes, in_memory, clock=clock)
    return operations, trio.run(_race, openers, sizes, scale, in_memory)


def _row(name: str, first: str, operations: Operations, times: Race) -> tuple[str, ...]:
    calls, bytecodes = operations[name]
    micros, ratio = times.micros(name), times.ratio(name, first)
    return name, f"{calls:.2f}", f"{bytecodes:.2f}", f"{micros:.2f}", f"{ratio:.2f}"


def _same_operations(text: str, costs: Iterable[tuple[float, float]]) -> Aim:
    counts = [bytecodes for _, bytecodes in costs]
    return Aim(text, max(counts) / counts[0], _EQUAL)


async def _count(openers: Mapping[str, Opener], sizes: list[int], in_memory: bool) -> Operations:
    found: Operations = {}
    async with AsyncExitStack() as stack:
        for name, run in (await _open(stack, openers, sizes, in_memory)).items():
            await run(sizes[-1] + 10)  # the first use of a connection does more
            order_tasks_alike()
            calls = await count_calls(run, 320)
            order_tasks_alike()
            found[name] = calls, await count_bytecodes(run, 320)
    return found


async def _race(
    openers: Mapping[str, Opener], sizes: list[int], scale: Scale, in_memory: bool
) -> Race:
    async with AsyncExitStack() as stack:
        # Pools of all sizes are open at once, so that the machine's moods are the same for all.
        runs = await _open(stack, openers, sizes, in_memory)
        for run in runs.values():
            await run(sizes[-1] + 10)
        count, rounds = scale.pick(2000, 500, 20), scale.pick(15, 7, 2)
        return await race(runs, count=count, rounds=rounds)


async def _open(
    stack: AsyncExitStack, openers: Mapping[str, Opener], sizes: list[int], in_memory: bool
) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for title, opener in openers.items():
        runs |= await opener(stack, title, sizes, in_memory)
    return runs


async def _open_all(
    stack: AsyncExitStack, title: str, sizes: list[int], in_memory: bool
) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for size in sizes:
        pool = await _open_pool(stack, in_memory)
        endpoints = [conpool.Endpoint("a.example", 80, partition=n) for n in range(size)]
        for endpoint in endpoints:
            await pool.warm(endpoint, 1)
        for how, chosen in zip(_WAYS, (endpoints[:1], endpoints), strict=True):
            runs[f"{title}{size:,}, {how}"] = lease_in_turn(pool, chosen)
    return runs


async def _open_idle(
    stack: AsyncExitStack, title: str, sizes: list[int], in_memory: bool
) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for size in sizes:
        pool = await _open_pool(stack, in_memory, max_connections_per_endpoint=size)
        endpoint = conpool.Endpoint("a.example", 80)
        await pool.warm(endpoint, size)
        runs[f"{title}{size:,}, the newest each time"] = lease_in_turn(pool, [endpoint])
    return runs


async def _open_pool(
    stack: AsyncExitStack, in_memory: bool, **settings: Any
) -> conpool.ConnectionPool[None]:
    config = conpool.PoolConfig(max_idle_time=3600.0, max_connection_lifetime=86400.0, **settings)
    connector: conpool.Connector = NullConnector()
    if not in_memory:
        connector = TwinConnector()
        stack.callback(connector.close)
    return await stack.enter_async_context(conpool.ConnectionPool(config, connector=connector))


def order_tasks_alike() -> None:
    """Have trio run tasks in the same order again; on purpose it draws the order by lot."""
    trio._core._run._r.seed(0)


def lease_in_turn(pool: conpool.ConnectionPool[None], endpoints: list[conpool.Endpoint]) -> Run:
    """Return what leases a connection of each of `endpoints` in turn, as often as it is told."""
    turns = itertools.cycle(endpoints)

    async def run(count: int) -> None:
        for endpoint in itertools.islice(turns, count):
            async with pool.connection(endpoint):
                pass

    return run


def fits(size: int, files_each: float = _FILES_EACH) -> bool:
    """Raise the limit on open files if need be; return whether it is enough for `size`."""
    wanted = int(files_each * size)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted <= resource.getrlimit(resource.RLIMIT_NOFILE)[0]
