"""Whatever a driver is doing when somebody is cancelled or the pool closes, nothing is lost.

A script has a driver open, check, reset, cancel, close and run beside its sessions. At each point
of it, in the script's own task and in those of the pool, the caller is cancelled, or the pool is
closed, or its connections are. After each: the books balance, slots and sockets are back, tasks are
gone, events are paired, and no two methods of a driver have run on one session at the same time.
Covers G3, G4, G10, G11, G19 and G26.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeAlias

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import conpool
from conpool.testing import MemoryConnector, assert_quiescent, cancel_everywhere
from tests.support.clean import PATIENCE
from tests.support.drivers import GREETING, MuxDriver, Session, Whole, greet_and_echo
from tests.support.faults import LOOPBACK
from tests.support.pools import find_pool_tasks

from .connectors import PairConnector
from .sweeps import Play, Scope, sweep
from .totals import tried
from .world import World, config, exchange, mock_clock

Act: TypeAlias = Callable[[World], Awaitable[object]]


async def greet_and_echo_slowly(stream: trio.abc.Stream) -> None:
    await trio.sleep(0.125)
    await stream.send_all(GREETING)
    async for data in stream:
        await trio.sleep(0.125)
        await stream.send_all(data)


def in_memory() -> conpool.Connector:
    return MemoryConnector(greet_and_echo_slowly, delay=0.25)


def over_sockets() -> conpool.Connector:
    return PairConnector(greet_and_echo_slowly, delay=0.25)


class LoneWhole(Whole):
    """Has no companion."""

    run = conpool.Driver[Session].run


INTERRUPTED = (
    conpool.PoolClosed,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    EOFError,
)
"""What befalls those who are interrupted."""


# ── what happens ────────────────────────────────────────────────────────────────


async def use(world: World, patience: float = math.inf) -> None:
    """One lease with one call, which may be cut short."""
    async with borrow(world) as conn:
        with trio.move_on_after(patience):
            await exchange(conn, b"the call")


@asynccontextmanager
async def borrow(world: World) -> AsyncIterator[conpool.Connection[Any]]:
    """Lend, and have the world know of it."""
    async with AsyncExitStack() as stack:
        world.parked += 1
        try:
            block = world.pool.connection(world.endpoint, timeout=60)
            conn = await stack.enter_async_context(block)
        finally:
            world.parked -= 1
        session, number = conn.session, conn.id
        world.held.add(number)
        try:
            yield conn
        finally:
            world.held.discard(number)
            if session.owes:
                world.spoilt.add(number)


async def use_quietly(world: World) -> None:
    """The same for somebody else, who may be interrupted."""
    with suppress(*INTERRUPTED):
        await use(world)


async def opened(world: World) -> None:
    """`open`, and `reset` after it."""
    await use(world)
    await trio.sleep(0.25)


async def checked(world: World) -> None:
    """`check`, and `reset` after it, while another waits."""
    await use(world)
    await trio.sleep(1.0)
    world.nursery.start_soon(use_quietly, world)
    await use(world)
    await trio.sleep(0.25)


async def cut_short(world: World) -> None:
    """`cancel`, and `open` for one who waits for its slot."""
    await use(world, 0.0625)
    await use(world)


async def said_goodbye(world: World) -> None:
    """`close`, and `open` for one who waits for its slot."""
    await use(world)
    await trio.sleep(1.0)
    world.pool.close_idle()
    await use(world)


async def broken_off(world: World) -> None:
    """`run` ends by itself beside a lease."""
    async with borrow(world) as conn:
        world.spoilt.add(conn.id)
        conn.session.hung_up.set()
        await trio.sleep(0.5)
    await use(world)


SCRIPTS: tuple[Act, ...] = (opened, checked, cut_short, said_goodbye, broken_off)


EXPECTED: dict[Act, set[str]] = {
    opened: {"open", "reset"},
    checked: {"open", "check", "reset"},
    cut_short: {"open", "cancel", "reset"},
    said_goodbye: {"open", "close", "reset"},
    broken_off: {"open"},
}
"""What of the driver has run when a script has come to its end."""

LIVES = pytest.mark.parametrize(
    ("make_connector", "make_driver", "script"),
    [
        *((connect, Whole, script) for connect in (in_memory, over_sockets) for script in SCRIPTS),
        (in_memory, LoneWhole, cut_short),
    ],
)


async def come_later(world: World) -> None:
    await trio.sleep(0.3125)
    await world.start("later", 0.125)


def make_world(
    make_connector: Callable[[], conpool.Connector], driver: Any, **options: Any
) -> World:
    return World(
        config(1, close_timeout=0.5, health_check_timeout=0.5),
        connector=make_connector(),
        driver=driver,
        **options,
    )


def assert_over(driver: Whole | MuxDriver) -> None:
    """No method of the driver runs any more, and none has met another."""
    if isinstance(driver, MuxDriver):
        assert all(session.ended for session in driver.sessions)
        return
    assert not driver.faults, driver.faults[0]
    assert not driver._busy
    assert not driver.companions


# ── the caller is cancelled ─────────────────────────────────────────────────────


@LIVES
def test_a_caller_that_is_cancelled_amid_the_driver_has_never_called(
    make_connector: Callable[[], conpool.Connector],
    make_driver: Callable[[], Whole],
    script: Act,
) -> None:
    async def play(scope: Scope) -> None:
        driver = make_driver()
        world = make_world(make_connector, driver)
        async with world.opened():
            world.nursery.start_soon(come_later, world)
            with suppress(trio.BrokenResourceError), scope:
                await script(world)
                assert EXPECTED[script] <= {*driver.log}
            world.assert_as_if_never_called()
        assert_over(driver)

    assert sweep(play) > 20


# ── the pool is closed, or its connections are ──────────────────────────────────


async def close_pool(world: World) -> None:
    await world.pool.aclose()
    assert world.connector.live == 0


async def clear(world: World) -> None:
    world.pool.clear(interrupt_in_use=True)


async def sweep_up(world: World) -> None:
    world.pool.close_idle()
    await world.pool._lifecycle._reaper.sweep()


async def play_amid(
    make_connector: Callable[[], conpool.Connector],
    driver: Whole | MuxDriver,
    script: Act,
    act: Act,
    scope: Scope,
) -> None:
    """Have `act` done at the point at which `scope` is cancelled, while `script` goes on."""
    room = driver.room if isinstance(driver, MuxDriver) else 1
    world = make_world(make_connector, driver, room=room)

    async def follow() -> None:
        with suppress(*INTERRUPTED):
            await script(world)
        done.set()

    done = trio.Event()
    async with world.pool:
        with world.watched():
            async with trio.open_nursery() as world.nursery:
                world.nursery.start_soon(follow)
                with scope:
                    await done.wait()
                await act(world)
            if not world.pool.closed:
                await world.come_to_rest()
                await world.prove_capacity()
    world.assert_nothing_left()
    assert_over(driver)


@LIVES
@pytest.mark.parametrize("act", [close_pool, clear, sweep_up])
def test_whatever_is_closed_amid_the_driver_leaves_nothing(
    make_connector: Callable[[], conpool.Connector],
    make_driver: Callable[[], Whole],
    script: Act,
    act: Act,
) -> None:
    interrupt(lambda scope: play_amid(make_connector, make_driver(), script, act, scope))


def interrupt(play: Play) -> None:
    points = cancel_everywhere(play, clock=mock_clock)
    tried["points of interruption"] += points
    assert points > 20


# ── connections that are shared ─────────────────────────────────────────────────


@pytest.mark.parametrize("make_connector", [in_memory, over_sockets])
@pytest.mark.parametrize("room", [1, 2])
def test_a_caller_that_shares_and_is_cancelled_has_never_called(
    make_connector: Callable[[], conpool.Connector], room: int
) -> None:
    async def play(scope: Scope) -> None:
        driver = MuxDriver(room)
        world = make_world(make_connector, driver, room=room)
        async with world.opened():
            await world.start("before", 0.5)
            world.nursery.start_soon(come_later, world)
            with scope:
                await world.hold("the call", 0.25)
            world.assert_as_if_never_called()
        assert {name for name, _ in world.log} >= {"before", "later"}
        assert_over(driver)

    assert sweep(play) > 20


async def shared(world: World) -> None:
    """Three who share the room for two."""
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(use_shared, world)


async def use_shared(world: World) -> None:
    with suppress(*INTERRUPTED):
        async with world.pool.connection(world.endpoint, timeout=60) as conn:
            await exchange(conn, b"the call")
            await trio.sleep(0.125)
            await exchange(conn, b"once more")


async def go_away(world: World) -> None:
    """All connections take no new leases."""
    for sub in world.pool._core.subs.values():
        for entry in sub.limit.borrowers:
            if hasattr(entry, "link"):
                entry.link.session.room = 0


async def halve(world: World) -> None:
    """All connections take one lease, where they took two."""
    for sub in world.pool._core.subs.values():
        for entry in sub.limit.borrowers:
            if hasattr(entry, "link"):
                entry.link.session.room = 1


@pytest.mark.parametrize("make_connector", [in_memory, over_sockets])
@pytest.mark.parametrize("act", [close_pool, clear, sweep_up, go_away, halve])
def test_whatever_is_closed_amid_leases_that_share_leaves_nothing(
    make_connector: Callable[[], conpool.Connector], act: Act
) -> None:
    interrupt(lambda scope: play_amid(make_connector, MuxDriver(2), shared, act, scope))


# ── over TCP, on the real clock ─────────────────────────────────────────────────


async def serve(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):  # the client is gone
        await greet_and_echo(stream)


def is_busy(pool: conpool.ConnectionPool[Any]) -> bool:
    """Whether a dial, a reset, a cancel or a goodbye is under way."""
    stats = pool.all_stats()
    return stats.connecting + stats.active + stats.closing > 0


async def live(scope: Scope) -> None:
    """A pool of TCP connections: open, call, reset, check, cancel, close, and a companion."""
    (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    endpoint = conpool.Endpoint(LOOPBACK, listener.socket.getsockname()[1])
    driver = Whole()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        settings = config(1, close_timeout=0.01)
        async with conpool.ConnectionPool(settings, driver=driver) as pool:
            with scope:
                for _ in range(2):
                    async with pool.connection(endpoint) as conn:
                        await exchange(conn, b"the call")
                async with pool.connection(endpoint) as conn:
                    with trio.move_on_after(0):
                        await exchange(conn, b"cut short")
                async with pool.connection(endpoint) as conn:
                    await exchange(conn, b"the call")
            with trio.fail_after(PATIENCE):
                while is_busy(pool):
                    await wait_all_tasks_blocked()
            assert_quiescent(pool)
            async with pool.connection(endpoint, timeout=PATIENCE) as conn:
                await exchange(conn, b"after")
        assert not pool.all_stats().idle
        nursery.cancel_scope.cancel()
    assert not find_pool_tasks()
    assert_over(driver)


def test_a_driver_over_tcp_that_is_cancelled_leaves_nothing() -> None:
    points = cancel_everywhere(live)
    tried["points of cancellation"] += points
    assert points > 20
