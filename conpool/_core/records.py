"""The records of one pool: connections, leases, those who wait, and the sub-pools that hold them.

They know of each other, which is why they share a file. `core` decides who is served, dialled for
or closed; `ledger` makes every change that concerns more than one field.

`LinkT` is what the shell keeps of an open connection, `TaskT` is a task. The core carries both and
looks into neither; the shell tells the type checker what they are (`_connection/pooled.py`).
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar, final

from conpool._core.few import nothing
from conpool._core.gate import Gate
from conpool._core.heap import Row
from conpool._core.limit import Limit
from conpool._core.queue import NOBODY, Queue
from conpool._stats.counters import Counters
from conpool._values.config import PoolConfig
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import EndpointGroup
from conpool._values.states import TRANSITIONS, CloseReason, ConnectionState, WaitOutcome

LinkT = TypeVar("LinkT")
TaskT = TypeVar("TaskT")


@final
@dataclass(slots=True, eq=False, repr=False)
class Entry(Generic[LinkT, TaskT]):
    """One connection from before its dial until after its close.

    The core writes every field but `link` and `address`; the engine sets those two when the dial
    has succeeded, before it reports that.
    """

    id: int
    sub: SubPool[LinkT, TaskT]
    created_at: float
    generation: int = field(init=False)
    link: LinkT = field(init=False)
    address: str | None = None
    """The peer's IP address, where it has one."""
    state: ConnectionState = ConnectionState.CONNECTING
    expires_at: float = 0.0
    idle_since: float = 0.0
    checked_at: float = 0.0
    lapses_at: float = 0.0
    """The earlier of two ends: lifetime, and idle time counted from `idle_since`."""
    was_idle: bool = False
    """Whether it lay on the idle stack since its last use: then it is probed before it is lent."""
    idled_unused: bool = False
    """Whether it lay on the idle stack before its first lease: then that lease is not fresh."""
    uses: int = 0
    leases: tuple[Lease[LinkT, TaskT], ...] | dict[Lease[LinkT, TaskT], None] = ()
    """The leases that have begun and not ended."""
    capacity: int = 1
    """How many leases may share it."""
    holders: int = 0
    """Where connections are shared: how many leases it has, with those that are about to begin."""
    check: Lease[LinkT, TaskT] | None = None
    """The task that has this connection checked. It holds the connection; no lease has begun."""
    is_checking: bool = False
    """Whether it is active because a waiter has it checked."""
    is_resetting: bool = False
    """Whether it is active because what its last lease left behind is being cleared."""
    doomed: CloseReason | None = None
    """Why it must be closed when its lease ends, whatever else holds."""
    awaited_by: Waiter[LinkT, TaskT] | Warmer[TaskT] | None = None
    """For whom the dial or the check is under way; that one may have gone since."""
    arrivals: int = 0
    """The number of the last waiter that had come when the dial began."""
    is_given_up: bool = False
    """Whether the core has told the shell to end the dial."""
    reason: CloseReason | None = None
    """Why it is closed, or being closed."""
    affinity: Hashable = None
    """The key that it last served, if it was acquired with one."""

    def __post_init__(self) -> None:
        self.generation = self.sub.generation

    @property
    def is_void(self) -> bool:
        """Whether a dial is under way in vain: its connection may not be lent, or is given up."""
        return self.is_given_up or self.generation != self.sub.generation

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
@dataclass(slots=True, eq=False)
class Lease(Generic[LinkT, TaskT]):
    """One lease of a connection: who holds it, and since when."""

    entry: Entry[LinkT, TaskT]
    holder: TaskT
    since: float


@final
@dataclass(slots=True, eq=False)
class Group(Generic[LinkT, TaskT]):
    """What the pool knows of one group, and its members as they were when somebody queued last."""

    target: EndpointGroup
    turn: int = 0
    """Which member the next caller gets, if members take turns."""
    subs: tuple[SubPool[LinkT, TaskT], ...] = ()


@final
class Waiter(Generic[LinkT, TaskT]):
    """One acquire that could not be served at once: what it wants, and what it has been given.

    It stands in the queue of each of its sub-pools and leaves all of them at once: served, refused
    or withdrawn. At most one dial or check is under way for it, across all of them.
    """

    # No __slots__: a field that most waiters never change costs nothing as the class's default.
    number = 0
    """Its place in the order of arrival, across the whole pool."""
    queued = False
    had_turn = False
    """Whether it was served before, with a connection that was dead: it returns to the head."""
    coming: Entry[LinkT, TaskT] | None = None
    """The connection that is dialled or checked for it. It takes whatever comes first."""
    is_timed = False
    """Whether the timetable looks at it by itself, and not only at its sub-pool."""
    row: Row | None = None
    """Its place in the timetable, if it has one of its own."""
    overtaken = 0
    """How often a younger waiter was lent a connection that could have made room for this one."""
    entry: Entry[LinkT, TaskT] | None = None
    """The connection that it was given and that is its own."""
    outcome: WaitOutcome | None = None
    error: Exception | None = None
    task: TaskT | None = None
    group: Group[LinkT, TaskT] | None = None
    """What it asks for, if that is a group."""
    reasons: Mapping[AnyEndpoint, Exception | str] | None = None
    """Why no member of its group can be used, if that is why it gets nothing."""
    slots: Any = None
    """What the shell found of the slots that it waited for, when its time was up."""

    def __init__(
        self, subs: tuple[SubPool[LinkT, TaskT], ...], since: float, deadline: float, fresh: bool
    ) -> None:
        self.subs = subs
        self.since = since
        """When it asked."""
        self.deadline = deadline
        self.fresh = fresh
        """Whether it wants a connection that was dialled for it, not one that was used before."""

    def __repr__(self) -> str:
        state = "queued" if self.queued else self.outcome or self.entry or "idle"
        return f"<Waiter {self.number} {state}>"


