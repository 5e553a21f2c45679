"""Real servers that are killed, restarted, stopped and continued while many tasks use them.

No task ever reads the answer of another, the limit holds, and once the server is back every task is
served.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

import pytest
import trio

from conpool import AcquireTimeout, ConnectError, Connection, Endpoint, PoolConfig
from tests.servers import Certificates, HAProxy, MariaDB, Nginx, Postgres, Server, Valkey
from tests.support.clean import PATIENCE, Case, clean

from .protocols import (
    ServerError,
    get,
    mariadb_log_in,
    mariadb_value,
    postgres,
    postgres_log_in,
    redis,
)

LIMIT = 5
CONFIG = PoolConfig(max_connections_per_endpoint=LIMIT, acquire_timeout=PATIENCE)

Ask = Callable[[Connection[None], bytes], Awaitable[bytes]]

BROKEN = (
    AcquireTimeout,
    AssertionError,  # the connection ended in mid-answer
    ConnectError,
    ServerError,
    trio.BrokenResourceError,
)


class Load:
    """Twenty tasks; each asks again and again, a new question each time."""

    def __init__(self, case: Case, endpoint: Endpoint, ask: Ask, patience: float) -> None:
        self.outcomes: Counter[str] = Counter()
        self._case = case
        self._endpoint = endpoint
        self._ask = ask
        self._patience = patience
        self._stopping = False
        self._rng = random.Random(11)
        self._progress = trio.Event()

    async def run(self, number: int) -> None:
        turn = 0
        while not self._stopping:
            turn += 1
            question = b"%d.%d" % (number, turn)
            self.outcomes[await self._ask_once(question)] += 1
            assert self._case.recorder.open <= LIMIT
            self._progress.set()
            self._progress = trio.Event()
            await trio.sleep(0.001)  # failures that cost nothing must not keep trio busy

    async def _ask_once(self, question: bytes) -> str:
        swallow = self._rng.random() < 0.5
        try:
            if swallow:
                async with self._case.pool.connection(self._endpoint) as conn:
                    with trio.move_on_after(self._patience) as scope:
                        return await self._compare(conn, question)
            else:
                with trio.move_on_after(self._patience) as scope:
                    async with self._case.pool.connection(self._endpoint) as conn:
                        return await self._compare(conn, question)
        except BROKEN:
            return "failed"
        assert scope.cancelled_caught
        return "gave up"

    async def _compare(self, conn: Connection[None], question: bytes) -> str:
        return "answered" if await self._ask(conn, question) == question else "STOLEN"

    async def wait(self, outcome: str, count: int) -> None:
        """Wait until `count` more requests have had this outcome."""
        until = self.outcomes[outcome] + count
        with trio.fail_after(PATIENCE):
            while self.outcomes[outcome] < until:
                await self._progress.wait()

    def stop(self) -> None:
        self._stopping = True


async def under_load(
    server: Server,
    ask: Ask,
    disturb: Callable[[Load], Awaitable[None]],
    *,
    patience: float = PATIENCE,
) -> Counter[str]:
    """Disturb a server under load; afterwards every task must be served again."""
    endpoint = Endpoint(server.host, server.port)
    async with clean(endpoint, CONFIG) as case:
        load = Load(case, endpoint, ask, patience)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(load.run, number)
            await load.wait("answered", 100)
            await disturb(load)
            await load.wait("answered", 200)
            load.stop()
        assert load.outcomes["STOLEN"] == 0
        return load.outcomes


async def echo(conn: Connection[None], question: bytes) -> bytes:
    return await redis(conn, b"ECHO", question)


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_valkey_is_killed_or_stopped_and_comes_back(how: str) -> None:
    with Valkey() as server:

        async def disturb(load: Load) -> None:
            await trio.to_thread.run_sync(getattr(server, how))
            await load.wait("failed", 5)
            await trio.to_thread.run_sync(server.start)

        outcomes = await under_load(server, echo, disturb)
        assert outcomes["failed"] >= 5


async def test_valkey_is_restarted_again_and_again() -> None:
    with Valkey() as server:

        async def disturb(load: Load) -> None:
            for _ in range(3):
                await trio.to_thread.run_sync(server.restart)
                await load.wait("answered", 20)

        await under_load(server, echo, disturb)


async def test_g3_valkey_is_frozen_and_its_late_answers_are_nobodys() -> None:
    """The kernel accepts for a frozen server, which answers all requests once it is thawed."""
    with Valkey() as server:

        async def disturb(load: Load) -> None:
            for _ in range(2):
                server.pause()
                try:
                    await load.wait("gave up", 20)
                finally:
                    server.resume()
                await load.wait("answered", 50)

        outcomes = await under_load(server, echo, disturb, patience=0.03)
        assert outcomes["gave up"] >= 40


async def test_valkey_kills_its_clients_all_the_time() -> None:
    with Valkey() as server:

        async def disturb(load: Load) -> None:
            for _ in range(20):
                server.ask(b"CLIENT KILL TYPE normal SKIPME yes\r\n")
                await load.wait("answered", 5)

        await under_load(server, echo, disturb)


async def fetch(conn: Connection[None], question: bytes) -> bytes:
    reply = await get(conn, f"/echo/{question.decode()}")
    return reply.strip().removeprefix(b"/echo/")


async def test_nginx_is_reloaded_and_restarted(certificates: Certificates) -> None:
    with Nginx(certificates, keepalive_requests=50) as server:

        async def disturb(load: Load) -> None:
            for _ in range(3):
                server.signal(signal.SIGHUP)
                await load.wait("answered", 50)
            await trio.to_thread.run_sync(server.restart)

        await under_load(server, fetch, disturb)


def select_from(server: Postgres) -> Ask:
    async def select(conn: Connection[None], question: bytes) -> bytes:
        if not conn.reused:
            await postgres_log_in(conn, server)
        (answer,) = await postgres(conn, f"SELECT '{question.decode()}'")
        return answer

    return select


async def test_postgres_is_stopped_fast_and_comes_back() -> None:
    with Postgres() as server:

        async def disturb(load: Load) -> None:
            await trio.to_thread.run_sync(server.restart)

        outcomes = await under_load(server, select_from(server), disturb)
        assert outcomes["failed"] >= 1


# ── one after the other ─────────────────────────────────────────────────────────

Running: TypeAlias = AbstractContextManager[tuple[Server, Ask]]


@contextmanager
def an_nginx(certificates: Certificates) -> Iterator[tuple[Server, Ask]]:
    with Nginx(certificates) as server:
        yield server, fetch


@contextmanager
def a_postgres(certificates: Certificates) -> Iterator[tuple[Server, Ask]]:
    with Postgres() as server:
        yield server, select_from(server)


@contextmanager
def a_haproxy(certificates: Certificates) -> Iterator[tuple[Server, Ask]]:
    """A proxy in front of a Valkey that is never disturbed."""
    with Valkey() as behind, HAProxy(backends=[behind.port]) as server:
        yield server, echo


@contextmanager
def a_mariadb(certificates: Certificates) -> Iterator[tuple[Server, Ask]]:
    with MariaDB() as server:

        async def select(conn: Connection[None], question: bytes) -> bytes:
            if not conn.reused:
                await mariadb_log_in(conn, server)
            return await mariadb_value(conn, f"SELECT '{question.decode()}'")

        yield server, select


@pytest.mark.timeout(180)  # databases start slowly
@pytest.mark.parametrize("run", [an_nginx, a_postgres, a_haproxy, a_mariadb])
async def test_g3_it_is_killed_restarted_and_frozen_one_after_the_other(
    run: Callable[[Certificates], Running], certificates: Certificates
) -> None:
    with run(certificates) as (server, ask):

        async def disturb(load: Load) -> None:
            await trio.to_thread.run_sync(server.kill)
            await load.wait("failed", 2)
            await trio.to_thread.run_sync(server.start)
            await load.wait("answered", 50)
            await trio.to_thread.run_sync(server.restart)
            await load.wait("answered", 50)
            server.pause()
            try:
                await load.wait("gave up", 20)
            finally:
                server.resume()

        outcomes = await under_load(server, ask, disturb, patience=0.3)
        assert outcomes["failed"] >= 2
        assert outcomes["gave up"] >= 20
