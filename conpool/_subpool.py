"""One endpoint's books: its connections, its queue, its limit, and whether a dial may start.

State and questions only. Who is served, dialled for or closed is decided in `_core`.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, final

from conpool._capacity import Capacity
from conpool._stats import EndpointStats
from conpool._tally import Tally

if TYPE_CHECKING:
    from conpool._config import PoolConfig
    from conpool._endpoint import AnyEndpoint
    from conpool._entry import Entry
    from conpool._waiter import Waiter, Warmer


@final
class SubPool:
    """What the pool knows of one endpoint.

    Connections are counted by state and charged to `capacity`. `idle` is a stack: a dict gives the
    newest in one step and drops any other in one step too. `queue` holds the waiters in the order of
    their arrival; an `OrderedDict`, since a plain dict slows down when it is emptied from the front.
    """

    __slots__ = (
        "acquire_timeout",
        "active",
        "attend_at",
        "capacity",
        "claim",
        "closing",
        "config",
        "connecting",
        "dial_not_before",
        "dialled_for",
        "endpoint",
        "failures",
        "generation",
        "has_surplus",
        "idle",
        "last_error",
        "max_connecting",
        "max_idle_time",
        "max_uses",
        "max_waiting",
        "min_idle",
        "paused",
        "queue",
        "resized",
        "tally",
        "used_at",
        "wanted",
        "warmers",
    )

    def __init__(self, endpoint: AnyEndpoint, config: PoolConfig, now: float) -> None:
        self.endpoint = endpoint
        self.config = config
        self.acquire_timeout = config.acquire_timeout
        self.max_idle_time = config.max_idle_time
        self.max_waiting = config.max_waiting_per_endpoint
        self.min_idle = config.min_idle_per_endpoint
        self.max_uses = config.max_connection_uses or math.inf
        self.max_connecting = config.max_connecting_per_endpoint or sys.maxsize
        self.capacity = Capacity(config.max_connections_per_endpoint)
        self.idle: dict[Entry, None] = {}
        self.active = 0
        self.connecting = 0
        self.closing = 0
        self.queue: OrderedDict[Waiter, None] = OrderedDict()
        self.dialled_for = 0
        """How many in the queue have a dial of their own."""
        self.warmers: list[Warmer] = []
        self.generation = 0
        """Raised by `clear`: a connection of an older one is not lent again."""
        self.used_at = now
        self.tally = Tally()
        self.resized = False
        self.has_surplus = False
        """Whether the limit was lowered below what there was. Not taken back: it only saves counting."""
        self.paused = False

        self.failures = 0
        """Dials that failed since the last one that did not."""
        self.dial_not_before = -math.inf
        self.attend_at = math.inf
        """When the agenda will bring this sub-pool up: no later than a waiter or the gate needs it."""
        self.last_error: Exception | None = None

        self.wanted = 0
        """How many dials only the pool-wide limit holds back."""
        self.claim: Waiter | None = None
        """The waiter with which this sub-pool stands in line for the pool-wide limit."""

    @property
    def is_bare(self) -> bool:
        """Whether dropping this sub-pool would lose nothing but its counters."""
        return not (
            self.capacity.borrowers or self.queue or self.warmers or self.resized or self.paused
        )

    def is_gate_open(self, now: float) -> bool:
        """Whether a dial may start now, as far as this endpoint's own state goes: pause, back-off."""
        return not self.paused and now >= self.dial_not_before

    def count_wanted_dials(self) -> int:
        """Return how many more dials the waiters want and this endpoint's own limits allow.

        No more dials run than there are waiters: one whose waiter has gone serves the next.
        """
        room = self.capacity.total - len(self.capacity.borrowers)
        if room <= 0:
            return 0
        wanted = min(len(self.queue), self.max_connecting) - self.connecting
        return max(0, min(wanted, room))

    def find_undialled(self) -> Waiter | None:
        """Return the oldest waiter without a dial of its own.

        In a cold burst only the newcomer has none; looking there first keeps a burst of n dials from
        taking n² steps.
        """
        if self.dialled_for == len(self.queue):
            return None
        if self.dialled_for == len(self.queue) - 1:
            newest = next(reversed(self.queue))
            if newest.dial is None:
                return newest
        return next(waiter for waiter in self.queue if waiter.dial is None)

    def count_open(self) -> int:
        """Return how many connections are open and in use or ready for it."""
        return len(self.idle) + self.active

    def count_surplus(self) -> int:
        """Return by how much the limit, lowered meanwhile, is exceeded by connections not yet on their way out."""
        return len(self.capacity.borrowers) - self.closing - self.capacity.total

    def snapshot(self) -> EndpointStats:
        """Return the statistics of this moment."""
        return EndpointStats.of(
            self.endpoint,
            limit=self.capacity.total,
            active=self.active,
            idle=len(self.idle),
            connecting=self.connecting,
            closing=self.closing,
            waiting=len(self.queue),
            tally=self.tally,
        )

    def __repr__(self) -> str:
        return (
            f"<SubPool {self.endpoint}: {len(self.idle)} idle, {self.active} active,"
            f" {self.connecting} connecting, {self.closing} closing,"
            f" {len(self.queue)} waiting, limit {self.capacity.total}>"
        )
