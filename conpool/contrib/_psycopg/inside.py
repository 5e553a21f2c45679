"""All that we use of psycopg's private names, and the versions in which these were tested.

psycopg separates its protocol, generators that say what to wait for, from the waiting. The
generators are private, and so are the places where asyncio does the waiting.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, cast

import psycopg
from psycopg import _conninfo_utils, errors
from psycopg.abc import AdaptContext, ConnDict, ConnMapping, PQGenConn
from psycopg.adapt import AdaptersMap

TESTED: Final = ((3, 3), (3, 4))
"""From this version on, and before that one."""


def check_version(version: str = psycopg.__version__) -> None:
    """Refuse a version of psycopg in which the names below may mean something else.

    Raises:
        ImportError: It is too old or too new.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    oldest, first_untested = TESTED
    if found is None or not oldest <= tuple(map(int, found.groups())) < first_untested:
        raise ImportError(
            f"conpool.contrib.psycopg works with psycopg {oldest[0]}.{oldest[1]} and later, "
            f"before {first_untested[0]}.{first_untested[1]}; version {version} is installed"
        )


check_version()

WaitTimeout: Final = cast("type[Exception]", getattr(errors, "_WaitTimeout", TimeoutError))
"""What `wait` raises when its time-out has passed. Before 3.3.5 nobody asks for one."""

split_attempts: Final[Callable[[ConnMapping], list[ConnDict]]] = _conninfo_utils.split_attempts
"""Return the parameters for each host of a list."""

get_param: Final[Callable[[ConnMapping, str], str | None]] = _conninfo_utils.get_param
"""Return a parameter, from the environment if it is not given."""


def connecting(cls: type[psycopg.AsyncConnection[Any]], conninfo: str) -> PQGenConn[Any]:
    """Return the generator that opens a connection of class `cls`."""
    return cls._connect_gen(conninfo)  # pyright: ignore[reportPrivateUsage]


def may_cancel(conn: psycopg.AsyncConnection[Any]) -> bool:
    """Return whether there is anything to cancel; raise if that is forbidden now."""
    return conn._should_cancel()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def adapt(conn: psycopg.AsyncConnection[Any], context: AdaptContext) -> None:
    """Give `conn` the adapters of `context`."""
    adapters = AdaptersMap(context.adapters)
    conn._adapters = adapters  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def start_autocommit(conn: psycopg.AsyncConnection[Any], is_on: bool) -> None:
    """Set the mode of a connection that has done nothing yet."""
    conn._autocommit = is_on  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def is_in_block(conn: psycopg.AsyncConnection[Any]) -> bool:
    """Return whether a `transaction` block or a two-phase transaction has not come to its end."""
    return bool(conn._num_transactions or conn._tpc)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
