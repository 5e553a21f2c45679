"""What tests of blocks share: a lease and the server's end of it, an exchange, and the outcome."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.abc import Stream

from conpool import AnyEndpoint, CloseReason, ConnectError, Connection, PoolConfig
from tests.support.clean import PATIENCE, Case
from tests.support.loopback_servers import receive_exactly

from .sites import Site

Body = Callable[[Connection[None], Stream], Awaitable[None]]
"""The body of a block; it gets the lease and the server's end of the connection."""

ONE = PoolConfig(max_connections_per_endpoint=1)
QUICK = PoolConfig(reap_interval=0.01)

TOO_MUCH = 20_000_000
"""Bytes: more than the kernel buffers for a peer that does not read."""


@asynccontextmanager
async def lease(case: Case, site: Site) -> AsyncIterator[tuple[Connection[None], Stream]]:
    """A new connection, and the server's end of it."""
    async with case.pool.connection(site.endpoint) as conn:
        yield conn, await site.accept()


async def answered(conn: Connection[None], server: Stream) -> None:
    """One exchange, complete."""
    await conn.send_all(b"ask")
    assert await receive_exactly(server, 3) == b"ask"
    await server.send_all(b"answer")
    assert await receive_exactly(conn, 6) == b"answer"


async def fails(case: Case, endpoint: AnyEndpoint) -> ConnectError:
    """Ask for a connection that cannot be opened; return the error."""
    with trio.fail_after(PATIENCE), pytest.raises(ConnectError) as caught:
        async with case.pool.connection(endpoint):
            raise AssertionError("nobody can be there")
    assert caught.value.endpoint == endpoint
    return caught.value


async def assert_kept(case: Case, site: Site) -> None:
    assert not case.log.reasons
    async with case.pool.connection(site.endpoint) as conn:
        assert conn.reused


async def assert_closed(case: Case, site: Site, reason: CloseReason) -> None:
    await case.settle()
    assert case.log.reasons == [reason]
    async with case.pool.connection(site.endpoint) as conn:
        assert not conn.reused


async def wait_arrived(case: Case) -> None:
    """Wait until the newest socket can be read."""
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(case.recorder.sockets[-1])
