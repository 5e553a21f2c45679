"""`connect_unix` itself; `tests/faults/test_unix_sockets.py` has the ways in which it fails."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conpool._dial.unix import connect_unix
from conpool._errors.connect import ConnectError
from conpool._values.endpoint import UnixEndpoint
from conpool.testing import cancel_everywhere
from tests._net import progress_noted
from tests.servers import Postgres, Valkey, startup_message
from tests.support.unix_sockets import bound, full_backlog

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no UNIX sockets")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone does this")


async def fails(path: str | Path) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await connect_unix(UnixEndpoint(path))
    assert caught.value.phase == "tcp"
    assert caught.value.endpoint == UnixEndpoint(path)
    return caught.value


async def test_it_connects(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with bound(path, 8) as server, progress_noted() as progress:
        async with await connect_unix(UnixEndpoint(path)) as stream:
            peer, _ = server.accept()
            with peer:
                await stream.send_all(b"hello")
                assert peer.recv(10) == b"hello"
                assert stream.socket.getpeername() == str(path)
    assert progress.phase == "tcp"
    assert progress.attempts == []


async def test_f046_a_path_that_is_not_there(tmp_path: Path) -> None:
    error = await fails(tmp_path / "nosuch")
    assert error.errno == errno.ENOENT
    assert str(error).endswith("No such file or directory [ENOENT]")


@linux_only
async def test_f049_a_full_backlog_is_waited_for_until_the_deadline(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "socket"
    with full_backlog(path), progress_noted() as progress:
        with trio.fail_after(10.0):
            error = await fails(path)
        assert 9.8 <= trio.current_time() < 10.0
    assert error.errno == errno.EAGAIN
    assert "backlog is full" in str(error)
    assert [attempt.errno for attempt in progress.attempts] == [errno.EAGAIN]


@linux_only
async def test_f049_g8_a_place_in_the_backlog_is_taken_when_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    connected = trio.Event()
    with full_backlog(path) as server:
        async with trio.open_nursery() as nursery:

            async def connect() -> None:
                async with await connect_unix(UnixEndpoint(path)) as stream:
                    assert stream.socket.getpeername() == str(path)
                    connected.set()

            with progress_noted() as progress:
                nursery.start_soon(connect)
            await wait_all_tasks_blocked()
            assert progress.attempts
            assert not connected.is_set()
            server.accept()[0].close()
            with trio.fail_after(5):
                await connected.wait()


@linux_only
def test_g10_cancelled_anywhere_it_leaves_no_socket_open(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    async def scenario(scope: trio.CancelScope) -> None:
        with scope:
            await (await connect_unix(UnixEndpoint(path))).aclose()

    with bound(path, 100):
        assert cancel_everywhere(scenario) >= 2


@linux_only
async def test_f051_a_name_in_the_abstract_namespace() -> None:
    name = f"\0conpool-{os.getpid()}"
    with bound(name, 8):
        async with await connect_unix(UnixEndpoint(name)) as stream:
            assert stream.socket.getpeername() == name.encode()
    assert (await fails(name)).errno == errno.ECONNREFUSED
    assert UnixEndpoint(name) != UnixEndpoint(name.replace("\0", "@"))


async def test_a_platform_without_unix_sockets_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    error = await fails("/run/socket")
    assert error.errno == errno.EAFNOSUPPORT
    assert "no UNIX sockets" in str(error)


async def test_valkey_answers_on_its_socket(valkey: Valkey) -> None:
    async with await connect_unix(UnixEndpoint(valkey.path)) as stream:
        await stream.send_all(b"PING\r\n")
        assert await stream.receive_some() == b"+PONG\r\n"


async def test_postgres_answers_on_its_socket(postgres: Postgres) -> None:
    path = postgres.folder / f".s.PGSQL.{postgres.port}"
    async with await connect_unix(UnixEndpoint(path)) as stream:
        await stream.send_all(startup_message(postgres.user, postgres.database))
        assert (await stream.receive_some())[:1] == b"R"
