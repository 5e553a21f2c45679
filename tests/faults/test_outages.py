"""Servers that are away, full, frozen or of no use, on real sockets: who is told, who is served."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import trio
from trio.abc import Stream

from conpool import (
    AcquireTimeout,
    AnyEndpoint,
    CloseReason,
    ConnectError,
    Connection,
    ConnectionInfo,
    ConnectionPool,
    Connector,
    ConnectTimeout,
    Endpoint,
    Observer,
    PoolConfig,
    PoolError,
    TCPConnector,
)
from tests._net import LOOPBACK, swallowing
from tests.servers import Postgres, Valkey
from tests.support.clean import PATIENCE, Case, clean
from tests.support.faults import close_stream
from tests.support.loopback_servers import exchange, serving

from .protocols import ServerError, postgres, postgres_log_in, redis
from .sites import ProxyTo

query = postgres  # where a fixture is called `postgres`


async def ask(case: Case, endpoint: Endpoint, told: list[PoolError | None]) -> None:
    """Borrow and give back; note how it went."""
    try:
        async with case.pool.connection(endpoint):
            pass
    except PoolError as error:
        told.append(error)
    else:
        told.append(None)


async def ask_all(case: Case, endpoint: Endpoint, tasks: int) -> list[PoolError | None]:
    told: list[PoolError | None] = []
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(ask, case, endpoint, told)
    return told


async def eventually(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110 - no event tells of it
            await trio.sleep(0.005)


def numbers(told: list[PoolError | None]) -> set[int | None]:
    return {error.errno if isinstance(error, ConnectError) else None for error in told}


# ── away ────────────────────────────────────────────────────────────────────────


async def test_f127_a_thousand_callers_of_a_dead_port_know_it_soon() -> None:
    with trio.socket.socket() as bound:
        await bound.bind((LOOPBACK, 0))
        endpoint = Endpoint(LOOPBACK, bound.getsockname()[1])
        async with clean(None, pace=100) as case:
            since = trio.current_time()
            told = await ask_all(case, endpoint, 1000)
            assert trio.current_time() - since < 10, "a third of their time-outs, on any machine"
            assert numbers(told) == {errno.ECONNREFUSED}
            assert case.log.dialled <= 30


async def test_f127_a_server_that_is_back_at_once_costs_few_their_request(
    proxy_to: ProxyTo,
) -> None:
    async with serving() as server:
        proxy = await proxy_to(server.port)
        endpoint = Endpoint(LOOPBACK, proxy.port)
        # The grace is as long as it takes: what is tested is that it holds.
        async with clean(endpoint, PoolConfig(outage_grace=math.inf), pace=20) as case:
            proxy.refuse()
            told: list[PoolError | None] = []
            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(ask, case, endpoint, told)
                await case.log.wait_until(lambda: len(case.log.connect_errors) >= 12)
                await proxy.accept()
            refused = [error for error in told if error is not None]
            assert 1 <= len(refused) <= len(case.log.connect_errors)
            assert len(told) == 200


# ── full ────────────────────────────────────────────────────────────────────────


class LoggedIn(Connector):
    """Dials sessions of a PostgreSQL server."""

    def __init__(self, server: Postgres, password: str | None = None) -> None:
        self._server = server
        self._password = password
        self._tcp = TCPConnector()

    async def connect(self, endpoint: AnyEndpoint) -> Stream:
        stream = await self._tcp.connect(endpoint)
        try:
            await postgres_log_in(stream, self._server, self._password)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream


@pytest.fixture(scope="module")
def small_postgres() -> Iterator[Postgres]:
    settings = {"superuser_reserved_connections": 0, "max_wal_senders": 0}
    with Postgres(max_connections=15, **settings) as server:
        yield server


async def test_f128_a_full_postgres_fails_nobody_whom_returns_will_serve(
    small_postgres: Postgres,
) -> None:
    """Five sessions are lent, others have the other ten, and eight callers wait."""
    server = small_postgres
    endpoint = Endpoint(server.host, server.port)
    connector = LoggedIn(server)
    served: list[int] = []
    async with clean(None, connector=connector) as case:
        leases = [await case.pool.acquire(endpoint) for _ in range(5)]
        others = [await connector.connect(endpoint) for _ in range(10)]
        dialled = case.log.dialled

        async def take(number: int) -> None:
            async with case.pool.connection(endpoint) as conn:
                served.append(number)
                assert await query(conn, "SELECT 1") == [b"1"]

        def waits(number: int) -> bool:
            return case.pool.stats(endpoint).waiting > number

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(take, number)
                await eventually(partial(waits, number))
            await case.log.wait_until(lambda: len(case.log.connect_errors) >= 3)
            assert not served
            for lease in leases:
                case.pool.release(lease)
        assert sorted(served[:5]) == [0, 1, 2, 3, 4], "the oldest come first"
        assert sorted(served) == list(range(8))
        assert all("53300" in str(error) for error in case.log.connect_errors)
        assert case.log.dialled - dialled <= 10
        for other in others:
            await other.aclose()


# ── frozen ──────────────────────────────────────────────────────────────────────


async def test_f129_dials_into_a_black_hole_make_way_for_a_caller_elsewhere() -> None:
    config = PoolConfig(max_connections=5, max_connections_per_endpoint=5, connect_timeout=60)
    with swallowing() as port:
        hole = Endpoint(LOOPBACK, port)
        async with serving() as server, clean(server.endpoint, config) as case:
            with trio.move_on_after(0.1):
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(case.pool.acquire, hole)
            assert case.pool.stats(hole).connecting == 5
            with trio.fail_after(PATIENCE):
                async with case.pool.connection(server.endpoint) as conn:
                    await exchange(conn)
            assert case.pool.stats(hole).connecting == 4, "one was enough"
            case.pool.clear(hole)


async def ping(conn: Connection[None]) -> bool:
    return await redis(conn, b"PING") == b"PONG"


async def test_f129_checks_of_a_frozen_server_make_way_for_a_caller_elsewhere() -> None:
    config = PoolConfig(
        max_connections=4,
        max_connections_per_endpoint=4,
        health_check_interval=0.05,
        health_check_timeout=60,
        reap_interval=0.02,
    )
    with Valkey() as frozen:
        there = Endpoint(frozen.host, frozen.port)
        async with serving() as server, clean(None, config, health_check=ping) as case:
            await case.pool.warm(there, 4)
            frozen.pause()
            sub = case.pool._core.subs[there]
            await eventually(lambda: bool(sub.reserved))
            assert len(sub.reserved) <= 2, "the others may be lent meanwhile"
            with trio.fail_after(PATIENCE):
                leases = [await case.pool.acquire(server.endpoint) for _ in range(4)]
            assert len(case.pool._core.pool_limit.limit.borrowers) == 4
            for lease in leases:
                case.pool.release(lease)
            frozen.resume()


async def test_f131_callers_who_give_up_on_a_slow_server_cost_no_connection() -> None:
    """Each leaves amid a check; the server answers all of them, later."""
    asked, answers = trio.open_memory_channel[None](math.inf)
    go_on = trio.Event()

    async def answer_late(stream: Stream) -> None:
        async for data in stream:
            asked.send_nowait(None)
            await go_on.wait()
            await stream.send_all(data)

    async def check(conn: Connection[None]) -> bool:
        await exchange(conn)
        return True

    config = PoolConfig(health_check_timeout=60)
    async with serving(answer_late) as server, clean(None, config, health_check=check) as case:
        await case.pool.warm(server.endpoint, 10)
        for number in range(10):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    if number % 2:
                        nursery.start_soon(ask_briefly, case, server.endpoint)
                    else:
                        nursery.start_soon(case.pool.acquire, server.endpoint)
                    await answers.receive()
                    if not number % 2:
                        scope.cancel()
        assert case.pool.stats(server.endpoint).active == 10
        go_on.set()
        await eventually(lambda: case.pool.stats(server.endpoint).idle == 10)
        assert (case.log.reasons, case.log.dialled) == ([], 10)


async def ask_briefly(case: Case, endpoint: Endpoint) -> None:
    with pytest.raises(AcquireTimeout):
        await case.pool.acquire(endpoint, timeout=0.05)


async def test_f132_flows_that_a_balancer_has_dropped_cost_two_callers_at_most(
    proxy_to: ProxyTo,
) -> None:
    slow = 0

    async def check(conn: Connection[None]) -> bool:
        nonlocal slow
        slow += 1
        await exchange(conn)
        slow -= 1
        return True

    config = PoolConfig(health_check_timeout=0.3)
    async with serving() as server:
        proxy = await proxy_to(server.port)
        endpoint = Endpoint(LOOPBACK, proxy.port)
        async with clean(endpoint, config, health_check=check) as case:
            await case.pool.warm(endpoint, 10)
            await proxy.wait_passages(10)
            for passage in proxy.passages:
                passage.black_hole()
            leases = [await case.pool.acquire(endpoint) for _ in range(6)]
            assert slow == 2, "checks that waited for an answer in vain"
            for lease in leases:
                await exchange(lease)
                case.pool.release(lease)
            assert case.log.reasons == [CloseReason.UNHEALTHY] * 10
            proxy.end_all("close")
            await case.log.wait_until(lambda: case.pool.stats(endpoint).idle == 0)


# ── of no use ───────────────────────────────────────────────────────────────────


class Count(Observer):
    def __init__(self) -> None:
        self.dials = 0

    def connecting(self, info: ConnectionInfo) -> None:
        self.dials += 1


async def test_f139_a_server_that_accepts_and_resets_is_not_dialled_in_haste() -> None:
    async def reset(stream: Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        close_stream(stream, "reset")

    count = Count()
    failures = 0

    async def insist(pool: ConnectionPool[None], endpoint: Endpoint) -> None:
        nonlocal failures
        while True:
            try:
                async with pool.connection(endpoint) as conn:
                    await exchange(conn)
            except (PoolError, AssertionError, trio.BrokenResourceError):
                failures += 1
                await trio.lowlevel.checkpoint()

    async with (
        serving(reset) as server,
        ConnectionPool(observers=[count]) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(200):
            nursery.start_soon(insist, pool, server.endpoint)
        await trio.sleep(1)
        assert count.dials <= 40, "it was some 2,400"
        nursery.cancel_scope.cancel()


async def test_f140_postgres_runs_an_abandoned_query_on_unless_it_is_told_to_look(
    postgres: Postgres,
) -> None:
    """What the documentation says of raw streams, and of its remedies."""
    endpoint = Endpoint(postgres.host, postgres.port)
    watcher = Endpoint(postgres.host, postgres.port, partition="watcher")
    async with clean(None, connector=LoggedIn(postgres)) as case:

        async def abandon(setting: str) -> None:
            async with case.pool.connection(endpoint) as conn:
                await query(conn, f"SET {setting}")
                with trio.move_on_after(0.1):
                    await query(conn, "SELECT pg_sleep(3600) /* abandoned */")

        async def find() -> list[bytes]:
            async with case.pool.connection(watcher) as conn:
                return await query(
                    conn,
                    "SELECT pid FROM pg_stat_activity"
                    " WHERE query LIKE '%pg_sleep(3600)%' AND state = 'active'"
                    " AND pid <> pg_backend_pid()",
                )

        await abandon("client_connection_check_interval = 0")
        assert case.log.reasons == [CloseReason.INCOMPLETE]
        assert case.pool.stats(endpoint).active == 0, "the pool's slot is free at once"
        (pid,) = await find()
        async with case.pool.connection(watcher) as conn:
            await query(conn, f"SELECT pg_terminate_backend({int(pid)})")
        for setting in ("client_connection_check_interval = 20", "statement_timeout = 200"):
            await abandon(setting)
        with trio.fail_after(PATIENCE):
            while await find():  # noqa: ASYNC110 - the server tells only who asks
                await trio.sleep(0.02)


async def test_f141_what_postgres_refuses_is_told_of_the_opening_and_not_of_tcp(
    postgres: Postgres,
) -> None:
    endpoint = Endpoint(postgres.host, postgres.port)
    async with clean(None, connector=LoggedIn(postgres, password="wrong")) as case:
        with pytest.raises(ConnectError, match="28P01") as caught:
            await case.pool.acquire(endpoint)
        assert caught.value.phase == "open"
        assert isinstance(caught.value.__cause__, ServerError)


async def test_f141_a_dial_that_takes_too_long_is_too_slow_and_says_why() -> None:
    with swallowing() as port:
        async with clean(None, PoolConfig(connect_timeout=0.1)) as case:
            with pytest.raises(trio.TooSlowError) as caught:
                await case.pool.acquire(Endpoint(LOOPBACK, port))
            assert isinstance(caught.value, ConnectTimeout)
            assert (caught.value.phase, caught.value.errno) == ("tcp", errno.ETIMEDOUT)
            assert caught.value.strerror
