"""The budget of a lease: which function takes how many bytecodes, and what for."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import trio

import conpool

from .lease import acquire_and_release, checkpoints, repeat
from .measure import Aim, Run, Scale, Table
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
    """Count the bytecodes of an uncontended lease, function by function."""
    async with AsyncExitStack() as stack:
        endpoint = conpool.Endpoint(HOST, await stack.enter_async_context(serving()))
        pool = await stack.enter_async_context(conpool.ConnectionPool())
        count = scale.pick(500, 200, 10)
        lease = await count_by_function(repeat(lambda: pool.connection(endpoint)), count)
        by_hand = await count_by_function(acquire_and_release(pool, endpoint), count)
        checkpoint = await count_by_function(checkpoints, count)
    rows: list[tuple[str, ...]] = []
    for (owner, code), executed in lease.most_common():
        each = round(executed / count)
        if owner == OWN and each:
            rows.append((_name(code), f"{each}", _purpose(code)))
    own, trios = _sum(lease, OWN) / count, _sum(lease, _TRIO) / count
    rows += [
        ("all of conpool", f"{own:.0f}", f"{_sum(by_hand, OWN) / count:.0f} by hand"),
        ("trio", f"{trios:.0f}", f"{_sum(checkpoint, _TRIO) / count:.0f} of a bare checkpoint"),
        (_BENCH, f"{_sum(lease, _BENCH) / count:.0f}", ""),
    ]
    return Table(
        "The bytecodes of an uncontended lease",
        ("function", "bytecodes", "what for"),
        rows,
        f"An average of {count} leases on an open loopback connection. Calls into C are not in it.",
        [Aim("conpool's own bytecodes in an uncontended lease", own, 400)],
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
