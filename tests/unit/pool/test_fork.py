"""A forked child finds its parent's pools closed, and does its parent's connections no harm."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
import weakref
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from conpool import AnyEndpoint, ConnectionPool, Endpoint, Observer, PoolClosed
from conpool._connection.link import Link
from conpool._pool import lifecycle
from tests.support.pools import HERE, THERE, Network, counts, exchange, make_pool, open_pool

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


async def in_child(look: Callable[[], Awaitable[None]]) -> str:
    """Run `look` in a forked child, inside this very task; return what went wrong there."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads, ours are idle
        pid = os.fork()
    if pid == 0:  # pragma: no cover - the child's coverage is not collected
        try:
            await look()
        except BaseException:  # noqa: ASYNC103, BLE001 - the child ends here
            os.write(writing, traceback.format_exc().encode())
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)  # noqa: ASYNC222 - the child is quick, and nothing else is to run meanwhile
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode()


async def test_child_finds_the_pool_closed() -> None:
    async with open_pool() as pool:
        async with pool.connection(HERE):
            pass

        async def look() -> None:
            assert pool.closed
            assert " closed: " in repr(pool)
            for endpoint in (HERE, THERE):
                with pytest.raises(PoolClosed):
                    await pool.acquire(endpoint)
                with pytest.raises(PoolClosed):
                    pool.acquire_nowait(endpoint)
            with pytest.raises(PoolClosed):
                await pool.warm(HERE, 2)
            with pytest.raises(RuntimeError, match="is closed and cannot be opened"):
                await pool.__aenter__()
            assert counts(pool) == {}

        assert await in_child(look) == ""
        assert not pool.closed
        assert counts(pool) == {"idle": 1}
        async with pool.connection(HERE) as connection:
            assert connection.uses == 2
            assert await exchange(connection) == b"ping"


async def test_child_s_observers_hear_nothing_of_what_it_asks_in_vain() -> None:
    asked: list[AnyEndpoint] = []

    class Watching(Observer):
        def acquire_started(self, endpoint: AnyEndpoint) -> None:
            asked.append(endpoint)

    async with open_pool(observers=[Watching()]) as pool:
        async with pool.connection(HERE):
            pass

        async def look() -> None:
            with pytest.raises(PoolClosed):
                await pool.acquire(HERE)
            assert asked == [HERE]

        assert await in_child(look) == ""


async def test_child_may_end_its_lease_and_the_pool_without_harm() -> None:
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:

            async def look() -> None:
                pool.release(connection)
                await pool.aclose()

            assert await in_child(look) == ""
            assert await exchange(connection) == b"ping"
        assert counts(pool) == {"idle": 1}


@pytest.mark.parametrize("is_closing", [False, True])
async def test_child_that_ends_a_lease_leaves_the_parents_bytes_alone(is_closing: bool) -> None:
    """It looked for unread bytes, as at any release, and took one from the parent's socket."""

    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")
        await stream.receive_some()

    async with trio.open_nursery() as nursery, ConnectionPool() as pool:
        listeners: list[trio.SocketListener] = await nursery.start(trio.serve_tcp, talk, 0)
        there = Endpoint("127.0.0.1", listeners[0].socket.getsockname()[1])
        async with pool.connection(there) as connection:
            assert await connection.receive_some(1) == b"h"
            if is_closing:
                nursery.start_soon(pool.aclose)
                await wait_all_tasks_blocked()
            watch = pool._engine.watch
            watched = dict(watch._by_descriptor)

            async def look() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await connection.receive_some()
                pool.release(connection)
                assert watch._by_descriptor == watched

            assert await in_child(look) == ""
            assert await connection.receive_some() == b"ello"
        nursery.cancel_scope.cancel()


async def test_child_may_open_a_pool_of_its_own() -> None:
    async with open_pool():

        async def look() -> None:
            assert not make_pool_closed()

        assert await in_child(look) == ""


def make_pool_closed() -> bool:
    return make_pool(Network()).closed


async def test_pool_that_was_closed_before_the_fork_is_closed_after_it() -> None:
    async with open_pool() as pool:
        await pool.aclose()

        async def look() -> None:
            assert pool.closed

        assert await in_child(look) == ""


async def test_pool_that_is_disowned_has_nothing_left_to_lend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What happens in the child, seen from inside: there, nobody counts what is covered."""
    pool = make_pool(Network())
    sub = pool._core.find_subpool(HERE, 0.0)
    pool._core._ledger.open(sub, None, 0.0)
    (entry,) = sub.limit.borrowers
    pool._core._ledger.activate(entry)
    entry.link = Link(memory_stream_pair()[0])
    pool._core._ledger.push_idle(entry)
    pool._core._ledger.open(sub, None, 0.0)  # a dial, without a link yet
    monkeypatch.setattr(lifecycle, "_open_pools", weakref.WeakSet([pool._lifecycle]))
    lifecycle._disown_all()
    assert pool.closed
    assert counts(pool) == {"connecting": 1}
    with pytest.raises(trio.ClosedResourceError):
        await entry.link.exchange.receive_some()


async def test_pools_that_nobody_has_any_more_are_no_concern_of_a_fork() -> None:
    pool: ConnectionPool[None]
    async with open_pool() as pool:
        pass
    del pool

    async def look() -> None:
        await trio.lowlevel.checkpoint_if_cancelled()

    assert await in_child(look) == ""
