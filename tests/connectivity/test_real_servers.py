"""The pool with real servers: through proxies, over UNIX sockets, over TLS."""

from __future__ import annotations

import importlib
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.abc import Stream

from conpool import (
    TLS,
    AnyEndpoint,
    CloseReason,
    ConnectError,
    ConnectionPool,
    Endpoint,
    HTTPProxy,
    Login,
    PoolConfig,
    ProxyError,
    SOCKS5Proxy,
    TLSError,
    UnixEndpoint,
)
from tests._net import refusing
from tests.connectivity.test_real_proxies import PProxy
from tests.servers import LOOPBACK, Certificates, HAProxy, Postgres, RedisTLS, Valkey
from tests.support.kernel import TCPState, client_sockets, need_kernel_table

from .places import QUIET, linux_only, listened_to, wait_until

PATIENCE = 10.0


async def say(stream: Stream, line: bytes) -> bytes:
    """Send one command of the Redis protocol; return its one-line answer."""
    await stream.send_all(line + b"\r\n")
    answer = b""
    while not answer.endswith(b"\r\n"):
        data = await stream.receive_some()
        assert data, f"the server hung up after {answer!r}"
        answer += data
    return answer.removesuffix(b"\r\n")


async def command(pool: ConnectionPool[None], endpoint: AnyEndpoint, line: bytes) -> bytes:
    with trio.fail_after(PATIENCE):
        async with pool.connection(endpoint) as conn:
            return await say(conn, line)


async def many_commands(pool: ConnectionPool[None], endpoint: AnyEndpoint, count: int) -> None:
    """Run so many tasks, each of which must get its own answer and nobody else's."""

    async def echo(number: int) -> None:
        assert await command(pool, endpoint, b"INCRBY n%d %d" % (number, number)) == b":%d" % number
        assert await command(pool, endpoint, b"DEL n%d" % number) == b":1"

    async with trio.open_nursery() as nursery:
        for number in range(1, count + 1):
            nursery.start_soon(echo, number)


# ── through HAProxy ─────────────────────────────────────────────────────────────


async def test_valkey_behind_haproxy_which_passes_tcp_on(valkey: Valkey) -> None:
    with HAProxy(backends=[valkey.port]) as haproxy:
        endpoint = Endpoint(LOOPBACK, haproxy.port)
        async with listened_to(PoolConfig(max_connections_per_endpoint=4)) as (pool, log):
            await many_commands(pool, endpoint, 50)
            assert log.dialled == 4


@linux_only
async def test_f071_a_server_that_dies_behind_haproxy_is_noticed_and_found_again() -> None:
    need_kernel_table()
    with Valkey() as server, HAProxy(backends=[server.port]) as haproxy:
        endpoint = Endpoint(LOOPBACK, haproxy.port)
        async with listened_to() as (pool, log):
            await pool.warm(endpoint, 3)
            # HAProxy has accepted before it has reached the server; an answer says that it has.
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(keep_for_one_answer, pool, endpoint)
            server.kill()
            await log.wait_closed(*[CloseReason.PEER_CLOSED] * 3)
            assert client_sockets(haproxy.port)[TCPState.CLOSE_WAIT] == 0
            server.start()
            await wait_until(lambda: haproxy.ask(b"PING\r\n") == b"+PONG\r\n")
            assert await command(pool, endpoint, b"PING") == b"+PONG"


async def keep_for_one_answer(pool: ConnectionPool[None], endpoint: AnyEndpoint) -> None:
    async with pool.connection(endpoint) as conn:
        assert await say(conn, b"PING") == b"+PONG"
        await trio.testing.wait_all_tasks_blocked(0.01)  # so that the others take other connections


# ── through a proxy from a package ──────────────────────────────────────────────


@pytest.mark.parametrize("kind", [HTTPProxy, SOCKS5Proxy])
async def test_tunnels_are_lent_again_like_any_connection(
    kind: type[HTTPProxy | SOCKS5Proxy], pproxy: PProxy, valkey: Valkey
) -> None:
    endpoint = Endpoint(LOOPBACK, valkey.port, proxy=kind(LOOPBACK, pproxy.port))
    async with listened_to(PoolConfig(max_connections_per_endpoint=4)) as (pool, log):
        await many_commands(pool, endpoint, 30)
        assert log.dialled == 4


