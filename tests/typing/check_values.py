"""What endpoints, settings and errors look like to a type checker."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, assert_type

import trio

import conpool
from conpool import Endpoint, UnixEndpoint


def endpoints() -> None:
    login = conpool.Login("app", "secret", database="orders")
    endpoint = Endpoint("example.org", 443, tls=True, login=login, partition=("user", 7))
    assert_type(endpoint.login, conpool.Login | None)
    assert_type(login.password, str | None)
    login.password = "other"  # type: ignore[misc]
    assert_type(endpoint.tls, conpool.TLS | None)
    assert_type(endpoint.proxy, conpool.HTTPProxy | conpool.SOCKS5Proxy | None)
    assert_type(Endpoint.from_url("redis://localhost"), Endpoint | UnixEndpoint)
    group = conpool.EndpointGroup([endpoint, UnixEndpoint("/run/x")], policy="least_loaded")
    assert_type(group.endpoints, tuple[Endpoint | UnixEndpoint, ...])
    targets: list[conpool.Target] = [endpoint, group]
    assert_type(targets[0], Endpoint | UnixEndpoint | conpool.EndpointGroup)


def settings() -> None:
    config = conpool.PoolConfig(max_connections=None, circuit_breaker=conpool.CircuitBreaker())
    assert_type(config.replace(max_idle_time=1.0), conpool.PoolConfig)
    config.replace(max_idel_time=1.0)  # type: ignore[call-arg]
    config.replace(max_idle_time="1")  # type: ignore[arg-type]
    config.replace(max_idle_time=None)  # type: ignore[arg-type]
    config.replace(max_connections=None, min_idle_per_endpoint=2)
    conpool.PoolConfig(max_size=5)  # type: ignore[call-arg]
    conpool.ConnectionPool(max_connections=5)  # type: ignore[call-overload]
    conpool.ConnectionPool().close()  # type: ignore[attr-defined]
    assert_type(conpool.PoolConfig.from_env(), conpool.PoolConfig)
    assert_type(config.max_connections, int | None)
    config.max_idle_time = 1.0  # type: ignore[misc]


def errors(error: conpool.PoolError) -> float:
    match error:
        case conpool.AcquireTimeout():
            assert_type(error.phase, Literal["queue", "connect", "check"])
            assert_type(error.holders, tuple[str, ...])
            assert_type(error.last_connect_error, conpool.ConnectError | None)
            too_slow: trio.TooSlowError = error
            return len(too_slow.args)
        case conpool.ConnectError():
            assert_type(error.phase, Literal["resolve", "tcp", "proxy", "tls", "open"])
            assert_type(error.attempts, tuple[OSError, ...])
            return error.errno or 0
        case conpool.CircuitOpen():
            return error.retry_after
        case conpool.NoHealthyEndpoint():
            assert_type(error.reasons, Mapping[conpool.AnyEndpoint, str])
            return 0
        case _:
            return 0
