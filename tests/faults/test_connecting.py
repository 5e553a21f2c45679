"""FAULTS B: what can go wrong between asking the pool for a connection and having one."""

from __future__ import annotations

import errno

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import (
    AcquireTimeout,
    CloseReason,
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    Endpoint,
    LocalResourceError,
    PoolConfig,
)
from tests._net import (
    LOOPBACK,
    FakeNetwork,
    on_network,
    refusing,
    swallowing,
)
from tests.support.clean import PATIENCE, Case, clean
from tests.support.kernel import client_sockets, need_kernel_table
from tests.support.loopback_servers import exchange, serving

from .blocks import fails
from .sites import ProxyTo, Site, TCPSite, TLSSite

# ── refused, unanswered, impossible ─────────────────────────────────────────────


async def test_f027_refusal_is_an_error_at_once_and_no_time_out(tcp_site: TCPSite) -> None:
    with refusing() as port:
        async with clean(tcp_site.endpoint) as case:
            began = trio.current_time()
            error = await fails(case, Endpoint(LOOPBACK, port))
            assert type(error) is ConnectRefused
            assert isinstance(error, ConnectionRefusedError)
            assert (error.phase, error.errno) == ("tcp", errno.ECONNREFUSED)
            assert trio.current_time() - began < 1.0
            assert case.pool.stats(Endpoint(LOOPBACK, port)).errors == 1


async def test_f028_g31_a_thousand_waiters_on_a_dead_server_make_a_handful_of_attempts(
    proxy_to: ProxyTo,
) -> None:
    outcomes: list[str] = []

    async def ask(case: Case, endpoint: Endpoint) -> None:
        try:
            async with case.pool.connection(endpoint):
                outcomes.append("served")
        except ConnectError:
            outcomes.append("refused")
        except AcquireTimeout as error:
            outcomes.append("timed out" if error.last_connect_error else "timed out unexplained")

    async with serving() as server:
        proxy = await proxy_to(server.port)
        proxy.refuse()
        endpoint = Endpoint(LOOPBACK, proxy.port)
        async with clean(endpoint, PoolConfig(acquire_timeout=0.5)) as case:
            async with trio.open_nursery() as nursery:
                for _ in range(1000):
                    nursery.start_soon(ask, case, endpoint)
            assert len(outcomes) == 1000
            assert set(outcomes) == {"refused", "timed out"}
            assert 1 <= outcomes.count("refused") <= case.log.dialled <= 30
            await proxy.accept()
            outcomes.clear()
            async with trio.open_nursery() as nursery:
                for _ in range(1000):
                    nursery.start_soon(ask, case, endpoint)
                await wait_all_tasks_blocked()
        assert len(outcomes) == 1000


async def test_f028_waiters_are_served_once_the_server_is_back(proxy_to: ProxyTo) -> None:
    refused, served = 0, 0

    async def ask(case: Case, endpoint: Endpoint) -> None:
        nonlocal refused, served
        try:
            async with case.pool.connection(endpoint) as conn:
                await exchange(conn)
            served += 1
        except ConnectError:
            refused += 1

    async with serving() as server:
        proxy = await proxy_to(server.port)
        proxy.refuse()
        endpoint = Endpoint(LOOPBACK, proxy.port)
        config = PoolConfig(max_connections_per_endpoint=2, acquire_timeout=PATIENCE)
        async with clean(endpoint, config) as case, trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask, case, endpoint)
            await case.log.wait_until(lambda: len(case.log.connect_errors) >= 2)
            await proxy.accept()
        assert refused + served == 100
        assert served >= 90


async def test_f029_a_server_that_swallows_packets_is_a_time_out(tcp_site: TCPSite) -> None:
    need_kernel_table()
    with swallowing() as port:
        endpoint = Endpoint(LOOPBACK, port)
        async with clean(tcp_site.endpoint, PoolConfig(connect_timeout=0.1)) as case:
            before = client_sockets(port).total()
            error = await fails(case, endpoint)
            assert type(error) is ConnectTimeout
            assert (error.phase, error.errno) == ("tcp", errno.ETIMEDOUT)
            assert client_sockets(port).total() == before


