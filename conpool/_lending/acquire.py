"""Lending: from the moment a caller asks for a connection until its lease begins.

1. The idle hit: an idle connection that passes the probe is taken. A full checkpoint follows, so
   that lending is fair; a cancellation that arrives there puts the connection back.
2. Every other caller queues, as a `Waiter`, for whatever comes first: a connection that is given
   back, one that is dialled, or an idle one that the background has checked. If the pool has closed
   it before its new owner wakes, the waiter queues again, in its old place.
3. The lease begins: only now do the counters and the observers hear of it.

No await between taking a connection and owning it can lose it: whatever this task has taken stands
in its waiter or in `entry`, and one `except BaseException` puts it back.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from threading import get_ident
from typing import Any, NoReturn, Protocol, final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, current_task, enable_ki_protection

from conpool._connection.pooled import PooledEntry, PooledSub, PooledWaiter
from conpool._core.affinity import remember
from conpool._core.balancer import is_hopeless, why_unusable
from conpool._core.chores import PIECE
from conpool._core.keeping import needs_check
from conpool._core.records import Waiter
from conpool._core.straight import begin, take
from conpool._engine.engine import Engine
from conpool._engine.room import with_room
from conpool._errors.pool import PoolClosed
from conpool._lending.lease import Connection
from conpool._lending.refusal import make_no_healthy, make_refusal
from conpool._lending.release import Releaser
from conpool._lending.undoing import Undoing
from conpool._lending.waiting import park, refuse_if_hopeless
from conpool._values.group import EndpointGroup, Target, members_of, valid_endpoint
from conpool._values.states import CloseReason, ConnectionState, PoolState

_IDLE = ConnectionState.IDLE
_ACTIVE = ConnectionState.ACTIVE
_OPEN = PoolState.OPEN


class Block(Protocol):
    """Where a lease is noted that begins for an `async with` block."""

    connection: Any


@final
class Acquirer:
    """Lends the connections of one pool."""

    __slots__ = (
        "_core",
        "_engine",
        "_is_watched",
        "_name",
        "_news",
        "_releaser",
        "_sharer",
        "_subs",
        "_take_fit",
        "_take_idle",
        "_undoing",
    )

    def __init__(self, engine: Engine, releaser: Releaser, name: str) -> None:
        self._engine = engine
        self._core = engine.core
        self._news = engine.news
        self._subs: Mapping[Any, PooledSub] = engine.core.subs
        self._releaser = releaser
        self._undoing = Undoing(engine, releaser)
        is_checked = releaser.peer_check.is_set
        self._take_idle = self._take_unless_due if is_checked else self._take
        self._take_fit = self._join_or_take if engine.rules.shares else self._take_idle
        """Takes an idle connection for a caller that can wait for a check."""
        self._is_watched = self._news.watches_leases
        self._name = name
        self._sharer = releaser.sharer

    @enable_ki_protection
    async def acquire(
        self,
        endpoint: Target,
        timeout: float | None,
        fresh: bool,
        affinity: Hashable = None,
        block: Block | None = None,
    ) -> Connection[Any]:
        """Lend a connection to `endpoint` within `timeout` seconds; `fresh`: a new one.

        With `affinity`, an idle one that has last served that key comes first.
        If it is for a `block`, the lease is noted there, in the step in which it begins.
        """
        try:
            sub = self._subs.get(endpoint)
        except TypeError:
            members_of(endpoint)  # it cannot be hashed, and so is no endpoint
            raise
        now = self._engine.now()
        if (
            sub is not None
            and sub.is_straight
            and not fresh
            and affinity is None
            and self._engine.lends_in == get_ident()
        ):
            if sub.waiting:
                if len(sub.limit.borrowers) >= sub.limit.total:
                    return await self._wait(sub, timeout, block, now)
                entry = None
            elif (entry := take(sub, now)) is not None:
                try:
                    if entry.link.poll(0):
                        self._undoing.keep(entry)  # it needs a closer look
                        entry = None
                    else:
                        await checkpoint()
                        if entry.state is _ACTIVE and sub.is_straight:
                            lease = begin(entry, current_task(), now)
                            connection: Connection[Any] = Connection(self._releaser, lease)
                            if block is not None:
                                block.connection = connection
                            return connection
                except BaseException as exc:
                    self._undoing.undo_hit(sub, entry, exc, now)
                    raise
        else:
            entry = None
        return await self._acquire(
            endpoint, sub, timeout, fresh, affinity=affinity, block=block, since=now, entry=entry
        )

    async def _wait(
        self, sub: PooledSub, timeout: float | None, block: Block | None, since: float
    ) -> Connection[Any]:
        """Lend a connection of `sub`, which is straight; all are lent, and others wait, too."""
        core, engine = self._core, self._engine
        deadline = since + (sub.acquire_timeout if timeout is None else timeout)
        waiter: PooledWaiter = Waiter((sub,), since, deadline, False)
        try:
            if deadline <= since or sub.max_waiting is not None:
                await refuse_if_hopeless(waiter, sub, core, since, pool_name=self._name)
            core.queued(waiter, since)  # `Engine.report`, spelled out
            if core.touched or core.timetable.next_at < engine.background.rings_at:
                engine.perform(since)
            if waiter.queued:
                await park(waiter, engine)
            else:  # it was answered at once
                await checkpoint()
            entry = waiter.entry
            if entry is None:
                self._raise_refusal(waiter, sub)
            # A cancellation may have arrived between hand-over and our waking.
            await checkpoint_if_cancelled()
            now = engine.now()
            if entry.state is not _ACTIVE or entry.generation != sub.generation:
                sub = self._put_back_in_line(waiter, entry, sub, now)
                entry = await self._obtain(waiter, sub, now)
                now = engine.now()
            lease = core.lease_began(entry, current_task(), now - since, now)
        except BaseException as exc:
            self._undoing.undo_wait(sub, waiter, exc, since)
            raise
        connection: Connection[Any] = Connection(self._releaser, lease)
        if block is not None:
            block.connection = connection
        return connection

    async def _acquire(
        self,
        endpoint: Target,
        sub: PooledSub | None,
        timeout: float | None,
        fresh: bool,
        *,
        affinity: Hashable,
        block: Block | None,
        since: float,
        entry: PooledEntry | None,
    ) -> Connection[Any]:
        """Lend a connection that was asked for at `since`, in any other way than the straight line.

        If there is an `entry`, it was taken, and closed since or not: an await could lose it here.
        """
        # Where others wait and all are lent, this task parks, which is a cancellation point itself.
        if entry is None and (
            sub is None or not sub.waiting or len(sub.limit.borrowers) < sub.limit.total
        ):
            await checkpoint_if_cancelled()
        if sub is None or (entry is None and self._engine.lends_in != get_ident()):
            sub = await self._open(endpoint, since, fresh)
        now = since
        waiter: PooledWaiter | None = None
        try:
            if self._is_watched:
                self._news.add(self._news.acquire_started, sub.endpoint)
                self._news.deliver()
            if not (fresh or sub.waiting or entry):
                entry = self._take_fit(sub, since, affinity)
                if entry is not None:
                    await checkpoint()
            if entry is None or entry.state is not _ACTIVE or entry.generation != sub.generation:
                # None was idle; or `clear` or the closing pool closed it amid the checkpoint.
                waiter = self._make_waiter(endpoint, sub, since, timeout, fresh)
                if entry is not None:
                    waiter.had_turn = True
                    self._undoing.keep(entry)
                    entry = None
                entry = await self._obtain(waiter, sub, since)
                now = self._engine.now()
            lease = self._core.lease_began(entry, current_task(), now - since, now)
        except BaseException as exc:
            with_room(partial(self._undoing.roll_back, sub, waiter, entry, exc, since))
            raise
        connection: Connection[Any] = Connection(self._releaser, lease)
        if affinity is not None:
            remember(entry, affinity)
        if block is not None:
            block.connection = connection
        if self._is_watched:
            self._tell_acquired(connection, entry, now - since)
        return connection

    def acquire_nowait(self, endpoint: Target) -> Connection[Any]:
        """Lend an idle connection, unchecked, or raise `trio.WouldBlock`."""
        self.refuse_if_closed()
        now = self._engine.now()
        holder = current_task()
        take = self._join_or_take if self._engine.rules.shares else self._take
        entry: PooledEntry | None = None
        for sub in self._find_known(endpoint, now):
            entry = take(sub, now, None)
            if entry is not None:
                break
        if entry is None:
            raise trio.WouldBlock
        self._news.add(self._news.acquire_started, entry.sub.endpoint)
        lease = self._core.lease_began(entry, holder, 0.0, now)
        connection: Connection[Any] = Connection(self._releaser, lease)
        self._tell_acquired(connection, entry, 0.0)
        return connection

    def refuse_if_closed(self) -> None:
        """Raise `PoolClosed` unless the pool is open; `RuntimeError` in another thread."""
        self._releaser.refuse_other_thread()
        if self._core.state is PoolState.NEW:
            raise PoolClosed(f"pool {self._name} is not open: use `async with`")
        if self._core.state is not PoolState.OPEN:
            raise PoolClosed(f"pool {self._name} is closed")

    async def _open(self, target: Target, now: float, fresh: bool) -> PooledSub:
        """Return the sub-pool of `target`; of a group, that of the member whose turn it is."""
        self.refuse_if_closed()
        if not isinstance(target, EndpointGroup):
            return self._core.find_subpool(valid_endpoint(target), now)
        sub = self._core.balancer.pick(target, now, fresh=fresh)
        if not sub.gate.is_usable(now):  # nor is any other
            members = self._core.balancer.find_members(target, now)
            if is_hopeless(members, now, fresh=fresh):
                await checkpoint()
                raise make_no_healthy(why_unusable(members, now))
        return sub

    def _make_waiter(
        self, target: Target, sub: PooledSub, now: float, timeout: float | None, fresh: bool
    ) -> PooledWaiter:
        """Make the waiter of a caller that wants `target`, and has got nothing of `sub` at once."""
        deadline = now + (sub.acquire_timeout if timeout is None else timeout)
        waiter: PooledWaiter = Waiter((sub,), now, deadline, fresh)
        if target is not sub.endpoint and isinstance(target, EndpointGroup):
            self._core.balancer.join(waiter, target, sub, now)
        return waiter

    def _find_known(self, target: Target, now: float) -> list[PooledSub]:
        """Return those sub-pools of `target` that exist and may lend, the best first."""
        if isinstance(target, EndpointGroup):
            return self._core.balancer.find_usable(target, now)
        sub = self._subs.get(valid_endpoint(target))
        return [] if sub is None else [sub]

    # ── getting one ─────────────────────────────────────────────────────────────

    async def _obtain(self, waiter: PooledWaiter, sub: PooledSub, now: float) -> PooledEntry:
        """Queue for a connection, and queue again if it is closed before its lease begins."""
        core, engine = self._core, self._engine
        while True:
            if core.state is not _OPEN:
                self.refuse_if_closed()
            await refuse_if_hopeless(waiter, sub, core, now, pool_name=self._name)
            core.queued(waiter, now)  # `Engine.report`, spelled out
            if core.touched or core.timetable.next_at < engine.background.rings_at:
                engine.perform(now)
            if waiter.queued:
                await park(waiter, engine)
            else:  # it was answered at once: an idle connection passed the probe
                await checkpoint()
            entry = waiter.entry
            if entry is None:
                self._raise_refusal(waiter, sub)
            # A cancellation may have arrived between hand-over and our waking.
            await checkpoint_if_cancelled()
            if (
                entry.state is _ACTIVE
                and entry.generation == entry.sub.generation
                and (not entry.holders or self._sharer.has_room(entry, engine.now()))
            ):
                return entry
            now = engine.now()
            sub = self._put_back_in_line(waiter, entry, sub, now)

    def _raise_refusal(self, waiter: PooledWaiter, sub: PooledSub) -> NoReturn:
        raise make_refusal(self._core, sub, waiter, self._engine.now(), pool_name=self._name)

    def _put_back_in_line(
        self, waiter: PooledWaiter, entry: PooledEntry, sub: PooledSub, now: float
    ) -> PooledSub:
        """Have `waiter` queue again, in its old place: `entry` was closed before it woke."""
        self._undoing.keep(entry)
        waiter.entry = None
        waiter.had_turn = True
        self.refuse_if_closed()
        # While it slept, the sweep may have dropped this endpoint's record: fetch it again.
        waiter.subs = tuple(self._core.find_subpool(one.endpoint, now) for one in waiter.subs)
        return self._core.find_subpool(sub.endpoint, now)

    def _take(self, sub: PooledSub, now: float, affinity: Hashable) -> PooledEntry | None:
        """Take the newest idle connection that is fit to be lent, unless others come first."""
        if sub.waiting or sub.gate.is_paused:
            return None
        core = self._core
        pop_newest = core.pop_newest
        if affinity is not None:
            pop_newest = partial(core.pop_known, affinity=affinity)
        entry: PooledEntry | None = None
        try:
            while (entry := pop_newest(sub, now)) is not None:
                poll = entry.link.poll
                if not poll(0) or (reason := entry.link.probe()) is None:
                    break
                core.condemned(entry, reason, now)
                if len(core.effects) >= PIECE:  # it queues, and the others are looked at in pieces
                    entry = None
                    break
        except BaseException:
            if entry is not None:
                self._engine.report(core.condemned, entry, CloseReason.ERROR)
            raise
        # `Engine.report`, spelled out.
        if core.effects:
            try:
                self._engine.perform(now)
            except BaseException:  # an observer's
                if entry is not None:
                    self._undoing.put_back(entry)
                raise
            if entry is not None and entry.state is not _ACTIVE:  # an observer cleared the pool
                return self._take(sub, now, affinity)
        return entry

    def _take_unless_due(
        self, sub: PooledSub, now: float, affinity: Hashable
    ) -> PooledEntry | None:
        """As `_take`; what must be checked first stays, and the caller queues for it."""
        entry = self._take(sub, now, affinity)
        if entry is None or not needs_check(entry, now):
            return entry
        self._undoing.keep(entry)
        return None

    def _join_or_take(self, sub: PooledSub, now: float, affinity: Hashable) -> PooledEntry | None:
        """Join a connection that has room, or take an idle one."""
        if sub.waiting or sub.gate.is_paused or self._core.pool_limit.wanted:
            return None  # in the queue, others may come first
        entry = self._sharer.join(sub, now)
        if entry is not None:
            return entry
        while (entry := self._take_idle(sub, now, affinity)) is not None:
            if self._sharer.begin(entry, now):
                return entry
            self._undoing.keep(entry)  # it goes away, and is closed
        return None

    def _tell_acquired(
        self, connection: Connection[Any], entry: PooledEntry, waited: float
    ) -> None:
        if entry.uses > 1:
            self._news.add_about(self._news.reused, entry)
        self._news.add_about(self._news.acquired, entry, waited)
        try:
            self._news.deliver()
        except BaseException:
            self._releaser.discard(connection)  # its caller does not get it
            raise
