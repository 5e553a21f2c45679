"""The same for the pool as a whole: opening, dying, closing, leaving the block, with goodbyes.

Wherever a call fails, the block can be left within its bound, and nothing is left of the pool (G17,
G17b, G19). The calls of whole dials fail too: TLS, proxies and sockets.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, cast

import pytest
import trio

import conpool
from conpool.testing import Failure
from tests.support.pools import find_pool_tasks

from .connectors import AwkwardConnector, BareConnector, PairConnector, encrypted
from .fails import (
    BOUND,
    ERRORS,
    Guest,
    assert_heard,
    endure,
    failure_heard,
    heard,
    is_explained,
    sweep,
)
from .world import World, config, exchange

GRACE, CLOSE_TIMEOUT = 1.0, 0.5
LONGEST = GRACE + 2 * (CLOSE_TIMEOUT + 1.0)
"""How long leaving the block may take, in seconds: a second is the pool's margin."""

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
                except BaseException as exc:
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
        _, exc = cast("BaseExceptionGroup[BaseException]", exc).split(ZeroDivisionError)
        assert exc is not None
    return exc


PLAIN = conpool.Endpoint("localhost", 5432)


@ERRORS
@pytest.mark.parametrize("end", ["leaves", "raises", "closes"])
@pytest.mark.parametrize(
    "make", [BareConnector, partial(BareConnector, lingers=True), PairConnector]
)
def test_f142_a_block_is_left_whatever_fails(
    make: Make, end: str, error: type[BaseException]
) -> None:
    sweep(partial(live, make, PLAIN, end), error)


@ERRORS
@pytest.mark.parametrize("mood", ["closes", "raises", "hangs", None])
def test_f142_a_block_is_left_amid_goodbyes_whatever_fails(
    mood: str | None,
    error: type[BaseException],
    server_ssl: ssl.SSLContext,
    client_ssl: ssl.SSLContext,
) -> None:
    serve = encrypted(server_ssl)
    make = partial(AwkwardConnector, mood, serve) if mood else partial(PairConnector, serve)
    endpoint = conpool.Endpoint("localhost", 5432, tls=conpool.TLS(client_ssl))
    sweep(partial(live, make, endpoint, "leaves"), error)
