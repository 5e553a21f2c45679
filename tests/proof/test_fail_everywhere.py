"""Every call that the pool makes into something else fails, one after the other.

Whatever fails, and wherever: no slot is lost, nobody sleeps on, the books balance after every step,
the observers' pairs are complete, no socket stays open, and the pool's block can be left. An
`Exception` leaves the pool in working order. Another exception (KeyboardInterrupt) may end the
pool, and always comes out of something (G11, G17, G17b, G20).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from functools import partial

import pytest
import trio

import conpool

from .connectors import BareConnector, PairConnector
from .fails import Play, lease, sweep
from .world import AWAY, World, exchange


class Refusing(BareConnector):
    """Refuses the first dial."""

    refuses = True

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        try:
            return await super().connect(endpoint)
        finally:
            self.refuses = False


class Hanging(BareConnector):
    """Never ends the first dial."""

    hangs = True

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        if self.hangs:
            self.hangs = False
            await trio.sleep_forever()
        return await super().connect(endpoint)


class Moving(BareConnector):
    """Says that a name leads elsewhere."""

    async def addresses(self, endpoint: conpool.AnyEndpoint) -> frozenset[str]:
        return frozenset({"192.0.2.1"})


async def answers(conn: conpool.Connection[None]) -> bool:
    await exchange(conn, b"alive?")
    return True


async def is_silent(conn: conpool.Connection[None]) -> bool:
    return False


async def hangs(conn: conpool.Connection[None]) -> bool:
    await trio.sleep(60)
    return True


# ── calls ───────────────────────────────────────────────────────────────────────


async def lease_twice(world: World) -> None:
    await lease(world)
    await trio.sleep(1.5)
    await lease(world)


async def give_back_by_hand(world: World) -> None:
    conn = await world.pool.acquire(world.endpoint)
    try:
        await exchange(conn, b"the call")
        await trio.sleep(1)
    finally:
        await end_at_last(conn, lambda: world.pool.release(conn))  # noqa: ASYNC102


async def discard(world: World) -> None:
    conn = await world.pool.acquire(world.endpoint)
    try:
        await trio.sleep(1)
    finally:
        await end_at_last(conn, lambda: world.pool.discard(conn))  # noqa: ASYNC102


async def detach(world: World) -> None:
    conn = await world.pool.acquire(world.endpoint)
    try:
        await trio.sleep(1)
    finally:
        await end_at_last(conn, lambda: close(conn.detach()))  # noqa: ASYNC102


def close(stream: trio.abc.Stream) -> None:
    assert isinstance(stream, trio.SocketStream)
    stream.socket.close()


async def end_at_last(conn: conpool.Connection[None], end: Callable[[], object]) -> None:
    """If the very first call of an end fails, the lease goes on: that is up to its holder."""
    try:
        end()
    finally:
        await conn.aclose()


async def retire(world: World) -> None:
    async with world.pool.connection(world.endpoint) as conn:
        await exchange(conn, b"the call")
        conn.retire()


async def break_off(world: World) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with world.pool.connection(world.endpoint) as conn:
            await conn.send_all(b"the call")
            raise ZeroDivisionError


async def leave_unanswered(world: World) -> None:
    async with world.pool.connection(world.endpoint) as conn:
        await conn.send_all(b"the call")


async def acquire(world: World) -> None:
    world.lease = await world.pool.acquire(world.endpoint)  # type: ignore[attr-defined]


async def forget(world: World) -> None:
    await trio.sleep(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del world.lease  # type: ignore[attr-defined]
    await trio.sleep(3)


async def wait_in_vain(world: World) -> None:
    async with world.pool.connection(world.endpoint):
        with contextlib.suppress(conpool.AcquireTimeout):
            await world.pool.acquire(world.endpoint, timeout=1)


async def give_up_waiting(world: World) -> None:
    async with world.pool.connection(world.endpoint):
        with trio.move_on_after(1):
            await world.pool.acquire(world.endpoint)
    with trio.move_on_after(0):
        async with world.pool.connection(world.endpoint):
            pass


async def give_up_dialling(world: World) -> None:
    with trio.move_on_after(0.25):
        await world.pool.acquire(world.endpoint)
    await trio.sleep(2)


async def take_now(world: World) -> None:
    await lease(world)
    with contextlib.suppress(trio.WouldBlock):
        conn = world.pool.acquire_nowait(world.endpoint)
        await end_at_last(conn, lambda: world.pool.release(conn))


async def ask_for_a_fresh_one(world: World) -> None:
    await lease(world)
    async with world.pool.connection(world.endpoint, fresh=True):
        pass


async def warm(world: World) -> None:
    await world.pool.warm(world.endpoint, 2)
    await lease(world)


async def drain(world: World) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lease, world)
        await trio.sleep(1.5)
        nursery.start_soon(world.pool.drain)


async def clear(world: World) -> None:
    await lease(world)
    async with world.pool.connection(world.endpoint):
        world.pool.clear(interrupt_in_use=True)
    world.pool.clear()


async def steer(world: World) -> None:
    await lease(world)
    world.pool.pause(world.endpoint)
    try:
        await trio.sleep(1)
    finally:
        try:
            world.pool.resume(world.endpoint)
        except BaseException:
            world.pool.resume(world.endpoint)
            raise
    world.pool.set_limit(world.endpoint, 3)
    world.pool.close_idle()


async def rest(world: World) -> None:
    """Let the sweep find what it must."""
    await lease(world)
    await trio.sleep(5)


async def lose_the_peer(world: World) -> None:
    await lease(world)
    await trio.sleep(2)
    if world.connector._peers:
        world.connector.close_peer(0)
    await trio.sleep(1)
    await lease(world)


async def use_another(world: World) -> None:
    """The pool is full: the idle connection to one endpoint makes way for the other."""
    await lease(world)
    await trio.sleep(3)
    async with world.pool.connection(AWAY) as conn:
        await exchange(conn, b"the call")


PLAYS: dict[str, Play] = {
    "a lease": Play(lease),
    "another lease": Play(lease_twice),
    "another lease over sockets": Play(lease_twice, connect=PairConnector),
    "a release": Play(give_back_by_hand),
    "a discard": Play(discard),
    "a discard that must await": Play(discard, connect=partial(BareConnector, lingers=True)),
    "a detach": Play(detach, connect=PairConnector),
    "a retirement": Play(retire, connect=PairConnector),
    "a block that raises": Play(break_off, connect=PairConnector),
    "a block without an answer": Play(leave_unanswered),
    "a lease that is forgotten": Play(forget, before=acquire, is_heard=False, reap_interval=1.0),
    "a time-out": Play(wait_in_vain),
    "a cancelled wait": Play(give_up_waiting),
    "a cancelled dial": Play(give_up_dialling, connect=partial(BareConnector, delay=1.0)),
    "a dial that is refused": Play(lease, connect=Refusing),
    "a dial that hangs": Play(lease, connect=Hanging, connect_timeout=2.0),
    "a lease without waiting": Play(take_now),
    "a fresh connection": Play(ask_for_a_fresh_one),
    "a check": Play(lease_twice, pool={"health_check": answers}, health_check_after=1.0),
    "a check that says no": Play(
        lease_twice, pool={"health_check": is_silent}, health_check_after=1.0
    ),
    "a check that hangs": Play(
        lease_twice,
        connect=PairConnector,
        pool={"health_check": hangs},
        health_check_after=1.0,
        health_check_timeout=1.0,
    ),
    "a check in the background": Play(
        rest,
        pool={"health_check": answers},
        health_check_interval=1.0,
        reap_interval=1.0,
    ),
    "warming": Play(warm, limit=3),
    "draining": Play(drain, limit=2),
    "clearing": Play(clear, connect=PairConnector),
    "steering": Play(steer, limit=2),
    "a sweep": Play(rest, connect=PairConnector, reap_interval=1.0, max_idle_time=2.0),
    "a peer that goes": Play(lose_the_peer, connect=PairConnector),
    "a name that moves": Play(rest, connect=Moving, reap_interval=1.0),
    "an eviction": Play(use_another, limit=1, max_connections=1),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", PLAYS)
def test_f142_whatever_fails_loses_nothing(name: str) -> None:
    sweep(PLAYS[name], first=list(PLAYS).index(name))