async def test_f033_a_connection_to_oneself_is_a_refusal(tcp_site: TCPSite) -> None:
    itself = ("192.0.2.254", 1)  # the clients of the fake network are here, too
    async with clean(tcp_site.endpoint) as case:
        with on_network(FakeNetwork(**{itself[0]: (0.0, None)})):
            error = await fails(case, Endpoint(*itself))
        assert (error.phase, error.errno) == ("tcp", errno.ECONNREFUSED)
        assert "self-connect" in str(error)


@pytest.mark.parametrize(
    "code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM], ids=errno.errorcode.get
)
async def test_f034_f035_what_this_machine_lacks_is_told_apart(
    tcp_site: TCPSite, code: int
) -> None:
    network = FakeNetwork()
    network.exhausted = OSError(code, "none left")
    async with clean(tcp_site.endpoint) as case:
        with on_network(network):
            error = await fails(case, Endpoint(LOOPBACK, 1))
        assert type(error) is LocalResourceError
        assert (error.phase, error.errno) == ("tcp", code)


@pytest.mark.parametrize(
    "code",
    [errno.EACCES, errno.EPERM, errno.ENETUNREACH, errno.EHOSTUNREACH],
    ids=errno.errorcode.get,
)
async def test_f037_what_the_network_says_is_in_the_error(tcp_site: TCPSite, code: int) -> None:
    network = FakeNetwork(**{"192.0.2.1": (0.0, OSError(code, "no way"))})
    async with clean(tcp_site.endpoint) as case:
        with on_network(network):
            error = await fails(case, Endpoint("192.0.2.1", 80))
        assert type(error) is ConnectError
        assert (error.phase, error.errno) == ("tcp", code)
        assert network.open == 0


async def test_f038_a_local_address_that_is_another_machines_is_named(tcp_site: TCPSite) -> None:
    endpoint = Endpoint(LOOPBACK, tcp_site.port, local_address="192.0.2.1")
    async with clean(tcp_site.endpoint) as case:
        error = await fails(case, endpoint)
        assert (error.phase, error.errno) == ("tcp", errno.EADDRNOTAVAIL)
        assert "192.0.2.1" in str(error)


# ── cancelled ───────────────────────────────────────────────────────────────────


async def test_f030_g1_a_dial_whose_caller_has_gone_finishes_and_becomes_idle(
    tls_site: TLSSite, proxy_to: ProxyTo
) -> None:
    proxy = await proxy_to(tls_site.port)
    proxy.prepare = lambda passage: passage.up.hold()
    endpoint = Endpoint(LOOPBACK, proxy.port, tls=tls_site.endpoint.tls or False)
    async with clean(endpoint) as case:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(case.pool.acquire, endpoint)
            passage = await proxy.wait_passages(1)
            nursery.cancel_scope.cancel()
        stats = case.pool.stats(endpoint)
        assert (stats.connecting, stats.waiting, stats.acquire_cancelled) == (1, 0, 1)
        passage.up.let_go()
        await case.settle()
        assert case.pool.stats(endpoint).idle == 1
        assert case.log.dialled == 1


async def test_f030_a_dial_whose_caller_has_gone_serves_the_next_one(
    tls_site: TLSSite, proxy_to: ProxyTo
) -> None:
    proxy = await proxy_to(tls_site.port)
    proxy.prepare = lambda passage: passage.up.hold()
    endpoint = Endpoint(LOOPBACK, proxy.port, tls=tls_site.endpoint.tls or False)
    served: list[int] = []

    async def ask(case: Case) -> None:
        async with case.pool.connection(endpoint) as conn:
            served.append(conn.id)

    async with clean(endpoint) as case, trio.open_nursery() as outer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(case.pool.acquire, endpoint)
            passage = await proxy.wait_passages(1)
            nursery.cancel_scope.cancel()
        outer.start_soon(ask, case)
        await wait_all_tasks_blocked()
        assert case.log.dialled == 1, "the dial that is under way is enough"
        passage.up.let_go()
    assert served == [1]


