"""One pool in simulated time, all around it, and what must hold (see `tests.model.test_pool_walk`).

What must hold is counted by those who see it: by the servers, whose answers carry the number of the
request; by the connector, whose streams are open or not; by the callers, who note what they
got and when. Only then is it compared with what the pool says of itself.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Final, Literal, NoReturn, TypeAlias, final

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import conpool
from conpool import CloseReason
from conpool.testing import assert_quiescent

from .invariants import check
from .numbered import AT_ONCE, UNASKED, Numbered, Peer
from .pools import Grammar, Steps, find_pool_tasks

HERE = conpool.Endpoint("here.example", 1)
THERE = conpool.Endpoint("there.example", 2)
ENDPOINTS: Final = (HERE, THERE)

PATIENCE = 20.0
"""Seconds for which those wait who do not say for how long."""
HAIR = 1e-6
"""Seconds by which sums of floats may be off."""

End: TypeAlias = Literal["at rest", "amid it all", "aclose", "error", "cancelled"]

ANY_TIME: Final = frozenset(
    {
        CloseReason.CLEARED,
        CloseReason.EVICTED,
        CloseReason.IDLE_TIME,
        CloseReason.LIFETIME,
        CloseReason.POOL_CLOSED,
        CloseReason.SURPLUS,
        CloseReason.USES,
    }
)
"""Reasons for which only the pool is to blame. Of the others it is known whose fault they are."""


done: Final[Counter[str]] = Counter()
"""How often each thing has happened, in all walks."""


class Failure(Exception):
    """What a caller's block raises."""


class HungUp(Failure):
    """The server did."""


class Excused(Failure):
    """A failure that the caller vouches is none of the connection's."""


class Ending(Exception):
    """What the pool's block raises."""


@final
@dataclass(frozen=True)
class World:
    """The settings of one walk."""

    limit: int
    total: int | None
    lingers: bool
    is_checked: bool
    end: End
    order: int
    """Seeds the order in which tasks run that could run at the same time."""
    options: dict[str, Any]

    def config(self) -> conpool.PoolConfig:
        return conpool.PoolConfig(
            max_connections_per_endpoint=self.limit,
            max_connections=self.total,
            lifetime_jitter=0.0,
            acquire_timeout=PATIENCE,
            connect_timeout=3.0,
            health_check_timeout=2.0,
            close_timeout=1.0,
            shutdown_grace=2.0,
            reap_interval=1.0,
            **self.options,
        )


@final
@dataclass(eq=False)
class User:
    """A task that wants a connection, and has it until it is told how to give it back."""

    number: int
    endpoint: conpool.Endpoint
    fresh: bool
    timeout: float | None
    way: Literal["block", "acquire", "now"]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    came_at: float = math.inf
    arrival: int = 0
    """Its place in the order in which they asked, once it has."""
    checks: int = 0
    """How many connections it has had checked."""
    is_checking: bool = False
    conn: conpool.Connection[None] | None = None
    peer: Peer | None = None
    is_free: bool = False
    """Whether it has a connection, and waits for orders."""

    def __post_init__(self) -> None:
        self.orders, self.to_do = trio.open_memory_channel[str](1)

    @property
    def wants_new(self) -> bool:
        return self.fresh or self.checks >= 2  # it does not go on trying dead ones

    @property
    def waits(self) -> bool:
        return bool(self.arrival) and self.conn is None and not self.is_checking

    def __str__(self) -> str:
        return f"user {self.number}"


@final
class Ear(conpool.Observer):
    """Hears what became of dials, and why connections were closed."""

    def __init__(self, walk: Walked) -> None:
        self._walk = walk
        self.is_failing: set[object] = set()
        """Endpoints whose last dial has failed: the next one may be put off."""
        self.failed_at: dict[object, float] = {}
        self.failures = 0

    def connected(self, info: conpool.ConnectionInfo, took: float) -> None:
        self.is_failing.discard(info.endpoint)

    def connect_failed(
        self, info: conpool.ConnectionInfo, error: BaseException, took: float
    ) -> None:
        if isinstance(error, conpool.PoolClosed) or "nobody needs" in str(error):
            return  # the pool has ended it
        self.is_failing.add(info.endpoint)
        self.failed_at[info.endpoint] = trio.current_time()
        self.failures += 1

    def closed(self, info: conpool.ConnectionInfo, reason: CloseReason) -> None:
        done[f"closed: {reason.value}"] += 1
        if reason not in ANY_TIME | self._walk.causes[info.id]:
            self._walk.complain(f"{info} was closed for no reason: {reason}")


