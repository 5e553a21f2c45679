"""FAULTS F090: time-outs that a block swallows before it ends normally. Other pools miss them."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from trio.abc import Stream
from trio.testing import wait_all_tasks_blocked

from conpool import CloseReason, Connection
from tests.support.clean import clean
from tests.support.loopback_servers import receive_exactly

from .blocks import ONE, TOO_MUCH, Body, answered, assert_closed, assert_kept, lease, wait_arrived
from .sites import Site, socket_of

# ── time-outs that the block swallows (F090) ────────────────────────────────────


async def receive_nothing(conn: Connection[None], server: Stream) -> None:
    with trio.move_on_after(0.005):
        await conn.receive_some()


async def ask_and_give_up(conn: Connection[None], server: Stream) -> None:
    with trio.move_on_after(0.005):
        await conn.send_all(b"ask")
        await conn.receive_some()


async def give_up_before_the_receive_begins(conn: Connection[None], server: Stream) -> None:
    await conn.send_all(b"ask")
    with trio.move_on_after(0):
        await conn.receive_some()


async def give_up_between_two_halves(conn: Connection[None], server: Stream) -> None:
    await conn.send_all(b"ask")
    await server.send_all(b"ans")
    with trio.move_on_after(0.005):
        await receive_exactly(conn, 6)


async def give_up_and_then_read_a_reply(conn: Connection[None], server: Stream) -> None:
    await give_up_between_two_halves(conn, server)
    await server.send_all(b"wer")
    await receive_exactly(conn, 3)


async def give_up_and_ask_again(conn: Connection[None], server: Stream) -> None:
    await ask_and_give_up(conn, server)
    await answered_out_of_step(conn, server)


async def answered_out_of_step(conn: Connection[None], server: Stream) -> None:
    await conn.send_all(b"again")
    await server.send_all(b"answer to ask")
    assert await conn.receive_some() == b"answer to ask"


async def give_up_with_the_request_sent(conn: Connection[None], server: Stream) -> None:
    with trio.move_on_after(0.005):
        await conn.send_all(b"ask")
        await trio.sleep_forever()


async def give_up_in_a_child(conn: Connection[None], server: Stream) -> None:
    async with trio.open_nursery() as nursery:

        async def child() -> None:
            await conn.send_all(b"ask")
            await conn.receive_some()

        nursery.start_soon(child)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def give_up_amid_a_send(conn: Connection[None], server: Stream) -> None:
    with trio.move_on_after(0.005):
        await conn.send_all(bytes(TOO_MUCH))


async def catch_the_cancellation(conn: Connection[None], server: Stream) -> None:
    await conn.send_all(b"ask")
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await conn.receive_some()
        except trio.Cancelled:
            assert scope.cancel_called
            raise


async def catch_an_error_of_the_stream(conn: Connection[None], server: Stream) -> None:
    await conn.send_all(b"ask")
    socket_of(server).socket.close()
    try:
        if not await conn.receive_some():
            raise trio.BrokenResourceError
    except trio.BrokenResourceError:
        pass


@pytest.mark.parametrize(
    "body",
    [
        receive_nothing,
        ask_and_give_up,
        give_up_before_the_receive_begins,
        give_up_between_two_halves,
        give_up_and_then_read_a_reply,
        give_up_and_ask_again,
        give_up_with_the_request_sent,
        give_up_in_a_child,
        give_up_amid_a_send,
        catch_the_cancellation,
        catch_an_error_of_the_stream,
    ],
)
async def test_f090_g3_a_block_that_gave_up_and_ended_normally_closes_its_connection(
    site: Site, body: Body
) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await body(conn, server)
        await assert_closed(case, site, CloseReason.INCOMPLETE)


async def test_f090_g3_the_late_answer_is_nobodys(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await ask_and_give_up(conn, server)
        with trio.move_on_after(0.1):  # the client may have gone, or may be going
            with suppress(trio.BrokenResourceError):
                await server.send_all(b"the answer to ask")
        async with lease(case, site) as (conn, server):
            await conn.send_all(b"other")
            await server.send_all(b"mine")
            assert await conn.receive_some() == b"mine"


async def test_f090_the_one_waiting_gets_another_connection(site: Site) -> None:
    ids: list[int] = []
    async with clean(site.endpoint, ONE) as case, trio.open_nursery() as nursery:

        async def wait() -> None:
            async with case.pool.connection(site.endpoint) as conn:
                ids.append(conn.id)

        async with lease(case, site) as (conn, server):
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            await ask_and_give_up(conn, server)
        await case.log.wait_closed(CloseReason.INCOMPLETE)
        await wait_all_tasks_blocked(0.01)
        assert ids == [2]


async def give_up_waiting_for_room(conn: Connection[None], server: Stream) -> None:
    await answered(conn, server)
    with trio.move_on_after(0):
        await conn.wait_send_all_might_not_block()


async def give_up_doing_something_else(conn: Connection[None], server: Stream) -> None:
    await answered(conn, server)
    with trio.move_on_after(0.005):
        await trio.sleep_forever()


async def send_nothing(conn: Connection[None], server: Stream) -> None:
    await answered(conn, server)
    await conn.send_all(b"")


async def do_nothing(conn: Connection[None], server: Stream) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    "body",
    [give_up_waiting_for_room, give_up_doing_something_else, send_nothing, do_nothing],
)
async def test_f090_what_leaves_nothing_behind_costs_no_connection(site: Site, body: Body) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await body(conn, server)
        await assert_kept(case, site)


# ── the caller's word ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("body", [receive_nothing, ask_and_give_up, give_up_and_then_read_a_reply])
async def test_f090_mark_clean_excuses_a_receive_that_was_meant_to_time_out(
    site: Site, body: Body
) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await body(conn, server)
            conn.mark_clean()
        await assert_kept(case, site)


async def test_f090_mark_clean_excuses_no_interrupted_send(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await give_up_amid_a_send(conn, server)
            conn.mark_clean()
        await assert_closed(case, site, CloseReason.INCOMPLETE)


async def test_f090_mark_clean_lapses_with_the_next_operation(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            conn.mark_clean()
            await ask_and_give_up(conn, server)
        await assert_closed(case, site, CloseReason.INCOMPLETE)


async def test_f090_mark_clean_lapses_with_a_receive_too(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        with pytest.raises(ZeroDivisionError):
            async with lease(case, site) as (conn, server):
                conn.mark_clean()
                await server.send_all(b"half of it")
                assert await conn.receive_some()
                raise ZeroDivisionError
        await assert_closed(case, site, CloseReason.ERROR)


async def test_f087_g4_mark_clean_does_not_speak_for_the_next_caller(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await answered(conn, server)
            conn.mark_clean()
        with pytest.raises(ZeroDivisionError):
            async with case.pool.connection(site.endpoint) as conn:
                assert conn.reused
                raise ZeroDivisionError
        await assert_closed(case, site, CloseReason.ERROR)


async def test_f087_mark_clean_excuses_an_exception(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        with pytest.raises(ZeroDivisionError):
            async with lease(case, site) as (conn, server):
                await answered(conn, server)
                conn.mark_clean()
                raise ZeroDivisionError
        await assert_kept(case, site)


async def test_g3_mark_clean_excuses_no_unread_bytes(site: Site) -> None:
    async with clean(site.endpoint, ONE) as case:
        async with lease(case, site) as (conn, server):
            await server.send_all(b"more")
            await wait_arrived(case)
            conn.mark_clean()
        await assert_closed(case, site, CloseReason.UNREAD_DATA)
