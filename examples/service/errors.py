"""Errors of three kinds, as JSON: the configuration, a connection, or the pool is to blame.

The answer has the kind and a plain sentence. The log has the whole error.
"""

from __future__ import annotations

import logging

import psycopg
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse
from trio_mysql.err import InterfaceError, OperationalError

import conpool

from .settings import ConfigurationError

log = logging.getLogger("service")

LOST = (psycopg.OperationalError, InterfaceError, OperationalError, trio.BrokenResourceError)
"""What drivers raise when the server goes away in the middle of a query."""

SENTENCES = {
    "configuration": "The service is not set up for this.",
    "connection": "The database does not answer. Try again soon.",
    "pool": "Too many requests wait for the database. Try again soon.",
}


def kind_of(error: BaseException) -> str:
    """Return `configuration`, `connection` or `pool`."""
    if isinstance(error, ConfigurationError | conpool.ConfigError):
        return "configuration"
    # A caller who has waited for a server that is down got no connection for that reason.
    if isinstance(error, conpool.AcquireTimeout | conpool.QueueFull):
        return "connection" if isinstance(error.__cause__, conpool.ConnectError) else "pool"
    if isinstance(error, conpool.PoolClosed):
        return "pool"
    return "connection"


async def explain(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that met one of `HANDLED`."""
    kind = kind_of(error)
    log.warning("%s: %s error: %s", request.url.path, kind, type(error).__name__)
    log.debug("%s", error, exc_info=error)
    headers = {} if kind == "configuration" else {"Retry-After": "1"}
    body = {"error": kind, "message": SENTENCES[kind]}
    return JSONResponse(body, 500 if kind == "configuration" else 503, headers)


HANDLED = (ConfigurationError, conpool.PoolError, *LOST)
