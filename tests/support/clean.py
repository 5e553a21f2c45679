"""What must be so after every fault, whatever it was: CLEAN.

A test runs its fault in a `case`. When its block ends, and again when the pool has closed:

1. nothing is lent, dialled, closing or awaited, and all counts add up (S);
2. every slot is back: those still charged are those of the idle connections;
3. the pool's open sockets are its idle connections, and after the pool none;
4. every event had its counterpart, and no connection two leases at once (G2, G26);
5. at no step of any task were there more connections than the limit, or unbalanced books (G1);
6. no task of the pool is left that does not belong to it for life, and after the pool none (G19);
7. the next acquire of something healthy takes one dial at the most, which succeeds.

What is written to stderr, and files left open, `conftest` looks after.
"""

from __future__ import annotations

import select
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, final

import trio

import conpool
from conpool import AnyEndpoint, CloseReason, ConnectionInfo, PoolConfig
from conpool._connection.link import Link
from conpool._connection.pooled import PooledEntry, PooledSub
from conpool._dial.tcp import TCPConnector
from conpool.testing import assert_quiescent

from .invariants import check

PATIENCE = 10.0
"""Seconds after which a test gives up on what should have happened at once."""


@final
class Logbook(conpool.Observer):
    """All that a pool tells, and what is wrong with it."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.reasons: list[CloseReason] = []
        """Why connections were closed, one after the other."""
        self.connect_errors: list[BaseException] = []
        self.dialled = 0
        """Dials that were begun."""
        self._asking = 0
        self._highest = 0
        self._dialling: set[int] = set()
        self._open: set[int] = set()
        self._lent: set[int] = set()
        self._news = trio.Event()

    def acquire_started(self, endpoint: AnyEndpoint) -> None:
        self._asking += 1

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        self._asking -= 1
        self._expect(info.id in self._open, f"{info} was lent and is not open")
        self._expect(info.id not in self._lent, f"{info} was lent twice")
        self._lent.add(info.id)

    def acquire_failed(self, endpoint: AnyEndpoint, error: BaseException, waited: float) -> None:
        self._asking -= 1

    def released(self, info: ConnectionInfo, held: float) -> None:
        self._expect(info.id in self._lent, f"{info} was released and not lent")
        self._lent.discard(info.id)

    def connecting(self, info: ConnectionInfo) -> None:
        self._expect(info.id > self._highest, f"{info} comes after {self._highest}")
        self._highest = info.id
        self.dialled += 1
        self._dialling.add(info.id)

    def connected(self, info: ConnectionInfo, took: float) -> None:
        self._end_dial(info)
        self._open.add(info.id)
        self._tell()

    def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
        self._end_dial(info)
        self.connect_errors.append(error)
        self._tell()

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        self._expect(info.id in self._open, f"{info} was closed and not open")
        self._open.discard(info.id)
        self.reasons.append(reason)
        self._tell()

    def _end_dial(self, info: ConnectionInfo) -> None:
        self._expect(info.id in self._dialling, f"a dial of {info} ended that had not begun")
        self._dialling.discard(info.id)

    def _expect(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for `holds`, asked whenever a dial has ended or a connection was closed."""
        with trio.fail_after(PATIENCE):
            while not holds():
                await self._news.wait()

    async def wait_closed(self, *reasons: CloseReason) -> None:
        """Wait until that many connections were closed: for these reasons, and no others."""
        await self.wait_until(lambda: len(self.reasons) >= len(reasons))
        assert self.reasons == list(reasons)

    def find_unpaired(self) -> Iterator[str]:
        yield from self.faults
        if self._asking:
            yield f"{self._asking} acquires began and did not end"
        if self._dialling:
            yield f"dials of {self._dialling} began and did not end"
        if self._lent:
            yield f"{self._lent} are lent"


@final
class Recorder(conpool.Connector):
    """Passes dials on, and remembers the sockets that came of them."""

    def __init__(self, connector: conpool.Connector) -> None:
        self._connector = connector
        self.sockets: list[trio.socket.SocketType] = []

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        stream = await self._connector.connect(endpoint)
        inner = stream
        while isinstance(inner, trio.SSLStream):
            inner = inner.transport_stream
        if isinstance(inner, trio.SocketStream):
            self.sockets.append(inner.socket)
        return stream

    @property
    def open(self) -> int:
        """How many of them are open."""
        return sum(sock.fileno() >= 0 for sock in self.sockets)


@final
class StepCheck(trio.abc.Instrument):
    """Looks at the books after every `pace`-th step of any task. Keeps faults: trio drops them."""

    def __init__(self, case: Case, pace: int) -> None:
        self.faults: list[str] = []
        self._case = case
        self._pace = pace
        self._steps = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps += 1
        if self.faults or self._steps % self._pace:
            return
        core = self._case.pool._core
        for sub in core.subs.values():
            self._check(sub, task)
        if len(core.pool_limit.limit.borrowers) > core.pool_limit.limit.total:
            self.faults.append(f"{core.pool_limit!r} is overdrawn after a step of {task.name}")

    def _check(self, sub: PooledSub, task: trio.lowlevel.Task) -> None:
        charged = len(sub.limit.borrowers)
        if charged != len(sub.idle) + sub.active + sub.connecting + sub.closing:
            self.faults.append(f"{sub!r} does not balance after a step of {task.name}")
        if charged > sub.limit.total and not sub.resized:
            self.faults.append(f"{sub!r} is overdrawn after a step of {task.name}")


