"""What a pool and its leases look like to a type checker."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import assert_type

import trio

import conpool
from conpool import Connection, ConnectionPool, Endpoint, EndpointGroup, PoolConfig, UnixEndpoint


class Session:
    """What some protocol makes of a stream."""


class SessionDriver(conpool.Driver[Session]):
    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> Session:
        await stream.send_all(str(endpoint).encode())
        return Session()


async def without_a_driver_there_is_no_session(endpoint: Endpoint) -> None:
    pool = ConnectionPool()
    assert_type(pool, ConnectionPool[None])
    async with pool as entered:
        assert_type(entered, ConnectionPool[None])
        block = pool.connection(endpoint)
        assert_type(block, AbstractAsyncContextManager[Connection[None]])
        async with block as conn:
            assert_type(conn, Connection[None])
            assert_type(await conn.receive_some(), bytes | bytearray)


async def a_driver_types_the_session(endpoint: Endpoint) -> None:
    async with ConnectionPool(driver=SessionDriver(), name="typed") as pool:
        assert_type(pool, ConnectionPool[Session])
        async with pool.connection(endpoint) as conn:
            assert_type(conn.session, Session)
        lease = await pool.acquire(endpoint, timeout=1, fresh=True, affinity="tenant")
        assert_type(lease, Connection[Session])
        pool.release(lease)
        assert_type(pool.acquire_nowait(endpoint), Connection[Session])


async def names_alone_mean_that_there_is_no_session(
    pool: ConnectionPool, conn: Connection, endpoint: Endpoint
) -> None:
    assert_type(pool, ConnectionPool[None])
    assert_type(conn, Connection[None])
    assert_type(conn.session, None)
    assert_type(await pool.acquire(endpoint), Connection[None])
    pool = ConnectionPool(PoolConfig(), name="plain")
    ConnectionPool(driver=SessionDriver()).release(conn)  # type: ignore[arg-type]


class PairDriver(conpool.NativeDriver[tuple[Session, int]]):
    async def connect(self, endpoint: conpool.AnyEndpoint) -> tuple[Session, int]:
        return Session(), endpoint.__hash__()

    def fileno(self, session: tuple[Session, int]) -> int:
        return session[1]

    def is_clean(self, session: tuple[Session, int]) -> bool:
        return not session[1]

    def abort(self, session: tuple[Session, int]) -> None:
        assert_type(session, tuple[Session, int])


async def is_well(conn: Connection[Session]) -> bool:
    return bool(conn.session)


async def native_and_generic_drivers_type_the_session(
    endpoint: Endpoint, driver: conpool.Driver[Session]
) -> None:
    native = ConnectionPool(driver=PairDriver())
    assert_type(native, ConnectionPool[tuple[Session, int]])
    async with native.connection(endpoint) as conn:
        assert_type(conn.session, tuple[Session, int])
    assert_type(ConnectionPool(driver=driver, health_check=is_well), ConnectionPool[Session])
    annotated: ConnectionPool[Session] = ConnectionPool(driver=driver)
    assert_type(annotated.acquire_nowait(endpoint).session, Session)
    ConnectionPool(driver=driver, health_check=is_alive)  # type: ignore[arg-type]
    ConnectionPool(driver=Session())  # type: ignore[call-overload]


async def a_lease_is_a_stream(conn: Connection[None]) -> None:
    stream: trio.abc.HalfCloseableStream = conn
    await stream.send_eof()
    assert_type(conn.detach(), trio.abc.Stream)
    assert_type(await conn.is_healthy(), bool)
    assert_type(conn.alpn_protocol, str | None)
    assert_type(conn.endpoint, Endpoint | UnixEndpoint)


async def is_alive(conn: Connection[None]) -> bool:
    return await conn.is_healthy()


def hooks_and_observers(group: EndpointGroup) -> ConnectionPool[None]:
    def closed(info: conpool.ConnectionInfo, reason: conpool.CloseReason) -> str:
        return f"{info.id} {reason.value}"

    pool = ConnectionPool(
        overrides={Endpoint("example.org", 80): PoolConfig()},
        health_check=is_alive,
        on_created=print,
        on_reused=print,
        on_closed=closed,
        observers=(conpool.Observer(),),
        connector=conpool.TCPConnector(),
    )
    assert_type(pool.stats(group), conpool.EndpointStats)
    return pool


def statistics(pool: ConnectionPool[None]) -> None:
    stats = pool.all_stats()
    assert_type(stats.endpoints, Mapping[conpool.AnyEndpoint, conpool.EndpointStats])
    for one in stats.endpoints.values():
        assert_type(one.wait_time.p99, float)
        assert_type(one.closed_by_reason[conpool.CloseReason.ERROR], int)
    assert_type(pool.close_idle(), int)


# What must be refused: if one of these were accepted, the ignored error would be missing, and
# that is an error itself.


def wrong(pool: ConnectionPool[None]) -> None:
    pool.connection("example.org:80")  # type: ignore[arg-type]
    PoolConfig(5)  # type: ignore[call-arg]
    pool.connection(UnixEndpoint("/run/x"), timeout="5")  # type: ignore[arg-type]
