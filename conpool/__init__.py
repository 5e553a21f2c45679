"""A connection pool for trio that speaks no protocol of its own.

It lends byte streams (TCP, TLS, UNIX sockets, through proxies) to clients of any protocol:

    async with conpool.ConnectionPool() as pool:
        endpoint = conpool.Endpoint("example.org", 443, tls=True)
        async with pool.connection(endpoint) as conn:
            await conn.send_all(request)
            reply = await read_reply(conn)  # yours: reads the reply to its end
"""

from __future__ import annotations

from conpool._dial.lookup import Resolver
from conpool._dial.name_cache import ResolverStats
from conpool._dial.tcp import TCPConnector
from conpool._errors.connect import (
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    LocalResourceError,
    ProxyError,
    ProxyTimeout,
    ResolveError,
    ResolveTimeout,
    TLSError,
    TLSTimeout,
)
from conpool._errors.pool import (
    AcquireTimeout,
    CircuitOpen,
    NoHealthyEndpoint,
    PoolClosed,
    QueueFull,
)
from conpool._extend.connector import Connector
from conpool._extend.driver import Driver, NativeDriver
from conpool._extend.logging_observer import LoggingObserver
from conpool._extend.observer import ConnectionInfo, Observer
from conpool._lending.lease import Connection
from conpool._pool.pool import ConnectionPool
from conpool._stats.latency import LatencySummary
from conpool._stats.snapshot import EndpointStats, PoolStats
from conpool._values.config import CircuitBreaker, PoolConfig
from conpool._values.config_error import ConfigError, PoolError
from conpool._values.endpoint import AnyEndpoint, Endpoint, UnixEndpoint
from conpool._values.group import EndpointGroup, Target
from conpool._values.login import Login
from conpool._values.proxy import HTTPProxy, SOCKS5Proxy
from conpool._values.states import CircuitState, CloseReason
from conpool._values.tls import TLS

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
    "ConnectRefused",
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
    "LoggingObserver",
    "Login",
    "NativeDriver",
    "NoHealthyEndpoint",
    "Observer",
    "PoolClosed",
    "PoolConfig",
    "PoolError",
    "PoolStats",
    "ProxyError",
    "ProxyTimeout",
    "QueueFull",
    "ResolveError",
    "ResolveTimeout",
    "Resolver",
    "ResolverStats",
    "SOCKS5Proxy",
    "TCPConnector",
    "TLSError",
    "TLSTimeout",
    "Target",
    "UnixEndpoint",
]

# A traceback names an error as users import it.
for _public in list(globals().values()):
    if isinstance(_public, type) and issubclass(_public, BaseException):
        _public.__module__ = __name__
