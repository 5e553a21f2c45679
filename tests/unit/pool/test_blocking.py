"""`pool.blocking`: threads that use the pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import AcquireTimeout, ConnectionPool, Endpoint, PoolClosed, PoolConfig
from tests.support.drivers import Plain, greet_and_echo
from tests.support.loopback_servers import serving
from tests.support.pools import echo, listen

PATIENCE = 20.0


def ask(pool: ConnectionPool[Any], endpoint: Endpoint, word: bytes) -> bytes:
    """One exchange with an echo server, by a thread."""
    with pool.blocking.connection(endpoint) as conn:
        conn.send_all(word, timeout=PATIENCE)
        got = b""
        while len(got) < len(word):
            got += conn.receive_some(timeout=PATIENCE)
        return got


async def in_foreign_thread(function: Callable[[], object]) -> None:
    """Run `function` in a thread that trio knows nothing of, and raise what it raises."""
    raised: list[BaseException] = []
    token, ended = trio.lowlevel.current_trio_token(), trio.Event()

    def work() -> None:
        try:
            function()
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - it is raised later
            raised.append(exc)
        finally:
            token.run_sync_soon(ended.set)

    thread = threading.Thread(target=work)
    thread.start()
    with trio.fail_after(PATIENCE):
        await ended.wait()
    thread.join()
    for exc in raised:
        raise exc


in_worker_thread = trio.to_thread.run_sync

each_kind = pytest.mark.parametrize(
    "in_thread", [in_worker_thread, in_foreign_thread], ids=["trio's", "foreign"]
)


@each_kind
async def test_four_threads_with_a_hundred_leases_each_get_their_own_answers(
    in_thread: Callable[..., Any],
) -> None:
    async with (
        serving(echo) as server,
        ConnectionPool(PoolConfig(max_connections_per_endpoint=20)) as pool,
    ):

        def work(number: int) -> None:
            for turn in range(100):
                word = b"%d-%d" % (number, turn)
                assert ask(pool, server.endpoint, word) == word

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(in_thread, partial(work, number))
        stats = pool.stats(server.endpoint)
        assert (stats.acquired, stats.active) == (400, 0)
        assert server.accepted <= 4


@each_kind
async def test_a_block_that_raises_closes_its_connection(in_thread: Callable[..., Any]) -> None:
    async with serving(echo) as server, ConnectionPool() as pool:

        def crash() -> None:
            with pool.blocking.connection(server.endpoint):
                raise ZeroDivisionError  # the exchange may be half done, whatever has moved

        with pytest.raises(ZeroDivisionError):
            await in_thread(crash)
        await server.wait_live(0)
        assert pool.stats(server.endpoint).active == 0


@each_kind
async def test_a_slow_peer_costs_a_thread_no_more_than_its_time_out(
    in_thread: Callable[..., Any],
) -> None:
    async with serving(listen) as server, ConnectionPool() as pool:

        def work() -> None:
            with pool.blocking.connection(server.endpoint) as conn:
                conn.send_all(b"anybody there?")
                conn.receive_some(timeout=0.01)

        with pytest.raises(trio.TooSlowError):
            await in_thread(work)
        await server.wait_live(0)  # the answer may still come, so nobody gets it again


@each_kind
async def test_a_thread_waits_for_a_connection_no_longer_than_it_said(
    in_thread: Callable[..., Any],
) -> None:
    async with (
        serving(echo) as server,
        ConnectionPool(PoolConfig(max_connections_per_endpoint=1)) as pool,
    ):

        def work() -> None:
            with pool.blocking.connection(server.endpoint, timeout=0.01):
                raise AssertionError("there was none")

        async with pool.connection(server.endpoint):
            with pytest.raises(AcquireTimeout):
                await in_thread(work)


@each_kind
async def test_a_lease_that_outlives_the_pool_is_cut_off(in_thread: Callable[..., Any]) -> None:
    async with serving(echo) as server:
        is_lent, is_closed = trio.Event(), threading.Event()
        seen: list[BaseException] = []
        token = trio.lowlevel.current_trio_token()

        def work(pool: ConnectionPool[None]) -> None:
            with pool.blocking.connection(server.endpoint) as conn:
                token.run_sync_soon(is_lent.set)
                is_closed.wait(PATIENCE)
                with pytest.raises(trio.ClosedResourceError) as caught:
                    conn.send_all(b"too late")
                seen.append(caught.value)

        async with trio.open_nursery() as nursery:
            async with ConnectionPool(PoolConfig(shutdown_grace=0)) as pool:
                nursery.start_soon(in_thread, partial(work, pool))
                await is_lent.wait()
            await server.wait_live(0)
            is_closed.set()
        assert len(seen) == 1


def test_a_lease_that_outlives_the_run_ends_without_an_error() -> None:
    is_over = threading.Event()
    errors: list[BaseException] = []
    threads: list[threading.Thread] = []

    async def main() -> None:
        config = PoolConfig(shutdown_grace=0)
        async with serving(echo) as server, ConnectionPool(config) as pool:
            is_lent = trio.Event()
            token = trio.lowlevel.current_trio_token()

            def work() -> None:
                try:
                    with pool.blocking.connection(server.endpoint):
                        token.run_sync_soon(is_lent.set)
                        is_over.wait(PATIENCE)
                except BaseException as exc:  # noqa: BLE001, ASYNC103 - it is raised later
                    errors.append(exc)

            threads.append(threading.Thread(target=work))
            threads[0].start()
            await is_lent.wait()

    trio.run(main)
    is_over.set()
    threads[0].join(PATIENCE)
    assert not errors


async def test_a_worker_thread_is_cancelled_with_the_task_that_waits_for_it() -> None:
    async with serving(listen) as server, ConnectionPool() as pool:
        is_lent = trio.Event()

        def work() -> None:
            with pool.blocking.connection(server.endpoint) as conn:
                trio.from_thread.run_sync(is_lent.set)
                conn.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_worker_thread, work)
            await is_lent.wait()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await server.wait_live(0)
        assert pool.stats(server.endpoint).active == 0


@each_kind
async def test_a_thread_runs_what_a_session_offers(in_thread: Callable[..., Any]) -> None:
    async with serving(greet_and_echo) as server, ConnectionPool(driver=Plain()) as pool:

        def work() -> None:
            with pool.blocking.connection(server.endpoint) as conn:
                assert conn.session is not None
                assert conn.run(conn.session.call, b"one", timeout=PATIENCE) == b"one"

        await in_thread(work)


async def test_what_a_thread_says_of_its_lease_holds() -> None:
    async with serving(listen) as server, ConnectionPool() as pool:

        def owe(say: str) -> None:
            with pool.blocking.connection(server.endpoint) as conn:
                if say == "mark_clean":
                    conn.send_all(b"no answer is due")
                getattr(conn, say)()

        await in_worker_thread(owe, "mark_clean")
        assert pool.stats(server.endpoint).idle == 1
        await in_worker_thread(owe, "retire")
        assert pool.stats(server.endpoint).idle == 0


async def test_in_a_task_it_says_what_to_write_instead() -> None:
    async with serving(echo) as server, ConnectionPool() as pool:
        with (
            pytest.raises(RuntimeError, match="async with pool.connection"),
            pool.blocking.connection(server.endpoint),
        ):
            pass


@each_kind
async def test_a_pool_that_is_not_open_lends_nothing(in_thread: Callable[..., Any]) -> None:
    pool = ConnectionPool(name="mine")

    def work() -> None:
        with pool.blocking.connection(Endpoint("127.0.0.1", 1)):
            pass

    with pytest.raises(PoolClosed, match="mine is not open"):
        await in_thread(work)
    async with pool:
        pass
    with pytest.raises(PoolClosed, match="mine is closed"):
        await in_thread(work)


async def test_a_block_serves_once_at_a_time() -> None:
    async with serving(echo) as server, ConnectionPool() as pool:

        def work() -> None:
            block = pool.blocking.connection(server.endpoint)
            with block as conn:
                assert "use 1" in repr(conn)
                with pytest.raises(RuntimeError, match="entered already"), block:
                    pass
            with block as conn:  # it has ended
                assert "use 2" in repr(conn)

        await in_worker_thread(work)
