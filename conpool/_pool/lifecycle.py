"""How a pool begins and ends: OPEN → DRAINING → CLOSED, and nothing outlives its block.

The block's own nursery holds one child, the host of all background tasks. It is shielded: a
cancellation of the block must not take the timer and the dials away from cleanup code that still
uses the pool. The block's exception never passes through that nursery, so it comes out as it was.

Closing:

1. The pool serves nobody any more: it refuses waiters, closes idle connections and gives up dials.
2. Leases have `shutdown_grace` seconds to end, unless the block ended badly. Those of the task that
   closes have none, since it cannot end them while it waits here.
3. The pool closes the connections that are still lent, under their leases.
4. The last goodbyes are said, then the host ends. This part is shielded, and nothing in it takes
   longer than `close_timeout`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import chain
from operator import attrgetter
from threading import get_ident
from typing import Final, final

import trio
from trio.lowlevel import Task, cancel_shielded_checkpoint, current_task

from conpool._connection.pooled import PooledEntry
from conpool._engine.diagnosis import note_opened, warn_of_cut_off
from conpool._engine.engine import Engine
from conpool._engine.insist import insist
from conpool._extend.connector import Connector
from conpool._lending.release import Releaser
from conpool._pool.follow import Follower
from conpool._pool.reap import Reaper
from conpool._values.config import PoolConfig
from conpool._values.states import CloseReason, ConnectionState, PoolState

_BATCH: Final = 100
"""Connections or endpoints between two checkpoints: about a millisecond's worth."""

_MARGIN: Final = 1.0
"""Seconds that the last closes may take beyond `close_timeout`, before the pool goes without."""


