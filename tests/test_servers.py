"""Each real server answers over a raw socket, and lives and dies as it is told."""

from __future__ import annotations

import os
import signal
import socket
import ssl

import psutil
import pytest

from .servers import (
    Certificates,
    HAProxy,
    MariaDB,
    Memcached,
    Nginx,
    PgBouncer,
    Postgres,
    RedisTLS,
    ServerDiedError,
    Valkey,
    free_ports,
    startup_message,
)

GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port))


def test_valkey_answers_on_its_port_and_on_its_unix_socket(valkey: Valkey) -> None:
    assert valkey.ask(b"ECHO hello\r\n") == b"$5\r\nhello\r\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(valkey.path))
        sock.sendall(b"PING\r\n")
        assert sock.recv(100) == b"+PONG\r\n"


def test_redis_answers_over_tls_and_sees_the_client_certificate(
    redis_tls: RedisTLS, certificates: Certificates
) -> None:
    context = certificates.client_context(with_certificate=True)
    assert redis_tls.ask(b"PING\r\n", context=context) == b"+PONG\r\n"
    assert redis_tls.ask(b"PING\r\n", context=certificates.client_context()) == b"+PONG\r\n"


def test_redis_can_insist_on_a_client_certificate(certificates: Certificates) -> None:
    with RedisTLS(certificates, clients="yes") as server:
        with pytest.raises(OSError, match=r"(?i)certificate required|reset|EOF|closed"):
            server.ask(b"PING\r\n", context=certificates.client_context())
        known = certificates.client_context(with_certificate=True)
        assert server.ask(b"PING\r\n", context=known) == b"+PONG\r\n"


def test_postgres_asks_for_scram(postgres: Postgres) -> None:
    reply = postgres.ask(startup_message(postgres.user, postgres.database))
    assert reply.startswith(b"R")
    assert b"SCRAM-SHA-256" in reply


def test_postgres_has_a_unix_socket(postgres: Postgres) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(postgres.path))
        sock.sendall(startup_message(postgres.user, postgres.database))
        assert sock.recv(100).startswith(b"R")


def test_pgbouncer_asks_for_scram(pgbouncer: PgBouncer) -> None:
    postgres = pgbouncer.postgres
    reply = pgbouncer.ask(startup_message(postgres.user, postgres.database))
    assert b"SCRAM-SHA-256" in reply


def test_nginx_answers_plain_and_over_tls(nginx: Nginx, client_ssl: ssl.SSLContext) -> None:
    assert nginx.ask(GET % b"/").endswith(b"\r\n\r\nhello\n")
    assert nginx.ask(GET % b"/echo/7").endswith(b"\r\n\r\n/echo/7\n")
    if nginx.has_tls:
        reply = nginx.ask(GET % b"/echo/8", port=nginx.tls_port, context=client_ssl)
        assert reply.endswith(b"\r\n\r\n/echo/8\n")


def test_haproxy_answers(haproxy: HAProxy) -> None:
    assert haproxy.ask(GET % b"/").endswith(b"hello\n")


def test_haproxy_passes_tcp_on(valkey: Valkey) -> None:
    with HAProxy(backends=[valkey.port]) as proxy:
        assert proxy.ask(b"PING\r\n") == b"+PONG\r\n"


def test_mariadb_greets_first(mariadb: MariaDB) -> None:
    assert b"MariaDB" in mariadb.ask()


def test_memcached_answers(memcached: Memcached) -> None:
    assert memcached.ask(b"version\r\n").startswith(b"VERSION")


def test_a_restarted_server_is_found_where_it_was() -> None:
    with Valkey() as server:
        port, pid = server.port, server.pid
        server.restart()
        assert server.port == port
        assert server.pid != pid
        assert server.ask(b"PING\r\n") == b"+PONG\r\n"


def test_a_killed_server_refuses_until_it_is_started_again() -> None:
    with Valkey() as server:
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            server.ask(b"PING\r\n")
        server.start()
        assert server.ask(b"PING\r\n") == b"+PONG\r\n"


def test_a_paused_server_is_connected_to_but_answers_only_when_resumed() -> None:
    with Valkey() as server:
        server.pause()
        with socket.create_connection((server.host, server.port), timeout=0.1) as sock:
            sock.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                sock.recv(100)
            server.resume()
            sock.settimeout(10)
            assert sock.recv(100) == b"+PONG\r\n"


def test_killing_postgres_takes_its_children_along_and_it_starts_again() -> None:
    with Postgres() as server:
        children = psutil.Process(server.pid).children()
        assert children
        server.kill()
        assert not any(child.is_running() for child in children)
        server.start()
        reply = server.ask(startup_message(server.user, server.database))
        assert b"SCRAM-SHA-256" in reply


def test_a_server_that_dies_at_once_says_why() -> None:
    server = Valkey(no_such_setting=1)
    with pytest.raises(ServerDiedError, match="no-such-setting"):
        server.__enter__()
    assert not server.folder.exists()


def test_leaving_the_block_leaves_no_process_and_no_folder() -> None:
    with Valkey() as server:
        pid, folder = server.pid, server.folder
        os.kill(pid, 0)
        assert folder.is_dir()
    assert not psutil.pid_exists(pid)
    assert not folder.exists()


def test_nginx_reloads_on_a_signal_and_lets_go_of_idle_connections(
    certificates: Certificates,
) -> None:
    with Nginx(certificates) as server:
        with socket.create_connection((server.host, server.port), timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(4096).endswith(b"hello\n")
            server.signal(signal.SIGHUP)
            assert sock.recv(4096) == b""
        assert server.ask(GET % b"/").endswith(b"hello\n")
