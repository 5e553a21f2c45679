"""A transport for `httpx2.AsyncClient` on trio; `conpool.contrib.httpx` is its twin for httpx.

from conpool.contrib.httpx2 import AsyncPoolTransport

async with httpx2.AsyncClient(transport=AsyncPoolTransport()) as client:
    response = await client.get("https://example.org/")
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import httpx2

from conpool.contrib._http.body import ResponseBody
from conpool.contrib._http.driver import HTTPDriver
from conpool.contrib._http.transport import BasePoolTransport

__all__ = ["AsyncPoolTransport", "HTTPDriver"]


@final
class _Body(ResponseBody, httpx2.AsyncByteStream):
    """What `httpx2.Response` reads from."""


class AsyncPoolTransport(
    BasePoolTransport[httpx2.Limits, httpx2.Request, httpx2.Response], httpx2.AsyncBaseTransport
):
    """HTTP/1.1, and HTTP/2 where TLS agrees on it, over pooled connections.

    Without `pool` it opens and closes its own, with `config`. The other arguments are those of
    the stock transport, and mean the same.
    """

    _lib: ClassVar[Any] = httpx2
    _body = _Body
