"""`examples/mariadb_client.py` against a real MariaDB."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

import conpool
from conpool import CloseReason

from .servers import MariaDB
from .support.examples import LOOPBACK, run_example

pytest.importorskip("trio_mysql", reason="trio-mysql is not installed")

import mariadb_client
from trio_mysql.cursors import SSCursor
from trio_mysql.err import MySQLError

LOGIN = conpool.Login("root", "", "mysql")


def endpoint_of(server: MariaDB, login: conpool.Login = LOGIN) -> conpool.Endpoint:
    return conpool.Endpoint(LOOPBACK, server.port, login=login)


@pytest.fixture
async def db(mariadb: MariaDB) -> AsyncIterator[mariadb_client.Database]:
    made = mariadb_client.Database(endpoint_of(mariadb))
    async with made.pool:
        yield made


def test_example_runs_from_the_command_line(mariadb: MariaDB) -> None:
    arguments = (LOOPBACK, mariadb.port, "root", "mysql")
    printed = run_example("mariadb_client.py", *arguments, MYSQL_PWD="")
    assert "100 queries, 20 logins" in printed


async def test_wrong_statement_costs_no_connection(db: mariadb_client.Database) -> None:
    with pytest.raises(MySQLError, match="1064"):
        await db.fetch("SELEKT")
    assert await db.fetch("SELECT %s, %s", "it's", None) == [("it's", None)]
    assert db.pool.stats(db.endpoint).total_created == 1


async def test_wrong_password_is_told(mariadb: MariaDB) -> None:
    with_password = conpool.Login("root", "secret-word", "mysql")
    db = mariadb_client.Database(endpoint_of(mariadb, with_password))
    async with db.pool:
        with pytest.raises(conpool.ConnectError, match="1045") as caught:
            await db.fetch("SELECT 1")
    assert caught.value.phase == "open"
    assert "secret-word" not in str(caught.value)


async def test_logs_in_with_a_password_over_a_unix_socket(
    mariadb: MariaDB, db: mariadb_client.Database
) -> None:
    await db.fetch("CREATE USER me@localhost IDENTIFIED BY 'secret'")
    try:
        login = conpool.Login("me", "secret")
        endpoint = conpool.UnixEndpoint(mariadb.folder / "mariadb.sock", login=login)
        mine = mariadb_client.Database(endpoint)
        async with mine.pool:
            assert await mine.fetch("SELECT current_user()") == [("me@localhost",)]
            assert await mine.fetch("SELECT database()") == [(None,)]
    finally:
        with trio.CancelScope(shield=True):
            await db.fetch("DROP USER me@localhost")


async def test_session_forgets_what_its_last_lease_has_set(db: mariadb_client.Database) -> None:
    async with db.pool.connection(db.endpoint) as conn:
        session = conn.session
        await session.fetch("SET @mine = 1, autocommit = 0, NAMES latin1")
        await session.fetch("CREATE TEMPORARY TABLE mine (n int)")
        await session.fetch("SELECT GET_LOCK('mine', 0)")
        await session.fetch("USE information_schema")
    settings = "@mine, @@autocommit, @@character_set_client, database(), IS_FREE_LOCK('mine')"
    assert await db.fetch(f"SELECT {settings}") == [(None, 1, "utf8mb4", "mysql", 1)]
    with pytest.raises(MySQLError, match="1146"):
        await db.fetch("SELECT * FROM mine")
    assert db.pool.stats(db.endpoint).total_created == 1


async def test_transaction_commits_or_rolls_back(db: mariadb_client.Database) -> None:
    await db.fetch("CREATE TABLE conpool_words (word text)")
    try:
        async with db.pool.connection(db.endpoint) as conn, conn.session.transaction():
            await conn.session.fetch("INSERT INTO conpool_words VALUES ('kept')")
        with pytest.raises(MySQLError, match="1064"):
            async with db.pool.connection(db.endpoint) as conn, conn.session.transaction():
                await conn.session.fetch("INSERT INTO conpool_words VALUES ('lost')")
                await conn.session.fetch("SELEKT")
        assert await db.fetch("SELECT * FROM conpool_words") == [("kept",)]
        assert db.pool.stats(db.endpoint).total_created == 1
    finally:
        with trio.CancelScope(shield=True):
            await db.fetch("DROP TABLE conpool_words")


async def test_open_transaction_is_not_handed_on(db: mariadb_client.Database) -> None:
    await db.fetch("BEGIN")
    assert await db.fetch("SELECT 1") == [(1,)]
    await db.pool.drain()  # the server is told to stop first
    stats = db.pool.stats(db.endpoint)
    assert stats.closed_by_reason[CloseReason.INCOMPLETE] == 1
    assert stats.total_created == 2


@pytest.mark.parametrize("have_arrived", [True, False])
async def test_rows_that_nobody_has_fetched_are_not_handed_on(
    db: mariadb_client.Database, have_arrived: bool
) -> None:
    async with db.pool.connection(db.endpoint) as conn:
        cursor = conn.session.cursor(SSCursor)
        await cursor.execute("SELECT seq FROM seq_1_to_10")
        assert await cursor.fetchone() == (1,)
        if not have_arrived:
            del conn.session._rbuf[conn.session._rbuf_offset :]
    await db.pool.drain()
    assert db.pool.stats(db.endpoint).closed_by_reason[CloseReason.INCOMPLETE] == 1


async def test_query_that_is_given_up_is_stopped_at_the_server(
    db: mariadb_client.Database,
) -> None:
    running = "SELECT count(*) FROM information_schema.processlist WHERE info = %s"
    sleep = "SELECT SLEEP(600)"
    kills = "SHOW GLOBAL STATUS LIKE 'Com_kill'"
    [(_, before)] = await db.fetch(kills)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.fetch, sleep)
        with trio.fail_after(10):
            while await db.fetch(running, sleep) != [(1,)]:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    with trio.fail_after(10):
        while await db.fetch(running, sleep) != [(0,)]:  # noqa: ASYNC110
            await trio.sleep(0.01)
    await db.pool.drain()  # the driver has to hear of the success
    assert db.pool.stats(db.endpoint).closed_by_reason[CloseReason.CANCELLED] == 1
    # The server itself would notice after some seconds, but only while it sleeps.
    assert await db.fetch(kills) == [("Com_kill", str(int(before) + 1))]


async def test_query_that_is_cancelled_in_mid_send_is_not_handed_on(
    db: mariadb_client.Database,
) -> None:
    with trio.CancelScope() as scope:
        async with db.pool.connection(db.endpoint) as conn:
            scope.cancel()
            await conn.session.fetch("SELECT 1")
    assert scope.cancelled_caught
    assert await db.fetch("SELECT 2") == [(2,)]
    assert db.pool.stats(db.endpoint).total_created == 2


async def test_idle_session_is_checked(db: mariadb_client.Database) -> None:
    async with db.pool.connection(db.endpoint) as conn:
        assert await conn.is_healthy()


async def test_session_that_the_server_has_ended_is_replaced(db: mariadb_client.Database) -> None:
    async with db.pool.connection(db.endpoint) as conn, db.pool.connection(db.endpoint) as other:
        await conn.session.fetch("KILL %s", other.session.thread_id())
        await trio.lowlevel.wait_readable(other.session.stream.socket)
    for _ in range(3):
        assert await db.fetch("SELECT 1") == [(1,)]
    stats = db.pool.stats(db.endpoint)
    assert (stats.total_created, stats.total_closed) == (2, 1)


async def test_endpoint_with_tls_is_refused(mariadb: MariaDB) -> None:
    db = mariadb_client.Database(conpool.Endpoint(LOOPBACK, mariadb.port, tls=True))
    async with db.pool:
        with pytest.raises(conpool.ConnectError, match="does not speak TLS"):
            await db.fetch("SELECT 1")
