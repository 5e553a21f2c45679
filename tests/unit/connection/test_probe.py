"""The probe: what it tells apart, and that it takes nothing from a healthy connection."""

from __future__ import annotations

import errno
import select
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest
import trio
from trio.abc import Stream
from trio.testing import memory_stream_pair

from conpool import TLS, CloseReason
from conpool._connection.probe import PeekingSource, TLSSource, find_source, probe
from conpool._connection.tls_tap import EncryptedStream, Tap
from tests.faults.sites import say_goodbye, socket_of
from tests.servers import Certificates
from tests.support.faults import close_stream
from tests.support.loopback_servers import receive_exactly, tcp_pair, tls_pair

PEER_CLOSED = CloseReason.PEER_CLOSED
UNREAD_DATA = CloseReason.UNREAD_DATA


class Broken:
    """A source whose descriptor is somebody else's by now."""

    def __init__(self, *, at_poll: bool) -> None:
        self._at_poll = at_poll

    def poll(self, _: int) -> bool:
        if self._at_poll:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return True

    def take_now(self, size: int) -> bytes | None:
        raise OSError(errno.ENOTSOCK, "Socket operation on non-socket")


@pytest.mark.parametrize("at_poll", [True, False])
def test_f142_a_source_that_cannot_even_be_asked_is_closed(at_poll: bool) -> None:
    assert probe(cast("Any", Broken(at_poll=at_poll))) is PEER_CLOSED


async def arrival(sock: trio.SocketStream) -> None:
    """Wait until there is something to read, or the end."""
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(sock.socket)


# ── without TLS ─────────────────────────────────────────────────────────────────


async def unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    client, server = trio.socket.socketpair(socket.AF_UNIX)
    return trio.SocketStream(client), trio.SocketStream(server)


@pytest.fixture(params=[tcp_pair, unix_pair], ids=["tcp", "unix"])
async def pair(request: Any) -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    client, server = await request.param()
    async with client, server:
        yield client, server


Pair = tuple[trio.SocketStream, trio.SocketStream]


async def test_g23_a_silent_connection_is_alive(pair: Pair) -> None:
    client, server = pair
    source = find_source(client)
    for _ in range(3):
        assert probe(source) is None
    await server.send_all(b"later")
    assert await client.receive_some() == b"later"


async def test_a_byte_is_unread_data(pair: Pair) -> None:
    client, server = pair
    await server.send_all(b"x")
    await arrival(client)
    assert probe(find_source(client)) is UNREAD_DATA


async def test_f074_a_byte_before_the_end_is_unread_data(pair: Pair) -> None:
    client, server = pair
    await server.send_all(b"x")
    await server.aclose()
    await arrival(client)
    assert probe(find_source(client)) is UNREAD_DATA


async def test_f071_the_end_of_the_stream_means_closed(pair: Pair) -> None:
    client, server = pair
    await server.aclose()
    await arrival(client)
    assert probe(find_source(client)) is PEER_CLOSED


async def test_the_end_of_one_direction_means_closed(pair: Pair) -> None:
    client, server = pair
    await server.send_eof()
    await arrival(client)
    assert probe(find_source(client)) is PEER_CLOSED


async def test_f072_a_reset_means_closed_and_raises_nothing() -> None:
    client, server = await tcp_pair()
    async with client:
        close_stream(server, "reset")
        await arrival(client)
        assert probe(find_source(client)) is PEER_CLOSED


