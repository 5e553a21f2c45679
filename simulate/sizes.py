"""How large a pool should be, and whether a limit that finds itself finds that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import trio

import conpool
from bench.measure import Scale, Table

from .gradient import Gradient
from .report import Report
from .world import Call, Callers, Network, Server, run, share

_ENDPOINT: Final = conpool.Endpoint("db.example", 5432)
_WORKERS: Final = 8
_SERVICE: Final = 0.04
_CAPACITY: Final = _WORKERS / _SERVICE
_CROWDING: Final = 0.02
_WORTH: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Run:
    calls: list[Call]
    limits: list[int]
    """In each second."""

    def times(self, begin: float = 0.0) -> list[float]:
        """Return how long each served call took in all, wait included."""
        return [c.ended - c.asked for c in self.calls if c.is_served and c.asked >= begin]

    def good(self, begin: float, end: float) -> float:
        """Return the calls a second that ended well in a part of the run."""
        ended = [c for c in self.calls if c.is_served and begin <= c.ended < end]
        return sum(c.ended - c.asked <= _WORTH for c in ended) / (end - begin)


def measure_size(scale: Scale) -> Report:
    """Try pools of many sizes in front of a server with eight workers."""
    seconds = scale.pick(40, 15, 1)
    sizes = (2, 4, 6, 8, 10, 12, 16, 24, 40, 60)[:: 1 if scale.name != "tiny" else 3]
    runs = {
        (size, load): run(_work, size, None, load * _CAPACITY, seconds, None)
        for size in sizes
        for load in (0.7, 1.3)
    }
    rows: list[tuple[str, ...]] = []
    for size in sizes:
        usual, much = runs[size, 0.7], runs[size, 1.3]
        waits = [call.waited for call in usual.calls if call.is_served]
        rows.append(
            (
                str(size),
                *(f"{share(waits, part) * 1e3:.0f}" for part in (0.5, 0.99)),
                *(f"{share(usual.times(), part) * 1e3:.0f}" for part in (0.5, 0.99)),
                f"{much.good(seconds / 3, seconds) / _CAPACITY:.0%}",
                f"{share(much.times(seconds / 3), 0.99) * 1e3:.0f}",
            )
        )
    report = Report(
        Table(
            f"A server with {_WORKERS} workers, {_SERVICE * 1e3:g} ms a request",
            (
                *("connections", "median wait, ms", "p99", "median of all, ms", "p99"),
                *("130 % load: within 1 s", "p99, ms"),
            ),
            rows,
            f"Waits at 70 % load. Beyond its workers each request slows the server by"
            f" {_CROWDING:.0%}. queue_target_delay=0.1.",
        )
    )
    if scale.name != "tiny":
        fit, large = (runs[size, 1.3].good(seconds / 3, seconds) for size in (10, 60))
        report.promise(
            "under overload a pool a little above the workers does better than a large one",
            fit > large,
            f"{fit / _CAPACITY:.0%} of capacity with 10, {large / _CAPACITY:.0%} with 60",
        )
    report.draw = partial(_draw_size, sizes, runs, seconds)
    return report


async def _work(
    limit: int,
    adaptive: Gradient | None,
    rate: float,
    seconds: float,
    change: Callable[[Server], Any] | None,
) -> _Run:
    server = Server(1, _SERVICE, workers=_WORKERS)
    server.crowding = _CROWDING
    config = conpool.PoolConfig(
        max_connections_per_endpoint=limit, queue_target_delay=0.1, acquire_timeout=5.0
    )
    limits: list[int] = []
    async with conpool.ConnectionPool(config, connector=Network({_ENDPOINT: server})) as pool:
        callers = _Steering(pool, adaptive)
        if adaptive is not None:
            pool.set_limit(_ENDPOINT, adaptive.limit)
        async with trio.open_nursery() as nursery:
            if change is not None:
                nursery.start_soon(change, server)

            async def watch() -> None:
                while True:
                    limits.append(limit if adaptive is None else adaptive.limit)
                    await trio.sleep(1)

            nursery.start_soon(watch)
            await callers.come(rate, seconds, 2, _ENDPOINT)
            nursery.cancel_scope.cancel()
    return _Run(callers.calls, limits)


class _Steering(Callers):
    """Sets the limit after each call, if something says what it should be."""

    def __init__(self, pool: conpool.ConnectionPool, adaptive: Gradient | None) -> None:
        super().__init__(pool)
        self._steered = pool
        self._adaptive = adaptive

    async def call(self, endpoint: conpool.Endpoint) -> Call:
        call = await super().call(endpoint)
        if self._adaptive is not None and call.is_served:
            before = self._adaptive.limit
            self._adaptive.called(call.ended - call.asked - call.waited, call.ended)
            if self._adaptive.limit != before:
                self._steered.set_limit(endpoint, self._adaptive.limit)
        return call


def _draw_size(
    sizes: tuple[int, ...], runs: dict[tuple[int, float], _Run], seconds: float, figure: Any
) -> None:
    usual, much = figure.subplots(1, 2)
    waits = [
        share([c.waited for c in runs[s, 0.7].calls if c.is_served], 0.99) * 1e3 for s in sizes
    ]
    all_times = [share(runs[s, 0.7].times(), 0.99) * 1e3 for s in sizes]
    usual.plot(sizes, all_times, "o-", label="the whole call", ms=3)
    usual.plot(sizes, waits, "s--", label="wait for a connection", ms=3)
    usual.set_ylim(0, 400)
    usual.set_title("70 % load: 99 of 100 take less than")
    usual.set_ylabel("milliseconds")
    usual.legend()
    goods = [runs[s, 1.3].good(seconds / 3, seconds) / _CAPACITY * 100 for s in sizes]
    much.plot(sizes, goods, "o-", color="tab:green", ms=3)
    much.set_ylim(0, 105)
    much.set_title("130 % load: served in time, % of capacity")
    for axes in (usual, much):
        axes.axvline(_WORKERS, color="gray", ls=":")
        axes.axvline(10, color="black", lw=0.8)
        axes.set_xlabel("connections (dotted: workers; line: default)")


# ── a limit that finds itself ───────────────────────────────────────────────────


def measure_adaptive(scale: Scale) -> Report:
    """Have the server lose half its workers, and then get twice as many, under full load."""
    phase = scale.pick(60, 20, 1)

    async def change(server: Server) -> None:
        await trio.sleep(phase)
        server.set_workers(_WORKERS // 2)
        await trio.sleep(phase)
        server.set_workers(_WORKERS * 2)

    ends = 3 * phase
    runs: dict[str, _Run] = {}
    for name, limit, adaptive in (
        ("fixed, 10", 10, None),
        ("fixed, 20", 20, None),
        ("fixed, 60", 60, None),
        ("gradient, 3 to 60", 60, Gradient(3, 60)),
    )[:: 1 if scale.name != "tiny" else 3]:
        runs[name] = run(_work, limit, adaptive, 2.4 * _CAPACITY, ends, change)
    rows = [
        (
            name,
            *(f"{it.good(phase * n, phase * (n + 1)):.0f}" for n in range(3)),
            f"{it.good(0, ends):.0f}",
            f"{share(it.times(), 0.5) * 1e3:.0f}",
            f"{share(it.times(), 0.99) * 1e3:.0f}",
        )
        for name, it in runs.items()
    ]
    return Report(
        Table(
            f"Limits under too much load: {_WORKERS} workers, then {_WORKERS // 2}, then"
            f" {2 * _WORKERS}; served in time a second",
            ("", "8 workers", "4", "16", "all", "median, ms", "p99, ms"),
            rows,
            f"Capacity: {_CAPACITY:.0f}, {_CAPACITY / 2:.0f} and {2 * _CAPACITY:.0f} a second.",
        ),
        draw=partial(_draw_adaptive, runs, ends),
    )


def _draw_adaptive(runs: dict[str, _Run], ends: int, figure: Any) -> None:
    goods, limits = figure.subplots(1, 2)
    for (name, it), color in zip(
        runs.items(), ("tab:blue", "tab:green", "tab:orange", "tab:red"), strict=True
    ):
        span = range(0, ends, 3)
        goods.plot(span, [it.good(s, s + 3) for s in span], color=color, label=name, lw=1)
        limits.step(range(len(it.limits)), it.limits, where="post", color=color, label=name, lw=1)
    goods.set_title("Served in time, a second")
    goods.set_ylim(bottom=0)
    limits.set_title("Limit")
    limits.legend()
    for axes in (goods, limits):
        axes.set_xlabel("seconds (8 workers, then 4, then 16)")
        for border in (ends / 3, 2 * ends / 3):
            axes.axvline(border, color="gray", ls=":")
