"""A group of PostgreSQL servers, one of which is killed and comes back under load."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import psycopg
import trio

from conpool import AnyEndpoint, ConnectionPool, PoolConfig
from conpool.contrib.psycopg import PsycopgDriver
from tests.servers import LOOPBACK, Postgres
from tests.support.load import Load

from .databases import PATIENCE, first

WORKERS: Final = 6


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

            async def ask(served_by: Callable[[AnyEndpoint], None]) -> None:
                async with pool.connection(group) as lease:
                    served_by(lease.endpoint)
                    assert await first(lease.session, "SELECT 1") == 1

            load = Load(ask, psycopg.OperationalError, more=30, patience=PATIENCE)
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
