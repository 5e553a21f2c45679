"""An echo server that answers each request with its number, and that often misbehaves.

A request is a line that begins with a number; what follows the number only makes it long. The
answer is the number. Nothing else that has digits is ever sent, so that a number that answers
another request can only have come from an earlier lease.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Final, final

import trio

LOOPBACK: Final = "127.0.0.1"
UNASKED: Final = b"!\n"
"""What is said unasked: when a connection is greeted late, behind an answer, or during idleness."""

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
_LONGEST = 1 << 20

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class _Hangup(Exception):
    """This session ends now."""


@final
class EchoServer:
    """Listens in plain, over TLS and on a UNIX socket; counts its sessions."""

    def __init__(self, random: Random, context: ssl.SSLContext, path: Path) -> None:
        self._random = random
        self._context = context
        self.path = path
        self.port = self.tls_port = 0
        self.sessions = 0
        self.served = 0
        self.has_faults = True

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled. Now and then restart: cut all connections, then refuse them."""
        started = False
        while True:
            with trio.CancelScope() as life:
                async with trio.open_nursery() as nursery:
                    await self._listen(nursery)
                    if not started:
                        task_status.started()
                        started = True
                    await trio.sleep(self._random.uniform(10, 30))
                    life.cancel()
            await trio.sleep(self._random.uniform(0.05, 0.5))

    async def _listen(self, nursery: trio.Nursery) -> None:
        self.port = await _start(nursery, self._serve_plain, self.port)
        self.tls_port = await _start(nursery, self._serve_tls, self.tls_port)
        if hasattr(socket, "AF_UNIX"):
            self.path.unlink(missing_ok=True)
            sock = trio.socket.socket(socket.AF_UNIX)
            await sock.bind(str(self.path))
            sock.listen()
            listener = trio.SocketListener(sock)
            nursery.start_soon(trio.serve_listeners, self._serve_plain, [listener])

    async def _serve_plain(self, stream: trio.SocketStream) -> None:
        await self._serve(stream, stream)

    async def _serve_tls(self, stream: trio.SocketStream) -> None:
        await self._serve(trio.SSLStream(stream, self._context, server_side=True), stream)

    async def _serve(self, stream: Stream, transport: trio.SocketStream) -> None:
        self.sessions += 1
        try:
            with contextlib.suppress(*_GONE, _Hangup):
                await self._greet(stream, transport)
                await self._answer_all(stream, transport)
        finally:
            transport.socket.close()  # a goodbye over TLS could wait for ever
            self.sessions -= 1

    async def _greet(self, stream: Stream, transport: trio.SocketStream) -> None:
        match self._dice(200):
            case 0:
                _reset(transport)
            case 1:
                raise _Hangup
            case 2:
                await trio.sleep(self._random.uniform(0.0, 0.3))  # perhaps before the handshake
            case 3:
                await trio.sleep(self._random.uniform(0.0, 0.05))
                await stream.send_all(UNASKED)
            case _:
                pass

    async def _answer_all(self, stream: Stream, transport: trio.SocketStream) -> None:
        buffer = bytearray()
        patience = self._random.uniform(0.5, 20)
        while True:
            with trio.move_on_after(patience):
                while b"\n" not in buffer:
                    data = await stream.receive_some()
                    if not data or len(buffer) > _LONGEST:
                        return
                    buffer += data
            line, end, rest = buffer.partition(b"\n")
            if not end:
                await self._tire(stream)
                return
            buffer = rest
            await self._answer(stream, transport, bytes(line.split(b" ", 1)[0]) + b"\n")

    async def _tire(self, stream: Stream) -> None:
        """Nothing came for long: leave, with or without a word."""
        if self._dice(2) == 0:
            await stream.send_all(UNASKED)
            await trio.sleep(0.01)

    async def _answer(self, stream: Stream, transport: trio.SocketStream, answer: bytes) -> None:
        self.served += 1
        match self._dice(400):
            case 0:
                _reset(transport)
            case 1:
                raise _Hangup
            case 2:
                await trio.sleep(self._random.uniform(0.01, 0.4))  # a stall
            case 3:
                await stream.send_all(answer + UNASKED)
                return
            case 4:
                await stream.send_all(answer)
                await trio.sleep(self._random.uniform(0.0, 0.01))
                await stream.send_all(UNASKED)
                return
            case 5:
                await stream.send_all(answer)
                raise _Hangup
            case 6:
                half = len(answer) // 2
                await stream.send_all(answer[:half])
                await trio.sleep(0.01)
                answer = answer[half:]
            case number if number < 40:
                await trio.sleep(self._random.uniform(0.0, 0.02))
            case _:
                pass
        await stream.send_all(answer)

    def _dice(self, sides: int) -> int:
        return self._random.randrange(sides) if self.has_faults else sides


async def _start(
    nursery: trio.Nursery, serve: Callable[[trio.SocketStream], Awaitable[object]], port: int
) -> int:
    """Listen on `port`, which was ours before the restart, or on a free one; return it."""
    listeners = await trio.open_tcp_listeners(port, host=LOOPBACK)
    nursery.start_soon(trio.serve_listeners, serve, listeners)
    return int(listeners[0].socket.getsockname()[1])


def _reset(transport: trio.SocketStream) -> None:
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise _Hangup
