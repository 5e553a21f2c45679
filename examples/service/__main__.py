"""Serve until SIGTERM or Ctrl-C; then finish the requests in flight, and close the pools."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config

from .routes import make_app
from .settings import ConfigurationError, Settings

GRACE = 15.0
"""Seconds for requests in flight. What then still runs is cancelled."""


async def wait_for_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            return


async def serve(settings: Settings) -> None:
    app: Any = make_app(settings)  # Starlette and hypercorn have different types for ASGI
    config = Config()
    config.bind = [settings.bind]
    config.backlog = 4096  # Linux allows no more, unless somaxconn is raised
    config.keep_alive_timeout = 60.0  # in a burst, a request may wait that long to be read
    config.graceful_timeout = GRACE
    await hypercorn.trio.serve(app, config, shutdown_trigger=wait_for_signal)


def main() -> int:
    try:
        settings = Settings.from_environ()
    except ConfigurationError as error:
        print(f"service: configuration error: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=settings.log_level)
    logging.getLogger("service").info("%s", settings)
    trio.run(serve, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
