"""Servers that restart, fill up or go away: no churn, no haste, no herd, and soon back."""

from __future__ import annotations

import ssl
from collections import Counter
from contextlib import AsyncExitStack, suppress
from random import Random

import trio
from trio.testing import MockClock

from conpool import TLS, CloseReason, ConnectError, ConnectionPool, Endpoint, PoolConfig
from conpool._core.gate import CEILING
from tests.servers import LOOPBACK, RedisTLS, Valkey
from tests.support.clean import PATIENCE
from tests.support.pools import HERE, Network, make_pool

from .places import linux_only, listened_to

PING = b"PING\r\n"


async def ping(pool: ConnectionPool[None], endpoint: Endpoint) -> None:
    async with pool.connection(endpoint) as conn:
        await conn.send_all(PING)
        answer = await conn.receive_some()
        if answer != b"+PONG\r\n":
            raise trio.BrokenResourceError(bytes(answer))


class Sweeps(trio.abc.Instrument):
    """Waits until the pool's reaper has swept."""

    def __init__(self) -> None:
        self._left = 0
        self._done = trio.Event()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == "conpool reap":
            self._left -= 1
            if self._left == 0:
                self._done.set()

    async def wait(self, count: int) -> None:
        self._left, self._done = count, trio.Event()
        trio.lowlevel.add_instrument(self)
        with trio.fail_after(PATIENCE):
            await self._done.wait()
        trio.lowlevel.remove_instrument(self)


# ── warm and left alone ─────────────────────────────────────────────────────────


async def test_f057_unread_tickets_of_tls_1_3_cause_no_churn(
    redis_tls: RedisTLS, client_ssl: ssl.SSLContext
) -> None:
    """OpenSSL's servers send two tickets at once; nobody reads them until the first exchange."""
    endpoint = Endpoint("localhost", redis_tls.port, tls=TLS(client_ssl))
    # The limit prevents a fifth connection while one of the four is lent.
    config = PoolConfig(min_idle_per_endpoint=4, max_connections_per_endpoint=4, reap_interval=0.01)
    async with listened_to(config) as (pool, log):
        await pool.warm(endpoint, 4)
        for entry in pool._core.subs[endpoint].idle:
            assert entry.link.ssl_object is not None
            assert entry.link.ssl_object.version() == "TLSv1.3"
        await Sweeps().wait(10)
        assert (log.dialled, log.reasons) == (4, [])
        for _ in range(4):
            await ping(pool, endpoint)
        assert (log.dialled, log.reasons) == (4, [])


@linux_only
async def test_g31_a_full_server_is_not_hammered_for_warmth() -> None:
    """Valkey accepts, says that it has its maximum of clients, and hangs up."""
    with Valkey(maxclients=2) as server:
        endpoint = Endpoint(LOOPBACK, server.port)
        async with listened_to(PoolConfig(min_idle_per_endpoint=4)) as (pool, log):
            await pool.warm(endpoint, 4)
            await trio.sleep(1.0)
            # Four at once, then one at a time with pauses of up to 50, 100, 200 … ms.
            assert 4 < log.dialled <= 30
            assert pool.stats(endpoint).idle == 2
            assert set(log.reasons) == {CloseReason.UNREAD_DATA}


# ── a restart ───────────────────────────────────────────────────────────────────


@linux_only
async def test_f028_g31_a_restart_under_load_costs_few_dials_and_little_time() -> None:
    with Valkey() as server:
        endpoint = Endpoint(LOOPBACK, server.port)
        served: Counter[str] = Counter()
        state = "before"
        async with listened_to(PoolConfig(min_idle_per_endpoint=5)) as (pool, log):

            async def work() -> None:
                while True:
                    with suppress(ConnectError, trio.BrokenResourceError):
                        await ping(pool, endpoint)
                        served[state] += 1
                    await trio.sleep(0.005)

            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(work)
                await trio.sleep(0.2)
                assert log.dialled == 10
                server.kill()
                state = "down"
                await trio.sleep(0.5)
                assert log.dialled <= 10 + 40, "ten at once, then ever more rarely"
                server.start()
                state = "after"
                began = trio.current_time()
                while served["after"] < 100:  # noqa: ASYNC110 - a hundred events would be no better
                    await trio.sleep(0.005)
                took = trio.current_time() - began
                assert log.dialled <= 10 + 40 + 20
                nursery.cancel_scope.cancel()
    assert served["down"] <= 50, "answers that were under way"
    assert took <= CEILING + 1.0


class Crowd:
    """Many clients, each with its own pool and its own randomness, that want the same server."""

    def __init__(self, network: Network, clients: int) -> None:
        self.network = network
        self.pools = [make_pool(network, min_idle_per_endpoint=2) for _ in range(clients)]
        for number, pool in enumerate(self.pools):
            pool._core._random = Random(number)

    async def open(self, stack: AsyncExitStack) -> None:
        for pool in self.pools:
            await stack.enter_async_context(pool)
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        for pool in self.pools:
            for _ in range(3):
                nursery.start_soon(self._work, pool)

    async def _work(self, pool: ConnectionPool[None]) -> None:
        while True:
            with suppress(ConnectError, trio.BrokenResourceError):
                async with pool.connection(HERE):
                    await trio.sleep(1.0)
            await trio.sleep(0.01)


async def test_f126_clients_of_one_server_do_not_come_back_in_step(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    crowd = Crowd(network, clients=40)
    async with AsyncExitStack() as stack:
        await crowd.open(stack)
        await trio.sleep(5)
        network.refuse()
        for pool in crowd.pools:
            pool.clear(interrupt_in_use=True)
        await trio.sleep(20)
        up_at = trio.current_time()
        network.accept()
        await trio.sleep(CEILING + 0.1)
        for pool in crowd.pools:
            stats = pool.stats(HERE)
            assert stats.active + stats.idle > 0, "after the longest pause everybody is back"
    down = [at for at, _ in network.dials if up_at - 10 <= at < up_at]
    # Pauses of up to 1.5 s: four dials in 3 s from each client. In step all 40 would dial at once.
    assert len(down) <= 40 * 10 * 4 / 3 * 1.3
    assert max(in_tenths(down).values()) <= 15


async def test_f126_connections_that_were_opened_together_do_not_expire_together(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    config = {"max_connection_lifetime": 100.0, "lifetime_jitter": 0.2, "max_idle_time": 1000.0}
    pool = make_pool(network, min_idle_per_endpoint=100, max_connections_per_endpoint=100, **config)
    pool._core._random = Random(7)
    async with pool:
        await pool.warm(HERE, 100)
        await trio.sleep(99)
    renewed = in_tenths([at for at, _ in network.dials if at > 0])
    assert min(renewed) >= 800, "jitter takes away a fifth at the most"
    assert sum(renewed.values()) >= 60
    assert max(renewed.values()) <= 35, "each sweep finds but a few"


def in_tenths(moments: list[float]) -> Counter[int]:
    """Count what happened in each tenth of a second."""
    return Counter(int(at * 10) for at in moments)
