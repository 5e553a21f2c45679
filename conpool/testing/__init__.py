"""Proofs for code that runs on trio, used by conpool's own tests and meant for yours.

Most tests of concurrent code try one order of events, the one that happens. These try all:

- `cancel_everywhere` runs a scenario once for each point at which it can be cancelled;
- `fail_everywhere` runs it once for each call that its code makes into other code, failed there;
- `explore_schedules` runs it once for each order in which trio could run its tasks; blocks of
  `fixed_order` are left out;
- `MemoryConnector` gives a pool servers in memory, so that a test can simulate time;
- `assert_quiescent` asserts that nobody uses a pool and that its books balance.

The first three know nothing of pools or connections: they prove any code that runs on trio. They
call `trio.run` themselves, many times, so call them from a synchronous test, whatever the
framework.

Example:
    A pool under every cancellation of a warm acquire:

    >>> import trio
    >>> from trio.testing import MockClock, wait_all_tasks_blocked
    >>> import conpool
    >>> from conpool.testing import MemoryConnector, assert_quiescent, cancel_everywhere
    >>> endpoint = conpool.Endpoint("db.example", 5432)
    >>> async def scenario(scope: trio.CancelScope) -> None:
    ...     connector = MemoryConnector(trio.abc.Stream.receive_some)
    ...     async with conpool.ConnectionPool(connector=connector) as pool:
    ...         await pool.warm(endpoint, 1)
    ...         with scope:
    ...             async with pool.connection(endpoint):
    ...                 await trio.sleep(1)
    ...         await wait_all_tasks_blocked()
    ...         assert_quiescent(pool)
    ...     assert connector.live == 0
    >>> points = cancel_everywhere(scenario, clock=lambda: MockClock(autojump_threshold=0))
    >>> points >= 3
    True
"""

from __future__ import annotations

from conpool.testing._cancel import cancel_everywhere
from conpool.testing._fail import Failure, fail_everywhere
from conpool.testing._memory import MemoryConnector
from conpool.testing._quiescence import assert_quiescent
from conpool.testing._schedules import explore_schedules, fixed_order

__all__ = [
    "Failure",
    "MemoryConnector",
    "assert_quiescent",
    "cancel_everywhere",
    "explore_schedules",
    "fail_everywhere",
    "fixed_order",
]
