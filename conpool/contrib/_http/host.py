"""Keeps the pool of a transport that was given none.

A client may be opened in one task and closed in another, or made and used with no block at all, so
no task of the caller's can hold the pool's block. A system task of trio's does: it leaves the block
when the transport is closed, or when the run ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import trio

from conpool._errors.pool import PoolClosed
from conpool._pool.pool import ConnectionPool
from conpool._values.config_error import PoolError


@final
class PoolHost:
    """Opens a pool when it is first needed, one for each run of trio, and closes it."""

    def __init__(self, make: Callable[[], ConnectionPool[Any]]) -> None:
        self._make = make
        self._token: trio.lowlevel.TrioToken | None = None
        self._pool: ConnectionPool[Any] | None = None
        self._failed: BaseException | None = None
        self._opened = trio.Event()
        self._leave = trio.Event()
        self._over = trio.Event()
        self._is_closed = False

    async def open(self) -> ConnectionPool[Any]:
        """Return the pool of this run, open.

        Raises:
            PoolClosed: `aclose` was called.
            PoolError: It could not be opened, for example since no file is left for its watch.
        """
        if self._is_closed:
            raise PoolClosed("the transport is closed")
        token = trio.lowlevel.current_trio_token()
        if self._token is not token:  # the sockets of an earlier run are closed
            self._token, self._pool, self._failed = token, None, None
            self._opened, self._leave, self._over = trio.Event(), trio.Event(), trio.Event()
            trio.lowlevel.spawn_system_task(self._keep, name="conpool transport")
        if self._pool is None:
            await self._opened.wait()
        if self._pool is None:
            self._token = None
            if self._failed is not None:
                raise PoolError(f"the pool cannot be opened: {self._failed}") from self._failed
            raise PoolClosed("the transport is closed")
        return self._pool

    async def _keep(self) -> None:
        opened, leave, over = self._opened, self._leave, self._over
        try:
            async with self._make() as pool:
                self._pool = pool
                opened.set()
                await leave.wait()
        except Exception as error:  # noqa: BLE001 - who opens the pool raises it
            self._failed = error
            self._pool = None
        finally:
            opened.set()
            over.set()

    async def aclose(self) -> None:
        """Close the pool. If it is cancelled, the pool is closed by force, and still closed."""
        self._is_closed = True
        if self._token is not trio.lowlevel.current_trio_token():
            await trio.lowlevel.checkpoint()
            return
        try:
            with trio.CancelScope(shield=True):  # two ticks
                await self._opened.wait()
            if self._pool is not None:
                await self._pool.aclose()
        finally:
            self._leave.set()
            with trio.CancelScope(shield=True):  # the pool is closed: there is nothing to wait for
                await self._over.wait()
