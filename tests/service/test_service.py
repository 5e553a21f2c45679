"""`examples/service` with real databases, which go away and come back."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import trio

from tests.servers import MariaDB, Postgres
from tests.support.examples import LOOPBACK

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("hypercorn", reason="hypercorn is not installed")
pytest.importorskip("psycopg", reason="psycopg is not installed")
pytest.importorskip("starlette", reason="Starlette is not installed")
pytest.importorskip("trio_mysql", reason="trio-mysql is not installed")

import mariadb_client
from service.health import FRESH, PATIENCE

import conpool

from .running import Load, Service, wait_for_health

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it is ended by SIGTERM")


@pytest.fixture(scope="module")
def service(postgres: Postgres, mariadb: MariaDB) -> Iterator[Service]:
    with Service(postgres, mariadb) as running:
        yield running


@pytest.fixture
def down() -> Iterator[Postgres]:
    """A PostgreSQL that has a port, and is down."""
    with Postgres() as server:
        server.kill()
        yield server


async def test_it_tells_of_its_databases(service: Service) -> None:
    async with service.client() as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        answer = await client.get("/health/detailed")
        assert answer.status_code == 200
        checks = answer.json()["checks"]
        assert checks["postgres"]["result"].startswith("PostgreSQL ")
        assert checks["mariadb"]["result"].startswith("MariaDB ")
        assert checks["postgres"]["seconds"] > 0
        assert (await client.get("/now")).json()["now"].startswith("20")
        (shown, _) = (await client.get("/status/stats.json")).json()["pools"]
        assert shown["name"] == "postgres"


async def test_it_shows_its_environment_without_passwords(
    service: Service, postgres: Postgres
) -> None:
    async with service.client() as client:
        answer = await client.get("/diagnostic")
    url = answer.json()["environment"]["DATABASE_URL"]
    assert url == f"postgresql://conpool@{LOOPBACK}:{postgres.port}/postgres"
    assert "canary" not in answer.text + service.log


async def test_hundreds_of_thumbnails_take_twenty_connections(
    service: Service, mariadb: MariaDB
) -> None:
    login = conpool.Login("root", "", "mysql")
    db = mariadb_client.Database(conpool.Endpoint(LOOPBACK, mariadb.port, login=login))
    answers: list[tuple[int, bytes]] = []

    async def ask() -> None:
        answer = await client.get("/images/1/thumbnail")
        answers.append((answer.status_code, answer.content[:4]))

    async with db.pool, service.client() as client:
        # It takes its time, so that the requests meet at the pool.
        await db.fetch(
            "CREATE VIEW images AS SELECT seq AS id, 64 AS width, 48 AS height,"
            " CAST(REPEAT('abc', 64 * 48) AS BINARY) AS pixels"
            " FROM seq_1_to_1 WHERE SLEEP(0.25) = 0"
        )
        try:
            assert (await client.get("/images/2/thumbnail")).status_code == 404
            await db.fetch("FLUSH STATUS")  # it counts from here
            async with trio.open_nursery() as nursery:
                for _ in range(300):
                    nursery.start_soon(ask)
            [(_, most)] = await db.fetch("SHOW GLOBAL STATUS LIKE 'Max_used_connections'")
        finally:
            with trio.CancelScope(shield=True):
                await db.fetch("DROP VIEW images")
    assert answers == [(200, b"\x89PNG")] * 300
    assert 2 <= int(most) <= 20 + 1  # this test has one itself


async def test_it_starts_without_its_database_and_recovers(down: Postgres) -> None:
    with Service(down) as service:
        async with service.client() as client:
            assert (await client.get("/health")).status_code == 200
            answer = await client.get("/health/detailed")
            assert (answer.status_code, answer.json()["status"]) == (503, "failing")
            answer = await client.get("/now")
            assert (answer.status_code, answer.json()["error"]) == (503, "connection")
            assert answer.headers["retry-after"] == "1"
            answer = await client.get("/images/1/thumbnail")
            assert (answer.status_code, answer.json()["error"]) == (500, "configuration")
            await trio.to_thread.run_sync(down.start)
            assert await wait_for_health(client, 200) < 1.0
            with trio.fail_after(10):
                while (await client.get("/now")).status_code != 200:
                    pass
        service.terminate()
        assert await service.exit_code() == 0


def test_an_answer_about_health_is_never_older_than_a_second() -> None:
    assert FRESH + PATIENCE < 1.0


async def test_under_load_its_database_stops_and_starts(down: Postgres) -> None:
    await trio.to_thread.run_sync(down.start)
    with Service(down) as service:
        load = Load(service, "/now")
        async with service.client() as client, trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(load.run)
            await load.wait("200", 50)
            for end in (down.stop, down.kill):
                await trio.to_thread.run_sync(end)
                assert await wait_for_health(client, 503) < 1.0
                await load.wait("503", 12)
                await trio.to_thread.run_sync(down.start)
                assert await wait_for_health(client, 200) < 1.0
                await load.wait("200", 50)
            down.pause()  # it accepts, and says nothing
            try:
                assert await wait_for_health(client, 503) < 1.0
                (check,) = (await client.get("/health/detailed")).json()["checks"].values()
                assert check["error"] == f"no answer within {PATIENCE * 1000:.0f}ms"
            finally:
                down.resume()
            await load.wait("200", 50)
            load.stop()
        assert not load.answers["hung"]
        assert set(load.answers) <= {"200", "503"}
        service.terminate()
        assert await service.exit_code() == 0


async def test_under_load_it_is_killed_and_restarted(postgres: Postgres) -> None:
    with Service(postgres) as service:
        load = Load(service, "/now")
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(load.run)
            for end in (service.kill, service.stop):
                await load.wait("200", 50)
                await trio.to_thread.run_sync(end)
                await load.wait("away", 1)
                await trio.to_thread.run_sync(service.start)
            await load.wait("200", 50)
            load.stop()
        assert set(load.answers) <= {"200", "away"}


async def test_sigterm_waits_for_requests_in_flight(postgres: Postgres) -> None:
    with Service(postgres) as service:
        statuses: list[int] = []

        async def nap() -> None:
            statuses.append((await client.get("/nap/0.5")).status_code)

        async with service.client() as client:
            async with trio.open_nursery() as nursery:
                for _ in range(30):  # more than there are connections
                    nursery.start_soon(nap)
                busy = "active"
                with trio.fail_after(10):
                    while busy:
                        shown = (await client.get("/status/stats.json")).json()["pools"][0]
                        if shown["endpoints"] and shown["endpoints"][0]["waiting"] == 10:
                            busy = ""
                service.terminate()
            assert statuses == [200] * 30
        assert await service.exit_code() == 0
        assert "Traceback" not in service.log
