"""The budget of a lease: which function takes how many bytecodes, and what for.

A lease is uncontended when a connection is idle, and contended when its task waits for one.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import trio

import conpool

from .lease import acquire_and_release, checkpoints, contend, repeat
from .measure import Aim, Run, Scale, Table
from .rivals import HOLDS
from .server import HOST, serving

OWN: Final = "conpool"
_TRIO: Final = "trio"
_BENCH: Final = "the benchmark's own loop"
_FOLDERS: Final = {
    OWN: str(Path(conpool.__file__).parent),
    _TRIO: str(Path(trio.__file__).parent),
    _BENCH: str(Path(__file__).parent),
}
_WITHOUT_DOCSTRING: Final = {
    "Connection.__init__": "The handle that the caller gets.",
    "Connection.__del__": "Would notice a lease that nobody has given back.",
    "LeaseBlock.__init__": "What `pool.connection()` returns.",
    "LeaseBlock.__aenter__": "Enters the block.",
    "LeaseBlock.__aexit__": "Leaves the block.",
    "ConnectionPool.connection": "Makes the block.",
    "Value.__hash__": "Finds the endpoint's record; the hash was computed once.",
    "__create_fn__.<locals>.__init__": "The record of the lease.",
}

Costs = Counter[tuple[str, CodeType]]
"""Bytecodes by their owner and function."""


async def measure_budget(scale: Scale) -> Table:
    """Count the bytecodes of a lease, function by function."""
    count = scale.pick(640, 320, 64)  # durations are counted 32 at a time
    async with AsyncExitStack() as stack:
        endpoint = conpool.Endpoint(HOST, await stack.enter_async_context(serving()))
        config = conpool.PoolConfig(max_connections_per_endpoint=2)
        pool = await stack.enter_async_context(conpool.ConnectionPool(config))
        runs: dict[str, Run] = {
            "uncontended": repeat(lambda: pool.connection(endpoint)),
            "by hand": acquire_and_release(pool, endpoint),
            "contended": contend(lambda: pool.connection(endpoint)),
            "checkpoint": checkpoints,
        }
        costs = {name: await count_by_function(run, count) for name, run in runs.items()}
    lease, contended = costs["uncontended"], costs["contended"]
    functions = [
        function
        for function, _ in sorted(
            (lease + contended).items(), key=lambda found: (-lease[found[0]], -found[1])
        )
        if function[0] == OWN
    ]
    rows: list[tuple[str, ...]] = []
    for function in functions:
        each = [round(costs[name][function] / count) for name in ("uncontended", "contended")]
        if any(each):
            rows.append((_name(function[1]), *map(str, each), _purpose(function[1])))
    own = {name: _sum(found, OWN) / count for name, found in costs.items()}
    theirs = {name: _sum(found, _TRIO) / count for name, found in costs.items()}
    rows += [
        ("all of conpool", *(f"{own[name]:.0f}" for name in ("uncontended", "contended")), ""),
        ("trio", *(f"{theirs[name]:.0f}" for name in ("uncontended", "contended")), ""),
    ]
    return Table(
        "The bytecodes of a lease",
        ("function", "uncontended", "contended", "what for"),
        rows,
        f"An average of {count} leases on loopback; calls into C are not in it. By acquire and"
        f" release, conpool's part is {own['by hand']:.0f}. A bare checkpoint is"
        f" {theirs['checkpoint']:.0f} of trio's. The contended leases are of {count // HOLDS} tasks"
        " over two connections, each held for one checkpoint, which is in trio's part.",
        [Aim("conpool's own bytecodes in an uncontended lease", own["uncontended"], 400)],
    )


async def count_by_function(run: Run, count: int) -> Costs:
    """Count the bytecodes of `count` operations by owner and function."""
    costs: Costs = Counter()
    owners: dict[FrameType, str] = {}

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        if event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            owners[frame] = _find_owner(frame)
        elif event == "return":
            owners.pop(frame, None)
        elif event == "opcode" and frame in owners:
            costs[owners[frame], frame.f_code] += 1
        return trace

    await run(count)  # opens connections
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await run(count)  # from 3.13 on, the first run of a code object is not traced
        costs.clear()
        await run(count)
    finally:
        sys.settrace(before)
    return costs


def _find_owner(frame: FrameType) -> str:
    """Return who runs: generated code, and the standard library, run for their caller."""
    caller: FrameType | None = frame
    while caller is not None:
        for owner, folder in _FOLDERS.items():
            if caller.f_code.co_filename.startswith(folder):
                return owner
        if "outcome" in caller.f_code.co_filename:
            return _TRIO
        caller = caller.f_back
    return _TRIO


def _sum(costs: Costs, owner: str) -> int:
    return sum(executed for (its, _), executed in costs.items() if its == owner)


def _name(code: CodeType) -> str:
    if "__create_fn__" in code.co_qualname:
        return "Lease.__init__"
    return code.co_qualname


def _purpose(code: CodeType) -> str:
    """Return the first line of the function's docstring, if it has one."""
    if code.co_qualname in _WITHOUT_DOCSTRING:
        return _WITHOUT_DOCSTRING[code.co_qualname]
    first = code.co_consts[0] if code.co_consts else None
    line = first.splitlines()[0] if isinstance(first, str) and first else ""
    return line if line.endswith((".", ":")) else ""
