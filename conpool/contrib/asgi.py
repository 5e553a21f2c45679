"""A status page, health and numbers of pools, as an ASGI app to mount or to serve.

from conpool.contrib.asgi import StatusApp

app = Starlette(routes=[Mount("/status", StatusApp(pool, checks={"database": ping}))])
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import re
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import trio

from conpool._pool.pool import ConnectionPool
from conpool._values.config_error import ConfigError
from conpool._values.validation import (
    valid_async_function,
    valid_instance,
    valid_mapping,
    valid_seconds,
)
from conpool.contrib._asgi.health import Check, Health
from conpool.contrib._asgi.numbers import Numbers, Wanted
from conpool.contrib._asgi.reply import (
    Receive,
    Reply,
    Scope,
    Send,
    live_and_end,
    path_below_mount,
    query_of,
)

__all__ = ["StatusApp"]

_NO_CHECKS: Final[Mapping[str, Check]] = MappingProxyType({})

_Handler: TypeAlias = Callable[[Scope], Awaitable[Reply]]


class StatusApp:
    """What the pools do, for people and for machines, as an ASGI 3 app.

    ====================  ==========================================================
    path                  answer
    ====================  ==========================================================
    ``/``                 a live page
    ``/health``           200: the program answers
    ``/health/detailed``  JSON: each pool, endpoint and check; 503 if one is failing
    ``/stats.json``       JSON: `pool.all_stats()` of each pool
    ``/holders.json``     JSON: who holds the connections of the endpoint `?id=`
    ``/metrics``          for Prometheus, if prometheus-client is installed
    ====================  ==========================================================

    It must run in the trio run of the pools. It asks for no password: mount it where only operators
    come. Nothing in it shows a password, a partition or what went over a connection.

    Args:
        pools: The pools to show; they need not be open yet.
        checks: Async functions by name, which `/health/detailed` calls side by side. A check fails
            if it raises, returns False or takes too long. The reply has its time, a string or
            number that it returns, and the kind of error that it raises; the log has the rest.
        check_timeout: Seconds that each check has.

    Raises:
        ConfigError: An argument is of the wrong kind.
    """

    __slots__ = ("_health", "_metrics", "_numbers", "_pools", "_routes")

    def __init__(
        self,
        *pools: ConnectionPool[Any],
        checks: Mapping[str, Check] = _NO_CHECKS,
        check_timeout: float = 5.0,
    ) -> None:
        for pool in pools:
            valid_instance("a pool", pool, ConnectionPool)
        for name, check in valid_mapping("checks", checks).items():
            if not isinstance(name, str):
                raise ConfigError("the name of a check must be a str")
            valid_async_function(f"check {name!r}", check)
        timeout = valid_seconds("check_timeout", check_timeout, positive=True)
        self._pools = pools
        self._numbers = Numbers(pools)
        self._health = Health(pools, dict(checks), timeout)
        self._metrics: Callable[[], bytes] | None = None
        self._routes: Mapping[str, _Handler] = {
            "/": _show_page,
            "/health": _say_alive,
            "/health/detailed": self._show_health,
            "/stats.json": self._show_numbers,
            "/holders.json": self._show_holders,
            "/metrics": self._show_metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; also the events of a server's life, if it is not mounted."""
        if scope["type"] == "lifespan":
            await live_and_end(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        else:
            reply = await self._answer(scope)
            await reply.send(send, with_body=scope["method"] != "HEAD")

    async def _answer(self, scope: Scope) -> Reply:
        if scope["method"] not in {"GET", "HEAD"}:
            return Reply.of_text("only GET and HEAD", 405, ("allow", "GET, HEAD"))
        path = path_below_mount(scope)
        if not path:  # the page finds its data beside itself, so its address ends in a slash
            last = scope["path"].rpartition("/")[2]
            return Reply.of_text("it is one level down", 307, ("location", f"{last}/"))
        handler = self._routes.get(path)
        if handler is None:
            return Reply.of_text(f"there are only {', '.join(self._routes)}", 404)
        return await handler(scope)

    async def _show_health(self, _: Scope) -> Reply:
        is_well, details = await self._health.examine()
        return Reply.of_json(details, 200 if is_well else 503)

    async def _show_numbers(self, scope: Scope) -> Reply:
        try:
            wanted = Wanted.parse(query_of(scope))
        except ValueError as error:
            return Reply.of_text(str(error), 400)
        return Reply(await self._numbers.read(wanted), "application/json")

    async def _show_holders(self, scope: Scope) -> Reply:
        number = query_of(scope).get("id", "")
        if not (number.isascii() and number.isdigit() and len(number) < 20):
            return Reply.of_text("id must be a number that stats.json gives", 400)
        found = self._numbers.find_holders(int(number))
        if found is None:
            return Reply.of_text("the pool knows no endpoint of this id now", 404)
        return Reply.of_json(found)

    async def _show_metrics(self, _: Scope) -> Reply:
        try:
            client = importlib.import_module("prometheus_client")
            exporter = importlib.import_module("conpool.contrib.prometheus")
        except ModuleNotFoundError:
            hint = "metrics need prometheus-client: python -m pip install 'conpool[prometheus]'"
            return Reply.of_text(hint, 404)
        if self._metrics is None:
            registry = client.CollectorRegistry()
            registry.register(exporter.PoolCollector(*self._pools))
            self._metrics = lambda: client.generate_latest(registry)
        body = await trio.to_thread.run_sync(self._metrics)
        return Reply(body, client.CONTENT_TYPE_LATEST)


async def _say_alive(_: Scope) -> Reply:
    return Reply.of_json({"status": "ok"})


async def _show_page(_: Scope) -> Reply:
    return _PAGE


def _load_page() -> Reply:
    """Join the page's files, and allow it to run its own script and style, and nothing else."""
    folder = resources.files("conpool.contrib._asgi").joinpath("page")

    def read(name: str) -> str:
        return folder.joinpath(name).read_text("utf-8")

    text = re.sub(r"\{\{(\S+?)\}\}", lambda found: read(found[1]), read("page.html"))
    sources = {
        f"{tag}-src": base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        for tag, code in re.findall(r"<(script|style)>(.*?)</\1>", text, re.DOTALL)
    }
    allowed = "; ".join(f"{name} 'sha256-{digest}'" for name, digest in sources.items())
    always = "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'"
    headers = (("content-security-policy", f"{always}; {allowed}"),)
    return Reply(text.encode(), "text/html; charset=utf-8", headers=headers)


_PAGE: Final = _load_page()
