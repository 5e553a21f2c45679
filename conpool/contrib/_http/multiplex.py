"""One HTTP/2 connection, which many exchanges share; h2 keeps its state.

Three kinds of tasks meet here. The pool runs `run` beside the connection: one task reads and hands
what has come to the streams, another writes what has been queued. So no exchange moves a byte
itself: cancelling one cannot cut a frame in two, and a slow one holds up no other. An exchange
changes the state, wakes the writer, and waits for its stream to be woken.

Memory is bounded: a stream holds at most `STREAM_WINDOW` bytes that nobody has read, a body waits
while `MAX_UNSENT` bytes are queued, and a peer that lets more than `MAX_REPLIES` pile up is left.
"""

from __future__ import annotations

import re
from typing import Any, Final, final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio

from conpool.contrib._http.frames import Flood, FrameSplitter, Goaway

MAX_STREAMS: Final = 100
"""Most leases of one connection, whatever the peer allows: as in httpcore."""

STREAM_WINDOW: Final = 131_072
"""How much of one answer may come before it is read."""

CONNECTION_WINDOW: Final = STREAM_WINDOW * MAX_STREAMS
"""With this, streams that nobody reads cannot use up the window of the others."""

MAX_UNSENT: Final = 131_072
"""Bytes that may be queued before bodies wait."""

MAX_REPLIES: Final = 2_097_152
"""Bytes queued at which the peer is one that asks and does not listen."""

MAX_HEAD: Final = 102_400
"""Most bytes of the head of an answer, as in HTTP/1.1."""

MAX_INTERIM: Final = 32
"""Most interim answers (1xx) to one request."""

_STATUS: Final = re.compile(rb"[2-9][0-9][0-9]")
_LAST_STREAM: Final = 2**31 - 1
_READ_SIZE: Final = 65_536


class ConnectionFailed(Exception):
    """The connection has ended, or the peer has broken the protocol; all its streams end."""

    def __init__(self, said: str, *, is_violation: bool = False) -> None:
        super().__init__(said)
        self.is_violation = is_violation
        self.is_reported = False
        """Whether a circuit breaker has been told: once for all streams."""


@final
class Stream:
    """One exchange's share of the connection."""

    __slots__ = (
        "_lot",
        "credit",
        "ended",
        "head",
        "interim",
        "is_unprocessed",
        "number",
        "reset_code",
        "unread",
        "uploading",
    )

    def __init__(self, number: int, uploading: trio.CancelScope | None) -> None:
        self.number: int = number
        self.head: list[tuple[bytes, bytes]] | None = None
        self.interim: int = 0
        self.unread: bytearray = bytearray()
        """What has come of the body. One buffer, since each frame may bring a single byte."""
        self.credit: int = 0
        """How much of the window it takes, with its padding."""
        self.ended: bool = False
        self.reset_code: int | None = None
        self.is_unprocessed: bool = False
        """Whether the peer has said that it will not look at this stream."""
        self.uploading: trio.CancelScope | None = uploading
        """What sends the request's body; the peer may cut it short before it has begun."""
        self._lot = trio.lowlevel.ParkingLot()

    async def wait(self) -> None:
        """Wait until something has happened. Cancelling it leaves nothing behind."""
        await self._lot.park()

    def wake(self) -> None:
        """Something has happened."""
        self._lot.unpark_all()

    def stop_upload(self) -> None:
        """The peer does not need the rest of the request's body."""
        if self.uploading is not None:
            self.uploading.cancel()


