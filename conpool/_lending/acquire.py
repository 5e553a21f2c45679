"""Lending: from the moment somebody asks for a connection to the moment the lease has ended.

The way of an acquire:

1. One check for cancellation, before anything is taken.
2. An idle connection that passes the look is taken at once; one full checkpoint follows, so that lending
   is fair to other tasks, and a cancellation that arrives there puts the connection back.
3. Otherwise the task queues, and sleeps (`_waiting`) until it is served or refused.
4. A connection that was idle may have to be checked with its peer first. If it fails, the caller goes
   back to the head of the queue; after two failures it wants a new connection, so that a server that has
   restarted cannot make it try all the dead ones in turn.
5. The lease begins: only now do the counters and the observers hear of it.

Between taking a connection and owning it there is no await that could lose it: wherever one
follows, `except BaseException` gives it back.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast, final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, current_task, enable_ki_protection

from conpool._connection.exchange import CUT_RECEIVE
from conpool._connection.hand_over import why_not_clean
from conpool._core.records import Waiter, WaitOutcome
from conpool._engine.engine import describe
from conpool._engine.holders import find_holders
from conpool._errors.connect import ConnectError
from conpool._errors.pool import AcquireTimeout, PoolClosed, QueueFull
from conpool._lending.lease import Connection, end_lease, held_entry
from conpool._lending.peer_check import ask, check
from conpool._lending.waiting import park
from conpool._values.group import valid_target
from conpool._values.states import AcquirePhase, CloseReason, ConnectionState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conpool._core.records import Entry, SubPool
    from conpool._engine.engine import Engine
    from conpool._lending.peer_check import HealthCheck
    from conpool._values.group import Target

_ACTIVE = ConnectionState.ACTIVE

_FAILED_CHECKS_BEFORE_FRESH = 2
"""One dead connection is chance, two in a row are a server that has restarted."""


class Block(Protocol):
    """Where a lease is kept for the length of a block."""

    lease: Connection[Any] | None


@final
class Lender:
    """Lends the connections of one pool and takes them back."""

    __slots__ = (
        "_announcer",
        "_core",
        "_engine",
        "_health_check",
        "_name",
        "_subs",
        "_thread",
        "_token",
    )

    def __init__(self, engine: Engine, health_check: HealthCheck | None, name: str) -> None:
        self._engine = engine
        self._core = engine.core
        self._subs: Mapping[Any, SubPool] = engine.core.subs
        self._announcer = engine.announcer
        self._health_check = health_check
        self._name = name
        self._thread = 0
        self._token: trio.lowlevel.TrioToken | None = None

    def open(self) -> None:
        """Lend from now on, in this run and thread only."""
        self._thread = get_ident()
        self._token = trio.lowlevel.current_trio_token()

    # ── acquire ─────────────────────────────────────────────────────────────────

    @enable_ki_protection
    async def acquire(
        self,
        endpoint: Target,
        timeout: float | None,
        fresh: bool,
        block: Block | None = None,
    ) -> Connection[Any]:
        """Lend a connection to `endpoint` within `timeout` seconds; `fresh`: a new one.

        If it is for a `block`, the lease is noted there, in the step in which it begins.
        """
        sub = self._subs.get(endpoint)
        if sub is None or not sub.queue or len(sub.limit.borrowers) < sub.limit.total:
            await checkpoint_if_cancelled()
        # Else this task can only join a queue, and there trio turns away those who are cancelled.
        started = self._engine.now()
        if sub is None or self._thread != get_ident():
            sub = self._open_books(endpoint, started)
        if self._announcer.acquire_started:
            self._engine.note(self._announcer.acquire_started, endpoint)
            self._engine.deliver_news()
        deadline = started + (sub.acquire_timeout if timeout is None else timeout)
        now = started
        entry = None
        try:
            if self._health_check is not None:
                entry = await self._obtain_checked(sub, deadline, fresh, started)
                now = self._engine.now()
            elif not fresh and not sub.queue and (entry := self._take(sub, started)) is not None:
                await checkpoint()
            while entry is None or entry.state is not _ACTIVE:  # closed meanwhile, by force
                had_turn = entry is not None
                entry = None
                if had_turn:  # nobody may have needed the books meanwhile: they may be dropped
                    sub = self._open_books(endpoint, now)
                waiter = Waiter((sub,), started, deadline, fresh, timeout is not None)
                entry = await self._wait(waiter, sub, now, had_turn)
                now = self._engine.now()
        except BaseException as exc:
            if entry is not None:
                self._put_back(entry)
            self._failed(sub, exc, started)
            raise
        lease = self._begin(entry, now, now - started)
        if block is not None:
            block.lease = lease
        return lease

    def acquire_nowait(self, endpoint: Target) -> Connection[Any]:
        """Lend an idle connection, unchecked, or raise `trio.WouldBlock`."""
        self.refuse_if_closed()
        now = self._engine.now()
        sub = self._subs.get(valid_target(endpoint))
        entry = None if sub is None else self._take(sub, now)
        if entry is None:
            raise trio.WouldBlock
        self._engine.note(self._announcer.acquire_started, endpoint)
        lease = self._begin(entry, now, 0.0)
        self._engine.deliver_news()
        return lease

    def _open_books(self, endpoint: Target, now: float) -> SubPool:
        self.refuse_if_closed()
        return self._core.find_subpool(valid_target(endpoint), now)

    async def _wait(
        self, waiter: Waiter, sub: SubPool, now: float, is_first: bool = False
    ) -> Entry:
        """Queue for a connection; return it once it is this task's own."""
        if not self._core.is_open:
            self.refuse_if_closed()
        if waiter.deadline <= now:
            await checkpoint()
            self._time_out(sub, "queue", waiter.since)
        if len(sub.limit.borrowers) < sub.limit.total and trio.current_effective_deadline() <= now:
            await checkpoint()  # raises: trio just has not said yet that this task is cancelled
        if sub.max_waiting is not None and not (is_first or self._core.may_queue(sub, now)):
            await checkpoint()
            raise QueueFull(endpoint=sub.endpoint, stats=sub.snapshot(), pool_name=self._name)
        self._core.queued(waiter, now, is_first)
        try:
            self._engine.settle()
            if waiter.queued:
                await park(waiter, self._engine)
            if waiter.entry is None:
                self._raise_refusal(waiter, sub)
            await checkpoint_if_cancelled()  # that may have come after the hand-over
        except BaseException:
            self._give_up(waiter)
            raise
        return waiter.entry

    async def _obtain_checked(
        self, sub: SubPool, deadline: float, fresh: bool, started: float
    ) -> Entry:
        """Return a connection whose peer has been asked, if it was idle for long enough."""
        failed = 0
        had_turn = False
        while True:
            now = self._engine.now()
            if had_turn:  # nobody may have needed the books meanwhile: they may be dropped
                sub = self._open_books(sub.endpoint, now)
            entry = None if fresh else self._take(sub, now)
            if entry is None:
                waiter = Waiter((sub,), started, deadline, fresh)
                entry = await self._wait(waiter, sub, now, is_first=had_turn)
            had_turn = True
            try:
                reason = await self._check(entry, deadline, started)
            except BaseException as exc:
                self._put_back(entry, exc)
                raise
            if entry.state is not _ACTIVE:
                continue  # closed meanwhile, by force; the next one must be asked as well
            if reason is None:
                return entry
            now = self._engine.now()
            self._core.condemned(entry, reason, now)
            self._engine.perform()
            if now >= deadline:
                self._time_out(sub, "check", started)
            failed += 1
            fresh = fresh or failed >= _FAILED_CHECKS_BEFORE_FRESH

    def _take(self, sub: SubPool, now: float) -> Entry | None:
        """Take the newest idle connection that is fit to be lent, unless others come first."""
        if sub.queue or sub.paused:
            return None
        core = self._core
        while (entry := core.pop_newest(sub, now)) is not None:
            if not entry.link.poll(0) or (reason := entry.link.probe()) is None:
                break
            core.condemned(entry, reason, now)
        if core.effects:
            try:
                self._engine.perform()
            except BaseException:  # an observer's
                if entry is not None:
                    self._put_back(entry)
                raise
            if entry is not None and entry.state is not _ACTIVE:  # an observer cleared the pool
                return self._take(sub, now)
        return entry

    def _give_up(self, waiter: Waiter) -> None:
        """Leave nothing of a waiter that goes without its connection."""
        if waiter.queued:  # it has not slept, so nobody has taken it out
            self._core.withdrawn(waiter, self._engine.now())
            self._engine.perform_quietly()
        elif waiter.entry is not None:
            self._put_back(waiter.entry)

    def _put_back(self, entry: Entry, exc: BaseException | None = None) -> None:
        """Give back a connection that was taken and not lent, perhaps amid a check (`exc`)."""
        entry.holder = None
        if entry.state is not _ACTIVE:
            return
        now = self._engine.now()
        reason = why_not_clean(entry.link, exc if entry.link.exchange.taints else None)
        if reason is None:
            self._core.given_back(entry, now, unused=True)
        else:
            self._core.condemned(entry, reason, now)
        self._engine.perform()

    def _begin(self, entry: Entry, now: float, waited: float) -> Connection[Any]:
        """Begin the lease: the connection is the caller's from here on."""
        entry.holder = current_task()
        entry.lent_at = now
        self._core.lease_began(entry, waited)
        lease: Connection[Any] = Connection(self, entry)
        announcer = self._announcer
        if announcer.acquired or announcer.reused:
            info = describe(entry)
            if entry.uses > 1:
                self._engine.note(announcer.reused, info)
            self._engine.note(announcer.acquired, info, waited)
            self._engine.deliver_news()
        return lease

    # ── checks ──────────────────────────────────────────────────────────────────

    async def _check(self, entry: Entry, deadline: float, started: float) -> CloseReason | None:
        """Ask the peer of a connection that this task has taken, if that is due."""
        now = self._engine.now()
        config = entry.sub.config
        if not entry.was_idle or now - entry.idle_since < config.health_check_after:
            await checkpoint()
            return None
        if deadline <= now:  # a check that cannot end would cost a connection that is in order
            await checkpoint()
            self._time_out(entry.sub, "check", started)
        assert self._health_check is not None
        entry.holder = current_task()
        entry.lent_at = now
        timeout = min(config.health_check_timeout, deadline - now)
        reason = await check(Connection(self, entry), entry, self._health_check, timeout)
        await checkpoint_if_cancelled()
        return reason

    async def is_healthy(self, lease: Connection[Any]) -> bool:
        """Look at a lent connection, and ask its peer if there is a way to."""
        entry = held_entry(lease)
        if entry.link.exchange.in_progress:
            raise trio.BusyResourceError(f"{lease!r} is being read from or written to")
        if entry.state is not _ACTIVE:  # its file is closed, and may be somebody else's by now
            await checkpoint()
            return False
        if entry.link.probe() is not None:
            entry.link.exchange.taints |= CUT_RECEIVE  # what the look has read is gone
            await checkpoint()
            return False
        if self._health_check is None:
            await checkpoint()
            return True
        timeout = entry.sub.config.health_check_timeout
        return await ask(lease, self._health_check, timeout)

    # ── the end of a lease ──────────────────────────────────────────────────────

    def give_back(self, lease: Connection[Any], exc: BaseException | None) -> None:
        """End the lease with `exc`; keep the connection if that is safe."""
        entry = end_lease(lease)
        if (
            entry is None or not entry.leases
        ):  # ended, or a health hook's: `check` will why_not_clean
            return
        now = self._engine.now()
        self._enter_end(entry, now)
        if entry.state is _ACTIVE:
            link = entry.link
            wire = link.exchange
            if exc is not None or wire.taints or wire.in_progress:
                reason = why_not_clean(link, exc)
            else:
                reason = link.probe() if link.poll(0) else None
            if reason is None:
                self._core.given_back(entry, now)
            else:
                self._core.condemned(entry, _blame(entry, reason), now)
        self._engine.settle()

    def discard(self, lease: Connection[Any]) -> None:
        """End the lease and close the connection, by force."""
        entry = end_lease(lease)
        if entry is not None:
            self._drop(entry, CloseReason.DISCARDED)

    def detach(self, lease: Connection[Any]) -> trio.abc.Stream:
        """End the lease and hand the stream over."""
        stream = cast("trio.abc.Stream", held_entry(lease).link.stream)
        entry = end_lease(lease)
        assert entry is not None
        self._drop(entry, CloseReason.DETACHED)
        return stream

    def dropped(self, entry: Entry) -> None:
        """The lease of `entry` was garbage-collected: take the connection back, and complain.

        Garbage is collected at any time, in the midst of a change to the books or in another thread, so
        nothing may be changed here.
        """
        assert self._token is not None  # there was a lease, so the pool has been opened
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._drop, entry, CloseReason.DISCARDED)
        if entry.state is not _ACTIVE:
            return  # the pool closed it under its lease: nothing was withheld from anybody
        holder = entry.holder
        name = "unknown" if holder is None else holder.name
        warnings.warn(
            f"a connection to {entry.sub.endpoint} that task {name!r} acquired was never released",
            ResourceWarning,
            stacklevel=2,
        )

    def _drop(self, entry: Entry, reason: CloseReason) -> None:
        now = self._engine.now()
        if entry.leases:  # a health hook's handle is no lease
            self._enter_end(entry, now)
        if entry.state is _ACTIVE:
            self._core.condemned(entry, reason, now)
        self._engine.settle()

    def _enter_end(self, entry: Entry, now: float) -> None:
        """Enter the end of the lease; what becomes of the connection is the next step."""
        self._core.lease_ended(entry, now)
        entry.holder = None
        if self._announcer.released:
            self._engine.note(self._announcer.released, describe(entry), now - entry.lent_at)

    # ── what goes wrong ─────────────────────────────────────────────────────────

    def refuse_if_closed(self) -> None:
        """Raise `PoolClosed` unless the pool is open; `RuntimeError` in another thread than its own."""
        if self._thread != get_ident():
            if self._thread == 0:
                raise PoolClosed(f"pool {self._name} is not open: use `async with`")
            raise RuntimeError(f"pool {self._name} belongs to another thread")
        if not self._core.is_open:
            raise PoolClosed(f"pool {self._name} is closed")

    def _raise_refusal(self, waiter: Waiter, sub: SubPool) -> NoReturn:
        if waiter.refusal is WaitOutcome.DIAL_FAILED:
            assert waiter.error is not None
            raise waiter.error
        if waiter.refusal is WaitOutcome.POOL_CLOSED:
            raise PoolClosed(
                f"pool {self._name} was closed while this task waited for a connection"
            )
        phase: AcquirePhase = "queue" if waiter.dial is None else "connect"
        self._time_out(sub, phase, waiter.since, in_deadlock=waiter.in_deadlock)

    def _time_out(
        self, sub: SubPool, phase: AcquirePhase, started: float, *, in_deadlock: bool = False
    ) -> NoReturn:
        now = self._engine.now()
        holders = find_holders(sub, now)
        last_error = cast("ConnectError | None", sub.last_error)
        raise AcquireTimeout(
            endpoint=sub.endpoint,
            phase=phase,
            waited=now - started,
            stats=sub.snapshot(),
            holders=holders.lines,
            deadlock=in_deadlock,
            held_by_caller=holders.held_by_caller,
            last_connect_error=last_error,
            pool_name=self._name,
        ) from last_error

    def _failed(self, sub: SubPool, exc: BaseException, started: float) -> None:
        """Enter an acquire that came to nothing, and tell the observers."""
        if isinstance(exc, AcquireTimeout):
            sub.counters.acquire_timeouts += 1
        elif isinstance(exc, trio.Cancelled):
            sub.counters.acquire_cancelled += 1
        waited = self._engine.now() - started
        self._engine.note(self._announcer.acquire_failed, sub.endpoint, exc, waited)
        self._engine.perform()


def _blame(entry: Entry, reason: CloseReason) -> CloseReason:
    """A peer that said it would close, and did, has not surprised anyone."""
    if entry.retired and reason is CloseReason.PEER_CLOSED:
        return CloseReason.DISCARDED
    return reason
