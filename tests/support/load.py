"""A load on a group of servers, some of which are killed and come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeAlias, final

import trio

from conpool import AnyEndpoint

Ask: TypeAlias = Callable[[Callable[[AnyEndpoint], None]], Awaitable[object]]
"""Asks a group once; it calls its argument with the member that serves it."""


@final
class Load:
    """Tasks that ask a group for as long as they may, and what became of it."""

    def __init__(self, ask: Ask, *lost_by: type[Exception], more: int, patience: float) -> None:
        self._ask = ask
        self._lost_by = lost_by
        """What `ask` raises if a connection breaks, and an acquire never does."""
        self._more = more
        self._patience = patience
        self.served: Counter[AnyEndpoint] = Counter()
        """Answers, by the member that gave them."""
        self.lost: Counter[AnyEndpoint] = Counter()
        """Leases that broke."""
        self._some_served = trio.lowlevel.ParkingLot()

    async def work(self) -> None:
        while True:
            asked: list[AnyEndpoint] = []
            try:
                await self._ask(asked.append)
                self.served[asked[-1]] += 1
            except self._lost_by:
                assert asked, "an acquire failed like a connection that breaks"
                self.lost[asked[-1]] += 1
            self._some_served.unpark_all()

    async def wait_for(self, *endpoints: AnyEndpoint) -> None:
        """Wait until each of `endpoints` has given `more` answers again."""
        wanted = {endpoint: self.served[endpoint] + self._more for endpoint in endpoints}
        with trio.fail_after(self._patience):
            while any(self.served[endpoint] < count for endpoint, count in wanted.items()):
                await self._some_served.park()
