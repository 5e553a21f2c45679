"""What real servers do to an idle client, and with which reason the pool closes its end.

Each test repeats something that was once seen by hand with this server.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
import trio

from conpool import TLS, CloseReason, Connection, Endpoint, PoolConfig, UnixEndpoint
from tests.servers import (
    Certificates,
    HAProxy,
    MariaDB,
    Memcached,
    Nginx,
    PgBouncer,
    Postgres,
    RedisTLS,
    Server,
    Valkey,
)
from tests.support.clean import PATIENCE, Case, clean

from .protocols import (
    ServerError,
    get,
    mariadb,
    mariadb_log_in,
    mariadb_packet,
    postgres,
    postgres_log_in,
    read_line,
    redis,
)

PEER_CLOSED = CloseReason.PEER_CLOSED
UNREAD_DATA = CloseReason.UNREAD_DATA


def at(server: Server, port: int | None = None) -> Endpoint:
    return Endpoint(server.host, port or server.port)


async def lend_redis(case: Case, server: Valkey) -> None:
    """Have the pool keep a connection that was used."""
    async with case.pool.connection(at(server)) as conn:
        await redis(conn, b"PING")


# ── Valkey ──────────────────────────────────────────────────────────────────────


async def test_valkey_idle_timeout() -> None:
    with Valkey(timeout=1) as server:
        async with clean(at(server)) as case:
            await lend_redis(case, server)
            await case.log.wait_closed(PEER_CLOSED)


@pytest.mark.parametrize("way", ["tcp", "unix"])
async def test_valkey_client_kill(valkey: Valkey, way: str) -> None:
    endpoint = at(valkey) if way == "tcp" else UnixEndpoint(valkey.path)
    async with clean(endpoint) as case:
        async with case.pool.connection(endpoint) as conn:
            number = await redis(conn, b"CLIENT", b"ID")
        killer = Endpoint(valkey.host, valkey.port, partition="killer")
        async with case.pool.connection(killer) as conn:
            await redis(conn, b"CLIENT", b"KILL", b"ID", number)
        await case.log.wait_closed(PEER_CLOSED)


@pytest.mark.parametrize("end", [Valkey.stop, Valkey.kill])
async def test_valkey_sigterm_and_sigkill(end: Callable[[Valkey], None]) -> None:
    with Valkey() as server:
        async with clean(at(server)) as case:
            await lend_redis(case, server)
            end(server)
            await case.log.wait_closed(PEER_CLOSED)
            server.start()


async def test_valkey_a_subscription_left_behind(valkey: Valkey) -> None:
    async with clean(at(valkey)) as case:
        async with case.pool.connection(at(valkey)) as conn:
            assert await redis(conn, b"SUBSCRIBE", b"news") == b"3"
            for _ in range(5):  # the rest of an array of three
                await read_line(conn)
        assert case.pool.stats(at(valkey)).idle == 1
        publisher = Endpoint(valkey.host, valkey.port, partition="publisher")
        async with case.pool.connection(publisher) as conn:
            assert await redis(conn, b"PUBLISH", b"news", b"hello") == b"1"
        case.await_stir(1, at(valkey))
        async with case.pool.connection(at(valkey)) as conn:
            assert await redis(conn, b"ECHO", b"mine") == b"mine"
        assert case.log.reasons == [UNREAD_DATA]


async def test_valkey_over_maxclients() -> None:
    with Valkey(maxclients=1) as server:
        async with clean(at(server)) as case, case.pool.connection(at(server)) as conn:
            await redis(conn, b"PING")
            with pytest.raises(ServerError, match="max number of clients reached"):
                async with case.pool.connection(at(server)) as other:
                    await redis(other, b"PING")
            await case.log.wait_closed(CloseReason.ERROR)
            # If no caller reads the refusal, the pool finds unread data.
            await case.pool.warm(at(server), 2)
            await case.log.wait_closed(CloseReason.ERROR, UNREAD_DATA)


# ── Redis with TLS ──────────────────────────────────────────────────────────────


async def test_f057_redis_tls_warmed_and_swept_causes_no_churn(
    redis_tls: RedisTLS, certificates: Certificates
) -> None:
    endpoint = Endpoint(redis_tls.host, redis_tls.port, tls=TLS(certificates.client_context()))
    async with clean(endpoint) as case:
        await case.pool.warm(endpoint, 3)
        case.await_stir(3)  # by the session tickets
        for _ in range(3):
            await case.pool._lifecycle._reaper.sweep()
        async with case.pool.connection(endpoint) as conn:
            assert await redis(conn, b"PING") == b"PONG"
        assert case.log.dialled == 3


async def test_redis_tls_client_kill(redis_tls: RedisTLS, certificates: Certificates) -> None:
    tls = TLS(certificates.client_context())
    endpoint = Endpoint(redis_tls.host, redis_tls.port, tls=tls)
    killer = Endpoint(redis_tls.host, redis_tls.port, tls=tls, partition="killer")
    async with clean(endpoint) as case:
        async with case.pool.connection(endpoint) as conn:
            number = await redis(conn, b"CLIENT", b"ID")
        async with case.pool.connection(killer) as conn:
            await redis(conn, b"CLIENT", b"KILL", b"ID", number)
        await case.log.wait_closed(PEER_CLOSED)


async def test_f056_redis_tls_without_a_certificate_it_asks_for(
    certificates: Certificates,
) -> None:
    with RedisTLS(certificates, clients="yes") as server:
        tls = TLS(certificates.client_context())
        async with clean(None) as case:
            with pytest.raises(trio.BrokenResourceError) as caught:
                async with case.pool.connection(Endpoint(server.host, server.port, tls=tls)) as c:
                    await c.receive_some()  # a send could end in a reset, without the reason
            assert "CERTIFICATE_REQUIRED" in str(caught.value.__cause__)
            assert case.log.reasons == [CloseReason.ERROR]


# ── PostgreSQL ──────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A server that tests may stop and kill."""
    with Postgres(max_connections=4) as server:
        yield server