async def test_f030_a_dial_whose_caller_has_gone_is_bounded_all_the_same(
    tls_site: TLSSite, proxy_to: ProxyTo
) -> None:
    proxy = await proxy_to(tls_site.port)
    proxy.prepare = lambda passage: passage.up.hold()
    endpoint = Endpoint(LOOPBACK, proxy.port, tls=tls_site.endpoint.tls or False)
    async with clean(tls_site.endpoint, PoolConfig(connect_timeout=0.05)) as case:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(case.pool.acquire, endpoint)
            await proxy.wait_passages(1)
            nursery.cancel_scope.cancel()
        await case.settle()
        (error,) = case.log.connect_errors
        assert isinstance(error, ConnectTimeout)


async def test_f031_cancelled_as_the_dial_succeeds_the_connection_is_kept(site: Site) -> None:
    scope = trio.CancelScope()
    async with clean(site.endpoint, on_created=lambda _: scope.cancel()) as case:
        with scope:
            await case.pool.acquire(site.endpoint)
        assert scope.cancelled_caught
        stats = case.pool.stats(site.endpoint)
        assert (stats.idle, stats.active, stats.acquired) == (1, 0, 0)


# ── connected, and then ─────────────────────────────────────────────────────────


async def test_f032_one_that_was_reset_before_its_first_use_is_replaced(site: Site) -> None:
    async with clean(site.endpoint) as case:
        await case.pool.warm(site.endpoint, 1)
        server = await site.accept()
        site.end(server, "reset")
        case.await_stir()
        async with case.pool.connection(site.endpoint) as conn:
            assert conn.uses == 1
        assert case.log.reasons == [CloseReason.PEER_CLOSED]
        assert case.log.dialled == 2


async def test_f032_where_no_other_can_be_had_that_is_an_error(proxy_to: ProxyTo) -> None:
    async with serving() as server:
        proxy = await proxy_to(server.port)
        endpoint = Endpoint(LOOPBACK, proxy.port)
        async with clean(server.endpoint) as case:
            await case.pool.warm(endpoint, 1)
            await proxy.wait_passages(1)
            proxy.refuse()
            proxy.end_all("reset")
            case.await_stir()
            error = await fails(case, endpoint)
            assert error.errno == errno.ECONNREFUSED
            assert case.log.reasons == [CloseReason.PEER_CLOSED]


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_f039_one_that_is_closed_at_once_is_lent_and_then_closed(
    site: Site, how: str
) -> None:
    async with clean(site.endpoint) as case:
        with pytest.raises((EOFError, trio.BrokenResourceError)):
            async with case.pool.connection(site.endpoint) as conn:
                site.end(await site.accept(), "close" if how == "close" else "reset")
                if await conn.receive_some() == b"":
                    raise EOFError
        assert case.log.reasons == [CloseReason.ERROR]


async def test_f039_the_end_of_the_stream_in_a_block_that_ends_normally(site: Site) -> None:
    async with clean(site.endpoint) as case:
        async with case.pool.connection(site.endpoint) as conn:
            server = await site.accept()
            await server.aclose()
            assert await conn.receive_some() == b""
        assert case.log.reasons == [CloseReason.PEER_CLOSED]


async def test_f042_g3_a_greeting_that_comes_after_the_lease_makes_it_unfit_for_the_next(
    site: Site,
) -> None:
    async with clean(site.endpoint) as case:
        async with case.pool.connection(site.endpoint):
            server = await site.accept()
        assert case.pool.stats(site.endpoint).idle == 1
        await server.send_all(b"220 welcome\r\n")
        case.await_stir()
        async with case.pool.connection(site.endpoint) as conn:
            assert not conn.reused
            second = await site.accept()
            await second.send_all(b"hello")
            assert await conn.receive_some() == b"hello"
        assert case.log.reasons == [CloseReason.UNREAD_DATA]
