"""h11, with the client library's errors in place of its own."""

from __future__ import annotations

from typing import Any, Final, final

import h11

from conpool.contrib._http.outgoing import Outgoing

MAX_HEAD: Final = 102_400
"""Most bytes of the head of an answer, as in httpcore."""


@final
class Talk:
    """What h11 knows of one exchange."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)

    def encode_request(self, outgoing: Outgoing, body: bytes | None) -> bytes:
        """Return the bytes of a request; without `body`, of its head only."""
        try:
            event = h11.Request(
                method=outgoing.method, target=outgoing.target, headers=outgoing.headers
            )
        except h11.LocalProtocolError as error:
            raise self._lib.LocalProtocolError(str(error)) from error
        request = self.encode(event)
        if body is None:
            return request
        if body:
            request += self.encode(h11.Data(data=body))
        return request + self.encode(h11.EndOfMessage())

    def encode(self, event: h11.Event) -> bytes:
        """Return the bytes of `event`."""
        try:
            return self._http.send(event) or b""
        except h11.LocalProtocolError as error:
            raise self._lib.LocalProtocolError(str(error)) from error

    def feed(self, data: bytes | bytearray) -> None:
        """Take what has come; nothing: the stream has ended."""
        try:
            self._http.receive_data(bytes(data))
        except RuntimeError as error:  # it has had the end of the stream
            raise self._lib.RemoteProtocolError(str(error)) from error

    def next_event(self) -> object:
        """Return what has come next, or `h11.NEED_DATA`."""
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise self._lib.RemoteProtocolError(str(error)) from error

    @property
    def surplus(self) -> bytes:
        """What has come behind the answer."""
        return bytes(self._http.trailing_data[0])

    @property
    def is_complete(self) -> bool:
        """Whether both sides are done and wish to go on, and nothing more has come."""
        http = self._http
        are_done = http.our_state is h11.DONE and http.their_state is h11.DONE
        return are_done and not http.trailing_data[0]
