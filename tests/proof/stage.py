"""A stage on which several things happen at the same moment, in every order in which they can.

A few actors do their part at the moment `T`, and all orders of all that follows from it are tried,
to the last. After every step the books must balance, and nobody may wait for what is free (G12).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import conpool
from conpool.testing import explore_schedules, fixed_order
from tests.support.pools import find_pool_tasks

from .connectors import BareConnector
from .totals import tried
from .world import World

T = 10.0
LIMIT = 20_000
"""More schedules than any of these scenarios has; one that reaches it has not been explored."""


def explore(scenario: Callable[[], Awaitable[object]]) -> None:
    schedules = explore_schedules(scenario, limit=LIMIT)
    tried["schedules"] += schedules
    assert 1 < schedules < LIMIT


class Stage:
    """A world in which a few things happen at `T`, and before and after in a fixed order."""

    def __init__(self, settings: conpool.PoolConfig, **options: Any) -> None:
        lingers = options.pop("lingers", False)
        self.connector = BareConnector(lingers=lingers, delay=options.pop("delay", 0.0))
        self.world = World(settings, connector=self.connector, **options)
        self.pool = self.world.pool
        self.scopes: dict[str, trio.CancelScope] = {}
        self.told: dict[str, Exception] = {}
        """What came of those who were not served."""
        self._order = ExitStack()
        self._is_over = False
        self._end_at = T + 0.5

    @asynccontextmanager
    async def set(self, *, closes: bool = False) -> AsyncIterator[Stage]:
        """Prepare in the block; at its end comes `T`."""
        with self._order:
            self._order.enter_context(fixed_order())
            async with self._open_until_closed() if closes else self.world.opened():
                yield self
                await trio.sleep_until(T - 0.5)
                self._order.close()
                await trio.sleep_until(self._end_at)
                self._order.enter_context(fixed_order())

    @asynccontextmanager
    async def _open_until_closed(self) -> AsyncIterator[None]:
        """Open the pool; that it is closed is an actor's part."""
        async with self.pool:
            with self.world.watched():
                trio.lowlevel.add_instrument(_Curtain(self._end_of_play))
                async with trio.open_nursery() as self.world.nursery:
                    yield
            assert self.pool.closed
            assert self.connector.live == 0
            assert not find_pool_tasks()
        self.world.assert_nothing_left()

    def _end_of_play(self) -> None:
        """In which order the pool's own tasks end, once all is decided, shows nothing new."""
        if not self._is_over and self.pool._lifecycle._host.cancel_called:
            self._is_over = True
            self._order.enter_context(fixed_order())

    # ── actors ──────────────────────────────────────────────────────────────────

    def at(self, act: Callable[[], object], moment: float = T) -> None:
        """Have something done at `T`."""

        async def actor() -> None:
            await trio.sleep_until(moment)
            act()

        self.world.nursery.start_soon(actor, name=getattr(act, "__name__", "actor"))

    def comes(self, name: str, moment: float = T, **options: Any) -> None:
        """Have somebody come at `T`, take a connection and give it back."""

        async def come() -> None:
            await trio.sleep_until(moment)
            await self.take(name, **options)

        self.world.nursery.start_soon(come, name=name)

    async def waits(self, name: str, **options: Any) -> None:
        """Have somebody come now, who waits until `T`."""
        self.world.nursery.start_soon(lambda: self.take(name, **options), name=name)
        await wait_all_tasks_blocked()

    def cancel(self, name: str) -> None:
        """Have somebody cancelled at `T`."""
        self.at(self.scopes[name].cancel)

    def cancel_at(self, name: str) -> None:
        """Have somebody cancelled at `T` who only comes then."""
        self.scopes[name] = trio.CancelScope()
        self.cancel(name)

    def closes(self, moment: float = T) -> None:
        """Have the pool closed; once that is done, nothing is left."""

        async def close() -> None:
            await trio.sleep_until(moment)
            await self.pool.aclose()
            assert self.connector.live == 0

        self.world.nursery.start_soon(close, name="close")

    def warms(self, name: str, count: int) -> None:
        async def warm() -> None:
            with trio.CancelScope() as self.scopes[name]:
                await self.pool.warm(self.world.endpoint, count)

        self.world.nursery.start_soon(warm, name=name)

    def extend(self, seconds: float) -> None:
        """Explore for so long."""
        self._end_at = T + seconds

    async def lend(self, endpoint: conpool.Target | None = None) -> conpool.Connection[None]:
        """Have a connection lent, to be given back by an actor."""
        conn = await self.pool.acquire(endpoint or self.world.endpoint)
        self.world.held.add(conn.id)
        return conn

    def releases(self, conn: conpool.Connection[None], how: str = "release") -> None:
        self.releases_at(conn, T, how)

    def releases_at(
        self, conn: conpool.Connection[None], moment: float, how: str = "release"
    ) -> None:
        def release() -> None:
            self.world.held.discard(conn.id)
            getattr(self.pool, how)(conn)

        self.at(release, moment)

    async def take(self, name: str, **options: Any) -> None:
        """Take a connection, and give it back a step later."""
        world = self.world
        endpoint = options.pop("endpoint", world.endpoint)
        scope = self.scopes.setdefault(name, trio.CancelScope())
        with scope, self._telling(name):
            async with self.pool.connection(endpoint, **options) as conn:
                world.log.append((name, trio.current_time()))
                assert world.held[conn.id] < world.room, f"{name} got what others have (G2)"
                assert conn.id not in world.spoilt, f"{name} got what must not be lent"
                world.held.add(conn.id)
                try:
                    await trio.lowlevel.checkpoint()
                finally:
                    world.held.discard(conn.id)

    @contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        try:
            yield
        except (
            conpool.AcquireTimeout,
            conpool.CircuitOpen,
            conpool.ConnectError,
            conpool.PoolClosed,
        ) as error:
            self.told[name] = error
        except trio.ClosedResourceError as error:
            assert self.pool.closed
            self.told[name] = error

    # ── what must hold ──────────────────────────────────────────────────────────

    def assert_served(self, *names: str, perhaps: tuple[str, ...] = ()) -> None:
        """These were served, in this order; and nobody else but those who may have been."""
        served = [name for name, _ in self.world.log if name not in perhaps]
        assert served == list(names), self.world.log

    def assert_all_served(self, *names: str, perhaps: tuple[str, ...] = ()) -> None:
        """Where there is room for several, who comes first can be seen by the books alone."""
        served = {name for name, _ in self.world.log} - set(perhaps)
        assert served == set(names), self.world.log

    def assert_all_told(self, *names: str) -> None:
        """Each was served, or heard that the pool is closed."""
        served = {name for name, _ in self.world.log}
        told = {n for n, error in self.told.items() if isinstance(error, conpool.PoolClosed)}
        assert set(names) <= served | told, (served, self.told)

    def assert_before(self, name: str, *others: str) -> None:
        served = [name for name, _ in self.world.log]
        for other in others:
            assert served.index(name) < served.index(other), self.world.log


class _Curtain(trio.abc.Instrument):
    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._look()


KINDS_OF_END = pytest.mark.parametrize(
    ("how", "lingers"), [("release", False), ("discard", False), ("discard", True)]
)
