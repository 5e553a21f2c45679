"""One lease: what it shows, what it can be told, and how it dies."""

from __future__ import annotations

import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from conpool import CloseReason, Connection, ConnectionInfo, ConnectionPool
from conpool._connection.link import Link
from conpool._lending.lease import end_lease, held_lease
from tests.support.pools import (
    HERE,
    Network,
    counts,
    exchange,
    hold,
    listen,
    make_pool,
    open_pool,
    reasons,
    settle,
)

# ── what it shows ───────────────────────────────────────────────────────────────


async def test_lease_tells_what_it_is(autojump_clock: MockClock) -> None:
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:
            assert connection.endpoint == HERE
            assert (connection.id, connection.uses, connection.reused) == (1, 1, False)
            assert connection.session is None
            assert (connection.alpn_protocol, connection.ssl_object) == (None, None)
            assert connection.peer_address is None
            await trio.sleep(2)
            assert connection.age == 2
        async with pool.connection(HERE) as again:
            assert (again.id, again.uses, again.reused) == (1, 2, True)


async def test_age_counts_from_the_end_of_the_dial(autojump_clock: MockClock) -> None:
    async with open_pool(Network(delay=3)) as pool, pool.connection(HERE) as connection:
        assert connection.age == 0


async def test_what_it_is_may_still_be_asked_after_the_end(autojump_clock: MockClock) -> None:
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:
            pass
        async with pool.connection(HERE):
            shown = (connection.endpoint, connection.id, connection.uses, connection.peer_address)
            assert shown == (HERE, 1, 1, None)
            assert connection.alpn_protocol is None
            assert connection.age == 0


async def test_repr_tells_connection_endpoint_and_use() -> None:
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:
            assert repr(connection) == f"<conpool.Connection 1 to {HERE}, use 1>"
        assert repr(connection) == f"<conpool.Connection 1 to {HERE}, given back>"


# ── after the end ───────────────────────────────────────────────────────────────

