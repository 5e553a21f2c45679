"""A TCP proxy that does to its connections whatever a bad network or a bad server would.

It stands between the pool and a server. Everything passes until a test says otherwise: for one
connection, through its `Passage`, or for those to come, through `FaultyProxy.prepare`, which sees
each before its first byte. Nothing here waits for luck: what a test must wait for has a method to
wait for.

    proxy = await start_proxy(nursery, server_port)
    proxy.prepare = lambda passage: passage.down.cut_after(100, "reset")
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from typing import Literal, TypeAlias, final

import trio

LOOPBACK = "127.0.0.1"

_PATIENCE = 10.0

How: TypeAlias = Literal["close", "reset", "half-close", "silence"]
"""How a connection ends: FIN both ways, RST, FIN to the client only, or not at all."""

_STREAM_ENDS = (trio.BrokenResourceError, trio.ClosedResourceError)


@final
class Way:
    """One direction of a connection through the proxy."""

    def __init__(self, passage: Passage) -> None:
        self.passed = 0
        """Bytes that have gone on."""
        self.delay = 0.0
        """Seconds for which each piece is kept back."""
        self.drips = False
        """Whether each byte goes in a packet of its own."""
        self.swallows = False
        """Whether everything is read and nothing goes on: a black hole."""
        self._passage = passage
        self._cut: tuple[int, How] | None = None
        self._gate = trio.Event()
        self._gate.set()
        self._moved = trio.Event()

    def hold(self) -> None:
        """Pass nothing until `let_go`."""
        self._gate = trio.Event()

    def let_go(self) -> None:
        self._gate.set()

    def cut_after(self, count: int, how: How) -> None:
        """End the connection in this way once `count` bytes have passed, and not one more."""
        self._cut = count, how

    async def wait_passed(self, count: int) -> None:
        """Wait until `count` bytes have gone on."""
        with trio.fail_after(_PATIENCE):
            while self.passed < count:
                await self._moved.wait()

    async def run(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            await self._cut_if_due()
            async for data in source:
                await self._pass(bytes(data), sink)
            await self._gate.wait()
            if not self.swallows:
                await sink.send_eof()
        except trio.BrokenResourceError:
            self._passage.end("reset")  # one side is reset: so is the other
        except trio.ClosedResourceError:
            pass

    async def _pass(self, data: bytes, sink: trio.SocketStream) -> None:
        await self._gate.wait()
        if self.delay:
            await trio.sleep(self.delay)
        if self._cut is not None:
            data = data[: max(0, self._cut[0] - self.passed)]
        if not self.swallows:
            for piece in _split(data) if self.drips else [data]:
                await sink.send_all(piece)
        self.passed += len(data)
        self._moved.set()
        self._moved = trio.Event()
        await self._cut_if_due()

    async def _cut_if_due(self) -> None:
        if self._cut is not None and self.passed >= self._cut[0]:
            how = self._cut[1]
            self._passage.end(how)
            if how in {"silence", "half-close"}:
                await trio.sleep_forever()


def _split(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


@final
class Passage:
    """One connection through the proxy: `up` to the server, `down` to the client."""

    def __init__(self, client: trio.SocketStream) -> None:
        self.up = Way(self)
        self.down = Way(self)
        self.greeting = b""
        """What the client gets before anything of the server's."""
        self.client = client
        self.server: trio.SocketStream | None = None
        self.over = trio.Event()

    def black_hole(self) -> None:
        """Let nothing through any more, in neither direction."""
        self.up.swallows = self.down.swallows = True

    async def inject(self, data: bytes) -> None:
        """Send the client something of the proxy's own, now."""
        await self.client.send_all(data)

    def end(self, how: How) -> None:
        """End the connection, now."""
        if how == "silence":
            return
        if how == "half-close":
            self.client.socket.shutdown(socket.SHUT_WR)
            return
        for stream in (self.client, self.server):
            if stream is not None and stream.socket.fileno() >= 0:
                close_stream(stream, "reset" if how == "reset" else "close")
        self.over.set()

    async def run(self, target: tuple[str, int]) -> None:
        with self.client.socket:
            if self.greeting:
                await self.client.send_all(self.greeting)
            try:
                self.server = await trio.open_tcp_stream(*target)
            except OSError:
                self.end("reset")
                return
            with self.server.socket:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.up.run, self.client, self.server)
                    nursery.start_soon(self.down.run, self.server, self.client)
        self.over.set()


