"""Servers that are away, full or of no use: who is told, who is served, how often they are dialled.

Elsewhere callers slept until their time-outs although the pool knew that the server was away. Or
they failed although a connection was about to come back.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from conpool import (
    AcquireTimeout,
    AnyEndpoint,
    ConnectError,
    ConnectionInfo,
    ConnectionPool,
    Connector,
    Endpoint,
    Observer,
    PoolConfig,
    PoolError,
)
from conpool._core.gate import CEILING
from tests.support.pools import (
    HERE,
    THERE,
    Network,
    counts,
    exchange,
    hold,
    open_pool,
    settle,
)

GRACE = PoolConfig().outage_grace


@dataclass
class Told:
    """How one caller fared."""

    waited: float
    error: PoolError | None

    @property
    def errno(self) -> int | None:
        return self.error.errno if isinstance(self.error, ConnectError) else None


async def ask(pool: ConnectionPool[None], told: list[Told], endpoint: Endpoint = HERE) -> None:
    since = trio.current_time()
    error: PoolError | None = None
    try:
        async with pool.connection(endpoint):
            pass
    except PoolError as caught:
        error = caught
    told.append(Told(trio.current_time() - since, error))


async def ask_all(
    pool: ConnectionPool[None], tasks: int, endpoint: Endpoint = HERE, every: float = 0.0
) -> list[Told]:
    """Have so many callers at once, or one every so many seconds."""
    told: list[Told] = []
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(ask, pool, told, endpoint)
            if every:
                await trio.sleep(every)
    return told


def failed(told: Sequence[Told]) -> list[Told]:
    return [one for one in told if one.error is not None]


class Lent(Observer):
    """Who got a connection, in order."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        self.ids.append(info.id)


# ── F127: news travels ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [2, 10, 1000])
async def test_f127_a_thousand_callers_of_a_dead_port_know_it_soon(
    limit: int, autojump_clock: MockClock
) -> None:
    """php-async #141, node-pool #61, mssql-jdbc #483: all but a few sat out their time-out. G33"""
    network = Network()
    network.refuse()
    async with open_pool(
        network,
        every_step=False,
        max_connections_per_endpoint=limit,
        max_connecting_per_endpoint=limit,
    ) as pool:
        told = await ask_all(pool, 1000)
    assert {one.errno for one in told} == {errno.ECONNREFUSED}
    assert max(one.waited for one in told) <= GRACE + CEILING
    assert len(network.dials) <= max(30, limit + 20)