@pytest.mark.parametrize("kind", [HTTPProxy, SOCKS5Proxy])
async def test_f120_other_credentials_mean_another_connection(
    kind: type[HTTPProxy | SOCKS5Proxy], guarded: PProxy, valkey: Valkey
) -> None:
    def endpoint(password: str) -> Endpoint:
        proxy = kind(LOOPBACK, guarded.port, username="joe", password=password)
        return Endpoint(LOOPBACK, valkey.port, proxy=proxy)

    async with listened_to() as (pool, log):
        assert await command(pool, endpoint("hunter2"), b"PING") == b"+PONG"
        for _ in range(2):
            with pytest.raises(ProxyError, match="credentials|407|hung up"):
                await command(pool, endpoint("hunter3"), b"PING")
        assert pool.stats(endpoint("hunter3")).idle == 0
        assert await command(pool, endpoint("hunter2"), b"PING") == b"+PONG"
        assert log.dialled == 3


async def test_f120_a_target_that_is_down_is_told_by_an_http_proxy(pproxy: PProxy) -> None:
    proxy = HTTPProxy(LOOPBACK, pproxy.port)
    with refusing() as port:
        async with listened_to() as (pool, _):
            with pytest.raises(ProxyError):
                await command(pool, Endpoint(LOOPBACK, port, proxy=proxy), b"PING")


async def test_f120_a_socks_proxy_that_agrees_before_it_has_connected_and_then_hangs_up(
    pproxy: PProxy, client_ssl: ssl.SSLContext
) -> None:
    """pproxy does: it answers before it knows whether the target is there."""
    proxy = SOCKS5Proxy(LOOPBACK, pproxy.port)
    with refusing() as port:
        async with listened_to() as (pool, log):
            with trio.fail_after(PATIENCE):
                async with pool.connection(Endpoint(LOOPBACK, port, proxy=proxy)) as conn:
                    assert await conn.receive_some() == b""
            assert log.reasons == [CloseReason.PEER_CLOSED]
            with pytest.raises(TLSError):
                await pool.acquire(Endpoint(LOOPBACK, port, tls=TLS(client_ssl), proxy=proxy))
            assert pool.all_stats().idle == 0


@linux_only
async def test_redis_over_tls_through_a_proxy_that_is_reached_by_tls(
    pproxy: PProxy, redis_tls: RedisTLS, client_ssl: ssl.SSLContext
) -> None:
    """It is lent again, probed, ended by the server while idle, replaced, and closed at last.

    The sweep finds the end: pproxy, like all of asyncio, says goodbye by TLS and then waits for an
    answer before it closes the connection.
    """
    need_kernel_table()
    tls = TLS(client_ssl)
    proxy = HTTPProxy("localhost", pproxy.ports[1], tls=tls)
    endpoint = Endpoint("localhost", redis_tls.port, tls=tls, proxy=proxy)
    async with listened_to(QUIET.replace(reap_interval=0.02)) as (pool, log):
        name = await command(pool, endpoint, b"CLIENT ID")
        for _ in range(10):
            assert await command(pool, endpoint, b"CLIENT ID") == name
        assert log.dialled == 1
        redis_tls.ask(b"CLIENT KILL TYPE normal SKIPME yes\r\n", context=client_ssl)
        await log.wait_closed(CloseReason.PEER_CLOSED)
        assert await command(pool, endpoint, b"CLIENT ID") != name
        assert log.dialled == 2
    assert client_sockets(pproxy.ports[1]).total() == 0


# ── TLS with a client's certificate ─────────────────────────────────────────────


async def test_redis_that_wants_a_certificate_gets_one(
    strict_redis: RedisTLS, certificates: Certificates
) -> None:
    tls = TLS(certificates.client_context(with_certificate=True))
    endpoint = Endpoint("localhost", strict_redis.port, tls=tls)
    async with listened_to(PoolConfig(max_connections_per_endpoint=3)) as (pool, log):
        await many_commands(pool, endpoint, 30)
        assert log.dialled == 3


