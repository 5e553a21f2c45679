"""Closes a stream in one of two ways: at once and by force, or gracefully within a time limit."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

import trio

from conpool._errors.pool_log import NO_LOG, PoolLog


def try_close_now(stream: trio.abc.AsyncResource, log: PoolLog = NO_LOG) -> bool:
    """Close `stream` by force, without awaiting; return False if only an await can close it.

    A task that is inside an operation of the stream gets `trio.ClosedResourceError`.
    """
    if isinstance(stream, trio.SocketStream):
        stream.socket.close()
        return True
    if isinstance(stream, trio.SSLStream):
        inner = cast("trio.SSLStream[trio.abc.Stream]", stream).transport_stream
        return try_close_now(inner, log)
    if isinstance(stream, trio.StapledStream):
        halves = cast("trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]", stream)
        send_closed = try_close_now(halves.send_stream, log)
        return try_close_now(halves.receive_stream, log) and send_closed
    close = getattr(stream, "close", None)
    if not callable(close) or inspect.iscoroutinefunction(close):
        return False
    for _ in range(2):  # the first error may have come before the stream did anything
        try:
            close()
            break
        except Exception as error:  # noqa: BLE001 - a stream of the user's own may raise anything
            log.failed("closing %r by force failed", stream, error=error)
    return True


async def close_gracefully(
    stream: trio.abc.AsyncResource,
    timeout: float,
    goodbye: Callable[[], Awaitable[object]] | None = None,
    log: PoolLog = NO_LOG,
) -> None:
    """Close `stream` after `goodbye` to the peer, which takes at most `timeout` seconds.

    It returns in any case, and is not cancelled: what the goodbye raises is logged, and the
    stream is closed all the same.
    """
    is_closed = False
    try:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout) as scope:
            if goodbye is not None:
                await _say(goodbye, stream, log)
            await stream.aclose()
        is_closed = True
        if scope.cancelled_caught and timeout:
            log.note("%r is closed by force: its goodbye takes longer than %g s", stream, timeout)
    except trio.BrokenResourceError:
        is_closed = True
    except Exception as error:  # noqa: BLE001 - a stream of the user's own may raise anything
        log.failed("closing %r failed", stream, error=error)
    finally:
        if not try_close_now(stream, log) and not is_closed:
            # The error may have come before the stream did anything.
            with suppress(Exception), trio.CancelScope(shield=True) as last:
                last.cancel()
                await stream.aclose()


async def close_now(stream: trio.abc.AsyncResource, log: PoolLog = NO_LOG) -> None:
    """Close a stream by force, at once if that is possible."""
    is_closed = False
    try:
        is_closed = try_close_now(stream, log)
    finally:
        if not is_closed and hasattr(stream, "aclose"):
            await close_by_force(stream, log=log)  # noqa: ASYNC102 - shields and bounds itself


async def _say(
    goodbye: Callable[[], Awaitable[object]], stream: trio.abc.AsyncResource, log: PoolLog
) -> None:
    try:
        await goodbye()
    except Exception as error:  # noqa: BLE001 - a driver of the user's own may raise anything
        log.gone_wrong("the goodbye of %r failed", stream, error=error)


async def close_by_force(
    stream: trio.abc.AsyncResource,
    timeout: float = 0.0,
    stop: Callable[[], Awaitable[object]] | None = None,
    log: PoolLog = NO_LOG,
) -> None:
    """Close a stream that only an await can close, and give its goodbye no time.

    Before that, `stop` has `timeout` seconds, in which nothing else can cancel it.
    """
    try:
        if stop is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout):
                await _say(stop, stream, log)
    except Exception as error:  # noqa: BLE001 - what `stop` raised as its time was up
        log.gone_wrong("the goodbye of %r failed", stream, error=error)
    finally:
        await close_gracefully(stream, 0.0, log=log)  # noqa: ASYNC102 - shields and bounds itself
