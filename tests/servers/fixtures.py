"""One fixture for each server, started once for the whole run.

They are plain, not async: an async fixture lives in one test's trio run and could not
outlast it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import (
    Certificates,
    HAProxy,
    MariaDB,
    Memcached,
    Nginx,
    PgBouncer,
    Postgres,
    RedisTLS,
    Valkey,
)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture(scope="session")
def redis_tls(certificates: Certificates) -> Iterator[RedisTLS]:
    with RedisTLS(certificates) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    with PgBouncer(postgres) as server:
        yield server


@pytest.fixture(scope="session")
def nginx(certificates: Certificates) -> Iterator[Nginx]:
    with Nginx(certificates) as server:
        yield server


@pytest.fixture(scope="session")
def haproxy() -> Iterator[HAProxy]:
    with HAProxy() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    with MariaDB() as server:
        yield server


@pytest.fixture(scope="session")
def memcached() -> Iterator[Memcached]:
    with Memcached() as server:
        yield server
