"""What the wire notes about what passes."""

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
    ClosedStream,
    ExchangeStream,
)

Memory = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


def make_wire() -> tuple[ExchangeStream, Memory]:
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


async def test_untouched_wire_has_no_marks() -> None:
    wire, _ = make_wire()
    assert (wire.taints, wire.in_progress) == (0, 0)


async def test_what_was_sent_is_owed_an_answer_until_something_is_received() -> None:
    wire, server = make_wire()
    await wire.send_all(b"ask")
    assert wire.taints == OWED
    await server.send_all(b"answer")
    assert await wire.receive_some() == b"answer"
    assert wire.taints == 0


async def test_sending_nothing_notes_nothing() -> None:
    wire, _ = make_wire()
    await wire.send_all(b"")
    assert wire.taints == 0


async def test_sending_nothing_is_no_answer_to_a_word_given() -> None:
    wire, _ = make_wire()
    wire.vouch()
    await wire.send_all(b"")
    assert wire.taints == VOUCHED


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x")])
async def test_every_kind_of_bytes_counts_as_sent(data: bytes | bytearray | memoryview) -> None:
    wire, server = make_wire()
    await wire.send_all(data)
    assert wire.taints == OWED
    assert await server.receive_some() == b"x"


async def test_cancelled_send_is_noted(autojump_clock: MockClock) -> None:
    client, _ = lockstep_stream_pair()
    wire = ExchangeStream(client)
    with trio.move_on_after(1) as scope:
        await wire.send_all(b"nobody reads this")
    assert scope.cancelled_caught
    assert wire.taints == OWED | CUT_SEND
    assert wire.in_progress == 0


async def test_failed_send_is_noted() -> None:
    wire, server = make_wire()
    await server.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await wire.send_all(b"too late")
    assert wire.taints & CUT_SEND


async def test_cancelled_receive_is_noted(autojump_clock: MockClock) -> None:
    wire, _ = make_wire()
    with trio.move_on_after(1):
        await wire.receive_some()
    assert wire.taints == CUT_RECEIVE
    assert wire.in_progress == 0


async def test_failed_receive_is_noted() -> None:
    wire, _ = make_wire()
    with pytest.raises(ValueError, match="max_bytes"):
        await wire.receive_some(0)
    assert wire.taints == CUT_RECEIVE


async def test_later_success_does_not_heal_what_was_cut_short(autojump_clock: MockClock) -> None:
    wire, server = make_wire()
    with trio.move_on_after(1):
        await wire.receive_some()
    await server.send_all(b"late")
    await wire.receive_some()
    assert wire.taints == CUT_RECEIVE


async def test_cancelled_wait_for_room_notes_nothing(autojump_clock: MockClock) -> None:
    client, _ = lockstep_stream_pair()
    wire = ExchangeStream(client)
    with trio.move_on_after(1) as scope:
        await wire.wait_send_all_might_not_block()
    assert scope.cancelled_caught
    assert (wire.taints, wire.in_progress) == (0, 0)


async def test_end_of_the_stream_is_noted_and_is_no_answer() -> None:
    wire, server = make_wire()
    await wire.send_all(b"ask")
    await server.aclose()
    assert await wire.receive_some() == b""
    assert wire.taints == OWED | ENDED


async def test_answer_that_came_before_the_question_was_out_is_not_its_answer(
    autojump_clock: MockClock,
) -> None:
    """What moved last was sent: a reply to the first half of a request, say, or `100 Continue`."""
    client, server = lockstep_stream_pair()
    wire = ExchangeStream(client)

    async def send() -> None:
        await wire.send_all(b"a long request")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(server.send_all, b"go on")
        assert await wire.receive_some() == b"go on"
        assert await server.receive_some() == b"a long request"
    assert wire.taints == OWED


