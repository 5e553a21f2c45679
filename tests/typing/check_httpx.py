"""What the httpx transports look like to a type checker."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import assert_type

import httpx
import httpx2

import conpool
from conpool.contrib import httpx as for_httpx, httpx2 as for_httpx2


async def transports(pool: conpool.ConnectionPool[None]) -> None:
    transport = for_httpx.AsyncPoolTransport(pool, http2=True, retries=1)
    client = httpx.AsyncClient(transport=transport)
    response = await transport.handle_async_request(client.build_request("GET", "/"))
    assert_type(response, httpx.Response)
    async with for_httpx2.AsyncPoolTransport(limits=httpx2.Limits()) as other:
        assert_type(other, for_httpx2.AsyncPoolTransport)
        client2 = httpx2.AsyncClient(transport=other)
    assert_type(
        await other.handle_async_request(client2.build_request("GET", "/")), httpx2.Response
    )
    httpx.AsyncClient(transport=other)  # type: ignore[arg-type]
    for_httpx.AsyncPoolTransport(limits=3)  # type: ignore[arg-type]


def drivers() -> None:
    conpool.ConnectionPool(driver=for_httpx.HTTPDriver())
    assert for_httpx.HTTPDriver is for_httpx2.HTTPDriver
