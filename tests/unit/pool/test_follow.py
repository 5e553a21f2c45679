"""A server that moves to another address is followed: nothing is lent that leads to the old one."""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conpool import (
    AnyEndpoint,
    CloseReason,
    ConnectionInfo,
    ConnectionPool,
    Connector,
    Endpoint,
    HTTPProxy,
    PoolConfig,
    TCPConnector,
    UnixEndpoint,
)
from conpool._core.core import KEEP_BARE
from conpool._dial import name_cache
from conpool._pool import follow

CONFIG = PoolConfig(reap_interval=1.0)


@asynccontextmanager
async def listening(host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Accept whoever connects; the port."""
    listeners = await trio.open_tcp_listeners(0, host=host)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, trio.SocketStream.receive_some, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


# ── names ───────────────────────────────────────────────────────────────────────


class Names(trio.abc.HostnameResolver):
    """A resolver that says what the test wants it to."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked = 0

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        kind = trio.socket.SOCK_STREAM
        return [(trio.socket.AF_INET, kind, 6, "", (self.address, port or 0))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


async def test_a_connection_to_an_address_that_a_name_has_no_more_is_not_lent_again(
    autojump_clock: MockClock,
) -> None:
    reasons: list[CloseReason] = []

    def on_closed(info: ConnectionInfo, reason: CloseReason) -> None:
        reasons.append(reason)

    names = Names("127.0.0.1")
    trio.socket.set_custom_hostname_resolver(names)
    async with listening("0.0.0.0") as port:
        endpoint = Endpoint("db.example", port)
        pool = ConnectionPool(CONFIG, connector=TCPConnector(dns_ttl=10), on_closed=on_closed)
        async with pool:
            await pool.warm(endpoint, 2)
            async with pool.connection(endpoint) as conn:
                names.address = "127.0.0.2"
                await trio.sleep(9)
                assert not reasons, "what was looked up has not expired"
                await trio.sleep(3)
                assert reasons == [CloseReason.MOVED], "the idle one leaves"
                assert conn.peer_address[0] == "127.0.0.1"
            assert reasons == [CloseReason.MOVED] * 2, "the lent one at the end of its lease"
            async with pool.connection(endpoint) as conn:
                assert conn.peer_address[0] == "127.0.0.2"


async def test_a_name_that_cannot_be_looked_up_again_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    class Broken(Names):
        async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
            if self.asked:
                raise OSError("the resolver is down")
            return await super().getaddrinfo(host, port)

    trio.socket.set_custom_hostname_resolver(Broken("127.0.0.1"))
    async with listening() as port:
        endpoint = Endpoint("db.example", port)
        async with ConnectionPool(CONFIG, connector=TCPConnector(dns_ttl=2)) as pool:
            await pool.warm(endpoint, 1)
            await trio.sleep(10)
            assert pool.stats(endpoint).idle == 1


async def test_addresses_given_as_such_are_never_looked_up(autojump_clock: MockClock) -> None:
    names = Names("127.0.0.9")
    trio.socket.set_custom_hostname_resolver(names)
    async with listening() as port:
        endpoint = Endpoint("127.0.0.1", port)
        async with ConnectionPool(CONFIG, connector=TCPConnector(dns_ttl=2)) as pool:
            await pool.warm(endpoint, 1)
            await trio.sleep(10)
            assert pool.stats(endpoint).idle == 1
    assert names.asked == 0


async def test_an_answer_about_an_endpoint_that_was_forgotten_meanwhile_dials_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it opened would be in no books: nobody would ever close it."""

    # What was found is too old to be used, so the resolver has all the time of a dial.
    monkeypatch.setattr(name_cache, "MAX_STALE", 2.0)

    class Late(Names):
        answers = trio.Event()

        async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
            if self.asked:
                await self.answers.wait()
            return await super().getaddrinfo(host, port)

    opened: list[ConnectionInfo] = []
    names = Late("127.0.0.1")
    trio.socket.set_custom_hostname_resolver(names)
    async with listening() as port:
        moving, other = Endpoint("db.example", port), Endpoint("127.0.0.1", port)
        usual = CONFIG.replace(max_connections=1)
        pool = ConnectionPool(
            usual,
            overrides={moving: usual.replace(min_idle_per_endpoint=1)},
            connector=TCPConnector(dns_ttl=2),
            on_created=opened.append,
        )
        async with pool:
            await pool.warm(moving, 1)
            await trio.sleep(3)
            lease = await pool.acquire(other)
            await trio.sleep(KEEP_BARE + CONFIG.reap_interval)
            assert moving not in pool._core.subs
            pool.discard(lease)
            await wait_all_tasks_blocked()
            names.answers.set()
            await wait_all_tasks_blocked(0.01)
            assert len(opened) == 2


# ── a connector of one's own ────────────────────────────────────────────────────

Tell = Callable[[AnyEndpoint], Awaitable[frozenset[str] | None]]


class Guide(Connector):
    """Connects to one address, whatever the endpoint, and tells what the test wants it to."""

    def __init__(self, port: int, tell: Tell | None = None) -> None:
        self.port = port
        self.address = "127.0.0.1"
        self.asked: list[AnyEndpoint] = []
        self.tell = tell

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        return await trio.open_tcp_stream(self.address, self.port)

    async def addresses(self, endpoint: AnyEndpoint) -> frozenset[str] | None:
        self.asked.append(endpoint)
        if self.tell is not None:
            return await self.tell(endpoint)
        await trio.lowlevel.checkpoint()
        return frozenset({self.address})


async def test_a_connector_that_knows_addresses_is_followed(autojump_clock: MockClock) -> None:
    async def think(endpoint: AnyEndpoint) -> frozenset[str]:
        await trio.sleep(0.25)  # so that no sweep of the reaper is at the same time
        return frozenset({connector.address})

    async with listening("0.0.0.0") as port:
        connector = Guide(port, think)
        endpoint = UnixEndpoint("/a/name/like/any/other")
        async with ConnectionPool(CONFIG, connector=connector) as pool:
            await pool.warm(endpoint, 2)
            async with pool.connection(endpoint):
                await trio.sleep(2.6)
                assert connector.asked == [endpoint] * 2
                assert pool.stats(endpoint).idle == 1
                connector.address = "127.0.0.2"
                await trio.sleep(1.3)
                stats = pool.stats(endpoint)
                assert (stats.idle, stats.closing, stats.total_closed) == (0, 0, 1)
            assert pool.stats(endpoint).total_closed == 2
            async with pool.connection(endpoint) as conn:
                assert conn.peer_address[0] == "127.0.0.2"


async def tell_nothing(endpoint: AnyEndpoint) -> None:
    await trio.lowlevel.checkpoint()


async def fail_as_expected(endpoint: AnyEndpoint) -> None:
    raise OSError("no such name")


async def fail_by_a_bug(endpoint: AnyEndpoint) -> None:
    raise RuntimeError("a bug")


async def fail_in_a_nursery(endpoint: AnyEndpoint) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_by_a_bug, endpoint)


async def tell_nonsense(endpoint: AnyEndpoint) -> Any:
    return 5


async def tell_one_address(endpoint: AnyEndpoint) -> Any:
    return "127.0.0.2"


async def tell_objects(endpoint: AnyEndpoint) -> Any:
    return frozenset({ipaddress.ip_address("127.0.0.1")})


async def tell_names(endpoint: AnyEndpoint) -> frozenset[str]:
    return frozenset({"127.0.0.2", "db.example"})


async def tell_of_none(endpoint: AnyEndpoint) -> frozenset[str]:
    return frozenset()


async def tell_in_another_spelling(endpoint: AnyEndpoint) -> Any:
    return ["2001:DB8::1", "127.0.0.1"]


def answer_at_once(endpoint: AnyEndpoint) -> frozenset[str]:
    return frozenset({"127.0.0.2"})


@pytest.mark.parametrize(
    ("tell", "complains"),
    [
        (tell_nothing, False),
        (fail_as_expected, True),
        (fail_by_a_bug, True),
        (fail_in_a_nursery, True),
        (tell_nonsense, True),
        (tell_one_address, True),
        (tell_objects, True),
        (tell_names, True),
        (tell_of_none, False),
        (tell_in_another_spelling, False),
        (answer_at_once, True),
    ],
)
async def test_f133_whatever_a_connector_says_but_addresses_changes_nothing(
    tell: Any, complains: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "conpool")
    async with listening() as port:
        connector = Guide(port, tell)
        endpoint = Endpoint("db.example", port)
        async with ConnectionPool(CONFIG, connector=connector) as pool:
            await pool.warm(endpoint, 1)
            await trio.sleep(3.5)
            assert pool.stats(endpoint).idle == 1
            assert len(connector.asked) == 3
    assert len(caplog.records) == 3 * complains
    for record in caplog.records:
        assert record.levelno == logging.INFO
        assert f"db.example:{port}" in record.getMessage()


async def test_g16_a_connector_that_hangs_over_one_endpoint_delays_others_for_a_dials_time(
    autojump_clock: MockClock,
) -> None:
    async def hang(endpoint: AnyEndpoint) -> frozenset[str]:
        if endpoint == slow:
            await trio.sleep_forever()
        return frozenset({connector.address})

    async with listening("0.0.0.0") as port:
        slow, quick = Endpoint("slow.example", port), Endpoint("quick.example", port)
        connector = Guide(port, hang)
        config = CONFIG.replace(connect_timeout=5.0)
        async with ConnectionPool(config, connector=connector) as pool:
            await pool.warm(slow, 1)
            await pool.warm(quick, 1)
            await trio.sleep(2)
            connector.address = "127.0.0.2"
            await trio.sleep(5.5)
            assert (pool.stats(slow).idle, pool.stats(quick).idle) == (1, 0)


async def test_f133_a_connector_that_hangs_where_dials_may_take_for_ever_is_asked_again(
    autojump_clock: MockClock,
) -> None:
    async def hang_once(endpoint: AnyEndpoint) -> frozenset[str]:
        if len(connector.asked) == 1:
            await trio.sleep_forever()
        return frozenset({"127.0.0.2"})

    async with listening("0.0.0.0") as port:
        connector = Guide(port, hang_once)
        endpoint = Endpoint("db.example", port)
        config = CONFIG.replace(connect_timeout=math.inf, max_idle_time=math.inf)
        async with ConnectionPool(config, connector=connector) as pool:
            await pool.warm(endpoint, 1)
            await trio.sleep(follow._LONGEST + 2 * CONFIG.reap_interval + 0.1)
            assert len(connector.asked) == 2
            assert pool.stats(endpoint).closed_by_reason == {CloseReason.MOVED: 1}


class Vanishing:
    """A name that is gone for a while: a resolver, and what a connector tells."""

    def __init__(self) -> None:
        self.gone: Exception | list[str] | None = None
        self.address = "127.0.0.1"
        self.asked = 0

    async def __call__(self, *_: object) -> Any:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if isinstance(self.gone, Exception):
            raise self.gone
        return frozenset({self.address} if self.gone is None else self.gone)


@pytest.mark.parametrize(
    "gone",
    [[], socket.gaierror(socket.EAI_NONAME, "gone"), OSError(5, "down"), RuntimeError("a bug")],
    ids=repr,
)
@pytest.mark.parametrize("is_default", [True, False])
async def test_f133_a_name_that_vanishes_for_a_moment_is_followed_when_it_is_back(
    gone: Any, is_default: bool, autojump_clock: MockClock
) -> None:
    name = Vanishing()
    reasons: list[CloseReason] = []
    async with listening("0.0.0.0") as port:
        connector: Connector = Guide(port, name)
        if is_default:
            connector = TCPConnector(dns_ttl=3.0, resolver=name)
        endpoint = Endpoint("db.example", port)
        config = CONFIG.replace(max_idle_time=math.inf)
        pool = ConnectionPool(
            config, connector=connector, on_closed=lambda _, reason: reasons.append(reason)
        )
        async with pool:
            await pool.warm(endpoint, 1)
            asked, name.gone = name.asked, gone
            await trio.sleep(10)
            assert name.asked > asked
            assert not reasons, "nothing is closed while the name is gone"
            name.gone, name.address = None, "127.0.0.2"
            # An old answer serves for so long while the resolver is down.
            await trio.sleep(name_cache.STALE_TTL + 2 * CONFIG.reap_interval)
            assert reasons == [CloseReason.MOVED]


async def test_a_connector_that_does_not_know_costs_no_task(autojump_clock: MockClock) -> None:
    class Ignorant(Connector):
        async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
            raise NotImplementedError

    def is_following(pool: ConnectionPool[None]) -> bool:
        return "conpool follow" in {
            task.name for task in pool._engine.background._nursery.child_tasks
        }

    async with ConnectionPool(CONFIG, connector=Ignorant()) as pool:
        await wait_all_tasks_blocked()
        assert not is_following(pool)
    async with ConnectionPool(CONFIG, connector=TCPConnector()) as pool:
        await wait_all_tasks_blocked()
        assert is_following(pool)


async def test_nobody_asks_where_there_is_nothing_to_follow(autojump_clock: MockClock) -> None:
    async with listening() as port:
        connector = Guide(port)
        proxy = HTTPProxy("127.0.0.1", port)
        by_address = Endpoint("127.0.0.1", port)
        by_proxy = Endpoint("db.example", port, proxy=proxy)
        by_name = Endpoint("db.example", port)
        behind_a_name = Endpoint("127.0.0.1", port, proxy=HTTPProxy("proxy.example", port))
        async with ConnectionPool(CONFIG, connector=connector) as pool:
            for endpoint in (by_address, by_proxy, by_name, behind_a_name):
                await pool.warm(endpoint, 1)
            await trio.sleep(1.5)
            assert len(connector.asked) == 2
            assert set(connector.asked) == {by_name, behind_a_name}
            pool.close_idle()
            await trio.sleep(1)
            assert len(connector.asked) == 2
            assert by_name in pool.all_stats().endpoints


async def test_g16_thousands_are_asked_about_in_pieces(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_BATCH", 2)

    class Steps(trio.abc.Instrument):
        count = 0

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += task.name == "conpool follow"

    async def steps_of_one_round(endpoints: int) -> int:
        connector = Guide(port)
        async with ConnectionPool(CONFIG, connector=connector) as pool:
            for number in range(endpoints):
                await pool.warm(Endpoint("db.example", port, partition=number), 1)
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            await trio.sleep(1.5)
            trio.lowlevel.remove_instrument(steps)
            assert len(connector.asked) == endpoints
            return steps.count

    async with listening() as port:
        assert await steps_of_one_round(9) - await steps_of_one_round(1) == 4
