"""The pools: made once, when the program starts, and never in a request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import mariadb_client

import conpool
from conpool.contrib.psycopg import AsyncConnection, PsycopgDriver

from .settings import ConfigurationError, Settings


@dataclass(frozen=True)
class Databases:
    """One pool for each server, open inside `running`. A pool dials when somebody needs it."""

    settings: Settings
    postgres: conpool.ConnectionPool[AsyncConnection[Any]]
    mariadb: conpool.ConnectionPool[mariadb_client.Session]

    @classmethod
    def of(cls, settings: Settings) -> Databases:
        config = conpool.PoolConfig(
            max_connections_per_endpoint=settings.pool_size,
            acquire_timeout=120.0,  # a burst of 10,000 waits its turn; most services want less
            connect_timeout=5.0,
            health_check_after=30.0,
        )
        driver = PsycopgDriver(autocommit=True, application_name="service")
        return cls(
            settings=settings,
            postgres=conpool.ConnectionPool(config, driver=driver, name="postgres"),
            mariadb=conpool.ConnectionPool(
                config, driver=mariadb_client.MariaDBDriver(), name="mariadb"
            ),
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Open the pools for a block, even while the servers are down."""
        async with self.postgres, self.mariadb:
            yield

    async def fetch_postgres(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement, with its values for %s."""
        async with self.postgres.connection(self.settings.postgres) as lease:
            cursor = await lease.session.execute(sql.encode(), values)
            return await cursor.fetchall()

    async def fetch_mariadb(self, sql: str, *values: object) -> list[mariadb_client.Row]:
        """Run one statement, with its values for %s."""
        endpoint = self.settings.mariadb
        if endpoint is None:
            raise ConfigurationError("set MARIADB_URL")
        async with self.mariadb.connection(endpoint) as lease:
            return await lease.session.fetch(sql, *values)
