"""Drivers that begin TLS themselves, as STARTTLS does: the pool cannot read what comes."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import AnyEndpoint, CloseReason, ConnectionPool, Driver, PoolConfig
from tests.support.clean import Case, clean
from tests.support.loopback_servers import ServerTLS, exchange, receive_exactly, send_tickets

from .sites import TCPSite, say_goodbye

Encrypted = trio.SSLStream[trio.abc.Stream]


class Upgrading(Driver[Encrypted]):
    """Asks for TLS in plain text, and is judged by the bytes that move."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Encrypted:
        await stream.send_all(b"STARTTLS\n")
        assert await receive_exactly(stream, 3) == b"go\n"
        session = trio.SSLStream(stream, self._context, server_hostname="localhost")
        await session.do_handshake()
        return session


class Judging(Upgrading):
    """Says itself whether an exchange is complete."""

    is_complete = True

    def is_clean(self, session: Encrypted) -> bool:
        return self.is_complete


@asynccontextmanager
async def upgraded(
    driver: Upgrading, site: TCPSite, context: ssl.SSLContext
) -> AsyncIterator[tuple[Case, ConnectionPool[Encrypted], ServerTLS]]:
    """A pool that has one idle connection, and the server's end of it; tickets lie unread."""
    config = PoolConfig(reap_interval=1000)
    async with clean(None, config, driver=driver) as case, trio.open_nursery() as nursery:
        pool = cast("ConnectionPool[Encrypted]", case.pool)
        nursery.start_soon(pool.warm, site.endpoint, 1)
        below = await site.accept()
        assert await receive_exactly(below, 9) == b"STARTTLS\n"
        await below.send_all(b"go\n")
        server: ServerTLS = trio.SSLStream(below, context, server_side=True)
        await server.do_handshake()
        await case.log.wait_until(lambda: pool.stats(site.endpoint).idle == 1)
        await send_tickets(server)
        case.await_stir()  # they have arrived
        yield case, pool, server


async def answer_once(server: ServerTLS) -> None:
    await server.send_all(await receive_exactly(server, 4))


drivers = pytest.mark.parametrize("kind", [Upgrading, Judging])


@drivers
async def test_unread_tickets_do_not_close_a_connection_and_its_release_is_clean(
    kind: type[Upgrading], tcp_site: TCPSite, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext
) -> None:
    async with (
        upgraded(kind(client_ssl), tcp_site, server_ssl) as (case, pool, server),
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):
            nursery.start_soon(answer_once, server)
            async with pool.connection(tcp_site.endpoint) as conn:
                await exchange(conn.session)
            async with pool.connection(tcp_site.endpoint):
                pass  # nothing moved
        async with pool.connection(tcp_site.endpoint) as conn:
            assert (conn.id, conn.uses) == (1, 7)
        assert not case.log.reasons


@drivers
@pytest.mark.parametrize("end", ["close", "reset", "goodbye and close"])
async def test_the_end_is_noticed_behind_unread_tickets(
    kind: type[Upgrading],
    end: str,
    tcp_site: TCPSite,
    client_ssl: ssl.SSLContext,
    server_ssl: ssl.SSLContext,
) -> None:
    async with upgraded(kind(client_ssl), tcp_site, server_ssl) as (case, _, server):
        if end == "goodbye and close":
            await say_goodbye(server)
        tcp_site.end(server, "reset" if end == "reset" else "close")
        await case.log.wait_closed(CloseReason.PEER_CLOSED)


@drivers
async def test_the_end_is_noticed_at_the_next_acquire(
    kind: type[Upgrading], tcp_site: TCPSite, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext
) -> None:
    async with upgraded(kind(client_ssl), tcp_site, server_ssl) as (case, pool, server):
        (link,) = case.idle_links()
        tcp_site.end(server)
        while link.probe() is None:  # the end arrives while nothing else can run
            pass
        with pytest.raises(trio.WouldBlock):
            pool.acquire_nowait(tcp_site.endpoint)
        assert case.log.reasons == [CloseReason.PEER_CLOSED]


async def test_an_answer_that_was_not_read_costs_the_connection(
    tcp_site: TCPSite, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext
) -> None:
    async with upgraded(Upgrading(client_ssl), tcp_site, server_ssl) as (case, pool, _):
        async with pool.connection(tcp_site.endpoint) as conn:
            await conn.session.send_all(b"ping")
        assert case.log.reasons == [CloseReason.INCOMPLETE]


@pytest.mark.parametrize("is_complete", [True, False])
async def test_a_driver_that_judges_decides(
    is_complete: bool,
    tcp_site: TCPSite,
    client_ssl: ssl.SSLContext,
    server_ssl: ssl.SSLContext,
) -> None:
    driver = Judging(client_ssl)
    async with upgraded(driver, tcp_site, server_ssl) as (case, pool, _):
        driver.is_complete = is_complete
        with pytest.raises(ZeroDivisionError):
            async with pool.connection(tcp_site.endpoint) as conn:
                await conn.session.send_all(b"ping")
                raise ZeroDivisionError
        assert case.log.reasons == ([] if is_complete else [CloseReason.ERROR])


@drivers
async def test_a_receive_that_was_cut_short_and_swallowed(
    kind: type[Upgrading], tcp_site: TCPSite, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext
) -> None:
    async with upgraded(kind(client_ssl), tcp_site, server_ssl) as (case, pool, _):
        async with pool.connection(tcp_site.endpoint) as conn:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(conn.session.receive_some)
                    await wait_all_tasks_blocked()
                    scope.cancel()
        # Nothing had been asked, as only the driver can know.
        assert case.log.reasons == ([] if kind is Judging else [CloseReason.INCOMPLETE])
