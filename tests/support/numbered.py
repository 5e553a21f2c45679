"""Servers whose answers say whose they are, behind pairs of sockets and in simulated time.

A request is a number and a semicolon, and so is its answer: whoever gets another's will know. Each
server can be told to be late (then its answers come in two pieces), to hang up, to speak unasked,
to refuse or delay dials. The streams that are open and the dials under way are counted here,
without asking the pool.
"""

from __future__ import annotations

import errno
import math
import socket
from collections import Counter
from typing import TYPE_CHECKING, final

import trio

import conpool

if TYPE_CHECKING:
    from collections.abc import Iterator

UNASKED = b"!"
"""What a server says that was not asked."""


AT_ONCE = b"+"
"""What a request begins with whose answer is to come in one piece, even if the server is late."""


@final
class Peer:
    """One connection, with the server's end of it."""

    def __init__(self, endpoint: conpool.AnyEndpoint, network: Numbered) -> None:
        ours, self._theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self.endpoint = endpoint
        self.client: trio.SocketStream | SlowToClose
        self.client = SlowToClose(stream, network) if network.lingers else stream
        self.server = trio.SocketStream(trio.socket.from_stdlib_socket(self._theirs))
        self.has_hung_up = False
        self._file = stream.socket

    @property
    def is_open(self) -> bool:
        """Whether the client's file is open."""
        return self._file.fileno() != -1

    @property
    def is_closing(self) -> bool:
        """Whether it is being closed, and is not yet."""
        return isinstance(self.client, SlowToClose) and self.client.is_closing and self.is_open

    def hang_up(self, *, half: bool) -> None:
        """End it from the server's side; `half`: say so, and keep the file open."""
        self.has_hung_up = True
        if half:
            self._theirs.shutdown(socket.SHUT_WR)
        else:
            self.server.socket.close()

    def speak(self) -> None:
        """Send what nobody has asked for."""
        self._theirs.send(UNASKED)


@final
class SlowToClose(trio.abc.Stream):
    """Can only be closed by awaiting, and cannot be looked into."""

    def __init__(self, stream: trio.SocketStream, network: Numbered) -> None:
        self.is_closing = False
        self._stream = stream
        self._network = network

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.is_closing = True
        try:
            await trio.sleep(self._network.close_delay)
        finally:
            self._stream.socket.close()


@final
class Numbered(conpool.Connector):
    """Connects to such servers; all of them run in `nursery`."""

    def __init__(self, *, lingers: bool) -> None:
        self.lingers = lingers
        self.nursery: trio.Nursery
        self.close_delay = 0.5
        self.dial_delay: dict[conpool.AnyEndpoint, float] = {}
        self.answer_delay: dict[conpool.AnyEndpoint, float] = {}
        self.refusing: set[conpool.AnyEndpoint] = set()
        self.dialling: Counter[conpool.AnyEndpoint] = Counter()
        self._peers: list[Peer] = []
        self._dials: list[tuple[conpool.AnyEndpoint, float]] = []

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        self.dialling[endpoint] += 1
        since = endpoint, trio.current_time()
        self._dials.append(since)
        try:
            await trio.sleep(self.dial_delay.get(endpoint, 0.0))
            if endpoint in self.refusing:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            peer = Peer(endpoint, self)
            self._peers.append(peer)
            self.nursery.start_soon(self._serve, peer)
            return peer.client
        finally:
            self.dialling[endpoint] -= 1
            self._dials.remove(since)

    def find(self, client: trio.abc.Stream) -> Peer:
        """Return the connection with this end."""
        return next(peer for peer in self._peers if peer.client is client)

    def live(self, endpoint: conpool.AnyEndpoint | None = None) -> Iterator[Peer]:
        """Those whose client's file is open, oldest first."""
        return (peer for peer in self._peers if peer.is_open and endpoint in {None, peer.endpoint})

    def find_oldest_dial(self, endpoint: conpool.AnyEndpoint) -> float:
        """Return when it began."""
        return min((at for where, at in self._dials if where == endpoint), default=math.inf)

    def count(self, endpoint: conpool.AnyEndpoint | None = None) -> int:
        """How many connections there are, those included that are being dialled or closed."""
        dials = self.dialling.total() if endpoint is None else self.dialling[endpoint]
        return dials + sum(1 for _ in self.live(endpoint))

    @property
    def opened(self) -> int:
        """How many connections there ever were."""
        return len(self._peers)

    def be_well(self) -> None:
        """From now on accept everybody, and answer at once."""
        self.refusing.clear()
        self.dial_delay.clear()
        self.answer_delay.clear()

    async def _answer(self, peer: Peer, request: bytes) -> None:
        delay = self.answer_delay.get(peer.endpoint, 0.0)
        await trio.sleep(delay)
        if delay and not request.startswith(AT_ONCE):
            await peer.server.send_all(request)
            await trio.sleep(delay)
            request = b""
        await peer.server.send_all(request + b";")

    async def _serve(self, peer: Peer) -> None:
        rest = b""
        try:
            while data := await peer.server.receive_some():
                *requests, rest = (rest + data).split(b";")
                for request in requests:
                    await self._answer(peer, request)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            peer.server.socket.close()
