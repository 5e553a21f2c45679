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
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast, final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, current_task, enable_ki_protection

from conpool._endpoint import Endpoint, UnixEndpoint
from conpool._engine import describe
from conpool._errors import AcquireTimeout, ConnectError, PoolClosed, QueueFull
from conpool._group import EndpointGroup
from conpool._health import ask, check
from conpool._holders import find_holders
from conpool._lease import Connection, end_lease, held_entry
from conpool._states import CloseReason, ConnectionState
from conpool._verdict import judge
from conpool._waiter import Refusal, Waiter
from conpool._waiting import park
from conpool._wire import CUT_RECEIVE

if TYPE_CHECKING:
    from conpool._endpoint import AnyEndpoint
    from conpool._engine import Engine
    from conpool._entry import Entry
    from conpool._group import Target
    from conpool._health import HealthCheck
    from conpool._subpool import SubPool

_ACTIVE = ConnectionState.ACTIVE

_FAILED_CHECKS_BEFORE_FRESH = 2
"""One dead connection is chance, two in a row are a server that has restarted."""


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
        self._subs = engine.core.subs
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
        self, endpoint: Target, timeout: float | None, fresh: bool
    ) -> Connection[Any]:
        """Lend a connection to `endpoint` within `timeout` seconds; `fresh`: a new one."""
        await checkpoint_if_cancelled()
        started = trio.current_time()
        if self._announcer.acquire_started:
            self._engine.note(self._announcer.acquire_started, endpoint)
            self._engine.deliver_news()
        sub = self._subs.get(cast("AnyEndpoint", endpoint))
        if sub is None or fresh or self._health_check is not None or self._thread != get_ident():
            return await self._acquire_slowly(endpoint, timeout, fresh, started)
        entry = self._take(sub, started)
        if entry is None:
            return await self._acquire_slowly(endpoint, timeout, fresh, started)
        try:
            await checkpoint()
        except BaseException as exc:
            self._put_back(entry)
            self._failed(sub, exc, started)
            raise
        if entry.state is not _ACTIVE:  # closed meanwhile: the pool shuts, or was cleared by force
            return await self._acquire_slowly(endpoint, timeout, fresh, started)
        return self._begin(entry, started)

    def acquire_nowait(self, endpoint: Target) -> Connection[Any]:
        """Lend an idle connection, unchecked, or raise `trio.WouldBlock`."""
        self.refuse_if_closed()
        now = trio.current_time()
        sub = self._subs.get(check_target(endpoint))
        entry = None if sub is None else self._take(sub, now)
        if entry is None:
            raise trio.WouldBlock
        self._engine.note(self._announcer.acquire_started, endpoint)
        return self._begin(entry, now)

    async def _acquire_slowly(
        self, endpoint: Target, timeout: float | None, fresh: bool, started: float
    ) -> Connection[Any]:
        self.refuse_if_closed()
        sub = self._core.find_subpool(check_target(endpoint), started)
        if timeout is None:
            timeout = sub.config.acquire_timeout
        deadline = started + timeout
        try:
            entry = await self._obtain(sub, deadline, fresh, started)
        except BaseException as exc:
            self._failed(sub, exc, started)
            raise
        return self._begin(entry, started)

    async def _obtain(
        self, sub: SubPool, deadline: float, fresh: bool, started: float
    ) -> Entry:
        """Return a connection that is this task's own, sound, and not yet lent."""
        failed_checks = 0
        while True:
            entry, was_idle = await self._take_or_wait(
                sub, deadline, fresh, started, is_first=failed_checks > 0
            )
            try:
                await checkpoint_if_cancelled()  # it may have come after the hand-over
                if not was_idle or not self._needs_check(entry):
                    reason = None
                else:
                    reason = await self._check(entry, deadline)
            except BaseException as exc:
                self._put_back(entry, exc)
                raise
            if entry.state is not _ACTIVE:  # closed under us
                self.refuse_if_closed()
                continue
            if reason is None:
                return entry
            now = trio.current_time()
            self._core.condemned(entry, reason, now)
            self._engine.perform()
            if now >= deadline:
                self._time_out(sub, "check", started)
            failed_checks += 1
            fresh = fresh or failed_checks >= _FAILED_CHECKS_BEFORE_FRESH

    async def _take_or_wait(
        self, sub: SubPool, deadline: float, fresh: bool, started: float, *, is_first: bool
    ) -> tuple[Entry, bool]:
        """Take a connection, or queue for one; also say whether it had been idle."""
        self.refuse_if_closed()
        now = trio.current_time()
        if not fresh and (entry := self._take(sub, now)) is not None:
            try:
                await checkpoint()
            except BaseException:
                self._put_back(entry)
                raise
            return entry, True
        if deadline <= now:
            await checkpoint()
            self._time_out(sub, "queue", started)
        if trio.current_effective_deadline() <= now:
            await checkpoint()  # it is cancelled, trio just has not said so yet
        if not is_first and not self._core.may_queue(sub, now):
            raise QueueFull(endpoint=sub.endpoint, stats=sub.snapshot(), pool_name=self._name)
        waiter = Waiter((sub,), deadline=deadline, fresh=fresh)
        self._core.queued(waiter, now, is_first=is_first)
        self._engine.perform()
        if waiter.queued:
            await park(waiter, self._engine)
        if waiter.entry is not None:
            return waiter.entry, waiter.was_idle
        self._raise_refusal(waiter, sub, started)

    def _take(self, sub: SubPool, now: float) -> Entry | None:
        """Take the newest idle connection that is fit to be lent, unless others come first."""
        if sub.queue or sub.paused:
            return None
        core = self._core
        while (entry := core.take_idle(sub, now)) is not None:
            reason = entry.link.look()
            if reason is None:
                break
            core.condemned(entry, reason, now)
        if core.effects:
            self._engine.perform()
        return entry

    def _put_back(self, entry: Entry, exc: BaseException | None = None) -> None:
        """Give back a connection that was taken and not lent, perhaps amid a check (`exc`)."""
        entry.holder = None
        if entry.state is not _ACTIVE:
            return
        now = trio.current_time()
        reason = judge(entry.link, exc if entry.link.wire.marks else None)
        if reason is None:
            self._core.given_back(entry, now, unused=True)
        else:
            self._core.condemned(entry, reason, now)
        self._engine.perform()

    def _begin(self, entry: Entry, started: float) -> Connection[Any]:
        """Begin the lease: the connection is the caller's from here on."""
        now = trio.current_time()
        entry.holder = current_task()
        entry.lent_at = now
        waited = now - started
        self._core.lent(entry, waited)
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

    def _needs_check(self, entry: Entry) -> bool:
        if self._health_check is None:
            return False
        idle_time = trio.current_time() - entry.idle_since
        return idle_time >= entry.sub.config.health_check_after

    async def _check(self, entry: Entry, deadline: float) -> CloseReason | None:
        """Ask the peer of a connection that this task has taken."""
        assert self._health_check is not None
        now = trio.current_time()
        entry.holder = current_task()
        entry.lent_at = now
        timeout = min(entry.sub.config.health_check_timeout, deadline - now)
        return await check(Connection(self, entry), entry, self._health_check, timeout)

    async def is_healthy(self, lease: Connection[Any]) -> bool:
        """Look at a lent connection, and ask its peer if there is a way to."""
        entry = held_entry(lease)
        if entry.link.look() is not None:
            entry.link.wire.marks |= CUT_RECEIVE  # what the look has read is gone
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
        if entry is None:
            return
        now = trio.current_time()
        self._end(entry, now)
        if entry.state is _ACTIVE:
            link = entry.link
            wire = link.wire
            if exc is None and not wire.marks and not wire.in_progress:
                reason = link.look()
            else:
                reason = judge(link, exc)
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
        if entry.state is not _ACTIVE or self._token is None:
            return
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._drop, entry, CloseReason.DISCARDED)
        holder = entry.holder
        name = "unknown" if holder is None else holder.name
        warnings.warn(
            f"a connection to {entry.sub.endpoint} that task {name!r} acquired was never released",
            ResourceWarning,
            stacklevel=2,
        )

    def _drop(self, entry: Entry, reason: CloseReason) -> None:
        now = trio.current_time()
        self._end(entry, now)
        if entry.state is _ACTIVE:
            self._core.condemned(entry, reason, now)
        self._engine.settle()

    def _end(self, entry: Entry, now: float) -> None:
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

    def _raise_refusal(self, waiter: Waiter, sub: SubPool, started: float) -> NoReturn:
        if waiter.refusal is Refusal.DIAL_FAILED:
            assert waiter.error is not None
            raise waiter.error
        if waiter.refusal is Refusal.POOL_CLOSED:
            raise PoolClosed(f"pool {self._name} was closed while this task waited for a connection")
        self._time_out(sub, "queue" if waiter.dial is None else "connect", started)

    def _time_out(
        self, sub: SubPool, phase: Literal["queue", "connect", "check"], started: float
    ) -> NoReturn:
        now = trio.current_time()
        holders = find_holders(sub, now)
        last_error = cast("ConnectError | None", sub.last_error)
        raise AcquireTimeout(
            endpoint=sub.endpoint,
            phase=phase,
            waited=now - started,
            stats=sub.snapshot(),
            holders=holders.lines,
            deadlock=holders.is_deadlock,
            held_by_caller=holders.held_by_caller,
            last_connect_error=last_error,
            pool_name=self._name,
        ) from last_error

    def _failed(self, sub: SubPool, exc: BaseException, started: float) -> None:
        """Enter an acquire that came to nothing, and tell the observers."""
        if isinstance(exc, AcquireTimeout):
            sub.tally.acquire_timeouts += 1
        elif isinstance(exc, trio.Cancelled):
            sub.tally.acquire_cancelled += 1
        waited = trio.current_time() - started
        self._engine.note(self._announcer.acquire_failed, sub.endpoint, exc, waited)
        self._engine.perform()


def check_target(target: Target) -> AnyEndpoint:
    """Return `target` if a pool can lend connections to it.

    Raises:
        TypeError: It is no endpoint.
        NotImplementedError: It is a group; pools do not serve those yet.
    """
    if isinstance(target, (Endpoint, UnixEndpoint)):
        return target
    if isinstance(target, EndpointGroup):
        raise NotImplementedError("lending from an EndpointGroup comes with a later release")
    raise TypeError(f"not an endpoint: {target!r}")


def _blame(entry: Entry, reason: CloseReason) -> CloseReason:
    """A peer that said it would close, and did, has not surprised anyone."""
    if entry.retired and reason is CloseReason.PEER_CLOSED:
        return CloseReason.DISCARDED
    return reason
