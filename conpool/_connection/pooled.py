"""The core's records, typed with what the shell keeps in them: an open link, and trio's tasks."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TypeAlias

from trio.lowlevel import Task

from conpool._connection.link import Link
from conpool._connection.session import SessionRules
from conpool._core.core import Core
from conpool._core.records import Entry, Lease, SubPool, Waiter, Warmer
from conpool._values.config import PoolConfig
from conpool._values.endpoint import AnyEndpoint

PooledEntry: TypeAlias = Entry[Link, Task]
PooledLease: TypeAlias = Lease[Link, Task]
PooledWaiter: TypeAlias = Waiter[Link, Task]
PooledWarmer: TypeAlias = Warmer[Task]
PooledSub: TypeAlias = SubPool[Link, Task]
PooledCore: TypeAlias = Core[Link, Task]


def make_core(
    config: PoolConfig,
    overrides: Mapping[AnyEndpoint, PoolConfig],
    rules: SessionRules,
    *,
    is_checked: bool,
    is_plain: bool,
) -> PooledCore:
    """Make the core of one pool, as its configuration and its driver demand."""
    return Core(
        config,
        overrides,
        Random(),  # noqa: S311 - it spreads load
        is_checked=is_checked or rules.checks,
        resets=rules.resets,
        shares=rules.shares,
        is_plain=is_plain,
    )