async def test_without_poll_the_socket_is_asked(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = pair
    with monkeypatch.context() as patch:
        patch.delattr(select, "poll")
        source = find_source(client)
    assert probe(source) is None
    await server.send_all(b"x")
    await arrival(client)
    assert probe(source) is UNREAD_DATA


async def test_what_is_there_for_the_poll_and_gone_for_the_read_means_alive(pair: Pair) -> None:
    client, _ = pair
    source = find_source(client)
    assert source is not None
    assert source.take_now(1) is None


async def test_bytes_of_a_session_with_a_socket_of_its_own_stay_where_they_are(
    pair: Pair,
) -> None:
    client, server = pair
    source = PeekingSource(client.socket.fileno, is_opaque=False)
    assert probe(source) is None
    await server.send_all(b"x")
    await arrival(client)
    assert probe(source) is UNREAD_DATA
    with trio.fail_after(5):
        assert await client.receive_some() == b"x"
    await server.aclose()
    await arrival(client)
    assert probe(source) is PEER_CLOSED


async def test_bytes_that_only_a_session_can_read_tell_nothing(pair: Pair) -> None:
    client, server = pair
    source = PeekingSource(client.socket.fileno, is_opaque=True)
    await server.send_all(b"x")
    await arrival(client)
    assert probe(source) is None
    assert await client.receive_some() == b"x"


async def test_a_session_that_has_left_its_socket_is_closed_whoever_has_the_number_now(
    pair: Pair,
) -> None:
    numbers = [pair[0].socket.fileno()]
    source = PeekingSource(lambda: numbers[-1], is_opaque=False)
    assert probe(source) is None
    numbers.append(pair[1].socket.fileno())
    assert probe(source) is PEER_CLOSED


async def test_a_stream_without_a_socket_is_taken_to_be_alive() -> None:
    client, server = memory_stream_pair()
    await server.send_all(b"x")
    assert find_source(client) is None
    assert probe(None) is None


async def test_a_tls_stream_that_somebody_else_made_is_taken_to_be_alive(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    client, server = await tcp_pair()
    async with client, server:
        stream = trio.SSLStream(client, client_ssl, server_hostname="localhost")
        assert find_source(stream) is None


# ── TLS ─────────────────────────────────────────────────────────────────────────


class Buffered(Stream):
    """A stream that can hold bytes back, so that a test decides how they are cut into packets."""

    def __init__(self, below: trio.SocketStream) -> None:
        self.below = below
        self.kept: bytearray | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.kept is not None:
            self.kept += data
            await trio.lowlevel.checkpoint()
        else:
            await self.below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self.below.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self.below.aclose()

    def keep(self) -> None:
        self.kept = bytearray()

    def take(self) -> bytes:
        assert self.kept is not None
        kept, self.kept = bytes(self.kept), None
        return kept


class Sides:
    """Both ends of a connection with TLS; `wire` is below the server's."""

    def __init__(
        self, client: EncryptedStream, server: trio.SSLStream[Stream], wire: Buffered
    ) -> None:
        self.client, self.server, self.wire = client, server, wire
        self.source = find_source(client)
        self.socket = socket_of(client)

    def probe(self) -> CloseReason | None:
        return probe(self.source)

    async def look_after_arrival(self) -> CloseReason | None:
        await arrival(self.socket)
        return self.probe()

    async def cut_record(self, data: bytes, at: int) -> tuple[bytes, bytes]:
        """The record that `data` would travel in, cut in two."""
        self.wire.keep()
        await self.server.send_all(data)
        record = self.wire.take()
        return record[:at], record[at:]


@pytest.fixture
def old_client_ssl(certificates: Certificates) -> ssl.SSLContext:
    context = certificates.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@asynccontextmanager
async def sides(server: ssl.SSLContext, client: ssl.SSLContext, layers: int) -> Any:
    async with AsyncExitStack() as stack:
        low_client, low_server = await tcp_pair()
        stack.callback(low_client.socket.close)
        stack.callback(low_server.socket.close)
        wire = Buffered(low_server)
        below: tuple[Stream, Stream] = (low_client, wire)
        for _ in range(layers):
            below = await tls_pair(server, TLS(client), below)
        yield Sides(cast("Any", below[0]), cast("Any", below[1]), wire)


@pytest.fixture(params=["tls1.2", "tls1.3", "tls-in-tls"])
async def tls(
    request: pytest.FixtureRequest,
    server_ssl: ssl.SSLContext,
    client_ssl: ssl.SSLContext,
    old_client_ssl: ssl.SSLContext,
) -> AsyncIterator[Sides]:
    """Fresh from the handshake: under TLS 1.3 the tickets are unread."""
    client = old_client_ssl if request.param == "tls1.2" else client_ssl
    layers = 2 if request.param == "tls-in-tls" else 1
    async with sides(server_ssl, client, layers) as both:
        yield both


@pytest.fixture
async def tls13(server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext) -> AsyncIterator[Sides]:
    async with sides(server_ssl, client_ssl, 1) as both:
        yield both


async def test_f057_g23_unread_tickets_mean_alive_and_are_read_once(tls13: Sides) -> None:
    assert tls13.socket.socket.is_readable()
    assert await tls13.look_after_arrival() is None
    assert not tls13.socket.socket.is_readable()
    assert tls13.source is not None
    assert not tls13.source.poll(0)
    assert tls13.client.session is not None


async def test_without_tickets_nothing_is_read(
    server_ssl: ssl.SSLContext, old_client_ssl: ssl.SSLContext
) -> None:
    async with sides(server_ssl, old_client_ssl, 1) as both:
        assert not both.socket.socket.is_readable()
        assert both.probe() is None


async def test_g23_a_look_takes_nothing_from_a_healthy_connection(tls: Sides) -> None:
    async with trio.open_nursery() as nursery:
        for turn in range(3):
            assert tls.probe() is None
            nursery.start_soon(tls.server.send_all, b"answer %d" % turn)
            assert await receive_exactly(tls.client, 8) == b"answer %d" % turn
            nursery.start_soon(tls.client.send_all, b"ask")
            assert await receive_exactly(tls.server, 3) == b"ask"
    assert tls.probe() is None


async def test_data_behind_the_tickets_is_unread(tls: Sides) -> None:
    await tls.server.send_all(b"x")
    assert await tls.look_after_arrival() is UNREAD_DATA


async def test_the_second_record_of_a_packet_is_unread_when_only_the_first_was_read(
    tls: Sides,
) -> None:
    tls.wire.keep()
    await tls.server.send_all(b"one")
    await tls.server.send_all(b"two")
    await tls.wire.send_all(tls.wire.take())
    assert await tls.client.receive_some() == b"one"
    assert not tls.socket.socket.is_readable()
    assert tls.probe() is UNREAD_DATA


async def test_the_rest_of_a_record_is_unread(tls: Sides) -> None:
    await tls.server.send_all(b"one and two")
    assert await tls.client.receive_some(3) == b"one"
    assert not tls.socket.socket.is_readable()
    assert tls.probe() is UNREAD_DATA


@pytest.mark.parametrize("at", [1, 4, 5, 6, 20])
async def test_f061_part_of_a_record_means_alive_and_is_not_lost(tls: Sides, at: int) -> None:
    first, second = await tls.cut_record(b"answer", at)
    await tls.wire.send_all(first)
    assert await tls.look_after_arrival() is None
    assert tls.probe() is None
    await tls.wire.send_all(second)
    assert await tls.client.receive_some() == b"answer"
    assert tls.probe() is None


async def test_a_record_that_comes_in_two_parts_is_unread(tls: Sides) -> None:
    first, second = await tls.cut_record(b"answer", 10)
    await tls.wire.send_all(first)
    assert await tls.look_after_arrival() is None
    await tls.wire.send_all(second)
    assert await tls.look_after_arrival() is UNREAD_DATA


async def test_a_record_that_breaks_off_means_closed(tls: Sides) -> None:
    first, _ = await tls.cut_record(b"answer", 10)
    await tls.wire.send_all(first)
    await tls.wire.below.send_eof()
    assert await tls.look_after_arrival() in {None, PEER_CLOSED}
    assert tls.probe() is PEER_CLOSED


async def test_f059_a_goodbye_means_closed_though_tcp_is_open(tls: Sides) -> None:
    await say_goodbye(tls.server)
    assert await tls.look_after_arrival() is PEER_CLOSED


async def test_a_goodbye_of_the_outer_layer_means_closed(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    async with sides(server_ssl, client_ssl, 2) as both:
        assert both.probe() is None
        await say_goodbye(both.server.transport_stream)
        assert await both.look_after_arrival() is PEER_CLOSED


async def test_data_before_a_goodbye_is_unread(tls: Sides) -> None:
    await tls.server.send_all(b"x")
    await say_goodbye(tls.server)
    assert await tls.look_after_arrival() is UNREAD_DATA


async def test_f060_the_end_without_a_goodbye_means_closed(tls: Sides) -> None:
    await tls.wire.below.send_eof()
    assert await tls.look_after_arrival() is PEER_CLOSED


async def test_a_reset_under_tls_means_closed(tls: Sides) -> None:
    close_stream(tls.wire.below, "reset")
    assert await tls.look_after_arrival() is PEER_CLOSED


async def test_f062_garbage_means_closed(tls: Sides) -> None:
    await tls.wire.send_all(b"HTTP/1.1 408 Request Time-out\r\n\r\n")
    assert await tls.look_after_arrival() is PEER_CLOSED


async def test_being_asked_for_a_certificate_while_idle_is_not_data(
    certificates: Certificates,
) -> None:
    server, client = certificates.server_context(), certificates.client_context()
    certificates.ca.configure_trust(server)
    client.post_handshake_auth = server.post_handshake_auth = True
    certificates.client.configure_cert(client)
    server.verify_mode = ssl.CERT_REQUIRED  # but not in the handshake
    async with sides(server, client, 1) as both:
        ssl_object = both.server._ssl_object
        ssl_object.verify_client_post_handshake()
        await both.server.send_all(b"")
        ssl_object.do_handshake()
        await both.wire.send_all(both.server._outgoing.read())
        assert await both.look_after_arrival() is None
        await exchange_over(both)
        assert both.server.getpeercert() is not None


async def exchange_over(both: Sides) -> None:
    await both.client.send_all(b"ask")
    assert await receive_exactly(both.server, 3) == b"ask"
    await both.server.send_all(b"answer")
    assert await receive_exactly(both.client, 6) == b"answer"


class Chatter:
    """A peer that always has one more record without data in it."""

    def __init__(self) -> None:
        self.taken = 0

    def poll(self, timeout: int) -> object:
        return True

    def take_now(self, size: int) -> bytes | None:
        self.taken += 1
        return b"\x16" * size


class NeverData:
    def read(self, size: int) -> bytes:
        raise ssl.SSLWantReadError

    def pending(self) -> int:
        return 0


async def test_g23_a_peer_that_sends_records_without_end_does_not_hold_up_the_look() -> None:
    tap, chatter = Tap(cast("Any", None)), Chatter()
    tap.ssl_object, tap.incoming = cast("Any", NeverData()), ssl.MemoryBIO()
    assert probe(TLSSource(tap, cast("Any", chatter))) is PEER_CLOSED
    assert chatter.taken == 16
