"""A group of real servers, one of which is killed and comes back under load."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Final, final

import trio

from conpool import AnyEndpoint, ConnectionPool, Endpoint, EndpointGroup, PoolConfig
from tests.servers import LOOPBACK, Valkey
from tests.support.clean import PATIENCE

from .places import linux_only, listened_to

PING: Final = b"PING\r\n"
PONG: Final = b"+PONG\r\n"
WORKERS: Final = 12


@final
class Load:
    """Tasks that ping a group for as long as they may, and what became of it."""

    def __init__(self, pool: ConnectionPool[None], group: EndpointGroup) -> None:
        self._pool = pool
        self._group = group
        self.served: Counter[AnyEndpoint] = Counter()
        """Answers, by who gave them."""
        self.lost: Counter[AnyEndpoint] = Counter()
        """Leases that broke."""
        self._some_served = trio.lowlevel.ParkingLot()

    async def work(self) -> None:
        while True:
            endpoint: AnyEndpoint | None = None
            try:
                async with self._pool.connection(self._group) as connection:
                    endpoint = connection.endpoint
                    await connection.send_all(PING)
                    if await connection.receive_some() != PONG:
                        raise trio.BrokenResourceError
                self.served[endpoint] += 1
            except trio.BrokenResourceError:  # no acquire ends like that
                assert endpoint is not None
                self.lost[endpoint] += 1
            self._some_served.unpark_all()

    async def wait_for(self, *endpoints: AnyEndpoint, more: int = 100) -> None:
        """Wait until each of `endpoints` has answered as often again."""
        wanted = {endpoint: self.served[endpoint] + more for endpoint in endpoints}
        with trio.fail_after(PATIENCE):
            while any(self.served[endpoint] < count for endpoint, count in wanted.items()):
                await self._some_served.park()


@linux_only
async def test_f121_a_server_of_a_group_is_killed_and_comes_back_under_load() -> None:
    """Only leases that were open on it break; no acquire fails, and it is used again."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Valkey()) for _ in range(3)]
        down, *others = endpoints = [Endpoint(LOOPBACK, server.port) for server in servers]
        config = PoolConfig(max_connections_per_endpoint=4)
        async with listened_to(config) as (pool, _), trio.open_nursery() as nursery:
            load = Load(pool, EndpointGroup(endpoints))
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
            load = Load(pool, group)
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
