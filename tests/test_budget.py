"""What a lease may cost, counted without a clock: conpool's own bytecodes and calls.

And what an endpoint and an idle connection may weigh.

A figure that grows here is no error by itself: somebody has made every lease dearer, and should
know it, and say why the budget is raised. trio's share is not counted.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio

import conpool
from bench.weigh import NullConnector
from tests.support.loopback_servers import serving

OWN = str(Path(conpool.__file__).parent)
LEASES = 320
"""Ten times as many as are counted in one go, so that each pays its share of that."""

# Interpreters differ: later ones need fewer bytecodes for the same.
HIT = 396

CONTENDED = 760


async def count_own(run: Callable[[], Awaitable[object]]) -> Counter[str]:
    """Return how many bytecodes and calls of conpool's own `run` takes."""
    seen: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(OWN):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        seen[event] += 1
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        await run()
    finally:
        sys.settrace(previous)
    return seen


async def test_an_idle_hit_and_its_return_stay_within_their_budget() -> None:
    async with serving() as server, conpool.ConnectionPool() as pool:

        async def run() -> None:
            for _ in range(LEASES):
                async with pool.connection(server.endpoint):
                    pass

        await run()
        seen = await count_own(run)
    assert seen["opcode"] / LEASES <= HIT
    assert seen["call"] / LEASES <= 18


async def test_acquire_and_release_cost_no_more_than_the_block() -> None:
    async with serving() as server, conpool.ConnectionPool() as pool:

        async def block() -> None:
            for _ in range(LEASES):
                async with pool.connection(server.endpoint):
                    pass

        async def pair() -> None:
            for _ in range(LEASES):
                pool.release(await pool.acquire(server.endpoint))

        await block()
        dear = await count_own(block)
        cheap = await count_own(pair)
    assert cheap["opcode"] <= dear["opcode"]


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_a_contended_lease_stays_within_its_budget(timeout: float | None) -> None:
    config = conpool.PoolConfig(max_connections_per_endpoint=4)
    async with serving() as server, conpool.ConnectionPool(config) as pool:

        async def hold() -> None:
            for _ in range(8):
                async with pool.connection(server.endpoint, timeout=timeout):
                    await trio.lowlevel.checkpoint()

        async def run() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(LEASES // 8):
                    nursery.start_soon(hold)

        await run()
        seen = await count_own(run)
        assert pool.stats(server.endpoint).wait_time.max > 0.0
    assert seen["opcode"] / LEASES <= (CONTENDED if timeout is None else CONTENDED + 40)


# ── memory ──────────────────────────────────────────────────────────────────────

COUNT = 200
ENDPOINT = 1800
CONNECTION = 1060


async def weigh(endpoints: list[conpool.Endpoint]) -> int:
    """Return the bytes that a pool keeps after each has been lent once, all at the same time."""
    config = conpool.PoolConfig(max_connections_per_endpoint=COUNT + 1)
    async with conpool.ConnectionPool(config, connector=NullConnector()) as pool:
        for endpoint in (conpool.Endpoint("other.example", 1), *endpoints[:1]):
            async with pool.connection(endpoint):
                pass  # what is made once
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            leases = [await pool.acquire(endpoint) for endpoint in endpoints]
            for lease in leases:
                pool.release(lease)
            del lease, leases
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    return after - before


async def test_an_endpoint_and_an_idle_connection_stay_within_their_weight() -> None:
    """What is empty at nearly every endpoint takes no memory there; figures of CPython 3.11."""
    one = conpool.Endpoint("a.example", 80)
    many = [conpool.Endpoint("a.example", 80, partition=number) for number in range(COUNT)]
    connection = await weigh([one] * COUNT) / COUNT
    endpoint = await weigh(many) / COUNT - connection
    assert connection <= CONNECTION
    assert endpoint <= ENDPOINT