@final
class Case:
    """One pool that something happens to, and what was seen of it."""

    def __init__(self, config: PoolConfig, then: AnyEndpoint | None, **options: Any) -> None:
        self.then = then
        """What is healthy at the end of the block; None for nothing."""
        self.for_life: Counter[str] = Counter()
        """The tasks that the pool has when nothing happens."""
        self.log = Logbook()
        self.recorder = Recorder(options.pop("connector", None) or TCPConnector())
        self.pool: conpool.ConnectionPool[None] = conpool.ConnectionPool(
            config,
            observers=[self.log, *options.pop("observers", ())],
            connector=self.recorder,
            **options,
        )

    def entries(self) -> list[PooledEntry]:
        """All connections in the books."""
        subs = self.pool._core.subs.values()
        return [entry for sub in subs for entry in sub.limit.borrowers]

    def idle_links(self, endpoint: AnyEndpoint | None = None) -> list[Link]:
        """The open ends of the idle connections (to `endpoint`), the oldest first."""
        subs = self.pool._core.subs.values()
        return [
            entry.link for sub in subs if endpoint in {None, sub.endpoint} for entry in sub.idle
        ]

    def await_stir(self, count: int = 1, endpoint: AnyEndpoint | None = None) -> None:
        """Block until something has arrived on `count` idle connections (to `endpoint`).

        Blocks the loop too, so that the pool's own watch sees nothing and an acquire comes first.
        """
        links = self.idle_links(endpoint)
        assert len(links) >= count, links
        for link in links[-count:]:
            poll = select.poll()
            poll.register(link.fileno(), select.POLLIN)
            assert poll.poll(PATIENCE * 1000), f"nothing has arrived on {link!r}"

    async def settle(self) -> None:
        """Wait until no dial and no close is under way."""
        await self.log.wait_until(lambda: not self._is_busy())

    def _is_busy(self) -> bool:
        stats = self.pool.all_stats()
        return bool(stats.connecting or stats.closing)

    async def finish(self) -> None:
        """The conditions that hold at the end of the block."""
        await self.settle()
        self._assert_clean()
        if self.then is not None and not self.pool.closed:
            await self._acquire_once(self.then)
            await self.settle()
            self._assert_clean()

    def _assert_clean(self) -> None:
        assert_quiescent(self.pool)
        core = self.pool._core
        check(core)
        idle = {entry for sub in core.subs.values() for entry in sub.idle}
        assert set(self.entries()) == idle, "a slot has not come back"
        if core.pool_limit.is_limited:
            assert set(core.pool_limit.limit.borrowers) == idle, (
                "a slot of the pool has not come back"
            )
        assert self.recorder.open <= len(idle), "a socket has outlived its connection"
        watch = self.pool._engine.watch
        watched = {*watch._by_descriptor.values(), *watch._descriptors}
        assert watched <= idle, "a connection that is gone is still watched"
        assert not list(self.log.find_unpaired())
        assert not find_tasks() - self.for_life, "a task of the pool was left over"

    async def _acquire_once(self, endpoint: AnyEndpoint) -> None:
        dialled, failed = self.log.dialled, len(self.log.connect_errors)
        with trio.fail_after(PATIENCE):
            # Longer than the pool's own time-out: after failures a dial waits its turn.
            async with self.pool.connection(endpoint, timeout=PATIENCE):
                assert self.log.dialled - dialled <= 1
        assert len(self.log.connect_errors) == failed


def find_tasks() -> Counter[str]:
    """The background tasks of all pools."""
    found: Counter[str] = Counter()
    root = trio.lowlevel.current_root_task()
    assert root is not None
    pending = [root]
    while pending:
        task = pending.pop()
        if task.name.startswith("conpool"):
            found[task.name] += 1
        pending += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


@asynccontextmanager
async def clean(
    then: AnyEndpoint | None, config: PoolConfig | None = None, *, pace: int = 1, **options: Any
) -> AsyncIterator[Case]:
    """A pool in which one fault happens; at the end of the block all that is above must hold.

    `then` is what can be connected to when the block ends; where that is only known later, set
    `Case.then`. The books are looked at after every `pace`-th step. What the block itself raises
    comes out, unchecked.
    """
    case = Case(config or PoolConfig(), then, **options)
    steps = StepCheck(case, pace)
    outside = find_tasks()
    trio.lowlevel.add_instrument(steps)
    try:
        async with case.pool:
            case.for_life = find_tasks()
            yield case
            await case.finish()
    finally:
        trio.lowlevel.remove_instrument(steps)
    assert not steps.faults
    assert case.recorder.open == 0
    assert not list(case.log.find_unpaired())
    assert not case.log._open, "connections were opened and never closed"
    assert not find_tasks() - outside, "a task of the pool has outlived it"
