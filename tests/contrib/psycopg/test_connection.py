"""`AsyncConnection` alone: connects, waits, and survives what cancels it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import trio
import trio.testing
from psycopg import pq
from psycopg.rows import dict_row
from psycopg.waiting import Ready, Wait

from conpool.contrib._psycopg import inside
from conpool.contrib._psycopg.lock import Lock
from conpool.contrib._psycopg.names import find_attempts
from conpool.contrib._psycopg.waiting import drive, drive_connecting
from conpool.contrib.psycopg import AsyncConnection

from .databases import PATIENCE, Database, first

IDLE = pq.TransactionStatus.IDLE
SLEEPS = "state = 'active' AND query LIKE '%pg_sleep%'"


class Resolver(trio.abc.HostnameResolver):
    def __init__(self, **names: list[str]) -> None:
        self.names = names
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        name = host.decode()
        self.asked.append(name)
        if name not in self.names:
            raise OSError("no such name")
        return [(2, 1, 6, "", (address, port)) for address in self.names[name]]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


# ── connecting ──────────────────────────────────────────────────────────────────


async def test_it_has_what_connect_was_told(db: Database) -> None:
    context = psycopg.adapt.AdaptersMap(psycopg.adapters)
    cursor = psycopg.AsyncClientCursor
    async with await db.connect(
        row_factory=dict_row, cursor_factory=cursor, prepare_threshold=1, application_name="me"
    ) as conn:
        assert await (await conn.execute("SHOW application_name")).fetchone() == {
            "application_name": "me"
        }
        assert isinstance(conn.cursor(), cursor)
        assert conn.prepare_threshold == 1
        assert conn.autocommit
    async with await AsyncConnection.connect(db.conninfo(), context=context) as conn:
        assert conn.adapters is not psycopg.adapters
    assert conn.closed
    assert not conn.broken


async def test_f027_each_host_that_fails_is_named(db: Database, dead_port: int) -> None:
    dead = db.conninfo(host="127.0.0.1,127.0.0.2", port=dead_port)
    with pytest.raises(psycopg.OperationalError) as caught:
        await AsyncConnection.connect(dead)
    assert "hostaddr: '127.0.0.1'" in str(caught.value)
    assert "hostaddr: '127.0.0.2'" in str(caught.value)
    assert db.server.password not in str(caught.value)


async def test_f025_several_hosts_are_tried_in_turn(db: Database, dead_port: int) -> None:
    ports = f"{dead_port},{db.server.port}"
    lists = db.conninfo(host="127.0.0.1,127.0.0.1", port=ports)
    async with await AsyncConnection.connect(lists) as conn:
        assert conn.info.port == db.server.port
    with pytest.raises(psycopg.OperationalError, match="read-only|not in hot standby"):
        await AsyncConnection.connect(db.conninfo(target_session_attrs="standby"))
    preferred = db.conninfo(target_session_attrs="prefer-standby")
    async with await AsyncConnection.connect(preferred) as conn:
        assert not conn.closed


async def test_names_are_asked_of_trio_and_shuffled_where_load_is_balanced(db: Database) -> None:
    resolver = Resolver(db=["127.0.0.1"], many=[f"127.0.1.{n}" for n in range(1, 40)])
    trio.socket.set_custom_hostname_resolver(resolver)
    async with await AsyncConnection.connect(db.conninfo(host="nowhere,db")) as conn:
        assert conn.info.host == "db"
    assert resolver.asked == ["nowhere", "db"]
    async with await AsyncConnection.connect(db.conninfo(host="db")):
        assert resolver.asked == ["nowhere", "db"], "it was asked a moment ago"
    params = {"host": "many", "load_balance_hosts": "random"}
    addresses = [attempt["hostaddr"] for attempt in await find_attempts(params)]
    assert len(addresses) == 39
    assert addresses != sorted(addresses, key=lambda ip: int(str(ip).rsplit(".", 1)[1]))
    with pytest.raises(psycopg.OperationalError, match="failed to resolve host 'nowhere'"):
        await AsyncConnection.connect(host="nowhere")


async def test_f023_a_look_up_that_hangs_can_be_cancelled_and_blocks_nothing(db: Database) -> None:
    class Hanging(Resolver):
        async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
            await trio.sleep_forever()

    trio.socket.set_custom_hostname_resolver(Hanging())
    with trio.move_on_after(0.02) as scope:
        await AsyncConnection.connect(db.conninfo(host="slow.example"))
    assert scope.cancelled_caught
    async with await AsyncConnection.connect(db.conninfo()):
        pass


async def test_f029_a_server_that_says_nothing_costs_connect_timeout_and_no_socket(
    db: Database, autojump_clock: object
) -> None:
    silent = trio.socket.socket()
    await silent.bind(("127.0.0.1", 0))
    silent.listen()
    with silent:
        deaf = db.conninfo(port=silent.getsockname()[1], connect_timeout=7)
        started = trio.current_time()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            await AsyncConnection.connect(deaf)
        assert 7 <= trio.current_time() - started < 8
        with trio.move_on_after(1) as scope:
            await AsyncConnection.connect(deaf)
        assert scope.cancelled_caught
    # `nothing_left_behind` counts the sockets.


async def test_f030_a_connect_cancelled_at_any_moment_leaves_no_socket(db: Database) -> None:
    for step in range(40):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cancel(scope: trio.CancelScope = scope, step: int = step) -> None:
                    for _ in range(step):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                conn = await AsyncConnection.connect(db.conninfo())
                await conn.close()


async def test_libpq_may_change_its_socket_in_the_middle(db: Database) -> None:
    """With `sslmode=prefer`, a server that breaks off is dialled again, without TLS."""
    sockets: list[trio.SocketStream] = []

    async def relay(stream: trio.SocketStream) -> None:
        sockets.append(stream)
        async with stream:
            if len(sockets) == 1:
                await stream.receive_some()
                await stream.send_all(b"S")  # TLS, it says, and hangs up
                return
            server = await trio.open_tcp_stream(db.server.host, db.server.port)

            async def pass_on(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
                async for data in source:
                    await sink.send_all(data)
                nursery.cancel_scope.cancel()

            async with server, trio.open_nursery() as nursery:
                nursery.start_soon(pass_on, server, stream)
                nursery.start_soon(pass_on, stream, server)

    async with trio.open_nursery() as nursery:
        listener = (await nursery.start(trio.serve_tcp, relay, 0))[0]
        port = listener.socket.getsockname()[1]
        with trio.fail_after(PATIENCE):
            async with await AsyncConnection.connect(
                db.conninfo(host="127.0.0.1", port=port, sslmode="prefer")
            ) as conn:
                assert await first(conn, "SELECT 1") == 1
        nursery.cancel_scope.cancel()
    assert len(sockets) == 2


async def test_a_wrong_password_is_shown_nowhere(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(psycopg.OperationalError, match="password authentication") as caught:
        await AsyncConnection.connect(db.conninfo(password="hunter2"))
    assert "hunter2" not in str(caught.value) + repr(caught.value) + caplog.text


# ── closing ─────────────────────────────────────────────────────────────────────


async def test_a_task_that_waits_hears_that_the_connection_is_closed(db: Database) -> None:
    conn = await db.connect()

    async def wait() -> None:
        with pytest.raises(psycopg.OperationalError, match="was closed"):
            await conn.execute("SELECT pg_sleep(60)")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await db.wait_until_some(SLEEPS)
        await conn.close()
        await conn.close()
    db.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with pytest.raises(psycopg.OperationalError, match="closed"):
        await conn.execute("SELECT 1")


async def test_the_block_closes_although_it_was_cancelled(db: Database) -> None:
    conn = await AsyncConnection.connect(db.conninfo())
    with trio.CancelScope() as scope:
        async with conn:
            await conn.execute("SELECT 1")
            scope.cancel()
            await trio.sleep_forever()
    assert conn.closed


async def test_a_descriptor_closed_by_somebody_else_is_an_operational_error(db: Database) -> None:
    conn = await db.connect()
    saved = os.dup(conn.fileno())
    replaced = os.open(os.devnull, os.O_RDONLY)
    number = conn.fileno()
    os.dup2(replaced, number)
    try:
        with pytest.raises(psycopg.OperationalError):
            await conn.execute("SELECT 1")
    finally:
        os.dup2(saved, number)
        os.close(saved)
        os.close(replaced)
        await conn.close()  # noqa: ASYNC102 - it waits for nothing


# ── waiting ─────────────────────────────────────────────────────────────────────


async def test_much_is_sent_and_received_at_once(db: Database) -> None:
    """Neither side reads before it has written: only who waits for both gets on."""
    text = "x" * 3_000_000
    async with await db.connect() as conn, conn.pipeline():
        cursors = [await conn.execute("SELECT %s", [text]) for _ in range(4)]
        for cursor in cursors:
            assert await cursor.fetchone() == (text,)


async def test_other_tasks_run_during_a_long_copy(db: Database) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.lowlevel.checkpoint()
            ticks += 1

    async with await db.connect() as conn, trio.open_nursery() as nursery:
        await conn.execute("CREATE TEMP TABLE t (n int, padding text)")
        nursery.start_soon(tick)
        async with conn.cursor().copy("COPY t FROM STDIN") as copy:
            for n in range(20_000):  # 2 MB: dozens of sends
                await copy.write_row((n, "x" * 100))
        nursery.cancel_scope.cancel()
        assert ticks > 2
        assert await first(conn, "SELECT count(*) FROM t") == 20_000


async def test_notifications_come_in_and_a_time_out_ends_the_wait(db: Database) -> None:
    async with await db.connect() as conn, await db.connect() as other:
        await conn.execute("LISTEN news")
        await other.execute("NOTIFY news, 'first'")
        with trio.fail_after(PATIENCE):
            got = [note async for note in conn.notifies(stop_after=1)]
        assert [note.payload for note in got] == ["first"]
        assert [note async for note in conn.notifies(timeout=0.01)] == []
        await other.execute("NOTIFY news, 'second'")
        await trio.lowlevel.wait_readable(conn.fileno())
        assert [note.payload async for note in conn.notifies(timeout=0)] == ["second"]
        with trio.move_on_after(0.02) as scope:
            async for _ in conn.notifies():
                pass
        assert scope.cancelled_caught
        assert await first(conn, "SELECT 1") == 1, "nothing was owed"


async def test_the_lock_is_fair_and_is_released_in_any_task() -> None:
    lock, order = Lock(), list[int]()

    async def take(number: int) -> None:
        async with lock:
            order.append(number)

    await lock.acquire()
    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(take, number)
            await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await take(9)
        nursery.start_soon(_call, lock.release)
    assert order == [0, 1, 2, 3]
    assert repr(lock) == "<Lock free, 0 waiting>"


async def _call(function: Callable[[], object]) -> None:
    function()


async def test_a_wait_for_either_reports_what_comes_first() -> None:
    left, right = trio.socket.socketpair()
    with left, right:
        left.setsockopt(1, 7, 4096)
        with pytest.raises(BlockingIOError):
            while True:
                left._sock.send(b"x" * 65536)  # type: ignore[attr-defined] # it is full

        def wait_once() -> Any:
            return (yield Wait.RW)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(right.send, b"!")
            assert await drive(wait_once(), left.fileno()) == Ready.R
        await left.recv(1)
        assert await drive(wait_once(), left.fileno(), interval=0.01) == 0
        with pytest.raises(inside.WaitTimeout):
            await drive(wait_and_wait(), left.fileno(), timeout=0.01)


async def test_a_connect_that_is_cancelled_ends_its_generator() -> None:
    left, right = trio.socket.socketpair()
    ended = False

    def connect() -> Any:
        nonlocal ended
        try:
            yield left.fileno(), Wait.R
        finally:
            ended = True

    with left, right:
        generator = connect()
        with trio.move_on_after(0.01):
            await drive_connecting(generator)
        assert ended


async def test_a_generator_that_never_has_to_wait_lets_others_run() -> None:
    left, right = trio.socket.socketpair()
    ran = False

    def write_on() -> Any:
        while not ran:
            assert (yield Wait.W)

    async def run() -> None:
        nonlocal ran
        ran = True

    with left, right, trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await drive(write_on(), left.fileno())


def wait_and_wait() -> Any:
    while not (yield Wait.R):
        pass


# ── versions ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", ["3.2.13", "3.4.0", "4.0", "unknown"])
def test_a_version_that_was_not_tested_is_refused(version: str) -> None:
    with pytest.raises(ImportError, match=f"3.3 and later, before 3.4; version {version}"):
        inside.check_version(version)
