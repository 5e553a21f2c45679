"""A connection within the two time-outs of the client library, `pool` and `connect`.

The pool has one time-out for queueing and dialling together, and its error says which of the two
took the time. Where the two time-outs differ, it takes more:

- If the dial may take longer than the queue, ask again once the first time-out has ended in a dial:
  the dial goes on in a task of the pool's own.
- If it may take less, look at the pool when that time is over. A caller that only queues waits on,
  in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, final

import trio

from conpool._errors.connect import ConnectTimeout
from conpool._errors.pool import AcquireTimeout
from conpool._lending.lease import Connection
from conpool._pool.pool import ConnectionPool
from conpool._values.config_error import PoolError
from conpool._values.group import Target, members_of
from conpool.contrib._http.errors import translate
from conpool.contrib._http.outgoing import Outgoing

_BACKOFF: Final = 0.5
"""Seconds before the second retry; doubled each time, as in httpcore."""


@final
class Borrower:
    """Acquires connections for requests."""

    def __init__(self, lib: Any, retries: int) -> None:
        self._worth_a_retry = (lib.ConnectError, lib.ConnectTimeout)
        self._lib = lib
        self._retries = retries

    async def borrow(
        self,
        pool: ConnectionPool[Any],
        target: Target,
        outgoing: Outgoing,
        *,
        fresh: bool,
    ) -> Connection[Any]:
        """Borrow a connection; try again as often as `retries` says.

        Raises:
            PoolError: There was none in time, or none at all.
        """
        to_wait, to_connect = outgoing.pool_timeout, outgoing.connect_timeout
        if to_wait == to_connect and outgoing.trace is None and not self._retries:
            return await pool.acquire(target, timeout=to_wait, fresh=fresh)
        delays = _delays(self._retries)
        while True:
            try:
                return await _acquire_traced(pool, target, outgoing, fresh=fresh)
            except PoolError as error:
                is_worth_it = isinstance(translate(self._lib, error), self._worth_a_retry)
                delay = next(delays, None) if is_worth_it else None
                if delay is None:
                    raise
            await trio.sleep(delay)


async def _acquire_traced(
    pool: ConnectionPool[Any], target: Target, outgoing: Outgoing, *, fresh: bool
) -> Connection[Any]:
    got: Connection[Any] | None = None

    async def acquire() -> Connection[Any]:
        nonlocal got
        to_wait, to_connect = outgoing.pool_timeout, outgoing.connect_timeout
        got = await _acquire(pool, target, to_wait, to_connect, fresh=fresh)
        return got

    try:
        return await outgoing.traced("conpool.acquire", acquire)
    except BaseException:
        if got is not None:  # the caller's own `trace` broke off
            pool.release(got)
        raise


async def _acquire(
    pool: ConnectionPool[Any],
    target: Target,
    to_wait: float,
    to_connect: float,
    *,
    fresh: bool,
) -> Connection[Any]:
    """Wait `to_wait` seconds for a turn, and `to_connect` seconds for a dial."""
    if to_connect < to_wait:
        return await _acquire_watched(pool, target, to_wait, to_connect, fresh=fresh)
    try:
        return await pool.acquire(target, timeout=to_wait, fresh=fresh)
    except AcquireTimeout as error:
        if error.phase != "connect" or to_connect == to_wait:
            raise
    try:
        return await pool.acquire(target, timeout=to_connect - to_wait, fresh=fresh)
    except AcquireTimeout as error:
        raise _too_late(target, to_connect) from error


async def _acquire_watched(
    pool: ConnectionPool[Any],
    target: Target,
    to_wait: float,
    to_connect: float,
    *,
    fresh: bool,
) -> Connection[Any]:
    got: list[Connection[Any] | Exception] = []

    async def watch() -> None:
        await trio.sleep(to_connect)
        stats = pool.stats(target)
        if stats.connecting >= stats.waiting:  # so one of the dials is for this task
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                got.append(await pool.acquire(target, timeout=to_wait, fresh=fresh))
            except Exception as error:  # noqa: BLE001 - raised below, outside of the nursery
                got.append(error)
            nursery.cancel_scope.cancel()
    except BaseException:
        # A cancellation may come while the nursery waits for `watch` to end.
        if got and isinstance(got[0], Connection):
            pool.release(got[0])
        raise
    if not got:
        raise _too_late(target, to_connect)
    if isinstance(got[0], Exception):
        raise got[0]
    return got[0]


def _too_late(target: Target, seconds: float) -> ConnectTimeout:
    why = f"no connection within {seconds:g} seconds"
    return ConnectTimeout(why, endpoint=members_of(target)[0], phase="tcp")


def _delays(retries: int) -> Iterator[float]:
    """Return the waits before each retry: none, then half a second, doubled each time."""
    for number in range(retries):
        yield 0.0 if number == 0 else _BACKOFF * 2 ** (number - 1)
