"""`PsycopgDriver` and `AsyncConnectionPool`: what a lease leaves behind, and servers that fail."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, cast
from urllib.parse import quote

import psycopg
import pytest
import trio
import trio.testing
from psycopg import pq
from psycopg.rows import dict_row

from conpool import (
    CloseReason,
    ConfigError,
    ConnectError,
    ConnectionPool,
    Endpoint,
    PoolConfig,
    ResolveError,
)
from conpool.contrib.psycopg import AsyncConnection, AsyncConnectionPool, PsycopgDriver
from tests.servers import Postgres

from .databases import Database, first, lending, open_pool

IDLE = pq.TransactionStatus.IDLE

Work = Callable[[AsyncConnection[Any]], Awaitable[object]]


# ── what a lease leaves behind ──────────────────────────────────────────────────


async def in_transaction(conn: AsyncConnection[Any]) -> None:
    await conn.execute("INSERT INTO left_behind VALUES (1)")


async def in_failed_transaction(conn: AsyncConnection[Any]) -> None:
    await in_transaction(conn)
    with pytest.raises(psycopg.errors.DivisionByZero):
        await conn.execute("SELECT 1 / 0")


async def with_habits(conn: AsyncConnection[Any]) -> None:
    await conn.set_autocommit(True)
    await conn.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
    await conn.set_read_only(True)
    await conn.set_deferrable(True)
    conn.row_factory = dict_row
    conn.prepare_threshold = None


async def in_two_phases(conn: AsyncConnection[Any]) -> None:
    await conn.tpc_begin("left behind")
    await in_transaction(conn)


async def in_prepared_two_phases(conn: AsyncConnection[Any]) -> None:
    await in_two_phases(conn)
    await conn.tpc_prepare()


async def closed(conn: AsyncConnection[Any]) -> None:
    await conn.close()


async def in_pipeline(conn: AsyncConnection[Any]) -> AbstractAsyncContextManager[object]:
    block = conn.pipeline()
    await block.__aenter__()
    await conn.execute("SELECT 1")
    return block


async def in_pipeline_at_rest(
    conn: AsyncConnection[Any],
) -> AbstractAsyncContextManager[object]:
    block = conn.pipeline()
    await block.__aenter__()
    return block


async def in_copy(conn: AsyncConnection[Any]) -> AbstractAsyncContextManager[object]:
    block = conn.cursor().copy("COPY left_behind FROM STDIN")
    await block.__aenter__()
    return block


async def in_block(conn: AsyncConnection[Any]) -> AbstractAsyncContextManager[object]:
    block = conn.transaction()
    await block.__aenter__()
    return block


KEPT: list[Work] = [in_transaction, in_failed_transaction, with_habits]
NOT_KEPT: dict[Work, CloseReason] = {
    in_two_phases: CloseReason.ERROR,
    in_prepared_two_phases: CloseReason.ERROR,
    in_block: CloseReason.ERROR,
    closed: CloseReason.INCOMPLETE,
    in_pipeline: CloseReason.INCOMPLETE,
    in_pipeline_at_rest: CloseReason.INCOMPLETE,
    in_copy: CloseReason.INCOMPLETE,
}


def name_of(value: object) -> str | None:
    return getattr(value, "__name__", None)


async def check_untouched(conn: AsyncConnection[Any]) -> None:
    assert conn.pgconn.transaction_status == IDLE
    assert not conn.autocommit
    assert (conn.isolation_level, conn.read_only, conn.deferrable) == (None, None, None)
    assert conn.prepare_threshold == 5
    assert await first(conn, "SELECT count(*) FROM left_behind") == 0


@pytest.fixture
def table(db: Database) -> None:
    with psycopg.connect(db.conninfo(), autocommit=True) as conn:
        for xid in conn.tpc_recover():
            conn.tpc_rollback(xid)
        conn.execute("DROP TABLE IF EXISTS left_behind")
        conn.execute("CREATE TABLE left_behind (n int)")


@pytest.mark.parametrize("work", KEPT, ids=name_of)
async def test_a_lease_that_leaves_this_is_undone_and_the_connection_kept(
    db: Database, table: None, work: Work
) -> None:
    async with lending(db, max_connections_per_endpoint=1) as (pool, endpoint, log):
        async with pool.connection(endpoint) as lease:
            await work(lease.session)
            pid = lease.session.info.backend_pid
        async with pool.connection(endpoint) as lease:
            assert lease.session.info.backend_pid == pid
            await check_untouched(lease.session)
        await settled(pool, endpoint)
        assert log.reasons == []


@pytest.mark.parametrize(("work", "reason"), NOT_KEPT.items(), ids=name_of)
async def test_a_lease_that_leaves_this_costs_the_connection(
    db: Database, table: None, work: Work, reason: CloseReason
) -> None:
    async with lending(db, max_connections_per_endpoint=1) as (pool, endpoint, log):
        async with pool.connection(endpoint) as lease:
            block = await work(lease.session)
        async with pool.connection(endpoint) as lease:
            assert lease.fresh
            await check_untouched(lease.session)
        assert log.reasons == [reason]
        if isinstance(block, AbstractAsyncContextManager):
            with suppress(psycopg.Error):
                await block.__aexit__(None, None, None)
    await db.wait_until_none("state <> 'idle'")


async def settled(pool: ConnectionPool[Any], endpoint: Any) -> None:
    """Wait until no reset is under way, and nothing is being closed."""
    while (stats := pool.stats(endpoint)).active or stats.closing:
        await trio.lowlevel.checkpoint()


async def test_a_lease_that_ends_while_a_task_waits_for_news_costs_the_connection(
    db: Database,
) -> None:
    async with lending(db, PsycopgDriver(autocommit=True)) as (pool, endpoint, log):
        async with trio.open_nursery() as nursery, pool.connection(endpoint) as lease:
            await lease.session.execute("LISTEN news")

            @nursery.start_soon
            async def wait(conn: AsyncConnection[Any] = lease.session) -> None:
                with pytest.raises(psycopg.OperationalError, match="closed"):
                    async for _ in conn.notifies():
                        pass

            await trio.testing.wait_all_tasks_blocked()
        await pool.drain(endpoint)
        assert log.reasons == [CloseReason.INCOMPLETE]


async def test_an_error_of_the_server_costs_no_connection(db: Database) -> None:
    async with lending(db) as (pool, endpoint, log):
        for _ in range(3):
            with pytest.raises(psycopg.errors.DivisionByZero):
                async with pool.connection(endpoint) as lease:
                    await lease.session.execute("SELECT 1 / 0")
        assert pool.stats(endpoint).total_created == 1
        assert log.reasons == []


async def test_configure_runs_once_and_reset_after_each_lease(db: Database) -> None:
    called: list[str] = []

    async def configure(conn: AsyncConnection[Any]) -> None:
        called.append("configure")
        conn.row_factory = dict_row
        await conn.execute("SET application_name = 'configured'")
        await conn.commit()

    async def reset(conn: AsyncConnection[Any]) -> None:
        called.append("reset")
        await conn.execute("RESET search_path")
        await conn.commit()

    driver = PsycopgDriver(configure=configure, reset=reset)
    async with lending(db, driver, max_connections_per_endpoint=1) as (pool, endpoint, _):
        for _ in range(2):
            async with pool.connection(endpoint) as lease:
                row = await (await lease.session.execute("SHOW application_name")).fetchone()
                assert row == {"application_name": "configured"}
        await settled(pool, endpoint)
    assert called == ["configure", "reset", "reset"]


async def test_hooks_that_leave_a_transaction_open_cost_the_connection(db: Database) -> None:
    async def leave_open(conn: AsyncConnection[Any]) -> None:
        await conn.execute("SELECT 1")

    async with lending(db, PsycopgDriver(configure=leave_open)) as (pool, endpoint, _):
        with pytest.raises(ConnectError, match="configure must end its transaction"):
            await pool.acquire(endpoint)
    async with lending(db, PsycopgDriver(reset=leave_open)) as (pool, endpoint, log):
        async with pool.connection(endpoint):
            pass
        await settled(pool, endpoint)
        assert log.reasons == [CloseReason.ERROR]


async def test_options_go_to_libpq_and_psycopg_and_the_endpoint_comes_first(db: Database) -> None:
    driver = PsycopgDriver(
        autocommit=True, row_factory=dict_row, prepare_threshold=None, application_name="driver"
    )
    sql = "SELECT current_setting('application_name') AS name"
    async with lending(db, driver) as (pool, endpoint, _):
        mine = PsycopgDriver.endpoint(db.conninfo(), application_name="endpoint")
        for target, name in ((endpoint, "driver"), (mine, "endpoint")):
            async with pool.connection(target) as lease:
                conn = lease.session
                assert conn.autocommit
                assert conn.prepare_threshold is None
                assert await (await conn.execute(sql)).fetchone() == {"name": name}


@pytest.mark.parametrize("name", ["host", "port", "user", "password", "dbname", "service"])
def test_who_connects_to_which_server_is_for_the_endpoint_to_say(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} belongs into the endpoint"):
        PsycopgDriver(**cast("Any", {name: "hunter2"}))


def test_an_unknown_option_is_refused_without_its_value() -> None:
    with pytest.raises(ConfigError, match="nonsense") as caught:
        PsycopgDriver(nonsense="hunter2")
    assert "hunter2" not in str(caught.value)


# ── checks and probes ───────────────────────────────────────────────────────────


async def test_a_check_starts_no_transaction(db: Database) -> None:
    async with lending(db) as (pool, endpoint, log):
        await pool.warm(endpoint, 1)
        async with pool.connection(endpoint) as lease:
            assert lease.session.pgconn.transaction_status == IDLE
        assert await lease_and_check(pool, endpoint)
        assert log.reasons == []


async def lease_and_check(pool: ConnectionPool[Any], endpoint: Any) -> bool:
    async with pool.connection(endpoint) as lease:
        return await lease.is_healthy()


async def test_f073_a_backend_that_was_ended_while_idle_is_not_lent(db: Database) -> None:
    async with lending(db) as (pool, endpoint, log):
        await pool.warm(endpoint, 2)
        db.ask(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        async with pool.connection(endpoint) as lease:
            assert await first(lease.session, "SELECT 1") == 1
        # The check notices an end that comes only now.
        gone = {CloseReason.UNREAD_DATA, CloseReason.PEER_CLOSED, CloseReason.UNHEALTHY}
        assert set(log.reasons) <= gone


async def test_notifications_that_nobody_has_read_cost_the_connection(db: Database) -> None:
    async with lending(db, PsycopgDriver(autocommit=True)) as (pool, endpoint, log):
        async with pool.connection(endpoint) as lease:
            await lease.session.execute("LISTEN news")
            descriptor = lease.session.fileno()
        with psycopg.connect(db.conninfo(), autocommit=True) as other:
            other.execute("NOTIFY news")
        await trio.lowlevel.wait_readable(descriptor)
        async with pool.connection(endpoint) as lease:
            assert lease.fresh
        assert log.reasons == [CloseReason.UNREAD_DATA]


# ── AsyncConnectionPool ─────────────────────────────────────────────────────────


async def test_a_block_commits_or_is_rolled_back(db: Database, table: None) -> None:
    async with open_pool(db, max_connections_per_endpoint=1) as pool:

        async def insert(number: int, error: Exception | None = None) -> None:
            async with pool.connection() as conn:
                await conn.execute("INSERT INTO left_behind VALUES (%s)", [number])
                if error is not None:
                    raise error

        await insert(1)
        with pytest.raises(ZeroDivisionError):
            await insert(2, ZeroDivisionError())
        with trio.CancelScope() as scope:
            async with pool.connection() as conn:
                await conn.execute("INSERT INTO left_behind VALUES (3)")
                scope.cancel()
                await trio.sleep_forever()
        async with pool.connection(timeout=5) as conn:
            await conn.close()  # nothing is left to commit
        async with pool.connection() as conn:
            assert await first(conn, "SELECT sum(n) FROM left_behind") == 1
        stats = pool.stats()
        assert (stats.total_created, stats.acquired) == (2, 5)
        assert "AsyncConnectionPool to conpool@127.0.0.1" in repr(pool)
        assert db.server.password not in repr(pool)
    assert pool.pool.closed


async def test_a_lock_is_free_when_the_block_has_been_left(db: Database, table: None) -> None:
    async with open_pool(db) as pool:
        with trio.CancelScope() as scope:
            async with pool.connection() as conn:
                await conn.execute("LOCK TABLE left_behind")
                scope.cancel()
                await trio.sleep_forever()
        with psycopg.connect(db.conninfo()) as other:  # at once: the pool has had no time
            other.execute("LOCK TABLE left_behind NOWAIT")


# ── servers that fail ───────────────────────────────────────────────────────────


async def test_a_wrong_password_is_shown_nowhere(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with AsyncConnectionPool(db.conninfo(password="hunter2")) as pool:
        with pytest.raises(ConnectError, match="password authentication failed") as caught:
            async with pool.connection():
                pass
        assert caught.value.phase == "open"
        shown = str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)
        shown += repr(pool) + str(pool.stats()) + str(pool.stats().to_dict()) + caplog.text
        assert "hunter2" not in shown


async def test_f022_a_name_that_nobody_knows_is_an_error_of_phase_resolve(db: Database) -> None:
    async with AsyncConnectionPool(db.conninfo(host="nowhere.invalid")) as pool:
        with pytest.raises(ResolveError, match="failed to resolve host 'nowhere.invalid'"):
            async with pool.connection():
                pass


async def test_f041_a_full_server_fails_the_dial_and_then_serves() -> None:
    with Postgres(max_connections=4, superuser_reserved_connections=0) as server:
        db = Database(server)
        async with lending(db, max_connections_per_endpoint=9) as (pool, endpoint, _):
            held = [await pool.acquire(endpoint) for _ in range(4)]
            with pytest.raises(ConnectError, match="too many clients") as caught:
                await pool.acquire(endpoint, fresh=True)
            assert isinstance(caught.value.__cause__, psycopg.OperationalError)
            for lease in held:
                pool.release(lease)
            async with pool.connection(endpoint) as lease:
                assert await first(lease.session, "SELECT 1") == 1


async def test_a_restart_breaks_what_is_under_way_and_nothing_else() -> None:
    with Postgres() as server:
        db = Database(server)
        async with lending(db, max_connections_per_endpoint=4) as (pool, endpoint, log):
            await pool.warm(endpoint, 3)

            async def wait_for_it() -> None:
                with pytest.raises(psycopg.OperationalError):
                    async with pool.connection(endpoint) as lease:
                        await lease.session.execute("SELECT pg_sleep(60)")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_for_it)
                await db.wait_until_some("state = 'active'")
                server.kill()
            server.start()
            async with pool.connection(endpoint) as lease:
                assert await first(lease.session, "SELECT 1") == 1
            assert len(log.reasons) == 3


async def test_the_unix_socket_of_the_server(db: Database) -> None:
    conninfo = db.conninfo(host=db.server.path.parent)
    endpoint = PsycopgDriver.endpoint(conninfo)
    assert str(endpoint).startswith(f"conpool@unix:{db.server.path}")
    async with (
        ConnectionPool(PoolConfig(), driver=PsycopgDriver()) as pool,
        pool.connection(endpoint) as lease,
    ):
        assert lease.session.info.host == str(db.server.path.parent)


async def test_an_endpoint_of_any_origin_is_good(db: Database) -> None:
    async with lending(db) as (pool, _, _log):
        server = db.server
        password = quote(server.password, safe="")
        url = f"postgresql://conpool:{password}@{server.host}:{server.port}/postgres"
        async with pool.connection(Endpoint.from_url(url)) as lease:
            assert await first(lease.session, "SELECT current_database()") == "postgres"


async def test_a_group_of_hosts_lends_from_one_that_is_up(db: Database, dead_port: int) -> None:
    server = db.server
    group = PsycopgDriver.group(
        db.conninfo(host=f"{server.host},{server.host}", port=f"{dead_port},{server.port}")
    )
    async with lending(db) as (pool, _, _log), pool.connection(group) as lease:
        assert lease.endpoint == group.endpoints[1]
        assert await first(lease.session, "SELECT 1") == 1
