"""What must hold of a pool between any two steps of any tasks, and of the events that it tells.

An `Audit` looks after every step of the run. It finds fault with the books (S, G1, G2, G12, G13: see
`invariants`), and with sockets that the books do not know. What it finds it keeps: trio would drop
an instrument that raises, and go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import trio

import conpool
from conpool._core import Core
from tests.support.invariants import check


@final
class Audit(trio.abc.Instrument):
    """The first fault of one pool, found as it arises."""

    def __init__(self, pool: conpool.ConnectionPool[Any], count_open: Callable[[], int]) -> None:
        self.fault = ""
        self._core: Core = pool._core
        self._count_open = count_open

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.fault:
            return
        try:
            check(self._core, trio.current_time())
            self._check_sockets()
        except AssertionError as wrong:
            self.fault = f"after a step of {task.name}: {wrong}"

    def assert_faultless(self) -> None:
        assert not self.fault, self.fault

    def _check_sockets(self) -> None:
        subs = self._core.subs.values()
        least = sum(len(sub.idle) + sub.active for sub in subs)
        most = least + sum(sub.connecting + sub.closing for sub in subs)
        found = self._count_open()
        assert least <= found <= most, f"{found} sockets are open, and not {least} to {most}"


class Grammar(conpool.Observer):
    """Each beginning has one end (G26), and a connection has one lease at a time (G2)."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._asking = 0
        self._dialling: set[int] = set()
        self._open: set[int] = set()
        self._lent: set[int] = set()
        self._newest = 0

    def assert_complete(self) -> None:
        """Once the pool is closed, everything that began has ended."""
        assert not self.faults, self.faults
        open_ended = self._asking, self._dialling, self._open, self._lent
        assert not any(open_ended), open_ended

    def acquire_started(self, endpoint: conpool.AnyEndpoint) -> None:
        self._asking += 1

    def acquire_failed(
        self, endpoint: conpool.AnyEndpoint, error: BaseException, waited: float
    ) -> None:
        self._asking -= 1

    def acquired(self, info: conpool.ConnectionInfo, waited: float) -> None:
        self._asking -= 1
        self._enter(info, self._lent, "lent while it was lent")
        self._require(info, self._open, "lent, but not open")

    def released(self, info: conpool.ConnectionInfo, held: float) -> None:
        self._leave(info, self._lent, "released twice")

    def connecting(self, info: conpool.ConnectionInfo) -> None:
        if info.id <= self._newest:
            self.faults.append(f"{info} came after {self._newest}")
        self._newest = info.id
        self._enter(info, self._dialling, "dialled twice")

    def connected(self, info: conpool.ConnectionInfo, took: float) -> None:
        self._leave(info, self._dialling, "connected without a dial")
        self._enter(info, self._open, "connected twice")

    def connect_failed(
        self, info: conpool.ConnectionInfo, error: BaseException, took: float
    ) -> None:
        self._leave(info, self._dialling, "failed without a dial")

    def closed(self, info: conpool.ConnectionInfo, reason: conpool.CloseReason) -> None:
        self._leave(info, self._open, "closed, but not open")

    def _enter(self, info: conpool.ConnectionInfo, group: set[int], fault: str) -> None:
        if info.id in group:
            self.faults.append(f"{info}: {fault}")
        group.add(info.id)

    def _leave(self, info: conpool.ConnectionInfo, group: set[int], fault: str) -> None:
        self._require(info, group, fault)
        group.discard(info.id)

    def _require(self, info: conpool.ConnectionInfo, group: set[int], fault: str) -> None:
        if info.id not in group:
            self.faults.append(f"{info}: {fault}")
