"""Very many callers or servers; who is served first; and which connections are left over."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import Any, Final

import trio

import conpool
from bench.measure import Scale, Table
from conpool._core.pool_limit import MAX_OVERTAKES

from .report import Report
from .world import Call, Callers, Network, Server, run, share

_ENDPOINT: Final = conpool.Endpoint("db.example", 5432)


def measure_crowd(scale: Scale) -> Report:
    """Have a hundred thousand callers ask at once: of one server, and of ten thousand."""
    many = scale.pick(100_000, 10_000, 200)
    servers = scale.pick(10_000, 1_000, 20)
    cases = {
        f"{many:,} callers, 1 endpoint, 100 connections": (many, 1, {}),
        f"{many:,} callers, {servers:,} endpoints, 1,000 connections in all": (
            many,
            servers,
            {"max_connections": 1_000},
        ),
    }
    rows: list[tuple[str, ...]] = []
    report = Report(
        Table(
            "A crowd: each call takes 10 ms on average, and each dial 1 ms",
            ("", "longest wait, s", "ideal", "served", "connects", "µs of processor a call"),
            rows,
            "Ideal: no connection is ever without a caller, and no dial takes time.",
        )
    )
    for name, (callers, endpoints, limits) in cases.items():
        calls, connects, micros = run(_throng, callers, endpoints, limits)
        longest = max(call.waited for call in calls)
        ideal = callers * 0.01 / (1_000 if limits else 100)
        served = sum(call.is_served for call in calls)
        rows.append(
            (
                name,
                f"{longest:.2f}",
                f"{ideal:.2f}",
                f"{served:,}",
                f"{connects:,}",
                f"{micros:.0f}",
            )
        )
        report.promise(
            f"{name}: all are served, and none waits for twice the ideal",
            served == callers and (longest <= 2 * ideal or scale.name == "tiny"),
            f"{longest:.2f} s, ideal {ideal:.2f} s",
        )
    return report


async def _throng(
    callers: int, endpoints: int, limits: dict[str, Any]
) -> tuple[list[Call], int, float]:
    names = [conpool.Endpoint(f"host-{number}.example", 80) for number in range(endpoints)]
    servers = {endpoint: Server(n, 0.01) for n, endpoint in enumerate(names)}
    config = conpool.PoolConfig(max_connections_per_endpoint=100, **limits)
    began = time.thread_time()
    async with conpool.ConnectionPool(config, connector=Network(servers)) as pool:
        crowd = Callers(pool)
        async with trio.open_nursery() as nursery:
            for number in range(callers):
                nursery.start_soon(crowd.call, names[number % endpoints])
    micros = (time.thread_time() - began) / callers * 1e6
    return crowd.calls, sum(len(server.dials) for server in servers.values()), micros


# ── two hot endpoints and a cold one ────────────────────────────────────────────

_HOT: Final = (conpool.Endpoint("hot-1.example", 80), conpool.Endpoint("hot-2.example", 80))
_COLD: Final = conpool.Endpoint("cold.example", 80)


class _Overtaking(conpool.Observer):
    """Counts how often younger callers are served before the cold one, while it is the oldest."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self._since: float | None = None
        self._waiting = 0
        self._older = 0

    def acquire_started(self, endpoint: conpool.AnyEndpoint) -> None:
        if endpoint != _COLD:
            self._waiting += 1

    def acquired(self, info: conpool.ConnectionInfo, waited: float) -> None:
        if info.endpoint == _COLD:
            return
        self._waiting -= 1
        if self._since is None:
            return
        if trio.current_time() - waited <= self._since:
            self._older -= 1
        elif self._older <= 0:
            self.counts[-1] += 1

    def connecting(self, info: conpool.ConnectionInfo) -> None:
        if info.endpoint == _COLD:
            self._since = None  # it has got its slot

    def asks(self) -> None:
        self._since = trio.current_time()
        self._older = self._waiting
        self.counts.append(0)


def measure_cold(scale: Scale) -> Report:
    """Have two endpoints fill the pool, and now and then a caller ask for a third."""
    rounds = scale.pick(200, 100, 5)
    cold, hot, overtaking = run(_starve, rounds)
    rows = [
        (name, *(f"{share([call.waited for call in calls], part):.2f}" for part in (0.5, 0.99, 1)))
        for name, calls in (("cold", cold), ("hot", hot))
    ]
    report = Report(
        Table(
            "Two hot endpoints and a cold one, max_connections=10, each lease 0.1 s on average",
            ("wait, s", "median", "p99", "longest"),
            rows,
            "At each hot endpoint 20 tasks take one lease after the other.",
        )
    )
    report.promise(
        f"once it waits for longest, at most {MAX_OVERTAKES} younger go before the cold one",
        len(overtaking) == rounds
        and max(overtaking) <= MAX_OVERTAKES
        and all(call.is_served for call in cold),
        f"at most {max(overtaking)}, {sum(overtaking) / rounds:.1f} on average of {rounds}",
    )
    return report


