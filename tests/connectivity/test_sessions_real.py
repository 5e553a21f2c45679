"""Sessions with real servers: Valkey through a driver, PostgreSQL through libpq."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import (
    AnyEndpoint,
    CloseReason,
    ConnectError,
    ConnectionPool,
    Endpoint,
    Login,
    NativeDriver,
    PoolConfig,
    UnixEndpoint,
)
from tests.servers import Postgres, Valkey
from tests.support.clean import PATIENCE, clean
from tests.support.resp import ReplyError, Resp, RespDriver

# ── Valkey ──────────────────────────────────────────────────────────────────────

COMMANDS = 10_000
TASKS = 20
MOST_STEPS = 6
"""A short command takes three steps of its task, from asking for a connection to the end."""


class Axe(trio.abc.Instrument):
    """Cancels a task's scope before the step that was chosen for it."""

    def __init__(self) -> None:
        self._left: dict[trio.lowlevel.Task, tuple[int, trio.CancelScope]] = {}
        self.cut: Counter[int] = Counter()
        """How often it struck, by the number of steps that came before."""

    def aim(self, scope: trio.CancelScope, steps: int) -> None:
        self._left[trio.lowlevel.current_task()] = steps, scope

    def rest(self) -> None:
        self._left.pop(trio.lowlevel.current_task(), None)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self._left:
            steps, scope = self._left.pop(task)
            if steps:
                self._left[task] = steps - 1, scope
            else:
                scope.cancel()


