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
