"""When its peer closes an idle connection, the pool closes it, too, with no traffic."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import (
    AnyEndpoint,
    CloseReason,
    ConnectionInfo,
    ConnectionPool,
    Connector,
    Endpoint,
    PoolConfig,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs epoll")
NEVER_REAPED = PoolConfig(max_connections_per_endpoint=1000, reap_interval=float("inf"))


class Server:
    """Accepts on a free port and keeps its ends, so that a test may close them."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.ends: list[trio.SocketStream] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        self.ends.append(stream)
        async for data in stream:
            await stream.send_all(data)

    async def wait_for(self, count: int) -> None:
        while len(self.ends) < count:
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def running_server() -> AsyncIterator[Server]:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = Server(Endpoint("127.0.0.1", listener.socket.getsockname()[1]))

        async def serve(stream: trio.SocketStream) -> None:
            with trio.CancelScope():
                try:
                    await server.serve(stream)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return

        nursery.start_soon(trio.serve_listeners, serve, [listener])
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()


class Closed:
    """Collects the calls of `on_closed`; a test can wait for them."""

    def __init__(self) -> None:
        self.reasons: list[CloseReason] = []
        self._more = trio.lowlevel.ParkingLot()

    def __call__(self, info: ConnectionInfo, reason: CloseReason) -> None:
        self.reasons.append(reason)
        self._more.unpark_all()

    async def wait_for(self, count: int) -> None:
        with trio.fail_after(10):
            while len(self.reasons) < count:
                await self._more.park()


def count_close_wait(port: int) -> int:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "08" for row in rows)


@linux_only
async def test_a_peer_that_closes_is_noticed_with_no_traffic() -> None:
    closed = Closed()
    async with running_server() as server, ConnectionPool(NEVER_REAPED, on_closed=closed) as pool:
        await pool.warm(server.endpoint, 1)
        await server.wait_for(1)
        server.ends[0].socket.close()
        await closed.wait_for(1)
        assert closed.reasons == [CloseReason.PEER_CLOSED]
        assert pool.stats(server.endpoint).idle == 0


@linux_only
async def test_a_reset_is_noticed_with_no_traffic() -> None:
    closed = Closed()
    async with running_server() as server, ConnectionPool(NEVER_REAPED, on_closed=closed) as pool:
        await pool.warm(server.endpoint, 1)
        await server.wait_for(1)
        linger = (1).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder)
        server.ends[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        server.ends[0].socket.close()
        await closed.wait_for(1)
        assert closed.reasons == [CloseReason.PEER_CLOSED]


@linux_only
async def test_hundreds_closed_at_once_leave_no_socket_in_close_wait() -> None:
    count = 300
    closed = Closed()
    async with running_server() as server, ConnectionPool(NEVER_REAPED, on_closed=closed) as pool:
        await pool.warm(server.endpoint, count)
        await server.wait_for(count)
        for end in server.ends:
            end.socket.close()
        await closed.wait_for(count)
        assert set(closed.reasons) == {CloseReason.PEER_CLOSED}
        assert count_close_wait(server.endpoint.port) == 0


class StepCounter(trio.abc.Instrument):
    def __init__(self, name: str) -> None:
        self.name = name
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += task.name == self.name


@linux_only
async def test_leases_and_their_data_do_not_wake_the_watch() -> None:
    async with running_server() as server, ConnectionPool(NEVER_REAPED) as pool:
        await pool.warm(server.endpoint, 1)
        await wait_all_tasks_blocked()
        counter = StepCounter("conpool watch")
        trio.lowlevel.add_instrument(counter)
        for _ in range(20):
            async with pool.connection(server.endpoint) as conn:
                await conn.send_all(b"x")
                assert await conn.receive_some() == b"x"
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(counter)
        assert counter.steps == 0


@linux_only
async def test_a_close_during_a_lease_is_left_to_the_look_at_its_end() -> None:
    closed = Closed()
    async with running_server() as server, ConnectionPool(NEVER_REAPED, on_closed=closed) as pool:
        async with pool.connection(server.endpoint) as conn:
            await server.wait_for(1)
            server.ends[0].socket.close()
            assert await conn.receive_some() == b""
            await wait_all_tasks_blocked()
            assert not closed.reasons
        assert closed.reasons == [CloseReason.PEER_CLOSED]


@linux_only
async def test_an_event_of_a_descriptor_that_has_a_new_owner_harms_nobody() -> None:
    """A fork keeps the old socket open: epoll knows it by a number that another socket has now."""
    closed = Closed()
    async with running_server() as server, ConnectionPool(NEVER_REAPED, on_closed=closed) as pool:
        conn = await pool.acquire(server.endpoint)
        await server.wait_for(1)
        number = conn._lease.entry.link.fileno()
        inherited = os.dup(number)
        try:
            watch = pool._engine.watch
            # As when a forked child keeps the file: the close does not take the number out.
            watch._by_descriptor.pop(number)
            pool.discard(conn)
            await pool.warm(server.endpoint, 1)
            await server.wait_for(2)
            server.ends[0].socket.close()
            await wait_all_tasks_blocked()
            assert closed.reasons == [CloseReason.DISCARDED]
            assert pool.stats(server.endpoint).idle == 1
        finally:
            os.close(inherited)


async def test_without_epoll_the_sweep_finds_what_the_peer_has_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("conpool._connection.idle_watch.IdleWatch.open", lambda _: None)
    closed = Closed()
    config = PoolConfig(reap_interval=0.01)
    async with running_server() as server, ConnectionPool(config, on_closed=closed) as pool:
        await pool.warm(server.endpoint, 1)
        await server.wait_for(1)
        server.ends[0].socket.close()
        await closed.wait_for(1)
        assert closed.reasons == [CloseReason.PEER_CLOSED]


async def test_a_detached_stream_is_watched_no_more() -> None:
    async with running_server() as server, ConnectionPool(NEVER_REAPED) as pool:
        conn = await pool.acquire(server.endpoint)
        stream = conn.detach()
        assert "over 0 connections" in repr(pool._engine.watch)
        await stream.aclose()


class TwinConnector(Connector):
    """Opens one socket again and again; Linux watches one socket at most 500 times (EINVAL)."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return trio.SocketStream(trio.socket.from_stdlib_socket(self.sock.dup()))


@linux_only
async def test_connections_that_the_system_will_not_watch_are_lent_all_the_same() -> None:
    endpoint, count = Endpoint("localhost", 1), 600
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with ConnectionPool(NEVER_REAPED, connector=TwinConnector(ours)) as pool:
            await pool.warm(endpoint, count)
            async with pool.connection(endpoint) as conn:
                await conn.send_all(b"x")
                assert theirs.recv(10) == b"x"
                conn.mark_clean()
            assert pool.close_idle() == count
