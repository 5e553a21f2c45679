"""One PostgreSQL for these tests, and a second connection that looks at it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.servers import Postgres

pytest.importorskip("psycopg", reason="psycopg is not installed")

from .databases import Database  # behind the check


@pytest.fixture(scope="session")
def cluster() -> Iterator[Postgres]:
    with Postgres(max_prepared_transactions=5, max_connections=60) as server:
        yield server


@pytest.fixture
def db(cluster: Postgres) -> Database:
    return Database(cluster)


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that stays taken and refuses everybody: it is bound, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
