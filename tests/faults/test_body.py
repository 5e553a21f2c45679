"""FAULTS F: what a block does to its connection, and what the next block gets."""

from __future__ import annotations

import gc
import logging
import re

import pytest
import trio
from trio.abc import Stream
from trio.testing import wait_all_tasks_blocked

from conpool import AcquireTimeout, CloseReason, Connection, ConnectionInfo, Observer, PoolConfig
from tests.support.clean import Case, clean
from tests.support.faults import fill
from tests.support.loopback_servers import exchange, receive_exactly, serving

from .blocks import ONE, TOO_MUCH, Body, answered, assert_closed, assert_kept, lease, wait_arrived
from .sites import Site, TLSSite

# ── ordinary ends ───────────────────────────────────────────────────────────────


async def test_f086_a_block_that_ends_normally_leaves_its_connection_to_the_next(
    site: Site,
) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await answered(conn, server)
            assert conn.uses == 1
        async with case.pool.connection(site.endpoint) as conn:
            assert conn.uses == 2
            await answered(conn, server)
        assert not case.log.reasons


async def test_f087_g4_an_exception_comes_out_as_it_was_and_closes_the_connection(
    site: Site,
) -> None:
    error = ZeroDivisionError("mine")
    async with clean(site.endpoint, ONE) as case:
        with pytest.raises(ZeroDivisionError) as caught:
            async with lease(case, site) as (conn, server):
                await answered(conn, server)
                raise error
        assert caught.value is error
        assert error.__cause__ is None
        await assert_closed(case, site, CloseReason.ERROR)


