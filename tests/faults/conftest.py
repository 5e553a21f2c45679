"""Fixtures for faults: servers that the test holds, proxies, and a watch on stderr."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from conpool import TLS
from tests.support.faults import FaultyProxy, start_proxy

from .sites import ProxyTo, Site, TCPSite, TLSSite, UnixSite


@pytest.fixture(autouse=True)
def nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Fail a test that writes something to stderr: CLEAN."""
    yield
    assert capfd.readouterr().err == ""


@pytest.fixture
async def proxy_to(nursery: trio.Nursery) -> ProxyTo:
    """Start a fault-injecting proxy to a port; it lives in the test's nursery."""

    async def start(port: int) -> FaultyProxy:
        return await start_proxy(nursery, port)

    return start


@pytest.fixture
async def tcp_site() -> AsyncIterator[TCPSite]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with TCPSite(listener) as site:
        yield site


@pytest.fixture
async def unix_site(tmp_path: Path) -> AsyncIterator[UnixSite]:
    with UnixSite(tmp_path / "socket") as site:
        yield site


@pytest.fixture
async def tls_site(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> AsyncIterator[TLSSite]:
    async with TLSSite.open(server_ssl, TLS(client_ssl)) as site:
        yield site


_KINDS = ["tcp", "tls"] + (["unix"] if hasattr(socket, "AF_UNIX") else [])


@pytest.fixture(params=_KINDS)
async def site(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    server_ssl: ssl.SSLContext,
    client_ssl: ssl.SSLContext,
) -> AsyncIterator[Site]:
    """Each kind of server in turn."""
    if request.param == "unix":
        with UnixSite(tmp_path / "socket") as unix:
            yield unix
    elif request.param == "tls":
        async with TLSSite.open(server_ssl, TLS(client_ssl)) as tls:
            yield tls
    else:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        with TCPSite(listener) as tcp:
            yield tcp
