"""The shell, played by hand: a test says what happens outside, and sees what the core makes of it.

`Shell` does what the engine and the lender do, synchronously and without sockets: it performs effects in
order, looks at connections before they are lent, and reports. Dials and graceful closes stay
pending until the test ends them; time passes when the test says so. After every step it calls
`invariants.check`, and at every hand-over it checks for itself, from what it has seen, that the
connection may be lent (G2, G21, G24) and that nobody was passed over (G13).

    shell = Shell(max_connections_per_endpoint=1)
    lease = shell.lend(HERE)
    waiting = shell.ask(HERE)
    shell.release(lease)
    assert waiting.entry is lease.entry
"""

from __future__ import annotations

import math
from random import Random
from typing import Any, Final, final

from conpool._core.core import Core
from conpool._core.effects import Close, Dial
from conpool._core.records import Entry, SubPool, Waiter, WaitOutcome, Warmer
from conpool._values.config import PoolConfig
from conpool._values.endpoint import AnyEndpoint, Endpoint
from conpool._values.states import CloseReason, ConnectionState

from .invariants import check

HERE: Final = Endpoint("here.example", 1)
THERE: Final = Endpoint("there.example", 2)

PATIENT: Final = {
    "acquire_timeout": math.inf,
    "max_idle_time": math.inf,
    "max_connection_lifetime": math.inf,
    "lifetime_jitter": 0.0,
}
"""Settings under which nothing happens merely because time passes."""


class Refused(Exception):
    """What a dial fails with."""


@final
class Wire:
    """What the shell knows of an open connection, independently of the core."""

    __slots__ = ("cleared", "dead", "idle_since", "leases", "opened_at")

    def __init__(self, now: float) -> None:
        self.opened_at = now
        self.idle_since = now
        self.leases = 0
        self.dead = False
        """Whether the peer has closed it. The core learns it when somebody looks."""
        self.cleared = False
        """Whether it was there when its endpoint was cleared."""


@final
class Caller:
    """A task that asks for a connection."""

    __slots__ = ("endpoint", "entry", "error", "has_begun", "passed", "refusal", "waiter")

    def __init__(self, endpoint: AnyEndpoint) -> None:
        self.endpoint = endpoint
        self.waiter: Waiter | None = None
        """Its place in the queue, while it waits."""
        self.entry: Entry | None = None
        """The connection handed to it, until it gives that back."""
        self.has_begun = False
        """Whether its lease has begun: whether it has run since the hand-over."""
        self.refusal: WaitOutcome | None = None
        self.error: Exception | None = None
        self.passed = 0
        """How many were served that came later, while it was first in line for the pool's slots."""

    @property
    def is_waiting(self) -> bool:
        return self.waiter is not None

    def __repr__(self) -> str:
        state = self.waiter or self.entry or self.refusal or "done"
        return f"<Caller of {self.endpoint}: {state}>"


@final
class SteadyRandom(Random):
    """Chance that never varies: no jitter of lifetimes, and every back-off as long as it can be."""

    def random(self) -> float:
        return 0.0

    def uniform(self, a: float, b: float) -> float:
        return b


