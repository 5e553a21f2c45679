"""Names that move: the pool leaves connections to the old addresses, and no others."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from conpool import (
    CloseReason,
    ConnectError,
    Connector,
    Endpoint,
    HTTPProxy,
    PoolConfig,
    TCPConnector,
)
from conpool._dial.name_cache import MAX_STALE
from tests._proxies import Connecting, proxy_at_work

from .places import Directory, EchoServer, ask, echoing, linux_only, listened_to

pytestmark = linux_only

OLD, NEW = "127.0.0.1", "127.0.0.2"
CONFIG = PoolConfig(reap_interval=1.0, lifetime_jitter=0.0)
TTL = 10.0


@asynccontextmanager
async def two_servers() -> AsyncIterator[tuple[EchoServer, EchoServer]]:
    """Run one server at the old address and one at the new, on the same port."""
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(echoing(host=OLD))
        new = await stack.enter_async_context(echoing(host=NEW, port=old.port))
        yield old, new


async def test_a_server_that_moves_is_followed_without_anybody_asking(
    autojump_clock: MockClock,
) -> None:
    directory = Directory(db=(OLD,))
    connector = TCPConnector(resolver=directory, dns_ttl=TTL)
    async with (
        two_servers() as (old, new),
        listened_to(CONFIG.replace(min_idle_per_endpoint=3), connector=connector) as (pool, log),
    ):
        endpoint = Endpoint("db", old.port)
        async with pool.connection(endpoint) as conn:
            await trio.sleep(1)
            assert (old.accepted, new.accepted) == (4, 0)
            directory.names["db"] = (NEW,)
            await trio.sleep(TTL + 2)
            assert log.reasons == [CloseReason.MOVED] * 3
            assert (len(old.live), len(new.live)) == (1, 3), (
                "the lent one stays, the rest has moved"
            )
            assert pool.stats(endpoint).idle == 3
        assert log.reasons == [CloseReason.MOVED] * 4
        assert conn.peer_address == (OLD, old.port)
        await ask(pool, endpoint)
        await trio.testing.wait_all_tasks_blocked()
        assert not old.live


async def test_of_two_addresses_only_the_one_that_is_gone_is_left(
    autojump_clock: MockClock,
) -> None:
    directory = Directory(db=(OLD,))
    connector = TCPConnector(resolver=directory, dns_ttl=TTL)
    async with (
        two_servers() as (old, new),
        listened_to(CONFIG, connector=connector) as (pool, log),
    ):
        endpoint = Endpoint("db", old.port)
        await ask(pool, endpoint)
        directory.names["db"] = (NEW, OLD)
        async with pool.connection(endpoint):
            await trio.sleep(TTL + 2)
            old.refuse()  # so the next connection must go to the other
            await ask(pool, endpoint)
        assert (len(old.live), len(new.live)) == (1, 1)
        directory.names["db"] = (NEW,)
        await trio.sleep(TTL + 2)
        assert log.reasons == [CloseReason.MOVED]
        assert (len(old.live), len(new.live)) == (0, 1)


async def test_a_proxy_that_moves_is_followed(autojump_clock: MockClock) -> None:
    directory = Directory(proxy=(OLD,))
    connector = TCPConnector(resolver=directory, dns_ttl=TTL)
    async with (
        echoing() as target,
        proxy_at_work(Connecting()) as port,
        listened_to(CONFIG, connector=connector) as (pool, log),
    ):
        endpoint = Endpoint("db.example", target.port, proxy=HTTPProxy("proxy", port))
        await ask(pool, endpoint)
        directory.names["proxy"] = (NEW,)
        await trio.sleep(TTL + 2)
        assert log.reasons == [CloseReason.MOVED]
        assert set(directory.asked) == {"proxy"}, "the target's name is the proxy's to resolve"


async def test_a_name_that_is_gone_changes_nothing_for_what_is_open(
    autojump_clock: MockClock,
) -> None:
    directory = Directory(db=(OLD,))
    connector = TCPConnector(resolver=directory, dns_ttl=TTL)
    async with echoing() as server, listened_to(CONFIG, connector=connector) as (pool, log):
        endpoint = Endpoint("db", server.port)
        await ask(pool, endpoint)
        del directory.names["db"]
        await trio.sleep(3 * TTL)
        await ask(pool, endpoint)
        assert (log.dialled, log.reasons) == (1, [])
        with pytest.raises(ConnectError, match="no such name"):
            await pool.acquire(endpoint, fresh=True)


async def test_g16_a_resolver_that_hangs_over_one_name_does_not_keep_others_from_being_followed(
    autojump_clock: MockClock,
) -> None:
    """Not even after a day, when the old answer about that name is not used any more."""
    directory = Directory(db=(OLD,), slow=(OLD,))
    connector = TCPConnector(resolver=directory, dns_ttl=TTL)
    config = PoolConfig(
        reap_interval=600.0, max_idle_time=math.inf, max_connection_lifetime=math.inf
    )
    async with two_servers() as (old, _), listened_to(config, connector=connector) as (pool, log):
        endpoint = Endpoint("db", old.port)
        await ask(pool, endpoint)
        await ask(pool, Endpoint("slow", old.port))
        directory.hangs.add("slow")
        await trio.sleep(MAX_STALE + 3600)
        assert log.reasons == []
        directory.names["db"] = (NEW,)
        await trio.sleep(3600)
        assert log.reasons == [CloseReason.MOVED]
        assert pool.stats(endpoint).idle == 0


async def test_thousands_of_endpoints_are_followed_without_stopping_the_loop(
    autojump_clock: MockClock,
) -> None:
    class Steps(trio.abc.Instrument):
        count = 0

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += task.name == "conpool follow"

    async def steps_of_one_round(endpoints: int) -> int:
        async with listened_to(CONFIG, connector=TCPConnector()) as (pool, _):
            for number in range(endpoints):
                pool._core.find_subpool(Endpoint("db", 1, partition=number), trio.current_time())
            await trio.sleep(0.5)
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            await trio.sleep(1)
            trio.lowlevel.remove_instrument(steps)
            return steps.count

    assert await steps_of_one_round(2000) - await steps_of_one_round(0) == 20


# ── what the documentation warns of, and what it advises ─────────────────────────


async def answer_in_turns(host: str, family: int) -> tuple[str, ...]:
    """A load balancer that knows several servers and names one at a time."""
    await trio.lowlevel.checkpoint()
    return (OLD,) if int(trio.current_time() / TTL) % 2 else (NEW,)


@pytest.mark.parametrize(("dns_ttl", "moves"), [(TTL, True), (math.inf, False), (0.0, False)])
async def test_answers_that_are_but_a_part_of_the_truth_cost_connections_unless_they_last(
    dns_ttl: float, moves: bool, autojump_clock: MockClock
) -> None:
    connector = TCPConnector(resolver=answer_in_turns, dns_ttl=dns_ttl)
    async with (
        two_servers() as (old, _),
        listened_to(CONFIG, connector=connector) as (pool, log),
    ):
        endpoint = Endpoint("balanced", old.port)
        await ask(pool, endpoint)
        for _ in range(50):
            await trio.sleep(1)
            await ask(pool, endpoint)
        if moves:
            assert set(log.reasons) == {CloseReason.MOVED}
            assert log.dialled >= 4
        else:
            assert log.dialled == 1


async def test_a_connector_that_does_not_know_addresses_follows_nothing(
    autojump_clock: MockClock,
) -> None:
    class Own(Connector):
        def __init__(self) -> None:
            self.inner = TCPConnector(resolver=answer_in_turns, dns_ttl=TTL)

        async def connect(self, endpoint: Endpoint) -> trio.abc.Stream:  # type: ignore[override]
            return await self.inner.connect(endpoint)

    async with two_servers() as (old, _), listened_to(CONFIG, connector=Own()) as (pool, log):
        await ask(pool, Endpoint("balanced", old.port))
        await trio.sleep(5 * TTL)
        assert log.reasons == []


async def test_f133_a_name_that_is_gone_for_a_moment_is_followed_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    """A failover deletes the record and makes it anew; elsewhere nobody looked again."""
    directory = Directory(db=(OLD,))
    connector = TCPConnector(resolver=directory, dns_ttl=TTL)
    async with (
        two_servers() as (old, new),
        listened_to(CONFIG, connector=connector) as (pool, log),
    ):
        endpoint = Endpoint("db", old.port)
        await ask(pool, endpoint)
        del directory.names["db"]
        looked_up = len(directory.asked)
        while len(directory.asked) < looked_up + 2:
            await trio.sleep(1)
            await ask(pool, endpoint)
        assert (log.dialled, log.reasons) == (1, []), "nothing is closed while it is gone"
        directory.names["db"] = (NEW,)
        await trio.sleep(TTL + 2)
        assert log.reasons == [CloseReason.MOVED]
        await ask(pool, endpoint)
        assert (len(old.live), len(new.live)) == (0, 1)
