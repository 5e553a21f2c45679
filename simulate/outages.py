"""A server that is away, and one that restarts under a thousand clients."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Final

import trio

import conpool
from bench.measure import Scale, Table

from .report import Report
from .world import Call, Callers, Network, Server, most_in_a_second, run, share

_ENDPOINT: Final = conpool.Endpoint("db.example", 5432)
_SECONDS: Final = 60.0
_FIRST_WAVE: Final = 0.001
"""Until then no dial can have failed."""


@dataclass(frozen=True, slots=True)
class _Outage:
    """One variant of a dead server."""

    name: str
    config: conpool.PoolConfig = field(default_factory=conpool.PoolConfig)
    back_after: float = inf
    hangs: bool = False
    asks_again: float = inf
    """Seconds after an error until its caller asks again."""


_OUTAGES: Final = (
    _Outage("refuses, defaults"),
    _Outage("refuses, outage_grace=0", conpool.PoolConfig(outage_grace=0)),
    _Outage("refuses, outage_grace=inf", conpool.PoolConfig(outage_grace=inf)),
    _Outage("refuses, breaker", conpool.PoolConfig(circuit_breaker=conpool.CircuitBreaker())),
    _Outage("does not answer, defaults", hangs=True),
    _Outage("back after 0.8 s, defaults", back_after=0.8),
    _Outage("the same, outage_grace=0", conpool.PoolConfig(outage_grace=0), back_after=0.8),
    _Outage("the same, outage_grace=inf", conpool.PoolConfig(outage_grace=inf), back_after=0.8),
    _Outage("refuses, all ask again after 5 s, defaults", asks_again=5.0),
    _Outage(
        "the same, breaker",
        conpool.PoolConfig(circuit_breaker=conpool.CircuitBreaker()),
        asks_again=5.0,
    ),
)


def measure_outage(scale: Scale) -> Report:
    """Have everybody ask at once for a server that is away, and watch for a minute."""
    many = scale.pick(10_000, 2_000, 60)
    results = {outage.name: run(_sit_out, outage, many) for outage in _OUTAGES}
    rows = [(name, *_describe(calls, dials)) for name, (calls, dials) in results.items()]
    report = Report(
        Table(
            f"A dead server and {many:,} callers at once, {_SECONDS:g} s",
            ("", "median told, s", "last told, s", "served", "errors", "dials", "most in 1 s"),
            rows,
        )
    )
    calls, dials = results["refuses, defaults"]
    later = sum(dial > _FIRST_WAVE for dial in dials)
    report.promise(
        "defaults: at most a dozen dials after the first ten, which start together",
        later <= 12,
        f"{len(dials) - later} + {later} dials",
    )
    told = max(call.waited for call in calls)
    report.promise(
        "defaults: everybody gets a ConnectError within 2.5 s (the grace and one pause)",
        len(calls) == many and told <= 2.55 and _outcomes(calls) == {"ConnectError"},
        f"{len(calls):,} told, the last after {told:.2f} s: {', '.join(_outcomes(calls))}",
    )
    calls, dials = results["the same, breaker"]
    told = max(call.waited for call in calls)
    report.promise(
        "breaker: at most a dozen dials, though all ask again every 5 s, and all are told at once",
        len(dials) <= 12 and told < 0.1,
        f"{len(dials)} dials, {len(calls):,} calls, the longest {told:.3f} s",
    )
    calls, dials = results["back after 0.8 s, defaults"]
    errors = sum(not call.is_served for call in calls)
    report.promise(
        "back within the grace: an error only for those whose own dial failed",
        errors <= len(dials),
        f"{errors} errors, {len(calls) - errors:,} served",
    )
    report.draw = partial(_draw_outage, {name: calls for name, (calls, _) in results.items()})
    return report


async def _sit_out(outage: _Outage, many: int) -> tuple[list[Call], list[float]]:
    server = Server(1, service=0.001)
    server.is_up, server.hangs = False, outage.hangs
    async with conpool.ConnectionPool(
        outage.config, connector=Network({_ENDPOINT: server})
    ) as pool:
        callers = Callers(pool)

        async def insist() -> None:
            call = await callers.call(_ENDPOINT)
            while not call.is_served:
                await trio.sleep(outage.asks_again)
                call = await callers.call(_ENDPOINT)

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + _SECONDS
            for _ in range(many):
                nursery.start_soon(insist)
            await trio.sleep(outage.back_after)
            server.is_up = True
    return callers.calls, server.dials


def _describe(calls: list[Call], dials: list[float]) -> tuple[str, ...]:
    waits = [call.waited for call in calls]
    served = sum(call.is_served for call in calls)
    return (
        *(f"{share(waits, 0.5):.2f}", f"{max(waits):.2f}", f"{served:,}"),
        *(f"{len(calls) - served:,}", str(len(dials)), str(most_in_a_second(dials))),
    )


def _outcomes(calls: list[Call]) -> set[str]:
    return {call.outcome for call in calls}


def _draw_outage(results: dict[str, list[Call]], figure: Any) -> None:
    away, back = figure.subplots(1, 2, sharey=True)
    for axes, title, names in (
        (away, "The server stays away", ("refuses, {}", "refuses, defaults")),
        (back, "The server is back after 0.8 s", ("the same, {}", "back after 0.8 s, defaults")),
    ):
        pattern, default = names
        for label, name, style in (
            ("outage_grace=0", pattern.format("outage_grace=0"), ":"),
            ("outage_grace=1 (default)", default, "-"),
            ("outage_grace=inf", pattern.format("outage_grace=inf"), "--"),
        ):
            calls = results[name]
            errors = sorted(call.waited for call in calls if not call.is_served)
            parts = [100 * number / len(calls) for number in range(len(errors) + 1)]
            axes.step([1e-3, *errors, 60], [*parts, parts[-1]], style, where="post", label=label)
        axes.set_xscale("log")
        axes.set_xlim(1e-3, 60)
        axes.set_xticks([0.001, 0.01, 0.1, 1, 10], ["1 ms", "10 ms", "0.1 s", "1 s", "10 s"])
        axes.set_title(title)
        axes.set_xlabel("after all have asked at once")
    away.set_ylabel("callers with an error, %")
    back.legend(loc="center right")


# ── a restart ───────────────────────────────────────────────────────────────────


def measure_restart(scale: Scale) -> Report:
    """Restart a server with many clients, then watch them until their connections are old."""
    clients = scale.pick(1_000, 200, 20)
    alone = {
        jitter: run(_restart_under_pools, clients, jitter, scale.pick(10, 10, 60))
        for jitter in (0.1, 0.0)
    }
    rows: list[tuple[str, ...]] = []
    for jitter, dials in alone.items():
        rows.append((f"{clients:,} pools of one, lifetime_jitter={jitter}", *_phases(dials)))
    together: dict[int | None, list[float]] = {}
    for limit in (None, 20):
        config = conpool.PoolConfig(
            max_connections_per_endpoint=clients, max_connecting_per_endpoint=limit
        )
        dials = together[limit] = run(_restart_under_one_pool, clients, config)
        name = f"one pool of {clients:,}, max_connecting_per_endpoint={limit}"
        rows.append((name, *_phases(dials)[:-1], "-"))
    one_pool = int(_phases(together[None])[1])
    report = Report(
        Table(
            f"A server with {clients:,} clients is away from {_DOWN_AT:g} s to {_UP_AT:g} s:"
            " most dials within one second",
            ("", "at the stop", "while away", "at the return", "at the lifetime"),
            rows,
            "At the stop: the first 6 s, in which all notice it. At the return: 5 s.",
        )
    )
    at_stop, away, _, expiry = (int(figure) for figure in _phases(alone[0.1]))
    mass = int(_phases(alone[0.0])[-1])
    # A few clients may dial at the same time by chance.
    first, most = (6, 2) if scale.name != "tiny" else (10, 4)
    report.promise(
        f"a pool for each client: at most {first} attempts of each in a second, and later {most}",
        at_stop <= first * clients and away <= most * clients,
        f"{at_stop / clients:.2f}, then {away / clients:.2f}",
    )
    report.promise(
        "one pool: at most 8 attempts in a second, however many clients",
        one_pool <= 8,
        f"{one_pool}",
    )
    if scale.name != "tiny":
        report.promise(
            "no mass expiry at the lifetime: the jitter at least halves the peak",
            expiry * 2 <= mass,
            f"{expiry} dials in a second with jitter, {mass} without",
        )
    report.draw = partial(_draw_restart, alone)
    return report


_DOWN_AT: Final = 20.0
_UP_AT: Final = 30.0
_ENDS_AT: Final = 370.0


async def _restart(server: Server, pools: list[conpool.ConnectionPool]) -> None:
    await trio.sleep(_DOWN_AT)
    server.crash()
    for pool in pools:
        pool.close_idle(_ENDPOINT)  # the idle watch of real sockets sees it by itself
    await trio.sleep(_UP_AT - _DOWN_AT)
    server.is_up = True


async def _restart_under_pools(clients: int, jitter: float, period: int) -> list[float]:
    """Every client has a pool of its own with one connection, as a process has."""
    server = Server(1, service=0.0, dial=0.02)
    # The requests of a client are not what is watched: warm pools dial without them.
    config = conpool.PoolConfig(
        max_connections_per_endpoint=1, min_idle_per_endpoint=1, lifetime_jitter=jitter
    )

    pools: list[conpool.ConnectionPool] = []

    async def use(number: int) -> None:
        # Processes begin at different times, so that the sweeps of their pools do, too.
        await trio.sleep(number / clients * config.reap_interval)
        async with conpool.ConnectionPool(config, connector=Network({_ENDPOINT: server})) as pool:
            pools.append(pool)
            callers = Callers(pool)
            while True:
                call = await callers.call(_ENDPOINT)
                if call.is_served:  # busy at first, so that all notice the restart
                    own = period * (0.5 + number / clients)
                    await trio.sleep(1 if trio.current_time() < _UP_AT else own)

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + _ENDS_AT
        nursery.start_soon(_restart, server, pools)
        for number in range(clients):
            nursery.start_soon(use, number)
    return server.dials


async def _restart_under_one_pool(clients: int, config: conpool.PoolConfig) -> list[float]:
    server = Server(1, service=0.5, dial=0.02)
    async with conpool.ConnectionPool(config, connector=Network({_ENDPOINT: server})) as pool:
        callers = Callers(pool)

        async def use() -> None:
            while True:
                call = await callers.call(_ENDPOINT)
                await trio.sleep(0.5 if call.is_served else 0.1)

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + _UP_AT + 6
            nursery.start_soon(_restart, server, [pool])
            for _ in range(clients):
                nursery.start_soon(use)
    return server.dials


def _phases(dials: list[float]) -> tuple[str, ...]:
    bounds = ((_DOWN_AT, _DOWN_AT + 6), (_DOWN_AT + 6, _UP_AT), (_UP_AT, _UP_AT + 5))
    return tuple(
        str(most_in_a_second([dial for dial in dials if begin <= dial < end]))
        for begin, end in (*bounds, (_UP_AT + 60, _ENDS_AT))
    )


def _draw_restart(alone: dict[float, list[float]], figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    for jitter, style in ((0.0, "--"), (0.1, "-")):
        seconds = Counter(int(dial) for dial in alone[jitter])
        label = f"lifetime_jitter={jitter:g}" + (" (default)" if jitter else "")
        for axes, begin, end in ((left, 15, 40), (right, 290, int(_ENDS_AT))):
            span = range(begin, end)
            axes.step(span, [seconds[s] for s in span], style, where="post", label=label)
    left.axvspan(_DOWN_AT, _UP_AT, color="tab:red", alpha=0.1, lw=0)
    left.set_title("The server is away (red)")
    right.set_title("Five minutes later")
    left.set_ylabel("dials a second, all clients")
    left.set_xlabel("seconds")
    right.set_xlabel("seconds")
    right.legend(loc="upper left")
