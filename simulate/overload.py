"""More callers than the server can serve, for a while or because it has become slow."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import trio

import conpool
from bench.measure import Scale, Table

from .report import Report
from .world import Call, Callers, Network, Server, run, share

_ENDPOINT: Final = conpool.Endpoint("api.example", 80)
_LIMIT: Final = 10
_SERVICE: Final = 0.1
_CAPACITY: Final = _LIMIT / _SERVICE
_PATIENCE: Final = 5.0
_WORTH: Final = 1.0
"""A caller who waits for longer, in seconds, has no use for the reply."""


def measure_overload(scale: Scale) -> Report:
    """Have a fifth more callers come than can be served, with one target after the other."""
    seconds = scale.pick(60, 60, 8)
    targets = (None, 0.5, 0.2, 0.1, 0.05) if scale.name != "tiny" else (None, 0.2)
    results = {target: run(_serve, target, _CAPACITY * 1.2, seconds, None) for target in targets}
    rows: list[tuple[str, ...]] = []
    for target, (calls, connects) in results.items():
        waits = [call.waited for call in calls if call.is_served]
        rows.append(
            (
                f"queue_target_delay={target}",
                f"{share(waits, 0.5):.2f}",
                f"{share(waits, 0.99):.2f}",
                f"{_goodput(calls, seconds):.0%}",
                f"{_goodput(calls, seconds, _WORTH):.0%}",
                f"{sum(not call.is_served for call in calls):,}",
                str(connects),
            )
        )
    report = Report(
        Table(
            f"120 % load for {seconds} s, acquire_timeout={_PATIENCE:g}, limit {_LIMIT}",
            ("", "median wait", "p99", "goodput", "within 1 s", "refused", "connects"),
            rows,
            "Goodput: served in these seconds, of what the server can. Within 1 s: likewise, but"
            " only callers that waited for at most a second.",
        )
    )
    calls, connects = results[None]
    late = [call.waited for call in calls if call.asked > seconds / 2]
    if scale.name != "tiny":  # that is over before the wait has grown so long
        report.promise(
            "without a target every wait is near acquire_timeout, once the queue has grown",
            share(late, 0.05) > 0.9 * _PATIENCE,
            f"19 of 20 wait for more than {share(late, 0.05):.2f} of {_PATIENCE:g} s",
        )
    report.promise("without a target: no connect churn", connects == _LIMIT, f"{connects} connects")
    for target in targets:
        if target is None or target < _SERVICE:
            continue
        calls, connects = results[target]
        p99 = share([call.waited for call in calls if call.is_served], 0.99)
        good = _goodput(calls, seconds)
        report.promise(
            f"target {target}: goodput >= 95 %, p99 wait <= 4 x target, no connect churn",
            good >= (0.95 if scale.name != "tiny" else 0.85)
            and p99 <= 4 * target
            and connects == _LIMIT,
            f"{good:.1%}, {p99 / target:.2f} x target, {connects} connects",
        )
    report.draw = partial(
        _draw_overload, {key: calls for key, (calls, _) in results.items()}, seconds
    )
    return report


async def _serve(
    target: float | None, rate: float, seconds: float, slow: tuple[float, float] | None
) -> tuple[list[Call], int]:
    server = Server(1, _SERVICE)
    config = conpool.PoolConfig(
        max_connections_per_endpoint=_LIMIT,
        queue_target_delay=target,
        acquire_timeout=_PATIENCE if slow is None else 30.0,
    )

    async def become_slow(begins: float, ends: float) -> None:
        await trio.sleep(begins)
        server.slowness = 3.0
        await trio.sleep(ends - begins)
        server.slowness = 1.0

    async with conpool.ConnectionPool(config, connector=Network({_ENDPOINT: server})) as pool:
        callers = Callers(pool)
        async with trio.open_nursery() as nursery:
            if slow is not None:
                nursery.start_soon(become_slow, *slow)
            await callers.come(rate, seconds, 2, _ENDPOINT)
    return callers.calls, len(server.dials)


def _goodput(calls: list[Call], seconds: float, within: float = _PATIENCE) -> float:
    served = sum(
        call.is_served and call.ended <= seconds and call.waited <= within for call in calls
    )
    return served / (seconds * _CAPACITY)


def _draw_overload(results: dict[float | None, list[Call]], seconds: int, figure: Any) -> None:
    over_time, by_second = figure.subplots(1, 2)
    for target, color in ((None, "tab:red"), (0.5, "tab:orange"), (0.1, "tab:blue")):
        calls = sorted(results[target], key=lambda call: call.asked)
        served = [call for call in calls if call.is_served]
        label = "none (default)" if target is None else f"{target:g}"
        over_time.plot(
            [call.asked for call in served],
            [max(call.waited, 1e-3) for call in served],
            ".",
            ms=1.5,
            color=color,
            label=label,
        )
        goods = [0] * seconds
        for call in served:
            if call.waited <= _WORTH and call.ended < seconds:
                goods[int(call.ended)] += 1
        by_second.step(range(seconds), goods, where="post", color=color, label=label, lw=1)
    over_time.set_ylim(0, _PATIENCE * 1.05)
    over_time.set_title("Wait of each caller that is served")
    over_time.set_ylabel("seconds")
    by_second.set_title("Served each second, after a wait of 1 s at most")
    by_second.set_ylim(0, _CAPACITY * 1.5)
    for axes in (over_time, by_second):
        axes.set_xlabel("seconds at 120 % load")
    by_second.legend(title="queue_target_delay", loc="center", bbox_to_anchor=(0.6, 0.3))


# ── a server that is slow for a while ───────────────────────────────────────────


def measure_slowdown(scale: Scale) -> Report:
    """Have the server take three times as long for a sixth of the run, at 80 % load."""
    seconds = scale.pick(120, 120, 12)
    slow = (seconds / 6, seconds / 3)
    results = {
        target: run(_serve, target, _CAPACITY * 0.8, seconds, slow) for target in (None, 0.1)
    }
    recovered: dict[float | None, float] = {}
    rows: list[tuple[str, ...]] = []
    for target, (calls, connects) in results.items():
        long = [call.asked for call in calls if call.asked > slow[1] and call.waited > _WORTH]
        recovered[target] = max(long, default=slow[1]) - slow[1]
        waits = [call.waited for call in calls if call.is_served]
        refused = sum(not call.is_served for call in calls)
        in_time = sum(call.is_served and call.waited <= _WORTH for call in calls) / len(calls)
        rows.append(
            (
                f"queue_target_delay={target}",
                *(f"{share(waits, 0.99):.1f}", f"{in_time:.0%}", f"{refused:,}"),
                *(f"{recovered[target]:.1f}", str(connects)),
            )
        )
    report = Report(
        Table(
            f"80 % load; for {slow[1] - slow[0]:g} s the server takes three times as long",
            ("", "p99 wait, s", "within 1 s", "refused", "trouble goes on for, s", "connects"),
            rows,
            "The trouble goes on, after the server is well again, while waits are above 1 s.",
        )
    )
    report.promise(
        "with a target of 0.1 the trouble ends within 1 s of its cause",
        recovered[0.1] <= 1.0,
        f"{recovered[0.1]:.1f} s, without one {recovered[None]:.1f} s",
    )
    report.draw = partial(_draw_slowdown, {key: calls for key, (calls, _) in results.items()}, slow)
    return report


def _draw_slowdown(
    results: dict[float | None, list[Call]], slow: tuple[float, float], figure: Any
) -> None:
    axes = figure.subplots()
    for target, color in ((None, "tab:red"), (0.1, "tab:blue")):
        served = sorted((call for call in results[target] if call.is_served), key=lambda c: c.asked)
        label = "none (default)" if target is None else f"{target:g}"
        axes.plot(
            [call.asked for call in served],
            [call.waited for call in served],
            ".",
            ms=2,
            color=color,
            label=label,
        )
    axes.axvspan(*slow, color="gray", alpha=0.2, lw=0)
    axes.set_title("Wait of each caller that is served; the server is slow in the grey part")
    axes.set_xlabel("seconds")
    axes.set_ylabel("seconds of wait")
    axes.legend(title="queue_target_delay", markerscale=5)
