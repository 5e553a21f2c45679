"""Slots that were lost and sockets that nobody closed: cases from other pools.

Each test has the name of the report, and its docstring says what happened there.
"""

from __future__ import annotations

import ssl
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from conpool import (
    TLS,
    AcquireTimeout,
    Connection,
    ConnectionPool,
    ConnectTimeout,
    Endpoint,
    PoolClosed,
    PoolConfig,
)
from conpool.testing import assert_quiescent, cancel_everywhere
from tests.support.clean import PATIENCE, clean
from tests.support.faults import LOOPBACK
from tests.support.loopback_servers import serving
from tests.support.pools import (
    HERE,
    Network,
    counts,
    exchange,
    hold,
    listen,
    open_pool,
    reasons,
    settle,
)

ONE = PoolConfig(max_connections_per_endpoint=1)

simulated = partial(MockClock, autojump_threshold=0)


async def use_all(pool: ConnectionPool[None], count: int) -> None:
    """Show that no slot is lost: have `count` connections at the same time, soon."""
    with trio.fail_after(PATIENCE):
        leases = [await pool.acquire(HERE) for _ in range(count)]
    for lease in leases:
        pool.release(lease)


# ── at the end of a lease ───────────────────────────────────────────────────────


async def test_redis_py_4121() -> None:
    """Giving back was an await: a cancellation in it lost the connection.

    Here the block ends in a scope that is cancelled already.
    """
    async with open_pool(max_connections_per_endpoint=1) as pool:
        for use in range(1, 4):
            with trio.CancelScope() as scope:
                async with pool.connection(HERE) as conn:
                    assert conn.uses == use
                    scope.cancel()
            assert counts(pool) == {"idle": 1}


async def test_sqlalchemy_8145(autojump_clock: MockClock) -> None:
    """Cleanup awaited in a cancelled scope, so it was cancelled, too: no rollback was sent.

    The rest of the cleanup, the give-back among it, did not happen (also #6652, #12077).
    """
    async with open_pool(max_connections_per_endpoint=1) as pool:
        with trio.move_on_after(1) as scope:
            async with pool.connection(HERE) as conn:
                try:
                    await trio.sleep_forever()
                finally:
                    await exchange(conn, b"ROLLBACK")  # noqa: ASYNC102 - just this must do no harm
        assert scope.cancelled_caught
        assert counts(pool) == {}
        assert reasons(pool) == {"CANCELLED": 1}
        await use_all(pool, 1)


async def test_sqlalchemy_8145_when_all_is_cancelled(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    """The same for the whole pool: a close with a goodbye awaits, too."""
    endings: list[bytes] = []

    async def note_the_end(stream: trio.abc.Stream) -> None:
        async for _ in stream:
            pass
        endings.append(b"goodbye")  # without the goodbye this would have raised

    async with serving(note_the_end, server_ssl) as server:
        endpoint = Endpoint(LOOPBACK, server.port, tls=TLS(client_ssl))
        with trio.CancelScope() as scope:
            async with clean(None) as case:
                await case.pool.warm(endpoint, 2)
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert case.recorder.open == 0
        await server.wait_live(0)
        assert endings == [b"goodbye"] * 2


async def test_coredis_of_a_pool_of_two() -> None:
    """coredis 6.9: each connection that died while it was lent lost its slot.

    After two of them a pool of two was dead.
    """

    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.receive_some()

    async with open_pool(Network(hang_up), max_connections_per_endpoint=2) as pool:
        for _ in range(2):
            with pytest.raises(AssertionError, match="the server has gone"):
                async with pool.connection(HERE) as conn:
                    await exchange(conn)
        assert counts(pool) == {}
        await use_all(pool, 2)


# ── during a dial ───────────────────────────────────────────────────────────────


def test_httpcore_1093() -> None:
    """A request got a connection that was not open yet, and was cancelled before it opened it.

    Nobody opened it, used it or closed it: its slot was lost for good (also #564, #785).
    """

    async def scenario(scope: trio.CancelScope) -> None:
        async with open_pool(Network(delay=1), max_connections_per_endpoint=1) as pool:
            with scope:
                await hold(pool)
            await use_all(pool, 1)
            assert_quiescent(pool)

    assert cancel_everywhere(scenario, clock=simulated) >= 6


async def test_httpcore2_of_a_cancelled_handshake() -> None:
    """httpcore2 2.16: a TLS handshake that is cancelled leaves its socket open.

    Here the caller's cancellation leaves the dial alone; its time-out ends it.
    """
    async with serving(listen) as server:
        endpoint = Endpoint(LOOPBACK, server.port, tls=True)
        async with clean(None, ONE.replace(connect_timeout=0.2)) as case:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(case.pool.acquire, endpoint)
                    await server.wait_live(1)
                    scope.cancel()
            await case.settle()
            assert case.recorder.open == 0
            with pytest.raises(ConnectTimeout, match="phase tls"):
                await case.pool.acquire(endpoint)


async def test_httpcore2_of_a_handshake_when_the_pool_closes() -> None:
    """The same when the pool's end cancels the handshake."""
    async with serving(listen) as server:
        endpoint = Endpoint(LOOPBACK, server.port, tls=True)
        async with clean(None) as case, trio.open_nursery() as nursery:
            nursery.start_soon(expect_pool_closed, case.pool, endpoint)
            await server.wait_live(1)
            await case.pool.aclose()
            assert case.recorder.open == 0


async def expect_pool_closed(pool: ConnectionPool[None], endpoint: Endpoint) -> None:
    with pytest.raises(PoolClosed):
        await pool.acquire(endpoint)


async def test_generic_connection_pool_of_two(autojump_clock: MockClock) -> None:
    """generic-connection-pool 0.8: two callers cancelled while they connect, and the pool is dead.

    Here both dials go on, and serve the next callers.
    """
    network = Network(delay=2)
    async with open_pool(network, max_connections_per_endpoint=2) as pool:
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hold, pool)
                nursery.start_soon(hold, pool)
        assert counts(pool) == {"connecting": 2}
        await use_all(pool, 2)
        assert trio.current_time() == 2
        assert len(network.dials) == 2


