"""Closes a stream in one of two ways: at once and by force, or gracefully within a time limit."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
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
        except Exception:  # noqa: BLE001 - a stream of the user's own may raise anything
            _log.exception("closing %r by force failed", stream)
    return True


async def close_gracefully(
    stream: trio.abc.AsyncResource,
    timeout: float,
    goodbye: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Close `stream` after `goodbye` to the peer, which takes at most `timeout` seconds.

    It returns in any case, and is not cancelled: what the goodbye raises is logged, and the
    stream is closed all the same.
    """
    is_closed = False
    try:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout):
            if goodbye is not None:
                await _say(goodbye, stream)
            await stream.aclose()
        is_closed = True
    except trio.BrokenResourceError:
        is_closed = True
    except Exception:  # noqa: BLE001 - a stream of the user's own may raise anything
        _log.exception("closing %r failed", stream)
    finally:
        if not try_close_now(stream) and not is_closed:
            # The error may have come before the stream did anything.
            with suppress(Exception), trio.CancelScope(shield=True) as scope:
                scope.cancel()
                await stream.aclose()


async def close_now(stream: trio.abc.AsyncResource) -> None:
    """Close a stream by force, at once if that is possible."""
    is_closed = False
    try:
        is_closed = try_close_now(stream)
    finally:
        if not is_closed and hasattr(stream, "aclose"):
            await close_by_force(stream)  # noqa: ASYNC102 - shields and bounds itself


async def _say(goodbye: Callable[[], Awaitable[object]], stream: trio.abc.AsyncResource) -> None:
    try:
        await goodbye()
    except Exception:  # noqa: BLE001 - a driver of the user's own may raise anything
        _log.debug("the goodbye of %r failed", stream, exc_info=True)


async def close_by_force(
    stream: trio.abc.AsyncResource,
    timeout: float = 0.0,
    stop: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Close a stream that only an await can close, and give its goodbye no time.

    Before that, `stop` has `timeout` seconds, in which nothing else can cancel it.
    """
    try:
        if stop is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout):
                await _say(stop, stream)
    except Exception:  # noqa: BLE001 - what `stop` raised as its time was up
        _log.debug("the goodbye of %r failed", stream, exc_info=True)
    finally:
        await close_gracefully(stream, 0.0)  # noqa: ASYNC102 - shields and bounds itself
