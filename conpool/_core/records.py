"""The books of one pool: its connections, those who wait, and the sub-pools that hold both.

Records and questions about them. They know of each other, which is why they share a file; who is served,
dialled for or closed is decided in `_core`, and every change to more than one field is made in `_ledger`.
"""

from __future__ import annotations

import enum
import math
import sys
from collections import OrderedDict
from typing import Any, final

from conpool._core.limit import Limit
from conpool._stats.counters import Counters
from conpool._stats.snapshot import EndpointStats
from conpool._values.config import PoolConfig
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import TRANSITIONS, CloseReason, ConnectionState


@final
class Entry:
    """One connection from before its dial until after its close.

    The core writes the first group of fields. The second is the shell's: it is kept here so that a
    lease costs no look-up, and the core never reads it.
    """

    __slots__ = (
        "address",
        "checked_at",
        "created_at",
        "dial_for",
        "expires_at",
        "generation",
        "holder",
        "id",
        "idle_since",
        "lapses_at",
        "leases",
        "lent_at",
        "link",
        "reason",
        "retired",
        "state",
        "sub",
        "uses",
        "was_idle",
    )

    def __init__(self, number: int, sub: SubPool, now: float) -> None:
        self.id: int = number
        self.sub: SubPool = sub
        self.state: ConnectionState = ConnectionState.CONNECTING
        self.generation: int = sub.generation
        self.created_at: float = now
        self.expires_at: float = now
        self.idle_since: float = now
        self.checked_at: float = now
        self.lapses_at: float = now
        """The earlier of two ends: lifetime, and idle time counted from `idle_since`."""
        self.was_idle: bool = False
        """Whether it lay on the idle stack since it was last used, and so deserves another look."""
        self.uses: int = 0
        self.leases: int = 0
        self.retired: bool = False
        self.dial_for: Waiter | Warmer | None = None
        """Whom a failure of the dial fails; nobody, once that one has gone."""
        self.reason: CloseReason | None = None
        self.address: str | None = None
        """The peer's IP address, where the endpoint names it otherwise."""

        self.link: Any = None
        self.holder: Any = None
        self.lent_at: float = now

    def move(self, state: ConnectionState) -> None:
        """Go to `state`; a move that is not in the table is a bug."""
        if (self.state, state) not in TRANSITIONS:
            raise AssertionError(f"{self!r} cannot become {state.value}")
        self.state = state

    def __repr__(self) -> str:
        return (
            f"<Entry {self.id} to {self.sub.endpoint} {self.state.value},"
            f" {self.leases} leases, {self.uses} uses>"
        )


class WaitOutcome(enum.Enum):
    """Why a waiter gets no connection."""

    TIMEOUT = "timeout"
    DIAL_FAILED = "dial failed"
    POOL_CLOSED = "pool closed"


@final
class Waiter:
    """A task parked in acquire, as the core sees it.

    It stands in the queue of each of its sub-pools and leaves all of them at once: served, refused or
    withdrawn. It has at most one dial of its own across all of them.
    """

    # No __slots__: fields that most waiters never change cost nothing as defaults of the class, and one
    # waiter is made for every lease that has to wait.

    number = 0
    """Its place in the order of arrival, across the whole pool."""
    queued = False
    dial: Entry | None = None
    overtaken = 0
    """How often a younger waiter was lent a connection that could have made room for this one."""
    entry: Entry | None = None
    refusal: WaitOutcome | None = None
    error: Exception | None = None
    task: Any = None
    in_deadlock = False
    """Whether those who held the connections were waiting themselves when its time was up."""

    def __init__(
        self,
        subs: tuple[SubPool, ...],
        since: float,
        deadline: float,
        fresh: bool,
        has_own_deadline: bool = True,
    ) -> None:
        self.subs: tuple[SubPool, ...] = subs
        self.since: float = since
        """When it asked."""
        self.deadline: float = deadline
        self.fresh: bool = fresh
        self.has_own_deadline: bool = has_own_deadline
        """Whether the deadline is not the sub-pool's usual one, counted from arrival."""

    def __repr__(self) -> str:
        state = "queued" if self.queued else self.refusal or self.entry or "idle"
        return f"<Waiter {self.number} {state}>"


