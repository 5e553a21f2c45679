"""Pools for tests: servers in memory, a watch over every step, and the grammar of events (G26).

`open_pool` opens a pool that is watched: after every step of any task its books must balance (G1,
G30), and when it ends all events must have paired and nothing may be left of it (G19).
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any, Final

import trio

from conpool import (
    AnyEndpoint,
    CircuitState,
    CloseReason,
    Connection,
    ConnectionInfo,
    ConnectionPool,
    Connector,
    Endpoint,
    Observer,
    PoolConfig,
)
from conpool._connection.session import SessionRules
from conpool.testing import MemoryConnector

from . import invariants

HERE: Final = Endpoint("here.example", 5432)
THERE: Final = Endpoint("there.example", 5432)

Serve = Callable[[trio.abc.Stream], Awaitable[object]]


# ── servers ─────────────────────────────────────────────────────────────────────


async def echo(stream: trio.abc.Stream) -> None:
    """Answer all that comes with itself."""
    async for data in stream:
        await stream.send_all(data)


async def listen(stream: trio.abc.Stream) -> None:
    """Read, and never answer."""
    async for _ in stream:
        pass


def answer_after(seconds: float) -> Serve:
    """Echo, but only `seconds` later."""

    async def serve(stream: trio.abc.Stream) -> None:
        async for data in stream:
            await trio.sleep(seconds)
            await stream.send_all(data)

    return serve


async def exchange(connection: trio.abc.Stream, data: bytes = b"ping") -> bytes:
    """Send `data` and receive as much."""
    await connection.send_all(data)
    answer = b""
    while len(answer) < len(data):
        part = await connection.receive_some()
        assert part, "the server has gone"
        answer += part
    return answer


class Network(MemoryConnector):
    """Servers in memory that can be told to fail or hang, and a record of who was dialled when."""

    def __init__(self, serve: Serve = echo, *, delay: float = 0.0) -> None:
        super().__init__(serve)
        self.delay = delay
        self.dials: list[tuple[float, AnyEndpoint]] = []
        self.failures: dict[AnyEndpoint, BaseException] = {}
        self.silent: set[AnyEndpoint] = set()
        self.dialling = 0
        self.most = 0
        """The most connections there ever were at a time, those that were being opened included."""

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        self.dials.append((trio.current_time(), endpoint))
        self.dialling += 1
        self.most = max(self.most, self.dialling + self.live)
        try:
            await trio.sleep(self.delay)
            if endpoint in self.silent:
                await trio.sleep_forever()
            if endpoint in self.failures:
                raise self.failures[endpoint]
            return await super().connect(endpoint)
        finally:
            self.dialling -= 1

    def serve_with(self, serve: Serve) -> None:
        """Have another server from now on."""
        self._serve = serve

    def refuse(self, endpoint: AnyEndpoint = HERE) -> OSError:
        """Have nobody listen at `endpoint` any more."""
        error = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        self.failures[endpoint] = error
        return error

    def accept(self, endpoint: AnyEndpoint = HERE) -> None:
        """Have somebody listen again."""
        self.failures.pop(endpoint, None)
        self.silent.discard(endpoint)


class Narrow(Network):
    """Lets nothing through until somebody at the `other` end takes it."""

    other: trio.abc.Stream

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        client, self.other = trio.testing.lockstep_stream_pair()
        return client


# ── pools ───────────────────────────────────────────────────────────────────────

_CONFIG_FIELDS = {field.name for field in fields(PoolConfig)}


def make_pool(connector: Connector, **options: Any) -> ConnectionPool[None]:
    """Make a pool; what is a field of the configuration goes there. No jitter unless asked for."""
    settings: dict[str, Any] = {"lifetime_jitter": 0.0}
    settings |= {name: options.pop(name) for name in list(options) if name in _CONFIG_FIELDS}
    return ConnectionPool(PoolConfig(**settings), connector=connector, **options)


@asynccontextmanager
async def open_pool(
    connector: Connector | None = None,
    *,
    observers: Iterable[Observer] = (),
    every_step: bool = True,
    has_groups: bool = False,
    is_plain: bool = False,
    **options: Any,
) -> AsyncIterator[ConnectionPool[None]]:
    """Open a pool over `connector` and watch it, until and beyond its end.

    One that `is_plain` has nobody who hears of its leases, so it may lend on the straight line.
    """
    connector = Network() if connector is None else connector
    others = find_pool_tasks()
    grammar = Grammar(shares=SessionRules(options.get("driver")).shares, has_groups=has_groups)
    watchers = [*observers] if is_plain else [grammar, *observers]
    pool = make_pool(connector, observers=watchers, **options)
    steps = Steps(lambda: invariants.check(pool._core, trio.current_time()))
    if every_step:
        trio.lowlevel.add_instrument(steps)
    try:
        async with pool:
            yield pool
    finally:
        if every_step:
            trio.lowlevel.remove_instrument(steps)
        assert not steps.faults, steps.faults
        grammar.assert_complete()
        assert_nothing_left(pool, connector)
        assert not find_pool_tasks() - others


def assert_nothing_left(pool: ConnectionPool[Any], connector: Connector) -> None:
    """A pool that has ended has no connection and no waiter (G19)."""
    stats = pool.all_stats()
    counts = (stats.active, stats.idle, stats.connecting, stats.closing, stats.waiting)
    assert counts == (0, 0, 0, 0, 0), pool
    assert stats.total_created == stats.total_closed, stats
    if isinstance(connector, MemoryConnector):
        assert connector.live == 0, connector
    if isinstance(connector, Network):
        assert connector.dialling == 0, connector


def find_pool_tasks() -> Counter[str]:
    """Count the background tasks of pools, by name."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return Counter(task.name for task in _walk(root) if task.name.startswith("conpool "))


