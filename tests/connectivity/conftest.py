"""Servers that only these tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.connectivity.test_real_proxies import PProxy
from tests.servers import Certificates, RedisTLS


@pytest.fixture(scope="package")
def pproxy(certificates: Certificates) -> Iterator[PProxy]:
    """A proxy that lets everyone through, by HTTP CONNECT or SOCKS5, in the clear or over TLS."""
    with PProxy(certificates) as server:
        yield server


@pytest.fixture(scope="package")
def guarded(certificates: Certificates) -> Iterator[PProxy]:
    """A proxy that lets joe through."""
    with PProxy(certificates, "#joe:hunter2") as server:
        yield server


@pytest.fixture(scope="package")
def strict_redis(certificates: Certificates) -> Iterator[RedisTLS]:
    """Redis over TLS that wants to see a client's certificate."""
    with RedisTLS(certificates, clients="yes") as server:
        yield server
