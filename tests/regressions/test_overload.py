"""One bad server, too many callers: cases that other pools did not survive.

Each test is named after the report of it, and its docstring says what happened there.
"""

from __future__ import annotations

import ssl

import pytest
import trio
from trio.testing import MockClock

from conpool import (
    TLS,
    AcquireTimeout,
    AnyEndpoint,
    ConnectError,
    ConnectionPool,
    Connector,
    ConnectTimeout,
    Endpoint,
    PoolConfig,
)
from conpool.testing import MemoryConnector
from tests.support.clean import clean
from tests.support.faults import LOOPBACK
from tests.support.loopback_servers import serving
from tests.support.pools import (
    HERE,
    THERE,
    Network,
    counts,
    echo,
    exchange,
    hold,
    listen,
    open_pool,
    settle,
)


async def test_sqlx_3132(autojump_clock: MockClock) -> None:
    """One time-out covered queue and connect, and took the dial down with its caller.

    With a server slower than that, each caller began anew: 20,000 logins a second, nothing served.
    """
    served = 0

    async def insist() -> None:
        nonlocal served
        while True:
            try:
                async with pool.connection(HERE, timeout=0.5):
                    served += 1
                    return
            except AcquireTimeout:
                pass

    network = Network(delay=2)
    async with open_pool(network, max_connections_per_endpoint=5) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(insist)
        assert served == 100
        assert trio.current_time() == 2
        assert len(network.dials) == 5


class WrongPassword(Connector):
    """A server that lets nobody in, and says so at once."""

    def __init__(self) -> None:
        self.dials = 0

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        self.dials += 1
        raise PermissionError("wrong password for alice")


async def test_bb8_141(autojump_clock: MockClock) -> None:
    """With a wrong password each caller waited for the whole of its time-out, and learnt nothing but that.

    Behind the scenes the pool tried again and again.
    """
    connector = WrongPassword()
    async with open_pool(connector, acquire_timeout=30) as pool:
        with pytest.raises(ConnectError, match="wrong password for alice"):
            await pool.acquire(HERE)
        assert trio.current_time() == 0
        await trio.sleep(60)
        assert connector.dials == 1


async def test_bb8_167(autojump_clock: MockClock) -> None:
    """A broken connection was thrown away, and nobody told those who waited that there was room now.

    Here they are dialled for in that very instant.
    """
    async with open_pool(max_connections_per_endpoint=1) as pool, trio.open_nursery() as nursery:
        conn = await pool.acquire(HERE)
        nursery.start_soon(hold, pool)
        await settle()
        with pytest.raises(trio.ClosedResourceError):
            pool.discard(conn)
            await exchange(conn)
        await settle()
        assert counts(pool) == {"active": 1}
        assert trio.current_time() == 0


async def test_hikaricp_2161(
    autojump_clock: MockClock, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    """One thread made all connections: one TLS handshake that the server never answered held up the rest.

    Here it keeps the one it was started for, and nobody else.
    """
    accepted = 0

    async def answer_all_but_the_first(stream: trio.abc.Stream) -> None:
        nonlocal accepted
        accepted += 1
        if accepted == 1:
            await listen(stream)
        else:
            await echo(trio.SSLStream(stream, server_ssl, server_side=True))

    stuck = Endpoint("localhost", 5432, tls=TLS(client_ssl))
    connector = MemoryConnector(answer_all_but_the_first)
    async with open_pool(connector, max_connections_per_endpoint=3, connect_timeout=10) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(hold, pool, stuck, 1)
                await settle()
            async with pool.connection(THERE):
                assert trio.current_time() == 0
            assert counts(pool, stuck) == {"active": 2, "connecting": 1, "waiting": 1}
        assert trio.current_time() == 2, "the third took what the first had given back"
        assert counts(pool, stuck) == {"connecting": 1, "idle": 2}


async def test_hikaricp_2161_on_real_sockets() -> None:
    """The same with a server that accepts and keeps silent, beside one that is well."""
    async with serving(listen) as silent, serving() as server:
        endpoint = Endpoint(LOOPBACK, silent.port, tls=True)
        config = PoolConfig(max_connections=2, connect_timeout=0.5)
        async with clean(server.endpoint, config) as case, trio.open_nursery() as nursery:
            nursery.start_soon(expect_timeout, case.pool, endpoint)
            await silent.wait_live(1)
            for _ in range(10):
                async with case.pool.connection(server.endpoint) as conn:
                    await exchange(conn)
            assert case.pool.stats(endpoint).connecting == 1, "it hung all the time"


async def expect_timeout(pool: ConnectionPool[None], endpoint: Endpoint) -> None:
    with pytest.raises(ConnectTimeout, match="phase tls"):
        await pool.acquire(endpoint)


async def test_aiohttp_counts_what_is_idle_too(autojump_clock: MockClock) -> None:
    """aiohttp's `limit` counts what is lent: with `limit=2` there can be 40 idle sockets beside that.

    Here what is idle counts too, and makes room for another host.
    """
    network = Network()
    most = 0
    async with open_pool(network, max_connections=2) as pool:
        for number in range(40):
            async with pool.connection(Endpoint(f"{number}.example", 80)) as conn:
                await exchange(conn)
                most = max(most, network.live)
        assert most == network.live == 2
