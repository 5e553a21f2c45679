"""What a program that uses both trio_typing and conpool looks like to a type checker.

trio-typing brings stubs of its own for trio, and mypy reads them in place of trio's annotations.
They know nothing of `trio.TaskStatus`, so such a program takes trio_typing's.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import assert_type

import trio
from trio_typing import Nursery, TaskStatus

import conpool
from conpool.testing import (
    Failure,
    MemoryConnector,
    assert_quiescent,
    cancel_everywhere,
    fail_everywhere,
)


class Session:
    """What some protocol makes of a stream."""


class SessionDriver(conpool.Driver[Session]):
    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> Session:
        await stream.send_all(str(endpoint).encode())
        return Session()


class Log(conpool.Observer):
    def connected(self, info: conpool.ConnectionInfo, took: float) -> None:
        print(f"{info.id} was open after {took:.3f} s")

    def acquired(self, info: conpool.ConnectionInfo, waited: float) -> None:
        print(f"{info.id} was lent after {waited:.3f} s")

    def closed(self, info: conpool.ConnectionInfo, reason: conpool.CloseReason) -> None:
        print(f"{info.id} was closed: {reason.value}")


class JumpHost(conpool.Connector):
    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        return await trio.open_tcp_stream("jump.example", 2222)


async def serve(
    endpoint: conpool.Endpoint,
    *,
    task_status: TaskStatus[conpool.ConnectionPool[None]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep a pool open, in the way in which trio starts a service."""
    config = conpool.PoolConfig(max_connections_per_endpoint=2, min_idle_per_endpoint=1)
    async with conpool.ConnectionPool(config, connector=JumpHost(), observers=[Log()]) as pool:
        await pool.warm(endpoint, 1)
        task_status.started(pool)
        await trio.sleep_forever()


async def ask_in_a_block(pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint) -> bytes:
    block = pool.connection(endpoint, timeout=1.0)
    assert_type(block, AbstractAsyncContextManager[conpool.Connection[None]])
    async with block as conn:
        await conn.send_all(b"a question")
        answer = await conn.receive_some(4096)
        assert_type(answer, bytes | bytearray)
        assert_type(await conn.is_healthy(), bool)
        # A lease is a stream, and goes wherever trio takes one.
        stream: trio.abc.HalfCloseableStream = conn
        trio.StapledStream(conn, conn)
        await stream.send_eof()
    return bytes(answer)


async def ask_by_hand(pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint) -> bytes:
    lease = await pool.acquire(endpoint, fresh=True)
    assert_type(lease, conpool.Connection[None])
    try:
        return b"".join([bytes(chunk) async for chunk in lease])
    finally:
        pool.release(lease)


def show(pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint) -> None:
    stats = pool.stats(endpoint)
    assert_type(stats, conpool.EndpointStats)
    assert_type(stats.wait_time.p99, float)
    assert_type(stats.closed_by_reason[conpool.CloseReason.ERROR], int)
    for one in pool.all_stats().endpoints.values():
        assert_type(one.total_reused, int)


async def a_driver_types_the_session(endpoint: conpool.Endpoint) -> None:
    async with conpool.ConnectionPool(driver=SessionDriver()) as pool:
        assert_type(pool, conpool.ConnectionPool[Session])
        async with pool.connection(endpoint) as conn:
            assert_type(conn.session, Session)


def pools_methods_start_in_nurseries(
    nursery: Nursery, pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint
) -> None:
    nursery.start_soon(pool.warm, endpoint, 1)
    nursery.start_soon(pool.aclose)


async def scenario(scope: trio.CancelScope) -> None:
    """The proofs of `conpool.testing` take what trio_typing describes."""
    connector = MemoryConnector(trio.abc.Stream.receive_some)
    async with conpool.ConnectionPool(connector=connector) as pool:
        with scope:
            await pool.warm(conpool.Endpoint("example.org", 443, tls=True), 1)
        assert_quiescent(pool)


async def failing(failure: Failure) -> None:
    with failure:
        assert_type(failure.raised, BaseException | None)


def prove() -> None:
    assert_type(cancel_everywhere(scenario), int)
    assert_type(fail_everywhere(failing, within=["my_client"]), int)


# What mypy must refuse: if it accepted one of these, it would report an unused comment.


def wrong(pool: conpool.ConnectionPool[None]) -> None:
    pool.connection("example.org:80")  # type: ignore[arg-type]
    conpool.ConnectionPool(connector=trio.open_tcp_stream)  # type: ignore[call-overload]


async def main() -> None:
    endpoint = conpool.Endpoint("example.org", 443, tls=True)
    async with trio.open_nursery() as nursery:
        pool = await nursery.start(serve, endpoint)
        print(await ask_in_a_block(pool, endpoint))
        nursery.cancel_scope.cancel()