@pytest.fixture
def restarted(own_postgres: Postgres) -> Iterator[Postgres]:
    yield own_postgres
    own_postgres.kill()
    own_postgres.start()


async def lend_postgres(case: Case, server: Postgres, *statements: str) -> bytes:
    """Have the pool keep a session that has run `statements`; return its backend's process id."""
    async with case.pool.connection(at(server)) as conn:
        if not conn.reused:
            await postgres_log_in(conn, server)
        for statement in statements:
            await postgres(conn, statement)
        (pid,) = await postgres(conn, "SELECT pg_backend_pid()")
        return pid


async def test_postgres_terminate_backend(postgres: Postgres) -> None:
    async with clean(at(postgres)) as case:
        pid = int(await lend_postgres(case, postgres))
        other = Endpoint(postgres.host, postgres.port, partition="killer")
        async with case.pool.connection(other) as conn:
            await postgres_log_in(conn, postgres)
            await query(conn, f"SELECT pg_terminate_backend({pid})")
        await case.log.wait_closed(UNREAD_DATA)


query = postgres  # where a fixture is called `postgres`


@pytest.mark.parametrize(
    "statements",
    [
        ("SET idle_session_timeout = 100",),
        ("SET idle_in_transaction_session_timeout = 100", "BEGIN"),
    ],
    ids=["57P05", "25P03"],
)
async def test_postgres_idle_timeouts(postgres: Postgres, statements: tuple[str, ...]) -> None:
    async with clean(at(postgres)) as case:
        await lend_postgres(case, postgres, *statements)
        await case.log.wait_closed(UNREAD_DATA)


async def test_postgres_a_listen_left_behind(postgres: Postgres) -> None:
    async with clean(at(postgres)) as case:
        pid = await lend_postgres(case, postgres, "LISTEN news")
        other = Endpoint(postgres.host, postgres.port, partition="notifier")
        async with case.pool.connection(other) as conn:
            await postgres_log_in(conn, postgres)
            await query(conn, "NOTIFY news")
        case.await_stir(1, at(postgres))
        assert await lend_postgres(case, postgres) != pid
        assert case.log.reasons == [UNREAD_DATA]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_postgres_fast_and_sudden_stop(restarted: Postgres, how: signal.Signals) -> None:
    async with clean(None) as case:
        await lend_postgres(case, restarted)
        restarted.signal(how)
        await case.log.wait_closed(UNREAD_DATA)


async def test_postgres_immediate_stop(restarted: Postgres) -> None:
    async with clean(None) as case:
        await lend_postgres(case, restarted)
        restarted.signal(signal.SIGQUIT)
        await case.log.wait_until(lambda: bool(case.log.reasons))
        # It does not always get to send its last warning.
        assert case.log.reasons in ([UNREAD_DATA], [PEER_CLOSED])


