"""Names, through the pool: one look-up however many ask, and a slow name hurts nobody else."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from itertools import count
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from conpool import ConnectError, Endpoint, PoolConfig, ResolveError, TCPConnector
from tests._net import LOOPBACK, SystemResolver, refusing
from tests.support.loopback_servers import serving

from .places import Directory, ask, linux_only, listened_to, wait_until

NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "no such name")


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemResolver]:
    """The system's `getaddrinfo`, which answers at once unless told otherwise."""
    resolver = SystemResolver()
    resolver.slow = "slow"
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.let_go()


class DefaultLimiter(trio.abc.Instrument):
    """Looks at trio's own limit for threads after every step of every task."""

    def __init__(self) -> None:
        self.most = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        limiter = trio.to_thread.current_default_thread_limiter()
        statistics = limiter.statistics()
        self.most = max(self.most, statistics.borrowed_tokens, statistics.tasks_waiting)


@pytest.fixture
def default_limiter() -> DefaultLimiter:
    return DefaultLimiter()


async def test_a_thousand_connects_to_one_name_make_one_look_up(system: SystemResolver) -> None:
    connector = TCPConnector()
    config = PoolConfig(max_connections_per_endpoint=100)
    async with serving() as server, listened_to(config, connector=connector) as (pool, log):
        endpoint = Endpoint("db.example", server.port)

        async def connect() -> None:
            async with pool.connection(endpoint, fresh=True):
                pass

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(connect)
        assert log.dialled == 1000
        stats = connector.resolver_stats
    assert system.asked == ["db.example"]
    assert (stats.lookups, stats.hits + stats.misses, stats.names) == (1, 1000, 1)


async def test_endpoints_that_differ_only_in_what_a_name_does_not_share_the_answer(
    system: SystemResolver,
) -> None:
    async with serving() as one, serving() as other, listened_to() as (pool, _):
        for port in (one.port, other.port):
            for partition in (None, "tenant"):
                await ask(pool, Endpoint("db.example", port, partition=partition))
    assert system.asked == ["db.example"]


async def test_f023_sixty_waiters_on_a_name_that_hangs_take_one_thread(
    system: SystemResolver, default_limiter: DefaultLimiter
) -> None:
    """Twenty at a time: callers that come after others have given up find the same thread."""
    trio.lowlevel.add_instrument(default_limiter)
    config = PoolConfig(max_connections_per_endpoint=60, connect_timeout=0.02)
    errors: list[ConnectError] = []
    async with listened_to(config) as (pool, _log):

        async def wait(endpoint: Endpoint) -> None:
            with pytest.raises(ResolveError) as caught:
                await pool.acquire(endpoint)
            errors.append(caught.value)

        for number in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    # After a failure the same endpoint would not be dialled at once.
                    nursery.start_soon(wait, Endpoint("slow.example", 1, partition=number))
        assert len(errors) == 60
        assert system.asked == ["slow.example"]
    assert {(error.phase, error.errno) for error in errors} == {("resolve", errno.ETIMEDOUT)}
    assert default_limiter.most == 0


async def test_f023_g16_fifteen_names_that_hang_are_nothing_to_those_who_want_another(
    system: SystemResolver, default_limiter: DefaultLimiter
) -> None:
    trio.lowlevel.add_instrument(default_limiter)
    async with serving() as server, listened_to() as (pool, _), trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(pool.acquire, Endpoint(f"slow{number % 15}.example", 1))
        await system.wait_asked(15)
        for number in range(10):
            await ask(pool, Endpoint(f"quick{number}.example", server.port))
        assert len(system.asked) == 15 + 10
        assert pool.all_stats().connecting == 60
        nursery.cancel_scope.cancel()
    assert default_limiter.most == 0