@pytest.mark.parametrize("seed", [1])
async def test_each_of_10000_replies_belongs_to_its_command_though_a_tenth_are_cancelled(
    valkey: Valkey, seed: int
) -> None:
    choice = random.Random(seed)
    axe = Axe()
    done, reused, cancelled, due = 0, 0, 0, 0

    async def command(pool: ConnectionPool[Resp], payload: bytes) -> None:
        nonlocal done, reused, cancelled, due
        due += choice.random() < 0.1
        steps = choice.randrange(MOST_STEPS)
        with trio.CancelScope() as scope:
            if due > cancelled:  # some are done before the axe falls: then the next is cut
                axe.aim(scope, steps)
            async with pool.connection(endpoint) as conn:
                is_reused = conn.reused
                assert await conn.session.call(b"ECHO", payload) == payload
            done += 1
            reused += is_reused
        axe.rest()
        cancelled += scope.cancelled_caught
        axe.cut[steps] += scope.cancelled_caught

    async def worker(pool: ConnectionPool[Resp], number: int) -> None:
        for count in range(COMMANDS // TASKS):
            # The largest take several steps to send, and several to receive.
            (size,) = choice.choices([0, 100, 10_000, 300_000], [60, 20, 15, 5])
            await command(pool, b"%d.%d." % (number, count) + b"x" * size)

    endpoint = Endpoint(valkey.host, valkey.port)
    config = PoolConfig(max_connections_per_endpoint=TASKS // 2)
    async with clean(endpoint, config, driver=RespDriver(), pace=50) as case:
        pool = cast("ConnectionPool[Resp]", case.pool)
        trio.lowlevel.add_instrument(axe)
        async with trio.open_nursery() as nursery:
            for number in range(TASKS):
                nursery.start_soon(worker, pool, number)
        trio.lowlevel.remove_instrument(axe)
        print(
            f"{done} done, {reused / done:.1%} reused, {cancelled} cancelled,"
            f" {case.log.dialled} dialled, {sorted(axe.cut.items())}"
        )
        assert done + cancelled == COMMANDS
        assert 0.08 * COMMANDS <= cancelled <= 0.12 * COMMANDS, "about a tenth"
        assert len(+axe.cut) >= 4, "in the queue, before the reply, and amid long ones"
        assert reused >= 0.9 * done
        assert set(case.log.reasons) <= {CloseReason.CANCELLED}


async def test_an_error_reply_costs_no_connection(valkey: Valkey) -> None:
    endpoint = UnixEndpoint(valkey.path)
    async with clean(endpoint, driver=RespDriver()) as case:
        pool = cast("ConnectionPool[Resp]", case.pool)
        with pytest.raises(ReplyError, match="unknown command"):
            async with pool.connection(endpoint) as conn:
                await conn.session.call(b"NONSENSE")
        async with pool.connection(endpoint) as conn:
            assert conn.reused
            assert await conn.session.call(b"ECHO", b"mine") == b"mine"
            assert await conn.session.call(b"TIME")
            assert await conn.session.call(b"GET", b"no such key") is None


async def test_f041_valkey_that_is_full_fails_the_dial() -> None:
    with Valkey(maxclients=1) as server:
        endpoint = Endpoint(server.host, server.port)
        async with clean(None, driver=RespDriver()) as case, case.pool.connection(endpoint):
            # A caller that wants a new one: any other would wait for the one there is.
            with pytest.raises(ConnectError, match="max number of clients") as caught:
                await case.pool.acquire(endpoint, fresh=True)
            assert caught.value.phase == "open"
            assert isinstance(caught.value.__cause__, ReplyError | EOFError)


# ── PostgreSQL, through a library that owns its socket ──────────────────────────


def libpq() -> Any:
    return pytest.importorskip("psycopg.pq", reason="psycopg is not installed")


class LibpqDriver(NativeDriver[Any]):
    """libpq opens the socket, and says when to wait for it."""

    def __init__(self, pq: Any) -> None:
        self._pq = pq
        self.aborted = 0

    async def connect(self, endpoint: AnyEndpoint) -> Any:
        assert isinstance(endpoint, Endpoint)
        assert endpoint.login is not None
        settings = {
            "host": endpoint.host,
            "port": endpoint.port,
            "user": endpoint.login.username,
            "password": endpoint.login.password,
            "dbname": endpoint.login.database,
            "sslmode": "disable",
        }
        text = " ".join(f"{name}='{value}'" for name, value in settings.items())
        session = self._pq.PGconn.connect_start(text.encode())
        try:
            await self._go_on_connecting(session)
            session.nonblocking = 1
        except BaseException:
            session.finish()
            raise
        return session

    async def _go_on_connecting(self, session: Any) -> None:
        status = self._pq.PollingStatus
        while (now := session.connect_poll()) != status.OK:
            if now == status.FAILED:
                raise ConnectionRefusedError(session.error_message.decode())
            wait = trio.lowlevel.wait_readable
            await (wait if now == status.READING else trio.lowlevel.wait_writable)(session.socket)

    def fileno(self, session: Any) -> int:
        return int(session.socket)

    def is_clean(self, session: Any) -> bool:
        return bool(session.transaction_status == self._pq.TransactionStatus.IDLE)

    async def reset(self, session: Any) -> None:
        await query(self._pq, session, "DISCARD ALL")

    async def cancel(self, session: Any) -> None:
        await trio.to_thread.run_sync(session.get_cancel().cancel)

    def abort(self, session: Any) -> None:
        self.aborted += 1
        session.finish()


async def query(pq: Any, session: Any, sql: str) -> bytes | None:
    """Run a statement; return its first value."""
    session.send_query(sql.encode())
    while session.flush():
        await trio.lowlevel.wait_writable(session.socket)
    value = None
    while True:
        while session.is_busy():
            await trio.lowlevel.wait_readable(session.socket)
            session.consume_input()
        result = session.get_result()
        if result is None:
            return value
        if result.status == pq.ExecStatus.FATAL_ERROR:
            failure = result.error_message.decode()
            while session.get_result() is not None:
                pass
            raise RuntimeError(failure)
        if result.ntuples:
            value = result.get_value(0, 0)


def at_postgres(server: Postgres, password: str | None = None) -> Endpoint:
    login = Login(server.user, password or server.password, server.database)
    return Endpoint(server.host, server.port, login=login)


async def test_libpq_sessions_are_kept_after_an_error_and_closed_amid_a_query(
    postgres: Postgres,
) -> None:
    pq = libpq()
    driver = LibpqDriver(pq)
    endpoint = at_postgres(postgres)
    async with clean(None, PoolConfig(close_timeout=5), driver=driver) as case:
        pool = cast("ConnectionPool[Any]", case.pool)

        async def ask(sql: str) -> tuple[int, bytes | None]:
            async with pool.connection(endpoint) as conn:
                return conn.id, await query(pq, conn.session, sql)

        with trio.fail_after(PATIENCE):
            assert await ask("SELECT 1 + 1") == (1, b"2")
            await ask("SET application_name = 'mine'")
            assert await ask("SHOW application_name") == (1, b""), "it was reset"
            with pytest.raises(RuntimeError, match="division by zero"):
                await ask("SELECT 1 / 0")
            assert not case.log.reasons, "an error that was read in full costs no login"
            _, pid = await ask("SELECT pg_backend_pid()")
            assert pid is not None
            with trio.move_on_after(0.05):
                await ask("SELECT pg_sleep(60)")
            await case.log.wait_closed(CloseReason.CANCELLED)
            assert driver.aborted == 1
            active = "FROM pg_stat_activity WHERE state = 'active'"
            sql = f"SELECT count(*) {active} AND pid = {int(pid)}"
            assert await ask(sql) == (2, b"0"), "the query goes on without us"
            await pool.drain()  # the last reset, too
            await wait_all_tasks_blocked()


async def test_libpq_the_watch_notices_a_killed_backend(postgres: Postgres) -> None:
    pq = libpq()
    endpoint = at_postgres(postgres)
    async with clean(None, driver=LibpqDriver(pq)) as case:
        pool = cast("ConnectionPool[Any]", case.pool)
        with trio.fail_after(PATIENCE):
            await pool.warm(endpoint, 2)
            async with pool.connection(endpoint) as conn:
                mine = conn.session.backend_pid
                sql = (
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    f" WHERE backend_type = 'client backend' AND pid <> {mine}"
                )
                await query(pq, conn.session, sql)
                # Its farewell message lies in front of the end of the stream.
                await case.log.wait_until(lambda: len(case.log.reasons) == 1)
            await pool.drain()  # the last reset, too
            await wait_all_tasks_blocked()
            assert case.log.reasons[0] in {CloseReason.UNREAD_DATA, CloseReason.PEER_CLOSED}


async def test_libpq_a_wrong_password_is_shown_nowhere(postgres: Postgres) -> None:
    pq = libpq()
    endpoint = at_postgres(postgres, "hunter2")
    async with clean(None, driver=LibpqDriver(pq)) as case:
        with trio.fail_after(PATIENCE), pytest.raises(ConnectError) as caught:
            await case.pool.acquire(endpoint)
        assert caught.value.phase == "open"
        assert "password authentication failed" in str(caught.value)
        assert "hunter2" not in str(caught.value) + repr(caught.value)
        assert case.pool.stats(endpoint).errors == 1
