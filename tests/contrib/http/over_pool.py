"""A pytest plugin for a checkout of httpx: its own tests, over our transport.

    nox -s httpx_suite -- path/to/checkout

Its tests stay where they are. What needs a network fails with the stock transport, too; the
variable `STOCK` runs that one.
"""

from __future__ import annotations

import os
from typing import Any

STOCK = bool(os.environ.get("STOCK"))


def pytest_configure(config: Any) -> None:
    if STOCK:
        return
    import httpx

    from conpool.contrib.httpx import AsyncPoolTransport

    class OverPool(AsyncPoolTransport):
        """Takes the stock transport's arguments, by position too."""

        def __init__(
            self,
            verify: Any = True,
            cert: Any = None,
            trust_env: bool = True,
            http1: bool = True,
            http2: bool = False,
            limits: Any = None,
            *,
            socket_options: Any = None,
            **options: Any,
        ) -> None:
            super().__init__(
                verify=verify,
                cert=cert,
                trust_env=trust_env,
                http1=http1,
                http2=http2,
                limits=limits,
                **options,
            )

    httpx.AsyncHTTPTransport = OverPool  # type: ignore[assignment, misc] # the point of it
    httpx._client.AsyncHTTPTransport = OverPool  # type: ignore[assignment, attr-defined]
