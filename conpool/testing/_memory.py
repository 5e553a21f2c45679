"""Connections in memory, to a coroutine instead of a server.

A connector has no nursery, and a server must not die with the task that dialled it. So each server
runs in a system task of trio, which ends with the run at the latest. An exception in a system task
would end the whole run. So we catch what a server raises, log it and keep it; to the client the
connection ends, as if the server had crashed.
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
    end, which is closed when `serve` returns or raises. When the client has closed both halves of
    its end, `serve` is cancelled. If it waits to receive, it first gets the end of file, and the
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
        """Connect each stream to a server of its own.

        Args:
            serve: Serves one connection; it gets the server's end of the stream.
            delay: How long `connect` takes, in seconds on trio's clock; `math.inf` never connects.

        Raises:
            ConfigError: `delay` is negative or not a number.
        """
        self._serve = serve
        self._delay = valid_seconds("delay", delay, positive=False)
        self._live = 0
        self._errors: list[Exception] = []

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        """Wait `delay` seconds, start a server, and return the client's end.

        Cancelling it leaves nothing behind.
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
        """How many client's ends are open, or half open."""
        return self._live

    @property
    def errors(self) -> tuple[Exception, ...]:
        """What `serve` raised, except the errors of a stream whose client had gone."""
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
        except* Exception as crash:  # noqa: BLE001 - a user's server may raise anything
            for error in _leaves(crash):
                self._note_crash(error, client_gone=life.cancel_called)
        finally:
            _close(stream)

    def _note_crash(self, error: Exception, *, client_gone: bool) -> None:
        if client_gone and isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
            return  # any server gets these then
        self._errors.append(error)
        _logger.error("a memory server crashed", exc_info=error)


def _when_closed(stream: _MemoryStream, report: Callable[[], None]) -> None:
    """Call `report` once, as soon as both halves are closed."""
    halves = (stream.send_stream, stream.receive_stream)
    still_open = set(halves)

    def half_closed(
        half: MemorySendStream | MemoryReceiveStream, also: Callable[[], object] | None
    ) -> None:
        if also is not None:
            also()  # trio's own hook, which tells the other end
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
    """Find the errors in a group of groups, or yield the error itself."""
    if isinstance(error, ExceptionGroup):
        for inner in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error
