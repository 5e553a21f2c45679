"""One HTTP/2 exchange: a stream of a connection that others share.

It moves no bytes itself: it changes the state of the `Multiplex`, and waits until its stream is
woken. Its lease ends with the answer; the connection serves the others whatever becomes of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NoReturn, final

import h2.errors
import h2.exceptions
import trio

from conpool._lending.lease import Connection
from conpool._pool.pool import ConnectionPool
from conpool.contrib._http.multiplex import ConnectionFailed, Multiplex, Stream
from conpool.contrib._http.network import NetworkStream
from conpool.contrib._http.outgoing import Answer, Gone, Outgoing, Unprocessed

_NOT_SENT: Final = frozenset(
    {b"host", b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"""What HTTP/2 says in another way, or not at all (RFC 9113, section 8.2.2)."""


@final
class SharedExchange:
    """One request and its answer, over a lease of a shared connection."""

    trace_name: str = "http2"

    def __init__(
        self, lib: Any, pool: ConnectionPool[Any], conn: Connection[Any], outgoing: Outgoing
    ) -> None:
        self._lib = lib
        self._pool = pool
        self._conn = conn
        self._out = outgoing
        self._session: Multiplex = conn.session
        self._stream: Stream | None = None
        self._has_body = outgoing.has_body
        self._is_body_sent = not self._has_body
        self._is_over = False

    async def start(self) -> Answer:
        """Send the request, and return the head of the answer; see `PlainExchange.start`."""
        out = self._out
        try:
            stream = await out.traced("http2.send_request_headers", self._open)
            if self._has_body:
                await out.traced("http2.send_request_body", partial(self._upload, stream))
            head = await out.traced(
                "http2.receive_response_headers", partial(self._read_head, stream)
            )
        except BaseException:
            self._end()
            raise
        extensions = {
            "http_version": b"HTTP/2",
            "network_stream": NetworkStream(self._lib, self._conn),
            "stream_id": stream.number,
        }
        status = int(head[0][1])
        if stream.ended and not stream.unread:
            self._end()
        return Answer(status, [pair for pair in head if pair[0][:1] != b":"], extensions)

    async def _open(self) -> Stream:
        headers = self._headers()
        deadline = trio.current_time() + self._out.pool_timeout
        while True:
            self._raise_if_failed()
            if self._session.is_leaving:
                error = self._lib.RemoteProtocolError("the server takes no more requests")
                raise Unprocessed(error)
            try:
                stream = self._session.try_open(headers, ends=self._is_body_sent)
            except h2.exceptions.ProtocolError as error:
                raise self._lib.LocalProtocolError(str(error)) from error
            if stream is not None:
                self._stream = stream
                return stream
            # The server has lowered its limit since the pool counted on it.
            await self._until(deadline, self._session.wait_moved, self._lib.PoolTimeout)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        out = self._out
        url = out.request.url
        pairs = [(name.lower(), value) for name, value in out.headers]
        authority = next((value for name, value in pairs if name == b"host"), url.netloc)
        return [
            (b":method", out.method),
            (b":authority", authority),
            (b":scheme", url.raw_scheme),
            (b":path", out.target),
            *(pair for pair in pairs if pair[0] not in _NOT_SENT),
        ]

    # ── the request's body ──────────────────────────────────────────────────────

    async def _upload(self, stream: Stream) -> None:
        """Send the body, unless the answer comes first and makes it useless."""
        body = self._out.whole_body
        assert stream.uploading is not None
        with stream.uploading:
            if body is not None:
                await self._send(stream, body)
            else:
                async with self._out.pieces() as pieces:
                    async for piece in pieces:
                        await self._send(stream, piece)
            if stream.reset_code is None and self._session.failure is None:
                self._session.end_body(stream)
                self._is_body_sent = True

    async def _send(self, stream: Stream, data: bytes) -> None:
        left = memoryview(data)
        deadline = trio.current_time() + self._out.write_timeout
        while left:
            if stream.reset_code is not None or self._session.failure is not None:
                return
            try:
                sent = self._session.try_send(stream, left)
            except h2.exceptions.ProtocolError as error:
                raise self._lib.LocalProtocolError(str(error)) from error
            if sent:
                left = left[sent:]
                deadline = trio.current_time() + self._out.write_timeout
            else:
                await self._until(deadline, self._session.wait_moved, self._lib.WriteTimeout)
        await trio.lowlevel.checkpoint()

    # ── the answer ──────────────────────────────────────────────────────────────

    async def _read_head(self, stream: Stream) -> list[tuple[bytes, bytes]]:
        deadline = trio.current_time() + self._out.read_timeout
        while stream.head is None:
            if stream.is_unprocessed:
                raise Unprocessed(self._lib.RemoteProtocolError("the server refused the request"))
            self._raise_if_reset(stream)
            self._raise_if_failed()
            await self._until(deadline, stream.wait, self._lib.ReadTimeout)
        return stream.head

    async def read(self) -> bytes | None:
        """Return the next piece of the answer's body; None at its end, where the lease ends."""
        stream = self._stream
        if self._is_over or stream is None:
            return None
        try:
            deadline = trio.current_time() + self._out.read_timeout
            while not stream.unread:
                if stream.ended:
                    self._end()
                    return None
                self._raise_if_reset(stream)
                self._raise_if_failed()
                self._session.give_credit(stream)  # padding alone
                await self._until(deadline, stream.wait, self._lib.ReadTimeout)
        except BaseException:
            self._end()
            raise
        piece = bytes(stream.unread)
        stream.unread = bytearray()
        self._session.give_credit(stream)
        if stream.ended:
            self._end()
        return piece

    async def _until(
        self, deadline: float, wait: Callable[[], Awaitable[None]], late: Callable[[str], Exception]
    ) -> None:
        """Wait once; what others do may wake us, too, and must not put our deadline off."""
        with trio.CancelScope(deadline=deadline) as scope:
            await wait()
        if scope.cancelled_caught:
            raise late("the server did nothing in time")

    def _raise_if_reset(self, stream: Stream) -> None:
        if stream.reset_code is not None:
            code = stream.reset_code
            known = code in {int(each) for each in h2.errors.ErrorCodes}
            name = h2.errors.ErrorCodes(code).name if known else str(code)
            raise self._lib.RemoteProtocolError(f"the server has reset the stream: {name}")

    def _raise_if_failed(self) -> None:
        failure = self._session.failure
        if failure is not None:
            self._raise_failed(failure)

    def _raise_failed(self, failure: ConnectionFailed) -> NoReturn:
        kind = self._lib.RemoteProtocolError if failure.is_violation else self._lib.ReadError
        error = kind(str(failure))
        has_answer = self._stream is not None and self._stream.head is not None
        if has_answer or failure.is_violation:
            raise error from failure
        raise Gone(error) from failure

    # ── the end ─────────────────────────────────────────────────────────────────

    async def close(self) -> None:
        """End the lease; the server is told to stop, if the answer has not been read."""
        self._end()
        await trio.lowlevel.checkpoint()

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        stream = self._stream
        if stream is not None:
            is_complete = stream.ended and self._is_body_sent
            self._session.leave(stream, is_complete=is_complete)
        self._pool.release(self._conn)