@pytest.mark.parametrize(
    "error",
    [
        ExceptionGroup("several", [ValueError(), KeyError()]),
        BaseExceptionGroup("several", [KeyboardInterrupt(), KeyError()]),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_f089_g4_any_exception_whatsoever_does(site: Site, error: BaseException) -> None:
    async with clean(site.endpoint, ONE) as case:
        caught: BaseException | None = None
        try:
            async with lease(case, site) as (conn, server):
                await answered(conn, server)
                raise error
        except BaseException as exc:  # noqa: ASYNC103, BLE001 - any exception is to be caught
            caught = exc
        assert caught is error
        await assert_closed(case, site, CloseReason.ERROR)


# ── cancelled ───────────────────────────────────────────────────────────────────


async def wait_for_answer(conn: Connection[None], server: Stream) -> None:
    await conn.send_all(b"ask")
    await conn.receive_some()


async def wait_to_send(conn: Connection[None], server: Stream) -> None:
    await conn.send_all(bytes(TOO_MUCH))


async def wait_elsewhere(conn: Connection[None], server: Stream) -> None:
    await answered(conn, server)
    await trio.sleep_forever()


@pytest.mark.parametrize("body", [wait_for_answer, wait_to_send, wait_elsewhere])
async def test_f088_g4_g15_a_cancelled_block_closes_its_connection_at_once(
    site: Site, body: Body
) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with trio.open_nursery() as nursery:

            async def use() -> None:
                async with lease(case, site) as (conn, server):
                    await body(conn, server)

            nursery.start_soon(use)
            await wait_all_tasks_blocked(0.005)
            nursery.cancel_scope.cancel()
        assert case.pool.stats(site.endpoint).closing == 0
        await assert_closed(case, site, CloseReason.CANCELLED)


async def test_f088_a_cancelled_block_does_not_wait_for_a_goodbye(tls_site: TLSSite) -> None:
    async with clean(tls_site.endpoint, PoolConfig(close_timeout=60.0)) as case:
        with trio.CancelScope() as scope:
            async with lease(case, tls_site):
                await fill(trio.SocketStream(case.recorder.sockets[0]))
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert case.recorder.open == 0
        await assert_closed(case, tls_site, CloseReason.CANCELLED)


async def test_f088_an_exception_in_a_cancelled_block_is_an_error(site: Site) -> None:
    async with clean(site.endpoint) as case:
        with trio.CancelScope() as scope, pytest.raises(ZeroDivisionError):
            async with lease(case, site):
                scope.cancel()
                raise ZeroDivisionError
        await assert_closed(case, site, CloseReason.ERROR)


async def test_f088_a_group_of_nothing_but_cancellations_is_one(site: Site) -> None:
    async with clean(site.endpoint) as case:
        with trio.CancelScope() as scope:
            async with lease(case, site), trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
        await assert_closed(case, site, CloseReason.CANCELLED)


# ── ends that the block chooses ─────────────────────────────────────────────────


async def test_f091_a_block_may_close_its_lease_itself(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await answered(conn, server)
            await conn.aclose()
            await conn.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await conn.send_all(b"x")
        await assert_closed(case, site, CloseReason.DISCARDED)


async def test_f092_half_closing_ends_the_connection_with_the_block(site: Site) -> None:
    if isinstance(site, TLSSite):
        return  # see `test_tls_refuses_to_close_one_direction_and_goes_on`
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await conn.send_all(b"ask")
            await conn.send_eof()
            assert await receive_exactly(server, 3) == b"ask"
            assert await server.receive_some() == b""
            await server.send_all(b"answer")
            assert await receive_exactly(conn, 6) == b"answer"
        await assert_closed(case, site, CloseReason.DISCARDED)


async def test_f093_g3_unread_bytes_that_are_there_end_the_connection(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await conn.send_all(b"ask")
            await server.send_all(b"answer and more")
            assert await receive_exactly(conn, 6) == b"answer"
            if not isinstance(server, trio.SSLStream):
                await wait_arrived(case)
        await assert_closed(case, site, CloseReason.UNREAD_DATA)


async def test_f093_g3_those_that_come_later_are_seen_before_the_next_lease(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await answered(conn, server)
        await server.send_all(b"more")
        case.await_stir()
        await assert_closed_at_next(case, site)


async def assert_closed_at_next(case: Case, site: Site) -> None:
    async with case.pool.connection(site.endpoint) as conn:
        assert not conn.reused
    assert case.log.reasons == [CloseReason.UNREAD_DATA]


async def test_f093_what_was_sent_last_may_still_be_answered(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await answered(conn, server)
            await conn.send_all(b"QUIT")
        await assert_closed(case, site, CloseReason.INCOMPLETE)


async def test_f094_g6_an_old_handle_cannot_touch_the_next_callers_traffic(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (old, server):
            await answered(old, server)
        async with case.pool.connection(site.endpoint) as conn:
            assert conn.reused
            for operation in (
                old.send_all(b"x"),
                old.send_all(b""),
                old.receive_some(),
                old.wait_send_all_might_not_block(),
                old.send_eof(),
                old.is_healthy(),
            ):
                with pytest.raises(trio.ClosedResourceError):
                    await operation
            for call in (old.mark_clean, old.retire, old.detach):
                with pytest.raises(trio.ClosedResourceError):
                    call()
            case.pool.release(old)
            case.pool.discard(old)
            await old.aclose()
            await answered(conn, server)
        await assert_kept(case, site)


async def test_f095_g3_a_child_that_still_receives_gets_its_end_and_nobody_the_connection(
    site: Site,
) -> None:
    ended = trio.Event()

    async def receive(conn: Connection[None]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await conn.receive_some()
        ended.set()

    async with clean(site.endpoint, ONE) as case, trio.open_nursery() as nursery:
        async with lease(case, site) as (conn, _):
            nursery.start_soon(receive, conn)
            await wait_all_tasks_blocked()
        with trio.fail_after(5):
            await ended.wait()
        await assert_closed(case, site, CloseReason.INCOMPLETE)


async def test_f095_a_child_that_still_sends_too(site: Site) -> None:
    async def send(conn: Connection[None]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await conn.send_all(bytes(TOO_MUCH))

    async with clean(site.endpoint, ONE) as case, trio.open_nursery() as nursery:
        async with lease(case, site) as (conn, _):
            nursery.start_soon(send, conn)
            await wait_all_tasks_blocked(0.005)
        await assert_closed(case, site, CloseReason.INCOMPLETE)


async def test_f096_two_sends_at_once_are_the_users_error_and_close_it(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with trio.open_nursery() as nursery, lease(case, site) as (conn, _):
            nursery.start_soon(send_until_closed, conn)
            await wait_all_tasks_blocked(0.005)
            with pytest.raises(trio.BusyResourceError):
                await conn.send_all(b"x")
        await assert_closed(case, site, CloseReason.INCOMPLETE)


async def send_until_closed(conn: Connection[None]) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await conn.send_all(bytes(TOO_MUCH))


# ── leases, held and lost ───────────────────────────────────────────────────────


async def test_f098_a_task_that_waits_for_itself_is_told_so(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            with pytest.raises(AcquireTimeout) as caught:
                await case.pool.acquire(site.endpoint, timeout=0.02)
            await answered(conn, server)
        assert caught.value.deadlock
        assert caught.value.phase == "queue"
        assert "the caller itself\ndeadlock: this task waits" in str(caught.value)
        await assert_kept(case, site)


async def test_f099_a_block_that_is_never_entered_takes_nothing(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        case.pool.connection(site.endpoint)
        assert case.pool.all_stats().active == 0
        async with case.pool.connection(site.endpoint, timeout=1.0):
            pass


async def test_f099_a_lease_that_is_dropped_is_taken_back_with_a_warning(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        conn = await case.pool.acquire(site.endpoint)
        task = trio.lowlevel.current_task().name
        with pytest.warns(ResourceWarning) as caught:  # noqa: PT031 - either may collect it
            del conn
            gc.collect()
        (warning,) = caught
        assert str(site.endpoint) in str(warning.message)
        assert task in str(warning.message)
        await case.log.wait_closed(CloseReason.DISCARDED)
        await assert_closed(case, site, CloseReason.DISCARDED)


async def test_f100_a_time_out_names_who_holds_the_connection_and_closes_nothing(
    site: Site,
) -> None:
    async with clean(site.endpoint, ONE) as case, trio.open_nursery() as nursery:
        holding = trio.Event()

        async def hold_on() -> None:
            async with case.pool.connection(site.endpoint):
                holding.set()
                await trio.sleep_forever()

        nursery.start_soon(hold_on, name="the slow report")
        await holding.wait()
        with pytest.raises(AcquireTimeout) as caught:
            await case.pool.acquire(site.endpoint, timeout=0.02)
        (holder,) = caught.value.holders
        assert "the slow report" in holder
        assert "hold_on" in holder
        assert re.search(r"has held connection 1 for [0-9.]+m?s", holder)
        assert holder in str(caught.value)
        assert not caught.value.deadlock
        assert not case.log.reasons
        nursery.cancel_scope.cancel()


async def test_f101_g11_g20_an_observer_that_raises_is_logged_and_the_slot_is_back(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    class Guest(Observer):
        def released(self, info: ConnectionInfo, held: float) -> None:
            if not caplog.records:
                raise ZeroDivisionError("on release")

    with caplog.at_level(logging.ERROR, "conpool"):
        async with clean(site.endpoint, ONE, observers=[Guest()]) as case:
            async with lease(case, site) as (conn, server):
                await answered(conn, server)
            (record,) = caplog.records
            assert record.name == "conpool"
            assert "Guest.released" in record.message
            await assert_kept(case, site)


async def test_g2_two_leases_at_once_have_two_connections() -> None:
    async with serving() as server, clean(server.endpoint) as case:
        one = await case.pool.acquire(server.endpoint)
        other = await case.pool.acquire(server.endpoint)
        assert one.id != other.id
        await exchange(one, b"one")
        await exchange(other, b"other")
        case.pool.release(one)
        case.pool.release(other)
