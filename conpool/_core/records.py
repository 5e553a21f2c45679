"""The records of one pool: its connections and leases, those who wait, and the sub-pools that hold them.

They know of each other, which is why they share a file. `core` decides who is served, dialled for or
closed; `ledger` makes every change that concerns more than one field.

`LinkT` is what the shell keeps of an open connection, `TaskT` is a task. The core carries both and looks
into neither; the shell says what they are (`_connection/pooled.py`), so that a type checker follows a
connection from the idle stack to its lease.
"""

from __future__ import annotations

import enum
import math
import sys
from collections import OrderedDict
from typing import Any, Generic, TypeAlias, TypeVar, final

from conpool._core.gate import Gate
from conpool._core.limit import Limit
from conpool._stats.counters import Counters
from conpool._stats.snapshot import EndpointStats
from conpool._values.config import PoolConfig
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import TRANSITIONS, CloseReason, ConnectionState

LinkT = TypeVar("LinkT")
TaskT = TypeVar("TaskT")


@final
class Entry(Generic[LinkT, TaskT]):
    """One connection from before its dial until after its close.

    The core writes every field but `link` and `address`; the engine sets those two when the dial has
    succeeded, before it reports that.
    """

    __slots__ = (
        "address",
        "check",
        "checked_at",
        "created_at",
        "dial_for",
        "doomed",
        "expires_at",
        "generation",
        "id",
        "idle_since",
        "lapses_at",
        "leases",
        "link",
        "reason",
        "state",
        "sub",
        "uses",
        "was_idle",
    )

    link: LinkT

    def __init__(self, number: int, sub: SubPool[LinkT, TaskT], now: float) -> None:
        self.id: int = number
        self.sub: SubPool[LinkT, TaskT] = sub
        self.state: ConnectionState = ConnectionState.CONNECTING
        self.generation: int = sub.generation
        self.created_at: float = now
        self.expires_at: float = now
        self.idle_since: float = now
        self.checked_at: float = now
        self.lapses_at: float = now
        """The earlier of two ends: lifetime, and idle time counted from `idle_since`."""
        self.was_idle: bool = False
        """Whether it lay on the idle stack since its last use: then it is probed before it is lent."""
        self.uses: int = 0
        self.leases: dict[Lease[LinkT, TaskT], None] = {}
        """The leases that have begun and not ended."""
        self.check: Lease[LinkT, TaskT] | None = None
        """Who has the connection checked for itself; that one holds it, but has no lease yet."""
        self.doomed: CloseReason | None = None
        """Why it must be closed when its lease ends, whatever else holds."""
        self.dial_for: Waiter[LinkT, TaskT] | Warmer[TaskT] | None = None
        """Whom a failure of the dial fails; None once that one has gone."""
        self.reason: CloseReason | None = None
        """Why it is closed, or being closed."""
        self.address: str | None = None
        """The peer's IP address, where it has one."""

    def move(self, state: ConnectionState) -> None:
        """Go to `state`; a move that is not in the table is a bug."""
        if (self.state, state) not in TRANSITIONS:
            raise AssertionError(f"{self!r} cannot become {state.value}")
        self.state = state

    def __repr__(self) -> str:
        return (
            f"<Entry {self.id} to {self.sub.endpoint} {self.state.value},"
            f" {len(self.leases)} leases, {self.uses} uses>"
        )


@final
class Lease(Generic[LinkT, TaskT]):
    """One lease of a connection: who holds it, and since when."""

    __slots__ = ("entry", "holder", "since")

    def __init__(self, entry: Entry[LinkT, TaskT], holder: TaskT, since: float) -> None:
        self.entry = entry
        self.holder = holder
        self.since = since

    def __repr__(self) -> str:
        return f"<Lease of {self.entry!r} since {self.since}>"


class WaitOutcome(enum.Enum):
    """Why a waiter gets no connection."""

    TIMEOUT = "timeout"
    DIAL_FAILED = "dial failed"
    POOL_CLOSED = "pool closed"


@final
class Waiter(Generic[LinkT, TaskT]):
    """One acquire that could not be served at once: what it wants, and what it has been given.

    It stands in the queue of each of its sub-pools and leaves all of them at once: served, refused or
    withdrawn. It has at most one dial of its own across all of them.
    """

    # No __slots__: a field that most waiters never change costs nothing as a default of the class, and one
    # waiter is made for every lease that has to wait.

    number = 0
    """Its place in the order of arrival, across the whole pool."""
    queued = False
    had_turn = False
    """Whether it was served before, with a connection that turned out dead: it returns to the head."""
    dial: Entry[LinkT, TaskT] | None = None
    overtaken = 0
    """How often a younger waiter was lent a connection that could have made room for this one."""
    entry: Entry[LinkT, TaskT] | None = None
    """The connection that it was given and that is its own."""
    outcome: WaitOutcome | None = None
    error: Exception | None = None
    task: TaskT | None = None
    in_deadlock = False
    """Whether those who held the connections were waiting themselves when its time was up."""

    def __init__(
        self,
        subs: tuple[SubPool[LinkT, TaskT], ...],
        since: float,
        deadline: float,
        fresh: bool,
        has_own_deadline: bool = True,
    ) -> None:
        self.subs = subs
        self.since = since
        """When it asked."""
        self.deadline = deadline
        self.fresh = fresh
        """Whether it wants a connection that was dialled for it, not one that was used before."""
        self.has_own_deadline = has_own_deadline
        """Whether the deadline is not the sub-pool's usual one, counted from arrival."""

    def __repr__(self) -> str:
        state = "queued" if self.queued else self.outcome or self.entry or "idle"
        return f"<Waiter {self.number} {state}>"


