from __future__ import annotations

import errno
import os
import socket
import stat
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
from tests.support.unix_sockets import as_nobody, bound, full_backlog

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


async def test_f046_a_directory_and_a_file_refuse(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (await fails(tmp_path / "file")).errno == errno.ECONNREFUSED
    assert (await fails(tmp_path)).errno == errno.ECONNREFUSED


async def test_f046_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with bound(path, 8):
        path.chmod(stat.S_IRUSR)
        with as_nobody():
            assert (await fails(path)).errno == errno.EACCES


async def test_f047_bound_but_not_listening(tmp_path: Path) -> None:
    with bound(tmp_path / "socket"):
        assert (await fails(tmp_path / "socket")).errno == errno.ECONNREFUSED


async def test_f047_a_socket_file_left_by_a_server_that_is_gone(tmp_path: Path) -> None:
    with bound(tmp_path / "socket", 8):
        pass
    assert (await fails(tmp_path / "socket")).errno == errno.ECONNREFUSED


@linux_only
async def test_f048_a_datagram_socket(tmp_path: Path) -> None:
    with bound(tmp_path / "socket", kind=socket.SOCK_DGRAM):
        assert (await fails(tmp_path / "socket")).errno == errno.EPROTOTYPE


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


async def test_f050_a_new_server_at_the_same_path_gets_the_new_connections(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    endpoint = UnixEndpoint(path)
    with bound(path, 8) as old:
        async with await connect_unix(endpoint) as first:
            path.unlink()
            with bound(path, 8) as new:
                async with await connect_unix(endpoint) as second:
                    with old.accept()[0] as old_peer, new.accept()[0] as new_peer:
                        await first.send_all(b"old")
                        await second.send_all(b"new")
                        assert (old_peer.recv(9), new_peer.recv(9)) == (b"old", b"new")


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