class Walked:
    """One pool, and everybody around it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.network = Numbered(lingers=world.lingers)
        self.grammar = Grammar()
        self.ear = Ear(self)
        self.pool = conpool.ConnectionPool(
            world.config(),
            connector=self.network,
            health_check=self.ask if world.is_checked else None,
            observers=[self.grammar, self.ear],
            name="walked",
        )
        self.pool._core._random = Random(7)
        self.clock = MockClock()
        self.steps = Steps(self.watch)
        self.log: list[str] = []
        self.is_at_rest = True
        self.numbers = count(1)
        self.nursery: trio.Nursery

        self.users: list[User] = []
        self.jobs: list[trio.CancelScope] = []
        """Those who drain or warm."""
        self.held: dict[int, User] = {}
        self.begun: list[User] = []
        """Who has got a connection since everybody was last blocked."""
        self.outcomes: Counter[str] = Counter()
        self.verdicts: deque[str] = deque()
        """What the next checks will say."""
        self.checked: list[Peer] = []

        self.limits = dict.fromkeys(ENDPOINTS, world.limit)
        self.ceilings = dict(self.limits)
        """Never more than the limit; or, where that was lowered, never more than there were."""
        self.paused: set[conpool.Endpoint] = set()
        self.causes: defaultdict[int, set[CloseReason]] = defaultdict(set)
        """Of each connection, for what it may be closed."""
        self.spoilt: set[int] = set()
        """Those that must not be lent again."""
        self.cleared: dict[conpool.Endpoint, int] = dict.fromkeys(ENDPOINTS, 0)
        """Up to which number they must not be lent again."""
        self.ended_at: dict[int, float] = {}
        """When the last lease of each connection has ended."""
        self.ending_at = math.inf
        """When the pool's block has come to its end."""

    # ── callers ────────────────────────────────────────────────────────────────────

    def start_user(self, endpoint: conpool.Endpoint, **wishes: Any) -> None:
        user = User(next(self.numbers), endpoint, **wishes)
        self.users.append(user)
        self.note(f"{user}: {endpoint.host}, {wishes}")
        self.nursery.start_soon(self.live, user, name=str(user))

    def find_free(self) -> list[User]:
        return [user for user in self.users if user.is_free and not user.scope.cancel_called]

    def order(self, user: User, what: str) -> None:
        """Have `user`, who is free, do one thing with its connection."""
        user.is_free = False
        done[what] += 1
        self.note(f"{user}: {what}")
        user.orders.send_nowait(what)

    async def live(self, user: User) -> None:
        try:
            with user.scope:
                await self.use(user)
            if user.scope.cancelled_caught:
                self.outcomes["cancelled"] += 1
        finally:
            self.users.remove(user)

    async def use(self, user: User) -> None:
        try:
            async with self.lend(user) as conn:
                self.begin(user, conn)
                with self.ending(user, conn):
                    await self.obey(user, conn)
            self.outcomes["served"] += 1
        except conpool.AcquireTimeout:
            self.outcomes["timeout"] += 1
            patience = PATIENCE if user.timeout is None else user.timeout
            waited = trio.current_time() - user.came_at
            assert abs(waited - patience) < HAIR, f"{user} has waited for {waited} s (G14)"
        except conpool.ConnectError:
            self.outcomes["no connection"] += 1
            assert self.ear.failed_at.get(user.endpoint) == trio.current_time()
        except conpool.QueueFull:
            self.outcomes["turned away"] += 1
            assert "max_waiting_per_endpoint" in self.world.options
        except conpool.PoolClosed:
            self.outcomes["pool closed"] += 1
            assert self.pool.closed
        except trio.WouldBlock:
            self.outcomes["would block"] += 1
        except Failure:
            self.outcomes["failed"] += 1

    @asynccontextmanager
    async def lend(self, user: User) -> AsyncIterator[conpool.Connection[None]]:
        user.came_at = trio.current_time()
        user.arrival = next(self.numbers)
        if user.way == "block":
            async with self.pool.connection(
                user.endpoint, timeout=user.timeout, fresh=user.fresh
            ) as conn:
                yield conn
            return
        if user.way == "now":
            conn = self.pool.acquire_nowait(user.endpoint)
        else:
            conn = await self.pool.acquire(user.endpoint, timeout=user.timeout, fresh=user.fresh)
        try:
            yield conn
        except BaseException:
            self.pool.discard(conn)
            raise
        self.pool.release(conn)

    def begin(self, user: User, conn: conpool.Connection[None]) -> None:
        now = trio.current_time()
        user.conn, user.peer = conn, self.network.find(conn._lease.entry.link.stream)
        self.begun.append(user)
        self.outcomes["reused"] += conn.reused
        assert user.way == "now" or not user.scope.cancel_called, f"{user} was cancelled (G15)"
        assert conn.id not in self.held, f"{user} got what {self.held[conn.id]} has (G2)"
        assert conn.id not in self.spoilt, f"{user} got {conn}, which was spoilt (G3, G4)"
        assert conn.id > self.cleared[user.endpoint], f"{user} got {conn} after a clear (G24)"
        assert conn.endpoint is user.endpoint
        assert not (user.fresh and conn.reused)
        assert conn.uses <= self.world.options.get("max_connection_uses", math.inf), conn
        if not user.checks:  # it takes its time
            idle = now - self.ended_at.get(conn.id, now)
            assert conn.age < self.world.config().max_connection_lifetime, f"{conn} is old (G21)"
            assert idle <= 0 or idle < self.world.config().max_idle_time, f"{conn} lay idle (G21)"
        self.held[conn.id] = user

    @contextmanager
    def ending(self, user: User, conn: conpool.Connection[None]) -> Iterator[None]:
        """Note what the end of a lease says of its connection."""
        error: BaseException | None = None
        try:
            yield
        except BaseException as exc:
            error = exc
            raise
        finally:
            del self.held[conn.id]
            user.conn, user.is_free = None, False
            self.ended_at[conn.id] = trio.current_time()
            if error is not None and not (isinstance(error, Excused) and user.way == "block"):
                kind = CloseReason.CANCELLED if is_cancelled(error) else CloseReason.ERROR
                self.spoil(conn, kind, CloseReason.DISCARDED)

    def spoil(self, conn: conpool.Connection[None], *reasons: CloseReason) -> None:
        """`conn` must not be lent again."""
        self.spoilt.add(conn.id)
        self.causes[conn.id] |= {*reasons}

    # ── what callers do with their connections ─────────────────────────────────────

    async def obey(self, user: User, conn: conpool.Connection[None]) -> None:
        act = "stay"
        try:
            while act == "stay":
                user.is_free = True
                what = await user.to_do.receive()
                act = await getattr(self, what)(conn) or "stay"
        except trio.BrokenResourceError as exc:
            assert user.peer is not None
            assert user.peer.has_hung_up, f"{conn} of {user} broke"
            raise HungUp from exc
        except trio.ClosedResourceError as exc:
            assert conn._lease.entry.reason is not None, f"nobody has closed {conn} of {user}"
            raise HungUp from exc

    async def talk(self, conn: conpool.Connection[None]) -> None:
        number = next(self.numbers)
        question = b"%d;" % number
        await conn.send_all(question)
        answer = b""
        while not answer.endswith(b";"):
            part = await conn.receive_some()
            if not part:
                assert self.network.find(conn._lease.entry.link.stream).has_hung_up, conn
                raise HungUp
            answer += part
            assert not answer.startswith(UNASKED), f"{question!r}: {answer!r} was there (G3)"
        assert answer == question, f"{question!r} was answered by {answer!r} (G3)"

    async def go(self, conn: conpool.Connection[None]) -> str:
        return "go"

    async def fail(self, conn: conpool.Connection[None]) -> NoReturn:
        raise Failure

    async def fail_and_vouch(self, conn: conpool.Connection[None]) -> NoReturn:
        await self.talk(conn)
        conn.mark_clean()
        raise Excused

    async def discard(self, conn: conpool.Connection[None]) -> str:
        self.spoil(conn, CloseReason.DISCARDED)
        await conn.aclose()
        return "go"

    async def retire(self, conn: conpool.Connection[None]) -> None:
        self.spoil(conn, CloseReason.DISCARDED)
        conn.retire()

    async def half_close(self, conn: conpool.Connection[None]) -> str:
        self.spoil(conn, CloseReason.DISCARDED)
        await conn.send_eof()
        return "go"

    async def detach(self, conn: conpool.Connection[None]) -> str:
        self.spoil(conn, CloseReason.DETACHED)
        stream = conn.detach()
        await trio.aclose_forcefully(stream)
        return "go"

    async def ask_and_go(self, conn: conpool.Connection[None]) -> str:
        self.spoil(conn, CloseReason.INCOMPLETE)
        await conn.send_all(b"%d;" % next(self.numbers))
        return "go"

    async def go_without_the_rest(self, conn: conpool.Connection[None]) -> str:
        self.spoil(conn, CloseReason.UNREAD_DATA, CloseReason.INCOMPLETE)
        await conn.send_all(AT_ONCE + b"%d;" % next(self.numbers))
        await conn.receive_some(1)
        return "go"

    async def lose_patience(self, conn: conpool.Connection[None]) -> str:
        with trio.move_on_after(0.375) as scope:
            await self.talk(conn)
        if scope.cancelled_caught:
            done["patience lost"] += 1
            self.spoil(conn, CloseReason.INCOMPLETE)
        return "go"

    # ── checks ─────────────────────────────────────────────────────────────────────

    async def ask(self, conn: conpool.Connection[None]) -> bool:
        """Be the health check: well, unless it was said otherwise."""
        task = trio.lowlevel.current_task()
        user = next((user for user in self.users if str(user) == task.name), None)
        if conn.id in self.held:
            self.complain(f"{conn} is checked while {self.held[conn.id]} has it (G2)")
        peer = self.network.find(conn._lease.entry.link.stream)
        self.checked.append(peer)
        if user is not None:
            user.checks += 1
            user.is_checking = True
        is_well = False
        try:
            is_well = await self.say(conn, self.verdicts.popleft() if self.verdicts else "yes")
        except AssertionError as wrong:  # the pool takes it for a "no"
            self.complain(str(wrong))
        except Exception:
            self.spoilt.add(conn.id)
            raise
        finally:
            self.checked.remove(peer)
            if user is not None:
                user.is_checking = False
            if not is_well:
                self.causes[conn.id] |= {
                    CloseReason.UNHEALTHY,
                    CloseReason.CANCELLED,
                    CloseReason.INCOMPLETE,
                }
        if not is_well:
            self.spoilt.add(conn.id)
        return is_well

    async def say(self, conn: conpool.Connection[None], verdict: str) -> bool:
        done[f"check: {verdict}"] += 1
        if verdict == "nothing":
            await trio.sleep_forever()
        if verdict == "error":
            raise Failure
        await self.talk(conn)
        return verdict == "yes"

    # ── connections ────────────────────────────────────────────────────────────────

    def find_peers(self) -> list[Peer]:
        return [
            peer
            for peer in self.network.live()
            if not peer.has_hung_up and not peer.is_closing and self.find_id(peer)
        ]

    def find_idle(self) -> list[Peer]:
        return [peer for peer in self.find_peers() if self.is_idle(self.find_id(peer))]

    def is_idle(self, number: int) -> bool:
        subs = self.pool._core.subs.values()
        return any(e.id == number for sub in subs for e in sub.idle if e not in sub.reserved)

    def find_id(self, peer: Peer) -> int:
        """The number that the pool gave it; 0 if it has not yet, or has forgotten it."""
        for sub in self.pool._core.subs.values():
            for entry in sub.limit.borrowers:
                if hasattr(entry, "link") and entry.link.stream is peer.client:
                    return entry.id
        return 0

    # ── operators ──────────────────────────────────────────────────────────────────

    async def drain_all(self, endpoint: conpool.Endpoint | None) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        covered = list(self.network.live(endpoint))
        self.forbid(endpoint)
        await self.pool.drain(endpoint)
        left = [peer for peer in covered if peer.is_open]
        assert not left, f"a drain has ended, with {len(left)} connections left"

    async def drain_over(self, endpoint: conpool.Endpoint | None, over: float) -> None:
        """Until its time comes, a connection is lent as ever."""
        await trio.lowlevel.checkpoint_if_cancelled()
        covered = list(self.network.live(endpoint))
        await self.pool.drain(endpoint, over=over)
        left = [peer for peer in covered if peer.is_open]
        assert not left, f"a drain over {over} s has ended, with {len(left)} connections left"

    def forbid(self, endpoint: conpool.Endpoint | None) -> None:
        for each in ENDPOINTS if endpoint is None else (endpoint,):
            self.cleared[each] = self.pool._core._ledger._dials

    async def warm_up(self, endpoint: conpool.Endpoint, number: int) -> None:
        try:
            await self.pool.warm(endpoint, number)
            self.outcomes["warmed"] += 1
        except conpool.ConfigError:
            assert number > min(self.limits[endpoint], self.world.total or math.inf)
        except conpool.ConnectError:
            self.outcomes["not warmed"] += 1
            assert self.ear.failed_at.get(endpoint) == trio.current_time()
        except conpool.PoolClosed:
            assert self.pool.closed

    def start_job(self, job: Callable[..., Awaitable[None]], *args: object) -> None:
        self.note(f"{[str(arg) for arg in args]}")
        scope = trio.CancelScope()
        self.jobs.append(scope)

        async def work() -> None:
            try:
                with scope:
                    await job(*args)
            finally:
                self.jobs.remove(scope)

        self.nursery.start_soon(work)

    # ── what must hold ─────────────────────────────────────────────────────────────

    def complain(self, of: str) -> None:
        """Where nobody would hear an exception."""
        self.steps.faults.append(of)

    def note(self, what: str) -> None:
        self.log[-1] += f" {what}"

    def watch(self) -> None:
        """After every step of any task: the books are in order, and the limits true (G1, G30)."""
        check(self.pool._core, trio.current_time())
        for endpoint in ENDPOINTS:
            number = self.network.count(endpoint)
            limit = self.limits[endpoint]
            ceiling = self.ceilings[endpoint]
            assert number <= ceiling, f"{number} connections to {endpoint}, at most {limit} (G1)"
            if ceiling > limit:
                stats = self.pool.stats(endpoint)
                booked = stats.idle + stats.active + stats.connecting + stats.closing
                self.ceilings[endpoint] = max(limit, min(ceiling, max(number, booked)))
        total = self.network.count()
        assert total <= (self.world.total or math.inf), f"{total} connections in all (G1)"

    async def rest(self) -> None:
        """Wait until everybody is blocked, and see."""
        await wait_all_tasks_blocked()
        self.is_at_rest = True
        assert not self.steps.faults, self.steps.faults[0]
        assert not self.grammar.faults, self.grammar.faults[0]
        for endpoint in ENDPOINTS:
            self.compare(endpoint)
            if not self.pool.closed:
                self.look_for_lost_wakeups(endpoint)
        self.look_at_order()

    def compare(self, endpoint: conpool.Endpoint) -> None:
        """The pool's numbers are ours."""
        peers = list(self.network.live(endpoint))
        users = [user for user in self.users if user.endpoint is endpoint]
        used = [*(user.peer for user in users if user.conn is not None), *self.checked]
        seen = {
            "active": sum(peer in used and not peer.is_closing for peer in peers),
            "connecting": self.network.dialling[endpoint],
            "closing": sum(peer.is_closing for peer in peers),
            "waiting": sum(user.waits for user in users),
        }
        seen["idle"] = len(peers) - seen["active"] - seen["closing"]
        late = self.network.find_oldest_dial(endpoint) + self.world.config().connect_timeout
        assert trio.current_time() < late + HAIR, f"{endpoint}: a dial takes too long (G14)"
        stats = self.pool.stats(endpoint)
        booked = {name: getattr(stats, name) for name in seen}
        assert booked == seen, f"{endpoint}: the books say {booked}, and not {seen}"

    def look_for_lost_wakeups(self, endpoint: conpool.Endpoint) -> None:
        """G12, and G14: nobody waits who could be served."""
        waiting = [user for user in self.users if user.endpoint is endpoint and user.waits]
        for user in waiting:
            patience = PATIENCE if user.timeout is None else user.timeout
            assert trio.current_time() < user.came_at + patience + HAIR, f"{user} waits (G14)"
        sub = self.pool._core.subs.get(endpoint)
        # A peer that ends a connection before its first byte holds up dials, as a failed one does.
        is_failing = endpoint in self.ear.is_failing or (sub is not None and sub.gate.is_failing)
        if endpoint in self.paused or is_failing or not waiting:
            return
        idle = self.pool.stats(endpoint).idle  # which `compare` has counted
        checking = 0 if sub is None else sub.checking
        others = sum(not user.wants_new for user in waiting)
        assert not idle or others <= checking, "one is idle, somebody waits (G12)"
        most = self.world.options.get("max_connecting_per_endpoint", math.inf)
        has_slot = idle or self.network.count(endpoint) < self.limits[endpoint]
        full = self.network.count() >= (self.world.total or math.inf)
        pool_has_slot = not full or self.pool.all_stats().idle
        if any(peer.is_closing for peer in self.network.live()) or not (has_slot and pool_has_slot):
            return
        dialling = self.network.dialling[endpoint] + checking
        assert dialling >= min(len(waiting), most), (
            f"{endpoint}: {len(waiting)} wait, {dialling} are dialled, slots are free (G12)"
        )

    def look_at_order(self) -> None:
        """G13: nobody who came earlier waits still for what somebody got who came later."""
        for late in self.begun:
            for early in self.users:
                is_earlier = early.waits and early.arrival < late.arrival
                would_do = late.wants_new or not early.wants_new
                same = early.endpoint is late.endpoint
                if same and is_earlier and would_do and not (early.checks or late.checks):
                    raise AssertionError(f"{late} was served before {early} (G13)")
        self.begun.clear()

    # ── the end ────────────────────────────────────────────────────────────────────

    async def end(self, scope: trio.CancelScope) -> None:
        """Come to the end of the pool's block, in the way that was drawn."""
        self.log.append(f"{trio.current_time():8.3f} the end: {self.world.end}")
        match self.world.end:
            case "at rest":
                await self.come_to_rest()
            case "aclose":
                self.clock.autojump_threshold = 0
                await self.pool.aclose()
            case "error":
                raise Ending
            case "cancelled":
                scope.cancel()
            case "amid it all":
                pass

    async def come_to_rest(self) -> None:
        """Everybody goes as soon as they can; then nothing may be outstanding."""
        for endpoint in ENDPOINTS:
            self.pool.resume(endpoint)
        self.paused.clear()
        self.network.be_well()
        self.clock.autojump_threshold = 0
        for _ in range(200):
            for user in self.find_free():
                self.order(user, "go")
            await self.rest()
            stats = self.pool.all_stats()
            if not (self.users or stats.active + stats.connecting + stats.closing):
                break
            await trio.sleep(0.5)
        for job in self.jobs:  # what others keep, they cannot have for their warmth
            job.cancel()
        await self.rest()
        assert not self.users, f"{[str(user) for user in self.users]} are left"
        assert_quiescent(self.pool)

    async def bury(self) -> None:
        """The pool has ended: those who are left go now, and the sums agree."""
        took = trio.current_time() - self.ending_at
        config = self.world.config()
        assert took <= config.shutdown_grace + config.close_timeout + HAIR, f"{took} s (G17)"
        assert not self.network.count(), "the pool has ended, and has connections (G19)"
        assert not find_pool_tasks(), "the pool has ended, and has tasks (G19)"
        await wait_all_tasks_blocked()
        assert not any(user.waits for user in self.users), "somebody still waits (G17)"
        await trio.sleep(config.health_check_timeout)  # a check is its caller's own, and may go on
        await wait_all_tasks_blocked()
        assert all(user.conn for user in self.users), "somebody still asks (G14)"
        assert not self.jobs
        for user in self.users:
            user.scope.cancel()
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(self.steps)
        assert not self.steps.faults, self.steps.faults[0]
        self.grammar.assert_complete()
        stats = self.pool.all_stats()
        began = sum(event.startswith("acquired") for event in self.grammar.events)
        assert stats.total_created == stats.total_closed == self.network.opened
        assert stats.errors == self.ear.failures
        assert stats.acquired == began
        assert stats.total_reused == self.outcomes["reused"]
        assert stats.acquire_timeouts == self.outcomes["timeout"]
        done.update({f"outcome: {name}": number for name, number in self.outcomes.items()})


def is_cancelled(error: BaseException) -> bool:
    return isinstance(error, trio.Cancelled)
