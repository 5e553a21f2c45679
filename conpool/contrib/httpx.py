"""A transport for `httpx.AsyncClient` on trio; `conpool.contrib.httpx2` is its twin for httpx2.

from conpool.contrib.httpx import AsyncPoolTransport

async with httpx.AsyncClient(transport=AsyncPoolTransport()) as client:
    response = await client.get("https://example.org/")
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, final

import httpx

from conpool._pool.pool import ConnectionPool
from conpool._values.config import PoolConfig
from conpool._values.group import EndpointGroup
from conpool.contrib._http.body import ResponseBody
from conpool.contrib._http.driver import HTTPDriver
from conpool.contrib._http.transport import Transport

__all__ = ["AsyncPoolTransport", "HTTPDriver"]


@final
class _Body(ResponseBody, httpx.AsyncByteStream):
    """What `httpx.Response` reads from."""


class AsyncPoolTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1, and HTTP/2 where TLS agrees on it, over pooled connections.

    Without `pool` it opens and closes its own, with `config`. The other arguments are those of
    the stock transport, and mean the same.

    Args:
        pool: An open pool of yours, which the transport does not close. For HTTP/2 its driver must
            be a `conpool.contrib.httpx.HTTPDriver`.
        config: Limits and times of the transport's own pool, in place of `limits`.
        verify: Whom to trust; an `ssl.SSLContext` is the best way to say so.
        cert: A client certificate, as httpx takes it.
        http1: Offer HTTP/1.1. Without it, `http://` means HTTP/2 with prior knowledge.
        http2: Offer HTTP/2, which needs the package h2.
        limits: `max_connections` holds for the pool, `max_keepalive_connections` for the idle
            connections of each host, and `keepalive_expiry` for how long they idle.
        trust_env: Honour `SSL_CERT_FILE` and `SSL_CERT_DIR`.
        proxy: A URL, or a `httpx.Proxy`: HTTP, HTTPS or SOCKS5.
        uds: The path of a UNIX socket to connect to, whatever the host.
        local_address: Dial from this address of this machine.
        retries: How often to try again if no connection can be opened.
        groups: The servers of a host of the URL, or of a `host:port`. Their endpoints have a host
            and port, or the path of a UNIX socket, and nothing else; TLS and the name to verify
            are the URL's.

    Raises:
        ConfigError: These arguments cannot stand together.
    """

    def __init__(
        self,
        pool: ConnectionPool[Any] | None = None,
        *,
        config: PoolConfig | None = None,
        verify: ssl.SSLContext | str | bool = True,
        cert: Any = None,
        http1: bool = True,
        http2: bool = False,
        limits: httpx.Limits | None = None,
        trust_env: bool = True,
        proxy: Any = None,
        uds: str | None = None,
        local_address: str | None = None,
        retries: int = 0,
        groups: Mapping[str, EndpointGroup] | None = None,
    ) -> None:
        self._transport = Transport(
            httpx,
            _Body,
            pool,
            config,
            verify=verify,
            cert=cert,
            http1=http1,
            http2=http2,
            limits=limits,
            trust_env=trust_env,
            proxy=proxy,
            uds=uds,
            local_address=local_address,
            retries=retries,
            groups=groups,
        )

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, and return the response with its body still to be read.

        Cancelling it, or closing the response early, leaves nothing behind.
        """
        response: httpx.Response = await self._transport.send(request)
        return response

    async def aclose(self) -> None:
        """Close the transport's own pool at once; a pool of yours stays open.

        If it is cancelled, the pool has been closed all the same.
        """
        await self._transport.aclose()
