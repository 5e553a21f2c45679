"""A server that moves to another address is followed: nothing is lent that leads to the old one."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conpool import (
    CloseReason,
    ConnectionInfo,
    ConnectionPool,
    Endpoint,
    PoolConfig,
    TCPConnector,
)
from conpool._core.core import KEEP_BARE
from conpool._dial import name_cache

CONFIG = PoolConfig(reap_interval=1.0)


class NameCache(trio.abc.HostnameResolver):
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

    names = NameCache("127.0.0.1")
    trio.socket.set_custom_hostname_resolver(names)
    listeners = await trio.open_tcp_listeners(0, host="0.0.0.0")
    endpoint = Endpoint("db.example", listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, trio.SocketStream.receive_some, listeners)
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
        nursery.cancel_scope.cancel()


async def test_a_name_that_cannot_be_looked_up_again_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    class Broken(NameCache):
        async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
            if self.asked:
                raise OSError("the resolver is down")
            return await super().getaddrinfo(host, port)

    trio.socket.set_custom_hostname_resolver(Broken("127.0.0.1"))
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    endpoint = Endpoint("db.example", listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, trio.SocketStream.receive_some, listeners)
        async with ConnectionPool(CONFIG, connector=TCPConnector(dns_ttl=2)) as pool:
            await pool.warm(endpoint, 1)
            await trio.sleep(10)
            assert pool.stats(endpoint).idle == 1
        nursery.cancel_scope.cancel()


async def test_addresses_given_as_such_are_never_looked_up(autojump_clock: MockClock) -> None:
    names = NameCache("127.0.0.9")
    trio.socket.set_custom_hostname_resolver(names)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    endpoint = Endpoint("127.0.0.1", listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, trio.SocketStream.receive_some, listeners)
        async with ConnectionPool(CONFIG, connector=TCPConnector(dns_ttl=2)) as pool:
            await pool.warm(endpoint, 1)
            await trio.sleep(10)
            assert pool.stats(endpoint).idle == 1
        nursery.cancel_scope.cancel()
    assert names.asked == 0


async def test_an_answer_about_an_endpoint_that_was_forgotten_meanwhile_dials_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it opened would be in no books: nobody would ever close it."""

    # What was found is too old to be better than nothing, so the resolver has all the time of a dial.
    monkeypatch.setattr(name_cache, "MAX_STALE", 2.0)

    class Late(NameCache):
        answers = trio.Event()

        async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
            if self.asked:
                await self.answers.wait()
            return await super().getaddrinfo(host, port)

    opened: list[ConnectionInfo] = []
    names = Late("127.0.0.1")
    trio.socket.set_custom_hostname_resolver(names)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    moving, other = Endpoint("db.example", port), Endpoint("127.0.0.1", port)
    usual = CONFIG.replace(max_connections=1)
    pool = ConnectionPool(
        usual,
        overrides={moving: usual.replace(min_idle_per_endpoint=1)},
        connector=TCPConnector(dns_ttl=2),
        on_created=opened.append,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, trio.SocketStream.receive_some, listeners)
        async with pool:
            await pool.warm(moving, 1)
            await trio.sleep(3)
            lease = await pool.acquire(other)
            await trio.sleep(KEEP_BARE + CONFIG.reap_interval)
            assert moving not in pool.all_stats().endpoints
            pool.discard(lease)
            await wait_all_tasks_blocked()
            names.answers.set()
            await wait_all_tasks_blocked(0.01)
            assert len(opened) == 2
        nursery.cancel_scope.cancel()
