"""A transport for `httpx.AsyncClient` on trio; `conpool.contrib.httpx2` is its twin for httpx2.

from conpool.contrib.httpx import AsyncPoolTransport

async with httpx.AsyncClient(transport=AsyncPoolTransport()) as client:
    response = await client.get("https://example.org/")
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import httpx

from conpool.contrib._http.body import ResponseBody
from conpool.contrib._http.driver import HTTPDriver
from conpool.contrib._http.transport import BasePoolTransport

__all__ = ["AsyncPoolTransport", "HTTPDriver"]


@final
class _Body(ResponseBody, httpx.AsyncByteStream):
    """What `httpx.Response` reads from."""


class AsyncPoolTransport(
    BasePoolTransport[httpx.Limits, httpx.Request, httpx.Response], httpx.AsyncBaseTransport
):
    """HTTP/1.1, and HTTP/2 where TLS agrees on it, over pooled connections.

    Without `pool` it opens and closes its own, with `config`. The other arguments are those of
    the stock transport, and mean the same.
    """

    _lib: ClassVar[Any] = httpx
    _body = _Body
