"""The connector through proxy servers that others wrote, to servers that others wrote."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import final

import pytest
import trio

from conpool._connection.tls_tap import encrypt
from conpool._dial.tcp import TCPConnector
from conpool._errors.connect import ProxyError
from conpool._values.endpoint import Endpoint
from conpool._values.proxy import HTTPProxy, SOCKS5Proxy
from conpool._values.tls import TLS
from tests.servers import LOOPBACK, Certificates, HAProxy, Nginx, RedisTLS, Valkey
from tests.servers._server import Server, in_wheel

_WITH_A_LOOP = """
import asyncio
from pproxy.server import main
asyncio.set_event_loop(asyncio.new_event_loop())
main()
"""
"""pproxy asks for the loop of its thread, and since Python 3.14 a thread has none to begin with."""


@final
class PProxy(Server):
    """pproxy: HTTP CONNECT and SOCKS5 on one port, and the same with TLS on a second one."""

    label = "pproxy"
    port_count = 2

    def __init__(self, certificates: Certificates, login: str = "") -> None:
        if in_wheel("pproxy", "server.py") is None:
            pytest.skip("pproxy is not installed")
        self._certificates = certificates
        self._login = login
        super().__init__()

    def command(self) -> Sequence[str | Path]:
        plain, secure = (f"{self.host}:{port}{self._login}" for port in self.ports)
        chain = f"{self._certificates.server_cert},{self._certificates.server_key}"
        # fmt: off
        return [
            sys.executable, "-W", "ignore", "-c", _WITH_A_LOOP,
            "-l", f"http+socks5://{plain}",
            "-l", f"http+socks5+ssl://{secure}",
            "--ssl", chain,
            "--auth", "0",  # or it trusts an address that was right once
        ]
        # fmt: on

    def is_ready(self) -> bool:
        return bool(self.ask(b"\x05\x01\x00" if not self._login else b"\x05\x01\x02"))


async def ping(stream: trio.abc.Stream) -> bytes:
    with trio.fail_after(5):
        await stream.send_all(b"PING\r\n")
        return bytes(await stream.receive_some())


async def ping_through(
    proxy: HTTPProxy | SOCKS5Proxy | None, port: int, tls: TLS | None = None
) -> bytes:
    endpoint = Endpoint("localhost", port, tls=tls or False, proxy=proxy)
    with trio.fail_after(5):
        stream = await TCPConnector().connect(endpoint)
    async with stream:
        return await ping(stream if tls is None else await encrypt(stream, tls, "localhost"))


@pytest.mark.parametrize("kind", [HTTPProxy, SOCKS5Proxy])
async def test_valkey_through_a_proxy(
    kind: type[HTTPProxy | SOCKS5Proxy], pproxy: PProxy, valkey: Valkey
) -> None:
    assert await ping_through(kind(LOOPBACK, pproxy.port), valkey.port) == b"+PONG\r\n"


@pytest.mark.parametrize("kind", [HTTPProxy, SOCKS5Proxy])
async def test_valkey_through_a_proxy_that_wants_credentials(
    kind: type[HTTPProxy | SOCKS5Proxy], guarded: PProxy, valkey: Valkey
) -> None:
    proxy = kind(LOOPBACK, guarded.port, username="joe", password="hunter2")
    assert await ping_through(proxy, valkey.port) == b"+PONG\r\n"


@pytest.mark.parametrize("kind", [HTTPProxy, SOCKS5Proxy])
async def test_f120_credentials_that_a_proxy_does_not_accept(
    kind: type[HTTPProxy | SOCKS5Proxy], guarded: PProxy, valkey: Valkey
) -> None:
    wrong = kind(LOOPBACK, guarded.port, username="joe", password="hunter3")
    with pytest.raises(ProxyError, match="credentials|407|hung up"):
        await ping_through(wrong, valkey.port)


async def test_redis_over_tls_through_a_proxy_that_is_reached_by_tls(
    pproxy: PProxy, redis_tls: RedisTLS, client_ssl: ssl.SSLContext
) -> None:
    tls = TLS(client_ssl)
    proxy = HTTPProxy("localhost", pproxy.ports[1], tls=tls)
    assert await ping_through(proxy, redis_tls.port, tls) == b"+PONG\r\n"


async def test_valkey_through_haproxy_which_passes_tcp_on(valkey: Valkey) -> None:
    with HAProxy(backends=[valkey.port]) as haproxy:
        assert await ping_through(None, haproxy.port) == b"+PONG\r\n"


async def test_f120_an_http_server_that_is_no_proxy(nginx: Nginx, valkey: Valkey) -> None:
    with pytest.raises(ProxyError, match="the proxy answered 40"):
        await ping_through(HTTPProxy(LOOPBACK, nginx.port), valkey.port)
