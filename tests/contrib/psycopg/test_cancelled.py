"""Operations that are cancelled: the server stops, and the connection is usable or closed."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

import psycopg
import pytest
import trio
from psycopg import pq

from conpool.contrib.psycopg import AsyncConnection, AsyncConnectionPool

from .databases import PATIENCE, Database, first, lending, open_pool


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than the second that a server usually has to stop."""
    monkeypatch.setattr(AsyncConnection, "cancel_timeout", PATIENCE)


IDLE = pq.TransactionStatus.IDLE
INTRANS = pq.TransactionStatus.INTRANS
SLEEPS = "state = 'active' AND query LIKE '%pg_sleep%'"

Operation = Callable[[AsyncConnection[Any]], Awaitable[object]]
ENDLESS_QUERY = "SELECT repeat('x', 1000), generate_series(1, 100000000)"
ENDLESS = f"COPY ({ENDLESS_QUERY}) TO STDOUT"


async def execute(conn: AsyncConnection[Any]) -> None:
    await conn.execute("SELECT pg_sleep(60)")


async def execute_many(conn: AsyncConnection[Any]) -> None:
    await conn.cursor().executemany("SELECT pg_sleep(%s)", [(0,), (60,), (60,)])


async def stream(conn: AsyncConnection[Any]) -> None:
    async for _ in conn.cursor().stream("SELECT n, pg_sleep(n / 3) FROM generate_series(1, 99) n"):
        await trio.lowlevel.checkpoint()


async def in_pipeline(conn: AsyncConnection[Any]) -> None:
    async with conn.pipeline():
        cursors = [await conn.execute("SELECT pg_sleep(60)") for _ in range(3)]
        await cursors[0].fetchone()


async def beside_a_pipeline(conn: AsyncConnection[Any]) -> None:
    async with conn.pipeline() as pipeline:
        await conn.execute("SELECT pg_sleep(60)")
        await pipeline.sync()


async def copy_out(conn: AsyncConnection[Any]) -> None:
    async with conn.cursor().copy(ENDLESS) as copy:
        async for _ in copy:
            pass


async def copy_out_beside(conn: AsyncConnection[Any]) -> None:
    async with conn.cursor().copy(ENDLESS) as copy:
        await copy.read()
        await trio.sleep_forever()


async def copy_in(conn: AsyncConnection[Any]) -> None:
    async with conn.cursor().copy("COPY wide FROM STDIN") as copy:
        while True:
            await copy.write_row(["x" * 1000])


async def copy_in_beside(conn: AsyncConnection[Any]) -> None:
    async with conn.cursor().copy("COPY wide FROM STDIN") as copy:
        await copy.write_row(["x"])
        await trio.sleep_forever()


async def server_side_cursor(conn: AsyncConnection[Any]) -> None:
    async with conn.transaction(), conn.cursor("c") as cursor:
        await cursor.execute("SELECT pg_sleep(n) FROM generate_series(0, 60) n")
        async for _ in cursor:
            pass


async def in_transaction(conn: AsyncConnection[Any]) -> None:
    async with conn.transaction(), conn.transaction():
        await conn.execute("INSERT INTO wide VALUES ('lost')")
        await conn.execute("SELECT pg_sleep(60)")


async def beside_a_transaction(conn: AsyncConnection[Any]) -> None:
    async with conn.transaction():
        await conn.execute("INSERT INTO wide VALUES ('lost')")
        await trio.sleep_forever()


async def prepared(conn: AsyncConnection[Any]) -> None:
    for _ in range(3):
        await conn.execute("SELECT pg_sleep(0)", prepare=True)
    await conn.execute("SELECT pg_sleep(60)", prepare=True)


