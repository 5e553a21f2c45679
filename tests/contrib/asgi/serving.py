"""Serves an ASGI app on hypercorn, in the test's own trio run, and pools with something to show."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve `app` on a free port while the block runs; yield its URL without a slash at the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # the server closes it
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.1
    over = trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[Any]) -> None:
            await hypercorn.trio.serve(
                app, config, shutdown_trigger=over.wait, task_status=task_status
            )

        await nursery.start(serve)
        yield f"http://127.0.0.1:{port}"
        over.set()