def _walk(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _walk(child)


async def settle() -> None:
    """Let everything happen that can happen now, without passing time."""
    await trio.testing.wait_all_tasks_blocked()


def counts(pool: ConnectionPool[Any], endpoint: AnyEndpoint = HERE) -> dict[str, int]:
    """Return those of the five counts that are not zero."""
    stats = pool.stats(endpoint)
    names = ("active", "idle", "connecting", "closing", "waiting")
    return {name: getattr(stats, name) for name in names if getattr(stats, name)}


def reasons(pool: ConnectionPool[Any], endpoint: AnyEndpoint = HERE) -> dict[str, int]:
    """Return how many connections were closed, by the name of the reason."""
    return {reason.name: count for reason, count in pool.stats(endpoint).closed_by_reason.items()}


async def hold(
    pool: ConnectionPool[None],
    endpoint: AnyEndpoint = HERE,
    seconds: float = 1.0,
    *,
    task_status: trio.TaskStatus[Connection[None]] = trio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """Have a connection for a while."""
    async with pool.connection(endpoint, **options) as connection:
        task_status.started(connection)
        await trio.sleep(seconds)


async def use(pool: ConnectionPool[Any], count: int = 1, endpoint: AnyEndpoint = HERE) -> list[int]:
    """Have so many connections at once; return their numbers. The last is released last."""
    leases = [await pool.acquire(endpoint) for _ in range(count)]
    for lease in leases:
        pool.release(lease)
    return [lease.id for lease in leases]


# ── the watch ───────────────────────────────────────────────────────────────────


class Steps(trio.abc.Instrument):
    """Checks something before and after every step of every task."""

    def __init__(self, check: Callable[[], object]) -> None:
        self._check = check
        self.count = 0
        self.faults: list[str] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._look(f"before a step of {task.name}")

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._look(f"after a step of {task.name}")

    def _look(self, when: str) -> None:
        self.count += 1
        try:
            self._check()
        except AssertionError as wrong:  # what an instrument raises, trio only logs
            self.faults.append(f"{when}: {wrong}")


class Grammar(Observer):
    """Checks that events come in pairs and in order (G26)."""

    def __init__(self, *, shares: bool = False, has_groups: bool = False) -> None:
        self._shares = shares
        self._has_groups = has_groups
        """Whether another member may end an acquire than the one where it began."""
        self.faults: list[str] = []
        self.events: list[str] = []
        """All that was seen, in short."""
        self.circuits: dict[AnyEndpoint, CircuitState] = {}
        self._last_id = 0
        self._connecting: set[int] = set()
        self._open: set[int] = set()
        self._lent: Counter[int] = Counter()
        self._asking: Counter[AnyEndpoint | None] = Counter()

    def acquire_started(self, endpoint: AnyEndpoint) -> None:
        self.events.append("acquire_started")
        self._asking[None if self._has_groups else endpoint] += 1

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        is_free = self._shares or not self._lent[info.id]
        self._see("acquired", info, info.id in self._open and is_free)
        self._answer(info.endpoint)
        self._lent[info.id] += 1

    def acquire_failed(self, endpoint: AnyEndpoint, error: BaseException, waited: float) -> None:
        self.events.append("acquire_failed")
        self._answer(endpoint)

    def released(self, info: ConnectionInfo, held: float) -> None:
        self._see("released", info, self._lent[info.id] > 0 and held >= 0)
        self._lent[info.id] -= 1

    def connecting(self, info: ConnectionInfo) -> None:
        self._see("connecting", info, info.id > self._last_id)
        self._last_id = info.id
        self._connecting.add(info.id)

    def connected(self, info: ConnectionInfo, took: float) -> None:
        self._see("connected", info, info.id in self._connecting)
        self._connecting.discard(info.id)
        self._open.add(info.id)

    def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
        self._see("connect_failed", info, info.id in self._connecting)
        self._connecting.discard(info.id)

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        self._see(f"closed:{reason.name}", info, info.id in self._open)
        self._open.discard(info.id)

    def circuit_changed(self, endpoint: AnyEndpoint, old: CircuitState, new: CircuitState) -> None:
        self.events.append(f"circuit:{new.name}")
        if self.circuits.get(endpoint, CircuitState.CLOSED) is not old or old is new:
            self.faults.append(f"the circuit of {endpoint} went from {old} to {new}")
        self.circuits[endpoint] = new

    def assert_complete(self) -> None:
        """Nothing is left that must have had an end."""
        assert not self.faults, self.faults
        pending = (self._connecting, self._open, +self._lent, +self._asking)
        assert not any(pending), pending

    def _answer(self, endpoint: AnyEndpoint) -> None:
        key = None if self._has_groups else endpoint
        self._asking[key] -= 1
        if self._asking[key] < 0:
            self.faults.append(f"an acquire of {endpoint} ended twice")

    def _see(self, event: str, info: ConnectionInfo, is_expected: bool) -> None:
        self.events.append(f"{event} {info.id}")
        if not is_expected:
            self.faults.append(f"{event} of connection {info.id} after {self.events[:-1]}")


def alike(one: BaseException | None, other: BaseException) -> bool:
    """Whether one exception says the same as the other, of which it may be a copy."""
    return type(one) is type(other) and str(one) == str(other)
