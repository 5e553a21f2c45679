"""FAULTS C: UNIX sockets that are not there, not for us, or too busy."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import CloseReason, ConnectError, PoolConfig, UnixEndpoint
from tests.support.clean import Case, clean
from tests.support.loopback_servers import exchange
from tests.support.unix_sockets import as_nobody, bound, full_backlog

from . import blocks
from .sites import UnixSite

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="this platform has no UNIX sockets"
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux does this")


async def fails(case: Case, path: Path | str) -> ConnectError:
    error = await blocks.fails(case, UnixEndpoint(path))
    assert error.phase == "tcp"
    assert str(path) in str(error)
    return error


async def test_f046_a_path_that_is_missing(unix_site: UnixSite, tmp_path: Path) -> None:
    async with clean(unix_site.endpoint) as case:
        assert (await fails(case, tmp_path / "missing")).errno == errno.ENOENT


async def test_f046_a_path_that_is_a_folder(unix_site: UnixSite, tmp_path: Path) -> None:
    async with clean(unix_site.endpoint) as case:
        assert (await fails(case, tmp_path)).errno == errno.ECONNREFUSED


async def test_f046_a_path_that_is_a_file(unix_site: UnixSite, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    async with clean(unix_site.endpoint) as case:
        assert (await fails(case, file)).errno == errno.ECONNREFUSED


async def test_f046_a_socket_that_is_not_for_us(unix_site: UnixSite, tmp_path: Path) -> None:
    path = tmp_path / "private"
    with bound(path, 1):
        path.chmod(0)
        async with clean(unix_site.endpoint) as case:
            with as_nobody():
                error = await fails(case, path)
            assert error.errno == errno.EACCES


async def test_f047_a_socket_on_which_nobody_listens(unix_site: UnixSite, tmp_path: Path) -> None:
    path = tmp_path / "deaf"
    with bound(path):
        async with clean(unix_site.endpoint) as case:
            assert (await fails(case, path)).errno == errno.ECONNREFUSED


async def test_f047_what_a_dead_server_left_behind(unix_site: UnixSite, tmp_path: Path) -> None:
    path = tmp_path / "stale"
    with bound(path, 1):
        pass
    async with clean(unix_site.endpoint) as case:
        assert (await fails(case, path)).errno == errno.ECONNREFUSED


async def test_f048_a_socket_for_datagrams(unix_site: UnixSite, tmp_path: Path) -> None:
    path = tmp_path / "datagrams"
    with bound(path, kind=socket.SOCK_DGRAM):
        async with clean(unix_site.endpoint) as case:
            assert (await fails(case, path)).errno == errno.EPROTOTYPE


# ── a full backlog ──────────────────────────────────────────────────────────────


@linux_only
async def test_f049_g8_a_full_backlog_is_waited_for_and_never_taken_for_a_connection(
    tmp_path: Path,
) -> None:
    path = tmp_path / "busy"
    with full_backlog(path) as listener:
        endpoint = UnixEndpoint(path)
        async with clean(None) as case:

            async def ask() -> None:
                async with case.pool.connection(endpoint) as conn:
                    assert case.recorder.sockets[0].getpeername() == str(path)
                    await exchange(conn)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await wait_all_tasks_blocked()
                assert case.pool.stats(endpoint).connecting == 1
                assert not case.recorder.sockets
                listener.accept()[0].close()
                listener.setblocking(False)
                accepting = trio.socket.from_stdlib_socket(listener.dup())
                with accepting:
                    sock, _ = await accepting.accept()
                    async with trio.SocketStream(sock) as server:
                        await server.send_all(await server.receive_some())
            assert case.log.dialled == 1


@linux_only
async def test_f049_a_backlog_that_stays_full_is_an_error_of_its_own(
    unix_site: UnixSite, tmp_path: Path
) -> None:
    with full_backlog(tmp_path / "busy"):
        async with clean(unix_site.endpoint, PoolConfig(connect_timeout=0.1)) as case:
            error = await fails(case, tmp_path / "busy")
            assert error.errno == errno.EAGAIN
            assert not case.recorder.sockets


# ── names ───────────────────────────────────────────────────────────────────────


async def test_f050_a_new_server_at_the_same_path_gets_the_new_connections(
    tmp_path: Path,
) -> None:
    path = tmp_path / "socket"
    with UnixSite(path) as old:
        async with clean(old.endpoint) as case:
            first = await old.lend(case)
            path.unlink()
            with UnixSite(path) as new:
                async with case.pool.connection(old.endpoint) as conn:
                    assert conn.reused, "the old server still lives"
                    await first.send_all(b"old")
                    assert await conn.receive_some() == b"old"
                case.pool.clear(old.endpoint)
                second = await new.lend(case)
                async with case.pool.connection(new.endpoint) as conn:
                    await second.send_all(b"new")
                    assert await conn.receive_some() == b"new"
                assert case.log.reasons == [CloseReason.CLEARED]
                await case.finish()
                case.then = None


@linux_only
async def test_f051_a_name_in_the_abstract_namespace_is_no_path(
    unix_site: UnixSite, tmp_path: Path
) -> None:
    name = f"conpool-{os.getpid()}-{id(unix_site)}"
    abstract = UnixEndpoint(f"\0{name}")
    with bound(f"\0{name}", 5) as listener:
        async with clean(unix_site.endpoint) as case:
            async with case.pool.connection(abstract) as conn:
                server, _ = listener.accept()
                with server:
                    server.sendall(b"hello")
                    assert await conn.receive_some() == b"hello"
            assert abstract not in {UnixEndpoint(name), UnixEndpoint(f"@{name}")}
            error = await fails(case, tmp_path / name)
            assert error.errno == errno.ENOENT