CLIENT_HELLO = bytes.fromhex("16 0301 00f8 01 0000f4 0303")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_tls_begun_on_top_is_noted_and_no_answer_lifts_it(
    kind: Callable[[bytes], bytes],
) -> None:
    """F068: the next caller expects plain text."""
    wire, server = make_wire()
    await wire.send_all(kind(CLIENT_HELLO))
    await server.send_all(b"server hello")
    await wire.receive_some()
    assert wire.taints == ENCRYPTED
    wire.vouch()
    assert wire.taints == ENCRYPTED | VOUCHED


@pytest.mark.parametrize(
    "data", [b"\x16", CLIENT_HELLO[:5], b"\x16\x02" + CLIENT_HELLO[2:], b"\x16\x03\x01\x00\x04\x02"]
)
async def test_what_only_looks_a_little_like_tls_is_plain_text(data: bytes) -> None:
    wire, _ = make_wire()
    await wire.send_all(data)
    assert wire.taints == OWED


async def test_half_closing_is_noted() -> None:
    wire, server = make_wire()
    await wire.send_eof()
    assert wire.taints == HALF_CLOSED
    assert await server.receive_some() == b""


async def test_stream_that_cannot_half_close_says_so_and_nothing_is_noted() -> None:
    wire = ExchangeStream(OneWay())
    with pytest.raises(NotImplementedError, match="OneWay cannot close one direction only"):
        await wire.send_eof()
    assert wire.taints == 0


async def test_closing_from_beneath_is_noted() -> None:
    wire, server = make_wire()
    await wire.aclose()
    assert wire.taints == HALF_CLOSED
    assert await server.receive_some() == b""


async def test_word_excuses_an_answer_owed_and_a_receive_cut_short() -> None:
    wire, _ = make_wire()
    wire.taints = OWED | CUT_RECEIVE
    wire.vouch()
    assert wire.taints == VOUCHED


@pytest.mark.parametrize("mark", [CUT_SEND, HALF_CLOSED, ENDED])
async def test_word_excuses_nothing_else(mark: int) -> None:
    wire, _ = make_wire()
    wire.taints = mark | OWED
    wire.vouch()
    assert wire.taints == mark | VOUCHED


async def test_word_lapses_when_something_is_sent() -> None:
    wire, _ = make_wire()
    wire.vouch()
    await wire.send_all(b"more")
    assert wire.taints == OWED


async def test_word_lapses_when_something_is_received() -> None:
    wire, server = make_wire()
    await server.send_all(b"more")
    wire.vouch()
    await wire.receive_some()
    assert wire.taints == 0


@pytest.mark.parametrize(
    "operation",
    [
        lambda wire: wire.send_all(b"x"),
        lambda wire: wire.wait_send_all_might_not_block(),
        lambda wire: wire.receive_some(),
    ],
)
async def test_operations_in_progress_are_counted(
    operation: Callable[[ExchangeStream], Awaitable[object]], autojump_clock: MockClock
) -> None:
    client, _ = lockstep_stream_pair()
    wire = ExchangeStream(client)

    async def operate() -> None:
        await operation(wire)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(operate)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.in_progress == 1
        nursery.cancel_scope.cancel()
    assert wire.in_progress == 0


async def test_wire_that_was_cut_is_closed_for_good() -> None:
    wire, _ = make_wire()
    wire.cut()
    for operation in (
        wire.send_all(b"x"),
        wire.send_all(b""),
        wire.receive_some(),
        wire.wait_send_all_might_not_block(),
        wire.send_eof(),
    ):
        with pytest.raises(trio.ClosedResourceError, match="closed or given back"):
            await operation
    await wire.aclose()


async def test_closed_stream_can_be_closed_again() -> None:
    with trio.testing.assert_checkpoints():
        await CLOSED_STREAM.aclose()
    assert isinstance(CLOSED_STREAM, ClosedStream)


async def test_repr_tells_marks_and_operations() -> None:
    wire, _ = make_wire()
    await wire.send_all(b"x")
    assert repr(wire) == "<ExchangeStream taints=0x4, 0 in progress>"
