"""What a lease of a session costs, beside one of a plain connection."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Final, final

import trio

import conpool

from .measure import Run, Scale, Table, count_bytecodes, count_calls, race
from .server import HOST, serving

_PLAIN: Final = "no driver"
_SHARES: Final = 100


class OnlyOpen(conpool.Driver[trio.abc.Stream]):
    """The least that a driver can be."""

    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return stream


@final
class Judging(OnlyOpen):
    """Asked at each release whether the exchange is complete."""

    def is_clean(self, session: trio.abc.Stream) -> bool:
        return True


@final
class Sharing(OnlyOpen):
    """Lends one connection to many leases at once."""

    def capacity(self, session: trio.abc.Stream) -> int:
        return _SHARES


async def measure_sessions(scale: Scale) -> Table:
    """Time `async with pool.connection(endpoint): pass` with drivers of several kinds."""
    async with AsyncExitStack() as stack:
        endpoint = conpool.Endpoint(HOST, await stack.enter_async_context(serving()))
        plain = await stack.enter_async_context(conpool.ConnectionPool())
        runs: dict[str, Run] = {_PLAIN: _repeat(plain, endpoint)}
        for name, driver in {
            "only open": OnlyOpen(),
            "is_clean, too": Judging(),
            "one of one, could be shared": Sharing(),
        }.items():
            pool = await stack.enter_async_context(conpool.ConnectionPool(driver=driver))
            runs[name] = _repeat(pool, endpoint)
        shared = await stack.enter_async_context(conpool.ConnectionPool(driver=Sharing()))
        for _ in range(_SHARES - 1):
            await stack.enter_async_context(shared.connection(endpoint))
        busy = f"one of {_SHARES} on one connection"
        runs[busy] = _repeat(shared, endpoint)

        times = await race(runs, count=scale.pick(3000, 1000, 20), rounds=scale.pick(25, 11, 2))
        rows: list[tuple[str, ...]] = []
        for name, micros, ratio, target in times.rows(
            _PLAIN, {"only open": "≤ 1.1", busy: "≤ 1.3"}
        ):
            count = scale.pick(640, 320, 32)  # durations are counted 32 at a time
            calls = await count_calls(runs[name], count)
            codes = await count_bytecodes(runs[name], count)
            rows.append((name, micros, ratio, target, f"{calls:.0f}", f"{codes:.0f}"))
        assert shared.stats(endpoint).total_created == 1
    return Table(
        "A lease of a session",
        ("", "µs", "to none", "target", "calls", "bytecodes"),
        rows,
        "On an open loopback connection; calls and bytecodes are counted, trio's included.",
    )


def _repeat(pool: conpool.ConnectionPool[Any], endpoint: conpool.Endpoint) -> Run:
    async def run(count: int) -> None:
        for _ in range(count):
            async with pool.connection(endpoint):
                pass

    return run
