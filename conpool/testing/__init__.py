"""Proofs for code that runs on trio, used by conpool's own tests and meant for yours.

Most tests of concurrent code try the one order in which things happen to happen. These try all:

- `cancel_everywhere` runs a scenario once for each point at which it can be cancelled;
- `explore_schedules` runs it once for each order in which trio could run its tasks, but for what
  stands under `fixed_order`;
- `MemoryConnector` gives a pool servers in memory, so that time can be simulated;
- `assert_quiescent` says whether a pool is as if nobody had ever used it.

The first two know nothing of pools or connections: they prove any code that runs on trio. They call
`trio.run` themselves, over and over, so the test that uses them is synchronous, whatever the test
framework. Nothing but trio is needed.

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
from conpool.testing._memory import MemoryConnector
from conpool.testing._quiescence import assert_quiescent
from conpool.testing._schedules import explore_schedules, fixed_order

__all__ = [
    "MemoryConnector",
    "assert_quiescent",
    "cancel_everywhere",
    "explore_schedules",
    "fixed_order",
]
