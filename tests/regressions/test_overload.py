"""One bad server, or too many callers: cases from other pools.

Each test has the name of the report, and its docstring says what happened there.
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
    """One time-out covered queue and dial, and ended the dial together with its caller.

    With a slower server each caller began a new dial: 20,000 logins a second, and no caller served.
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
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(insist)
        assert served == 100
        assert trio.current_time() == 2
        assert len(network.dials) == 5


class WrongPassword(Connector):
    """A server that refuses every login at once."""

    def __init__(self) -> None:
        self.dials = 0

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        self.dials += 1
        raise PermissionError("wrong password for alice")


async def test_bb8_141(autojump_clock: MockClock) -> None:
    """With a wrong password each caller waited for its whole time-out, and learnt no reason.

    In the background the pool dialled again and again.
    """
    connector = WrongPassword()
    async with open_pool(connector, acquire_timeout=30) as pool:
        with pytest.raises(ConnectError, match="wrong password for alice"):
            await pool.acquire(HERE)
        assert trio.current_time() == 0
        await trio.sleep(60)
        assert connector.dials == 1


async def test_bb8_167(autojump_clock: MockClock) -> None:
    """The pool threw a broken connection away, and did not tell the waiters that a slot was free.

    Here it dials for a waiter in the same instant.
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
    """One thread made all connections, and one unanswered TLS handshake held up all others.

    Here it holds up only its own caller.
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
    """The same with one server that accepts and stays silent, and one that is healthy."""
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
    """aiohttp's `limit` counts lent connections only: `limit=2` still allows 40 idle sockets.

    Here idle connections count, too, and are closed to make room for another host.
    """
    network = Network()
    most = 0
    async with open_pool(network, max_connections=2) as pool:
        for number in range(40):
            async with pool.connection(Endpoint(f"{number}.example", 80)) as conn:
                await exchange(conn)
                most = max(most, network.live)
        assert most == network.live == 2