async def test_asyncpg_464(autojump_clock: MockClock) -> None:
    """A dial that timed out left a half-open connection that nobody owned.

    Here the slot comes back and the socket is closed, each time.
    """
    network = Network(delay=1)
    network.silent.add(HERE)
    async with open_pool(
        network, max_connections_per_endpoint=2, connect_timeout=3, acquire_timeout=2
    ) as pool:
        for _ in range(5):
            with pytest.raises(AcquireTimeout):
                await pool.acquire(HERE)
        await trio.sleep(60)
        assert counts(pool) == {}
        assert network.dialling == network.live == 0
        network.accept()
        await use_all(pool, 2)


@pytest.mark.parametrize("early", [-0.001, 0.0, 0.001])
async def test_asyncpg_467(autojump_clock: MockClock, early: float) -> None:
    """The time-out came with the connection: `wait_for` dropped the connection (also #547).

    Here the connection has an owner or is idle, whichever comes first.
    """
    async with open_pool(Network(delay=1), max_connections_per_endpoint=1) as pool:
        for _ in range(5):
            try:
                pool.discard(await pool.acquire(HERE, timeout=1 + early))
            except AcquireTimeout:
                assert early <= 0
            await trio.sleep(1)
            pool.close_idle()
            assert counts(pool) == {}
        await use_all(pool, 1)


async def test_asyncpg_1269(autojump_clock: MockClock) -> None:
    """The check after the dial failed, and nobody took the checked connection back.

    Here a connection that fails its check is closed, and its slot serves the next caller.
    """
    checked: list[int] = []

    async def refuse(conn: Connection[None]) -> bool:
        checked.append(conn.id)
        if len(checked) < 3:
            raise OSError("the server is shutting down")
        return False

    async with open_pool(
        max_connections_per_endpoint=2, health_check=refuse, lifetime_jitter=0.0
    ) as pool:
        for _ in range(4):
            await pool.warm(HERE, 2)
            async with pool.connection(HERE):
                assert counts(pool) == {"active": 1}
            pool.close_idle()
        assert len(checked) == 5  # from the second failure on, one is enough to close both
        assert reasons(pool) == {"UNHEALTHY": 8, "CLEARED": 4}


# ── at a hand-over ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("first", ["release", "cancel"])
async def test_psycopg_pool_503(first: str) -> None:
    """A task that was being cancelled was handed a connection, which nobody owned then.

    A later repair gave it to that task and lost the cancellation (#1275, #1345, #1401).
    """
    scope = trio.CancelScope()
    order: list[str] = []

    async def wait(name: str) -> None:
        async with pool.connection(HERE):
            order.append(name)

    async def wait_in_scope() -> None:
        with scope:
            await wait("cancelled")
        assert scope.cancelled_caught

    async with (
        open_pool(max_connections_per_endpoint=1) as pool,
        trio.open_nursery() as nursery,
    ):
        conn = await pool.acquire(HERE)
        nursery.start_soon(wait_in_scope)
        await settle()
        nursery.start_soon(wait, "next")
        await settle()
        if first == "release":
            pool.release(conn)
            scope.cancel()
        else:
            scope.cancel()
            pool.release(conn)
        await settle()
        assert order == ["next"]
        assert counts(pool) == {"idle": 1}
        assert pool.stats(HERE).total_created == 1


async def test_psycopg_pool_1401(autojump_clock: MockClock) -> None:
    """A loop around the check of a connection took a cancellation for a failed check.

    It went on with the next connection, so the caller's time-outs had no effect.
    """

    async def hang(conn: Connection[None]) -> bool:
        await trio.sleep_forever()
        raise AssertionError

    async with open_pool(max_connections_per_endpoint=3, health_check=hang) as pool:
        await pool.warm(HERE, 3)
        with trio.move_on_after(1) as scope:
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        assert trio.current_time() == 1
        assert counts(pool) == {"active": 1, "idle": 2}
