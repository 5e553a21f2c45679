"""Closes a stream in one of two ways: at once and by force, or gracefully within a time limit."""

from __future__ import annotations

import inspect
import logging
from typing import cast

import trio

_log = logging.getLogger("conpool")


def try_close_now(stream: trio.abc.AsyncResource) -> bool:
    """Close `stream` by force, without awaiting; return False if only an await can close it.

    A task that is inside an operation of the stream gets `trio.ClosedResourceError`.
    """
    if isinstance(stream, trio.SocketStream):
        stream.socket.close()
        return True
    if isinstance(stream, trio.SSLStream):
        return try_close_now(cast("trio.SSLStream[trio.abc.Stream]", stream).transport_stream)
    if isinstance(stream, trio.StapledStream):
        halves = cast("trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]", stream)
        send_closed = try_close_now(halves.send_stream)
        return try_close_now(halves.receive_stream) and send_closed
    close = getattr(stream, "close", None)
    if not callable(close) or inspect.iscoroutinefunction(close):
        return False
    for _ in range(2):  # the first error may have come before the stream did anything
        try:
            close()
            break
        except Exception:
            _log.exception("closing %r by force failed", stream)
    return True


async def close_gracefully(stream: trio.abc.AsyncResource, timeout: float) -> None:
    """Close `stream` with a goodbye to the peer that takes at most `timeout` seconds.

    It returns in any case, and is not cancelled: what the goodbye raises is logged, and the
    stream is closed all the same.
    """
    is_closed = False
    try:
        is_closed = await _try_close(stream, timeout)
    finally:
        if not is_closed:  # the error may have come before the stream did anything
            await _try_close(stream, 0.0)  # noqa: ASYNC102 - shields and bounds itself
        try_close_now(stream)


async def _try_close(stream: trio.abc.AsyncResource, timeout: float) -> bool:
    """Return whether the stream has been closed without an unexpected error."""
    try:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout):
            await stream.aclose()
    except trio.BrokenResourceError:
        pass
    except Exception:
        _log.exception("closing %r failed", stream)
        return False
    return True


async def close_now(stream: trio.abc.AsyncResource) -> None:
    """Close a stream by force, at once if that is possible."""
    is_closed = False
    try:
        is_closed = try_close_now(stream)
    finally:
        if not is_closed and hasattr(stream, "aclose"):
            await close_by_force(stream)  # noqa: ASYNC102 - shields and bounds itself


async def close_by_force(stream: trio.abc.AsyncResource) -> None:
    """Close a stream that only an await can close, and give its goodbye no time."""
    await close_gracefully(stream, 0.0)