@final
@dataclass(slots=True, eq=False, repr=False)
class Warmer(Generic[TaskT]):
    """A task that waits until `target` connections of one sub-pool are open."""

    sub: SubPool[Any, TaskT]
    target: int
    queued: bool = True
    error: Exception | None = None
    task: TaskT | None = None

    def __repr__(self) -> str:
        return f"<Warmer to {self.target}{'' if self.queued else ' done'}>"


@final
@dataclass(slots=True, eq=False, repr=False)
class SubPool(Generic[LinkT, TaskT]):
    """What the pool knows of one endpoint.

    Connections are counted by state and charged to `limit`. `idle` is a stack: a dict gives the
    newest, and drops any other, in one step.
    """

    endpoint: AnyEndpoint
    config: PoolConfig
    gate: Gate
    used_at: float
    shares_limit: bool = False
    """Whether the pool has a limit that all endpoints share."""
    counters: Counters = field(default_factory=Counters)
    due_at: float = math.inf
    """When the timetable returns this sub-pool: no later than a waiter or the gate needs it."""
    row: Row | None = None
    """Its place in the timetable."""
    is_resting: bool = False
    """Whether the pump leaves it alone until the next tick, having done enough for it."""
    # Copies of what the hot path asks of `config`.
    acquire_timeout: float = field(init=False)
    max_idle_time: float = field(init=False)
    max_waiting: int | None = field(init=False)
    min_idle: int = field(init=False)
    max_uses: float = field(init=False)
    max_connecting: int = field(init=False)
    max_idle: float = field(init=False)
    check_after: float = math.inf
    """Seconds of silence after which a connection is checked before it is lent."""
    resets: bool = False
    """Whether a connection is reset after each lease."""
    shares: bool = False
    """Whether several leases may share a connection."""
    roomy: Mapping[Entry[LinkT, TaskT], None] = field(default_factory=nothing)
    """Shared connections that are lent, and have room for one more lease."""
    per_dial: float = math.inf
    """How many waiters one more shared connection serves, as the last one has shown."""
    known: Mapping[Hashable, Entry[LinkT, TaskT]] = field(default_factory=nothing)
    """For each key of affinity, the open connection that has last served it."""

    limit: Limit[Entry[LinkT, TaskT]] = field(init=False)
    idle: dict[Entry[LinkT, TaskT], None] = field(default_factory=dict[Any, None])
    reserved: Mapping[Entry[LinkT, TaskT], None] = field(default_factory=nothing)
    """Idle connections that are checked in the background: nobody gets them until that is over."""
    leaving: Mapping[CloseReason, dict[Entry[LinkT, TaskT], None]] = field(default_factory=nothing)
    """Idle connections that are closed a few at a time, by the reason: see `set_idle_aside`."""
    checking: int = 0
    """How many of the active are checked because a waiter asked."""
    resetting: int = 0
    connecting: int = 0
    void: int = 0
    """How many dials are under way in vain (see `Entry.is_void`)."""
    closing: int = 0
    outgoing: int = 0
    """How many of the active will serve nobody else (see `outgoing`)."""
    spare_dials: Mapping[Entry[LinkT, TaskT], None] = field(default_factory=nothing)
    """Dials under way, and not in vain, that no waiter asked for, or whose waiter has gone."""
    spare_checks: Mapping[Entry[LinkT, TaskT], None] = field(default_factory=nothing)
    """Checks whose waiter has gone."""
    generation: int = 0
    """Raised by `clear`: a connection of an older one is not lent again."""
    survivors: Mapping[int, int] = field(default_factory=nothing)
    """How many connections are left of each older generation; the oldest first."""
    chores: tuple[Chore, ...] = ()
    """What must be done to many connections, a few at a time."""
    looks: int = 0
    """Idle ones that were looked at since the pump last rested."""
    resized: bool = False
    is_strict: bool = field(init=False)
    """False if a connection that returns clean may be kept without a closer look."""
    is_plain: bool = True
    """False if the shell must be asked, or told, about each lease."""
    is_straight: bool = field(init=False)
    """Whether the straight line may be taken (see `straight`)."""

    queue: Queue[Waiter[LinkT, TaskT]] = NOBODY
    waiting: int = 0
    timed: int = 0
    """How many of those in line have a row of their own in the timetable."""
    outage: Outage | None = None
    """The news that waiters are being told."""
    bad_news: int = 0
    """The number of the last waiter that had come when a dial began that has failed."""
    groups: Mapping[Group[LinkT, TaskT], int] = field(default_factory=nothing)
    """The groups of those who wait here, with how many these are."""
    wanted: int = 0
    """How many dials only the pool-wide limit holds back."""
    claim: Waiter[LinkT, TaskT] | None = None
    """The waiter with which this sub-pool stands in line for the pool-wide limit."""

    warmers: Mapping[Warmer[TaskT], None] = field(default_factory=nothing)
    is_scarce: bool = field(init=False)
    """False if only the next caller can have a use for an idle connection: that saves asking."""
    short_lives: int = 0
    """Connections in a row that were lost while new and unused (see `Warming.lost`)."""
    warm_not_before: float = -math.inf
    """Holds back those dials that nobody waits for."""
    silent: int = 0
    """Connections in a row that did not answer a check."""

    def __post_init__(self) -> None:
        config = self.config
        self.acquire_timeout = config.acquire_timeout
        self.max_idle_time = config.max_idle_time
        self.max_waiting = config.max_waiting_per_endpoint
        self.min_idle = config.min_idle_per_endpoint
        most = config.max_idle_per_endpoint
        self.max_idle = math.inf if most is None else most
        self.max_uses = config.max_connection_uses or math.inf
        self.max_connecting = config.max_connecting_per_endpoint or sys.maxsize
        self.limit = Limit(config.max_connections_per_endpoint)
        self.note_rules()

    def note_rules(self) -> None:
        """Find out which questions can matter. To be called when one of these answers changes."""
        gate = self.gate
        # A connection that returns may be one too many, or ends a doubt.
        may_exceed = self.max_idle < math.inf or not self.max_idle_time
        is_special = may_exceed or self.resets or self.shares or gate.is_in_doubt
        self.is_strict = is_special or self.count_surplus() > 0
        # Warming or the pool-wide limit may have a use for what becomes idle.
        self.is_scarce = bool(
            self.shares_limit or self.min_idle or self.warmers or gate.is_unhealthy
        )
        is_limited = self.max_uses < math.inf or self.check_after < math.inf
        is_special = self.is_strict or self.is_scarce or is_limited or bool(self.survivors)
        self.is_straight = self.is_plain and not (is_special or gate.is_paused)

    @property
    def active(self) -> int:
        """How many connections are lent, checked or reset."""
        others = self.connecting + self.closing + self.count_leaving()
        return len(self.limit.borrowers) - len(self.idle) - others

    @property
    def is_bare(self) -> bool:
        """Whether dropping this sub-pool would lose nothing but its counters."""
        return not (
            self.limit.borrowers
            or self.waiting
            or self.warmers
            or self.resized
            or self.gate.is_paused
            or self.groups
        )

    def count_leaving(self) -> int:
        """Return how many connections are in `leaving`."""
        return sum(map(len, self.leaving.values())) if self.leaving else 0

    def count_surplus(self) -> int:
        """Return by how much the connections that are to stay exceed the limit."""
        going = self.closing + self.count_leaving() + self.void
        return len(self.limit.borrowers) - going - self.limit.total

    def count_coming(self) -> int:
        """Return how many dials, checks and resets under way may serve a waiter."""
        used = self.checking + self.resetting
        usual = min(used, self.queue.count_usual()) if used else 0
        return usual + self.connecting - self.void

    def count_needed(self) -> int:
        """Return how many connections could serve all waiters."""
        waiting = self.waiting - self.queue.count_away()
        return max(math.ceil(waiting / self.per_dial), min(waiting, 1)) if self.shares else waiting

    def find_spare(self) -> Entry[LinkT, TaskT] | None:
        """Return a dial or a check that no waiter of this endpoint needs; None if there is none."""
        if self.spare_checks and self.checking > self.queue.count_usual():
            return next(iter(self.spare_checks))
        if self.spare_dials and self.count_coming() > self.count_needed():
            return next(iter(self.spare_dials))
        return None

    def __repr__(self) -> str:
        counts = f"{len(self.idle)} idle, {self.active} active, {self.connecting} connecting"
        return f"<SubPool {self.endpoint}: {counts}, {self.waiting} waiting, {self.limit!r}>"


@final
@dataclass(slots=True, eq=False)
class Chore:
    """Something to be done to many connections or waiters of a sub-pool, a few at a time."""

    do: Callable[[Any, float], object]
    entries: deque[Any]


@final
@dataclass(slots=True)
class Outage:
    """What those must be told who waited at a moment."""

    error: Exception
    arrivals: int
    """The number of the last waiter."""
    warmers: list[AnyWarmer] = field(default_factory=list[Any])


AnyEntry: TypeAlias = Entry[Any, Any]
AnyLease: TypeAlias = Lease[Any, Any]
AnyWaiter: TypeAlias = Waiter[Any, Any]
AnyGroup: TypeAlias = Group[Any, Any]
AnyWarmer: TypeAlias = Warmer[Any]
AnySubPool: TypeAlias = SubPool[Any, Any]
