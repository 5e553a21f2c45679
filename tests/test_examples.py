"""The examples against the real servers that they are examples for."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h11
import http_client
import manual_transaction
import postgres_client
import pytest
import trio
from pygwire import messages as pg

import conpool

from .servers import Certificates, Nginx, Postgres
from .support.examples import LOOPBACK, run_example, serving

# ── http_client ─────────────────────────────────────────────────────────────────


def test_http_example_runs_from_the_command_line(nginx: Nginx) -> None:
    printed = run_example("http_client.py", LOOPBACK, nginx.port, "/echo/7", "--requests", 30)
    assert f"{LOOPBACK}:{nginx.port}" in printed


async def test_http_requests_share_ten_connections(nginx: Nginx) -> None:
    stats = await http_client.main(LOOPBACK, nginx.port, requests=100)
    assert stats.acquired == 100
    assert stats.total_created == 10
    assert stats.total_reused == 90


async def test_http_tells_of_a_page_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    async def not_found(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with serving(not_found) as port:
        await http_client.main(LOOPBACK, port, "/gone", requests=1)
    assert "404 for /gone" in capsys.readouterr().out


async def test_http_reply_is_read_to_its_end_over_tls(
    nginx: Nginx, client_ssl: ssl.SSLContext
) -> None:
    if not nginx.has_tls:
        pytest.skip("this nginx was built without TLS")
    endpoint = conpool.Endpoint("localhost", nginx.tls_port, tls=conpool.TLS(client_ssl))
    async with conpool.ConnectionPool() as pool:
        for number in range(10):
            response = await http_client.get(pool, endpoint, f"/echo/{number}")
            assert response.status == 200
            assert response.body == f"/echo/{number}\n".encode()
        assert pool.stats(endpoint).total_created == 1


async def test_http_connection_is_retired_when_nginx_means_to_close(
    certificates: Certificates,
) -> None:
    with Nginx(certificates, keepalive_requests=20) as nginx:
        endpoint = conpool.Endpoint(LOOPBACK, nginx.port)
        async with conpool.ConnectionPool() as pool:
            for number in range(60):
                response = await http_client.get(pool, endpoint, f"/echo/{number}")
                assert response.body == f"/echo/{number}\n".encode()
            stats = pool.stats(endpoint)
    assert stats.total_created == 3
    assert stats.closed_by_reason[conpool.CloseReason.DISCARDED] == 3


REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def test_http_request_is_sent_again_when_the_kept_connection_was_stale() -> None:
    accepted = 0

    async def answer_once(stream: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        await stream.receive_some()
        await stream.send_all(REPLY)
        await stream.receive_some()  # the next request, which crosses the end of the connection

    async with serving(answer_once) as port, conpool.ConnectionPool() as pool:
        endpoint = conpool.Endpoint(LOOPBACK, port)
        for _ in range(2):
            assert (await http_client.get(pool, endpoint)).body == b"hi"
    assert accepted == 2


async def test_http_failure_of_a_new_connection_is_not_tried_again() -> None:
    accepted = 0

    async def hang_up(stream: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        await stream.receive_some()

    async with serving(hang_up) as port, conpool.ConnectionPool() as pool:
        with pytest.raises(h11.RemoteProtocolError):
            await http_client.get(pool, conpool.Endpoint(LOOPBACK, port))
    assert accepted == 1


async def test_http_connection_with_surplus_bytes_is_retired() -> None:
    async def say_too_much(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            await stream.send_all(REPLY + b"and more")

    async with serving(say_too_much) as port, conpool.ConnectionPool() as pool:
        endpoint = conpool.Endpoint(LOOPBACK, port)
        for _ in range(3):
            assert (await http_client.get(pool, endpoint)).body == b"hi"
        assert pool.stats(endpoint).total_created == 3


# ── postgres_client ─────────────────────────────────────────────────────────────


def account(server: Postgres) -> tuple[str, int, str, str, str]:
    return LOOPBACK, server.port, server.user, server.password, server.database


def test_postgres_example_runs_from_the_command_line(postgres: Postgres) -> None:
    arguments = (LOOPBACK, postgres.port, postgres.user, postgres.database)
    printed = run_example("postgres_client.py", *arguments, PGPASSWORD=postgres.password)
    assert "100 queries, 20 logins" in printed


async def test_postgres_hundred_queries_need_twenty_logins(postgres: Postgres) -> None:
    db = postgres_client.Database(*account(postgres))
    backends: list[str | None] = []

    async def ask() -> None:
        [(backend,)] = await db.query("SELECT pg_backend_pid()")
        backends.append(backend)

    async with db.pool:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        stats = db.pool.stats(db.endpoint)
    assert len(backends) == 100
    assert len(set(backends)) == db.driver.logins == stats.total_created == 20
    assert stats.total_reused == 80


async def test_postgres_main_squares_numbers(postgres: Postgres) -> None:
    assert await postgres_client.main(*account(postgres)) == 20


async def test_postgres_wrong_statement_costs_no_connection(postgres: Postgres) -> None:
    db = postgres_client.Database(*account(postgres))
    async with db.pool:
        with pytest.raises(postgres_client.SQLError, match="22012"):
            await db.query("SELECT 1 / $1::int", 0)
        assert await db.query("SELECT $1::text, $2::text", "it's", None) == [("it's", None)]
        assert db.pool.stats(db.endpoint).total_created == db.driver.logins == 1


async def test_postgres_open_transaction_is_not_handed_on(postgres: Postgres) -> None:
    db = postgres_client.Database(*account(postgres))
    async with db.pool:
        await db.query("BEGIN")
        assert await db.query("SELECT 1") == [("1",)]
        await db.pool.drain()  # the server is told to stop first
        stats = db.pool.stats(db.endpoint)
        assert stats.closed_by_reason[conpool.CloseReason.INCOMPLETE] == 1
        assert stats.total_created == db.driver.logins == 2


async def test_postgres_last_words_of_the_server_are_raised(postgres: Postgres) -> None:
    db = postgres_client.Database(*account(postgres))
    async with db.pool:
        with pytest.raises(postgres_client.SQLError, match="57P01"):
            await db.query("SELECT pg_terminate_backend(pg_backend_pid())")
        assert await db.query("SELECT 1") == [("1",)]


async def test_postgres_wrong_password_is_told(postgres: Postgres) -> None:
    db = postgres_client.Database(LOOPBACK, postgres.port, postgres.user, "wrong", "postgres")
    async with db.pool:
        with pytest.raises(conpool.ConnectError, match="28P01") as caught:
            await db.query("SELECT 1")
    assert caught.value.phase == "open"
    assert isinstance(caught.value.__cause__, postgres_client.SQLError)
    assert db.driver.logins == 0


async def test_postgres_session_forgets_the_settings_of_its_last_lease(postgres: Postgres) -> None:
    db = postgres_client.Database(*account(postgres))
    async with db.pool:
        await db.query("SET application_name = 'mine'")
        assert await db.query("SHOW application_name") == [("",)]
        assert db.driver.logins == 1


async def test_postgres_idle_session_is_checked(postgres: Postgres) -> None:
    db = postgres_client.Database(*account(postgres))
    async with db.pool, db.pool.connection(db.endpoint) as conn:
        assert await conn.is_healthy()


async def test_postgres_query_that_is_given_up_is_stopped(postgres: Postgres) -> None:
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = $1"
    db = postgres_client.Database(*account(postgres))
    async with db.pool:
        with trio.move_on_after(0.2) as scope:
            await db.query("SELECT pg_sleep(600)")
        assert scope.cancelled_caught
        with trio.fail_after(10):
            await db.pool.drain()
            while await db.query(running, "SELECT pg_sleep(600)") != [("0",)]:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert db.pool.stats(db.endpoint).closed_by_reason[conpool.CloseReason.CANCELLED] == 1


ENDPOINT = conpool.Endpoint("db.example", 5432)


async def test_postgres_server_that_asks_for_no_password_is_not_trusted() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(pg.AuthenticationOk().to_wire())
    with pytest.raises(postgres_client.SQLError, match="no place in a SCRAM login"):
        await postgres_client.Session(ours, ENDPOINT).log_in(conpool.Login("me", "secret", "mine"))


async def test_postgres_end_of_the_stream_breaks_the_connection() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_eof()
    with pytest.raises(trio.BrokenResourceError, match="hung up"):
        await postgres_client.Session(ours, ENDPOINT).log_in(conpool.Login("me", "secret", "mine"))


ALL = "SELECT name, balance FROM conpool_account"

# ── manual_transaction ──────────────────────────────────────────────────────────


def test_transaction_example_runs_from_the_command_line(postgres: Postgres) -> None:
    arguments = (LOOPBACK, postgres.port, postgres.user, postgres.database)
    printed = run_example("manual_transaction.py", *arguments, PGPASSWORD=postgres.password)
    assert "rolled back: 23514" in printed
    assert "'Ada': 70" in printed


async def test_transaction_that_is_refused_moves_nothing(postgres: Postgres) -> None:
    assert await manual_transaction.main(*account(postgres)) == {"Ada": 70, "Bob": 30}


async def test_transaction_keeps_its_connection_after_commit_and_rollback(
    postgres: Postgres,
) -> None:
    async with accounts(postgres) as db:
        await manual_transaction.transfer(db, 30, "Ada", "Bob")
        with pytest.raises(postgres_client.SQLError, match="23514"):
            await manual_transaction.transfer(db, 1000, "Ada", "Bob")
        assert await balances(db) == {"Ada": "70", "Bob": "30"}
        assert db.pool.stats(db.endpoint).total_created == 1


async def test_transaction_that_is_cancelled_discards_its_connection(postgres: Postgres) -> None:
    async with accounts(postgres) as db:
        # Somebody else holds Ada's row, so that the transfer stops between its two halves.
        async with db.pool.connection(db.endpoint) as other:
            await other.session.query("BEGIN")
            await other.session.query(f"{ALL} WHERE name = 'Ada' FOR UPDATE")
            with trio.move_on_after(0.2) as scope:
                await manual_transaction.transfer(db, 30, "Ada", "Bob")
            assert scope.cancelled_caught
            await other.session.query("ROLLBACK")
        await db.pool.drain()  # the server is told to stop first
        stats = db.pool.stats(db.endpoint)
        assert stats.closed_by_reason[conpool.CloseReason.DISCARDED] == 1
        assert await balances(db) == {"Ada": "100", "Bob": "0"}


@asynccontextmanager
async def accounts(server: Postgres) -> AsyncIterator[postgres_client.Database]:
    """The table of `manual_transaction`, for one test."""
    db = postgres_client.Database(*account(server))
    async with db.pool:
        await db.query("CREATE TABLE conpool_account (name text, balance int CHECK (balance >= 0))")
        try:
            await db.query("INSERT INTO conpool_account VALUES ('Ada', 100), ('Bob', 0)")
            yield db
        finally:
            with trio.CancelScope(shield=True):
                await db.query("DROP TABLE conpool_account")


async def balances(db: postgres_client.Database) -> dict[str | None, str | None]:
    rows = await db.query(ALL)
    return {row[0]: row[1] for row in rows}