@final
class Lifecycle:
    """Opens and ends one pool."""

    def __init__(
        self, engine: Engine, releaser: Releaser, connector: Connector, config: PoolConfig
    ) -> None:
        self._engine = engine
        self._core = engine.core
        self._reaper = Reaper(engine, releaser, config.reap_interval)
        self._follower = Follower(engine, connector, config.reap_interval)
        self._grace = config.shutdown_grace
        self._nursery_manager: AbstractAsyncContextManager[trio.Nursery]
        self._nursery: trio.Nursery
        self._host: trio.CancelScope
        self._over = trio.Event()
        self._longest_close = 0.0
        """The longest `close_timeout` of any endpoint, as far as `_interrupt` has come."""

    async def open(self) -> None:
        """Start the background and lend from now on.

        Raises:
            RuntimeError: The pool was opened, or closed, before.
            OSError: This machine has no file left for the pool's watch.
        """
        self._refuse_to_open_again()
        await trio.lowlevel.checkpoint_if_cancelled()
        note_opened(self._engine.log)
        _open_pools.add(self)
        self._nursery_manager = trio.open_nursery()
        self._nursery = await self._nursery_manager.__aenter__()
        self._core.move(PoolState.OPEN)
        jobs = (*self._reaper.jobs, self._follower.follow)
        try:
            with trio.CancelScope(shield=True):  # two ticks, and no half-open pool
                self._host = await self._nursery.start(self._engine.run, *jobs)
        except BaseException:  # no descriptor is left for the watch
            self._core.move(PoolState.CLOSED)
            await self._leave_nursery(None)  # noqa: ASYNC102 - nobody is in it
            raise

    def _refuse_to_open_again(self) -> None:
        try:
            current_task()
        except RecursionError:
            raise
        except RuntimeError:
            raise RuntimeError(
                "conpool works with trio only, and no trio task is running here: use trio.run()"
                " (under asyncio or in a plain function there is none)"
            ) from None
        state = self._core.state
        if state is not PoolState.NEW:
            raise RuntimeError(
                f"pool {self._engine.log.pool} is {state.value} and cannot be opened: a pool can be"
                " opened once. Open it with `async with` where the program starts, and use it in"
                " any task inside that block; after its end, make another pool"
            )

    async def leave(self, exc: BaseException | None, refuse: Callable[[], object]) -> None:
        """End the pool at the end of its block; `exc` is what the block raised.

        `refuse` raises in another thread than the pool's.
        """
        try:
            refuse()
        except BaseException:
            if self._engine.thread == get_ident():  # it has failed, and has not refused
                await self._leave(exc)  # noqa: ASYNC102 - cancelled, it ends at once
            raise
        await self._leave(exc)

    async def _leave(self, exc: BaseException | None) -> None:
        try:
            await self._close(0.0 if exc is not None else self._grace)
        finally:
            await self._leave_nursery(exc)  # noqa: ASYNC102 - nothing is left to wait for

    async def _leave_nursery(self, exc: BaseException | None) -> None:
        has_died = False
        try:
            has_died = self._nursery.cancel_scope.cancel_called
        finally:
            if exc is not None and has_died:
                # A background task died of a KeyboardInterrupt or the like, and trio cancelled the
                # block: `exc` is that cancellation, and the nursery raises what was behind it.
                await self._nursery_manager.__aexit__(type(exc), exc, exc.__traceback__)  # noqa: ASYNC102
            else:
                await self._nursery_manager.__aexit__(None, None, None)  # noqa: ASYNC102

    async def close(self) -> None:
        """End the pool before its block ends, or wait for the task that is ending it.

        Raises:
            RuntimeError: This is a task of the pool's own, and would wait for itself.
        """
        if self._core.state is PoolState.NEW:
            self._core.move(PoolState.CLOSED)
        elif self._core.state is not PoolState.CLOSED and self._is_background(current_task()):
            raise RuntimeError("a pool cannot be closed by its own connector or background check")
        if self._core.state is PoolState.OPEN:
            await self._close(self._grace)
        elif self._core.state is PoolState.DRAINING:
            await self._interrupt(current_task())
            await self._over.wait()
        else:
            await trio.lowlevel.checkpoint()

    def _is_background(self, task: Task) -> bool:
        return self._engine.background.hosts(task)

    async def _close(self, grace: float) -> None:
        # Shielded checkpoints only: a `Cancelled` here would replace the block's own exception.
        try:
            self._engine.stop_serving()
            while not self._engine.go_on_ending():
                await cancel_shielded_checkpoint()
            await self._interrupt(current_task())
            if grace:
                with trio.move_on_after(grace) as scope:
                    await self._wait_for_end()
                if scope.cancelled_caught:
                    subs = self._core.subs.values()
                    entries = chain.from_iterable(map(attrgetter("limit.borrowers"), subs))
                    warn_of_cut_off(self._engine.log, entries, grace, self._engine.now())
        finally:
            try:
                await self._interrupt(None)  # noqa: ASYNC102 - shields and bounds itself
            finally:  # an observer may raise what `tell` lets through, and nothing may be left
                await self._end()  # noqa: ASYNC102 - shields and bounds itself

    async def _end(self) -> None:
        now, bound = self._engine.time(), self._longest_close + _MARGIN
        try:
            with trio.CancelScope(shield=True, deadline=now + bound):
                await self._wait_for_end()
        finally:
            insist(self._host.cancel, self._engine.log)
            try:
                with trio.CancelScope(shield=True, deadline=now + 2 * bound):
                    await self._engine.background.ended.wait()
            finally:
                if self._core.state is PoolState.DRAINING:  # another task may have closed it, too
                    self._core.move(PoolState.CLOSED)
                insist(self._over.set, self._engine.log)
                _open_pools.discard(self)

    async def _interrupt(self, holder: Task | None) -> None:
        """Close lent connections under their leases: all, or only `holder`'s."""
        left = _BATCH
        failure: BaseException | None = None
        for sub in list(self._core.subs.values()):
            self._longest_close = max(self._longest_close, sub.config.close_timeout)
            for entry in (None, *sub.limit.borrowers):
                left -= 1
                try:
                    if entry is not None and entry.state is ConnectionState.ACTIVE:
                        self._interrupt_one(entry, holder)
                    if not left:
                        await cancel_shielded_checkpoint()
                except BaseException as exc:  # noqa: BLE001, ASYNC103 - the others must be closed as well
                    failure = exc
                left = left or _BATCH
        if failure is not None:
            raise failure

    def _interrupt_one(self, entry: PooledEntry, holder: Task | None) -> None:
        if holder is None or any(lease.holder is holder for lease in entry.leases):
            self._engine.report(self._core.condemned, entry, CloseReason.POOL_CLOSED)

    async def _wait_for_end(self) -> None:
        """Wait until no connection is left."""
        for number, sub in enumerate(list(self._core.subs.values()), 1):
            while sub.limit.borrowers:
                await self._engine.some_closed.park()
            if number % _BATCH == 0:
                await cancel_shielded_checkpoint()

    def disown(self) -> None:
        """Forget everything, in a forked child: the sockets and tasks are the parent's."""
        core = self._core
        core.state = PoolState.CLOSED
        self._engine.lends_in = 0
        for sub in core.subs.values():
            borrowers = list(sub.limit.borrowers)
            for entry in sub.idle:
                sub.limit.repay(entry)
            sub.idle.clear()
            for entry in borrowers:
                # Not moved: nothing has become of it. The end of a lease must not look into the
                # parent's socket.
                if entry.state is not ConnectionState.CONNECTING:
                    entry.link.exchange.cut("opened in the parent process")
                entry.state = ConnectionState.CLOSED


_open_pools: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


def _disown_all() -> None:
    for lifecycle in list(_open_pools):
        lifecycle.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
