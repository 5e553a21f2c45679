"""The status app under Starlette on hypercorn, asked over the network by httpx."""

from __future__ import annotations

import pytest

import conpool
from conpool.contrib.asgi import StatusApp

from .test_status import CACHE, make_pool, use

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
applications = pytest.importorskip("starlette.applications", reason="Starlette is not installed")
pytest.importorskip("hypercorn", reason="hypercorn is not installed")

from starlette.routing import Mount  # noqa: E402

from .serving import served  # noqa: E402


async def test_app_is_mounted_in_another() -> None:
    async def ping() -> int:
        return 42

    async with make_pool() as pool:
        await use(pool, CACHE)
        app = applications.Starlette(
            routes=[Mount("/status", StatusApp(pool, checks={"ping": ping}))]
        )
        async with served(app) as url, httpx.AsyncClient(base_url=url) as client:
            page = await client.get("/status", follow_redirects=True)
            assert (page.status_code, page.url.path) == (200, "/status/")
            assert "<title>Connection pools</title>" in page.text
            assert (await client.get("/status/health")).json() == {"status": "ok"}
            assert (await client.head("/status/stats.json")).content == b""
            (shown,) = (await client.get("/status/stats.json")).json()["pools"]
            assert [one["endpoint"] for one in shown["endpoints"]] == ["cache.example:6379"]
            healthy = await client.get("/status/health/detailed")
            assert (healthy.status_code, healthy.json()["checks"]["ping"]["result"]) == (200, 42)
            assert (await client.get("/status/nonesuch")).status_code == 404


async def test_app_is_served_by_itself() -> None:
    pool: conpool.ConnectionPool[None] = make_pool()
    async with served(StatusApp(pool)) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/health/detailed")).status_code == 503  # not open yet
        async with pool:
            assert (await client.get("/health/detailed")).status_code == 200
