"""What callers do with a pool: all that they may, in any order, and often cancelled on the way."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final, final

import trio

import conpool

from .services import ServerMisbehaved, Service, WrongAnswer
from .watch import Grammar, Record

Lease = conpool.Connection[None]

_numbers: Final = itertools.count(10**9)
"""No two requests of a run have the same number, and none is the beginning of another."""


class OwnMistake(Exception):
    """What a caller's block raises for reasons of its own."""


EXPECTED: Final = (
    OwnMistake,
    ServerMisbehaved,
    conpool.AcquireTimeout,
    conpool.ConnectError,
    conpool.QueueFull,
    trio.BrokenResourceError,
    trio.ClosedResourceError,  # PoolClosed too; `clear` may interrupt
    trio.WouldBlock,
)


@final
class Caller:
    """One of many tasks that use the same pool."""

    def __init__(
        self,
        pool: conpool.ConnectionPool[None],
        services: Sequence[Service],
        random: Random,
        record: Record,
        grammar: Grammar,
    ) -> None:
        self._pool = pool
        self._services = services
        self._random = random
        self._record = record
        self._known = grammar.logged_in
        self._service = services[0]
        uses = (self._exchange, 50), (self._swallow_timeout, 8), (self._err, 4)
        ends = (self._retire, 2), (self._detach, 1), (self._close, 1), (self._look, 2)
        self._uses = _weighted(*uses, *ends, (self._leave_unanswered, 2))
        self._ways = _weighted(
            (self._lend_block, 60), (self._lend_by_hand, 30), (self._lend_now, 10)
        )
        quiet = (self._warm, 8), (self._set_limit, 8), (self._pause, 4), (self._close_idle, 6)
        self._steering = _weighted(*quiet, (self._clear, 6), (self._drain, 3))

    async def run(self) -> None:
        """Go on until the pool closes."""
        while not self._pool.closed:
            self._record.operations += 1
            self._service = self._random.choice(self._services)
            if self._random.random() < 0.5:
                await trio.sleep(self._random.expovariate(1 / 0.003))
            try:
                await self._operate()
            except EXPECTED as exc:
                self._note(exc)
            except WrongAnswer as exc:
                self._record.fail(f"wrong answer: {exc}")
            await trio.lowlevel.checkpoint()

    async def _operate(self) -> None:
        random = self._random
        steers = random.random() < 0.03
        operate = random.choice(self._steering if steers else self._ways)
        if random.random() < 0.8:
            await operate()
            return
        # Often so short that it falls into the acquire, sometimes before its first checkpoint.
        seconds = max(0.0, random.expovariate(1 / 0.003) - 0.0005)
        with trio.move_on_after(seconds) as scope:
            await operate()
        if scope.cancelled_caught:
            self._record.errors["cancelled"] += 1

    def _note(self, exc: BaseException) -> None:
        detail = f" ({exc})" if isinstance(exc, ServerMisbehaved) else ""
        self._record.errors[type(exc).__name__ + detail] += 1

    # ── ways to a lease, and from it ────────────────────────────────────────────

    def _terms(self) -> tuple[float | None, bool]:
        timeout = self._random.choice([None, None, 0.0, 0.002, 0.05, 1.0])
        return timeout, self._random.random() < 0.05

    async def _lend_block(self) -> None:
        timeout, fresh = self._terms()
        endpoint = self._service.find(self._random)
        async with self._pool.connection(endpoint, timeout=timeout, fresh=fresh) as conn:
            await self._use(conn)

    async def _lend_by_hand(self) -> None:
        timeout, fresh = self._terms()
        endpoint = self._service.find(self._random)
        await self._use_by_hand(await self._pool.acquire(endpoint, timeout=timeout, fresh=fresh))

    async def _lend_now(self) -> None:
        await self._use_by_hand(self._pool.acquire_nowait(self._service.find(self._random)))

    async def _use_by_hand(self, conn: Lease) -> None:
        try:
            await self._use(conn)
        except BaseException:
            self._pool.discard(conn)
            raise
        if self._random.random() < 0.03:
            self._pool.discard(conn)
        self._pool.release(conn)  # a second end is no end

    async def _use(self, conn: Lease) -> None:
        await self._service.prepare(conn, self._known)
        await self._random.choice(self._uses)(conn)

    # ── uses ────────────────────────────────────────────────────────────────────

    async def _exchange(self, conn: Lease) -> None:
        for _ in range(self._random.choice([1, 1, 1, 2, 4])):
            number = next(_numbers)
            padding = 300_000 if self._random.random() < 0.005 else 0
            await self._service.send(conn, number, padding)
            await self._service.receive(conn, number, bytearray())

    async def _swallow_timeout(self, conn: Lease) -> None:
        """Time runs out, the caller goes on as if nothing had happened; the pool knows better."""
        number, buffer, sent = next(_numbers), bytearray(), False
        with trio.move_on_after(self._random.expovariate(1 / 0.001)) as scope:
            await self._service.send(conn, number)
            sent = True
            await self._service.receive(conn, number, buffer)
        if scope.cancelled_caught and sent and self._random.random() < 0.5:
            await self._service.receive(conn, number, buffer)
            conn.mark_clean()

    async def _err(self, conn: Lease) -> None:
        """The block raises; half of the time after an exchange that it vouches for."""
        number = next(_numbers)
        await self._service.send(conn, number)
        if self._random.random() < 0.5:
            await self._service.receive(conn, number, bytearray())
            conn.mark_clean()
        raise OwnMistake

    async def _leave_unanswered(self, conn: Lease) -> None:
        await self._service.send(conn, next(_numbers))

    async def _retire(self, conn: Lease) -> None:
        conn.retire()
        await self._exchange(conn)

    async def _close(self, conn: Lease) -> None:
        await self._exchange(conn)
        await conn.aclose()

    async def _look(self, conn: Lease) -> None:
        if not await conn.is_healthy():
            raise ServerMisbehaved("unhealthy")
        await self._exchange(conn)

    async def _detach(self, conn: Lease) -> None:
        stream = conn.detach()
        try:
            await stream.send_all(self._service.request(next(_numbers), 0))
            await stream.receive_some()
        finally:
            await trio.aclose_forcefully(stream)

    # ── steering ────────────────────────────────────────────────────────────────

    def _some_endpoint(self) -> conpool.AnyEndpoint | None:
        return None if self._random.random() < 0.1 else self._service.find(self._random)

    async def _warm(self) -> None:
        endpoint = self._service.find(self._random)
        limit = min(self._pool.stats(endpoint).limit, self._pool._core.pool_limit.limit.total)
        with trio.move_on_after(2):
            await self._pool.warm(endpoint, self._random.randint(0, limit))

    async def _set_limit(self) -> None:
        self._pool.set_limit(self._service.find(self._random), self._random.randint(1, 8))

    async def _pause(self) -> None:
        endpoint = self._some_endpoint()
        self._pool.pause(endpoint)
        try:
            await trio.sleep(self._random.uniform(0, 0.05))
        finally:
            self._pool.resume(endpoint)

    async def _close_idle(self) -> None:
        self._pool.close_idle(self._some_endpoint())

    async def _clear(self) -> None:
        interrupts = self._random.random() < 0.3
        self._pool.clear(self._some_endpoint(), interrupt_in_use=interrupts)

    async def _drain(self) -> None:
        await self._pool.drain(self._some_endpoint())