@final
class Multiplex:
    """The state of one connection, and what the pool's tasks do with it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._splitter = FrameSplitter()
        self._unsent = bytearray()
        self._more = trio.Event()
        self._moved = trio.lowlevel.ParkingLot()
        """Bodies that wait for room, and requests that wait for a stream."""
        self._is_sending = False
        self._got_settings = False
        self.streams: dict[int, Stream] = {}
        self.failure: ConnectionFailed | None = None
        self.is_leaving: bool = False
        """Whether no new stream may be opened."""
        self.h2: h2.connection.H2Connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=None)
        )
        settings = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                settings.ENABLE_PUSH: 0,
                settings.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                settings.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                settings.MAX_HEADER_LIST_SIZE: MAX_HEAD,
            },
        )
        self.h2.decoder.max_header_list_size = MAX_HEAD

    # ── the pool's tasks ────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Greet the peer, and wait for its settings.

        Raises:
            ConnectionFailed: It is no HTTP/2 peer, or has gone.
        """
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
        await self._stream.send_all(self.h2.data_to_send())
        while not self._got_settings:
            self._feed(await self._stream.receive_some(_READ_SIZE))

    async def run(self) -> None:
        """Read and write until the connection ends; then all its streams have ended."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()
        except* (ConnectionFailed, trio.BrokenResourceError, trio.ClosedResourceError) as group:
            self.fail(_first(group))
            raise
        finally:
            self.fail(ConnectionFailed("the connection has been closed"))

    async def _read(self) -> None:
        while True:
            self._feed(await self._stream.receive_some(_READ_SIZE))

    async def _write(self) -> None:
        while True:
            if not self._unsent:
                self._more = trio.Event()
                await self._more.wait()
            data, self._unsent = self._unsent, bytearray()
            self._is_sending = True
            await self._stream.send_all(data)
            self._is_sending = False
            self._moved.unpark_all()

    async def say_goodbye(self) -> None:
        """Tell the peer that we leave."""
        if not self._is_sending:  # otherwise a frame has been cut in two
            self.h2.close_connection()
            await self._stream.send_all(bytes(self._unsent) + self.h2.data_to_send())

    # ── what comes in ───────────────────────────────────────────────────────────

    def _feed(self, data: bytes | bytearray) -> None:
        if not data:
            raise ConnectionFailed("the server has closed the connection")
        try:
            frames, goaways = self._splitter.feed(data)
            events = self.h2.receive_data(frames) if frames else []
        except (Flood, h2.exceptions.ProtocolError) as error:
            raise ConnectionFailed(str(error) or repr(error), is_violation=True) from error
        for event in events:
            self._take(event)
        for goaway in goaways:
            self._note_goaway(goaway)
        self.flush()
        if len(self._unsent) > MAX_REPLIES:
            raise ConnectionFailed("the server asks and does not listen", is_violation=True)

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self._got_settings = True
            self._moved.unpark_all()
            return
        if isinstance(event, h2.events.WindowUpdated):  # of the connection, or of one stream
            self._moved.unpark_all()
            return
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        if isinstance(event, h2.events.DataReceived):
            stream.unread += event.data or b""
            stream.credit += event.flow_controlled_length or 0
        elif isinstance(event, h2.events.ResponseReceived):
            head = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
            status = head[0][1]
            if _STATUS.fullmatch(status) is None:
                raise ConnectionFailed(f"{status!r} is no status", is_violation=True)
            stream.head = head
            if status >= b"300":
                stream.stop_upload()
        elif isinstance(event, h2.events.InformationalResponseReceived):
            stream.interim += 1
            if stream.interim > MAX_INTERIM:
                raise ConnectionFailed("too many interim answers", is_violation=True)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
            stream.stop_upload()
        elif isinstance(event, h2.events.StreamReset):
            stream.reset_code = int(event.error_code or 0)
            stream.is_unprocessed = stream.reset_code == h2.errors.ErrorCodes.REFUSED_STREAM
            stream.stop_upload()
        stream.wake()

    def _note_goaway(self, goaway: Goaway) -> None:
        self.is_leaving = True
        for number, stream in self.streams.items():
            if number > goaway.last_stream and stream.head is None:
                stream.is_unprocessed = True
                stream.reset_code = goaway.code
                stream.stop_upload()
        self._wake_all()

    def _wake_all(self) -> None:
        self._moved.unpark_all()
        for stream in self.streams.values():
            stream.wake()

    def fail(self, failure: ConnectionFailed) -> None:
        """End all streams; the first failure counts."""
        if self.failure is None:
            self.failure = failure
            self.is_leaving = True
            for stream in self.streams.values():
                stream.stop_upload()
        self._wake_all()

    # ── what exchanges do ───────────────────────────────────────────────────────

    @property
    def capacity(self) -> int:
        """How many leases may share the connection; 0: it takes no new ones."""
        if self.is_leaving or self.h2.highest_outbound_stream_id + 2 > _LAST_STREAM:
            return 0
        # A peer that allows none for a moment does not leave: requests wait for a stream.
        return min(max(self.h2.remote_settings.max_concurrent_streams, 1), MAX_STREAMS)

    def try_open(self, headers: list[tuple[bytes, bytes]], *, ends: bool) -> Stream | None:
        """Open a stream with a request's head; None while the peer allows no more streams.

        Raises:
            h2.exceptions.ProtocolError: The head is not one that may be sent.
        """
        if len(self.streams) >= self.h2.remote_settings.max_concurrent_streams:
            return None
        number = self.h2.get_next_available_stream_id()
        try:
            self.h2.send_headers(number, headers, end_stream=ends)
        except h2.exceptions.ProtocolError:
            # What h2 has compressed until then was not sent, so the peer's table differs now.
            self.is_leaving = True
            raise
        uploading = None if ends else trio.CancelScope()
        stream = self.streams[number] = Stream(number, uploading)
        self.flush()
        return stream

    def try_send(self, stream: Stream, data: memoryview) -> int:
        """Queue as much of `data` as the windows allow, and return how much that was."""
        if len(self._unsent) > MAX_UNSENT:
            return 0
        room = min(
            self.h2.local_flow_control_window(stream.number),
            self.h2.max_outbound_frame_size,
            len(data),
        )
        if room > 0:
            self.h2.send_data(stream.number, bytes(data[:room]))
            self.flush()
        return max(room, 0)

    def end_body(self, stream: Stream) -> None:
        """The request's body has been sent."""
        self.h2.end_stream(stream.number)
        self.flush()

    def give_credit(self, stream: Stream) -> None:
        """What has come of the answer has been read: the peer may send as much again.

        This holds for the connection even if the stream has ended.
        """
        if stream.credit and self.failure is None:
            self.h2.acknowledge_received_data(stream.credit, stream.number)
            self.flush()
        stream.credit = 0

    def leave(self, stream: Stream, *, is_complete: bool) -> None:
        """An exchange is over; if it is not complete, the peer is told to stop."""
        del self.streams[stream.number]
        if self.failure is not None:
            return
        if not is_complete and stream.reset_code is None:
            self.h2.reset_stream(stream.number, h2.errors.ErrorCodes.CANCEL)
        self.give_credit(stream)
        self.flush()
        self._moved.unpark_all()

    async def wait_moved(self) -> None:
        """Wait until something was sent, a window has grown, or a stream has ended."""
        await self._moved.park()

    def flush(self) -> None:
        """Have the writer send what h2 has queued."""
        data: Any = self.h2.data_to_send()
        if data:
            self._unsent += data
            self._more.set()

    def __repr__(self) -> str:
        state = "leaving" if self.is_leaving else "open"
        return f"<Multiplex {state}, {len(self.streams)} streams, {len(self._unsent)} bytes unsent>"


def _first(group: BaseExceptionGroup[Exception]) -> ConnectionFailed:
    error = group.exceptions[0]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ConnectionFailed):
        return error
    failure = ConnectionFailed(f"the connection broke: {str(error) or error.__cause__ or 'reset'}")
    failure.__cause__ = error
    return failure
