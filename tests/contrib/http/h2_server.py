"""An HTTP/2 server that answers as a test tells it, and notes what clients do."""

from __future__ import annotations

import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import trio

from .clients import LOOPBACK

_RESET = (
    h2.exceptions.NoSuchStreamError,
    h2.exceptions.StreamClosedError,
    h2.exceptions.StreamIDTooLowError,
)

Handle = Callable[["Link", int], Awaitable[object]]


@dataclass
class Seen:
    """What a server has seen."""

    url: str = ""
    links: list[Link] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        return [headers[":path"] for link in self.links for headers in link.requests.values()]


class Link:
    """The server's end of one connection."""

    def __init__(self, stream: trio.abc.Stream, max_streams: int) -> None:
        self.stream = stream
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: max_streams},
        )
        self.requests: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = defaultdict(bytes)
        self.ended: dict[int, trio.Event] = defaultdict(trio.Event)
        self.resets: dict[int, int] = {}
        self.pings = 0
        self.goaways = 0
        self.grants = True
        """Whether what has come is acknowledged, so that the client may send more."""
        self.over = trio.Event()
        self._lock = trio.Lock()
        self._moved = trio.lowlevel.ParkingLot()

    async def run(self, handle: Handle) -> None:
        self.h2.initiate_connection()
        await self.flush()
        async with trio.open_nursery() as nursery:
            while data := await self.stream.receive_some():
                for event in self.h2.receive_data(bytes(data)):
                    self._take(event, handle, nursery)
                await self.flush()
                self._moved.unpark_all()
            nursery.cancel_scope.cancel()

    def _take(self, event: Any, handle: Handle, nursery: trio.Nursery) -> None:
        if isinstance(event, h2.events.RequestReceived):
            number = event.stream_id
            self.requests[number] = dict(event.headers)  # type: ignore[arg-type] # they are text
            nursery.start_soon(self._handle, handle, number)
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            if self.grants:
                size = event.flow_controlled_length
                self.h2.acknowledge_received_data(size, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended[event.stream_id].set()
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = int(event.error_code)
        elif isinstance(event, h2.events.PingAckReceived):
            self.pings += 1
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaways += 1

    async def _handle(self, handle: Handle, number: int) -> None:
        with suppress(*_RESET):  # the client has reset it meanwhile
            await handle(self, number)

    async def flush(self) -> None:
        async with self._lock:
            if data := self.h2.data_to_send():
                await self.stream.send_all(data)

    async def raw(self, data: bytes) -> None:
        """Send bytes of the test's own."""
        async with self._lock:
            await self.stream.send_all(data)

    async def moved(self) -> None:
        await self._moved.park()

    async def head(self, number: int, *, status: int = 200, ends: bool = False) -> None:
        self.h2.send_headers(number, [(":status", str(status)), ("x", "y")], end_stream=ends)
        await self.flush()

    async def body(self, number: int, body: bytes, *, ends: bool = True) -> None:
        while body:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if not room:
                await self.moved()
                continue
            self.h2.send_data(number, body[:room])
            body = body[room:]
            await self.flush()
        if ends:
            self.h2.end_stream(number)
            await self.flush()

    async def answer(self, number: int, body: bytes | None = None, *, status: int = 200) -> None:
        await self.head(number, status=status)
        await self.body(number, self.requests[number][":path"].encode() if body is None else body)

    async def do(self, method: str, *args: Any, **options: Any) -> None:
        """Call a method of h2's, and send what it has queued."""
        getattr(self.h2, method)(*args, **options)
        await self.flush()


async def answer_path(link: Link, number: int) -> None:
    """Answer a request, when it is complete, with its path."""
    await link.ended[number].wait()
    await link.answer(number)


@asynccontextmanager
async def serving_h2(
    handle: Handle = answer_path,
    *,
    context: ssl.SSLContext | None = None,
    max_streams: int = 100,
    within: float = 20,
) -> AsyncIterator[Seen]:
    """Serve HTTP/2, over TLS with `context` and with prior knowledge without."""
    seen = Seen()

    async def serve(stream: trio.abc.Stream) -> None:
        if context is not None:
            stream = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        link = Link(stream, max_streams)
        seen.links.append(link)
        try:
            await link.run(handle)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            link.over.set()
            with trio.move_on_after(1, shield=True):
                await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        seen.url = f"http{'s' * (context is not None)}://{LOOPBACK}:{port}"
        with trio.fail_after(within):
            yield seen
        nursery.cancel_scope.cancel()