@final
class Warmer:
    """A task that waits until `target` connections of one sub-pool are open."""

    __slots__ = ("error", "queued", "sub", "target", "task")

    def __init__(self, sub: SubPool, target: int) -> None:
        self.sub: SubPool = sub
        self.target: int = target
        self.queued: bool = True
        self.error: Exception | None = None
        self.task: Any = None

    def __repr__(self) -> str:
        return f"<Warmer to {self.target}{'' if self.queued else ' done'}>"


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
        "claim",
        "closing",
        "config",
        "connecting",
        "counters",
        "dial_not_before",
        "dialled_for",
        "due_at",
        "endpoint",
        "failures",
        "generation",
        "idle",
        "last_error",
        "limit",
        "max_connecting",
        "max_idle_time",
        "max_uses",
        "max_waiting",
        "may_be_unwanted",
        "min_idle",
        "paused",
        "queue",
        "resized",
        "short_lives",
        "used_at",
        "wanted",
        "warm_not_before",
        "warmers",
    )

    def __init__(self, endpoint: AnyEndpoint, config: PoolConfig, now: float) -> None:
        self.endpoint: AnyEndpoint = endpoint
        self.config: PoolConfig = config
        self.acquire_timeout: float = config.acquire_timeout
        self.max_idle_time: float = config.max_idle_time
        self.max_waiting: int | None = config.max_waiting_per_endpoint
        self.min_idle: int = config.min_idle_per_endpoint
        self.max_uses: float = config.max_connection_uses or math.inf
        self.max_connecting: int = config.max_connecting_per_endpoint or sys.maxsize
        self.limit: Limit[Entry] = Limit(config.max_connections_per_endpoint)
        self.idle: dict[Entry, None] = {}
        self.active: int = 0
        self.connecting: int = 0
        self.closing: int = 0
        self.queue: OrderedDict[Waiter, None] = OrderedDict()
        self.dialled_for: int = 0
        """How many in the queue have a dial of their own."""
        self.warmers: list[Warmer] = []
        self.generation: int = 0
        """Raised by `clear`: a connection of an older one is not lent again."""
        self.used_at: float = now
        self.counters: Counters = Counters()
        self.resized: bool = False
        self.may_be_unwanted: bool = not self.max_idle_time
        """Whether `find_surplus` may find any; it only saves asking."""
        self.paused: bool = False

        self.failures: int = 0
        """Since the last dial that succeeded: 1 for the first failure and for each attempt after it."""
        self.dial_not_before: float = -math.inf
        self.short_lives: int = 0
        """Connections in a row that were lost while new and unused (see `DialPolicy.lost_unused`)."""
        self.warm_not_before: float = -math.inf
        """Holds back those dials that nobody waits for."""
        self.due_at: float = math.inf
        """When the timetable will bring this sub-pool up: no later than a waiter or the gate needs it."""
        self.last_error: Exception | None = None

        self.wanted: int = 0
        """How many dials only the pool-wide limit holds back."""
        self.claim: Waiter | None = None
        """The waiter with which this sub-pool stands in line for the pool-wide limit."""

    @property
    def is_bare(self) -> bool:
        """Whether dropping this sub-pool would lose nothing but its counters."""
        return not (
            self.limit.borrowers or self.queue or self.warmers or self.resized or self.paused
        )

    def is_gate_open(self, now: float) -> bool:
        """Whether a dial may start now, as far as this endpoint's own state goes: pause, back-off."""
        return not self.paused and now >= self.dial_not_before

    def count_wanted_dials(self) -> int:
        """Return how many more dials the waiters want and this endpoint's own limits allow.

        No more dials run than there are waiters: one whose waiter has gone serves the next.
        """
        free = self.limit.total - len(self.limit.borrowers)
        if free <= 0:
            return 0
        wanted = min(len(self.queue), self.max_connecting) - self.connecting
        return max(0, min(wanted, free))

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
        return len(self.limit.borrowers) - self.closing - self.limit.total

    def find_surplus(self) -> CloseReason | None:
        """Return why what comes back now is one too many, if it is."""
        if self.count_surplus() > 0:
            return CloseReason.SURPLUS
        is_wanted = self.max_idle_time or self.queue or self.warmers
        return None if is_wanted else CloseReason.IDLE_TIME

    def snapshot(self) -> EndpointStats:
        """Return the statistics of this moment."""
        return EndpointStats.of(
            self.endpoint,
            limit=self.limit.total,
            active=self.active,
            idle=len(self.idle),
            connecting=self.connecting,
            closing=self.closing,
            waiting=len(self.queue),
            counters=self.counters,
        )

    def __repr__(self) -> str:
        return (
            f"<SubPool {self.endpoint}: {len(self.idle)} idle, {self.active} active,"
            f" {self.connecting} connecting, {self.closing} closing,"
            f" {len(self.queue)} waiting, limit {self.limit.total}>"
        )
