"""A connection pool for trio that speaks no protocol of its own.

It lends byte streams (TCP, TLS, UNIX sockets, through proxies) to clients of any protocol:

    async with conpool.ConnectionPool() as pool:
        async with pool.connection(conpool.Endpoint("example.org", 80)) as conn:
            await conn.send_all(request)
            reply = await conn.receive_some()
"""

from __future__ import annotations

from conpool._checks import ConfigError, PoolError
from conpool._config import CircuitBreaker, PoolConfig
from conpool._connector import Connector
from conpool._driver import Driver, NativeDriver
from conpool._encryption import TLS
from conpool._endpoint import AnyEndpoint, Endpoint, UnixEndpoint
from conpool._errors import (
    AcquireTimeout,
    CircuitOpen,
    ConnectError,
    ConnectTimeout,
    LocalResourceError,
    NoHealthyEndpoint,
    PoolClosed,
    ProxyError,
    QueueFull,
    ResolveError,
    TLSError,
)
from conpool._group import EndpointGroup, Target
from conpool._lease import Connection
from conpool._lookup import Resolver
from conpool._observer import ConnectionInfo, Observer
from conpool._pool import ConnectionPool
from conpool._proxy import HTTPProxy, SOCKS5Proxy
from conpool._resolve import ResolverStats
from conpool._states import CircuitState, CloseReason
from conpool._stats import EndpointStats, LatencySummary, PoolStats
from conpool._tcp import TCPConnector

__version__ = "0.1.0"

__all__ = [
    "TLS",
    "AcquireTimeout",
    "AnyEndpoint",
    "CircuitBreaker",
    "CircuitOpen",
    "CircuitState",
    "CloseReason",
    "ConfigError",
    "ConnectError",
    "ConnectTimeout",
    "Connection",
    "ConnectionInfo",
    "ConnectionPool",
    "Connector",
    "Driver",
    "Endpoint",
    "EndpointGroup",
    "EndpointStats",
    "HTTPProxy",
    "LatencySummary",
    "LocalResourceError",
    "NativeDriver",
    "NoHealthyEndpoint",
    "Observer",
    "PoolClosed",
    "PoolConfig",
    "PoolError",
    "PoolStats",
    "ProxyError",
    "QueueFull",
    "ResolveError",
    "Resolver",
    "ResolverStats",
    "SOCKS5Proxy",
    "TCPConnector",
    "TLSError",
    "Target",
    "UnixEndpoint",
]
