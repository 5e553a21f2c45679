"""An echo server in the same process, plain or over TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

HOST = "127.0.0.1"


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Echo on a free port for the length of the block; yield the port."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, partial(_echo, tls), 0, host=HOST, backlog=4096)
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def _echo(tls: ssl.SSLContext | None, raw: trio.SocketStream) -> None:
    stream = raw if tls is None else trio.SSLStream(raw, tls, server_side=True)
    try:
        async for data in stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # the benchmark hangs up without a goodbye
