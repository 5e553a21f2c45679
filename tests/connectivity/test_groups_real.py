"""A group of real servers, one of which is killed and comes back under load."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import trio

from conpool import AnyEndpoint, ConnectionPool, Endpoint, EndpointGroup, PoolConfig
from tests.servers import LOOPBACK, Valkey
from tests.support.clean import PATIENCE
from tests.support.load import Load

from .places import linux_only, listened_to

PING: Final = b"PING\r\n"
PONG: Final = b"+PONG\r\n"
WORKERS: Final = 12


def load_on(pool: ConnectionPool[None], group: EndpointGroup) -> Load:
    async def ping(served_by: Callable[[AnyEndpoint], None]) -> None:
        async with pool.connection(group) as connection:
            served_by(connection.endpoint)
            await connection.send_all(PING)
            if await connection.receive_some() != PONG:
                raise trio.BrokenResourceError

    return Load(ping, trio.BrokenResourceError, more=100, patience=PATIENCE)


@linux_only
async def test_f121_a_server_of_a_group_is_killed_and_comes_back_under_load() -> None:
    """Only leases that were open on it break; no acquire fails, and it is used again."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Valkey()) for _ in range(3)]
        down, *others = endpoints = [Endpoint(LOOPBACK, server.port) for server in servers]
        config = PoolConfig(max_connections_per_endpoint=4)
        async with listened_to(config) as (pool, _), trio.open_nursery() as nursery:
            load = load_on(pool, EndpointGroup(endpoints))
            for _ in range(WORKERS):
                nursery.start_soon(load.work)
            await load.wait_for(*endpoints)
            servers[0].kill()
            await load.wait_for(*others)
            assert load.lost.keys() <= {down}
            assert load.lost[down] <= WORKERS
            servers[0].start()
            await load.wait_for(*endpoints)
            assert load.lost.keys() <= {down}
            assert pool.stats(down).errors < 50
            nursery.cancel_scope.cancel()


@linux_only
async def test_the_first_available_server_gets_the_traffic_back_when_it_returns() -> None:
    with Valkey() as first, Valkey() as standby:
        one, other = endpoints = [Endpoint(LOOPBACK, server.port) for server in (first, standby)]
        group = EndpointGroup(endpoints, policy="first_available")
        async with listened_to(PoolConfig()) as (pool, _), trio.open_nursery() as nursery:
            load = load_on(pool, group)
            for _ in range(4):
                nursery.start_soon(load.work)
            await load.wait_for(one)
            assert not load.served[other]
            first.kill()
            await load.wait_for(other)
            first.start()
            await load.wait_for(one)
            before = load.served[other]
            await load.wait_for(one)
            assert load.served[other] <= before + 4
            assert load.lost.keys() <= {one}
            nursery.cancel_scope.cancel()
