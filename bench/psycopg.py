"""Queries to one PostgreSQL: psycopg_pool on asyncio, and our pool on trio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

import trio
from psycopg.conninfo import make_conninfo

from conpool import PoolConfig
from conpool.contrib.psycopg import AsyncConnectionPool, PsycopgDriver
from tests.servers import Postgres

from .measure import Aim, Run, Scale, Table, race

TARGET: Final = 0.9
SIZE: Final = 10


def measure_psycopg(scale: Scale) -> Table:
    """Compare the two, in turns."""
    with Postgres() as server:
        conninfo = make_conninfo(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            dbname=server.database,
        )
        return trio.run(_measure, scale, conninfo)


async def _measure(scale: Scale, conninfo: str) -> Table:
    rows: list[tuple[str, ...]] = []
    aims: list[Aim] = []
    usual = {"count": scale.pick(2_000, 500, 100), "rounds": scale.pick(9, 5, 2)}
    theirs = Theirs()
    is_compared = theirs.open(conninfo)
    config = PoolConfig(max_connections_per_endpoint=SIZE, health_check_after=60.0)
    driver = PsycopgDriver(autocommit=True)
    try:
        async with AsyncConnectionPool(conninfo, config, driver=driver) as ours:
            for tasks in (1, 20):
                runs = {"ours": _asking(ours, tasks)}
                if is_compared:
                    runs["theirs"] = theirs.asking(tasks)
                times = await race(runs, **usual)
                rows.append(
                    (
                        f"{tasks} task{'s' * (tasks > 1)}",
                        f"{times.micros('theirs'):.1f}" if is_compared else "-",
                        f"{times.micros('ours'):.1f}",
                        f"{times.ratio('theirs', 'ours'):.2f}" if is_compared else "-",
                        f"≥ {TARGET:g}",
                    )
                )
                if is_compared:
                    text = f"psycopg, {rows[-1][0]}: times as fast as psycopg_pool"
                    ratio = times.ratio("theirs", "ours")
                    aims.append(Aim(text, ratio, TARGET, is_floor=True))
    finally:
        theirs.close()
    name = "psycopg_pool is not installed"
    if is_compared:
        name = f"psycopg_pool {version('psycopg-pool')} (asyncio), µs"
    return Table(
        "A small query of one PostgreSQL",
        ("", name, "conpool, µs", "times as fast", "target"),
        rows,
        f"The client's processor time for each lease and query; {SIZE} connections, autocommit.",
        aims,
    )


async def _ask(pool: Any, count: int) -> None:
    for _ in range(count):
        async with pool.connection() as conn:
            cursor = await conn.execute("SELECT 1")
            await cursor.fetchone()


def _asking(pool: AsyncConnectionPool, tasks: int) -> Run:
    async def run(count: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(_ask, pool, count // tasks)

    return run


class Theirs:
    """psycopg_pool; its loop runs during each round, and stands still between rounds."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pool: Any = None

    def open(self, conninfo: str) -> bool:
        """Open the pool; return False if psycopg_pool is not installed."""
        try:
            module = import_module("psycopg_pool")
        except ImportError:
            return False
        options = {"min_size": SIZE, "max_size": SIZE, "kwargs": {"autocommit": True}}
        self._pool = module.AsyncConnectionPool(conninfo, open=False, **options)
        self._run(lambda: self._pool.open(wait=True))
        return True

    def asking(self, tasks: int) -> Run:
        async def ask_all(count: int) -> None:
            await asyncio.gather(*(_ask(self._pool, count // tasks) for _ in range(tasks)))

        async def run(count: int) -> None:
            self._run(lambda: ask_all(count))

        return run

    def close(self) -> None:
        if self._pool is not None:
            self._run(self._pool.close)
        self._loop.close()

    def _run(self, function: Callable[[], Awaitable[object]]) -> None:
        async def main() -> None:
            await function()

        self._loop.run_until_complete(main())
