"""`conpool demo`: the pool works with a server of its own, and each promise is put to the test."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, cast

import trio

import conpool
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


def run(screen: Screen) -> int:
    """Run the demo in a trio loop of its own.

    Returns:
        0 if every promise held, 1 otherwise.
    """
    return trio.run(_show, screen)


async def _show(screen: Screen) -> int:
    started_at = trio.current_time()
    failed: list[str] = []
    with trio.move_on_after(_DEADLINE) as overtime:
        async with _open_sites() as sites, conpool.ConnectionPool(_CONFIG, name="demo") as pool:
            ports = " and ".join(f"{site.server.port} ({site.name})" for site in sites)
            screen.say(f"A keep-alive server listens on {LOOPBACK}, ports {ports}.")
            for step in plan(pool, sites):
                held = await _try_step(step, screen)
                if not held:
                    failed.append(step.title)
            screen.say(f"\n{pool.all_stats()}\n")
    if overtime.cancelled_caught:
        failed.append(f"the demo did not end within {_DEADLINE:.0f} s")
    took = f"({trio.current_time() - started_at:.1f} s)"
    screen.say(f"FAILED: {', '.join(failed)} {took}" if failed else f"Every promise held {took}.")
    return 1 if failed else 0


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


async def _try_step(step: Step, screen: Screen) -> bool:
    try:
        with screen.show_progress(step.title, step.moves) as advance:
            finding = await step.prove(advance)
    except Exception as error:  # noqa: BLE001 - the demo shows it and tries the next step
        leaves = list(_leaves(error))
        if not all(isinstance(leaf, proofs.BrokenPromise) for leaf in leaves):
            traceback.print_exception(error, file=sys.stderr)
        # Many tasks may have failed in the same way: show the first failure.
        first = leaves[0]
        finding = str(first) if isinstance(first, proofs.BrokenPromise) else repr(first)
        screen.show_verdict(held=False, title=step.title, finding=finding)
        return False
    screen.show_verdict(held=True, title=step.title, finding=finding)
    return True


def _leaves(error: Exception) -> Iterator[Exception]:
    """Find the errors in a nursery's group, or yield the error itself."""
    if isinstance(error, ExceptionGroup):
        for member in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from _leaves(member)
    else:
        yield error
