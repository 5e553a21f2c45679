"""The stream of one connection, which notes what an exchange has left undone.

Leases and drivers move all their bytes through it. It notes that an operation was cut short, that
the last thing that moved was sent, or that the write side was closed. The pool can know no more of
a protocol that it does not speak. At the end of a lease these notes are enough to tell whether a
reply may still be on its way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, final

import trio

CUT_SEND: Final = 1
"""A send did not finish: nobody knows how much of it the peer has received."""
CUT_RECEIVE: Final = 2
"""A receive did not finish: the reply that it waited for may still arrive."""
OWED: Final = 4
"""The last thing that moved was sent: the peer may owe an answer."""
HALF_CLOSED: Final = 8
"""The write side is closed."""
VOUCHED: Final = 16
"""The caller has said that the exchange is complete."""
ENDED: Final = 32
"""The peer has ended the stream. A probe may not find it again: TLS says goodbye once."""
ENCRYPTED: Final = 64
"""The caller began TLS on top, and the next caller expects plain text (CVE-2026-4873)."""

JUDGED: Final = 128
"""The driver must be asked at each release. Always set, so that no clean exchange goes unseen."""

SHARED: Final = 256
"""Several leases may share it. Always set, so that the driver is asked at each release."""

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1


@final
class ExchangeStream(trio.abc.HalfCloseableStream):
    """A stream that notes, in `taints`, what speaks against lending its connection again.

    `taints` holds all flags in one integer, so that a single test finds an exchange without any.
    """

    __slots__ = ("has_received", "in_progress", "stream", "taints")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.taints = 0
        self.in_progress = 0
        """How many operations have begun and not ended."""
        self.has_received = False
        """Whether a byte has come since the connection was opened."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not data:
            await self._send_nothing(data)
            return
        self.taints = (self.taints | OWED) & ~VOUCHED
        if data[0] == _HANDSHAKE and _is_client_hello(data):
            self.taints |= ENCRYPTED
        self.in_progress += 1
        try:
            await self.stream.send_all(data)
            # A receive during the send may have cleared it, but that reply cannot answer bytes
            # sent after it: set it again.
            self.taints |= OWED
        except trio.BrokenResourceError:
            self.taints |= CUT_SEND | ENDED
            raise
        except BaseException:
            self.taints |= CUT_SEND
            raise
        finally:
            self.in_progress -= 1

    async def _send_nothing(self, data: bytes | bytearray | memoryview) -> None:
        # It leaves no note. But while it lasts, the next caller could not send.
        self.in_progress += 1
        try:
            await self.stream.send_all(data)
        finally:
            self.in_progress -= 1

    async def wait_send_all_might_not_block(self) -> None:
        self.in_progress += 1
        try:
            await self.stream.wait_send_all_might_not_block()
        finally:
            self.in_progress -= 1

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self.taints &= ~VOUCHED
        self.in_progress += 1
        try:
            data = await self.stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self.taints |= CUT_RECEIVE | ENDED
            raise
        except BaseException:
            self.taints |= CUT_RECEIVE
            raise
        finally:
            self.in_progress -= 1
        if data:
            self.taints &= ~OWED
            self.has_received = True
        else:
            self.taints |= ENDED
        return data

    async def send_eof(self) -> None:
        if not isinstance(self.stream, trio.abc.HalfCloseableStream):
            raise NotImplementedError(
                f"{type(self.stream).__name__} cannot close one direction only"
                " (TLS ends both together)"
            )
        self.taints |= HALF_CLOSED
        await self.stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream beneath. Only code that runs before the first lease calls this."""
        self.taints |= HALF_CLOSED
        await self.stream.aclose()

    def vouch(self) -> None:
        """Forget what a caller may excuse: an owed answer, and a receive that was cut short."""
        self.taints = self.taints & ~(OWED | CUT_RECEIVE) | VOUCHED

    def note_cut_receive(self) -> None:
        """Note that the pool took bytes from the stream and lost them."""
        self.taints |= CUT_RECEIVE

    def cut(self, why: str = "closed by the pool") -> None:
        """Have every later operation raise `trio.ClosedResourceError`, which says `why`."""
        if self.stream is not BROKEN_STREAM:
            self.stream = DeadStream(partial(_cut, why))

    def break_off(self) -> None:
        """Have every later operation raise `trio.BrokenResourceError`."""
        self.stream = BROKEN_STREAM

    def refuse_if_dead(self) -> None:
        """Raise what every operation raises after `cut` or `break_off`."""
        if isinstance(self.stream, DeadStream):
            raise self.stream.make_error()

    def __repr__(self) -> str:
        return f"<ExchangeStream taints={self.taints:#x}, {self.in_progress} in progress>"


def _is_client_hello(data: bytes | bytearray | memoryview) -> bool:
    """Whether a TLS client begins with `data` (RFC 8446, 5.1): type, version, length, message."""
    head = bytes(data[:6])
    return len(head) == 6 and head[1] == 3 and head[5] == _CLIENT_HELLO


@final
class DeadStream(trio.abc.HalfCloseableStream):
    """Stands in for a stream that is gone: each operation raises, closing does nothing."""

    __slots__ = ("make_error",)

    taints: Final = ENDED
    """Nobody can lend what has no stream."""

    def __init__(self, make_error: Callable[[], Exception]) -> None:
        self.make_error = make_error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise self.make_error()

    async def wait_send_all_might_not_block(self) -> None:
        raise self.make_error()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        raise self.make_error()

    async def send_eof(self) -> None:
        raise self.make_error()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def _ended() -> trio.ClosedResourceError:
    return trio.ClosedResourceError(
        "this lease has ended: its holder has given the connection back, discarded or detached it"
    )


def _cut(why: str) -> trio.ClosedResourceError:
    return trio.ClosedResourceError(f"this connection was {why}")


def _broken() -> trio.BrokenResourceError:
    return trio.BrokenResourceError("the companion task of this connection has ended")


CLOSED_STREAM: Final = DeadStream(_ended)
BROKEN_STREAM: Final = DeadStream(_broken)
