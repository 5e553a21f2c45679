"""Leftovers in a connection that the next caller read: cases from other pools.

Each test has the name of the report, and its docstring says what happened there.
"""

from __future__ import annotations

import ssl
from typing import Literal

import pytest
import trio
from trio.testing import MockClock

from conpool import TLS, CloseReason, Connection, Endpoint, HTTPProxy, ProxyError, TLSError
from tests._proxies import proxy_at_work, read_head
from tests.servers import Valkey
from tests.support.clean import PATIENCE, Case, clean
from tests.support.faults import LOOPBACK, start_proxy
from tests.support.loopback_servers import exchange, serving, shake_hands
from tests.support.pools import HERE, Network, echo, open_pool, reasons, settle


async def ask_to_echo(stream: trio.abc.Stream, word: bytes) -> bytes:
    """Ask a Redis server to echo `word`; return its answer, or whatever comes in its place."""
    await stream.send_all(b"ECHO " + word + b"\r\n")
    return await receive_reply(stream)


async def receive_reply(stream: trio.abc.Stream) -> bytes:
    reply = b""
    while reply.count(b"\r\n") < 2:
        data = await stream.receive_some(1)
        assert data, f"the server hung up after {reply!r}"
        reply += data
    return reply.split(b"\r\n")[1]


@pytest.fixture
def redis(valkey: Valkey) -> Endpoint:
    return Endpoint(valkey.host, valkey.port)


async def test_redis_py_2624(redis: Endpoint) -> None:
    """A task was cancelled after it had sent a command, and its connection went back to the pool.

    The next caller read the reply to that command, and every later caller the reply of the one
    before. In March 2023 users of ChatGPT saw data of other users.
    """
    async with clean(redis) as case:
        with trio.CancelScope() as scope:
            async with case.pool.connection(redis) as conn:
                await conn.send_all(b"ECHO alice\r\n")
                scope.cancel()
                await conn.receive_some()
        assert scope.cancelled_caught
        for word in (b"bob", b"carol"):
            async with case.pool.connection(redis) as conn:
                assert await ask_to_echo(conn, word) == word
        assert case.log.reasons == [CloseReason.CANCELLED]


async def test_redis_py_2665(redis: Endpoint) -> None:
    """The first repair forgot pipelines, where some replies are read and more are to come.

    So a reply that moved last does not prove that the exchange is over.
    """
    async with clean(redis) as case:
        with trio.CancelScope() as scope:
            async with case.pool.connection(redis) as conn:
                await conn.send_all(b"ECHO alice\r\nECHO alan\r\n")
                assert await receive_reply(conn) == b"alice"
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        async with case.pool.connection(redis) as conn:
            assert await ask_to_echo(conn, b"bob") == b"bob"
        assert case.log.reasons == [CloseReason.CANCELLED]


async def answer_in_halves(stream: trio.abc.Stream) -> None:
    async for data in stream:
        await stream.send_all(data[:1])
        await trio.sleep(2)
        await stream.send_all(data[1:])


