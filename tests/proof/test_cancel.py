"""An acquire that is cancelled, wherever it is, leaves the pool as if it had not been made.

Cold, warm and queued; with a look at the connection, and with a question to its peer; over TLS. The
bystanders fare as in a world without the call. Covers G10 and G15.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import trio

import conpool
from conpool.testing import MemoryConnector

from .cases import (
    Case,
    Way,
    acquire,
    enter_block,
    nothing,
    one_comes_later,
    one_holds,
    one_idle,
    sweep_acquire,
)
from .connectors import PairConnector, encrypted, serve_echo
from .world import AWAY, World, config, exchange

Others: TypeAlias = Callable[[World], Awaitable[object]]

WAYS = pytest.mark.parametrize("way", [enter_block, acquire])


async def one_holds_and_one_waits(world: World) -> None:
    await world.start("holder", 2)
    await world.start("earlier")


async def one_holds_elsewhere(world: World) -> None:
    await world.start("holder", 2, endpoint=AWAY)


async def another_waits_elsewhere(world: World) -> None:
    await trio.sleep(0.25)
    await world.start("later", endpoint=AWAY)


PLAIN = {
    "cold": Case(),
    "cold, by a dial that takes no time": Case(make_connector=lambda: MemoryConnector(serve_echo)),
    "cold, with another behind": Case(beside=one_comes_later, fate="no later"),
    "cold, with another behind and room for both": Case(
        config(2), beside=one_comes_later, fate="no later"
    ),
    "cold, where one is kept warm": Case(config(2, min_idle_per_endpoint=1)),
    "warm": Case(before=one_idle),
    "warm, with another behind": Case(before=one_idle, beside=one_comes_later, fate="no later"),
    "warm, but wanting a new one": Case(before=one_idle, options={"fresh": True}),
    "queued": Case(before=one_holds),
    "queued, with others before and behind": Case(
        before=one_holds_and_one_waits, beside=one_comes_later
    ),
    "queued for a new one, with another behind": Case(
        before=one_holds, beside=one_comes_later, options={"fresh": True}, fate="in order"
    ),
    "queued for a slot of the pool, with another elsewhere": Case(
        config(1, max_connections=1),
        before=one_holds_elsewhere,
        beside=another_waits_elsewhere,
        fate="in order",
    ),
}


async def circuit_may_be_tried(world: World) -> None:
    """The circuit has been open for long enough: the next dial is a trial."""
    world.pool.report_failure(world.endpoint)
    await trio.sleep(5)


async def one_comes_after_the_trial(world: World) -> None:
    await trio.sleep(2)
    await world.start("after")


async def trial_is_given_up_and_one_comes(world: World) -> None:
    await trio.sleep(0.25)
    world.pool.clear(world.endpoint)
    await one_comes_after_the_trial(world)


BREAKER = conpool.CircuitBreaker(failure_threshold=1, reset_timeout=5)
TRIALS = {
    "cold": Case(
        config(2, circuit_breaker=BREAKER),
        before=circuit_may_be_tried,
        beside=one_comes_after_the_trial,
        fate="no later",
    ),
    "given up": Case(
        config(2, circuit_breaker=BREAKER),
        before=circuit_may_be_tried,
        beside=trial_is_given_up_and_one_comes,
        fate="no later",
    ),
}


@pytest.mark.parametrize("name", TRIALS)
@WAYS
def test_g28_a_trial_that_is_cancelled_leaves_the_circuit_ready_for_the_next(
    name: str, way: Way
) -> None:
    sweep_acquire(TRIALS[name], way)


@pytest.mark.parametrize("name", PLAIN)
@WAYS
def test_an_acquire_that_is_cancelled_was_never_made(name: str, way: Way) -> None:
    sweep_acquire(PLAIN[name], way)


# ── with a look ─────────────────────────────────────────────────────────────────


async def two_idle_and_closed(world: World) -> None:
    await world.lay_idle(2)
    world.connector.close_peer(0)
    world.connector.close_peer(1)


async def two_idle_and_one_spoke(world: World) -> None:
    await world.lay_idle(2)
    world.connector.speak(1, b"an answer to nobody")


async def one_idle_and_paused(world: World) -> None:
    await world.lay_idle(1)
    world.pool.pause(world.endpoint)


async def it_closes_and_all_goes_on(world: World) -> None:
    await trio.sleep(0.25)
    await world.start("later")
    await trio.sleep(0.25)
    world.connector.close_peer(0)
    world.pool.resume(world.endpoint)


LOOKS = {
    "all alive": Case(before=one_idle, make_connector=PairConnector),
    "all closed by the peer": Case(
        config(2), before=two_idle_and_closed, make_connector=PairConnector
    ),
    "all closed by the peer, with another behind": Case(
        config(2),
        before=two_idle_and_closed,
        beside=one_comes_later,
        make_connector=PairConnector,
        fate="no later",
    ),
    "one has something unread": Case(
        config(2), before=two_idle_and_one_spoke, make_connector=PairConnector
    ),
    "the one handed over is dead": Case(
        before=one_idle_and_paused,
        beside=it_closes_and_all_goes_on,
        make_connector=PairConnector,
        fate="no later",
    ),
}


@pytest.mark.parametrize("name", LOOKS)
@WAYS
def test_an_acquire_that_looks_and_is_cancelled_was_never_made(name: str, way: Way) -> None:
    sweep_acquire(LOOKS[name], way)


# ── with a question to the peer ─────────────────────────────────────────────────


async def says_yes(conn: conpool.Connection[None]) -> bool:
    await exchange(conn, b"ping")
    return True


async def says_no(conn: conpool.Connection[None]) -> bool:
    await exchange(conn, b"ping")
    return False


async def raises(conn: conpool.Connection[None]) -> bool:
    await exchange(conn, b"ping")
    raise OSError("no pong")


async def hangs(conn: conpool.Connection[None]) -> bool:
    return bool(await conn.receive_some())


async def does_not_read(conn: conpool.Connection[None]) -> bool:
    await conn.send_all(b"ping")
    return True


async def closes(conn: conpool.Connection[None]) -> bool:
    await conn.aclose()
    return True


HOOKS = (says_yes, says_no, raises, hangs, does_not_read, closes)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("beside", [nothing, one_comes_later])
@WAYS
def test_an_acquire_that_asks_the_peer_and_is_cancelled_was_never_made(
    hook: object, beside: Others, way: Way
) -> None:
    case = Case(
        config(1, health_check_timeout=0.5),
        before=one_idle,
        beside=beside,
        pool={"health_check": hook},
        fate="in order",
    )
    sweep_acquire(case, way)


# ── over TLS ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("before", [nothing, one_idle, one_holds])
@WAYS
def test_an_acquire_over_tls_that_is_cancelled_was_never_made(
    before: Others, way: Way, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    case = Case(
        before=before,
        beside=one_comes_later,
        make_connector=lambda: PairConnector(encrypted(server_ssl)),
        endpoint=conpool.Endpoint("localhost", 5432, tls=conpool.TLS(client_ssl)),
        fate="in order",
    )
    sweep_acquire(case, way)
