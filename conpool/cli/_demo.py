"""`conpool demo`: the pool works with a server of its own, and each promise is put to the test."""

from __future__ import annotations

import functools
import json
import sys
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, cast

import trio

import conpool
from conpool._stats.report import duration, table
from conpool.cli import _demo_proofs as proofs
from conpool.cli._certificates import make_contexts
from conpool.cli._demo_server import LOOPBACK, DemoServer
from conpool.cli._screen import Screen

_DEADLINE: Final = 60.0
"""Seconds after which the demo counts as hanging; it takes a few."""

_CONFIG: Final = conpool.PoolConfig(
    max_connections_per_endpoint=proofs.LIMIT, acquire_timeout=10.0, shutdown_grace=1.0
)


class Step(NamedTuple):
    """One promise: its title, the number of moves of its progress bar, and its test."""

    title: str
    moves: int
    prove: Callable[[proofs.Advance], Awaitable[str]]


class Outcome(NamedTuple):
    """What one step showed."""

    title: str
    held: bool
    finding: str


_COLUMNS: Final = (
    ("idle", "idle", "connections that wait to be lent"),
    ("opened", "total_created", "dials that succeeded"),
    ("closed", "total_closed", "connections closed: by one task in ten, in the restart, ..."),
    ("reused", "total_reused", "leases of a connection that had been lent before"),
    ("errors", "errors", "dials that failed, while the server of the restart was away"),
    ("wait p50", "p50", "half of the callers waited no longer than this for a connection"),
    ("wait p99", "p99", "99 of 100 waited no longer; with 200 tasks over 10, some must wait"),
)
"""The columns of the demo's table after the server: header, field, and what the figure means."""


def run(screen: Screen, as_json: bool = False) -> int:
    """Run the demo in a trio loop of its own.

    Returns:
        0 if every promise held, 1 otherwise.
    """
    result = trio.run(_show, screen)
    if as_json:
        print(json.dumps(result, indent=2))
    return 0 if result["held"] else 1


async def _show(screen: Screen) -> dict[str, Any]:
    started_at = trio.current_time()
    outcomes: list[Outcome] = []
    stats: conpool.PoolStats | None = None
    with trio.move_on_after(_DEADLINE) as overtime:
        async with _open_sites() as sites, conpool.ConnectionPool(_CONFIG, name="demo") as pool:
            ports = " and ".join(f"{site.server.port} ({site.name})" for site in sites)
            screen.say(f"A keep-alive server listens on {LOOPBACK}, ports {ports}.")
            for step in plan(pool, sites):
                outcome = await _try_step(step, screen)
                outcomes.append(outcome)
            stats = pool.all_stats()
            screen.say(f"\n{_describe(stats, sites)}\n")
    failed = [outcome.title for outcome in outcomes if not outcome.held]
    if overtime.cancelled_caught:
        failed.append(f"the demo did not end within {_DEADLINE:.0f} s")
    seconds = trio.current_time() - started_at
    took = f"({seconds:.1f} s)"
    screen.say(f"FAILED: {', '.join(failed)} {took}" if failed else f"Every promise held {took}.")
    return {
        "held": not failed,
        "failed": failed,
        "seconds": seconds,
        "steps": [outcome._asdict() for outcome in outcomes],
        "stats": None if stats is None else stats.to_dict(),
    }


def _describe(stats: conpool.PoolStats, sites: tuple[proofs.Site, ...]) -> str:
    """Show the numbers in a table of 80 columns, and say what each of them means."""
    names: dict[conpool.AnyEndpoint, str] = {
        site.endpoint: f"the {site.name} server" for site in sites
    }
    rows = [
        (names.get(endpoint, "the one restarted"), *(_cell(one, field) for _, field, _ in _COLUMNS))
        for endpoint, one in stats.endpoints.items()
    ]
    total = ("total", *(_cell(stats, field) for _, field, _ in _COLUMNS))
    header = ("", *(name for name, _, _ in _COLUMNS))
    meanings = "\n".join(f"  {name:8}  {meaning}" for name, _, meaning in _COLUMNS)
    limit = f"At most {proofs.LIMIT} connections to each server were open at any time."
    return f"{table(header, rows, total)}\n\n{meanings}\n\n{limit}"


def _cell(stats: conpool.EndpointStats | conpool.PoolStats, field: str) -> str:
    if isinstance(stats, conpool.EndpointStats) and field in {"p50", "p99"}:
        return duration(getattr(stats.wait_time, field))
    return str(getattr(stats, field, "-"))


@asynccontextmanager
async def _open_sites() -> AsyncGenerator[tuple[proofs.Site, proofs.Site], None]:
    """Serve plain and TLS while the block runs."""
    server_context, client_context = make_contexts()
    plain, secure = DemoServer(), DemoServer(server_context)
    async with trio.open_nursery() as nursery:
        await nursery.start(plain.run)
        await nursery.start(secure.run)
        tls = conpool.TLS(client_context)
        yield (
            proofs.Site(plain, conpool.Endpoint(LOOPBACK, plain.port)),
            proofs.Site(secure, conpool.Endpoint(LOOPBACK, secure.port, tls=tls)),
        )
        nursery.cancel_scope.cancel()


def plan(pool: proofs.Pool, sites: tuple[proofs.Site, ...]) -> Iterator[Step]:
    """Yield the steps of the demo in order."""
    requests, tasks, limit = proofs.REQUESTS, proofs.TASKS, proofs.LIMIT
    bind = functools.partial
    for site in sites:
        title = f"{requests} requests, {site.name}"
        yield Step(title, 2 * requests, bind(proofs.prove_speed, pool, site))
    for site in sites:
        title = f"{tasks} tasks over a limit of {limit}, {site.name}"
        yield Step(title, tasks, bind(proofs.prove_limit, pool, site))
    yield Step("server restart in mid-run", 2 * requests, bind(proofs.prove_restart, pool))
    for site in sites:
        title = f"cancelled in mid-reply, {site.name}"
        moves = len(proofs.ABANDONED)
        yield Step(title, moves, bind(proofs.prove_clean_handover, pool, site))


async def _try_step(step: Step, screen: Screen) -> Outcome:
    held = True
    try:
        with screen.show_progress(step.title, step.moves) as advance:
            finding = await step.prove(advance)
    except Exception as error:  # noqa: BLE001 - the demo shows it and tries the next step
        held = False
        leaves = list(_leaves(error))
        if not all(isinstance(leaf, proofs.BrokenPromise) for leaf in leaves):
            traceback.print_exception(error, file=sys.stderr)
        # Many tasks may have failed in the same way: show the first failure.
        first = leaves[0]
        finding = str(first) if isinstance(first, proofs.BrokenPromise) else repr(first)
    screen.show_verdict(held=held, title=step.title, finding=finding)
    return Outcome(step.title, held, finding)


def _leaves(error: Exception) -> Iterator[Exception]:
    """Find the errors in a nursery's group, or yield the error itself."""
    if isinstance(error, ExceptionGroup):
        for member in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from _leaves(member)
    else:
        yield error
