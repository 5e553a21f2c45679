"""The rules of clean hand-over: why a connection is kept, or closed with which reason (G3, G4)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from conpool import CloseReason, Connection, ConnectionPool
from conpool._connection.exchange import (
    CUT_RECEIVE,
    CUT_SEND,
    ENCRYPTED,
    ENDED,
    HALF_CLOSED,
    OWED,
    VOUCHED,
)
from conpool._connection.hand_over import end_exchange, why_not_clean
from conpool._connection.link import Link
from tests.support.pools import (
    HERE,
    Narrow,
    Network,
    Serve,
    answer_after,
    counts,
    echo,
    exchange,
    listen,
    open_pool,
    reasons,
    settle,
)


def make_link(taints: int = 0) -> Link:
    client, _ = memory_stream_pair()
    link = Link(client)
    link.exchange.taints = taints
    return link


async def make_cancelled() -> trio.Cancelled:
    caught: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            caught.append(cancelled)
            raise
    return caught.pop()


# ── the table itself ────────────────────────────────────────────────────────────


def test_untouched_connection_is_kept() -> None:
    assert why_not_clean(make_link(), None) is None


@pytest.mark.parametrize(
    ("taint", "reason"),
    [
        (CUT_SEND, CloseReason.INCOMPLETE),
        (CUT_RECEIVE, CloseReason.INCOMPLETE),
        (OWED, CloseReason.INCOMPLETE),
        (HALF_CLOSED, CloseReason.DISCARDED),
        (ENCRYPTED, CloseReason.DISCARDED),
        (ENDED, CloseReason.PEER_CLOSED),
    ],
)
def test_each_taint_has_its_reason(taint: int, reason: CloseReason) -> None:
    assert why_not_clean(make_link(taint), None) is reason


def test_operation_in_progress_is_incomplete_whatever_was_said() -> None:
    link = make_link(VOUCHED)
    link.exchange.in_progress = 1
    assert why_not_clean(link, None) is CloseReason.INCOMPLETE


@pytest.mark.parametrize("exc", [ValueError(), KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_every_exception_is_an_error(exc: BaseException) -> None:
    """G4"""
    assert why_not_clean(make_link(), exc) is CloseReason.ERROR


async def test_cancellation_is_told_from_errors() -> None:
    cancelled = await make_cancelled()
    assert why_not_clean(make_link(), cancelled) is CloseReason.CANCELLED
    group = BaseExceptionGroup("", [cancelled, BaseExceptionGroup("", [cancelled])])
    assert why_not_clean(make_link(), group) is CloseReason.CANCELLED


async def test_cancellation_beside_an_error_is_an_error() -> None:
    group = BaseExceptionGroup("", [await make_cancelled(), ValueError()])
    assert why_not_clean(make_link(), group) is CloseReason.ERROR


def test_word_of_the_caller_outweighs_the_exception() -> None:
    assert why_not_clean(make_link(VOUCHED), ValueError()) is None


@pytest.mark.parametrize(
    ("taint", "reason"),
    [
        (CUT_SEND, CloseReason.INCOMPLETE),
        (HALF_CLOSED, CloseReason.DISCARDED),
        (ENCRYPTED, CloseReason.DISCARDED),
        (ENDED, CloseReason.PEER_CLOSED),
    ],
)
def test_word_of_the_caller_does_not_outweigh_the_rest(taint: int, reason: CloseReason) -> None:
    assert why_not_clean(make_link(VOUCHED | taint), None) is reason
    assert why_not_clean(make_link(VOUCHED | taint), ValueError()) is reason


def test_word_does_not_hold_for_the_next_caller() -> None:
    link = make_link(VOUCHED)
    assert why_not_clean(link, None) is None
    assert link.exchange.taints == VOUCHED  # a question changes nothing
    assert end_exchange(link, None) is None
    assert link.exchange.taints == 0


def test_taints_stay_with_a_connection_that_is_not_kept() -> None:
    link = make_link(OWED)
    assert end_exchange(link, None) is CloseReason.INCOMPLETE
    assert link.exchange.taints == OWED


# ── the table at work ───────────────────────────────────────────────────────────


async def test_exchange_that_ended_is_kept() -> None:
    """F086"""
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:
            assert await exchange(connection) == b"ping"
        assert counts(pool) == {"idle": 1}
        async with pool.connection(HERE) as again:
            assert (again.id, again.uses, again.reused) == (connection.id, 2, True)


@pytest.mark.parametrize("serve", [echo, listen])
async def test_connection_that_nobody_used_is_kept(serve: Serve) -> None:
    async with open_pool(Network(serve)) as pool:
        async with pool.connection(HERE):
            pass
        assert counts(pool) == {"idle": 1}


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_block_that_raises_costs_the_connection_and_raises_the_same(
    kind: type[BaseException],
) -> None:
    """F087 F089 G4"""
    async with open_pool() as pool:
        error = kind("mine")
        with pytest.raises(kind) as caught:
            async with pool.connection(HERE) as connection:
                await exchange(connection)
                raise error
        assert caught.value is error
        assert error.__context__ is None
        assert (counts(pool), reasons(pool)) == ({}, {"ERROR": 1})


async def test_group_of_exceptions_comes_out_as_it_was() -> None:
    """F089"""
    async with open_pool() as pool:
        error = ExceptionGroup("mine", [ValueError(), OSError()])
        with pytest.raises(ExceptionGroup) as caught:
            async with pool.connection(HERE):
                raise error
        assert caught.value is error
        assert reasons(pool) == {"ERROR": 1}


async def test_cancelled_block_costs_the_connection(autojump_clock: MockClock) -> None:
    """F088 G4"""
    async with open_pool(Network(answer_after(10))) as pool:
        with trio.move_on_after(1) as scope:
            async with pool.connection(HERE) as connection:
                await exchange(connection)
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(1)
        assert (counts(pool), reasons(pool)) == ({}, {"CANCELLED": 1})


async def test_timeout_that_the_block_swallowed_costs_the_connection(
    autojump_clock: MockClock,
) -> None:
    """F090 G3: nothing was raised, but the next caller would read the answer if it still came."""
    async with open_pool(Network(answer_after(2))) as pool:
        async with pool.connection(HERE) as connection:
            with trio.move_on_after(1) as scope:
                await exchange(connection, b"first")
            assert scope.cancelled_caught
        assert (counts(pool), reasons(pool)) == ({}, {"INCOMPLETE": 1})
        async with pool.connection(HERE) as connection:
            assert await exchange(connection, b"second") == b"second"


async def test_timeout_swallowed_in_the_middle_of_an_answer_costs_the_connection(
    autojump_clock: MockClock,
) -> None:
    """F090: what moved last was received, and still the exchange is not over."""

    async def in_halves(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"half")
        await trio.sleep(10)

    async with open_pool(Network(in_halves)) as pool:
        async with pool.connection(HERE) as connection:
            await connection.send_all(b"ask")
            with trio.move_on_after(1):
                while await connection.receive_some():
                    pass
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_timeout_swallowed_by_a_task_of_the_block_costs_the_connection(
    autojump_clock: MockClock,
) -> None:
    """F090"""

    async def impatient(connection: Connection[None]) -> None:
        with trio.move_on_after(1):
            await connection.receive_some()

    async with open_pool(Network(listen)) as pool:
        async with pool.connection(HERE) as connection, trio.open_nursery() as nursery:
            nursery.start_soon(impatient, connection)
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_timeout_swallowed_in_a_send_costs_the_connection_even_if_vouched_for(
    autojump_clock: MockClock,
) -> None:
    """F090: nobody knows how much of an interrupted send the peer has."""

    async with open_pool(Narrow()) as pool:
        async with pool.connection(HERE) as connection:
            with trio.move_on_after(1):
                await connection.send_all(b"too much")
            connection.mark_clean()
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_question_without_its_answer_costs_the_connection() -> None:
    """F093"""
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:
            await connection.send_all(b"ask and leave")
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_exception_after_the_answer_was_read_may_be_excused() -> None:
    async with open_pool() as pool:
        with pytest.raises(KeyError):
            async with pool.connection(HERE) as connection:
                await exchange(connection)
                connection.mark_clean()
                raise KeyError
        assert (counts(pool), reasons(pool)) == ({"idle": 1}, {})


async def test_one_way_protocol_may_vouch_for_an_unanswered_send() -> None:
    async with open_pool(Network(listen)) as pool:
        async with pool.connection(HERE) as connection:
            await connection.send_all(b"a line for the log")
            connection.mark_clean()
        assert counts(pool) == {"idle": 1}


async def test_receive_that_was_meant_to_time_out_may_be_excused(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(Network(listen)) as pool:
        async with pool.connection(HERE) as connection:
            with trio.move_on_after(1):
                await connection.receive_some()
            connection.mark_clean()
        assert counts(pool) == {"idle": 1}


async def test_excuse_lapses_with_the_next_operation() -> None:
    async with open_pool(Network(listen)) as pool:
        async with pool.connection(HERE) as connection:
            connection.mark_clean()
            await connection.send_all(b"one more")
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_excuse_is_not_inherited_by_the_next_lease() -> None:
    """G4"""
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:
            connection.mark_clean()
        with pytest.raises(ValueError):
            async with pool.connection(HERE) as again:
                assert again.id == connection.id
                raise ValueError
        assert reasons(pool) == {"ERROR": 1}


async def test_half_closed_connection_is_discarded_even_if_vouched_for() -> None:
    """F092"""
    async with open_pool() as pool:
        async with pool.connection(HERE) as connection:
            await exchange(connection)
            await connection.send_eof()
            connection.mark_clean()
        assert reasons(pool) == {"DISCARDED": 1}


async def test_peer_that_was_seen_to_close_is_not_lent_again() -> None:
    """G3: the pool cannot probe a stream without a socket, but the lease saw the end itself."""

    async def greet_and_go(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"bye")

    async with open_pool(Network(greet_and_go)) as pool:
        async with pool.connection(HERE) as connection:
            assert await connection.receive_some() == b"bye"
            assert await connection.receive_some() == b""
            connection.mark_clean()
        assert (counts(pool), reasons(pool)) == ({}, {"PEER_CLOSED": 1})


async def test_peer_that_closed_as_it_had_announced_surprises_nobody() -> None:
    async def greet_and_go(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"Connection: close")

    async with open_pool(Network(greet_and_go)) as pool:
        async with pool.connection(HERE) as connection:
            connection.retire()
            while await connection.receive_some():
                pass
        assert reasons(pool) == {"DISCARDED": 1}


async def test_task_that_is_still_inside_a_receive_costs_the_connection(
    autojump_clock: MockClock,
) -> None:
    """F095 G6: and the task gets the error at once."""
    outcome: list[BaseException] = []

    async def receive(connection: Connection[None]) -> None:
        try:
            await connection.receive_some()
        except trio.ClosedResourceError as closed:
            outcome.append(closed)

    async with open_pool(Network(listen)) as pool, trio.open_nursery() as nursery:
        async with pool.connection(HERE) as connection:
            nursery.start_soon(receive, connection)
            await settle()
        assert (counts(pool), reasons(pool)) == ({}, {"INCOMPLETE": 1})
        await settle()
        assert len(outcome) == 1


async def test_two_tasks_that_send_at_once_cost_the_connection(autojump_clock: MockClock) -> None:
    """F096"""

    async with open_pool(Narrow()) as pool:
        with pytest.raises(ExceptionGroup) as caught:
            async with pool.connection(HERE) as connection, trio.open_nursery() as nursery:
                nursery.start_soon(connection.send_all, b"one")
                nursery.start_soon(connection.send_all, b"two")
        assert caught.value.subgroup(trio.BusyResourceError)
        assert reasons(pool) == {"ERROR": 1}


async def test_second_sender_that_is_turned_away_costs_the_connection_though_nothing_was_raised(
    autojump_clock: MockClock,
) -> None:
    """F096"""

    async def swallow(connection: Connection[None]) -> None:
        with pytest.raises(trio.BusyResourceError):
            await connection.send_all(b"two")

    network = Narrow()
    async with open_pool(network) as pool:
        async with pool.connection(HERE) as connection:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.send_all, b"one")
                await settle()
                nursery.start_soon(swallow, connection)
                await settle()
                assert await network.other.receive_some() == b"one"
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(network.other.send_all, b"answer")
                assert await connection.receive_some() == b"answer"
        assert reasons(pool) == {"INCOMPLETE": 1}


@pytest.mark.parametrize("verdict", ["kept", "closed"])
async def test_release_judges_like_the_end_of_a_block(verdict: str) -> None:
    async with open_pool() as pool:
        connection = await pool.acquire(HERE)
        await connection.send_all(b"ping")
        if verdict == "kept":
            await connection.receive_some()
        pool.release(connection)
        assert reasons(pool) == ({} if verdict == "kept" else {"INCOMPLETE": 1})


async def test_what_costs_a_connection_frees_its_slot_before_the_block_is_left() -> None:
    """G11: by force, so that nobody waits for a goodbye."""
    network = Network()

    async def fail(pool: ConnectionPool[None]) -> None:
        with pytest.raises(OSError):
            async with pool.connection(HERE):
                raise OSError
        assert (counts(pool), network.live) == ({}, 0)

    async with open_pool(network, max_connections_per_endpoint=1) as pool:
        for _ in range(3):
            await fail(pool)
