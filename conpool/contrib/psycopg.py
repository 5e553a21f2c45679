"""psycopg 3 in full on trio, alone or pooled.

from conpool.contrib.psycopg import AsyncConnectionPool

async with AsyncConnectionPool("postgresql://app@db.example/orders") as pool:
    async with pool.connection() as conn:
        await conn.execute("UPDATE stock SET count = count - 1")
"""

from __future__ import annotations

from psycopg.rows import Row

from conpool.contrib._psycopg.connection import AsyncConnection
from conpool.contrib._psycopg.driver import PsycopgDriver
from conpool.contrib._psycopg.pool import AsyncConnectionPool

__all__ = ["AsyncConnection", "AsyncConnectionPool", "PsycopgDriver", "Row"]
