"""What the service answers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from conpool.contrib.asgi import StatusApp

from .databases import Databases
from .errors import HANDLED, explain
from .health import PATIENCE, checks_of
from .images import shrink
from .settings import Settings, masked


def make_app(settings: Settings) -> Starlette:
    """Make the service. Its pools are open while the server runs its lifespan."""
    databases = Databases.of(settings)
    drawing = trio.CapacityLimiter(os.cpu_count() or 1)

    async def now(_: Request) -> JSONResponse:
        [(time,)] = await databases.fetch_postgres("SELECT now()::text")
        return JSONResponse({"now": time})

    async def nap(request: Request) -> JSONResponse:
        seconds = min(float(request.path_params["seconds"]), 10.0)
        await databases.fetch_postgres("SELECT pg_sleep(%s)", seconds)
        return JSONResponse({"slept": seconds})

    async def thumbnail(request: Request) -> Response:
        select = "SELECT width, height, pixels FROM images WHERE id = %s"
        rows = await databases.fetch_mariadb(select, request.path_params["number"])
        if not rows:
            return JSONResponse({"error": "there is no such image"}, 404)
        # The connection is back in the pool before the drawing begins.
        png = await trio.to_thread.run_sync(shrink, *rows[0], limiter=drawing)
        return Response(png, media_type="image/png")

    async def diagnostic(_: Request) -> JSONResponse:
        return JSONResponse({"environment": masked()})

    checks = checks_of(settings)
    health = StatusApp(checks=checks, check_timeout=PATIENCE)
    pools = (databases.postgres, databases.mariadb)
    status = StatusApp(*pools, checks=checks, check_timeout=PATIENCE)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with databases.running():
            yield

    return Starlette(
        routes=[
            Route("/now", now),
            Route("/nap/{seconds:float}", nap),
            Route("/images/{number:int}/thumbnail", thumbnail),
            Route("/health", health),
            Route("/health/detailed", health),
            Route("/diagnostic", diagnostic),
            Mount("/status", status),  # in earnest, keep it and /diagnostic from the public
        ],
        exception_handlers=dict.fromkeys(HANDLED, explain),
        lifespan=lifespan,
    )