async def _starve(rounds: int) -> tuple[list[Call], list[Call], list[int]]:
    servers = {endpoint: Server(n, 0.1) for n, endpoint in enumerate((*_HOT, _COLD))}
    overtaking = _Overtaking()
    config = conpool.PoolConfig(max_connections=10)
    async with conpool.ConnectionPool(
        config, connector=Network(servers), observers=[overtaking]
    ) as pool:
        hot, cold = Callers(pool), Callers(pool)

        async def insist(endpoint: conpool.Endpoint) -> None:
            while True:
                await hot.call(endpoint)

        async with trio.open_nursery() as nursery:
            for endpoint in _HOT * 20:
                nursery.start_soon(insist, endpoint)
            for number in range(rounds):
                await trio.sleep(1 + (number % 7) / 10)
                overtaking.asks()
                await cold.call(_COLD)
                pool.close_idle(_COLD)
            nursery.cancel_scope.cancel()
    return cold.calls, hot.calls, overtaking.counts


# ── what is left after a peak ───────────────────────────────────────────────────

_PEAK: Final = 30.0
_ENDS: Final = 240
_RATE: Final = 4


def measure_idle(scale: Scale) -> Report:
    """Count connections after a peak, if the newest is lent first, and if the oldest is."""
    size = scale.pick(100, 100, 5)
    newest_first = run(_pass_peak, size)
    oldest_first = _rotate(size)
    report = Report(
        Table(
            f"Connections after a peak of {size}, then {_RATE} leases a second, max_idle_time=60",
            ("", "1 minute later", "2 minutes later", "3 minutes later"),
            [
                (name, *(str(counts[int(_PEAK) + 60 * n + 8]) for n in (1, 2, 3)))
                for name, counts in (
                    ("newest first (conpool)", newest_first),
                    ("oldest first (a model of the same pool)", oldest_first),
                )
            ],
            "conpool always lends the newest. There is no option for it.",
        )
    )
    left = newest_first[-1]
    report.promise(
        "newest first: the surplus is gone after max_idle_time",
        left <= 5,
        f"{left} left, oldest first {oldest_first[-1]}",
    )
    report.draw = partial(_draw_idle, newest_first, oldest_first)
    report.size = (8.0, 2.8)
    return report


async def _pass_peak(size: int) -> list[int]:
    """Return the number of open connections in each second."""
    server = Server(1, 0.25)
    config = conpool.PoolConfig(max_connections_per_endpoint=size)
    counts: list[int] = []
    async with conpool.ConnectionPool(config, connector=Network({_ENDPOINT: server})) as pool:
        callers = Callers(pool)

        async def insist() -> None:
            while trio.current_time() < ends_at:
                await callers.call(_ENDPOINT)

        ends_at = trio.current_time() + _PEAK
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(insist)
            nursery.start_soon(callers.come, _RATE, _ENDS, 3, _ENDPOINT)
            for _ in range(_ENDS):
                stats = pool.stats(_ENDPOINT)
                counts.append(stats.active + stats.idle)
                await trio.sleep(1)
    return counts


def _rotate(size: int) -> list[int]:
    """The same with the oldest first: each lease takes the one that has been idle for longest."""
    idle = deque([_PEAK] * size)  # since when
    counts = [size] * int(_PEAK)
    for second in range(int(_PEAK), _ENDS):
        for lease in range(_RATE):
            now = second + lease / _RATE
            while idle and now - idle[0] >= 60:
                idle.popleft()
            if idle:
                idle.popleft()
            idle.append(now)
        counts.append(len(idle))
    return counts


def _draw_idle(newest_first: list[int], oldest_first: list[int], figure: Any) -> None:
    axes = figure.subplots()
    axes.step(range(_ENDS), oldest_first, "--", where="post", label="oldest first")
    axes.step(range(_ENDS), newest_first, where="post", label="newest first (conpool)")
    axes.axvspan(0, _PEAK, color="gray", alpha=0.2, lw=0)
    axes.set_title("Open connections; the peak is grey")
    axes.set_xlabel("seconds")
    axes.set_ylim(bottom=0)
    axes.legend(loc="center right", title="idle connections are lent")
