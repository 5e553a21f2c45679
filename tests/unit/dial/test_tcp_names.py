"""The connector and names: what it remembers, and when it asks again."""

from __future__ import annotations

import errno
import math
import socket

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints

from conpool._dial.tcp import TCPConnector
from conpool._errors.connect import LocalResourceError, ResolveError
from conpool._values.endpoint import Endpoint
from conpool._values.proxy import SOCKS5Proxy
from tests._net import (
    LOOPBACK,
    FakeNetwork,
    Hosts,
    SystemResolver,
    connected,
    fails,
    listening,
    on_network,
    progress_noted,
    refusing,
)


async def test_f022_a_name_that_does_not_exist() -> None:
    hosts = Hosts(db=socket.gaierror(socket.EAI_NONAME, "no such name"))
    with progress_noted() as progress:
        error = await fails(TCPConnector(resolver=hosts), Endpoint("db", 1), ResolveError)
    assert (error.phase, error.errno) == ("resolve", socket.EAI_NONAME)
    assert progress.phase == "resolve"
    assert str(error).endswith("no such name")


async def test_f024_a_name_without_addresses() -> None:
    error = await fails(TCPConnector(resolver=Hosts(db=[])), Endpoint("db", 1), ResolveError)
    assert error.phase == "resolve"


async def test_f023_a_slow_name_shows_in_the_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = SystemResolver()
    monkeypatch.setattr(socket, "getaddrinfo", system)
    with progress_noted() as progress, trio.move_on_after(0.01):
        await TCPConnector().connect(Endpoint("slow.example", 1))
    assert progress.phase == "resolve"
    await system.wait_asked(1)
    system.let_go()


async def test_f023_fifteen_names_that_hang_do_not_hinder_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = SystemResolver()
    system.slow = "slow"
    monkeypatch.setattr(socket, "getaddrinfo", system)
    connector = TCPConnector()
    async with listening() as (_, port), trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(connector.connect, Endpoint(f"slow{number % 15}", 1))
        await system.wait_asked(15)
        with trio.fail_after(5):
            async with connected(connector, Endpoint("db", port)):
                pass
        limiter = trio.to_thread.current_default_thread_limiter()
        assert limiter.borrowed_tokens == 0
        assert len(system.asked) == 16
        nursery.cancel_scope.cancel()
    system.let_go()


async def test_a_thousand_connects_to_one_name_make_one_look_up() -> None:
    network = FakeNetwork(**{LOOPBACK: (0.0, None)})
    hosts = Hosts(db=[LOOPBACK])
    connector = TCPConnector(resolver=hosts)
    with on_network(network):
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(connector.connect, Endpoint("db", 1))
    assert hosts.asked == ["db"]
    stats = connector.resolver_stats
    assert stats.hits + stats.misses == 1000
    assert stats.lookups == 1


async def test_addresses_that_all_failed_are_looked_up_again() -> None:
    hosts = Hosts(db=["127.0.0.1"])
    connector = TCPConnector(resolver=hosts)
    with refusing() as port:
        await fails(connector, Endpoint("db", port))
        await fails(connector, Endpoint("db", port))
    assert len(hosts.asked) == 2


async def test_addresses_that_swallow_everything_are_looked_up_again(
    autojump_clock: MockClock,
) -> None:
    network = FakeNetwork(**{"192.0.2.1": (math.inf, None), "192.0.2.2": (math.inf, None)})
    hosts = Hosts(db=["192.0.2.1", "192.0.2.2"])
    connector = TCPConnector(resolver=hosts)
    with on_network(network):
        for seconds in (0.1, 10.0, 10.0):
            with trio.move_on_after(seconds):
                await connector.connect(Endpoint("db", 1))
    # The first dial was cancelled before it had tried both addresses: it says nothing about them.
    assert len(hosts.asked) == 2
    assert network.open == 0


async def test_what_this_machine_ran_out_of_says_nothing_about_the_addresses() -> None:
    network = FakeNetwork()
    network.exhausted = OSError(errno.EMFILE, "no files")
    hosts = Hosts(db=["192.0.2.1"])
    connector = TCPConnector(resolver=hosts)
    with on_network(network):
        for _ in range(2):
            await fails(connector, Endpoint("db", 1), LocalResourceError)
    assert len(hosts.asked) == 1


async def test_the_addresses_are_those_of_the_name_that_is_dialled() -> None:
    hosts = Hosts(db=["192.0.2.1", "2001:DB8::1"], proxy=["192.0.2.9"])
    connector = TCPConnector(resolver=hosts)
    endpoint = Endpoint("db", 1)
    assert await connector.addresses(endpoint) == frozenset({"192.0.2.1", "2001:db8::1"})
    assert await connector.addresses(Endpoint("db", 2)) == frozenset({"192.0.2.1", "2001:db8::1"})
    behind = Endpoint("db", 1, proxy=SOCKS5Proxy("proxy", 1080))
    assert await connector.addresses(behind) == frozenset({"192.0.2.9"})
    with assert_checkpoints():
        assert await connector.addresses(Endpoint("192.0.2.1", 1)) is None
    with assert_checkpoints():
        await connector.addresses(endpoint)
    assert hosts.asked == ["db", "proxy"]


async def test_addresses_that_cannot_be_found_are_an_error() -> None:
    hosts = Hosts(db=socket.gaierror(socket.EAI_NONAME, "no such name"))
    with pytest.raises(ResolveError):
        await TCPConnector(resolver=hosts).addresses(Endpoint("db", 1))


def test_each_run_of_trio_has_a_memory_of_its_own() -> None:
    hosts = Hosts(db=["192.0.2.1"])
    connector = TCPConnector(resolver=hosts)

    async def look_up() -> int:
        await connector.addresses(Endpoint("db", 1))
        await connector.addresses(Endpoint("db", 1))
        return connector.resolver_stats.lookups

    assert trio.run(look_up, clock=MockClock()) == 1
    assert trio.run(look_up, clock=MockClock()) == 1
    assert len(hosts.asked) == 2