OPERATIONS: dict[str, Callable[[Connection[Any]], Awaitable[object]]] = {
    "send_all": lambda lease: lease.send_all(b"x"),
    "send_all nothing": lambda lease: lease.send_all(b""),
    "wait": lambda lease: lease.wait_send_all_might_not_block(),
    "receive_some": lambda lease: lease.receive_some(),
    "send_eof": lambda lease: lease.send_eof(),
    "is_healthy": lambda lease: lease.is_healthy(),
}
TELLINGS: dict[str, Callable[[Connection[Any]], object]] = {
    "retire": lambda lease: lease.retire(),
    "mark_clean": lambda lease: lease.mark_clean(),
    "detach": lambda lease: lease.detach(),
    "session": lambda lease: lease.session,
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_operation_on_a_handle_that_was_kept_touches_nothing(name: str) -> None:
    """F094 G6: the connection is another's now."""
    heard: list[bytes] = []

    async def record(stream: trio.abc.Stream) -> None:
        async for data in stream:
            heard.append(bytes(data))
            await stream.send_all(data)

    async with open_pool(Network(record)) as pool:
        async with pool.connection(HERE) as old:
            pass
        async with pool.connection(HERE) as new:
            assert new.id == old.id
            with pytest.raises(trio.ClosedResourceError):
                await OPERATIONS[name](old)
            assert await exchange(new) == b"ping"
        assert heard == [b"ping"]
        assert counts(pool) == {"idle": 1}


@pytest.mark.parametrize("name", TELLINGS)
async def test_handle_that_was_kept_has_no_say(name: str) -> None:
    """F094 G6"""
    async with open_pool() as pool:
        async with pool.connection(HERE) as old:
            pass
        async with pool.connection(HERE):
            with pytest.raises(trio.ClosedResourceError):
                TELLINGS[name](old)
        assert counts(pool) == {"idle": 1}


def test_no_way_to_use_a_lease_has_been_forgotten_here() -> None:
    """G6: a method that is added must be tried on a handle that was kept."""
    harmless = {"aclose", "age", "alpn_protocol", "endpoint", "id", "peer_address"}
    harmless |= {"fresh", "reused", "ssl_object", "uses"}
    public = {name for name in dir(Connection) if name[0] != "_" and hasattr(Connection, name)}
    tried = {name.split()[0] for name in (*OPERATIONS, *TELLINGS)}
    assert public - harmless - {"wait_send_all_might_not_block"} == tried - {"wait"}


async def test_ending_a_lease_twice_is_harmless() -> None:
    async with open_pool() as pool:
        first = await pool.acquire(HERE)
        pool.release(first)
        second = await pool.acquire(HERE)
        assert second.id == first.id
        pool.release(first)
        pool.discard(first)
        await first.aclose()
        assert counts(pool) == {"active": 1}
        pool.release(second)
        assert counts(pool) == {"idle": 1}


async def test_lease_of_another_pool_is_refused() -> None:
    async with open_pool() as pool, open_pool() as other:
        lease = await other.acquire(HERE)
        with pytest.raises(ValueError, match=f"was not lent by pool {pool.name}"):
            pool.release(lease)
        with pytest.raises(ValueError, match="was not lent by"):
            pool.discard(lease)
        other.release(lease)


# ── what it can be told ─────────────────────────────────────────────────────────


async def test_lease_that_is_closed_ends_at_once_and_costs_the_connection() -> None:
    """F091"""
    network = Network()
    async with open_pool(network) as pool:
        async with pool.connection(HERE) as connection:
            with trio.testing.assert_checkpoints():
                await connection.aclose()
            assert network.live == 0
            assert (counts(pool), reasons(pool)) == ({}, {"DISCARDED": 1})
            await connection.aclose()
        assert reasons(pool) == {"DISCARDED": 1}


async def test_lease_as_context_manager_is_closed_at_the_end() -> None:
    """F091: as any trio stream is."""
    async with open_pool() as pool:
        async with await pool.acquire(HERE) as connection:
            await exchange(connection)
        assert (counts(pool), reasons(pool)) == ({}, {"DISCARDED": 1})


async def test_lease_is_closed_even_if_that_is_cancelled() -> None:
    async with open_pool() as pool:
        connection = await pool.acquire(HERE)
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.aclose()
        assert scope.cancelled_caught
        assert (counts(pool), reasons(pool)) == ({}, {"DISCARDED": 1})


async def test_discarding_frees_the_slot_before_it_returns() -> None:
    async with open_pool(max_connections_per_endpoint=1) as pool:
        connection = await pool.acquire(HERE)
        pool.discard(connection)
        assert (counts(pool), reasons(pool)) == ({}, {"DISCARDED": 1})


async def test_retired_connection_serves_to_the_end_of_its_lease_and_no_further() -> None:
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:
            connection.retire()
            assert await exchange(connection) == b"ping"
            assert counts(pool) == {"active": 1}
        assert (counts(pool), reasons(pool)) == ({}, {"DISCARDED": 1})


async def test_detached_stream_is_the_callers_own() -> None:
    network = Network()
    async with open_pool(network) as pool:
        async with pool.connection(HERE) as connection:
            stream = connection.detach()
            assert (counts(pool), reasons(pool)) == ({}, {"DETACHED": 1})
        assert await exchange(stream) == b"ping"
        assert network.live == 1
        await stream.aclose()


async def test_detached_stream_outlives_the_pool() -> None:
    network = Network()
    async with open_pool(network) as pool:
        connection = await pool.acquire(HERE)
        stream = connection.detach()
        pool.release(connection)
        await stream.aclose()
    async with open_pool(network) as pool:
        stream = (await pool.acquire(HERE)).detach()
        await pool.aclose()
        assert await exchange(stream) == b"ping"
        await stream.aclose()


async def test_slot_of_a_detached_connection_is_free_for_the_next_waiter(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    async with open_pool(network, max_connections_per_endpoint=1) as pool:
        connection = await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool)
            await settle()
            assert counts(pool) == {"active": 1, "waiting": 1}
            stream = connection.detach()
            await settle()
            assert counts(pool) == {"active": 1}
            assert network.live == 2
            await stream.aclose()


# ── is it healthy? ──────────────────────────────────────────────────────────────


async def test_without_a_check_a_stream_without_a_socket_is_healthy() -> None:
    async with open_pool() as pool, pool.connection(HERE) as connection:
        with trio.testing.assert_checkpoints():
            assert await connection.is_healthy()


async def test_connection_in_which_something_lies_unread_is_not_healthy_and_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the look has read would be missing from the answer."""
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:
            with monkeypatch.context() as patch, trio.testing.assert_checkpoints():
                patch.setattr(Link, "probe", lambda _: CloseReason.UNREAD_DATA)
                assert not await connection.is_healthy()
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_lent_connection_is_asked_with_the_pools_own_check() -> None:
    answers = [True, False]
    asked: list[Connection[None]] = []

    async def ask(connection: Connection[None]) -> bool:
        asked.append(connection)
        await exchange(connection)
        return answers.pop(0)

    async with open_pool(health_check=ask) as pool, pool.connection(HERE) as connection:
        assert await connection.is_healthy()
        assert not await connection.is_healthy()
        assert asked == [connection, connection]
        assert await exchange(connection) == b"ping"


async def test_check_of_a_lent_connection_that_hangs_is_no_and_costs_the_connection(
    autojump_clock: MockClock,
) -> None:
    async def ask(connection: Connection[None]) -> bool:
        await exchange(connection)
        return True

    async with open_pool(Network(listen), health_check=ask, health_check_timeout=2) as pool:
        async with pool.connection(HERE) as connection:
            assert not await connection.is_healthy()
            assert trio.current_time() == 2
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_connection_that_somebody_is_using_cannot_be_asked(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(Network(listen)) as pool:
        with trio.CancelScope() as scope:
            async with pool.connection(HERE) as connection, trio.open_nursery() as nursery:
                nursery.start_soon(connection.receive_some)
                await settle()
                with pytest.raises(trio.BusyResourceError, match="being read from"):
                    await connection.is_healthy()
                scope.cancel()


# ── a lease that was dropped ────────────────────────────────────────────────────


async def forget(pool: ConnectionPool[None]) -> None:
    await pool.acquire(HERE)


async def forget_in_a_task(pool: ConnectionPool[None]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forget, pool, name="forgetful")


def clear_in_a_thread(leases: list[Connection[None]]) -> None:
    thread = threading.Thread(target=leases.clear)
    thread.start()
    thread.join()


async def test_dropped_lease_is_taken_back_and_complained_about(
    autojump_clock: MockClock,
) -> None:
    """F099: the warning names endpoint and task."""
    network = Network()
    async with open_pool(network, max_connections_per_endpoint=1) as pool:
        with pytest.warns(ResourceWarning) as caught:
            await forget_in_a_task(pool)
        (warning,) = caught
        assert str(HERE) in str(warning.message)
        assert "'forgetful'" in str(warning.message)
        await settle()
        assert (counts(pool), reasons(pool), network.live) == ({}, {"DISCARDED": 1}, 0)
        async with pool.connection(HERE):
            pass


async def test_dropped_lease_makes_room_for_who_waits(autojump_clock: MockClock) -> None:
    """F099 G12"""
    async with open_pool(max_connections_per_endpoint=1) as pool:
        leases = [await pool.acquire(HERE)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool)
            await settle()
            assert counts(pool) == {"active": 1, "waiting": 1}
            with pytest.warns(ResourceWarning):
                leases.clear()
        assert trio.current_time() == 1


async def test_lease_may_be_collected_in_another_thread(autojump_clock: MockClock) -> None:
    """F099: garbage is collected wherever it is found."""
    async with open_pool() as pool:
        leases = [await pool.acquire(HERE)]
        with pytest.warns(ResourceWarning):
            clear_in_a_thread(leases)
        assert counts(pool) == {"active": 1}
        await settle()
        assert (counts(pool), reasons(pool)) == ({}, {"DISCARDED": 1})


async def test_dropped_lease_of_a_connection_that_the_pool_closed_ends_in_silence(
    autojump_clock: MockClock,
) -> None:
    """G26: whoever saw it begin sees it end."""
    async with open_pool() as pool:
        leases = [await pool.acquire(HERE)]
        pool.clear(interrupt_in_use=True)
        leases.clear()
        gc.collect()
        await settle()
        assert pool.stats(HERE).use_time.count == 1


async def test_lease_that_was_dropped_after_the_run_harms_nobody() -> None:
    kept: list[Connection[None]] = []

    async def main() -> None:
        async with ConnectionPool(connector=Network()) as pool:
            kept.append(await pool.acquire(HERE))

    await trio.to_thread.run_sync(trio.run, main)
    kept.clear()
    gc.collect()


# ── closed under the lease ──────────────────────────────────────────────────────


async def test_connection_closed_under_its_lease_is_closed_to_the_holder(
    autojump_clock: MockClock,
) -> None:
    events: list[tuple[int, CloseReason]] = []

    def closed(info: ConnectionInfo, reason: CloseReason) -> None:
        events.append((info.id, reason))

    async with open_pool(Network(listen), on_closed=closed) as pool:
        async with pool.connection(HERE) as connection:
            pool.clear(interrupt_in_use=True)
            assert events == [(1, CloseReason.CLEARED)]
            for operation in ("send_all", "receive_some", "wait", "send_eof"):
                with pytest.raises(trio.ClosedResourceError):
                    await OPERATIONS[operation](connection)
        assert (counts(pool), reasons(pool)) == ({}, {"CLEARED": 1})


async def test_task_inside_an_operation_learns_that_the_pool_closed_the_connection(
    autojump_clock: MockClock,
) -> None:
    async def wait_and_clear(pool: ConnectionPool[None]) -> None:
        await trio.sleep(1)
        pool.clear(HERE, interrupt_in_use=True)

    async with (
        open_pool(Network(listen)) as pool,
        trio.open_nursery() as nursery,
        pool.connection(HERE) as connection,
    ):
        nursery.start_soon(wait_and_clear, pool)
        with pytest.raises(trio.ClosedResourceError):
            await connection.receive_some()
        assert trio.current_time() == 1


# ── for the pool ────────────────────────────────────────────────────────────────


async def test_lease_is_ended_once() -> None:
    async with open_pool() as pool:
        lease = await pool.acquire(HERE)
        entry = held_lease(lease).entry
        pool.release(lease)
        assert end_lease(lease) is None
        with pytest.raises(trio.ClosedResourceError):
            held_lease(lease)
        assert not entry.leases


# ── what a task is told that uses a lease which is over ─────────────────────────


@pytest.mark.parametrize("end", ["release", "discard", "aclose", "detach"])
async def test_an_ended_lease_says_that_its_holder_ended_it(end: str) -> None:
    async with open_pool() as pool:
        connection = await pool.acquire(HERE)
        if end == "aclose":
            await connection.aclose()
        elif end == "detach":
            await connection.detach().aclose()
        else:
            getattr(pool, end)(connection)
        text = "this lease has ended: its holder has given the connection back, discarded or det"
        for operation in (
            connection.send_all(b"x"),
            connection.receive_some(),
            connection.send_eof(),
            connection.wait_send_all_might_not_block(),
        ):
            with pytest.raises(trio.ClosedResourceError, match=text):
                await operation
        with pytest.raises(trio.ClosedResourceError, match="this lease has ended"):
            connection.retire()


async def test_a_lease_that_the_pool_has_cleared_says_so() -> None:
    async with open_pool() as pool, pool.connection(HERE) as connection:
        pool.clear(HERE, interrupt_in_use=True)
        with pytest.raises(trio.ClosedResourceError, match=r"told to clear\(interrupt_in_use"):
            await connection.receive_some()


async def test_a_lease_that_has_outlived_the_pools_grace_says_so(
    autojump_clock: MockClock,
) -> None:
    told: list[str] = []

    async def hold(
        pool: ConnectionPool[None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with pool.connection(HERE) as connection:
            task_status.started()
            await trio.sleep(20)
            with pytest.raises(trio.ClosedResourceError) as caught:
                await connection.send_all(b"late")
            told.append(str(caught.value))

    async with trio.open_nursery() as nursery, make_pool(Network()) as pool:
        await nursery.start(hold, pool)
    (text,) = told
    assert text.startswith("this connection was closed by the pool at the end of its grace: ")
    assert "shutdown_grace" in text