@final
class Shell:
    """One core, and all that surrounds it."""

    __slots__ = (
        "callers",
        "closes",
        "core",
        "dials",
        "is_courteous",
        "is_lazy",
        "is_watched",
        "now",
        "put_back",
        "warmed",
    )

    def __init__(
        self,
        config: PoolConfig | None = None,
        *,
        overrides: dict[AnyEndpoint, PoolConfig] | None = None,
        random: Random | None = None,
        is_courteous: bool = False,
        is_lazy: bool = False,
        is_watched: bool = True,
        **settings: Any,
    ) -> None:
        """`settings` are fields of the configuration; whatever they leave out is `PATIENT`."""
        config = config or PoolConfig(**(PATIENT | settings))
        self.core = Core(config, overrides or {}, random or SteadyRandom())
        self.is_courteous = is_courteous
        """Whether connections say goodbye: their graceful closes take until `close_ends`."""
        self.is_lazy = is_lazy
        """Whether tasks run late: a lease begins only with `begin`, and much may happen before."""
        self.is_watched = is_watched
        """Whether the books are checked after each step; not where there are thousands of waiters."""
        self.now = 0.0
        self.dials: list[Entry] = []
        """Dials under way, the oldest first."""
        self.closes: list[Entry] = []
        """Graceful closes under way, the oldest first."""
        self.callers: list[Caller] = []
        """Those who wait or hold a connection."""
        self.warmed: list[Warmer] = []
        """Warmers that have been told to go on."""
        self.put_back: set[Waiter] = set()
        """Who went back to the head of the line in this step."""

    def sub(self, endpoint: AnyEndpoint = HERE) -> SubPool:
        return self.core.find_subpool(endpoint, self.now)

    # ── asking ──────────────────────────────────────────────────────────────────

    def ask(
        self,
        endpoint: AnyEndpoint = HERE,
        *,
        fresh: bool = False,
        timeout: float | None = None,
        is_first: bool = False,
    ) -> Caller:
        """Somebody asks for a connection: it gets an idle one, or joins the queue."""
        caller = Caller(endpoint)
        sub = self.sub(endpoint)
        entry = None if fresh or is_first else self.take(endpoint)
        self.callers.append(caller)
        if entry is not None:
            self._hand_over(entry, caller)
            self.settle()
            return caller
        deadline = self.now + (sub.acquire_timeout if timeout is None else timeout)
        waiter = Waiter((sub,), self.now, deadline, fresh, timeout is not None)
        self._queue(caller, waiter, is_first)
        return caller

    def _queue(self, caller: Caller, waiter: Waiter, is_first: bool) -> None:
        waiter.task = caller
        caller.waiter = waiter
        self.core.queued(waiter, self.now, is_first)
        self.settle()

    def take(self, endpoint: AnyEndpoint = HERE) -> Entry | None:
        """Take the newest idle connection that is alive, unless others come first."""
        sub = self.sub(endpoint)
        if sub.queue or sub.paused:
            return None
        while (entry := self.core.pop_newest(sub, self.now)) is not None:
            if not entry.link.dead:
                break
            self.core.condemned(entry, CloseReason.PEER_CLOSED, self.now)
        self.settle()
        return entry

    def lend(self, endpoint: AnyEndpoint = HERE) -> Caller:
        """Somebody asks for a connection and gets one, dialled if need be."""
        caller = self.ask(endpoint)
        if caller.is_waiting:
            self.dial_succeeds(endpoint)
        assert caller.entry is not None, caller
        return caller

    def begin(self, caller: Caller) -> None:
        """`caller` runs again: its lease begins, or it must go back, since its connection was closed."""
        entry = caller.entry
        assert entry is not None
        assert not caller.has_begun
        if entry.state is ConnectionState.ACTIVE:
            self._begin(entry, caller)
            self.settle()
            return
        caller.entry = entry.holder = None
        if self.core.is_open:
            sub = self.sub(caller.endpoint)  # what it came from may have been dropped
            self._queue(caller, Waiter((sub,), self.now, math.inf, False), is_first=True)
        else:
            self.callers.remove(caller)

    def cancel(self, caller: Caller) -> None:
        """`caller` is cancelled while it waits, or between hand-over and lease."""
        self.callers.remove(caller)
        if caller.waiter is not None:
            self.core.withdrawn(caller.waiter, self.now)
            caller.waiter = None
        else:
            assert caller.entry is not None
            assert not caller.has_begun
            caller.entry.holder = None
            if caller.entry.state is ConnectionState.ACTIVE:
                self.core.given_back(caller.entry, self.now, unused=True)
        self.settle()

    # ── giving back ─────────────────────────────────────────────────────────────

    def release(self, caller: Caller) -> None:
        """The lease ends, and the connection is clean."""
        entry = self._end_lease(caller)
        if entry.state is ConnectionState.ACTIVE:
            entry.link.idle_since = self.now
            self.core.given_back(entry, self.now)
        self.settle()

    def discard(self, caller: Caller, reason: CloseReason = CloseReason.ERROR) -> None:
        """The lease ends, and the connection is not clean: it is closed by force."""
        entry = self._end_lease(caller)
        if entry.state is ConnectionState.ACTIVE:
            self.core.condemned(entry, reason, self.now)
        self.settle()

    def interrupt(self, caller: Caller) -> None:
        """The connection is closed under its lease, which goes on."""
        assert caller.entry is not None
        self.core.condemned(caller.entry, CloseReason.CLEARED, self.now)
        self.settle()

    def put_back_unused(self, entry: Entry) -> None:
        """What was taken, or reserved for a check, is not wanted after all."""
        self.core.given_back(entry, self.now, unused=True)
        self.settle()

    def reserve(self, entry: Entry) -> None:
        """An idle connection is checked in the background."""
        self.core.reserved(entry, self.now)
        self.settle()

    def check_fails(self, entry: Entry) -> None:
        """The check of a reserved connection has failed."""
        self.core.condemned(entry, CloseReason.UNHEALTHY, self.now)
        self.settle()

    # ── what happens outside ────────────────────────────────────────────────────

    def dial_succeeds(self, which: AnyEndpoint | Entry = HERE) -> Entry:
        """The dial `which`, or the oldest one to that endpoint, succeeds."""
        entry = self._pop_dial(which)
        wire = Wire(self.now)
        wire.cleared = entry.link is not None and entry.link.cleared
        entry.link = wire
        self.core.dialled(entry, self.now)
        self.settle()
        return entry

    def dial_fails(self, which: AnyEndpoint | Entry = HERE) -> Entry:
        """The dial `which`, or the oldest one to that endpoint, fails."""
        entry = self._pop_dial(which)
        self.core.dial_failed(entry, Refused(), self.now)
        self.settle()
        return entry

    def close_ends(self, which: AnyEndpoint | Entry = HERE) -> None:
        """The graceful close `which`, or the oldest one of that endpoint, ends."""
        entry = which if isinstance(which, Entry) else _find(self.closes, which)
        self.closes.remove(entry)
        self.core.closed(entry, self.now)
        self.settle()

    def peer_closes(self, entry: Entry) -> None:
        """The peer closes an open connection; nobody has looked yet."""
        entry.link.dead = True

    def advance(self, seconds: float) -> None:
        """Time passes, and the timer rings as often as the core has asked for."""
        until = self.now + seconds
        assert until < math.inf, "nothing is expected any more"
        while (next_at := self.core.timetable.next_at) <= until:
            self.now = max(self.now, next_at)
            self.core.ticked(self.now)
            self.settle()
        self.now = until
        self.settle()

    def sweep(self) -> None:
        """The reaper looks at everything once."""
        for sub in list(self.core.subs.values()):
            for entry in list(sub.idle):
                if entry.state is ConnectionState.IDLE:
                    reason = CloseReason.PEER_CLOSED if entry.link.dead else None
                    self.core.inspected(entry, reason, self.now)
            self.core.swept(sub, self.now)
        self.settle()

    # ── what the pool is told ───────────────────────────────────────────────────

    def clear(self, endpoint: AnyEndpoint = HERE) -> None:
        sub = self.sub(endpoint)
        for entry in sub.limit.borrowers:
            if entry.link is None:  # still being dialled
                entry.link = Wire(self.now)
            entry.link.cleared = True
        self.core.cleared(sub, self.now)
        self.settle()

    def close_idle(self, endpoint: AnyEndpoint = HERE) -> int:
        count = self.core.close_idle(self.sub(endpoint), CloseReason.CLEARED, self.now)
        self.settle()
        return count

    def pause(self, endpoint: AnyEndpoint = HERE) -> None:
        self.core.paused(self.sub(endpoint))
        self.settle()

    def resume(self, endpoint: AnyEndpoint = HERE) -> None:
        self.core.resumed(self.sub(endpoint), self.now)
        self.settle()

    def set_limit(self, total: int, endpoint: AnyEndpoint = HERE) -> None:
        self.core.limit_set(self.sub(endpoint), total, self.now)
        self.settle()

    def warm(self, count: int, endpoint: AnyEndpoint = HERE) -> Warmer:
        warmer = Warmer(self.sub(endpoint), count)
        self.core.warming_asked(warmer, self.now)
        self.settle()
        return warmer

    def cancel_warming(self, warmer: Warmer) -> None:
        self.core.warming_ended(warmer)
        self.settle()

    def shut(self) -> None:
        """The pool closes; its dials are given up."""
        self.core.shut(self.now)
        for entry in list(self.dials):
            self.dials.remove(entry)
            self.core.dial_failed(entry, None, self.now)
        self.settle()

    # ── the other half of the conversation ──────────────────────────────────────

    def settle(self) -> None:
        """Do what the core wants done, then look whether its books are right."""
        self.perform()
        self.put_back.clear()
        if self.is_watched:
            check(self.core, self.now)

    def perform(self) -> None:
        effects = self.core.effects
        while effects:
            effect = effects.popleft()
            if isinstance(effect, Waiter):
                self._wake(effect)
            elif isinstance(effect, Warmer):
                self.warmed.append(effect)
            elif isinstance(effect, Dial):
                self.dials.append(effect.entry)
            else:
                self._close(effect)

    def _close(self, effect: Close) -> None:
        if effect.gracefully and self.is_courteous:
            self.closes.append(effect.entry)
        else:
            self.core.closed(effect.entry, self.now)

    def _wake(self, waiter: Waiter) -> None:
        caller: Caller = waiter.task
        entry = waiter.entry
        if entry is not None and entry.was_idle and entry.link.dead:
            self.put_back.add(waiter)
            self.core.offer_failed(waiter, CloseReason.PEER_CLOSED, self.now)
            return
        caller.waiter = None
        if entry is None:
            caller.refusal, caller.error = waiter.refusal, waiter.error
            self.callers.remove(caller)
            return
        self._check_turn(waiter, entry)
        self._hand_over(entry, caller)

    def _check_turn(self, waiter: Waiter, entry: Entry) -> None:
        """G13: nobody who came before, and could have had `entry`, still waits."""
        is_new = is_newly_dialled(entry)
        assert is_new or not waiter.fresh, f"{waiter!r} wanted a new connection, got {entry!r}"
        for other in entry.sub.queue:
            if other.number < waiter.number and other not in self.put_back:
                passed_over = is_new or not other.fresh
                assert not passed_over, f"{waiter!r} was served before {other!r} (G13)"

    def _hand_over(self, entry: Entry, caller: Caller) -> None:
        sub, wire = entry.sub, entry.link
        assert not sub.paused, f"{entry!r} is lent in a pause"
        assert wire.leases < sub.max_uses, f"{entry!r} is used up (G21)"
        assert self.now - wire.opened_at < sub.config.max_connection_lifetime, "too old (G21)"
        if entry.was_idle:
            assert self.now - wire.idle_since < sub.max_idle_time, "idle for too long (G21)"
        assert all(other.entry is not entry for other in self.callers), f"{entry!r} is lent (G2)"
        caller.entry = entry
        caller.has_begun = False
        entry.holder = caller
        if not self.is_lazy:
            self._begin(entry, caller)

    def _begin(self, entry: Entry, caller: Caller) -> None:
        assert entry.state is ConnectionState.ACTIVE, entry
        assert entry.leases == 0, f"{entry!r} is lent already (G2)"
        assert not entry.link.cleared, f"{entry!r} was cleared (G24)"
        entry.link.leases += 1
        entry.lent_at = self.now
        caller.has_begun = True
        self.core.lease_began(entry, 0.0)

    def _end_lease(self, caller: Caller) -> Entry:
        entry = caller.entry
        assert entry is not None, caller
        caller.entry = None
        self.callers.remove(caller)
        entry.holder = None
        self.core.lease_ended(entry, self.now)
        return entry

    def _pop_dial(self, which: AnyEndpoint | Entry) -> Entry:
        entry = which if isinstance(which, Entry) else _find(self.dials, which)
        self.dials.remove(entry)
        return entry


def lend_many(shell: Shell, count: int) -> list[Caller]:
    """That many ask for connections and get one each."""
    return [shell.lend() for _ in range(count)]


def ids(shell: Shell) -> list[int]:
    """The numbers of the idle connections, the oldest first."""
    return [entry.id for entry in shell.sub().idle]


def close_reasons(shell: Shell) -> dict[CloseReason, int]:
    """How many connections were closed for each reason."""
    return shell.sub().counters.by_reason


def is_newly_dialled(entry: Entry) -> bool:
    """Whether nobody has had `entry` yet, and it was not laid aside either."""
    return not entry.uses and not entry.was_idle


def _find(entries: list[Entry], endpoint: AnyEndpoint) -> Entry:
    return next(entry for entry in entries if entry.sub.endpoint == endpoint)
