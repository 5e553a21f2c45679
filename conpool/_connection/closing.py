"""Two ways to close a stream: by force at once, and with a goodbye that is bounded in time."""

from __future__ import annotations

import inspect
import logging
from typing import cast

import trio

_log = logging.getLogger("conpool")


def try_close_now(stream: trio.abc.AsyncResource) -> bool:
    """Close `stream` by force, without awaiting; return False if it has no way to do that.

    A task that is inside one of its operations gets `trio.ClosedResourceError`.
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
    try:
        close()
    except Exception:  # noqa: BLE001 - whatever a stream of the user's own raises
        _log.exception("closing %r by force failed", stream)
    return True


async def close_gracefully(stream: trio.abc.AsyncResource, timeout: float) -> None:
    """Close `stream` with all due courtesy, but by force after `timeout` seconds.

    Cannot be cancelled, and lasts no longer than that: in the worst case a peer that does not read
    keeps TLS from saying goodbye. Errors on the way are of no interest to anyone.
    """
    try:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout):
            await stream.aclose()
    except trio.BrokenResourceError:
        pass
    except Exception:  # noqa: BLE001 - whatever a stream of the user's own raises
        _log.exception("closing %r failed", stream)
    finally:
        try_close_now(stream)


async def close_by_force(stream: trio.abc.AsyncResource) -> None:
    """Close a stream that can only be closed by awaiting, as fast as it will go."""
    await close_gracefully(stream, 0.0)