async def test_f023_more_than_twenty_names_that_hang_leave_those_that_are_known_alone(
    system: SystemResolver, default_limiter: DefaultLimiter
) -> None:
    trio.lowlevel.add_instrument(default_limiter)
    async with serving() as server, listened_to() as (pool, _), trio.open_nursery() as nursery:
        known = Endpoint("quick.example", server.port)
        await ask(pool, known)
        for number in range(30):
            nursery.start_soon(pool.acquire, Endpoint(f"slow{number}.example", 1))
        await system.wait_asked(21)
        async with pool.connection(known, fresh=True):
            pass
        assert len(system.asked) == 21, "nobody could ask: all threads are taken"
        await ask(pool, server.endpoint)  # an address asks nobody
        nursery.cancel_scope.cancel()
    assert default_limiter.most == 0


async def test_g19_a_pool_closes_at_once_over_a_name_that_hangs(system: SystemResolver) -> None:
    with trio.fail_after(5):
        async with listened_to() as (pool, _), trio.open_nursery() as nursery:
            nursery.start_soon(pool.acquire, Endpoint("slow.example", 1))
            await system.wait_asked(1)
            nursery.cancel_scope.cancel()


async def test_f022_a_crowd_behind_a_name_that_does_not_exist_makes_one_look_up(
    system: SystemResolver,
) -> None:
    system.fails = NO_SUCH_NAME
    refused = count()
    async with listened_to(PoolConfig(max_connections_per_endpoint=60)) as (pool, _):

        async def wait() -> None:
            with pytest.raises(ResolveError, match="no such name"):
                await pool.acquire(Endpoint("nosuch.example", 1))
            next(refused)

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(wait)
    assert next(refused) == 60
    # The dials of one moment share a look-up. One more ends the grace of those who still wait.
    assert 1 <= len(system.asked) <= 5


@pytest.mark.parametrize("said", ["no memory for an answer", "no address"])
async def test_g20_whatever_a_look_up_comes_to_after_all_have_gone_harms_nobody(
    system: SystemResolver, said: str
) -> None:
    """The result is delivered outside of any task, where an exception would end the program."""
    if said == "no address":
        system.found = "/run/socket"  # not an address
    else:
        system.fails = cast("OSError", MemoryError(said))
    connector = TCPConnector()
    async with listened_to(PoolConfig(connect_timeout=0.02), connector=connector) as (pool, _):
        with pytest.raises(ResolveError):
            await pool.acquire(Endpoint("slow.example", 1))
        system.gate.set()
        await wait_until(lambda: connector.resolver_stats.failures == 1)
        with pytest.raises(ResolveError, match=said):
            await pool.acquire(Endpoint("slow.example", 1), timeout=1)


@linux_only
async def test_a_name_whose_addresses_all_failed_is_looked_up_again() -> None:
    directory = Directory(db=("127.0.0.2",))
    async with serving() as server:
        connector = TCPConnector(resolver=directory)
        endpoint = Endpoint("db", server.port)
        async with listened_to(connector=connector) as (pool, _):
            with refusing("127.0.0.2", server.port), pytest.raises(ConnectError):
                await ask(pool, endpoint)
            directory.names["db"] = (LOOPBACK,)
            await ask(pool, endpoint)
    assert directory.asked == ["db", "db"]


async def test_old_addresses_serve_new_dials_while_the_resolver_is_down(
    autojump_clock: MockClock,
) -> None:
    directory = Directory(db=(LOOPBACK,))
    connector = TCPConnector(resolver=directory, dns_ttl=10)
    async with serving() as server, listened_to(connector=connector) as (pool, _):
        endpoint = Endpoint("db", server.port)
        await ask(pool, endpoint)
        await trio.sleep(11)
        directory.hangs.add("db")
        for _ in range(2):  # the second one does not even ask
            async with pool.connection(endpoint, fresh=True):
                pass
        stats = connector.resolver_stats
    assert directory.asked == ["db", "db"]
    assert (stats.stale, stats.hits, stats.misses) == (1, 1, 2)
