"""The pool closes idle connections whose peer has gone, however many and however opened."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from conpool import (
    TLS,
    AnyEndpoint,
    CloseReason,
    Endpoint,
    HTTPProxy,
    PoolConfig,
    SOCKS5Proxy,
    UnixEndpoint,
)
from tests._net import LOOPBACK
from tests._proxies import Connecting, Socks, proxy_at_work
from tests.support.clean import Logbook
from tests.support.kernel import TCPState, client_sockets, need_kernel_table

from .places import QUIET, EchoServer, ask, echoing, linux_only, listened_to, raise_file_limit

pytestmark = linux_only

PROMPTLY = 0.050
"""The pool must notice the end of an idle connection within so many seconds."""


@asynccontextmanager
async def reached(
    how: str, client: ssl.SSLContext, server: ssl.SSLContext, folder: Path
) -> AsyncIterator[tuple[AnyEndpoint, EchoServer]]:
    """An echo server, and an endpoint that leads to it in one of many ways."""
    async with AsyncExitStack() as stack:
        if how == "unix":
            path = folder / "socket"
            yield UnixEndpoint(path), await stack.enter_async_context(echoing(path=path))
            return
        encrypted = "TLS to the target" in how
        target = await stack.enter_async_context(echoing(server if encrypted else None))
        proxy: HTTPProxy | SOCKS5Proxy | None = None
        if how.startswith("CONNECT"):
            hop = server if "TLS to the proxy" in how else None
            port = await stack.enter_async_context(proxy_at_work(Connecting(), hop))
            proxy = HTTPProxy(LOOPBACK, port, tls=TLS(client) if hop else False)
        elif how.startswith("SOCKS5"):
            port = await stack.enter_async_context(proxy_at_work(Socks()))
            proxy = SOCKS5Proxy(LOOPBACK, port)
        tls = TLS(client) if encrypted else False
        yield Endpoint(LOOPBACK, target.port, tls=tls, proxy=proxy), target


WAYS = [
    "straight",
    "unix",
    "straight, TLS to the target",
    "CONNECT",
    "SOCKS5",
    "SOCKS5, TLS to the target",
    "CONNECT, TLS to the proxy",
    "CONNECT, TLS to the proxy, TLS to the target",
]


@pytest.mark.parametrize("how", WAYS)
async def test_f071_whatever_way_it_was_opened_its_end_is_noticed_with_no_checkout(
    how: str, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext, tmp_path: Path
) -> None:
    async with (
        reached(how, client_ssl, server_ssl, tmp_path) as (endpoint, target),
        listened_to() as (pool, log),
    ):
        await ask(pool, endpoint)
        assert pool.stats(endpoint).idle == 1
        target.end_all()
        await log.wait_closed(CloseReason.PEER_CLOSED)
        await ask(pool, endpoint)
        assert log.dialled == 2


async def seconds_to_notice(count: int, log: Logbook, end: Callable[[], object]) -> float:
    """Have the server end all connections; return the seconds until the pool closed the last."""
    closed = len(log.reasons)
    began = trio.current_time()
    end()
    await log.wait_until(lambda: len(log.reasons) - closed >= count)
    assert set(log.reasons) == {CloseReason.PEER_CLOSED}
    return trio.current_time() - began


async def test_the_end_of_one_is_noticed_within_fifty_milliseconds() -> None:
    """Return the best of five: a machine may be busy, but hardly five times in a row."""
    need_kernel_table()
    took: list[float] = []
    async with echoing() as server, listened_to() as (pool, log):
        endpoint = Endpoint(LOOPBACK, server.port)
        for _ in range(5):
            await ask(pool, endpoint)
            (entry,) = pool._core.subs[endpoint].idle
            took.append(await seconds_to_notice(1, log, server.end_all))
            assert entry.link.fileno() == -1
            assert client_sockets(server.port).total() == 0
    print(f"\nnoticed after {min(took) * 1000:.2f} to {max(took) * 1000:.2f} ms")
    assert min(took) < PROMPTLY


@pytest.mark.parametrize("how", ["straight", "CONNECT, TLS to the proxy, TLS to the target"])
async def test_a_thousand_closed_at_once_leave_none_in_close_wait(
    how: str, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext, tmp_path: Path
) -> None:
    need_kernel_table()
    count = 1000 if how == "straight" else 100  # handshakes take time
    raise_file_limit(2 * count + 500)
    config = PoolConfig(reap_interval=float("inf"), max_connections_per_endpoint=count)
    async with (
        reached(how, client_ssl, server_ssl, tmp_path) as (endpoint, server),
        listened_to(config) as (pool, log),
    ):
        assert isinstance(endpoint, Endpoint)
        await pool.warm(endpoint, count)
        await server.wait_accepted(count)
        took = await seconds_to_notice(count, log, server.end_all)
        port = endpoint.port if endpoint.proxy is None else endpoint.proxy.port
        assert client_sockets(port)[TCPState.CLOSE_WAIT] == 0
        assert pool.stats(endpoint).idle == 0
        await ask(pool, endpoint)
    print(f"\n{count} noticed within {took * 1000:.0f} ms")


async def test_those_who_stay_are_not_disturbed_by_those_who_go() -> None:
    config = QUIET.replace(max_connections_per_endpoint=50)
    async with echoing() as going, echoing() as staying, listened_to(config) as (pool, log):
        here, there = Endpoint(LOOPBACK, going.port), Endpoint(LOOPBACK, staying.port)
        await pool.warm(here, 50)
        await pool.warm(there, 50)
        await going.wait_accepted(50)
        async with pool.connection(there) as conn:
            await seconds_to_notice(50, log, going.end_all)
            await conn.send_all(b"still there?")
            assert await conn.receive_some() == b"still there?"
        assert pool.stats(there).idle == 50
        assert log.dialled == 100