async def test_f056_without_a_certificate_the_first_exchange_fails_and_nothing_is_kept(
    strict_redis: RedisTLS, certificates: Certificates
) -> None:
    """TLS 1.3: for the client the handshake is over before the server has seen its certificate.

    The client only listens for the server's alert. If it sent something, that could cross the
    server's close, and the reset would hide the alert.
    """
    with_one = TLS(certificates.client_context(with_certificate=True))
    without = TLS(certificates.client_context())
    async with listened_to() as (pool, log):
        stranger = Endpoint("localhost", strict_redis.port, tls=without)
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError) as caught:
                async with pool.connection(stranger) as conn:
                    await conn.receive_some()
            assert "CERTIFICATE_REQUIRED" in repr(caught.value.__cause__)
        assert log.reasons == [CloseReason.ERROR] * 2
        friend = Endpoint("localhost", strict_redis.port, tls=with_one)
        assert await command(pool, friend, b"PING") == b"+PONG"


async def test_f065_f067_a_certificate_is_rotated_by_a_new_context_or_by_clear(
    redis_tls: RedisTLS, certificates: Certificates
) -> None:
    context = certificates.client_context()
    endpoint = Endpoint("localhost", redis_tls.port, tls=TLS(context))
    async with listened_to() as (pool, log):
        first = await command(pool, endpoint, b"CLIENT ID")
        certificates.client.configure_cert(context)
        assert await command(pool, endpoint, b"CLIENT ID") == first, "what is open lives on"
        pool.clear(endpoint)
        second = await command(pool, endpoint, b"CLIENT ID")
        assert second != first
        renewed = TLS(certificates.client_context(with_certificate=True))
        third = await command(
            pool, Endpoint("localhost", redis_tls.port, tls=renewed), b"CLIENT ID"
        )
        assert third not in {first, second}
        assert log.dialled == 3


# ── over UNIX sockets ───────────────────────────────────────────────────────────


async def test_valkey_over_its_unix_socket(valkey: Valkey) -> None:
    endpoint = UnixEndpoint(valkey.path)
    async with listened_to(PoolConfig(max_connections_per_endpoint=4)) as (pool, log):
        await many_commands(pool, endpoint, 50)
        assert log.dialled == 4


@linux_only
async def test_f050_valkey_restarted_behind_the_same_path_is_found_again() -> None:
    with Valkey() as server:
        endpoint = UnixEndpoint(server.path)
        async with listened_to() as (pool, log):
            assert await command(pool, endpoint, b"PING") == b"+PONG"
            server.stop()
            await log.wait_closed(CloseReason.PEER_CLOSED)
            with pytest.raises(ConnectError):
                await command(pool, endpoint, b"PING")
            server.start()
            assert await command(pool, endpoint, b"PING") == b"+PONG"


@pytest.fixture
def postgres_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The example's client, which logs in and asks over whatever stream it is given."""
    pytest.importorskip("pygwire")
    pytest.importorskip("scramp")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    was_there = "postgres_client" in sys.modules
    yield importlib.import_module("postgres_client")
    if not was_there:
        del sys.modules["postgres_client"]


async def test_postgres_over_its_unix_socket(postgres: Postgres, postgres_client: Any) -> None:
    database = postgres_client.Database(
        LOOPBACK, postgres.port, postgres.user, postgres.password, postgres.database
    )
    database.endpoint = UnixEndpoint(postgres.path, login=database.endpoint.login)
    async with database.pool as pool, trio.open_nursery() as nursery:

        async def double(number: int) -> None:
            assert await database.query("SELECT $1::int * 2", number) == [(str(number * 2),)]

        for number in range(30):
            nursery.start_soon(double, number)
    assert database.driver.logins == pool.all_stats().total_created <= 20


@linux_only
async def test_f073_postgres_ends_an_idle_session_with_a_word_that_nobody_reads(
    postgres: Postgres, postgres_client: Any
) -> None:
    """57P01, then the end: the watch sees the end, and the probe finds the message first."""
    login = (postgres.user, postgres.password, postgres.database)
    endpoint = UnixEndpoint(postgres.path, login=Login(*login))
    async with listened_to() as (pool, log):
        async with pool.connection(endpoint) as conn:
            await postgres_client.Session(conn, endpoint).log_in(endpoint.login)
        assert pool.stats(endpoint).idle == 1
        killer = postgres_client.Database(LOOPBACK, postgres.port, *login)
        async with killer.pool:
            await killer.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        await log.wait_closed(CloseReason.UNREAD_DATA)
        assert pool.stats(endpoint).idle == 0
