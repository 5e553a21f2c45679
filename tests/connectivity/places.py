"""What the tests of connectivity share: pools with a log, servers, and names that move."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast, final

import pytest
import trio
from trio.abc import Stream

from conpool import AnyEndpoint, ConnectionPool, PoolConfig
from tests._net import LOOPBACK
from tests.support.clean import PATIENCE, Logbook
from tests.support.loopback_servers import exchange, send_tickets

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's loopback or epoll")

QUIET = PoolConfig(reap_interval=float("inf"), lifetime_jitter=0.0)
"""A pool without a reaper: only the idle watch notices anything."""


@asynccontextmanager
async def listened_to(
    config: PoolConfig = QUIET, **options: Any
) -> AsyncIterator[tuple[ConnectionPool[None], Logbook]]:
    """Open a pool, with a log of its events; at the end each event must have its counterpart."""
    log = Logbook()
    async with ConnectionPool(config, observers=[log], **options) as pool:
        yield pool, log
    assert not list(log.find_unpaired())
    assert not log._open, "connections were opened and never closed"


async def ask(pool: ConnectionPool[None], endpoint: AnyEndpoint, text: bytes = b"ping") -> int:
    """Make one exchange with an echo server; return the number of the connection that served."""
    with trio.fail_after(PATIENCE):
        async with pool.connection(endpoint) as conn:
            await exchange(conn, text)
            return conn.id


async def wait_until(holds: Callable[[], object]) -> None:
    """Wait for something that another process does, and does not tell us."""
    with trio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.001)


# ── servers and names ───────────────────────────────────────────────────────────


@final
class EchoServer:
    """Sends back what it receives; the test may end its connections."""

    def __init__(self, listener: trio.SocketListener, context: ssl.SSLContext | None) -> None:
        self.listener = listener
        self.accepted = 0
        self.live: set[trio.SocketStream] = set()
        """The connections that this end has not closed."""
        self.goodbyes = 0
        """How many clients ended their connection properly."""
        self.accepting = trio.CancelScope()
        self._context = context

    @property
    def port(self) -> int:
        return cast("int", self.listener.socket.getsockname()[1])

    async def wait_accepted(self, count: int) -> None:
        """Wait until so many connections are accepted: clients may think them open before that."""
        with trio.fail_after(PATIENCE):
            while self.accepted < count:
                await trio.lowlevel.checkpoint()

    def refuse(self) -> None:
        """Accept no more connections; the open ones stay."""
        self.accepting.cancel()
        self.listener.socket.close()

    def end_all(self) -> None:
        """Close every connection at the level of its socket."""
        for stream in self.live:
            stream.socket.close()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.accepted += 1
        self.live.add(stream)
        try:
            await self._echo(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has gone, or the test has closed it
        else:
            self.goodbyes += 1
        finally:
            stream.socket.close()
            self.live.discard(stream)

    async def _echo(self, end: Stream) -> None:
        if self._context is not None:
            encrypted = trio.SSLStream(end, self._context, server_side=True)
            await encrypted.do_handshake()
            await send_tickets(encrypted)
            end = encrypted
        async for data in end:
            await end.send_all(data)


@asynccontextmanager
async def echoing(
    context: ssl.SSLContext | None = None,
    *,
    host: str = LOOPBACK,
    port: int = 0,
    path: Path | None = None,
    backlog: int = 100,
    accepts_after: float = 0.0,
) -> AsyncIterator[EchoServer]:
    """Run an echo server on a free port, or on a UNIX socket; it accepts after so many seconds."""
    if path is None:
        (listener,) = await trio.open_tcp_listeners(port, host=host)
    else:
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.bind(str(path))
        sock.listen(backlog)
        listener = trio.SocketListener(sock)
    async with listener, trio.open_nursery() as nursery:
        server = EchoServer(listener, context)

        async def accept() -> None:
            with server.accepting:
                await trio.sleep(accepts_after)
                await trio.serve_listeners(server.serve, [listener], handler_nursery=nursery)

        nursery.start_soon(accept)
        yield server
        nursery.cancel_scope.cancel()


@final
class Directory:
    """A resolver for `TCPConnector`, whose names the test can move."""

    def __init__(self, **names: tuple[str, ...]) -> None:
        self.names = names
        self.asked: list[str] = []
        self.hangs: set[str] = set()

    async def __call__(self, host: str, family: int) -> tuple[str, ...]:
        self.asked.append(host)
        if host in self.hangs:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return self.names[host]


def raise_file_limit(wanted: int) -> None:
    """Allow this process so many open files, or skip the test."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted <= hard or hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    elif soft < wanted:
        pytest.skip(f"needs {wanted} files, and may have {hard}")
