"""What the exchange stream notes about the bytes that pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import (
    MemoryReceiveStream,
    MemorySendStream,
    MockClock,
    lockstep_stream_pair,
    memory_stream_pair,
)

from conpool._connection.exchange import (
    CLOSED_STREAM,
    CUT_RECEIVE,
    CUT_SEND,
    ENCRYPTED,
    ENDED,
    HALF_CLOSED,
    OWED,
    VOUCHED,
    ExchangeStream,
)

Memory = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


def make_exchange() -> tuple[ExchangeStream, Memory]:
    client, server = memory_stream_pair()
    return ExchangeStream(client), server


class OneWay(trio.abc.Stream):
    """Cannot close one direction only, like TLS."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


async def test_untouched_exchange_has_no_taints() -> None:
    exchange, _ = make_exchange()
    assert (exchange.taints, exchange.in_progress) == (0, 0)


async def test_what_was_sent_is_owed_an_answer_until_something_is_received() -> None:
    exchange, server = make_exchange()
    await exchange.send_all(b"ask")
    assert exchange.taints == OWED
    await server.send_all(b"answer")
    assert await exchange.receive_some() == b"answer"
    assert exchange.taints == 0


async def test_sending_nothing_notes_nothing() -> None:
    exchange, _ = make_exchange()
    await exchange.send_all(b"")
    assert exchange.taints == 0


async def test_sending_nothing_is_no_answer_to_a_word_given() -> None:
    exchange, _ = make_exchange()
    exchange.vouch()
    await exchange.send_all(b"")
    assert exchange.taints == VOUCHED


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x")])
async def test_every_kind_of_bytes_counts_as_sent(data: bytes | bytearray | memoryview) -> None:
    exchange, server = make_exchange()
    await exchange.send_all(data)
    assert exchange.taints == OWED
    assert await server.receive_some() == b"x"


async def test_cancelled_send_is_noted(autojump_clock: MockClock) -> None:
    client, _ = lockstep_stream_pair()
    exchange = ExchangeStream(client)
    with trio.move_on_after(1) as scope:
        await exchange.send_all(b"nobody reads this")
    assert scope.cancelled_caught
    assert exchange.taints == OWED | CUT_SEND
    assert exchange.in_progress == 0


async def test_failed_send_is_noted() -> None:
    exchange, server = make_exchange()
    await server.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await exchange.send_all(b"too late")
    assert exchange.taints & CUT_SEND


async def test_cancelled_receive_is_noted(autojump_clock: MockClock) -> None:
    exchange, _ = make_exchange()
    with trio.move_on_after(1):
        await exchange.receive_some()
    assert exchange.taints == CUT_RECEIVE
    assert exchange.in_progress == 0


async def test_failed_receive_is_noted() -> None:
    exchange, _ = make_exchange()
    with pytest.raises(ValueError, match="max_bytes"):
        await exchange.receive_some(0)
    assert exchange.taints == CUT_RECEIVE


async def test_later_success_does_not_heal_what_was_cut_short(autojump_clock: MockClock) -> None:
    exchange, server = make_exchange()
    with trio.move_on_after(1):
        await exchange.receive_some()
    await server.send_all(b"late")
    await exchange.receive_some()
    assert exchange.taints == CUT_RECEIVE


async def test_cancelled_wait_for_room_notes_nothing(autojump_clock: MockClock) -> None:
    client, _ = lockstep_stream_pair()
    exchange = ExchangeStream(client)
    with trio.move_on_after(1) as scope:
        await exchange.wait_send_all_might_not_block()
    assert scope.cancelled_caught
    assert (exchange.taints, exchange.in_progress) == (0, 0)


async def test_end_of_the_stream_is_noted_and_is_no_answer() -> None:
    exchange, server = make_exchange()
    await exchange.send_all(b"ask")
    await server.aclose()
    assert await exchange.receive_some() == b""
    assert exchange.taints == OWED | ENDED


async def test_answer_that_came_before_the_question_was_out_is_not_its_answer(
    autojump_clock: MockClock,
) -> None:
    """For instance `100 Continue`: the bytes that moved last were sent, and want a reply."""
    client, server = lockstep_stream_pair()
    exchange = ExchangeStream(client)

    async def send() -> None:
        await exchange.send_all(b"a long request")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(server.send_all, b"go on")
        assert await exchange.receive_some() == b"go on"
        assert await server.receive_some() == b"a long request"
    assert exchange.taints == OWED


