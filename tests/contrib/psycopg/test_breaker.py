"""Sessions tell the circuit breaker what becomes of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
import trio
import trio.testing

from conpool import AnyEndpoint, CircuitBreaker, CircuitState, ConnectionPool
from conpool.contrib.psycopg import AsyncConnection, PsycopgDriver

from .databases import Database, first, lending

Session = AsyncConnection[Any]

SLEEP = "SELECT pg_sleep(60)"
END_SLEEPERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
)


@asynccontextmanager
async def feeding(
    db: Database, failures: int = 1, **options: Any
) -> AsyncGenerator[tuple[ConnectionPool[Session], AnyEndpoint]]:
    """A pool whose circuits open after so many failures in a row."""
    breaker = CircuitBreaker(failure_threshold=failures, reset_timeout=60)
    driver = PsycopgDriver(autocommit=True, **options)
    async with lending(db, driver, circuit_breaker=breaker) as (pool, endpoint, _):
        yield pool, endpoint


def is_open(pool: ConnectionPool[Session], endpoint: AnyEndpoint) -> bool:
    return pool.stats(endpoint).circuit is CircuitState.OPEN


async def lose(db: Database, pool: ConnectionPool[Session], endpoint: AnyEndpoint) -> None:
    """Have the server end a session while it has a query."""

    async def sleep() -> None:
        with pytest.raises(psycopg.OperationalError):
            async with pool.connection(endpoint) as lease:
                with pytest.raises(psycopg.OperationalError):
                    await lease.session.execute(SLEEP)
                await lease.session.commit()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleep)
        await db.wait_until_some("query LIKE 'SELECT pg_sleep%' AND state = 'active'")
        await trio.to_thread.run_sync(db.ask, END_SLEEPERS)


async def test_a_lost_connection_counts_once(db: Database) -> None:
    async with feeding(db, failures=2) as (pool, endpoint):
        await lose(db, pool, endpoint)
        assert not is_open(pool, endpoint)
        await lose(db, pool, endpoint)  # the login between them does not end the row
        assert is_open(pool, endpoint)


async def test_an_exchange_that_ends_well_ends_the_row(db: Database) -> None:
    async with feeding(db, failures=2) as (pool, endpoint):
        await lose(db, pool, endpoint)
        async with pool.connection(endpoint) as lease:
            await first(lease.session, "SELECT 1")
        await lose(db, pool, endpoint)
        assert not is_open(pool, endpoint)


async def with_wrong_sql(pool: ConnectionPool[Session], endpoint: AnyEndpoint) -> None:
    with pytest.raises(psycopg.Error):
        async with pool.connection(endpoint) as lease:
            await lease.session.execute("SELECT 1 / 0")


async def cancelled(pool: ConnectionPool[Session], endpoint: AnyEndpoint) -> None:
    async with pool.connection(endpoint) as lease:
        with trio.move_on_after(0.05):
            await lease.session.execute(SLEEP)


async def closed_by_another_task(pool: ConnectionPool[Session], endpoint: AnyEndpoint) -> None:
    async with pool.connection(endpoint) as lease, trio.open_nursery() as nursery:

        async def sleep() -> None:
            with pytest.raises(psycopg.OperationalError):
                await lease.session.execute(SLEEP)

        nursery.start_soon(sleep)
        await trio.testing.wait_all_tasks_blocked()
        await lease.session.close()


async def closed_by_the_pool(pool: ConnectionPool[Session], endpoint: AnyEndpoint) -> None:
    lease = await pool.acquire(endpoint)
    async with trio.open_nursery() as nursery:

        async def sleep() -> None:
            with pytest.raises(psycopg.OperationalError):
                await lease.session.execute(SLEEP)

        nursery.start_soon(sleep)
        await trio.testing.wait_all_tasks_blocked()
        pool.discard(lease)


async def idle_for_too_long(pool: ConnectionPool[Session], endpoint: AnyEndpoint) -> None:
    async with pool.connection(endpoint) as lease:
        await lease.session.execute("SET idle_session_timeout = 20")
        await trio.lowlevel.wait_readable(lease.session.fileno())
        with pytest.raises(psycopg.errors.IdleSessionTimeout):
            await lease.session.execute("SELECT 1")


@pytest.mark.parametrize(
    "use",
    [
        with_wrong_sql,
        cancelled,
        closed_by_another_task,
        closed_by_the_pool,
        idle_for_too_long,
    ],
)
async def test_what_a_caller_or_the_pool_does_never_counts(db: Database, use: Any) -> None:
    async with feeding(db) as (pool, endpoint):
        await use(pool, endpoint)
        assert not is_open(pool, endpoint)
    await trio.to_thread.run_sync(db.ask, END_SLEEPERS)  # nobody else has to wait for these
    await db.wait_until_none("query LIKE 'SELECT pg_sleep%'")


async def test_a_connection_that_a_check_finds_dead_does_not_count(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        session.pgconn.finish()
        raise psycopg.OperationalError("lost")

    async with feeding(db) as (pool, endpoint):
        async with pool.connection(endpoint) as lease:
            session = lease.session
        monkeypatch.setattr("conpool.contrib._psycopg.connection.drive", fail)
        with pytest.raises(psycopg.OperationalError):
            await PsycopgDriver().check(session)
        assert not is_open(pool, endpoint)


async def test_nothing_is_told_without_a_breaker(db: Database) -> None:
    async with lending(db) as (pool, endpoint, _), pool.connection(endpoint) as lease:
        assert lease.session._tell is None