OPERATIONS: list[Operation] = [
    execute,
    execute_many,
    stream,
    in_pipeline,
    beside_a_pipeline,
    copy_out,
    copy_out_beside,
    copy_in,
    copy_in_beside,
    server_side_cursor,
    in_transaction,
    beside_a_transaction,
    prepared,
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
async def test_f088_the_server_stops_and_the_connection_is_usable(
    db: Database, operation: Operation
) -> None:
    async with await db.connect() as conn:
        await conn.execute("CREATE TEMP TABLE wide (text text)")
        for seconds in (0.0, 0.001, 0.02, 0.05):
            with trio.fail_after(PATIENCE), trio.move_on_after(seconds) as scope:
                await operation(conn)
            assert scope.cancelled_caught
            assert conn.pgconn.transaction_status == IDLE
            assert conn.pgconn.pipeline_status == pq.PipelineStatus.OFF
            assert not conn.lock.locked()
            assert await first(conn, "SELECT count(*) FROM wide") == 0
        await db.wait_until_none(SLEEPS)


async def test_f088_at_any_moment_of_many_operations(db: Database) -> None:
    """Cancelled after each number of steps: the next question gets its own answer."""

    async def work(conn: AsyncConnection[Any]) -> None:
        async with conn.transaction():
            await conn.execute("INSERT INTO wide VALUES (%s)", ["x"])
            async with conn.pipeline():
                await conn.execute("SELECT 1")
                await conn.execute("SELECT 2")
            async with conn.cursor().copy("COPY wide FROM STDIN") as copy:
                await copy.write_row(["y"])
        async with conn.cursor().copy("COPY wide TO STDOUT") as copy:
            assert [row async for row in copy.rows()]

    async with await db.connect() as conn:
        await conn.execute("CREATE TEMP TABLE wide (text text)")
        for steps in itertools.count():
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, scope, steps)
                with scope:
                    await work(conn)
                nursery.cancel_scope.cancel()
            assert conn.pgconn.transaction_status == IDLE
            assert await first(conn, "SELECT %s::int", steps) == steps
            if not scope.cancelled_caught:
                break
        assert steps > 3
        assert await first(conn, "SELECT count(*) FROM wide") % 2 == 0


async def _cancel_after(scope: trio.CancelScope, steps: int) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def test_a_savepoint_is_rolled_back_and_the_transaction_goes_on(db: Database) -> None:
    async with await db.connect() as conn:
        await conn.execute("CREATE TEMP TABLE t (n int)")
        async with conn.transaction():
            await conn.execute("INSERT INTO t VALUES (1)")
            with trio.move_on_after(0.02):
                async with conn.transaction("inner"):
                    await conn.execute("INSERT INTO t VALUES (2)")
                    await execute(conn)
            with pytest.raises(ZeroDivisionError):
                async with conn.transaction():
                    await conn.execute("INSERT INTO t VALUES (3)")
                    raise ZeroDivisionError
            async with conn.transaction():
                await conn.execute("INSERT INTO t VALUES (4)")
        assert await first(conn, "SELECT sum(n) FROM t") == 5


async def test_a_commit_in_a_scope_that_is_cancelled_already_is_a_rollback(db: Database) -> None:
    async with await db.connect() as conn:
        await conn.execute("CREATE TEMP TABLE t (n int)")
        with trio.CancelScope() as scope:
            async with conn.transaction():
                await conn.execute("INSERT INTO t VALUES (1)")
                scope.cancel()
        assert conn.pgconn.transaction_status == IDLE
        assert await first(conn, "SELECT count(*) FROM t") == 0


async def test_without_autocommit_the_transaction_has_failed_and_can_be_rolled_back(
    db: Database,
) -> None:
    async with await AsyncConnection.connect(db.conninfo()) as conn:
        with trio.move_on_after(0.02):
            await conn.execute("SELECT pg_sleep(60)")
        assert conn.pgconn.transaction_status == pq.TransactionStatus.INERROR
        await conn.rollback()
        assert await first(conn, "SELECT 1") == 1


async def test_a_server_that_does_not_stop_costs_cancel_timeout_and_the_connection(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncConnection, "cancel_timeout", 0.05)
    conn = await db.connect()
    db.server.pause()
    try:
        started = trio.current_time()
        with trio.move_on_after(0.02) as scope:
            await conn.execute("SELECT 1")
        assert scope.cancelled_caught
        assert trio.current_time() - started >= 0.07
        assert conn.closed
    finally:
        db.server.resume()


async def test_a_request_to_stop_can_itself_take_too_long(db: Database) -> None:
    async with await db.connect() as conn:
        await conn.cancel_safe()  # nothing is under way
        db.server.pause()
        try:
            with pytest.raises(psycopg.errors.CancellationTimeout):
                await conn.cancel_safe(timeout=0.01)
        finally:
            db.server.resume()
        await conn.close()
        await conn.cancel_safe()


async def test_each_answer_belongs_to_its_question_and_nothing_runs_on(db: Database) -> None:
    """A tenth is cancelled at random. `CONPOOL_QUESTIONS=10000` asks more."""
    count = int(os.environ.get("CONPOOL_QUESTIONS", "500"))
    run = Questions(db, random.Random(11))
    await run.ask_all(count)
    assert count * 0.8 < run.answered < count
    assert run.longest < run.close_timeout
    print(f"{run.answered} of {count} answered; the longest query took {run.longest:.3f} s")