async def receive_all(conn: Connection[None], count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await conn.receive_some()
    return data


async def test_dalli_956(autojump_clock: MockClock) -> None:
    """Ruby's `Timeout` interrupted a request, the block rescued it, the connection was kept.

    The rest of memcached's value was read as the next answer. A mark for a request in flight mended
    it.
    """
    async with open_pool(Network(answer_in_halves)) as pool:
        async with pool.connection(HERE) as conn:
            await conn.send_all(b"alice")
            with trio.move_on_after(1):
                await receive_all(conn, 5)
        async with pool.connection(HERE) as conn:
            await conn.send_all(b"bobby")
            assert await receive_all(conn, 5) == b"bobby"
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_cve_2025_47907(autojump_clock: MockClock) -> None:
    """Go's `Rows.Scan` went on in one goroutine after another had cancelled the query.

    It then read the rows of another query into the caller's variables.
    """

    async def scan(conn: Connection[None]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            rows.append(await conn.receive_some())

    rows: list[bytes | bytearray] = []
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        conn = await pool.acquire(HERE)
        nursery.start_soon(scan, conn)
        await settle()
        pool.release(conn)
        async with pool.connection(HERE) as conn:
            await exchange(conn, b"bob's")
        assert not rows
        assert reasons(pool) == {"INCOMPLETE": 1}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("seen", ["at release", "at acquire", "at hand-over", "after a pause"])
async def test_undici_ghsa_35p6_xmwp_9g52(
    seen: Literal["at release", "at acquire", "at hand-over", "after a pause"],
    tls: bool,
    server_ssl: ssl.SSLContext,
    client_ssl: ssl.SSLContext,
) -> None:
    """On a shared connection, an attacker made the server answer once more than it was asked.

    The next request got the surplus reply, and every later request the reply of another one.
    Envoy's CVE-2026-73548 and Traefik's CVE-2026-71324 are of the same kind.
    """

    servers: list[trio.abc.Stream] = []

    async def serve(stream: trio.abc.Stream) -> None:
        servers.append(stream)
        await echo(stream)

    async def use() -> None:
        async with case.pool.connection(endpoint) as conn:
            await exchange(conn, b"victim")

    async with serving(serve, server_ssl if tls else None) as server:
        endpoint = Endpoint(LOOPBACK, server.port, tls=TLS(client_ssl) if tls else False)
        async with clean(endpoint) as case, trio.open_nursery() as nursery:
            case.pool.set_limit(endpoint, 1)
            conn = await case.pool.acquire(endpoint)
            if seen == "at hand-over":
                nursery.start_soon(use)
                await settle()
            await exchange(conn, b"smuggle")
            if seen in {"at acquire", "after a pause"}:
                case.pool.release(conn)
            if seen == "after a pause":
                case.pool.pause(endpoint)
                nursery.start_soon(use)
            await settle()  # by then the server has sent all of its answer
            await servers[0].send_all(b"poison")
            await let_arrive(case)
            case.pool.release(conn)
            case.pool.resume(endpoint)
            await use()
            assert case.log.reasons == [CloseReason.UNREAD_DATA]


async def let_arrive(case: Case) -> None:
    """Wait until the only connection has something to read."""
    (entry,) = case.entries()
    with trio.fail_after(PATIENCE):
        while not entry.link.poll(0):  # noqa: ASYNC110 - receiving it would consume it
            await trio.sleep(0.001)


async def test_libpq_cve_2021_23222(
    nursery: trio.Nursery, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    """A man in the middle sent plain bytes before the TLS handshake.

    libpq kept them in its buffer, and later took them for the server's first words.
    """
    async with serving(echo, server_ssl) as server:
        tls = TLS(client_ssl)
        proxy = await start_proxy(nursery, server.port)
        proxy.prepare = lambda passage: setattr(passage, "greeting", b"trust me")
        async with clean(Endpoint(LOOPBACK, server.port, tls=tls)) as case:
            with pytest.raises(TLSError):
                await case.pool.acquire(Endpoint(LOOPBACK, proxy.port, tls=tls))


async def test_libpq_cve_2021_23222_in_a_tunnel(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    """The same in one packet with an HTTP proxy's answer; the handshake alone would succeed."""

    async def inject(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\ntrust me")
        with pytest.raises(trio.BrokenResourceError):
            await shake_hands(stream, server_ssl)

    async with proxy_at_work(inject) as port, clean(None) as case:
        tls = TLS(client_ssl, server_hostname="localhost")
        endpoint = Endpoint("db.example", 5432, tls=tls, proxy=HTTPProxy(LOOPBACK, port))
        with pytest.raises(ProxyError, match="before TLS began"):
            await case.pool.acquire(endpoint)


async def test_jetty_4113(server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext) -> None:
    """TLS 1.3 servers send session tickets after the handshake; they lie unread in the socket.

    Jetty's pool took them for bytes that nobody had asked for, and closed every healthy connection.
    """
    async with serving(echo, server_ssl) as server:
        endpoint = Endpoint(LOOPBACK, server.port, tls=TLS(client_ssl))
        async with clean(endpoint) as case:
            await case.pool.warm(endpoint, 1)
            case.await_stir()  # the tickets have come
            for _ in range(2):
                async with case.pool.connection(endpoint) as conn:
                    assert conn.id == 1
            async with case.pool.connection(endpoint) as conn:
                await exchange(conn)
            assert case.log.reasons == []
