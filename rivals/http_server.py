"""An HTTP server in a thread of its own, so that pools on trio and pools on asyncio can use it.

    GET /now/7     7, at once
    GET /held/7    7, when the gate opens
    GET /half/77   the head and half the body at once, the rest a moment later

On a second port it accepts and never says anything: a TLS handshake there hangs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, final

import trio

_LOOPBACK_HOSTS: Final = "0.0.0.0"  # all of 127.0.0.0/8 leads here: many hosts, one server
_STALE: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n9999"
_A_MOMENT: Final = 0.1


@final
class HTTPServer:
    """Serves for the length of a `with` block."""

    def __init__(self) -> None:
        self.port = 0
        self.silent_port = 0
        self.held = 0
        """Requests that wait at the gate."""
        self._streams: set[trio.SocketStream] = set()
        self._gate = trio.Event()
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=trio.run, args=(self._run,), name="the rivals' server"
        )

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()

    def open_gate(self) -> None:
        """Answer the requests that wait at the gate. Later ones wait there again."""
        self._call(self._open_gate)

    def speak_unasked(self) -> None:
        """Send every client an answer that it did not ask for."""
        self._call(self._speak)

    def _call(self, what: Callable[[], None]) -> None:
        done = threading.Event()

        def call() -> None:
            what()
            done.set()

        self._token.run_sync_soon(call)
        done.wait()

    def _open_gate(self) -> None:
        gate, self._gate = self._gate, trio.Event()
        gate.set()

    def _speak(self) -> None:
        for stream in self._streams:
            os.write(stream.socket.fileno(), _STALE)

    async def _run(self) -> None:
        listeners = await trio.open_tcp_listeners(0, host=_LOOPBACK_HOSTS)
        silent = await trio.open_tcp_listeners(0, host=_LOOPBACK_HOSTS)
        self.port = listeners[0].socket.getsockname()[1]
        self.silent_port = silent[0].socket.getsockname()[1]
        self._token = trio.lowlevel.current_trio_token()
        self._ready.set()
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._serve, listeners)
                nursery.start_soon(trio.serve_listeners, _say_nothing, silent)

    async def _serve(self, stream: trio.SocketStream) -> None:
        self._streams.add(stream)
        try:
            pending = b""
            async for data in stream:
                *requests, pending = (pending + bytes(data)).split(b"\r\n\r\n")
                for request in requests:
                    await self._answer(stream, request)
        except trio.BrokenResourceError:
            pass  # clients hang up in mid-answer in many cases
        finally:
            self._streams.discard(stream)

    async def _answer(self, stream: trio.SocketStream, request: bytes) -> None:
        _, how, number = request.split(b" ")[1].split(b"/")
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(number), number)
        if how == b"held":
            self.held += 1
            try:
                await self._gate.wait()
            finally:
                self.held -= 1
        elif how == b"half":
            await stream.send_all(reply[:-1])
            await trio.sleep(_A_MOMENT)
            reply = reply[-1:]
        await stream.send_all(reply)


async def _say_nothing(stream: trio.SocketStream) -> None:
    try:
        async for _ in stream:
            pass
    except trio.BrokenResourceError:
        pass