_Step = Callable[..., Awaitable[None]]


def _weighted(*choices: tuple[_Step, int]) -> list[_Step]:
    return [choice for choice, weight in choices for _ in range(weight)]


# ── pools that come and go ──────────────────────────────────────────────────────


def make_pool(random: Random, grammar: Grammar) -> conpool.ConnectionPool[None]:
    """A pool with settings drawn by lot, tight enough that every limit is met."""

    async def check(_conn: conpool.Connection[None]) -> bool:
        await trio.sleep(random.choice([0, 0, 0.002]))
        return random.random() < 0.97

    config = conpool.PoolConfig(
        max_connections_per_endpoint=random.randint(1, 6),
        max_connections=random.choice([None, 4, 20]),
        max_connecting_per_endpoint=random.choice([None, None, 2]),
        min_idle_per_endpoint=random.choice([0, 0, 1]),
        max_waiting_per_endpoint=random.choice([None, None, 3]),
        max_idle_time=random.choice([0.05, 0.5, 2.0]),
        max_connection_lifetime=random.choice([1.0, 10.0]),
        max_connection_uses=random.choice([None, 1, 50]),
        acquire_timeout=random.choice([0.5, 2.0]),
        connect_timeout=random.choice([0.2, 1.0]),
        health_check_timeout=random.choice([0.001, 0.5]),
        health_check_after=random.choice([0.0, 0.1]),
        close_timeout=0.3,
        shutdown_grace=random.choice([0.0, 0.3]),
        reap_interval=random.choice([0.05, 1.0]),
    )
    check_idle = check if random.random() < 0.3 else None
    return conpool.ConnectionPool(config, health_check=check_idle, observers=[grammar])


async def use_pool(
    services: Sequence[Service], random: Random, record: Record, seconds: float
) -> None:
    """Open a pool, have many callers use it for so long, close it in one way or another."""
    grammar = Grammar(record)
    pool = make_pool(random, grammar)
    record.pools_opened += 1
    record.pools.add(pool)
    try:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery, pool:
                for _ in range(random.randint(2, 12)):
                    own = Random(random.random())
                    nursery.start_soon(Caller(pool, services, own, record, grammar).run)
                # Else the time runs out first, and all are cancelled as they stand.
                await trio.sleep(seconds * random.choice([0.9, 2.0]))
                if random.random() < 0.5:
                    await pool.aclose()
    finally:
        record.pools.discard(pool)
        _check_ended(pool, grammar, record)


def _check_ended(pool: conpool.ConnectionPool[None], grammar: Grammar, record: Record) -> None:
    stats = pool.all_stats()
    if left := grammar.find_unfinished():
        record.fail(f"{pool} has ended, but not {left}")
    if stats.active + stats.idle + stats.connecting + stats.closing + stats.waiting:
        record.fail(f"{pool} has ended")
    if stats.total_created != stats.total_closed:
        record.fail(f"{pool} opened {stats.total_created} and closed {stats.total_closed}")
