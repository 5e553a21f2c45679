"""The same over real sockets: TCP, TLS and UNIX, on the real clock.

Runs differ here, so less is compared; but the kernel, the handshake and the look are the real ones,
and so is the server's count of its connections. `clean` says what must be so after each run.
"""

from __future__ import annotations

import math
import os
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Literal, TypeAlias

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import conpool
from conpool.testing import cancel_everywhere
from tests.support.clean import PATIENCE, clean
from tests.support.faults import LOOPBACK
from tests.support.loopback_servers import exchange
from tests.support.pools import echo

from .sweeps import CancelledOutside, Play, Scope
from .totals import tried

Kind: TypeAlias = Literal["TCP", "TLS", "UNIX", "TLS over UNIX"]
Situation: TypeAlias = Literal["cold", "warm", "queued"]

KINDS = pytest.mark.parametrize("kind", ["TCP", "TLS", "UNIX", "TLS over UNIX"])


class Server:
    """An echo server that counts its connections."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.live = 0
        self._context = context
        self._changed = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        self._count(1)
        try:
            with suppress(trio.BrokenResourceError):
                if self._context is None:
                    await echo(stream)
                else:
                    await echo(trio.SSLStream(stream, self._context, server_side=True))
        finally:
            stream.socket.close()
            self._count(-1)

    async def wait_live(self, count: int) -> None:
        with trio.fail_after(PATIENCE):
            while self.live != count:
                await self._changed.wait()

    def _count(self, change: int) -> None:
        self.live += change
        self._changed.set()
        self._changed = trio.Event()


class Network:
    """Makes servers of one kind."""

    def __init__(self, kind: Kind, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        self._is_unix = "UNIX" in kind
        self._context = server if "TLS" in kind else None
        self._tls = conpool.TLS(client, server_hostname="localhost") if "TLS" in kind else None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[Server, conpool.AnyEndpoint]]:
        server = Server(self._context)
        with tempfile.TemporaryDirectory(prefix="conpool-") as folder:
            listener, endpoint = await self._listen(folder)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, server.serve, [listener])
                yield server, endpoint
                nursery.cancel_scope.cancel()

    async def _listen(self, folder: str) -> tuple[trio.SocketListener, conpool.AnyEndpoint]:
        if not self._is_unix:
            (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
            port = listener.socket.getsockname()[1]
            return listener, conpool.Endpoint(LOOPBACK, port, tls=self._tls or False)
        path = os.path.join(folder, "server")  # noqa: PTH118 - nothing is touched
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.bind(path)
        sock.listen()
        return trio.SocketListener(sock), conpool.UnixEndpoint(path, tls=self._tls)


@pytest.fixture
def network(kind: Kind, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext) -> Network:
    if "UNIX" in kind and not hasattr(socket, "AF_UNIX"):
        pytest.skip("there are no UNIX sockets here")
    return Network(kind, server_ssl, client_ssl)


def sweep(play: Play) -> None:
    points = cancel_everywhere(play)
    tried["points of cancellation"] += points
    assert points > 3
    trio.run(play, CancelledOutside())
    tried["outer scopes"] += 1
    trio.run(play, trio.CancelScope(deadline=-math.inf))
    tried["deadlines"] += 1


async def lend(network: Network, situation: Situation, scope: Scope) -> None:
    """One lease, cancelled somewhere between before its acquire and after its release."""
    config = conpool.PoolConfig(max_connections_per_endpoint=1)
    async with network.serving() as (server, endpoint), clean(endpoint, config) as case:
        free = trio.Event()
        held = 0

        async def hold() -> None:
            nonlocal held
            async with case.pool.connection(endpoint) as conn:
                held = 1
                await exchange(conn, b"held")
                await free.wait()
                held = 0

        async def let_go() -> None:
            await wait_all_tasks_blocked()
            free.set()

        async with trio.open_nursery() as nursery:
            if situation != "cold":
                nursery.start_soon(hold)
                await wait_all_tasks_blocked()
            if situation == "warm":
                free.set()
                await wait_all_tasks_blocked()
            if situation == "queued":
                nursery.start_soon(let_go)
            with scope:
                async with case.pool.connection(endpoint) as conn:
                    await exchange(conn, b"the call")
            stats = case.pool.stats(endpoint)
            assert (stats.active, stats.waiting) == (held, 0)
        await case.settle()
        await server.wait_live(case.pool.stats(endpoint).idle)


@KINDS
@pytest.mark.parametrize("situation", ["cold", "warm", "queued"])
def test_a_lease_of_a_socket_that_is_cancelled_gives_its_slot_back(
    network: Network, situation: Situation
) -> None:
    sweep(partial(lend, network, situation))


async def live(network: Network, scope: Scope) -> None:
    """A whole pool, cancelled somewhere between before its opening and after its end."""
    async with network.serving() as (server, endpoint):
        pool = conpool.ConnectionPool(conpool.PoolConfig(max_connections_per_endpoint=2))
        with scope:
            async with pool, trio.open_nursery() as nursery:
                nursery.start_soon(pool.warm, endpoint, 2)
                async with pool.connection(endpoint) as conn:
                    await exchange(conn, b"the call")
                    pool.clear()
                await pool.drain()
                async with pool.connection(endpoint) as conn:
                    await exchange(conn, b"the call")
        stats = pool.all_stats()
        assert not stats.active + stats.idle + stats.connecting + stats.closing, pool
        await server.wait_live(0)


@KINDS
def test_a_pool_of_sockets_that_is_cancelled_leaves_nothing(network: Network) -> None:
    sweep(partial(live, network))