async def test_postgres_smart_shutdown_refuses_more_and_leaves_what_is_there(
    restarted: Postgres,
) -> None:
    async with clean(None) as case:
        pid = await lend_postgres(case, restarted)
        restarted.signal(signal.SIGTERM)
        other = Endpoint(restarted.host, restarted.port, partition="newcomer")
        with pytest.raises(ServerError, match="57P03"), trio.fail_after(PATIENCE):
            while True:  # until the server has got the signal
                async with case.pool.connection(other, fresh=True) as conn:
                    await postgres_log_in(conn, restarted)
                    conn.retire()
        assert case.log.reasons[-1] is CloseReason.ERROR
        assert await lend_postgres(case, restarted) == pid


async def test_postgres_over_max_connections(own_postgres: Postgres) -> None:
    config = PoolConfig(max_connections_per_endpoint=5)
    async with clean(None, config) as case:
        leases = [await case.pool.acquire(at(own_postgres)) for _ in range(4)]
        for lease in leases:
            await postgres_log_in(lease, own_postgres)
        with pytest.raises(ServerError, match="53300"):
            async with case.pool.connection(at(own_postgres)) as conn:
                await postgres_log_in(conn, own_postgres)
        assert case.log.reasons == [CloseReason.ERROR]
        for lease in leases:
            case.pool.release(lease)
        async with case.pool.connection(at(own_postgres)) as conn:
            assert conn.reused
            assert await query(conn, "SELECT 1") == [b"1"]


async def test_pgbouncer_kills_idle_clients_when_it_stops(pgbouncer: PgBouncer) -> None:
    async with clean(None) as case:
        with PgBouncer(pgbouncer.postgres) as server:
            async with case.pool.connection(at(server)) as conn:
                await postgres_log_in(conn, pgbouncer.postgres)
                assert await query(conn, "SELECT 1") == [b"1"]
            server.kill()
            await case.log.wait_closed(PEER_CLOSED)


# ── nginx ───────────────────────────────────────────────────────────────────────


async def lend_nginx(case: Case, server: Nginx) -> None:
    async with case.pool.connection(at(server)) as conn:
        assert await get(conn) == b"hello\n"


async def test_nginx_keepalive_timeout(certificates: Certificates) -> None:
    with Nginx(certificates, keepalive_timeout="1s") as server:
        async with clean(at(server)) as case:
            await lend_nginx(case, server)
            await case.log.wait_closed(PEER_CLOSED)


async def test_nginx_client_header_timeout_of_one_that_was_never_used(
    certificates: Certificates,
) -> None:
    with Nginx(certificates, header_timeout="1s") as server:
        async with clean(at(server)) as case:
            await case.pool.warm(at(server), 1)
            await case.log.wait_closed(PEER_CLOSED)


async def test_nginx_keepalive_requests(certificates: Certificates) -> None:
    with Nginx(certificates, keepalive_requests=3) as server:
        async with clean(at(server)) as case:
            for _ in range(7):
                await lend_nginx(case, server)
            assert case.log.reasons == [CloseReason.DISCARDED] * 2, "the reply had announced it"
            assert case.log.dialled == 3


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM])
async def test_nginx_reload_quit_and_stop(certificates: Certificates, how: signal.Signals) -> None:
    with Nginx(certificates) as server:
        async with clean(None) as case:
            await lend_nginx(case, server)
            server.signal(how)
            await case.log.wait_closed(PEER_CLOSED)


async def test_nginx_tls_keepalive_timeout(certificates: Certificates) -> None:
    with Nginx(certificates, keepalive_timeout="1s") as server:
        if not server.has_tls:
            pytest.skip("this nginx was built without TLS")
        endpoint = Endpoint(server.host, server.tls_port, tls=TLS(certificates.client_context()))
        async with clean(endpoint) as case:
            async with case.pool.connection(endpoint) as conn:
                assert await get(conn) == b"hello\n"
            await case.log.wait_closed(PEER_CLOSED)


# ── HAProxy ─────────────────────────────────────────────────────────────────────


async def test_haproxy_says_408_to_one_that_was_never_used() -> None:
    with HAProxy(request_timeout="100ms") as server:
        async with clean(at(server)) as case:
            await case.pool.warm(at(server), 1)
            await case.log.wait_closed(UNREAD_DATA)