async def test_f127_also_where_the_pool_wide_limit_is_used_up_by_others(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    network.refuse()
    async with open_pool(network, max_connections=2) as pool, trio.open_nursery() as nursery:
        await nursery.start(hold, pool, THERE, 60)
        told = await ask_all(pool, 50)
        assert {one.errno for one in told} == {errno.ECONNREFUSED}
        assert max(one.waited for one in told) <= GRACE + CEILING
        nursery.cancel_scope.cancel()


async def test_f127_who_comes_later_is_told_by_the_next_attempt(autojump_clock: MockClock) -> None:
    network = Network()
    network.refuse()
    async with open_pool(network) as pool:
        await ask_all(pool, 100)
        told = await ask_all(pool, 100, every=0.1)
        assert {one.errno for one in told} == {errno.ECONNREFUSED}
        assert max(one.waited for one in told) <= CEILING
        assert len(network.dials) <= 60


async def test_f127_who_cannot_connect_in_time_is_told_so(autojump_clock: MockClock) -> None:
    """A black hole: each attempt takes as long as it may, and its time-out is the news."""
    network = Network()
    network.silent.add(HERE)
    async with open_pool(network, connect_timeout=2.0, max_connecting_per_endpoint=1) as pool:
        told = await ask_all(pool, 100)
    assert all(isinstance(one.error, ConnectError) for one in told)
    assert max(one.waited for one in told) <= 2.0 + CEILING + 2.0
    assert len(network.dials) == 2


@pytest.mark.parametrize("seed", range(5))
async def test_f127_a_server_that_is_back_within_the_grace_costs_few_their_request(
    seed: int, autojump_clock: MockClock
) -> None:
    network = Network()
    network.refuse()
    async with open_pool(network, every_step=False) as pool, trio.open_nursery() as nursery:
        pool._core._random.seed(seed)

        async def come_back() -> None:
            await trio.sleep(0.8)
            network.accept()

        nursery.start_soon(come_back)
        told = await ask_all(pool, 200)
    refusals = sum(at < 0.8 for at, _ in network.dials)
    assert 1 <= len(failed(told)) <= refusals
    assert max(one.waited for one in told) <= 0.8 + CEILING


@pytest.mark.parametrize("seed", range(5))
async def test_f127_a_server_that_is_away_for_longer_is_told_to_all(
    seed: int, autojump_clock: MockClock
) -> None:
    network = Network()
    network.refuse()
    async with open_pool(network, every_step=False) as pool:
        pool._core._random.seed(seed)
        since = trio.current_time()
        told = await ask_all(pool, 200)
        assert len(failed(told)) == 200
        assert max(one.waited for one in told) <= 2.5
        await trio.sleep_until(since + 3)
        network.accept()
        await trio.sleep(CEILING)
        assert not failed(await ask_all(pool, 200))


async def test_f127_without_end_of_the_grace_each_waits_for_its_own_time_out(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    network.refuse()
    async with open_pool(network, outage_grace=math.inf, every_step=False) as pool:
        told = await ask_all(pool, 200)
    refused = [one for one in told if one.errno == errno.ECONNREFUSED]
    others = [one for one in told if isinstance(one.error, AcquireTimeout)]
    assert len(refused) == len(network.dials) - 9, "of ten side by side the last is told"
    assert len(refused) + len(others) == 200
    assert all(one.waited == 30.0 for one in others)
    for one in others:
        assert isinstance(one.error, AcquireTimeout)
        assert isinstance(one.error.last_connect_error, ConnectError)


async def test_f127_without_grace_a_failure_is_told_to_all_who_waited_when_its_dial_began(
    autojump_clock: MockClock,
) -> None:
    network = Network(delay=0.1)
    network.refuse()
    async with open_pool(network, outage_grace=0, max_connecting_per_endpoint=1) as pool:
        told = await ask_all(pool, 200)
    assert {one.errno for one in told} == {errno.ECONNREFUSED}
    assert told[0].waited == 0.1
    assert len({one.waited for one in told[1:]}) == 1, "they came when the first dial had begun"
    assert len(network.dials) == 2


async def test_f127_a_task_that_warms_is_told_with_the_others(autojump_clock: MockClock) -> None:
    network = Network()
    network.refuse()
    async with (
        open_pool(network, max_connecting_per_endpoint=1) as pool,
        trio.open_nursery() as nursery,
    ):
        told: list[Told] = []
        for _ in range(20):
            nursery.start_soon(ask, pool, told)
        await settle()
        with pytest.raises(ConnectError):
            await pool.warm(HERE, 2)
        await settle()  # those who are told in the same step may run later
        assert trio.current_time() == max(one.waited for one in told), "without a dial of its own"
        assert trio.current_time() > GRACE


@pytest.mark.parametrize("min_idle", [0, 2])
async def test_f127_a_wrong_password_is_not_tried_for_nobody(
    min_idle: int, autojump_clock: MockClock
) -> None:
    """HikariCP #857 and #937, snowflake-connector-nodejs #355: the account was locked."""

    class Login(Connector):
        attempts = 0

        async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
            self.attempts += 1
            await trio.sleep(0.05)
            raise PermissionError("28P01: password authentication failed for user joe")

    login = Login()
    async with open_pool(login, min_idle_per_endpoint=min_idle) as pool:
        (alone,) = await ask_all(pool, 1)
        assert alone.waited == pytest.approx(0.05)
        await trio.sleep(60)
        assert login.attempts == 1
        told = await ask_all(pool, 30, every=1 / 30)
        assert all(one.error is not None and "28P01" in str(one.error) for one in told)
        assert max(one.waited for one in told) <= GRACE + CEILING
        assert login.attempts <= 11
        login.attempts = 0
        await trio.sleep(3600)
        assert login.attempts == 0


# ── F128: help is under way ─────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EMFILE, errno.ENFILE])
async def test_f128_nobody_fails_while_connections_will_come_back(
    number: int, autojump_clock: MockClock
) -> None:
    """node-postgres #557, r2dbc-pool #9: the oldest failed, those who came last were served."""
    network, lent = Network(), Lent()
    served: list[int] = []

    async def take(pool: ConnectionPool[None], who: int) -> None:
        async with pool.connection(HERE) as connection:
            served.append(who)
            await exchange(connection)

    async with open_pool(network, observers=[lent]) as pool:
        leases = [await pool.acquire(HERE) for _ in range(5)]
        network.failures[HERE] = OSError(number, "no more")
        async with trio.open_nursery() as nursery:
            for who in range(8):
                nursery.start_soon(take, pool, who)
                await settle()
            await trio.sleep(5)
            assert (served, counts(pool)) == ([], {"active": 5, "waiting": 8})
            error = pool._core.subs[HERE].gate.last_error
            assert isinstance(error, ConnectError)
            assert error.errno == number
            for lease in leases:
                pool.release(lease)
                await settle()  # or trio mixes the order in which the tasks that were served run
        assert served == list(range(8))
        assert set(lent.ids) == {lease.id for lease in leases}
        assert len(network.dials) - 5 <= 20


async def test_f128_a_time_out_among_them_tells_the_last_connect_error(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    async with open_pool(network) as pool, pool.connection(HERE):
        network.refuse()
        (told,) = await ask_all(pool, 1)
        assert isinstance(told.error, AcquireTimeout)
        assert isinstance(told.error.last_connect_error, ConnectError)
        assert told.waited == 30


async def test_f128_who_wants_a_new_connection_is_told_at_once(autojump_clock: MockClock) -> None:
    """What comes back is of no use to it."""
    network = Network()
    async with open_pool(network) as pool, pool.connection(HERE):
        network.refuse()
        with pytest.raises(ConnectError):
            await pool.acquire(HERE, fresh=True, timeout=5)
        assert trio.current_time() == 0


async def test_f128_a_connection_under_check_is_help(autojump_clock: MockClock) -> None:
    async def check(connection: object) -> bool:
        await trio.sleep(3)
        return True

    network = Network()
    async with open_pool(network, health_check=check, max_connections_per_endpoint=2) as pool:
        await pool.warm(HERE, 1)
        network.refuse()
        told = await ask_all(pool, 5)
        assert not failed(told)
        assert [one.waited for one in told] == [3, 3, 3, 3, 3]


async def test_f128_when_the_last_of_them_is_gone_the_others_are_told(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    async with open_pool(network) as pool:
        lease = await pool.acquire(HERE)
        network.refuse()
        told: list[Told] = []
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask, pool, told)
            await trio.sleep(5)
            assert not told
            pool.discard(lease)
        assert {one.errno for one in told} == {errno.ECONNREFUSED}
        assert max(one.waited for one in told) <= 5 + CEILING


# ── F139: open, and of no use ───────────────────────────────────────────────────


async def hang_up(stream: trio.abc.Stream) -> None:
    """Accept, and be gone before a byte."""


async def insist(pool: ConnectionPool[None], failures: list[BaseException]) -> None:
    """Ask again and again, as a worker does that logs its errors."""
    while True:
        try:
            async with pool.connection(HERE) as connection:
                await exchange(connection)
        except (AssertionError, trio.BrokenResourceError, PoolError) as error:
            failures.append(error)
            await trio.lowlevel.checkpoint()


async def test_f139_a_server_that_accepts_and_hangs_up_is_not_dialled_in_haste(
    autojump_clock: MockClock,
) -> None:
    """2,400 connects a second, from 200 tasks."""
    network = Network(hang_up, delay=0.001)
    failures: list[BaseException] = []
    async with open_pool(network, every_step=False) as pool, trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(insist, pool, failures)
        await trio.sleep(5)
        early = len(network.dials)
        await trio.sleep(60)
        assert early <= 40
        assert len(network.dials) - early <= 60 / CEILING * 4
        assert len(failures) > len(network.dials), "the others are told, too"
        nursery.cancel_scope.cancel()


async def test_f139_it_is_told_as_an_outage_and_forgotten_with_the_first_byte(
    autojump_clock: MockClock,
) -> None:
    network = Network(hang_up)
    async with open_pool(network, max_connections_per_endpoint=2) as pool:
        failures: list[BaseException] = []
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(insist, pool, failures)
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
        assert any(isinstance(error, ConnectError) for error in failures)
        assert not any(isinstance(error, AcquireTimeout) for error in failures)
        network.serve_with(Network()._serve)
        before = len(network.dials)
        async with pool.connection(HERE) as connection:
            await exchange(connection)
            await exchange(connection)
        dialled = trio.current_time()
        leases = [await pool.acquire(HERE) for _ in range(2)]
        assert (len(network.dials) - before, trio.current_time()) == (2, dialled)
        for lease in leases:
            pool.release(lease)


@pytest.mark.parametrize("is_announced", [True, False])
async def test_f139_one_that_was_of_use_before_its_peer_ended_it_is_no_failure(
    is_announced: bool, autojump_clock: MockClock
) -> None:
    """A server that closes after each reply serves as fast as it is asked."""

    async def answer_once(stream: trio.abc.Stream) -> None:
        await stream.send_all(await stream.receive_some())

    network = Network(answer_once)
    async with open_pool(network) as pool:
        for _ in range(50):
            async with pool.connection(HERE) as connection:
                await exchange(connection)
                if is_announced:
                    connection.retire()
                else:
                    assert not await connection.receive_some()
        assert trio.current_time() == 0
        assert len(network.dials) == 50


async def test_f139_a_reply_proves_the_server_though_its_connection_is_not_kept(
    autojump_clock: MockClock,
) -> None:
    """A client that discards each connection was throttled for good after one early hang-up."""
    network = Network(hang_up)
    async with open_pool(network) as pool:
        failures: list[BaseException] = []
        with trio.move_on_after(0.1):
            await insist(pool, failures)
        network.serve_with(Network()._serve)
        for _ in range(12):
            connection = await pool.acquire(HERE)
            await exchange(connection)
            pool.discard(connection)
        before = trio.current_time()
        for _ in range(12):
            connection = await pool.acquire(HERE)
            await exchange(connection)
            pool.discard(connection)
        assert trio.current_time() == before
