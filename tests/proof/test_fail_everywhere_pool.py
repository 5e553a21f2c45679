"""The same for the pool as a whole: opening, dying, closing, leaving the block, with goodbyes.

Wherever a call fails, the block can be left within its bound, and nothing is left of the pool (G17,
G17b, G19). The calls of whole dials fail too: TLS, proxies and sockets.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TypeAlias, cast

import pytest
import trio

import conpool
from conpool.testing import Failure
from tests._proxies import Connecting, Serve, Socks, proxy_at_work
from tests.support.clean import clean
from tests.support.faults import LOOPBACK
from tests.support.pools import find_pool_tasks

from .connectors import AwkwardConnector, BareConnector, Mood, PairConnector, encrypted
from .fails import (
    BOUND,
    Guest,
    assert_heard,
    endure,
    failure_heard,
    heard,
    is_explained,
    sweep,
)
from .test_cancel_sockets import Kind, Network
from .world import World, config, exchange

GRACE, CLOSE_TIMEOUT = 1.0, 0.5
LONGEST = GRACE + 2 * (CLOSE_TIMEOUT + 1.0)
"""How long leaving the block may take, in seconds: a second is the pool's margin."""

Way: TypeAlias = Callable[[conpool.Endpoint], AbstractAsyncContextManager[conpool.Endpoint]]
Make: TypeAlias = Callable[[], conpool.Connector]


async def suffer(world: World, failure: Failure, seconds: float) -> None:
    """Hold a connection, and put up with what a pool that closes may do to anybody."""

    async def hold() -> None:
        try:
            async with world.pool.connection(world.endpoint) as conn:
                await exchange(conn, b"hello")
                await trio.sleep(seconds)
        except (conpool.PoolClosed, trio.ClosedResourceError):
            pass

    await endure(failure, hold)


async def live(make: Make, endpoint: conpool.Endpoint, end: str, failure: Failure) -> None:
    """Open a pool, have everything going on in it, and leave."""
    heard.clear()
    settings = config(2, close_timeout=CLOSE_TIMEOUT, shutdown_grace=GRACE)
    world = World(settings, connector=make(), endpoint=endpoint, observers=[Guest()])
    ended_at = 0.0
    with world.watched(), trio.fail_after(BOUND):
        with failure:
            async with trio.open_nursery() as nursery:
                try:
                    async with world.pool:
                        for seconds in (0.5, 0.5, 0.5, 20.0, 20.0, 20.0):
                            nursery.start_soon(suffer, world, failure, seconds)
                        await trio.sleep(2.5)
                        ended_at = trio.current_time()
                        if end == "raises":
                            raise ZeroDivisionError
                        if end == "closes":
                            await endure(failure, world.pool.aclose)
                except ZeroDivisionError:
                    assert end == "raises"
                except BaseException as exc:  # noqa: ASYNC103
                    if not is_explained(failure, without_own(exc)):
                        raise
                    failure_heard(failure, exc)
                assert trio.current_time() <= ended_at + LONGEST or not ended_at
                assert not find_pool_tasks()
                assert world.connector.live == 0, world.connector
        assert_heard(failure)
        await trio.sleep(20)
    world.assert_nothing_left()
    stats = world.pool.all_stats()
    assert not any((stats.active, stats.idle, stats.connecting, stats.closing, stats.waiting))


def without_own(exc: BaseException) -> BaseException:
    """Leave out of a group what the block itself has raised."""
    if isinstance(exc, BaseExceptionGroup):
        _, rest = cast("BaseExceptionGroup[BaseException]", exc).split(ZeroDivisionError)
        return rest or exc
    return exc


PLAIN = conpool.Endpoint("localhost", 5432)


@pytest.mark.parametrize("end", ["leaves", "raises", "closes"])
def test_f142_a_block_is_left_whatever_fails(end: str) -> None:
    sweep(partial(live, PairConnector, PLAIN, end))
    sweep(partial(live, BareConnector, PLAIN, end), first=2)


def test_f142_a_block_is_left_whatever_fails_where_closing_must_await() -> None:
    sweep(partial(live, partial(BareConnector, lingers=True), PLAIN, "leaves"))


@pytest.mark.parametrize("mood", ["hangs", None])
def test_f142_a_block_is_left_amid_goodbyes_whatever_fails(
    mood: Mood | None, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    serve = encrypted(server_ssl)
    make: Make = partial(PairConnector, serve)
    if mood is not None:
        make = partial(AwkwardConnector, mood, serve)
    endpoint = conpool.Endpoint("localhost", 5432, tls=conpool.TLS(client_ssl))
    sweep(partial(live, make, endpoint, "leaves"), first=1)


# ── dials over sockets ──────────────────────────────────────────────────────────


async def dial(network: Network, way: Way | None, failure: Failure) -> None:
    """One lease over the pool's own connector, by a proxy if there is a way to make one."""
    heard.clear()
    async with AsyncExitStack() as stack:
        server, endpoint = await stack.enter_async_context(network.serving())
        if way is not None:
            assert isinstance(endpoint, conpool.Endpoint)
            endpoint = await stack.enter_async_context(way(endpoint))
        config = conpool.PoolConfig(max_connections_per_endpoint=1)

        try:
            async with clean(endpoint, config) as case:
                with failure:
                    await endure(failure, partial(lend, case.pool, endpoint))
                if not isinstance(failure.raised, Exception | None):
                    raise failure.raised  # it may have ended the pool
                await case.settle()
        except BaseException as exc:  # noqa: ASYNC103
            if isinstance(failure.raised, Exception) or not is_explained(failure, exc):
                raise
            failure_heard(failure, exc)
        assert_heard(failure)
        await server.wait_live(0)


async def lend(pool: conpool.ConnectionPool[None], endpoint: conpool.AnyEndpoint) -> None:
    with suppress(conpool.ConnectError):
        async with pool.connection(endpoint):
            pass


def patient(serve: Serve) -> Serve:
    """Have a proxy put up with clients that hang up."""

    async def serve_patiently(stream: trio.abc.Stream) -> None:
        with suppress(AssertionError):
            await serve(stream)

    return serve_patiently


@asynccontextmanager
async def through_http(endpoint: conpool.Endpoint) -> AsyncIterator[conpool.Endpoint]:
    async with proxy_at_work(patient(Connecting())) as port:
        yield replace(endpoint, proxy=conpool.HTTPProxy(LOOPBACK, port))


@asynccontextmanager
async def through_socks(endpoint: conpool.Endpoint) -> AsyncIterator[conpool.Endpoint]:
    async with proxy_at_work(patient(Socks())) as port:
        yield replace(endpoint, proxy=conpool.SOCKS5Proxy(LOOPBACK, port))


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("TCP", None),
        ("TLS", None),
        ("TLS over UNIX", None),
        ("TLS", through_http),
        ("TCP", through_socks),
    ],
)
def test_f142_a_dial_leaves_nothing_whatever_fails(
    kind: Kind, way: Way | None, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    if "UNIX" in kind and not hasattr(socket, "AF_UNIX"):
        pytest.skip("there are no UNIX sockets here")
    sweep(partial(dial, Network(kind, server_ssl, client_ssl), way), on_sockets=True)
