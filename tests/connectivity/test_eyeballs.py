"""A host with several addresses, some of which swallow everything, through the pool."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from conpool import ConnectTimeout, Endpoint, PoolConfig, TCPConnector
from tests._net import LOOPBACK, swallowing
from tests.support.kernel import Census, client_sockets, need_kernel_table
from tests.support.loopback_servers import Serving, serving
from tests.support.pools import echo

from .places import Directory, ask, linux_only, listened_to

pytestmark = linux_only

DELAY = 0.25


async def test_f025_f029_a_black_hole_costs_the_delay_and_no_more(
    autojump_clock: MockClock,
) -> None:
    """In simulated time the round trip to the second address takes no time."""
    async with serving() as server:
        with swallowing("127.0.0.2", server.port):
            connector = TCPConnector(resolver=Directory(db=("127.0.0.2", LOOPBACK)))
            endpoint = Endpoint("db", server.port)
            async with listened_to(connector=connector) as (pool, _):
                async with pool.connection(endpoint) as conn:
                    assert conn.peer_address == (LOOPBACK, server.port)
                assert pool.stats(endpoint).connect_time.max == DELAY
                began = trio.current_time()
                async with pool.connection(endpoint, fresh=True):
                    assert trio.current_time() == began, "the winner goes first next time"


async def test_f025_two_black_holes_cost_two_delays(autojump_clock: MockClock) -> None:
    async with serving() as server:
        with swallowing("127.0.0.2", server.port), swallowing("127.0.0.3", server.port):
            addresses = ("127.0.0.2", "127.0.0.3", LOOPBACK)
            connector = TCPConnector(resolver=Directory(db=addresses))
            endpoint = Endpoint("db", server.port)
            async with listened_to(connector=connector) as (pool, _):
                await ask(pool, endpoint)
                assert pool.stats(endpoint).connect_time.max == 2 * DELAY


async def test_g1_losers_are_gone_when_the_connection_is_lent() -> None:
    need_kernel_table()
    async with serving() as server:
        with swallowing("127.0.0.2", server.port):
            before = client_sockets(server.port).total()  # the sockets that fill the black hole
            directory = Directory(db=("127.0.0.2", LOOPBACK))
            connector = TCPConnector(resolver=directory, happy_eyeballs_delay=0.01)
            census = Census(server.port, pace=1)
            async with listened_to(connector=connector) as (pool, _):
                trio.lowlevel.add_instrument(census)
                async with pool.connection(Endpoint("db", server.port)):
                    trio.lowlevel.remove_instrument(census)
                    assert client_sockets(server.port).total() == before + 1
            assert census.most == before + 2, "only while they race are there two"


async def test_f029_nothing_but_black_holes_ends_in_time_and_leaves_no_socket() -> None:
    need_kernel_table()
    async with serving() as server:
        with swallowing("127.0.0.2", server.port), swallowing("127.0.0.3", server.port):
            before = client_sockets(server.port).total()
            connector = TCPConnector(
                resolver=Directory(db=("127.0.0.2", "127.0.0.3")), happy_eyeballs_delay=0.01
            )
            config = PoolConfig(connect_timeout=0.05)
            async with listened_to(config, connector=connector) as (pool, _):
                with pytest.raises(ConnectTimeout) as caught:
                    await pool.acquire(Endpoint("db", server.port))
                assert caught.value.phase == "tcp"
                assert client_sockets(server.port).total() == before


async def lend_twenty(server: Serving, connector: TCPConnector) -> set[str]:
    """Lend twenty new connections to one name; return the addresses that they led to."""
    reached: set[str] = set()
    async with listened_to(PoolConfig(max_connections_per_endpoint=20), connector=connector) as (
        pool,
        _,
    ):
        for _ in range(20):
            async with pool.connection(Endpoint("db", server.port), fresh=True) as conn:
                reached.add(conn.peer_address[0])
    return reached


async def test_the_remembered_winner_defeats_a_name_server_that_takes_turns() -> None:
    """The documentation warns of this: rotating answers do not spread connections."""

    async def turn(host: str, family: int) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        answers.append(answers.pop(0))
        return tuple(answers)

    answers = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    (listener,) = await trio.open_tcp_listeners(0, host="0.0.0.0")
    async with listener, trio.open_nursery() as nursery:
        server = Serving(listener, None)
        nursery.start_soon(server.run, echo)
        assert len(await lend_twenty(server, TCPConnector(resolver=turn))) == 1
        assert len(await lend_twenty(server, TCPConnector(resolver=turn, dns_ttl=0))) == 3
        nursery.cancel_scope.cancel()
