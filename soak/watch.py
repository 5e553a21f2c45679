"""What is looked at while the traffic runs: the order of events, and the pools' books."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, final

import trio

import conpool
from conpool import AnyEndpoint, CloseReason, ConnectionInfo
from tests.support.invariants import check


@final
class Record(logging.Handler):
    """What has happened so far, and what must not have."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.leases = 0
        self.operations = 0
        self.errors: Counter[str] = Counter()
        """What callers met and had to expect, by its name."""
        self.faults: list[str] = []
        """What breaks a promise. The first ends the run."""
        self.pools: set[conpool.ConnectionPool[None]] = set()
        self.pools_opened = 0
        self.steps_checked = 0
        self.stop: Callable[[], object] = lambda: None

    def fail(self, fault: str) -> None:
        self.faults.append(fault)
        self.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """The pool logs errors only where somebody else's code went wrong; here nobody's may."""
        self.fail(f"logged: {self.format(record)}")

    @property
    def seen(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in self.errors.most_common()) or "none"


@final
class Grammar(conpool.Observer):
    """Events come in pairs and in order (G26); no connection has two leases at once (G2)."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._recent: deque[str] = deque(maxlen=60)
        self._asking: Counter[AnyEndpoint] = Counter()
        self._dialling: set[int] = set()
        self._open: set[int] = set()
        self._lent: set[int] = set()
        self.logged_in: set[int] = set()
        """Connections on which a login has succeeded."""

    def acquire_started(self, endpoint: AnyEndpoint) -> None:
        self._asking[endpoint] += 1

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        self._see("acquired", info, info.id in self._open and info.id not in self._lent)
        self._answer(info.endpoint)
        self._lent.add(info.id)
        self._record.leases += 1

    def acquire_failed(self, endpoint: AnyEndpoint, error: BaseException, waited: float) -> None:
        self._answer(endpoint)

    def released(self, info: ConnectionInfo, held: float) -> None:
        self._see("released", info, info.id in self._lent)
        self._lent.discard(info.id)

    def connecting(self, info: ConnectionInfo) -> None:
        self._see("connecting", info, info.id not in self._dialling | self._open)
        self._dialling.add(info.id)

    def connected(self, info: ConnectionInfo, took: float) -> None:
        self._see("connected", info, info.id in self._dialling)
        self._dialling.discard(info.id)
        self._open.add(info.id)

    def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
        self._see("connect_failed", info, info.id in self._dialling)
        self._dialling.discard(info.id)

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        self._see(f"closed ({reason.name})", info, info.id in self._open)
        self._open.discard(info.id)
        self.logged_in.discard(info.id)

    def find_unfinished(self) -> str:
        """Name what has begun and not ended; empty if all has."""
        left = {
            "acquires": sum(self._asking.values()),
            "dials": len(self._dialling),
            "connections": len(self._open),
            "leases": len(self._lent),
        }
        return ", ".join(f"{count} {name}" for name, count in left.items() if count)

    def _answer(self, endpoint: AnyEndpoint) -> None:
        self._asking[endpoint] -= 1
        if self._asking[endpoint] < 0:
            self._record.fail(f"an acquire of {endpoint} ended twice")
        if not self._asking[endpoint]:
            del self._asking[endpoint]

    def _see(self, event: str, info: ConnectionInfo, is_expected: bool) -> None:
        if not is_expected:
            self._record.fail(f"{event} {info.id} after {list(self._recent)}")
        self._recent.append(f"{event} {info.id}")


@final
class EveryStep(trio.abc.Instrument):
    """Balances the books of every pool after each step of any task (G1, G12, G13, G30)."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._record.steps_checked += 1
        for pool in self._record.pools:
            self._check(pool, task)

    def _check(self, pool: conpool.ConnectionPool[Any], task: trio.lowlevel.Task) -> None:
        try:
            check(pool._core, trio.current_time())
        except AssertionError as wrong:  # what an instrument raises, trio only logs
            self._record.fail(f"after a step of {task.name}: {wrong}")


async def sample_steps(record: Record) -> None:
    """For a moment now and then, check after every step; always would leave no time to run."""
    while True:
        await trio.sleep(1.0)
        instrument = EveryStep(record)
        trio.lowlevel.add_instrument(instrument)
        try:
            await trio.sleep(0.1)
        finally:
            trio.lowlevel.remove_instrument(instrument)
