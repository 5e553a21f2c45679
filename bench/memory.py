"""What a pool keeps in memory: idle connections, and the records of endpoints.

Each figure comes from a process of its own (`weigh`), because Python seldom gives memory back to
the system.
"""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import trio

from conpool.cli._certificates import make_contexts

from .measure import TINY, Aim, Scale, Table
from .server import serving

_ROOT: Final = Path(__file__).parent.parent

_KINDS: Final = {
    "stream": "trio.SocketStream",
    "pool": "conpool, plain",
    "pool-each": "conpool, plain, an endpoint for each",
    "used-pool-each": "the same, each lent once",
    "tls-stream": "trio.SSLStream",
    "tls-pool": "conpool, TLS",
}
_WAITERS: Final = {
    "sleep": "a task that sleeps in a block",
    "limiter": "CapacityLimiter + deque, class",
    "pool": "conpool",
    "timed-pool": "conpool, a time-out for each",
}


async def measure_memory(scale: Scale) -> Table:
    """Weigh idle connections."""
    count = scale.pick(5000, 2000, 20)
    server_context, _ = make_contexts()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving())
        tls_port = await stack.enter_async_context(serving(server_context))
        rows: list[tuple[str, ...]] = []
        each: dict[str, float] = {}
        for kind, name in _some(_KINDS, scale).items():
            to = tls_port if kind.startswith("tls") else port
            weighed = await _weigh("idle", kind, str(to), str(count))
            each[kind] = weighed["bytes"] / count / 1024
            rows.append((name, f"{each[kind]:.2f}"))
    return Table(
        f"Memory of an idle connection, of {count:,}",
        ("", "kB"),
        rows,
        "Resident memory of the client's process; the kernel's buffers are not in it.",
        [
            Aim("an idle connection beyond its stream, kB", each["pool"] - each["stream"], 1.0),
            Aim("an endpoint beyond its connection, kB", each["pool-each"] - each["pool"], 1.5),
        ],
    )


async def measure_waiting(scale: Scale) -> Table:
    """Weigh tasks that wait for a connection."""
    count = scale.pick(50_000, 10_000, 100)
    kinds = _some(_WAITERS, scale)
    each = {
        kind: (await _weigh("waiting", kind, str(count)))["bytes"] / count / 1024 for kind in kinds
    }
    sleeps, *_ = each.values()
    return Table(
        f"Memory of a waiting task, of {count:,}",
        ("", "kB", "beyond a sleeping task, kB"),
        [(name, f"{each[kind]:.2f}", f"{each[kind] - sleeps:.2f}") for kind, name in kinds.items()],
        "Resident memory of the process.",
        [Aim("a waiter beyond its task, kB", each["pool"] - sleeps, 1.0)],
    )


async def measure_passing(scale: Scale) -> Table:
    """Use many endpoints once each, in one pool, and see what the pool still keeps of them."""
    count = scale.pick(1_000_000, 100_000, 500)
    weighed = await _weigh("passing", str(count))
    rows: list[tuple[str, ...]] = [
        (f"{done:,}", f"{kept:,}", f"{taken / 1024**2:.1f}")
        for done, kept, taken in weighed["samples"]
    ]
    return Table(
        f"{count:,} endpoints through one pool, each used once",
        ("endpoints so far", "with records", "MB more than at first"),
        rows,
        f"Records are kept for a few seconds, and take {weighed['bytes_each'] / 1024:.1f} kB each."
        " The last row is after a rest.",
    )


def _some(kinds: dict[str, str], scale: Scale) -> dict[str, str]:
    """Leave out what only differs in its figures, if only to see that it runs."""
    alike = {"used-pool-each", "tls-stream", "limiter", "timed-pool"} if scale == TINY else set()
    return {kind: name for kind, name in kinds.items() if kind not in alike}


async def _weigh(*args: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.weigh", *args]
    done = await trio.run_process(command, capture_stdout=True, cwd=_ROOT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
