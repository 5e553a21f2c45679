"""One HTTP/1.1 exchange over one lease, with h11 where it is not a simple one.

1. The head of the request, and a short body with it, go out in one piece. A longer body is sent
   piece by piece while another task already reads, since the answer may come before the body ends.
   If both request and answer are simple, h11 is not asked at all.
2. The head of the answer is read. If it refuses the request, the rest of the body is not sent.
3. The body of the answer is read by whoever has the response. With its last byte the lease ends:
   the connection is kept if both sides are done, wish to go on, and nothing more has arrived.
4. A response that is closed early reads on if only little is left; otherwise the connection is
   closed. An exception or a cancellation at any point closes it, too.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Final, NoReturn, TypeAlias, final

import h11
import trio

from conpool._lending.lease import Connection, held_lease
from conpool._pool.pool import ConnectionPool
from conpool._values.states import CloseReason
from conpool.contrib._http.network import NetworkStream
from conpool.contrib._http.outgoing import Answer, Gone, Header, Outgoing, said
from conpool.contrib._http.simple import SimpleAnswer, encode_request, parse_answer
from conpool.contrib._http.talk import Talk

MAX_INTERIM: Final = 32
"""Most interim answers (1xx) to one request: an endless row of them would never time out."""

MAX_DRAINED: Final = 65_536
"""A body of which no more than this is left is read on: cheaper than a new connection."""

DRAIN_TIMEOUT: Final = 0.5
"""Seconds that the close of a response may wait for the rest of its body."""

CONTINUE_TIMEOUT: Final = 1.0
"""Seconds after which the body is sent to a server that ignores `Expect: 100-continue`."""

_READ_SIZE: Final = 65_536

Head: TypeAlias = h11.Response | h11.InformationalResponse


@final
class PlainExchange:
    """One request and its answer, over a lease that is this exchange's own."""

    trace_name: str = "http11"

    def __init__(
        self, lib: Any, pool: ConnectionPool[Any], conn: Connection[Any], outgoing: Outgoing
    ) -> None:
        self._lib = lib
        self._pool = pool
        self._conn = conn
        self._out = outgoing
        self._talk: Talk | None = None
        """None as long as the exchange is a simple one."""
        self._network = NetworkStream(lib, conn)
        self._is_over = False
        self._has_sent = False
        self._has_received = False
        self._pending: bytes | None = None
        """The first piece of the answer's body, if it came along with its head."""
        self._left: float = math.inf
        """How much of the answer's body nobody has read; infinity if nobody knows."""
        self._send_failed: Exception | None = None
        self._reading: trio.CancelScope | None = None
        """The read that goes on; its deadline is set when the request has been sent."""
        self._uploading: trio.CancelScope | None = None
        self._may_send_body: trio.Event | None = None

    # ── until the head of the answer is there ───────────────────────────────────

    async def start(self) -> Answer:
        """Send the request, and return the head of the answer.

        Raises:
            Gone: The connection ended before the first byte of an answer.
            Exception: One of the client library's, or what the request's body has raised.

        After any exception the lease has ended, and the connection is closed.
        """
        try:
            session = self._conn.session
            if session is not None:
                session.is_clean = False
            self._refuse_early_answer()
            simple = await self._exchange_simply()
            if simple is not None:
                return self._make_answer(simple.status, b"1.1", simple.reason, simple.headers)
            talk, head = await self._exchange_heads()
            self._note_framing(talk, head)
        except BaseException:
            self._end(keep=False)
            raise
        pairs = head.headers.raw_items()
        return self._make_answer(head.status_code, head.http_version, head.reason, pairs)

    def _make_answer(
        self, status: int, version: bytes, reason: bytes, headers: list[Header]
    ) -> Answer:
        extensions = {
            "http_version": b"HTTP/" + version,
            "reason_phrase": reason,
            "network_stream": self._network,
        }
        return Answer(status, headers, extensions)

    def _refuse_early_answer(self) -> None:
        # The pool has probed a connection that was idle, but not one that it has just opened.
        if not self._conn.fresh:
            return
        if held_lease(self._conn).entry.link.probe() is CloseReason.UNREAD_DATA:
            raise self._lib.RemoteProtocolError("the server sent an answer before the request")

    async def _exchange_simply(self) -> SimpleAnswer | None:
        """Send a simple request and read a simple answer; None if the rest is h11's to do."""
        out = self._out
        body = out.whole_body
        if body is None or out.trace is not None:
            return None
        request = encode_request(out.method, out.target, out.headers, body)
        if request is None:
            return None
        # One scope for both time-outs: it takes as long as the rest of this function.
        data: bytes | bytearray = b""
        with trio.CancelScope(deadline=trio.current_time() + out.write_timeout) as scope:
            await self._send_all(request)
            scope.deadline = trio.current_time() + out.read_timeout
            self._has_sent = True
            data = await self._receive_some()
        if scope.cancelled_caught:
            raise self._late()
        answer = parse_answer(data)
        if answer is None:
            # h11 goes on where we are: the request has been sent, and `data` has come.
            self._talk = Talk(self._lib)
            self._talk.encode_request(out, body)
            self._talk.feed(data)
            return None
        self._left = answer.length
        self._pending = answer.rest or None
        if not answer.length:
            self._end(keep=not answer.rest)  # what comes behind it answers no request of ours
        return answer

    async def _exchange_heads(self) -> tuple[Talk, Head]:
        out = self._out
        talk = self._talk
        if talk is None:
            talk = self._talk = Talk(self._lib)
            body = out.whole_body
            goes_first = body is None or bool(body and out.awaits_continue)
            request = talk.encode_request(out, None if goes_first else body)
            await out.traced("http11.send_request_headers", partial(self._send, request))
            if goes_first:
                return talk, await self._upload_and_read(talk)
        read = partial(self._read_head, talk)
        return talk, await out.traced("http11.receive_response_headers", read)

    async def _send(self, data: bytes) -> None:
        with trio.CancelScope(deadline=trio.current_time() + self._out.write_timeout) as scope:
            await self._send_all(data)
        if scope.cancelled_caught:
            raise self._lib.WriteTimeout("the server did not take the request in time")
        self._has_sent = True

    async def _send_all(self, data: bytes) -> None:
        try:
            await self._conn.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # The server may have answered before it closed the connection: read on.
            self._send_failed = error

    def _late(self) -> Exception:
        late: Exception
        if self._has_sent:
            late = self._lib.ReadTimeout("the server sent nothing in time")
        else:
            late = self._lib.WriteTimeout("the server did not take the request in time")
        return late

    async def _read_head(self, talk: Talk) -> Head:
        for _ in range(MAX_INTERIM + 1):
            event = await self._next_event(talk)
            if isinstance(event, h11.Response) or (
                isinstance(event, h11.InformationalResponse) and event.status_code == 101
            ):
                return event
            if self._may_send_body is not None:
                self._may_send_body.set()
        raise self._lib.RemoteProtocolError("too many interim answers, and no final one")

    # ── a body that is sent piece by piece ──────────────────────────────────────

    async def _upload_and_read(self, talk: Talk) -> Head:
        """Send the body in this task and read the answer in another."""
        found: list[Head | Exception] = []
        failed: Exception | None = None
        self._may_send_body = trio.Event()
        self._uploading = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._await_answer, talk, found)
            try:
                with self._uploading:
                    await self._out.traced("http11.send_request_body", partial(self._upload, talk))
            except Exception as error:  # noqa: BLE001 - the body is the caller's own
                failed = error
                nursery.cancel_scope.cancel()
            self._uploading = None
            if self._reading is not None:
                self._reading.deadline = trio.current_time() + self._out.read_timeout
        if failed is not None:
            raise failed
        answer = found[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _await_answer(self, talk: Talk, found: list[Head | Exception]) -> None:
        try:
            head = await self._out.traced(
                "http11.receive_response_headers", partial(self._read_head, talk)
            )
            found.append(head)
        except Exception as error:  # noqa: BLE001 - the other task raises it
            found.append(error)
        assert self._may_send_body is not None
        self._may_send_body.set()
        if self._uploading is not None and _makes_body_useless(found[0]):
            self._uploading.cancel()

    async def _upload(self, talk: Talk) -> None:
        assert self._uploading is not None
        if self._out.awaits_continue and self._may_send_body is not None:
            with trio.move_on_after(CONTINUE_TIMEOUT):
                await self._may_send_body.wait()
            await trio.lowlevel.checkpoint_if_cancelled()  # the answer may have been a refusal
        async with self._out.pieces() as pieces:
            async for piece in pieces:
                data = talk.encode(h11.Data(data=piece))
                if data:
                    await self._send(data)
                if self._send_failed is not None:
                    return
        data = talk.encode(h11.EndOfMessage())
        if data:
            await self._send(data)

    # ── reading ─────────────────────────────────────────────────────────────────

    async def _next_event(self, talk: Talk) -> object:
        while True:
            event = talk.next_event()
            if event is not h11.NEED_DATA:
                return event
            talk.feed(await self._receive())

    async def _receive(self) -> bytes | bytearray:
        timeout = math.inf if self._uploading is not None else self._out.read_timeout
        with trio.CancelScope(deadline=trio.current_time() + timeout) as self._reading:
            return await self._receive_some()
        raise self._late()

    async def _receive_some(self) -> bytes | bytearray:
        try:
            data = await self._conn.receive_some(_READ_SIZE)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if not self._has_received:
                self._raise_gone(error)
            raise self._lib.ReadError(said(error)) from error
        if data:
            self._has_received = True
        elif not self._has_received:
            self._raise_gone(self._send_failed)
        return data

    def _raise_gone(self, cause: BaseException | None) -> NoReturn:
        if cause is None:
            error = self._lib.RemoteProtocolError("Server disconnected without sending a response.")
        elif self._send_failed is not None:
            error = self._lib.WriteError(said(self._send_failed))
        else:
            error = self._lib.ReadError(said(cause))
        raise Gone(error) from cause

    def _note_framing(self, talk: Talk, head: Head) -> None:
        """Find out what comes after `head`; if nothing does, the lease ends at once."""
        is_tunnel = self._out.method == b"CONNECT" and 200 <= head.status_code < 300
        if head.status_code == 101 or is_tunnel:
            self._network.take_over(self._conn.detach(), talk.surplus)
            self._is_over = True
            return
        lengths = [value for name, value in head.headers if name == b"content-length"]
        if lengths:
            self._left = int(lengths[0])  # h11 has checked it
        self._pending = self._take(talk.next_event())

    def _take(self, event: object) -> bytes | None:
        """Return what `event` has brought of the body, and end the lease with the body."""
        if isinstance(event, h11.Data):
            self._left -= len(event.data)
            return bytes(event.data)
        if event is not h11.NEED_DATA:  # the end of the message, or PAUSED behind it
            self._end(keep=True)
        return None

    async def read(self) -> bytes | None:
        """Return the next piece of the answer's body; None at its end, with which the lease ends.

        After any exception the connection is closed.
        """
        if self._is_over:
            return None
        try:
            if self._talk is None:
                return await self._read_simply()
            if self._pending is None:
                return self._take(await self._next_event(self._talk))
        except BaseException:
            self._end(keep=False)
            raise
        piece, self._pending = self._pending, None
        return piece

    async def _read_simply(self) -> bytes:
        data = self._pending or await self._receive()
        self._pending = None
        if not data:
            why = f"the server has closed the connection {self._left} bytes before the end"
            raise self._lib.RemoteProtocolError(why)
        self._left -= len(data)
        if self._left > 0:
            return bytes(data)
        whole = len(data) + int(self._left)
        self._end(keep=not self._left)
        return bytes(data[:whole])

    # ── the end ─────────────────────────────────────────────────────────────────

    async def close(self) -> None:
        """End the lease, if the body has not been read to its end.

        However it ends, the lease has ended.
        """
        if self._is_over:
            await self._network.aclose()
            return
        try:
            if self._left <= MAX_DRAINED:
                with trio.move_on_after(DRAIN_TIMEOUT):
                    while not self._is_over:
                        await self.read()
        except (self._lib.TransportError, Gone):
            pass  # nobody wants the rest
        finally:
            self._end(keep=False)

    def _end(self, *, keep: bool) -> None:
        if self._is_over:
            return
        self._is_over = True
        conn = self._conn
        if keep and (self._talk is None or self._talk.is_complete):
            session = conn.session
            if session is not None:
                session.is_clean = True
            if self._may_send_body is not None:
                # The answer may have come before the last send returned; the pool cannot tell.
                conn.mark_clean()
            self._pool.release(conn)
        else:
            self._pool.discard(conn)


def _makes_body_useless(answer: Head | Exception) -> bool:
    return isinstance(answer, Exception) or answer.status_code >= 300
