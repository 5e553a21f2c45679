"""Order and numbers at the edge: deadlines in the queue, reasons in the statistics, tiny times."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from conpool import (
    AcquireTimeout,
    AnyEndpoint,
    ConnectError,
    Connector,
    ConnectTimeout,
    PoolConfig,
    PoolError,
)
from tests.support.pools import HERE, Network, counts, exchange, hold, open_pool, settle, use

# ── F145: each is refused at its own deadline ───────────────────────────────────


class HangsLater(Network):
    """Dials once; every later dial hangs."""

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        if self.dials:
            self.silent.add(endpoint)
        return await super().connect(endpoint)


@pytest.mark.parametrize("lost_to", ["clear", "nothing"])
async def test_f145_who_goes_back_to_the_queue_holds_up_nobodys_refusal(
    lost_to: str, autojump_clock: MockClock
) -> None:
    """The fresh waiters behind it were refused 29 s late. G14"""
    told: dict[str, tuple[str, float]] = {}
    async with (
        open_pool(
            HangsLater(),
            acquire_timeout=30,
            connect_timeout=1000,
            max_connections_per_endpoint=2,
            max_connecting_per_endpoint=1,
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        lease = await pool.acquire(HERE)

        async def want(name: str, fresh: bool) -> None:
            since = trio.current_time()
            try:
                async with pool.connection(HERE, fresh=fresh):
                    told[name] = "served", trio.current_time() - since
            except AcquireTimeout:
                told[name] = "refused", trio.current_time() - since

        nursery.start_soon(want, "dials", True)
        await trio.sleep(1)
        nursery.start_soon(want, "fresh", True)
        await trio.sleep(28)
        nursery.start_soon(want, "any", False)
        await trio.sleep(0.5)
        pool.release(lease)
        if lost_to == "clear":  # in the tick of the hand-over
            pool.clear(HERE)
        await trio.sleep(100)
        assert (told["dials"], told["fresh"]) == (("refused", 30), ("refused", 30))
        assert told["any"] == (("refused", 30) if lost_to == "clear" else ("served", 0.5))
        nursery.cancel_scope.cancel()


async def test_f145_also_where_it_was_put_back_time_and_again(autojump_clock: MockClock) -> None:
    refused: list[tuple[float, float]] = []
    async with (
        open_pool(HangsLater(), connect_timeout=1000, max_connections_per_endpoint=2) as pool,
        trio.open_nursery() as nursery,
    ):
        lease = await pool.acquire(HERE)

        async def want(patience: float) -> None:
            since = trio.current_time()
            with pytest.raises(AcquireTimeout):
                await pool.acquire(HERE, timeout=patience)
            refused.append((patience, trio.current_time() - since))

        for patience in (20.0, 7.0, 13.0, 5.0, 11.0):
            nursery.start_soon(want, patience)
            await settle()
        await trio.sleep(1)
        pool.release(lease)
        pool.clear(HERE)
        await trio.sleep(50)
        assert sorted(refused) == [(5, 5), (7, 7), (11, 11), (13, 13), (20, 20)]
        nursery.cancel_scope.cancel()


async def test_f145_and_with_a_check_that_fails(autojump_clock: MockClock) -> None:
    async def refuse(connection: object) -> bool:
        await trio.sleep(3)
        return False

    refused: list[tuple[float, float]] = []
    async with (
        open_pool(
            HangsLater(), health_check=refuse, connect_timeout=1000, max_connecting_per_endpoint=1
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        await use(pool)

        async def want(patience: float) -> None:
            since = trio.current_time()
            with pytest.raises(AcquireTimeout):
                await pool.acquire(HERE, timeout=patience)
            refused.append((patience, trio.current_time() - since))

        for patience in (20.0, 4.0, 2.0):
            nursery.start_soon(want, patience)
            await settle()
        await trio.sleep(50)
        assert sorted(refused) == [(2, 2), (4, 4), (20, 20)]
        nursery.cancel_scope.cancel()


# ── F141: what is told of a dial and of a close ─────────────────────────────────


class LogsIn(Connector):
    """Connects, and then fails in what it says."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise self._error


async def test_f141_a_login_that_fails_is_told_as_the_opening() -> None:
    async with open_pool(LogsIn(PermissionError("28P01: wrong password"))) as pool:
        with pytest.raises(ConnectError, match="28P01") as caught:
            await pool.acquire(HERE)
    assert caught.value.phase == "open"


async def test_f141_a_dial_that_was_too_slow_is_a_too_slow_error(autojump_clock: MockClock) -> None:
    network = Network()
    network.silent.add(HERE)
    async with open_pool(network, connect_timeout=3) as pool:
        with pytest.raises(trio.TooSlowError) as caught:
            await pool.acquire(HERE)
    assert isinstance(caught.value, ConnectTimeout)
    assert caught.value.errno is not None
    assert caught.value.strerror


# ── F156: times at the edge ─────────────────────────────────────────────────────


@pytest.mark.parametrize("min_idle", [0, 1])
async def test_f156_connections_that_live_for_a_moment_are_not_dialled_without_end(
    min_idle: int, autojump_clock: MockClock
) -> None:
    """A lifetime of 1e-12 s had 13,000 dials in the moment before anybody else ran."""
    network = Network()
    sweep = PoolConfig().reap_interval
    async with open_pool(
        network, max_connection_lifetime=0.001, min_idle_per_endpoint=min_idle, max_idle_time=60
    ) as pool:
        await use(pool)
        await trio.sleep(60)
        assert len(network.dials) <= 1 + 60 / sweep * min_idle


async def test_f156_callers_are_served_where_connections_live_for_a_moment(
    autojump_clock: MockClock,
) -> None:
    network = Network(delay=0.01)
    async with open_pool(network, max_connection_lifetime=0.001) as pool:
        for _ in range(10):
            async with pool.connection(HERE) as connection:
                await trio.sleep(0.01)
                await exchange(connection)
        assert len(network.dials) == 10


async def test_f156_a_lowered_limit_holds_as_soon_as_what_is_lent_comes_back(
    autojump_clock: MockClock,
) -> None:
    async with open_pool() as pool, trio.open_nursery() as nursery:
        for seconds in range(1, 6):
            await nursery.start(hold, pool, HERE, seconds)
        pool.set_limit(HERE, 2)
        assert (pool.stats(HERE).limit, counts(pool)) == (2, {"active": 5})
        with pytest.raises(PoolError):
            await pool.acquire(HERE, timeout=2.5)
        await trio.sleep(1)
        assert counts(pool)["active"] == 2
        nursery.cancel_scope.cancel()


async def test_f156_quantiles_do_not_exceed_the_longest_wait(autojump_clock: MockClock) -> None:
    async with (
        open_pool(max_connections_per_endpoint=1, reap_interval=9999) as pool,
        pool.connection(HERE),
    ):
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=100_000)
        waits = pool.stats(HERE).wait_time
        assert (waits.max, waits.p99) == (100_000, 100_000)