@final
class Warmer(Generic[TaskT]):
    """A task that waits until `target` connections of one sub-pool are open."""

    __slots__ = ("error", "queued", "sub", "target", "task")

    def __init__(self, sub: SubPool[Any, TaskT], target: int) -> None:
        self.sub = sub
        self.target = target
        self.queued = True
        self.error: Exception | None = None
        self.task: TaskT | None = None

    def __repr__(self) -> str:
        return f"<Warmer to {self.target}{'' if self.queued else ' done'}>"


@final
class SubPool(Generic[LinkT, TaskT]):
    """What the pool knows of one endpoint.

    Connections are counted by state and charged to `limit`. `idle` is a stack: a dict gives the newest in
    one step and drops any other in one step too. `queue` holds the waiters in the order of their arrival;
    it is an `OrderedDict`, since a plain dict slows down when it is emptied from the front.
    """

    __slots__ = (
        "acquire_timeout",
        "active",
        "claim",
        "closing",
        "config",
        "connecting",
        "counters",
        "dialled_for",
        "due_at",
        "endpoint",
        "gate",
        "generation",
        "idle",
        "limit",
        "max_connecting",
        "max_idle_time",
        "max_uses",
        "max_waiting",
        "may_be_unwanted",
        "min_idle",
        "queue",
        "resized",
        "short_lives",
        "used_at",
        "wanted",
        "wants_warmth",
        "warm_not_before",
        "warmers",
    )

    def __init__(self, endpoint: AnyEndpoint, config: PoolConfig, gate: Gate, now: float) -> None:
        self.endpoint: AnyEndpoint = endpoint
        self.config: PoolConfig = config
        self.acquire_timeout: float = config.acquire_timeout
        self.max_idle_time: float = config.max_idle_time
        self.max_waiting: int | None = config.max_waiting_per_endpoint
        self.min_idle: int = config.min_idle_per_endpoint
        self.max_uses: float = config.max_connection_uses or math.inf
        self.max_connecting: int = config.max_connecting_per_endpoint or sys.maxsize
        self.counters: Counters = Counters()
        self.used_at: float = now
        self.due_at: float = math.inf
        """When the timetable next returns this sub-pool: at or before the time when a waiter or the gate
        needs it."""

        self.limit: Limit[Entry[LinkT, TaskT]] = Limit(config.max_connections_per_endpoint)
        self.idle: dict[Entry[LinkT, TaskT], None] = {}
        self.active: int = 0
        self.connecting: int = 0
        self.closing: int = 0
        self.generation: int = 0
        """Raised by `clear`: a connection of an older one is not lent again."""
        self.resized: bool = False
        self.may_be_unwanted: bool = not self.max_idle_time
        """False if no connection that returns can be one too many: that saves asking."""

        self.queue: OrderedDict[Waiter[LinkT, TaskT], None] = OrderedDict()
        self.dialled_for: int = 0
        """How many in the queue have a dial of their own."""
        self.gate: Gate = gate
        self.wanted: int = 0
        """How many dials only the pool-wide limit holds back."""
        self.claim: Waiter[LinkT, TaskT] | None = None
        """The waiter with which this sub-pool stands in line for the pool-wide limit."""

        self.warmers: list[Warmer[TaskT]] = []
        self.wants_warmth: bool = self.min_idle > 0
        """Whether `min_idle` or a warmer asks for dials that no caller waits for."""
        self.short_lives: int = 0
        """Connections in a row that were lost while new and unused (see `Warming.lost_unused`)."""
        self.warm_not_before: float = -math.inf
        """Holds back those dials that nobody waits for."""

    @property
    def is_bare(self) -> bool:
        """Whether dropping this sub-pool would lose nothing but its counters."""
        return not (
            self.limit.borrowers
            or self.queue
            or self.warmers
            or self.resized
            or self.gate.is_paused
        )

    def count_wanted_dials(self) -> int:
        """Return how many more dials the waiters want and this endpoint's own limits allow.

        No more dials run than there are waiters: one whose waiter has gone serves the next.
        """
        free = self.limit.total - len(self.limit.borrowers)
        if free <= 0:
            return 0
        wanted = min(len(self.queue), self.max_connecting) - self.connecting
        return max(0, min(wanted, free))

    def find_undialled(self) -> Waiter[LinkT, TaskT] | None:
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


# Inside the core, where nobody looks at a link or a task.
AnyEntry: TypeAlias = Entry[Any, Any]
AnyLease: TypeAlias = Lease[Any, Any]
AnyWaiter: TypeAlias = Waiter[Any, Any]
AnyWarmer: TypeAlias = Warmer[Any]
AnySubPool: TypeAlias = SubPool[Any, Any]
