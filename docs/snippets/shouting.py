"""A server to talk to: it sends back in capitals what it receives, `delay` seconds later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

import conpool


@asynccontextmanager
async def shouting_server(delay: float = 0) -> AsyncIterator[conpool.Endpoint]:
    async def shout(stream: trio.SocketStream) -> None:
        async for chunk in stream:
            await trio.sleep(delay)
            await stream.send_all(bytes(chunk).upper())

    async def quietly(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # some clients leave before they have the answer
            await shout(stream)

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, quietly, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        port = listeners[0].socket.getsockname()[1]
        yield conpool.Endpoint("127.0.0.1", port)
        nursery.cancel_scope.cancel()


async def receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    reply = bytearray()
    while len(reply) < size:
        chunk = await stream.receive_some(size - len(reply))
        if not chunk:
            raise EOFError("the server hung up in the middle of a reply")
        reply += chunk
    return bytes(reply)
