"""Each phase of a dial, cancelled at every point: under its caller, and under the whole pool.

When a caller is cancelled its dial goes on, and serves the next caller (F030, G10). When a pool is
cancelled its dials are too, and they leave no file and no task (F031, G18, G19). Both hold in each
phase of a dial: look-up, race, proxy, handshake, and the wait for a place in a backlog.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple, TypeAlias, final

import pytest
import trio

from conpool import (
    TLS,
    AnyEndpoint,
    Connection,
    ConnectionPool,
    Endpoint,
    HTTPProxy,
    PoolConfig,
    SOCKS5Proxy,
    TCPConnector,
    UnixEndpoint,
)
from conpool.testing import assert_quiescent, cancel_everywhere
from tests._net import LOOPBACK, SystemResolver, refusing, swallowing
from tests._proxies import Connecting, Serve, Socks, proxy_at_work
from tests.support.clean import Logbook
from tests.support.loopback_servers import exchange
from tests.support.pools import find_pool_tasks

from .places import Directory, echoing, linux_only

pytestmark = linux_only


class Contexts(NamedTuple):
    client: ssl.SSLContext
    server: ssl.SSLContext
    folder: Path


@pytest.fixture
def contexts(client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext, tmp_path: Path) -> Contexts:
    return Contexts(client_ssl, server_ssl, tmp_path)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemResolver]:
    resolver = SystemResolver()
    resolver.gate.set()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.let_go()


Way: TypeAlias = Callable[[AsyncExitStack, Contexts], Awaitable[tuple[AnyEndpoint, TCPConnector]]]
"""Sets up a server to connect to, until the stack is closed."""


def forgiving(serve: Serve) -> Serve:
    """Ignore clients that hang up in the middle of a request: here they all do."""

    async def serve_those_who_stay(stream: trio.abc.Stream) -> None:
        with contextlib.suppress(AssertionError):
            await serve(stream)

    return serve_those_who_stay


# ── the phases ──────────────────────────────────────────────────────────────────


async def by_the_systems_resolver(
    stack: AsyncExitStack, _: Contexts
) -> tuple[AnyEndpoint, TCPConnector]:
    server = await stack.enter_async_context(echoing())
    return Endpoint("db.example", server.port), TCPConnector()


async def past_a_refusal(stack: AsyncExitStack, _: Contexts) -> tuple[AnyEndpoint, TCPConnector]:
    server = await stack.enter_async_context(echoing())
    stack.enter_context(refusing("127.0.0.2", server.port))
    directory = Directory(db=("127.0.0.2", LOOPBACK))
    return Endpoint("db", server.port), TCPConnector(resolver=directory)


async def past_a_black_hole(stack: AsyncExitStack, _: Contexts) -> tuple[AnyEndpoint, TCPConnector]:
    server = await stack.enter_async_context(echoing())
    stack.enter_context(swallowing("127.0.0.2", server.port))
    directory = Directory(db=("127.0.0.2", LOOPBACK))
    connector = TCPConnector(resolver=directory, happy_eyeballs_delay=0.002)
    return Endpoint("db", server.port, local_address="127.0.0.9"), connector


async def in_a_dead_heat(stack: AsyncExitStack, _: Contexts) -> tuple[AnyEndpoint, TCPConnector]:
    server = await stack.enter_async_context(echoing(host="0.0.0.0"))
    directory = Directory(db=("127.0.0.1", "127.0.0.2", "127.0.0.3"))
    connector = TCPConnector(resolver=directory, happy_eyeballs_delay=0.0)
    return Endpoint("db", server.port), connector


async def over_tls(stack: AsyncExitStack, contexts: Contexts) -> tuple[AnyEndpoint, TCPConnector]:
    server = await stack.enter_async_context(echoing(contexts.server))
    return Endpoint(LOOPBACK, server.port, tls=TLS(contexts.client)), TCPConnector()


async def by_connect(stack: AsyncExitStack, _: Contexts) -> tuple[AnyEndpoint, TCPConnector]:
    target = await stack.enter_async_context(echoing())
    port = await stack.enter_async_context(proxy_at_work(forgiving(Connecting())))
    proxy = HTTPProxy(LOOPBACK, port, username="joe", password="hunter2")
    return Endpoint(LOOPBACK, target.port, proxy=proxy), TCPConnector()


async def by_socks(stack: AsyncExitStack, _: Contexts) -> tuple[AnyEndpoint, TCPConnector]:
    target = await stack.enter_async_context(echoing())
    socks = Socks(credentials=(b"joe", b"hunter2"))
    port = await stack.enter_async_context(proxy_at_work(forgiving(socks)))
    proxy = SOCKS5Proxy(LOOPBACK, port, username="joe", password="hunter2")
    return Endpoint("db.example", target.port, proxy=proxy), TCPConnector()


async def over_tls_in_tls(
    stack: AsyncExitStack, contexts: Contexts
) -> tuple[AnyEndpoint, TCPConnector]:
    tls = TLS(contexts.client)
    target = await stack.enter_async_context(echoing(contexts.server))
    port = await stack.enter_async_context(proxy_at_work(forgiving(Connecting()), contexts.server))
    proxy = HTTPProxy(LOOPBACK, port, tls=tls)
    return Endpoint(LOOPBACK, target.port, tls=tls, proxy=proxy), TCPConnector()


async def by_a_unix_socket(
    stack: AsyncExitStack, contexts: Contexts
) -> tuple[AnyEndpoint, TCPConnector]:
    path = contexts.folder / f"socket{os.urandom(4).hex()}"
    await stack.enter_async_context(echoing(path=path))
    return UnixEndpoint(path), TCPConnector()


async def by_a_unix_socket_whose_backlog_is_full(
    stack: AsyncExitStack, contexts: Contexts
) -> tuple[AnyEndpoint, TCPConnector]:
    path = contexts.folder / f"socket{os.urandom(4).hex()}"
    server = await stack.enter_async_context(echoing(path=path, backlog=0, accepts_after=0.005))
    for _ in range(10):
        filler = stack.enter_context(socket.socket(socket.AF_UNIX))
        filler.setblocking(False)
        try:
            filler.connect(os.fspath(path))
        except BlockingIOError:
            break
    assert server.accepted == 0
    return UnixEndpoint(path), TCPConnector()


WAYS: list[Way] = [
    by_the_systems_resolver,
    past_a_refusal,
    past_a_black_hole,
    in_a_dead_heat,
    over_tls,
    by_connect,
    by_socks,
    over_tls_in_tls,
    by_a_unix_socket,
    by_a_unix_socket_whose_backlog_is_full,
]


# ── cancelled ───────────────────────────────────────────────────────────────────


@final
class Witness:
    """Checks that a scenario leaves no file and no task of a pool."""

    def __init__(self) -> None:
        self._files = count_files()

    def check(self, log: Logbook) -> None:
        assert not list(log.find_unpaired())
        assert not log._open, "connections were opened and never closed"
        assert not find_pool_tasks(), find_pool_tasks()
        assert count_files() == self._files, "a file was left open"


def count_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


CONFIG = PoolConfig(max_connections_per_endpoint=1, reap_interval=float("inf"))


@pytest.mark.parametrize("way", WAYS)
def test_f030_g10_a_dial_whose_caller_is_cancelled_serves_the_next(
    way: Way, contexts: Contexts, system: SystemResolver
) -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        witness, log = Witness(), Logbook()
        async with AsyncExitStack() as stack:
            endpoint, connector = await way(stack, contexts)
            async with ConnectionPool(CONFIG, connector=connector, observers=[log]) as pool:
                conn: Connection[None] | None = None
                with scope:
                    conn = await pool.acquire(endpoint)
                if conn is not None:
                    await exchange(conn)
                    pool.release(conn)
                await log.wait_until(lambda: not pool.stats(endpoint).connecting)
                assert_quiescent(pool)
                async with pool.connection(endpoint) as conn:
                    await exchange(conn)
                assert log.dialled == 1, "nothing of the dial was lost"
        witness.check(log)

    assert cancel_everywhere(scenario) >= 4


@pytest.mark.parametrize("way", WAYS)
def test_f031_g18_g19_a_dial_whose_pool_is_cancelled_leaves_nothing(
    way: Way, contexts: Contexts, system: SystemResolver
) -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        witness, log = Witness(), Logbook()
        async with AsyncExitStack() as stack:
            endpoint, connector = await way(stack, contexts)
            pool = ConnectionPool(CONFIG, connector=connector, observers=[log])
            with scope:
                async with pool, pool.connection(endpoint):
                    pass
        witness.check(log)

    assert cancel_everywhere(scenario) >= 4