CLIENT_HELLO = bytes.fromhex("16 0301 00f8 01 0000f4 0303")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_tls_begun_on_top_is_noted_and_no_answer_lifts_it(
    kind: Callable[[bytes], bytes],
) -> None:
    """F068: the next caller expects plain text."""
    exchange, server = make_exchange()
    await exchange.send_all(kind(CLIENT_HELLO))
    await server.send_all(b"server hello")
    await exchange.receive_some()
    assert exchange.taints == ENCRYPTED
    exchange.vouch()
    assert exchange.taints == ENCRYPTED | VOUCHED


@pytest.mark.parametrize(
    "data", [b"\x16", CLIENT_HELLO[:5], b"\x16\x02" + CLIENT_HELLO[2:], b"\x16\x03\x01\x00\x04\x02"]
)
async def test_what_only_looks_a_little_like_tls_is_plain_text(data: bytes) -> None:
    exchange, _ = make_exchange()
    await exchange.send_all(data)
    assert exchange.taints == OWED


async def test_half_closing_is_noted() -> None:
    exchange, server = make_exchange()
    await exchange.send_eof()
    assert exchange.taints == HALF_CLOSED
    assert await server.receive_some() == b""


async def test_stream_that_cannot_half_close_says_so_and_nothing_is_noted() -> None:
    exchange = ExchangeStream(OneWay())
    with pytest.raises(NotImplementedError, match="OneWay cannot close one direction only"):
        await exchange.send_eof()
    assert exchange.taints == 0


async def test_closing_from_beneath_is_noted() -> None:
    exchange, server = make_exchange()
    await exchange.aclose()
    assert exchange.taints == HALF_CLOSED
    assert await server.receive_some() == b""


async def test_word_excuses_an_answer_owed_and_a_receive_cut_short() -> None:
    exchange, _ = make_exchange()
    exchange.taints = OWED | CUT_RECEIVE
    exchange.vouch()
    assert exchange.taints == VOUCHED


@pytest.mark.parametrize("taint", [CUT_SEND, HALF_CLOSED, ENDED])
async def test_word_excuses_nothing_else(taint: int) -> None:
    exchange, _ = make_exchange()
    exchange.taints = taint | OWED
    exchange.vouch()
    assert exchange.taints == taint | VOUCHED


async def test_word_lapses_when_something_is_sent() -> None:
    exchange, _ = make_exchange()
    exchange.vouch()
    await exchange.send_all(b"more")
    assert exchange.taints == OWED


async def test_word_lapses_when_something_is_received() -> None:
    exchange, server = make_exchange()
    await server.send_all(b"more")
    exchange.vouch()
    await exchange.receive_some()
    assert exchange.taints == 0


@pytest.mark.parametrize(
    "operation",
    [
        lambda exchange: exchange.send_all(b"x"),
        lambda exchange: exchange.wait_send_all_might_not_block(),
        lambda exchange: exchange.receive_some(),
    ],
)
async def test_operations_in_progress_are_counted(
    operation: Callable[[ExchangeStream], Awaitable[object]], autojump_clock: MockClock
) -> None:
    client, _ = lockstep_stream_pair()
    exchange = ExchangeStream(client)

    async def operate() -> None:
        await operation(exchange)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(operate)
        await trio.testing.wait_all_tasks_blocked()
        assert exchange.in_progress == 1
        nursery.cancel_scope.cancel()
    assert exchange.in_progress == 0


async def test_f155_empty_send_is_in_progress_and_leaves_no_note(
    autojump_clock: MockClock,
) -> None:
    """Empty streams may send nothing slowly, and a real one has a checkpoint there."""

    class Slow(OneWay):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep(1)

    exchange = ExchangeStream(Slow())
    for patience in (0.5, 2):
        with trio.move_on_after(patience):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exchange.send_all, b"")
                await trio.testing.wait_all_tasks_blocked()
                assert exchange.in_progress == 1
        assert (exchange.in_progress, exchange.taints) == (0, 0)


async def test_exchange_that_was_cut_is_closed_for_good() -> None:
    exchange, _ = make_exchange()
    exchange.cut("closed by the pool at the end of its grace")
    for operation in (
        exchange.send_all(b"x"),
        exchange.send_all(b""),
        exchange.receive_some(),
        exchange.wait_send_all_might_not_block(),
        exchange.send_eof(),
    ):
        with pytest.raises(
            trio.ClosedResourceError, match="was closed by the pool at the end of its"
        ):
            await operation
    await exchange.aclose()


async def test_closed_stream_can_be_closed_again() -> None:
    with trio.testing.assert_checkpoints():
        await CLOSED_STREAM.aclose()


async def test_repr_tells_taints_and_operations() -> None:
    exchange, _ = make_exchange()
    await exchange.send_all(b"x")
    assert repr(exchange) == "<ExchangeStream taints=0x4, 0 in progress>"