class Questions:
    """Questions over one pool, of which a tenth are given up; the answers are checked."""

    close_timeout = 5.0
    most_patience = 0.01

    def __init__(self, db: Database, rng: random.Random) -> None:
        self.answered = 0
        self.longest = 0.0
        self._db = db
        self._rng = rng

    async def ask_all(self, count: int) -> None:
        async with (
            open_pool(
                self._db, max_connections_per_endpoint=10, close_timeout=self.close_timeout
            ) as pool,
            trio.open_nursery() as watch,
        ):
            watch.start_soon(self._watch)
            async with trio.open_nursery() as nursery:
                for task in range(20):
                    nursery.start_soon(self._work, pool, range(task, count, 20))
            watch.cancel_scope.cancel()
        with trio.fail_after(self.close_timeout):
            while await self._db.count(SLEEPS):  # noqa: ASYNC110 - the server tells nobody
                await trio.sleep(0.01)

    async def _work(self, pool: AsyncConnectionPool, numbers: range) -> None:
        for number in numbers:
            if self._rng.random() < 0.1:
                with trio.move_on_after(self._rng.uniform(0, self.most_patience)):
                    await self._ask(pool, number, "pg_sleep(30)")
            else:
                await self._ask(pool, number, "pg_sleep(0)")

    async def _ask(self, pool: AsyncConnectionPool, number: int, nap: str) -> None:
        async with pool.connection() as conn:
            cursor = await conn.execute(f"SELECT %s::int, {nap}".encode(), [number])
            row = await cursor.fetchone()
            assert row is not None
            assert row[0] == number
            self.answered += 1

    async def _watch(self) -> None:
        """Look for how long abandoned queries run, at the server."""
        sql = (
            "SELECT extract(epoch FROM max(clock_timestamp() - query_start))::float"
            f" FROM pg_stat_activity WHERE {SLEEPS} AND pid <> pg_backend_pid()"
        )
        async with await self._db.connect() as conn:
            while True:
                self.longest = max(self.longest, await first(conn, sql) or 0.0)
                await trio.sleep(0.001)


async def test_a_query_that_another_task_left_under_way_is_stopped_before_the_close(
    db: Database,
) -> None:
    async with lending(db, close_timeout=5) as (pool, endpoint, log):
        async with trio.open_nursery() as nursery, pool.connection(endpoint) as lease:

            @nursery.start_soon
            async def abandon(conn: AsyncConnection[Any] = lease.session) -> None:
                with pytest.raises(psycopg.Error):
                    await conn.execute("SELECT pg_sleep(60)")

            await db.wait_until_some(SLEEPS)
        await db.wait_until_none(SLEEPS)
        await pool.drain(endpoint)
        assert len(log.reasons) == 1


async def test_what_an_exception_leaves_in_the_middle_is_stopped_too(db: Database) -> None:
    async with await db.connect() as conn:
        with pytest.raises(ZeroDivisionError):
            rows = cast("AsyncGenerator[Any]", conn.cursor().stream(ENDLESS_QUERY))
            async with aclosing(rows):
                async for _ in rows:
                    raise ZeroDivisionError
        assert conn.pgconn.transaction_status == IDLE
        with pytest.raises(ZeroDivisionError):
            async with conn.cursor().copy(ENDLESS) as copy:
                await copy.read()
                raise ZeroDivisionError
        assert await first(conn, "SELECT 1") == 1


async def test_a_transaction_in_a_pipeline_is_rolled_back(db: Database) -> None:
    async with await db.connect() as conn:
        await conn.execute("CREATE TEMP TABLE t (n int)")
        async with conn.pipeline():
            async with conn.transaction():
                await conn.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(ZeroDivisionError):
                async with conn.transaction():
                    await conn.execute("INSERT INTO t VALUES (2)")
                    raise ZeroDivisionError
        with trio.CancelScope() as scope:
            async with conn.pipeline(), conn.transaction():
                await conn.execute("INSERT INTO t VALUES (3)")
                scope.cancel()
                await trio.sleep_forever()
        assert conn.pgconn.pipeline_status == pq.PipelineStatus.OFF
        assert await first(conn, "SELECT sum(n) FROM t") == 1
