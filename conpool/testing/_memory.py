"""Connections in memory, to a coroutine instead of a server.

A connector has no nursery, and its server must not die with the task that happened to dial. So each
server runs in a system task of trio's, which ends with the run at the latest. What such a task
raises would take the whole run down; here it is what a crash of a server is to its clients: the
connection ends, and the error is logged and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TypeAlias, cast

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from conpool._extend.connector import Connector
from conpool._values.endpoint import AnyEndpoint
from conpool._values.validation import valid_seconds

_logger = logging.getLogger("conpool.testing")

_MemoryStream: TypeAlias = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


class MemoryConnector(Connector):
    """Connects to coroutines in memory: no sockets, so `trio.testing.MockClock` applies.

    The client's end is a `trio.StapledStream`. `serve` runs in a task of its own with the server's
    end; when it returns or raises, that end is closed. When both halves of the client's end are
    closed, `serve` is cancelled: where it waits to receive it gets the end of file first, and the
    cancellation at its next checkpoint.

    Example:
        >>> async def echo(stream: trio.abc.Stream) -> None:
        ...     async for data in stream:
        ...         await stream.send_all(data)
        >>> async def main() -> None:
        ...     connector = MemoryConnector(echo)
        ...     stream = await connector.connect(Endpoint("echo.example", 7))
        ...     async with stream:
        ...         await stream.send_all(b"hello")
        ...         print(await stream.receive_some(), connector.live)
        ...     print(connector.live)
        >>> from conpool import Endpoint
        >>> trio.run(main)
        bytearray(b'hello') 1
        0
    """

    def __init__(
        self, serve: Callable[[trio.abc.Stream], Awaitable[object]], *, delay: float = 0.0
    ) -> None:
        """Connect to what `serve` makes of the server's end of each new stream.

        Args:
            serve: One connection's server. It gets the server's end of the stream.
            delay: How long `connect` takes, in seconds on trio's clock; `math.inf` never connects.

        Raises:
            ConfigError: `delay` is negative or no number.
        """
        self._serve = serve
        self._delay = valid_seconds("delay", delay, positive=False)
        self._live = 0
        self._errors: list[Exception] = []

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        """Start a server and return the client's end, `delay` seconds from now.

        Cancelling it leaves nothing behind: the server starts when the delay is over.
        """
        await trio.sleep(self._delay)
        client, server = memory_stream_pair()
        server_life = trio.CancelScope()
        _when_closed(client, partial(self._client_closed, server_life))
        self._live += 1
        trio.lowlevel.spawn_system_task(
            self._run_server, server, server_life, name=f"memory server of {endpoint}"
        )
        return client

    @property
    def live(self) -> int:
        """How many client ends are open, or half open."""
        return self._live

    @property
    def errors(self) -> tuple[Exception, ...]:
        """What `serve` raised, but for what any server sees once its client is gone."""
        return tuple(self._errors)

    def __repr__(self) -> str:
        return f"<MemoryConnector, {self._live} live, {len(self._errors)} errors>"

    def _client_closed(self, server_life: trio.CancelScope) -> None:
        self._live -= 1
        server_life.cancel()

    async def _run_server(self, stream: _MemoryStream, life: trio.CancelScope) -> None:
        try:
            with life:
                await self._serve(stream)
        except* Exception as crash:  # noqa: BLE001 - what a server may raise is anybody's guess
            for error in _leaves(crash):
                self._note_crash(error, client_gone=life.cancel_called)
        finally:
            _close(stream)

    def _note_crash(self, error: Exception, *, client_gone: bool) -> None:
        if client_gone and isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
            return  # what any server sees then
        self._errors.append(error)
        _logger.error("a memory server crashed", exc_info=error)


def _when_closed(stream: _MemoryStream, report: Callable[[], None]) -> None:
    """Call `report` once, as soon as both halves are closed, in whatever way."""
    halves = (stream.send_stream, stream.receive_stream)
    still_open = set(halves)

    def half_closed(
        half: MemorySendStream | MemoryReceiveStream, also: Callable[[], object] | None
    ) -> None:
        if also is not None:
            also()  # the pump that tells the other end
        if half in still_open:
            still_open.remove(half)
            if not still_open:
                report()

    for half in halves:
        half.close_hook = partial(half_closed, half, half.close_hook)


def _close(stream: _MemoryStream) -> None:
    stream.send_stream.close()
    stream.receive_stream.close()


def _leaves(error: Exception) -> Iterator[Exception]:
    """What is inside a group, of groups perhaps."""
    if isinstance(error, ExceptionGroup):
        for inner in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error
