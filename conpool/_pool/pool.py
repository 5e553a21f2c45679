"""The pool: what its users call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from itertools import count
from types import MappingProxyType, TracebackType
from typing import Any, Final, Generic, NoReturn, Self, overload
from weakref import ref

from trio.lowlevel import enable_ki_protection

from conpool._connection.pooled import make_core
from conpool._connection.session import SessionRules
from conpool._dial.tcp import TCPConnector
from conpool._engine.engine import Engine
from conpool._engine.news import News
from conpool._errors.pool_log import PoolLog
from conpool._extend.connector import Connector
from conpool._extend.driver import Driver, SessionT
from conpool._extend.observer import ConnectionInfo, Observer
from conpool._lending.acquire import Acquirer
from conpool._lending.block import LeaseBlock
from conpool._lending.lease import Connection
from conpool._lending.release import Releaser
from conpool._pool.blocking import BlockingPool
from conpool._pool.describe import describe, see_pool, see_target, why_not_copied
from conpool._pool.lifecycle import Lifecycle
from conpool._pool.steering import Steering
from conpool._stats.snapshot import EndpointStats, PoolStats
from conpool._values.config import PoolConfig, checked_configs, explain_argument
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import Target
from conpool._values.guesses import ON_POOL, answers_guesses
from conpool._values.states import CloseReason, PoolState
from conpool._values.validation import valid_async_function, valid_instance, valid_seconds

_DEFAULTS: Final = PoolConfig()
_NO_OVERRIDES: Final[Mapping[AnyEndpoint, PoolConfig]] = MappingProxyType({})
_numbers = count(1)


@answers_guesses(explain_argument, ON_POOL)
class ConnectionPool(Generic[SessionT]):
    """Lend connections to any number of endpoints, inside one `async with` block.

    Opening a connection costs round trips. A pool keeps connections that are in order and lends
    them again, to one task at a time, within true limits for each endpoint and for all together.

        async with conpool.ConnectionPool() as pool:
            endpoint = conpool.Endpoint("example.org", 443, tls=True)
            async with pool.connection(endpoint) as conn:
                await conn.send_all(request)
                reply = await read_reply(conn)  # yours: it reads the reply to its end

    Everything that the pool starts ends with its block. Any number of tasks of one `trio.run` may
    use it. In another thread only `stats`, `all_stats`, `repr` and `blocking` work; the rest fails.

    Args:
        config: Limits and times for every endpoint.
        driver: What a protocol does with its connections: how it logs in, checks and says goodbye.
        overrides: Endpoints with limits and times of their own. What concerns the pool as a whole
            (`max_connections`, `shutdown_grace`, `reap_interval`) must be as in `config`.
        health_check: Called for an idle connection that has been silent for `health_check_after`
            seconds: the pool lends it only if the hook returns true within `health_check_timeout`
            seconds. Runs in a task of the pool, also when the caller has gone.
        on_created: Called when a connection has been opened.
        on_reused: Called when a connection is lent that was lent before.
        on_closed: Called when a connection has been closed, with the reason.
        observers: They hear of everything; see `Observer`.
        connector: Opens the transports; by default a `TCPConnector`.
        name: Shown in statistics and error messages.

    Raises:
        ConfigError: A value with which no pool could work.
    """

    @overload
    def __init__(
        self: ConnectionPool[None],
        config: PoolConfig = ...,
        *,
        driver: None = None,
        overrides: Mapping[AnyEndpoint, PoolConfig] = ...,
        health_check: Callable[[Connection[None]], Awaitable[bool]] | None = None,
        on_created: Callable[[ConnectionInfo], object] | None = None,
        on_reused: Callable[[ConnectionInfo], object] | None = None,
        on_closed: Callable[[ConnectionInfo, CloseReason], object] | None = None,
        observers: Iterable[Observer] = (),
        connector: Connector | None = None,
        name: str | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        config: PoolConfig = ...,
        *,
        driver: Driver[SessionT],
        overrides: Mapping[AnyEndpoint, PoolConfig] = ...,
        health_check: Callable[[Connection[SessionT]], Awaitable[bool]] | None = None,
        on_created: Callable[[ConnectionInfo], object] | None = None,
        on_reused: Callable[[ConnectionInfo], object] | None = None,
        on_closed: Callable[[ConnectionInfo, CloseReason], object] | None = None,
        observers: Iterable[Observer] = (),
        connector: Connector | None = None,
        name: str | None = None,
    ) -> None: ...

    def __init__(
        self,
        config: PoolConfig = _DEFAULTS,
        *,
        driver: Driver[Any] | None = None,
        overrides: Mapping[AnyEndpoint, PoolConfig] = _NO_OVERRIDES,
        health_check: Callable[[Connection[Any]], Awaitable[bool]] | None = None,
        on_created: Callable[[ConnectionInfo], object] | None = None,
        on_reused: Callable[[ConnectionInfo], object] | None = None,
        on_closed: Callable[[ConnectionInfo, CloseReason], object] | None = None,
        observers: Iterable[Observer] = (),
        connector: Connector | None = None,
        name: str | None = None,
    ) -> None:
        own_configs = checked_configs(config, overrides)
        if name is not None:
            valid_instance("name", name, str)
        if health_check is not None:
            valid_async_function("health_check", health_check)
        connector = TCPConnector() if connector is None else connector
        valid_instance("connector", connector, Connector)
        if driver is not None:
            valid_instance("driver", driver, Driver)
        self.name: str = f"pool-{next(_numbers)}" if name is None else name
        rules = SessionRules(driver, PoolLog(self.name))
        rules.pool = ref(self)
        news = News(observers, on_created=on_created, on_reused=on_reused, on_closed=on_closed)
        is_checked, is_plain = health_check is not None, not news.watches_leases
        self._core = make_core(config, own_configs, rules, is_checked=is_checked, is_plain=is_plain)
        self._engine = Engine(self._core, connector, news, rules)
        self._releaser = Releaser(self._engine, health_check, self.name)
        self._acquirer = Acquirer(self._engine, self._releaser, self.name)
        self._steering = Steering(self._engine, self._acquirer, self._releaser, self.name)
        self._lifecycle = Lifecycle(self._engine, self._releaser, connector, config)
        news.join(self)

    # ── the block ───────────────────────────────────────────────────────────────

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        await self._lifecycle.open()
        return self

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._lifecycle.leave(exc, self._releaser.refuse_other_thread)  # noqa: ASYNC102

    @enable_ki_protection
    async def aclose(self) -> None:
        """Close the pool: no new leases, `shutdown_grace` seconds for those that run, then the end.

        Waiters get `PoolClosed` at once. Leases of the task that closes get no grace, since it
        cannot end them while it waits here. Afterwards the pool has no task and no socket.
        Idempotent; several tasks may wait.

        If it is cancelled, the pool closes everything by force before the cancellation goes on.

        Raises:
            RuntimeError: The pool's own connector or background check has called it; these would
                have to end first.
        """
        self._releaser.refuse_other_thread()
        await self._lifecycle.close()

    @property
    def closed(self) -> bool:
        """Whether the pool lends nothing any more: it is closing, or closed."""
        return self._core.state in {PoolState.DRAINING, PoolState.CLOSED}

    # ── lending ─────────────────────────────────────────────────────────────────

    def connection(
        self,
        endpoint: Target,
        *,
        timeout: float | None = None,
        fresh: bool = False,
        affinity: Hashable = None,
    ) -> AbstractAsyncContextManager[Connection[SessionT]]:
        """Lend a connection for the length of an `async with` block.

        At the block's end the pool keeps the connection only if nothing of this exchange can reach
        the next caller: see `release`, and `Connection.mark_clean` for what the pool cannot know.

        Args:
            endpoint: The peer to talk to.
            timeout: Seconds for all of it. None: `acquire_timeout`; without a limit: `math.inf`.
            fresh: Open a new connection, even if one is idle.
            affinity: Any hashable value. An idle connection that has last served it comes first;
                nobody waits for one.

        Raises, on entering the block:
            AcquireTimeout: The pool had no connection in time.
            ConnectError: A dial has failed; see `PoolConfig.outage_grace` for who is told.
            QueueFull: `max_waiting_per_endpoint` tasks wait already, or the queue sheds load.
            CircuitOpen: The circuit breaker allows no dial, and no connection is open.
            NoHealthyEndpoint: The endpoint is marked unhealthy.
            PoolClosed: The pool is not open.

        If entering is cancelled, the pool is as if nobody had asked it; a dial or check goes on.
        """
        if timeout is not None:
            timeout = valid_seconds("timeout", timeout, positive=False)
        # Not `LeaseBlock[SessionT](…)`: that costs every lease a quarter of a checkpoint.
        block: LeaseBlock[SessionT] = LeaseBlock(self._acquirer, endpoint, timeout, fresh, affinity)
        return block

    @enable_ki_protection
    async def acquire(
        self,
        endpoint: Target,
        *,
        timeout: float | None = None,
        fresh: bool = False,
        affinity: Hashable = None,
    ) -> Connection[SessionT]:
        """Lend a connection until `release` or `discard`; arguments and errors as for `connection`.

        Use it for a lease that no single block can hold, such as that of a transaction object. If
        it is cancelled, it has lent nothing.
        """
        if timeout is not None:
            timeout = valid_seconds("timeout", timeout, positive=False)
        return await self._acquirer.acquire(endpoint, timeout, fresh, affinity)

    @enable_ki_protection
    def acquire_nowait(self, endpoint: Target) -> Connection[SessionT]:
        """Lend an idle connection now, without a health check.

        Raises:
            trio.WouldBlock: No connection is idle, or others wait for one. Or the newest hundred
                were dead, and it has closed these and not looked at more.
            PoolClosed: The pool is not open.
        """
        return self._acquirer.acquire_nowait(endpoint)

    @enable_ki_protection
    def release(self, connection: Connection[SessionT]) -> None:
        """Give the connection back. The caller vouches that no exception cut the exchange short.

        The pool keeps it only if no operation on it was cut short, an answer has come since the
        last send (or the driver's `is_clean` says that it is clean), and the peer has neither
        closed it nor sent anything that is unread. Synchronous: it cannot be cancelled or block.
        Nothing happens if the lease has ended.

        Raises:
            RuntimeError: This is another thread than the pool's; call it with `trio.from_thread`.
            TypeError: It is no lease.
            ValueError: The lease is another pool's.
        """
        self._releaser.release(connection)

    @enable_ki_protection
    def discard(self, connection: Connection[SessionT]) -> None:
        """End the lease and close the connection. Synchronous and idempotent.

        Raises:
            RuntimeError: This is another thread than the pool's.
            TypeError: It is no lease.
            ValueError: The lease is another pool's.
        """
        self._releaser.refuse_stranger(connection)
        self._releaser.discard(connection)

    @property
    def blocking(self) -> BlockingPool[SessionT]:
        """The same pool for threads: `with pool.blocking.connection(endpoint) as conn`."""
        acquire, give_back = self._acquirer.acquire, self._releaser.give_back
        return BlockingPool(acquire, give_back, lambda: self._engine.background.token, self.name)

    # ── warming and clearing ────────────────────────────────────────────────────

    @enable_ki_protection
    async def warm(self, endpoint: AnyEndpoint, count: int) -> None:
        """Dial until `count` connections are open, idle or in use.

        It never evicts and never goes before a waiter: it waits while others need the slots, and in
        a pause. If it is cancelled, its dials go on, unless a waiter needs their slots.

        Raises:
            ConfigError: `count` is negative, or more than a limit or `max_idle_per_endpoint`.
            ConnectError: One of its dials failed, or an outage has outlasted `outage_grace`.
            CircuitOpen: The circuit breaker allows no dial now.
            PoolClosed: The pool is not open, or was closed meanwhile.
            RuntimeError: This task holds too many of the pool's slots itself, elsewhere.
        """
        await self._steering.warm(endpoint, count)

    @enable_ki_protection
    def close_idle(self, endpoint: Target | None = None) -> int:
        """Close idle connections of `endpoint`, or all; return how many. Checks go on."""
        return self._steering.close_idle(endpoint)

    @enable_ki_protection
    def clear(self, endpoint: Target | None = None, *, interrupt_in_use: bool = False) -> None:
        """Never again lend a connection that exists now, or is being dialled; the pool stays open.

        The pool closes idle connections and gives up dials now, and closes lent connections at the
        end of their lease.

        Args:
            endpoint: Clear only this endpoint; None: all.
            interrupt_in_use: Close lent connections now, too: a task that uses one gets
                `trio.ClosedResourceError`.
        """
        self._steering.clear(endpoint, interrupt_in_use=interrupt_in_use)

    @enable_ki_protection
    async def drain(self, endpoint: Target | None = None, *, over: float = 0.0) -> None:
        """`clear`, then wait until every connection that it covered is gone.

        With `over`, each connection gets a time of its own in that many seconds. It is lent until
        then, and closed when nobody has it. If this is cancelled, the connections go all the same.

        Raises:
            ConfigError: `over` is not a finite number of 0 or more seconds.
            RuntimeError: This task holds one of them, and would wait for itself. Nothing has
                changed. (A holder that waits for another task to drain is not noticed, and waits
                for ever.)
        """
        await self._steering.drain(endpoint, over)

    # ── steering ────────────────────────────────────────────────────────────────

    @enable_ki_protection
    def pause(self, endpoint: Target | None = None) -> None:
        """Lend and dial nothing for `endpoint`, or all known, until `resume`: acquires wait."""
        self._steering.pause(endpoint)

    @enable_ki_protection
    def resume(self, endpoint: Target | None = None) -> None:
        """Go on after `pause`."""
        self._steering.resume(endpoint)

    @enable_ki_protection
    def set_limit(self, endpoint: Target | None, max_connections: int) -> None:
        """Change the limit of `endpoint`, or with None that of the whole pool (`max_connections`).

        Surplus connections close, the lent ones when given back. Until then there are more than the
        new limit, and the statistics show that.

        Raises:
            ConfigError: It is not an int of at least 1, or the pool was made without such a limit.
            PoolClosed: The pool is not open.
        """
        self._steering.set_limit(endpoint, max_connections)

    @enable_ki_protection
    def mark_unhealthy(self, endpoint: Target) -> None:
        """Lend and dial nothing until `mark_healthy`: acquires raise `NoHealthyEndpoint`."""
        self._steering.mark(endpoint, is_unhealthy=True)

    @enable_ki_protection
    def mark_healthy(self, endpoint: Target) -> None:
        """End `mark_unhealthy`, and close the circuit of `endpoint` if it is open."""
        self._steering.mark(endpoint, is_unhealthy=False)

    @enable_ki_protection
    def report_failure(self, endpoint: AnyEndpoint) -> None:
        """Have the circuit breaker, if any, count a failure that no dial shows, such as a 503.

        A dial that succeeds does not end a row of such failures: report successes, too.
        """
        self._steering.report_failure(endpoint)

    @enable_ki_protection
    def report_success(self, endpoint: AnyEndpoint) -> None:
        """End the row of failures of `endpoint`: it has served. An open circuit closes."""
        self._steering.report_success(endpoint)

    # ── seeing ──────────────────────────────────────────────────────────────────

    def stats(self, endpoint: Target) -> EndpointStats:
        """Return a snapshot: zeros for an endpoint never seen, the sums of a group's members."""
        return see_target(self._engine, endpoint)

    def all_stats(self) -> PoolStats:
        """Return a snapshot of all numbers; printed, it is a table for people."""
        return see_pool(self._engine, self.name)

    def __reduce__(self) -> NoReturn:
        raise TypeError(why_not_copied(self.name))

    def __repr__(self) -> str:
        return describe(self.name, self._core)
