"""Whether the databases answer: asked anew, over a connection outside the pools.

A check in a pool would wait for its turn among the requests, or for the end of a back-off, and
would call a busy service sick and a recovered one still down.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio
from mariadb_client import MariaDBDriver

import conpool
from conpool.contrib.psycopg import PsycopgDriver

from .settings import Settings

Ask = Callable[[], Awaitable[str]]

PATIENCE = 0.7
"""Seconds in which a server must answer. With `FRESH` it is less than a second."""

FRESH = 0.2
"""Seconds for which an answer holds."""


class Pulse:
    """Asks one server. However many callers there are, it opens one connection at a time."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._lock = trio.Lock()
        self._heard_at = -math.inf
        self._version = ""

    async def __call__(self) -> str:
        """Return the server's version.

        Raises:
            Exception: The server does not answer, or does not let us in.
        """
        async with self._lock:
            if trio.current_time() - self._heard_at > FRESH:
                self._version = await self._ask()
                self._heard_at = trio.current_time()
            return self._version


def checks_of(settings: Settings) -> dict[str, Pulse]:
    """Return a check for each server."""
    checks = {"postgres": Pulse(lambda: ask_postgres(settings.postgres))}
    mariadb = settings.mariadb
    if mariadb is not None:
        checks["mariadb"] = Pulse(lambda: ask_mariadb(mariadb))
    return checks


async def ask_postgres(endpoint: conpool.AnyEndpoint) -> str:
    async with await PsycopgDriver(autocommit=True).connect(endpoint) as session:
        cursor = await session.execute("SELECT current_setting('server_version')")
        [(version,)] = await cursor.fetchall()
        return f"PostgreSQL {version}"


async def ask_mariadb(endpoint: conpool.AnyEndpoint) -> str:
    driver = MariaDBDriver()
    session = await driver.connect(endpoint)
    try:
        [(version,)] = await session.fetch("SELECT version()")
        await session.aclose()
    finally:
        driver.abort(session)
    return f"MariaDB {version}"