@final
class FaultyProxy:
    """Accepts on a port of its own, until it refuses; `start_proxy` makes one."""

    def __init__(self, nursery: trio.Nursery, target_port: int) -> None:
        self.target = (LOOPBACK, target_port)
        self.passages: list[Passage] = []
        """All connections there ever were, in the order in which they came."""
        self.prepare: Callable[[Passage], object] = lambda _: None
        """Called with each new connection before its first byte."""
        self.port = 0
        self._nursery = nursery
        self._came = trio.Event()
        self._accepting: trio.CancelScope | None = None
        self._bound = _bind(0)
        self.port = self._bound.getsockname()[1]

    async def accept(self) -> None:
        """Listen, and accept whoever comes."""
        assert self._accepting is None, "it accepts already"
        self._accepting = await self._nursery.start(self._accept)

    def refuse(self) -> None:
        """Refuse connections from now on; those there are stay. The port stays taken."""
        assert self._accepting is not None, "it refuses already"
        self._accepting.cancel()
        self._accepting = None
        self._bound.close()
        self._bound = _bind(self.port)

    async def wait_passages(self, count: int) -> Passage:
        """Wait until there have been `count` connections, and return the newest."""
        with trio.fail_after(_PATIENCE):
            while len(self.passages) < count:
                await self._came.wait()
        return self.passages[-1]

    def end_all(self, how: How) -> None:
        """End every connection there is."""
        for passage in self.passages:
            passage.end(how)

    def close(self) -> None:
        self._bound.close()

    async def _accept(self, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        bound = self._bound
        bound.listen(1024)
        with trio.CancelScope() as scope:
            task_status.started(scope)
            while True:
                try:
                    sock, _ = await bound.accept()
                except (OSError, trio.ClosedResourceError):
                    if scope.cancel_called:  # `refuse` has closed it amid an accept
                        return
                    raise
                passage = Passage(trio.SocketStream(sock))
                self.prepare(passage)
                self.passages.append(passage)
                self._nursery.start_soon(passage.run, self.target)
                self._came.set()
                self._came = trio.Event()


async def start_proxy(nursery: trio.Nursery, target_port: int) -> FaultyProxy:
    """Run a proxy in `nursery`; it ends, with all its connections, when that is cancelled."""
    proxy = FaultyProxy(nursery, target_port)

    async def close_at_the_end(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            proxy.close()

    await nursery.start(close_at_the_end)
    await proxy.accept()
    return proxy


def close_stream(stream: trio.SocketStream, how: Literal["close", "reset"]) -> None:
    """Close `stream` without waiting: with FIN, or with RST whatever is unread or unsent."""
    if how == "reset":
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def fill(stream: trio.SocketStream) -> None:
    """Send until not a byte more can be, since the peer does not read."""
    with socket.socket(fileno=os.dup(stream.socket.fileno())) as sock:
        sock.setblocking(False)
        while _send_all_it_takes(sock):  # noqa: ASYNC110 - nothing tells that it is full for good
            await trio.sleep(0.1)  # an acknowledgement, delayed by 40 ms, may still make room


def _send_all_it_takes(sock: socket.socket) -> int:
    sent = 0
    for size in (100_000, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += sock.send(bytes(size))
    return sent


def _bind(port: int) -> trio.socket.SocketType:
    """A socket on `port` that does not listen, so that whoever connects is refused."""
    sock = socket.socket()
    # The connections that were accepted on the port hold it too.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((LOOPBACK, port))
    return trio.socket.from_stdlib_socket(sock)
