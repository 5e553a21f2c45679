"""A block that is cancelled, wherever it is cancelled, gives its slot back, and nothing else.

Leases that end in every way (kept, closed by force or with a goodbye, handed over), with streams
and callbacks that hang or raise. A connection that was cut short is never lent again, and nobody
reads what was meant for another. Covers G3, G4 and G11.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, get_args

import pytest
import trio

import conpool

from .cases import Case, nothing, one_comes_later, one_comes_soon, one_idle
from .connectors import AwkwardConnector, Mood, PairConnector, encrypted
from .sweeps import Scope, sweep
from .world import World, config, exchange

Lease: TypeAlias = conpool.Connection[None]
Body: TypeAlias = Callable[[World, Lease], Awaitable[object]]
Others: TypeAlias = Callable[[World], Awaitable[object]]


class BodyError(Exception):
    """What a block raises."""


async def play(case: Case, body: Body, scope: Scope) -> None:
    """Lend for `body`; whatever it suffers, the slot comes back at once, or soon."""
    world = case.make_world()
    lent: list[int] = []
    async with world.opened():
        await case.before(world)
        world.nursery.start_soon(case.beside, world)
        raised = False
        with scope:
            try:
                async with world.pool.connection(world.endpoint) as conn:
                    lent.append(conn.id)
                    await body(world, conn)
            except BodyError:
                raised = True
        if raised or scope.cancelled_caught:
            world.spoilt.update(lent)
        world.assert_as_if_never_called()


async def answered(world: World, conn: Lease) -> None:
    await exchange(conn, b"the call")


async def retired(world: World, conn: Lease) -> None:
    await exchange(conn, b"the call")
    conn.retire()
    world.spoilt.add(conn.id)


async def unanswered(world: World, conn: Lease) -> None:
    world.spoilt.add(conn.id)
    await conn.send_all(b"the call")


async def half_closed(world: World, conn: Lease) -> None:
    world.spoilt.add(conn.id)
    await conn.send_eof()


async def raising(world: World, conn: Lease) -> None:
    await exchange(conn, b"the call")
    raise BodyError


async def swallowing(world: World, conn: Lease) -> None:
    world.spoilt.add(conn.id)
    with trio.move_on_after(0.1):
        await exchange(conn, b"the call")


async def asking(world: World, conn: Lease) -> None:
    await exchange(conn, b"the call")
    assert await conn.is_healthy()


async def closing(world: World, conn: Lease) -> None:
    world.spoilt.add(conn.id)
    await exchange(conn, b"the call")
    await conn.aclose()


async def leaving_a_child(world: World, conn: Lease) -> None:
    """Another task still waits to receive when the lease ends."""
    world.spoilt.add(conn.id)

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await conn.receive_some()

    await exchange(conn, b"the call")
    world.nursery.start_soon(receive)
    await trio.sleep(0.1)


async def interrupted(world: World, conn: Lease) -> None:
    world.spoilt.add(conn.id)
    await exchange(conn, b"the call")
    world.pool.clear(interrupt_in_use=True)
    with pytest.raises(trio.ClosedResourceError):
        await exchange(conn, b"the call")


BODIES = (
    answered,
    retired,
    unanswered,
    half_closed,
    raising,
    swallowing,
    asking,
    closing,
    leaving_a_child,
    interrupted,
)


async def says_yes(conn: Lease) -> bool:
    await exchange(conn, b"ping")
    return True


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("beside", [nothing, one_comes_soon, one_comes_later])
@pytest.mark.parametrize("make_connector", [lambda: None, PairConnector])
def test_a_block_that_is_cancelled_gives_its_slot_back(
    body: Body, beside: Others, make_connector: Callable[[], conpool.Connector | None]
) -> None:
    case = Case(before=one_idle, beside=beside, make_connector=make_connector)
    if body is asking:
        case = replace(case, pool={"health_check": says_yes})
    assert sweep(partial(play, case, body)) > 2


# ── goodbyes, hooks ─────────────────────────────────────────────────────────────

MOODS = pytest.mark.parametrize("mood", get_args(Mood))


@MOODS
@pytest.mark.parametrize("body", [answered, retired, raising, unanswered])
def test_a_block_whose_connection_closes_badly_gives_its_slot_back(body: Body, mood: Mood) -> None:
    case = Case(beside=one_comes_later, make_connector=partial(AwkwardConnector, mood))
    sweep(partial(play, case, body))


@MOODS
@pytest.mark.parametrize("body", [answered, retired, raising])
def test_a_block_with_a_goodbye_gives_its_slot_back(
    body: Body, mood: Mood, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    case = Case(
        config(1, close_timeout=0.5),
        beside=one_comes_later,
        make_connector=lambda: AwkwardConnector(mood, encrypted(server_ssl)),
        endpoint=conpool.Endpoint("localhost", 5432, tls=conpool.TLS(client_ssl)),
    )
    sweep(partial(play, case, body))


def explode(*_: object) -> None:
    raise RuntimeError("a callback failed")


class Exploding(conpool.Observer):
    """Fails at everything that it is told."""


for _name in set(vars(conpool.Observer)) - set(vars(object)):
    if not _name.startswith("_"):
        setattr(Exploding, _name, explode)


@pytest.mark.parametrize("body", [answered, retired, raising])
def test_a_block_amid_callbacks_that_raise_gives_its_slot_back(body: Body) -> None:
    callbacks: dict[str, Any] = dict.fromkeys(("on_created", "on_reused", "on_closed"), explode)
    callbacks["observers"] = [Exploding()]
    case = Case(before=one_idle, beside=one_comes_later, pool=callbacks)
    sweep(partial(play, case, body))


# ── acquire, then release ───────────────────────────────────────────────────────


@pytest.mark.parametrize("end", ["release", "discard", "detach"])
@pytest.mark.parametrize("beside", [nothing, one_comes_soon, one_comes_later])
def test_a_lease_that_is_ended_in_a_cancelled_scope_gives_its_slot_back(
    end: str, beside: Others
) -> None:
    case = Case(before=one_idle, beside=beside)

    async def lend(world: World) -> None:
        conn = await world.pool.acquire(world.endpoint)
        try:
            await exchange(conn, b"the call")
        except BaseException:
            world.spoilt.add(conn.id)
            world.pool.discard(conn)
            raise
        if end == "detach":
            stream = conn.detach()
            assert isinstance(stream, trio.StapledStream)
            stream.send_stream.close()
            stream.receive_stream.close()
        else:
            getattr(world.pool, end)(conn)
            getattr(world.pool, end)(conn)  # twice is harmless
        await trio.lowlevel.checkpoint()

    async def play(scope: Scope) -> None:
        world = case.make_world()
        async with world.opened():
            await case.before(world)
            world.nursery.start_soon(case.beside, world)
            with suppress(conpool.AcquireTimeout), scope:
                await lend(world)
            world.assert_as_if_never_called()

    assert sweep(play) > 2
