"""The core's records, typed with what the shell keeps in them: an open link, and trio's tasks."""

from __future__ import annotations

from typing import TypeAlias

from trio.lowlevel import Task

from conpool._connection.link import Link
from conpool._core.core import Core
from conpool._core.records import Entry, Lease, SubPool, Waiter, Warmer

PooledEntry: TypeAlias = Entry[Link, Task]
PooledLease: TypeAlias = Lease[Link, Task]
PooledWaiter: TypeAlias = Waiter[Link, Task]
PooledWarmer: TypeAlias = Warmer[Task]
PooledSub: TypeAlias = SubPool[Link, Task]
PooledCore: TypeAlias = Core[Link, Task]
