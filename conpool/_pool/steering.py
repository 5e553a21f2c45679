"""What the pool is told about its endpoints: warm, clear, drain, pause, resize."""

from __future__ import annotations

import math
from itertools import chain
from operator import attrgetter
from typing import cast, final

import trio
from trio.lowlevel import current_task

from conpool._connection.pooled import PooledEntry, PooledSub, PooledWarmer
from conpool._core.chores import PIECE
from conpool._core.records import Warmer
from conpool._engine.engine import Engine
from conpool._engine.holders import count_holders
from conpool._errors.connect import ConnectError
from conpool._errors.copies import copy_for_caller
from conpool._errors.pool import PoolClosed
from conpool._lending.acquire import Acquirer
from conpool._lending.refusal import make_circuit_open
from conpool._lending.release import Releaser
from conpool._lending.waiting import park_warmer
from conpool._values.config_error import ConfigError
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import Target, members_of, valid_endpoint
from conpool._values.states import CloseReason, ConnectionState
from conpool._values.validation import valid_count, valid_seconds


@final
class Steering:
    """Gives the core its orders. `ConnectionPool` says what each of them means."""

    def __init__(self, engine: Engine, acquirer: Acquirer, releaser: Releaser, name: str) -> None:
        self._engine = engine
        self._core = engine.core
        self._orders = engine.core.orders
        self._acquirer = acquirer
        self._releaser = releaser
        self._name = name

    async def warm(self, endpoint: AnyEndpoint, count: int) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        (sub,) = self._find_all(valid_endpoint(endpoint))
        valid_count("count", count, minimum=0)
        limits = ((sub.limit, str(endpoint)), (self._core.pool_limit.limit, "the pool"))
        for limit, whose in limits:
            if count > limit.total:
                raise ConfigError(f"count {count} is more than the limit of {whose}: {limit.total}")
        if count > sub.max_idle:
            raise ConfigError(f"count {count} is more than max_idle_per_endpoint: {sub.max_idle}")
        self._refuse_to_warm_beside_oneself(sub, count)
        warmer: PooledWarmer = Warmer(sub, count)
        try:
            self._engine.report(self._orders.warming_asked, warmer)
            now = self._engine.now()
            if warmer.queued and not sub.connecting and sub.gate.is_cut_off(now):
                raise make_circuit_open(sub, now)
            if warmer.queued:
                await park_warmer(warmer, self._engine)
            else:
                await trio.lowlevel.checkpoint()
        finally:
            if warmer.queued:
                self._engine.report(self._orders.warming_ended, warmer)
        if warmer.error is not None:
            raise copy_for_caller(cast("ConnectError", warmer.error))
        if not self._core.is_open:
            raise PoolClosed(f"pool {self._name} was closed while {endpoint} was warmed")

    def close_idle(self, target: Target | None) -> int:
        return sum(
            self._engine.report(self._orders.idle_closed, sub, CloseReason.CLEARED)
            for sub in self._covered(target)
        )

    def clear(self, target: Target | None, *, interrupt_in_use: bool) -> None:
        for sub in self._covered(target):
            self._engine.news.add(self._engine.news.cleared, sub.endpoint)
            self._engine.report(self._orders.cleared, sub, interrupt_in_use)

    async def drain(self, target: Target | None, over: float) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if valid_seconds("over", over) == math.inf:
            raise ConfigError("over must be a finite number of seconds: the drain would never end")
        covered = self._covered(target)
        self._refuse_to_wait_for_oneself(covered)
        if over:
            await self._wait_until_closed(self._retire(covered, over))
        else:
            await self._clear_and_wait(target, covered)
        await trio.lowlevel.checkpoint()

    def _retire(self, covered: list[PooledSub], over: float) -> list[PooledEntry]:
        """Have every connection of `covered` retired in the next `over` seconds; return them."""
        entries: list[PooledEntry] = []
        for number, sub in enumerate(covered, 1):
            share = number / len(covered)
            entries += self._engine.report(self._orders.retiring.begin, sub, over, share)
        return entries

    async def _wait_until_closed(self, entries: list[PooledEntry]) -> None:
        for number, entry in enumerate(entries, 1):
            while entry.state is not ConnectionState.CLOSED:
                await self._engine.some_closed.park()
            if number % PIECE == 0:
                await trio.lowlevel.checkpoint()

    async def _clear_and_wait(self, target: Target | None, covered: list[PooledSub]) -> None:
        generations = [(sub, sub.generation) for sub in covered]
        self.clear(target, interrupt_in_use=False)
        for sub, generation in generations:
            while next(iter(sub.survivors), math.inf) <= generation:
                await self._engine.some_closed.park()

    def _refuse_to_wait_for_oneself(self, covered: list[PooledSub]) -> None:
        entries = chain.from_iterable(map(attrgetter("limit.borrowers"), covered))
        count = count_holders(entries)[current_task()]
        if count:
            raise RuntimeError(
                f"this task holds {count} of the connections that it would wait for: end the leases"
                " first, or call clear(), which does not wait"
            )

    def _refuse_to_warm_beside_oneself(self, sub: PooledSub, count: int) -> None:
        limit = self._core.pool_limit.limit  # it has no borrowers where there is none
        caller = current_task()
        held = count_holders(limit.borrowers)[caller]
        elsewhere = held and held - count_holders(sub.limit.borrowers)[caller]
        if elsewhere and count > limit.total - elsewhere:
            raise RuntimeError(
                f"this task holds {elsewhere} connections to other endpoints, so that the pool-wide"
                f" limit of {limit.total} leaves no room for {count} to {sub.endpoint}, and it"
                " would wait for itself: end the leases first"
            )

    def pause(self, target: Target | None) -> None:
        for sub in self._covered(None) if target is None else self._find_all(target):
            self._engine.report(self._orders.paused, sub)

    def resume(self, target: Target | None) -> None:
        for sub in self._covered(target):
            self._engine.report(self._orders.resumed, sub)

    def mark(self, target: Target, *, is_unhealthy: bool) -> None:
        for sub in self._find_all(target):
            if not is_unhealthy:
                self._engine.report(self._orders.success_reported, sub)
            self._engine.report(self._orders.marked, sub, is_unhealthy)

    def report_failure(self, endpoint: AnyEndpoint) -> None:
        self._releaser.refuse_other_thread()
        known = valid_endpoint(endpoint)
        if self._core.is_open:  # else nobody will dial it again
            sub = self._core.find_subpool(known, self._engine.now())
            self._engine.report(self._orders.failure_reported, sub)

    def report_success(self, endpoint: AnyEndpoint) -> None:
        for sub in self._covered(valid_endpoint(endpoint)):
            self._engine.report(self._orders.success_reported, sub)

    def set_limit(self, target: Target | None, total: int) -> None:
        valid_count("max_connections", total, minimum=1)
        if target is None:
            self._set_pool_limit(total)
            return
        for sub in self._find_all(target):
            self._engine.report(self._orders.limit_set, sub, total)

    def _set_pool_limit(self, total: int) -> None:
        self._acquirer.refuse_if_closed()
        if not self._core.pool_limit.is_limited:
            raise ConfigError(
                f"pool {self._name} has no limit that could be changed: make it with"
                " PoolConfig(max_connections=...)"
            )
        self._engine.report(self._orders.pool_limit_set, total)

    def _find_all(self, target: Target) -> list[PooledSub]:
        """Return the sub-pools of `target`; make those that do not exist."""
        self._acquirer.refuse_if_closed()
        now = self._engine.now()
        return [self._core.find_subpool(member, now) for member in members_of(target)]

    def _covered(self, target: Target | None) -> list[PooledSub]:
        self._releaser.refuse_other_thread()
        if target is None:
            return list(self._core.subs.values())
        subs = self._core.subs
        return [subs[member] for member in members_of(target) if member in subs]
