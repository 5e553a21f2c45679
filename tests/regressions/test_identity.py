"""Connections that were wrongly shared: cases from other pools.

Each test has the name of the report, and its docstring says what happened there.
"""

from __future__ import annotations

import errno
import gc
import ssl
import sys
import weakref
from typing import Any

import pytest
import trio

from conpool import (
    TLS,
    AnyEndpoint,
    ConnectError,
    Endpoint,
    HTTPProxy,
    Login,
    SOCKS5Proxy,
    TLSError,
    UnixEndpoint,
)
from tests._net import FromPort, on_network, refusing
from tests.servers import Certificates
from tests.support.clean import clean
from tests.support.faults import LOOPBACK
from tests.support.loopback_servers import exchange, serving
from tests.support.pools import Network, echo, open_pool


def careless_context() -> ssl.SSLContext:
    """A context that trusts every server."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def test_requests_cve_2024_35195(server_ssl: ssl.SSLContext) -> None:
    """After one request with `verify=False`, the session used that connection for ever.

    Later requests asked for verification and got none, because the pool's key did not contain it.
    """
    async with serving(echo, server_ssl) as server:
        careless = Endpoint(LOOPBACK, server.port, tls=TLS(careless_context()))
        careful = Endpoint(LOOPBACK, server.port, tls=True)  # does not know the server's authority
        async with clean(careless) as case:
            async with case.pool.connection(careless) as conn:
                await exchange(conn)
            with pytest.raises(TLSError, match="certificate"):
                await case.pool.acquire(careful)


async def test_envoy_cve_2022_21654(server_ssl: ssl.SSLContext, certificates: Certificates) -> None:
    """The rules of verification changed, and unverified old sessions were resumed.

    Here the context and the name to verify are both part of an endpoint.
    """
    async with serving(echo, server_ssl) as server:
        context = certificates.client_context()
        trusting, strict = TLS(context), TLS(context, server_hostname="db.example")
        one, other = (Endpoint(LOOPBACK, server.port, tls=tls) for tls in (trusting, strict))
        async with clean(one) as case:
            await case.pool.warm(one, 1)
            with pytest.raises(TLSError, match=r"db\.example"):
                await case.pool.acquire(other)


CONTEXTS = [careless_context() for _ in range(2)]
BASE: dict[str, Any] = {
    "host": "db.example",
    "port": 5432,
    "tls": TLS(CONTEXTS[0], server_hostname="db.example"),
    "proxy": HTTPProxy("proxy.example", 3128, username="alice", password="secret"),
    "local_address": "192.0.2.1",
    "login": Login("alice", "secret", "orders"),
    "partition": ("alice", "orders"),
}
OTHERS: dict[str, list[Any]] = {
    "host": ["db2.example", "db.example."],
    "port": [5433],
    "tls": [
        None,
        TLS(CONTEXTS[1], server_hostname="db.example"),
        TLS(CONTEXTS[0], server_hostname="db2.example"),
        TLS(CONTEXTS[0]),
        TLS(server_hostname="db.example", alpn=["h2"]),
        TLS(CONTEXTS[0], server_hostname="db.example", https_compatible=True),
    ],
    "proxy": [
        None,
        HTTPProxy("proxy2.example", 3128, username="alice", password="secret"),
        HTTPProxy("proxy.example", 3129, username="alice", password="secret"),
        HTTPProxy("proxy.example", 3128, username="bob", password="secret"),
        HTTPProxy("proxy.example", 3128, username="alice", password="other"),
        HTTPProxy("proxy.example", 3128, username="alice", password="secret", tls=True),
        SOCKS5Proxy("proxy.example", 3128, username="alice", password="secret"),
    ],
    "local_address": [None, "192.0.2.2"],
    "login": [
        None,
        Login("bob", "secret", "orders"),
        Login("alice", "other", "orders"),
        Login("alice", None, "orders"),
        Login("alice", "secret", "bills"),
    ],
    "partition": [None, ("bob", "orders"), ("alice", "bills")],
}


async def test_curl_of_a_field_that_was_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """curl: 34 advisories for connections that were wrongly used again.

    Nearly all forgot one field: a client certificate, a proxy's password, a local address. This
    test tries every field of an endpoint, and fails when there is a field that it does not know.
    """

    async def stay_plain(stream: trio.abc.Stream, tls: TLS, name: str | None) -> trio.abc.Stream:
        return stream

    monkeypatch.setattr("conpool._dial.dial.encrypt", stay_plain)
    assert set(OTHERS) == set(BASE) == set(Endpoint.__slots__)
    base: AnyEndpoint = Endpoint(**BASE)
    async with open_pool(Network()) as pool:
        await pool.warm(base, 1)
        for field, values in OTHERS.items():
            for value in values:
                other = Endpoint(**BASE | {field: value})
                async with pool.connection(other) as conn:
                    assert not conn.reused, (field, value)
                    assert conn.uses == 1
                    assert pool.stats(base).idle == 1, (field, value)
        async with pool.connection(UnixEndpoint("/db.example", partition=BASE["partition"])):
            assert pool.stats(base).idle == 1
        async with pool.connection(Endpoint(**BASE)) as conn:
            assert conn.id == 1, "what is equal in every field shares"


class Tenant:
    """Equal only to itself, by its place in memory."""


async def test_curl_cve_2020_8231() -> None:
    """The pool knew a connection by the memory address of its handle.

    The handle was freed, a new one took the same address, and got that connection.
    """
    async with open_pool() as pool:
        tenant = Tenant()
        place, gone = id(tenant), weakref.ref(tenant)
        async with pool.connection(Endpoint("db.example", 5432, partition=tenant)):
            pass
        del tenant
        gc.collect()
        assert gone() is not None, "its place could be taken while its connection is kept"
        others = [Tenant() for _ in range(100)]
        assert place not in map(id, others)
        for other in others[:5]:
            async with pool.connection(Endpoint("db.example", 5432, partition=other)) as conn:
                assert conn.uses == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels refuse it themselves")
async def test_zookeeper_2101() -> None:
    """A client dialled a dead server until the kernel gave it the server's own port.

    TCP then lets it connect to itself: it talked to itself, and the server could not start again.
    """
    with refusing() as port:
        pass  # nobody has that port now
    async with clean(None) as case:
        with on_network(FromPort(port)), pytest.raises(ConnectError) as caught:
            await case.pool.acquire(Endpoint(LOOPBACK, port))
        assert caught.value.errno == errno.ECONNREFUSED
