"""What a session tells the circuit breaker of its endpoint, if the pool has one.

A loss of the connection counts, once, where an exchange with the server hits upon it. These do not
count: a cancellation, a close by the caller or the pool, an error of SQL, a connection that a check
finds dead. Each exchange that ends well is a success.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import ref

import psycopg
from psycopg import errors

from conpool._pool.pool import ConnectionPool
from conpool._values.endpoint import AnyEndpoint

if TYPE_CHECKING:
    from conpool.contrib._psycopg.connection import AsyncConnection

_SHUTDOWNS: Final = (errors.AdminShutdown, errors.CrashShutdown)


def is_servers(error: psycopg.OperationalError) -> bool:
    """Whether a lost connection says something about the server: not if a time-out of SQL ended it.

    Without a code it comes from libpq, which has lost the server.
    """
    return error.sqlstate is None or isinstance(error, _SHUTDOWNS)


def tell_breaker(session: AsyncConnection[Any], endpoint: AnyEndpoint, pool: object) -> None:
    """Have `session` tell `pool`, if `endpoint` has a breaker there."""
    if not isinstance(pool, ConnectionPool):
        return
    core = pool._core  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    if core.peek(endpoint).gate.circuit is None:
        return
    find: ref[ConnectionPool[Any]] = ref(cast("Any", pool))

    def tell(has_served: bool) -> None:
        known = find()
        if known is not None:
            (known.report_success if has_served else known.report_failure)(endpoint)

    session._tell = tell  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def stop_telling(session: AsyncConnection[Any]) -> None:
    """Tell nobody any more of what becomes of `session`."""
    session._tell = None  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


@contextmanager
def untold(session: AsyncConnection[Any]) -> Generator[None]:
    """Tell nobody of what the block does."""
    tell = session._tell  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    stop_telling(session)
    try:
        yield
    finally:
        session._tell = tell  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
