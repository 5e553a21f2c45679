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

from .measure import Scale, Table
from .server import serving

_ROOT: Final = Path(__file__).parent.parent

_KINDS: Final = {
    "stream": "trio.SocketStream",
    "pool": "conpool, plain",
    "pool-each": "conpool, plain, an endpoint for each",
    "tls-stream": "trio.SSLStream",
    "tls-pool": "conpool, TLS",
}


async def measure_memory(scale: Scale) -> Table:
    """Weigh idle connections."""
    count = scale.pick(2000, 500, 20)
    server_context, _ = make_contexts()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving())
        tls_port = await stack.enter_async_context(serving(server_context))
        rows: list[tuple[str, ...]] = []
        for kind, name in _KINDS.items():
            to = tls_port if kind.startswith("tls") else port
            weighed = await _weigh("idle", kind, str(to), str(count))
            rows.append((name, f"{weighed['bytes'] / count / 1024:.1f}"))
    return Table(
        f"Memory of an idle connection, of {count:,}",
        ("", "kB"),
        rows,
        "Resident memory of the client's process; the kernel's buffers are not in it.",
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


async def _weigh(*args: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.weigh", *args]
    done = await trio.run_process(command, capture_stdout=True, cwd=_ROOT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
