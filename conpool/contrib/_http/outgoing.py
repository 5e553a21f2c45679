"""A request as the wire needs it: what to send, how long to wait, whether it may be repeated."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar, final

import trio

T = TypeVar("T")

Trace: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[object]]
Header: TypeAlias = tuple[bytes, bytes]

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""RFC 9110, section 9.2.2."""

ONE_PIECE: Final = 65_536
"""A body of at most so many bytes is sent in one piece with its head."""


@final
class Outgoing:
    """One request of the client's, looked at once and sent once or twice."""

    __slots__ = (
        "_is_plain",
        "_lib",
        "body_began",
        "connect_timeout",
        "headers",
        "method",
        "pool_timeout",
        "read_timeout",
        "request",
        "target",
        "trace",
        "write_timeout",
    )

    def __init__(self, lib: Any, request: Any, target: bytes) -> None:
        extensions: Mapping[str, Any] = request.extensions
        timeouts = extensions.get("timeout", {})
        self._lib = lib
        self.request = request
        self.method: bytes = request.method.encode("ascii")
        self.target: bytes = extensions.get("target", target)
        self.headers: list[Header] = request.headers.raw
        self.trace: Trace | None = extensions.get("trace")
        self.pool_timeout = _seconds(timeouts.get("pool"))
        self.connect_timeout = _seconds(timeouts.get("connect"))
        self.read_timeout = _seconds(timeouts.get("read"))
        self.write_timeout = _seconds(timeouts.get("write"))
        self._is_plain = isinstance(request.stream, lib.ByteStream)
        self.body_began = False
        """Whether somebody has begun to read the body, which may not be there a second time."""

    @property
    def whole_body(self) -> bytes | None:
        """The body, if it is in memory and short; None if it must be sent piece by piece."""
        if not self._is_plain:
            return None
        body: bytes = self.request.content
        return body if len(body) <= ONE_PIECE else None

    @property
    def has_body(self) -> bool:
        """Whether the head says that a body follows."""
        headers = self.request.headers
        return "content-length" in headers or "transfer-encoding" in headers

    @property
    def awaits_continue(self) -> bool:
        """Whether the server should agree before the body is sent."""
        return self.has_body and self.request.headers.get("expect", "").lower() == "100-continue"

    @property
    def can_resend(self) -> bool:
        """Whether the body is still there in full."""
        return self._is_plain or not self.body_began

    @property
    def may_repeat(self) -> bool:
        """Whether it does no harm if the server gets the request a second time."""
        return self.method in IDEMPOTENT and self.can_resend

    @asynccontextmanager
    async def pieces(self) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Read the body; what reads it is closed at the end of the block."""
        self.body_began = True
        iterator = aiter(self.request.stream)
        try:
            yield iterator
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()  # noqa: ASYNC102 - the caller's own generator; a cancellation may end it

    async def traced(self, name: str, step: Callable[[], Awaitable[T]]) -> T:
        """Do one step of the exchange, and tell the request's `trace` of it, if it has one."""
        trace = self.trace
        if trace is None:
            return await step()
        await trace(f"{name}.started", {"request": self.request})
        try:
            result = await step()
        except BaseException as error:
            with trio.CancelScope(shield=True):  # as long as the caller's own function takes
                await trace(f"{name}.failed", {"exception": error})
            raise
        await trace(f"{name}.complete", {"return_value": result})
        return result


def _seconds(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout


class Answer(NamedTuple):
    """The head of an answer, as the client library's `Response` takes it."""

    status: int
    headers: list[Header]
    extensions: dict[str, Any]


class Exchange(Protocol):
    """One request and its answer, whatever the protocol."""

    @property
    def trace_name(self) -> str:
        """The protocol's name in the events that a `trace` hears of."""
        ...

    async def start(self) -> Answer:
        """Send the request, and return the head of the answer."""
        ...

    async def read(self) -> bytes | None:
        """Return the next piece of the answer's body; None at its end."""
        ...

    async def close(self) -> None:
        """End the lease, if the body has not been read to its end."""
        ...


@final
class PlainSession:
    """HTTP/1.1 on a connection of a pool that also speaks HTTP/2."""

    __slots__ = ("is_clean",)

    def __init__(self) -> None:
        self.is_clean: bool = True
        """Whether no exchange is half done."""


class Gone(Exception):
    """The connection ended before the first byte of an answer: the request may be sent again."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
        """What the caller gets if the request is not sent again."""


class Unprocessed(Gone):
    """The peer has said that it has done nothing about the request: it may always be sent again."""


def said(error: BaseException) -> str:
    """Return the text of an error; trio's often have none, but a cause that does."""
    return str(error) or str(error.__cause__ or "") or type(error).__name__
