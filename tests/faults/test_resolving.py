"""FAULTS B: names that do not resolve, and names of which some addresses do not answer."""

from __future__ import annotations

import errno
import socket
import sys

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import AcquireTimeout, ConnectTimeout, Endpoint, PoolConfig, TCPConnector
from conpool._errors.connect import ResolveError, ResolveTimeout
from tests._net import (
    LOOPBACK,
    Hosts,
    SystemResolver,
    refusing,
)
from tests.support.clean import Case, clean
from tests.support.kernel import client_sockets, need_kernel_table
from tests.support.loopback_servers import exchange, serving

from .blocks import fails
from .sites import TCPSite

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is Linux's own")

UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


# ── names ───────────────────────────────────────────────────────────────────────


async def test_f022_a_name_that_does_not_exist_is_an_error_at_once(tcp_site: TCPSite) -> None:
    endpoint = Endpoint("nowhere.example", tcp_site.port)
    connector = TCPConnector(resolver=Hosts(**{"nowhere.example": UNKNOWN}))
    async with clean(tcp_site.endpoint, connector=connector) as case:
        error = await fails(case, endpoint)
        assert type(error) is ResolveError
        assert (error.phase, error.errno) == ("resolve", socket.EAI_NONAME)
        assert case.log.dialled == 1, "there is nothing to be gained by trying again"


async def test_f022_the_waiter_behind_it_goes_on() -> None:
    hosts = Hosts(**{"db.example": UNKNOWN})
    async with serving() as server:
        endpoint = Endpoint("db.example", server.port)
        connector = TCPConnector(resolver=hosts, dns_ttl=0)
        config = PoolConfig(max_connections_per_endpoint=1)
        async with clean(endpoint, config, connector=connector) as case:
            hosts.gate = trio.Event()

            async def second() -> None:
                async with case.pool.connection(endpoint) as conn:
                    await exchange(conn)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails, case, endpoint)
                await wait_all_tasks_blocked()
                nursery.start_soon(second)
                await wait_all_tasks_blocked()
                assert case.pool.stats(endpoint).waiting == 2
                gate, hosts.gate = hosts.gate, None
                # The first look-up gets one answer, the second one another.
                answers = iter([UNKNOWN, (LOOPBACK,), (LOOPBACK,), (LOOPBACK,)])
                hosts.names = _Answers(answers)
                gate.set()


class _Answers(dict):  # type: ignore[type-arg]
    """Give one answer after the other, whatever the question."""

    def __init__(self, answers: object) -> None:
        super().__init__()
        self._answers = answers

    def __getitem__(self, name: object) -> object:
        return next(self._answers)  # type: ignore[call-overload]


async def test_f023_a_resolver_that_hangs_is_a_time_out_in_the_phase_resolve(
    tcp_site: TCPSite,
) -> None:
    hosts = Hosts()
    hosts.gate = trio.Event()
    config = PoolConfig(connect_timeout=0.05)
    connector = TCPConnector(resolver=hosts)
    async with clean(tcp_site.endpoint, config, connector=connector) as case:
        error = await fails(case, Endpoint("slow.example", tcp_site.port))
        assert type(error) is ResolveTimeout
        assert error.phase == "resolve"


async def test_f023_g16_sixty_look_ups_that_hang_delay_nobody_else(
    tcp_site: TCPSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = SystemResolver()
    monkeypatch.setattr(socket, "getaddrinfo", system)
    config = PoolConfig(acquire_timeout=2.0, connect_timeout=2.0)
    outcomes: list[BaseException] = []

    async def ask(case: Case, number: int) -> None:
        try:
            async with case.pool.connection(Endpoint(f"slow{number}.example", 80)):
                pass
        except (AcquireTimeout, ConnectTimeout) as error:
            outcomes.append(error)

    try:
        async with clean(tcp_site.endpoint, config) as case:
            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(ask, case, number)
                await wait_all_tasks_blocked()
                assert case.pool.all_stats().connecting == 60
                limiter = trio.to_thread.current_default_thread_limiter()
                assert limiter.borrowed_tokens == 0
                async with case.pool.connection(tcp_site.endpoint):
                    assert not outcomes
            assert len(outcomes) == 60
    finally:
        system.let_go()


async def test_f024_a_name_without_addresses_is_an_error(tcp_site: TCPSite) -> None:
    connector = TCPConnector(resolver=Hosts(**{"empty.example": ()}))
    async with clean(tcp_site.endpoint, connector=connector) as case:
        error = await fails(case, Endpoint("empty.example", tcp_site.port))
        assert type(error) is ResolveError
        assert error.phase == "resolve"


# ── addresses ───────────────────────────────────────────────────────────────────


@linux_only
async def test_f025_a_dead_address_before_a_live_one_costs_nothing_but_a_moment() -> None:
    need_kernel_table()
    async with serving() as server:
        with refusing("127.0.0.2", server.port):
            hosts = Hosts(**{"db.example": ("127.0.0.2", LOOPBACK)})
            endpoint = Endpoint("db.example", server.port)
            async with clean(endpoint, connector=TCPConnector(resolver=hosts)) as case:
                async with case.pool.connection(endpoint) as conn:
                    await exchange(conn)
                    assert conn.peer_address == (LOOPBACK, server.port)
                    assert client_sockets(server.port).total() == 1
                assert case.log.dialled == 1


@linux_only
async def test_f026_when_all_addresses_refuse_the_one_error_has_each_of_theirs(
    tcp_site: TCPSite,
) -> None:
    addresses = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    connector = TCPConnector(resolver=Hosts(**{"db.example": addresses}))
    async with clean(tcp_site.endpoint, connector=connector) as case:
        error = await fails(case, Endpoint("db.example", tcp_site.port))
        assert (error.phase, error.errno) == ("tcp", errno.ECONNREFUSED)
        assert [attempt.errno for attempt in error.attempts] == [errno.ECONNREFUSED] * 3
        for address in addresses:
            assert address in str(error)


@linux_only
async def test_f045_g1_of_two_addresses_that_answer_at_once_one_connection_remains() -> None:
    need_kernel_table()
    async with serving() as server:
        other = await trio.open_tcp_listeners(server.port, host="127.0.0.2")
        async with other[0]:
            hosts = Hosts(**{"db.example": ("127.0.0.2", LOOPBACK)})
            connector = TCPConnector(resolver=hosts, happy_eyeballs_delay=0)
            endpoint = Endpoint("db.example", server.port)
            async with (
                clean(endpoint, connector=connector) as case,
                case.pool.connection(endpoint),
            ):
                assert client_sockets(server.port).total() == 1
