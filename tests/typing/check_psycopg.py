"""What psycopg on trio looks like to a type checker."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import Any, assert_type

from psycopg.rows import DictRow, dict_row

import conpool
from conpool.contrib.psycopg import AsyncConnection, AsyncConnectionPool, PsycopgDriver


async def connections() -> None:
    plain = await AsyncConnection.connect("host=db", autocommit=True, port=5433)
    assert_type(plain, AsyncConnection[tuple[Any, ...]])
    async with await AsyncConnection[DictRow].connect(row_factory=dict_row) as conn:
        assert_type(conn, AsyncConnection[DictRow])
        cursor = await conn.execute("SELECT 1 AS one")
        assert_type(await cursor.fetchone(), DictRow | None)
        async with conn.transaction(), conn.cursor().copy("COPY t TO STDOUT") as copy:
            await copy.read()
    await AsyncConnection.connect(autocommit="yes")  # type: ignore[arg-type]


async def pools(driver: PsycopgDriver) -> None:
    endpoint = PsycopgDriver.endpoint("postgresql://db/orders", sslmode="require")
    assert_type(endpoint, conpool.AnyEndpoint)
    assert_type(PsycopgDriver.group("host=a,b"), conpool.EndpointGroup)
    async with conpool.ConnectionPool(driver=driver) as pool, pool.connection(endpoint) as lease:
        assert_type(lease.session, AsyncConnection[Any])
    async with AsyncConnectionPool("", conpool.PoolConfig(), driver=driver, name="db") as own:
        assert_type(own.pool, conpool.ConnectionPool[AsyncConnection[Any]])
        assert_type(own.stats(), conpool.PoolStats)
        async with own.connection(timeout=3) as conn:
            assert_type(conn, AsyncConnection[Any])
    AsyncConnectionPool(config=3)  # type: ignore[arg-type]


async def hooks(conn: AsyncConnection[Any]) -> None:
    async def configure(conn: AsyncConnection[Any]) -> None:
        await conn.set_autocommit(True)

    PsycopgDriver(configure=configure, reset=configure, application_name="shop")
    PsycopgDriver(configure=print)  # type: ignore[arg-type]