async def test_haproxy_keep_alive_timeout() -> None:
    with HAProxy(keepalive_timeout="100ms") as server:
        async with clean(at(server)) as case:
            async with case.pool.connection(at(server)) as conn:
                assert await get(conn) == b"hello\n"
            await case.log.wait_closed(PEER_CLOSED)


async def test_haproxy_soft_stop() -> None:
    with HAProxy() as server:
        async with clean(None) as case:
            async with case.pool.connection(at(server)) as conn:
                assert await get(conn) == b"hello\n"
            server.signal(signal.SIGUSR1)
            await case.log.wait_closed(PEER_CLOSED)


async def test_haproxy_maxconn_reached_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.servers import _haproxy

    text = _haproxy._CONFIGURATION.replace("maxconn 1000", "maxconn 1")
    monkeypatch.setattr(_haproxy, "_CONFIGURATION", text)
    with HAProxy() as server:
        async with clean(None) as case, case.pool.connection(at(server)) as first:
            assert await get(first) == b"hello\n"
            with pytest.raises(trio.TooSlowError), trio.fail_after(0.1):
                async with case.pool.connection(at(server)) as second:
                    await get(second)
            assert case.log.reasons == [CloseReason.CANCELLED]
            assert await get(first) == b"hello\n"


# ── MariaDB ─────────────────────────────────────────────────────────────────────


async def lend_mariadb(case: Case, server: MariaDB, *statements: str) -> None:
    async with case.pool.connection(at(server)) as conn:
        if not conn.reused:
            await mariadb_log_in(conn, server)
        for statement in statements:
            await mariadb(conn, statement)


async def test_mariadb_greets_first(mariadb: MariaDB) -> None:
    async with clean(at(mariadb)) as case:
        await case.pool.warm(at(mariadb), 1)
        case.await_stir()
        await lend_mariadb(case, mariadb, "DO 1")
        assert case.log.reasons == [UNREAD_DATA]
        await lend_mariadb(case, mariadb, "DO 1")
        assert case.log.dialled == 2


async def test_mariadb_wait_timeout_resets(mariadb: MariaDB) -> None:
    async with clean(None) as case:
        await lend_mariadb(case, mariadb, "SET SESSION wait_timeout = 1")
        await case.log.wait_closed(PEER_CLOSED)


async def test_mariadb_connect_timeout_of_one_that_says_nothing(mariadb: MariaDB) -> None:
    silent = Endpoint(mariadb.host, mariadb.port, partition="silent")
    async with clean(None) as case:
        await lend_mariadb(case, mariadb, "SET GLOBAL connect_timeout = 2")
        try:
            async with case.pool.connection(silent) as conn:
                await mariadb_packet(conn)  # otherwise the unread greeting would end the connection
            await case.log.wait_closed(PEER_CLOSED)
        finally:
            with trio.move_on_after(PATIENCE, shield=True):
                await lend_mariadb(case, mariadb, "SET GLOBAL connect_timeout = 10")


async def test_mariadb_over_max_connections(mariadb: MariaDB) -> None:
    config = PoolConfig(max_connections_per_endpoint=20)
    refused = Endpoint(mariadb.host, mariadb.port, partition="refused")
    leases: list[Connection[None]] = []
    async with clean(None, config) as case:
        await lend_mariadb(case, mariadb, "SET GLOBAL max_connections = 10")
        try:
            with pytest.raises(ServerError, match="1040 Too many connections"):
                while True:
                    conn = await case.pool.acquire(at(mariadb))
                    leases.append(conn)
                    if not conn.reused:
                        await mariadb_log_in(conn, mariadb)
            case.pool.discard(leases.pop())
            # If no caller reads the refusal, the pool finds unread data.
            await case.pool.warm(refused, 1)
            await case.log.wait_closed(CloseReason.DISCARDED, UNREAD_DATA)
        finally:
            for lease in leases:
                case.pool.release(lease)
            with trio.move_on_after(PATIENCE, shield=True):
                await lend_mariadb(case, mariadb, "SET GLOBAL max_connections = 151")


# ── memcached ───────────────────────────────────────────────────────────────────


async def test_memcached_goes_away(memcached: Memcached) -> None:
    with Memcached() as server:
        async with clean(at(memcached)) as case:
            async with case.pool.connection(at(server)) as conn:
                await conn.send_all(b"version\r\n")
                assert (await read_line(conn)).startswith(b"VERSION")
            server.kill()
            await case.log.wait_closed(PEER_CLOSED)
