"""Values of a wrong kind, exceptions of any kind, answers of any size: none does harm."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from conpool import (
    AcquireTimeout,
    AnyEndpoint,
    ConfigError,
    ConnectError,
    ConnectionPool,
    Connector,
    Driver,
    Endpoint,
    EndpointGroup,
    Observer,
    PoolConfig,
    TCPConnector,
)
from conpool._dial.address import MOST_TRIED
from conpool.testing import MemoryConnector
from tests._net import FakeNetwork, Hosts, on_network
from tests.support.odd import odd_exceptions, repr_of
from tests.support.pools import HERE, THERE, Network, exchange, open_pool, use

SECRET = "redis://joe:canary@db.example"

Misuse = Callable[[Any], object]


# ── what is given to a pool ─────────────────────────────────────────────────────


class LooksLikeAConnector:
    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        raise NotImplementedError


class Falsy(MemoryConnector):
    def __bool__(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"config": HERE}, "config must be a PoolConfig, not an Endpoint"),
        ({"config": None}, "config must be a PoolConfig, not None"),
        ({"config": PoolConfig}, "config must be a PoolConfig, not the class PoolConfig"),
        ({"config": {"acquire_timeout": 1}}, "config must be a PoolConfig, not a dict"),
        ({"overrides": None}, "overrides must be a mapping, not None"),
        ({"overrides": [(HERE, PoolConfig())]}, "overrides must be a mapping, not a list"),
        ({"overrides": {("h", 1): PoolConfig()}}, "for single endpoints, not for a tuple"),
        ({"overrides": {SECRET: PoolConfig()}}, "for single endpoints, not for a str"),
        (
            {"overrides": {EndpointGroup([HERE]): PoolConfig()}},
            "for single endpoints, not for an EndpointGroup",
        ),
        ({"overrides": {HERE: {}}}, "each of overrides must be a PoolConfig, not a dict"),
        ({"overrides": {HERE: None}}, "each of overrides must be a PoolConfig, not None"),
        ({"connector": MemoryConnector}, "must be a Connector, not the class MemoryConnector"),
        ({"connector": LooksLikeAConnector()}, "must be a Connector, not a LooksLikeAConnector"),
        ({"connector": False}, "connector must be a Connector, not False"),
        ({"driver": Driver}, "driver must be a Driver, not the class Driver"),
        ({"driver": 5}, "driver must be a Driver, not 5"),
        ({"health_check": 5}, "health_check must be an async function, not 5"),
        ({"health_check": len}, "health_check must be an async function"),
        ({"observers": None}, "observers must be an iterable"),
        ({"observers": Observer()}, "observers must be an iterable"),
        ({"observers": [Observer]}, "each of observers must be an Observer"),
        ({"observers": "x"}, "each of observers must be an Observer"),
        ({"on_created": 5}, "on_created must be a function"),
        ({"on_reused": "x"}, "on_reused must be a function"),
        ({"on_closed": [print]}, "on_closed must be a function"),
        ({"name": 5}, "name must be a str, not 5"),
        ({"name": b"p"}, "name must be a str, not a bytes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_f137_what_no_pool_can_work_with_is_refused(arguments: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        ConnectionPool(**arguments)
    assert "canary" not in str(caught.value)


async def test_f137_a_connector_that_is_false_is_used() -> None:
    async with ConnectionPool(connector=Falsy(lambda stream: stream.receive_some())) as pool:
        await pool.warm(HERE, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"resolver": 5}, "resolver must be an async function, not 5"),
        ({"resolver": len}, "resolver must be an async function"),
        ({"resolver": Hosts}, None),
        ({"dns_ttl": "5"}, "dns_ttl must be"),
        ({"dns_ttl": None}, "dns_ttl must be"),
        ({"happy_eyeballs_delay": True}, "happy_eyeballs_delay must be"),
        ({"keepalive": 0}, "keepalive must be"),
        ({"user_timeout": "x"}, "user_timeout must be"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_f137_what_no_connector_can_work_with_is_refused(arguments: Any, said: str | None) -> None:
    if said is None:
        TCPConnector(**arguments)  # a class may make awaitables
        return
    with pytest.raises(ConfigError, match=said):
        TCPConnector(**arguments)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda pool: pool.release(object()),
        lambda pool: pool.release(None),
        lambda pool: pool.release(HERE),
        lambda pool: pool.release(pool.connection(HERE)),
        lambda pool: pool.discard(None),
        lambda pool: pool.discard(pool.connection(HERE)),
        lambda pool: pool.acquire(SECRET),
        lambda pool: pool.acquire(("db.example", 5432)),
        lambda pool: pool.acquire(None),
        lambda pool: pool.acquire([]),
        lambda pool: pool.acquire({"password": "canary"}),
        lambda pool: pool.connection(None).__aenter__(),
        lambda pool: pool.connection(SECRET).__aenter__(),
        lambda pool: pool.acquire_nowait([]),
        lambda pool: pool.acquire_nowait(SECRET),
        lambda pool: pool.stats(SECRET),
        lambda pool: pool.warm(SECRET, 1),
        lambda pool: pool.warm(None, 1),
        lambda pool: pool.close_idle(SECRET),
        lambda pool: pool.clear(SECRET),
        lambda pool: pool.drain(SECRET),
        lambda pool: pool.pause(SECRET),
        lambda pool: pool.resume(SECRET),
        lambda pool: pool.set_limit(SECRET, 5),
    ],
)
async def test_f137_f157_a_wrong_kind_of_lease_or_endpoint_is_a_type_error(misuse: Misuse) -> None:
    async with open_pool(name="p") as pool:
        lease = await pool.acquire(HERE)
        with pytest.raises(TypeError) as caught:
            result = misuse(pool)
            if isinstance(result, Awaitable):
                await result
        assert "canary" not in str(caught.value)
        pool.release(lease)
        pool.release(lease)  # twice is harmless
        assert await use(pool) == [1]


@pytest.mark.parametrize(
    "misuse",
    [
        lambda pool: pool.set_limit(HERE, "5"),
        lambda pool: pool.set_limit(HERE, True),
        lambda pool: pool.warm(HERE, -1),
        lambda pool: pool.warm(HERE, 11),
        lambda pool: pool.acquire(HERE, timeout="5"),
        lambda pool: pool.acquire(HERE, timeout=float("nan")),
    ],
)
async def test_f137_a_number_of_a_wrong_kind_is_a_config_error(misuse: Misuse) -> None:
    async with open_pool() as pool:
        with pytest.raises(ConfigError):
            result = misuse(pool)
            if isinstance(result, Awaitable):
                await result


@pytest.mark.parametrize("returned", [None, (None, None), 5], ids=repr)
async def test_f137_a_connector_that_returns_no_stream_fails_its_caller(returned: Any) -> None:
    class Odd(Connector):
        async def connect(self, endpoint: AnyEndpoint) -> Any:
            await trio.lowlevel.checkpoint()
            return returned

    async with ConnectionPool(connector=Odd()) as pool:
        with pytest.raises(ConnectError, match=r"must return a trio.abc.Stream, not") as caught:
            await pool.acquire(HERE)
        assert caught.value.phase == "open"
        assert pool.stats(HERE).connecting == 0


# ── what a connector raises ─────────────────────────────────────────────────────


@pytest.mark.parametrize("error", odd_exceptions(), ids=repr_of)
async def test_f152_whatever_a_connector_raises_the_pool_lives(
    error: Exception, autojump_clock: MockClock
) -> None:
    network = Network()
    network.failures[THERE] = error
    async with open_pool(network) as pool, pool.connection(HERE) as other:
        with pytest.raises(ConnectError):
            await pool.acquire(THERE)
        with pytest.raises((ConnectError, AcquireTimeout)) as caught:
            await pool.acquire(THERE, timeout=0.01)
        assert str(caught.value)
        assert await exchange(other) == b"ping"
        assert not pool.closed


# ── what a resolver says ────────────────────────────────────────────────────────


async def test_f147_of_thousands_of_addresses_a_few_are_tried(autojump_clock: MockClock) -> None:
    ips = [f"192.0.{n >> 8}.{n & 255}" for n in range(4000)]
    network = FakeNetwork(**{ip: (0.0, OSError(111, "refused")) for ip in ips})
    endpoint = Endpoint("evil.example", 9)
    connector = TCPConnector(resolver=Hosts(**{"evil.example": ips}))
    with on_network(network):
        async with ConnectionPool(connector=connector) as pool:
            with pytest.raises(ConnectError) as caught:
                await pool.acquire(endpoint)
    assert network.dialled == ips[:MOST_TRIED]
    assert len(caught.value.attempts) == MOST_TRIED
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("error", odd_exceptions(), ids=repr_of)
async def test_f152_whatever_a_resolver_raises_is_a_connect_error(error: Exception) -> None:
    connector = TCPConnector(resolver=Hosts(**{"db.example": error}))
    async with ConnectionPool(connector=connector) as pool:
        with pytest.raises(ConnectError) as caught:
            await pool.acquire(Endpoint("db.example", 5432))
        assert caught.value.phase == "resolve"
        assert 10 < len(str(caught.value)) < 1000
        assert not pool.closed
