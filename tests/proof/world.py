"""A pool in a world where everything is watched: its books, its sockets, its servers, its events.

Bystanders hold connections and wait for them, as other users of the pool would. Whatever the call
under test does or suffers, nobody may notice it by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from random import Random
from typing import Any, ClassVar, TypeAlias, final

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import conpool
from conpool.testing import MemoryConnector, assert_quiescent
from tests.support.invariants import ACTIVE, check
from tests.support.pools import Grammar, Steps, find_pool_tasks

from .connectors import BareConnector, serve_echo

HOME = conpool.Endpoint("db.example", 5432)
AWAY = conpool.Endpoint("cache.example", 6379)

HealthCheck: TypeAlias = Callable[[conpool.Connection[None]], Awaitable[bool]]


def mock_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def config(limit: int = 1, **options: Any) -> conpool.PoolConfig:
    """A pool of so many per endpoint, in which nothing happens by itself."""
    quiet = {"reap_interval": 1000.0, "max_idle_time": 9000.0, "max_connection_lifetime": 9000.0}
    return conpool.PoolConfig(max_connections_per_endpoint=limit, **(quiet | options))


async def exchange(conn: conpool.Connection[Any], text: bytes) -> None:
    """Send, and get the same back: an answer to anybody else would be seen (G3)."""
    if conn.session is None:
        await conn.send_all(text)
        reply = bytes(await conn.receive_some())
    else:
        reply = await conn.session.call(text)
    assert reply == text, f"{text!r} was answered by {reply!r}"


@final
class Held(Counter[int]):
    """How many have each connection."""

    def add(self, number: int) -> None:
        self[number] += 1

    def discard(self, number: int) -> None:
        self[number] -= 1
        if self[number] < 1:
            del self[number]


@final
class World:
    """One pool, and all that can be seen of it from outside."""

    is_heard: ClassVar = True
    """Whether observers hear of each lease. Where none does, the pool takes the straight line."""

    def __init__(
        self,
        settings: conpool.PoolConfig,
        *,
        connector: conpool.Connector | None = None,
        delay: float = 1.0,
        endpoint: conpool.Target = HOME,
        has_groups: bool = False,
        observers: Iterable[conpool.Observer] = (),
        room: int = 1,
        **options: Any,
    ) -> None:
        self.endpoint: Any = endpoint
        has_groups |= isinstance(endpoint, conpool.EndpointGroup)
        self.connector: Any = connector or MemoryConnector(serve_echo, delay=delay)
        self.grammar = Grammar(shares=room > 1, has_groups=has_groups)
        heard = [*observers, self.grammar] if self.is_heard else []
        options |= {"observers": heard, "name": "world"}
        if (hook := options.get("health_check")) is not None:
            options["health_check"] = partial(self._check, hook)
        self.pool = conpool.ConnectionPool(settings, connector=self.connector, **options)
        self.pool._core._random = Random(7)  # the same back-off in each run
        self.steps = _StepsDone(self.audit)
        self.log: list[tuple[str, float]] = []
        """Which bystander was served, and when."""
        self.limit = settings.max_connections_per_endpoint
        self.parked = 0
        self.room = room
        """How many may have the same connection."""
        self.held = Held()
        self.spoilt: set[int] = set()
        """Connections that must not be lent again."""
        self.nursery: trio.Nursery

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[World]:
        """Open the pool; at the end wait for the bystanders, and see whether all is as before."""
        async with self.pool:
            with self.watched():
                async with trio.open_nursery() as self.nursery:
                    yield self
                await self.come_to_rest()
                await self.prove_capacity()
        self.assert_nothing_left()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look after every step of any task, as long as the block is open."""
        trio.lowlevel.add_instrument(self.steps)
        try:
            yield
        except BaseException as exc:
            exc.add_note("\n".join(self.steps.faults[:1]) or "the books were in order")
            raise
        finally:
            trio.lowlevel.remove_instrument(self.steps)
        assert not self.steps.faults, self.steps.faults[0]

    def audit(self) -> None:
        """The books must be in order, and know of all sockets (S, G1, G2, G12, G13)."""
        check(self.pool._core, trio.current_time())
        subs = self.pool._core.subs.values()
        least = sum(len(sub.idle) + sub.active for sub in subs)
        most = least + sum(sub.connecting + sub.closing for sub in subs)
        found = self.connector.live
        assert least <= found <= most, f"{found} sockets are open, and not {least} to {most}"

    async def _check(self, hook: HealthCheck, conn: conpool.Connection[None]) -> bool:
        """Ask a hook; a connection on which it was cut short must not be lent (G3)."""
        try:
            return await hook(conn)
        except BaseException:
            if conn._lease.entry.link.exchange.taints:
                self.spoilt.add(conn.id)
            raise

    # ── bystanders ──────────────────────────────────────────────────────────────

    async def hold(
        self,
        name: str,
        seconds: float = 1.0,
        *,
        endpoint: conpool.Target | None = None,
        **options: Any,
    ) -> None:
        """Be a bystander who uses one connection for so long."""
        block = self.pool.connection(endpoint or self.endpoint, **options)
        self.parked += 1
        try:
            conn = await block.__aenter__()
        finally:
            self.parked -= 1
        self.log.append((name, trio.current_time()))
        assert self.held[conn.id] < self.room, f"{name} got what others have (G2)"
        assert conn.id not in self.spoilt, f"{name} got what must not be reused (G4)"
        self.held.add(conn.id)
        try:
            await exchange(conn, name.encode())
            await trio.sleep(seconds)
            await exchange(conn, name.encode() * 2)
        except BaseException as exc:
            self.held.discard(conn.id)
            await block.__aexit__(type(exc), exc, exc.__traceback__)  # noqa: ASYNC102 - no wait
            raise
        self.held.discard(conn.id)
        await block.__aexit__(None, None, None)

    async def start(self, name: str, seconds: float = 1.0, **options: Any) -> None:
        """Have a bystander come, and go on when it has got, or waits for, a connection."""
        self.nursery.start_soon(lambda: self.hold(name, seconds, **options), name=name)
        await wait_all_tasks_blocked()

    async def lay_idle(self, count: int = 1, endpoint: conpool.AnyEndpoint | None = None) -> None:
        """Have so many idle connections that were used before."""
        async with AsyncExitStack() as stack:
            for _ in range(count):
                conn = await stack.enter_async_context(
                    self.pool.connection(endpoint or self.endpoint)
                )
                await exchange(conn, b"before")

    # ── what must hold ──────────────────────────────────────────────────────────

    def assert_as_if_never_called(self) -> None:
        """Active and waiting is who the bystanders are, and nobody else (G10).

        A check goes on when its caller has gone, and a reset when its lease is over.
        """
        stats = self.pool.all_stats()
        ours = self.held.total() + self.parked
        subs = self.pool._core.subs.values()
        busy = sum(sub.checking + sub.resetting + len(sub.reserved) for sub in subs)
        taken = stats.active - busy
        if self.room > 1:  # many have one
            taken = sum(e.holders for sub in subs for e in sub.limit.borrowers if e.state is ACTIVE)
        assert taken + stats.waiting == ours, f"{ours} bystanders, but {self.pool}"

    async def come_to_rest(self) -> None:
        """Everybody is done: nothing is outstanding, and the servers say the same."""
        await trio.sleep(20)  # dials that nobody waits for any more, and delays after failures
        assert_quiescent(self.pool)
        kept = {entry.id for sub in self.pool._core.subs.values() for entry in sub.idle}
        assert not kept & self.spoilt, "what must not be lent again is kept (G4)"
        idle = self.pool.all_stats().idle
        assert self.connector.live == idle, f"{self.connector} beside {self.pool}"
        if not isinstance(self.connector, BareConnector):
            assert count_servers() == idle, f"{count_servers()} servers beside {self.pool}"

    async def prove_capacity(self) -> None:
        """Every slot can be had, and all at once."""
        total = self.pool._core.pool_limit.limit.total
        leases = []
        for _ in range(min(self.limit, total)):
            leases.append(await self.pool.acquire(self.endpoint, timeout=60))
            assert leases[-1].id not in self.spoilt, "what must not be reused was kept (G4)"
            await exchange(leases[-1], b"after")
        for lease in leases:
            self.pool.release(lease)

    def assert_nothing_left(self) -> None:
        """The block is over: no socket, no task, and no event without its end (G19, G26)."""
        assert self.connector.live == 0, self.connector
        assert not find_pool_tasks()
        self.grammar.assert_complete()
        assert not self.grammar._open


class _StepsDone(Steps):
    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """What the scheduler did meanwhile shows after the step."""


def count_servers() -> int:
    """How many connections the servers have, as they count."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    system = {task for nursery in root.child_nurseries for task in nursery.child_tasks}
    within = {t for task in system for n in task.child_nurseries for t in n.child_tasks}
    return sum(task.name.startswith("memory server") for task in system | within)
