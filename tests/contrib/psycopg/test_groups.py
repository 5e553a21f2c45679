"""A group of PostgreSQL servers, one of which is killed and comes back under load."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any, Final, final

import psycopg
import trio

from conpool import AnyEndpoint, ConnectionPool, EndpointGroup, PoolConfig
from conpool.contrib.psycopg import AsyncConnection, PsycopgDriver
from tests.servers import LOOPBACK, Postgres

from .databases import PATIENCE, first

WORKERS: Final = 6


@final
class Load:
    """Tasks that ask a group for as long as they may, and what became of it."""

    def __init__(self, pool: ConnectionPool[AsyncConnection[Any]], group: EndpointGroup) -> None:
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
                async with self._pool.connection(self._group) as lease:
                    endpoint = lease.endpoint
                    assert await first(lease.session, "SELECT 1") == 1
                self.served[endpoint] += 1
            except psycopg.OperationalError:  # no acquire ends like that
                assert endpoint is not None
                self.lost[endpoint] += 1
            self._some_served.unpark_all()

    async def wait_for(self, *endpoints: AnyEndpoint, more: int = 30) -> None:
        """Wait until each of `endpoints` has answered as often again."""
        wanted = {endpoint: self.served[endpoint] + more for endpoint in endpoints}
        with trio.fail_after(PATIENCE):
            while any(self.served[endpoint] < count for endpoint, count in wanted.items()):
                await self._some_served.park()


async def test_a_server_of_a_group_is_killed_and_comes_back_under_load() -> None:
    """Only leases that were open on it break; no acquire fails, and it is used again."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Postgres(max_connections=10)) for _ in range(3)]
        ports = ",".join(str(server.port) for server in servers)
        group = PsycopgDriver.group(
            f"host={','.join([LOOPBACK] * 3)} port={ports} load_balance_hosts=random",
            user=Postgres.user,
            password=Postgres.password,
            dbname=Postgres.database,
        )
        down, *others = group.endpoints
        config = PoolConfig(max_connections_per_endpoint=3)
        driver = PsycopgDriver(autocommit=True)
        async with ConnectionPool(config, driver=driver) as pool, trio.open_nursery() as nursery:
            load = Load(pool, group)
            for _ in range(WORKERS):
                nursery.start_soon(load.work)
            await load.wait_for(*group.endpoints)
            servers[0].kill()
            await load.wait_for(*others)
            servers[0].start()
            await load.wait_for(*group.endpoints)
            assert load.lost.keys() <= {down}
            assert load.lost[down] <= WORKERS
            nursery.cancel_scope.cancel()
