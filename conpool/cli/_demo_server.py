"""The demo's server, a small keep-alive HTTP/1.1 server, and a client for it.

The server answers with the number that the client asked for, so that a caller notices a reply that
was meant for another. The path says when the answer comes:

    GET /now/7     at once
    GET /soon/7    after a short pause
    GET /late/7    when `gate` opens
    GET /half/77   the head and half the number at once, the rest when `gate` opens

It runs in the program's own trio loop. Nothing else runs between two turns of that loop, so a task
that looks at every turn sees every state of the server's sockets.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import Final, Literal, TypeAlias, final

import trio

How: TypeAlias = Literal["now", "soon", "late", "half"]

LOOPBACK: Final = "127.0.0.1"

_PAUSE: Final = 0.005
"""Seconds, long enough for a queue to form behind ten connections."""

_END: Final = b"\r\n\r\n"
"""Ends a request, and the head of a reply."""

_REPLY: Final = re.compile(rb"HTTP/1\.1 200 OK\r\nContent-Length: (\d+)\r\n\r\n")


class BadReply(Exception):
    """The bytes that arrived are no reply of this server, or only a part of one."""


@final
class DemoServer:
    """Serves on a free port of 127.0.0.1, and on the same port again after a stop."""

    __slots__ = ("_scope", "_stopped", "_streams", "_tls", "accepted", "gate", "port")

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        self._streams: set[trio.SocketStream] = set()
        self.port = 0
        self.accepted = 0
        self.gate = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` or a cancellation, which closes every connection at once.

        Raises:
            OSError: The server cannot have the port.
        """
        listeners = await trio.open_tcp_listeners(self.port, host=LOOPBACK)
        self.port = listeners[0].socket.getsockname()[1]
        self._stopped = trio.Event()
        try:
            with trio.CancelScope() as self._scope:
                task_status.started()
                await trio.serve_listeners(self._serve, listeners)
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Stop at once, as a killed process would. Cancelling this does not keep the server up."""
        self._scope.cancel()
        await self._stopped.wait()

    def count_clients(self) -> int:
        """Count the connections whose client has not closed its side."""
        return sum(not _is_closed_by_peer(stream) for stream in self._streams)

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.accepted += 1
        self._streams.add(stream)
        try:
            if self._tls is None:
                await self._answer_all(stream)
            else:
                await self._answer_all(trio.SSLStream(stream, self._tls, server_side=True))
        except trio.BrokenResourceError:
            pass  # the client went away in mid-reply, as half of the demo has it do
        finally:
            self._streams.discard(stream)

    async def _answer_all(self, stream: trio.abc.Stream) -> None:
        pending = bytearray()
        while chunk := await stream.receive_some():
            pending += chunk
            while (end := pending.find(_END)) >= 0:
                request = bytes(pending[:end])
                del pending[: end + len(_END)]
                await self._answer(stream, request)

    async def _answer(self, stream: trio.abc.Stream, request: bytes) -> None:
        _, how, number = request.split(b" ")[1].split(b"/")
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(number), number)
        if how == b"soon":
            await trio.sleep(_PAUSE)
        elif how == b"late":
            await self.gate.wait()
        elif how == b"half":
            half = len(reply) - (len(number) + 1) // 2
            await stream.send_all(reply[:half])
            await self.gate.wait()
            reply = reply[half:]
        await stream.send_all(reply)


async def send_request(stream: trio.abc.Stream, number: int, how: How = "now") -> None:
    """Ask for a number. If cancelled, it may have sent only a part of the request."""
    await stream.send_all(f"GET /{how}/{number} HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode())


async def read_answers(stream: trio.abc.Stream) -> list[int]:
    """Read until an answer is complete, and return all answers that arrived: one, if all is well.

    If cancelled, it leaves the rest of the reply unread.

    Raises:
        BadReply: Something else arrived, or the connection ended first.
        trio.BrokenResourceError: The connection broke.
    """
    received = b""
    while True:
        chunk = await stream.receive_some()
        if not chunk:
            raise BadReply(f"the connection ended after {received!r}")
        received += bytes(chunk)
        answers, rest = _split(received)
        if answers and not rest:
            return answers


async def ask(stream: trio.abc.Stream, number: int, how: How = "now") -> list[int]:
    """Call `send_request`, then `read_answers`: `[number]`, if all is well."""
    await send_request(stream, number, how)
    return await read_answers(stream)


def _split(received: bytes) -> tuple[list[int], bytes]:
    """Split the bytes into the complete answers and the rest."""
    answers: list[int] = []
    while head := _REPLY.match(received):
        end = head.end() + int(head[1])
        if len(received) < end:
            break
        answers.append(int(received[head.end() : end]))
        received = received[end:]
    if _END in received and not _REPLY.match(received):
        raise BadReply(f"{received!r} is no reply")
    return answers, received


def _is_closed_by_peer(stream: trio.SocketStream) -> bool:
    # A second descriptor of the same socket, because trio's socket cannot peek without waiting.
    with socket.fromfd(stream.socket.fileno(), socket.AF_INET, socket.SOCK_STREAM) as twin:
        twin.setblocking(False)
        try:
            return twin.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
