"""Pools for HTTP, and conpool with a few lines of HTTP above it."""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import suppress
from importlib import import_module
from typing import Any, ClassVar, Final, final

import trio

import conpool

from .http_server import HTTPServer
from .rival import Rival

_HOST: Final = "127.0.0.1"
_IMPATIENT: Final = 0.03


class HTTPRival(Rival):
    """What these pools have in common: the server."""

    def __init__(self, server: HTTPServer) -> None:
        self.server = server
        self.port = server.port

    @property
    def is_held(self) -> bool:
        return self.server.held > 0

    def let_go(self) -> None:
        self.server.open_gate()

    @property
    def silent_port(self) -> int:
        return self.server.silent_port

    async def receive_unasked(self) -> None:
        self.server.speak_unasked()
        await self.runtime.sleep(0.05)

    def url(self, path: str, host: str = _HOST) -> str:
        """Return the address of a request."""
        return f"http://{host}:{self.port}/{path}"

    async def ask(self, number: int) -> int:
        return await self._get(self.url(f"now/{number}"))

    async def ask_host(self, host: int) -> int:
        return await self._get(self.url("now/1", f"127.0.1.{host}"))

    async def hold(self) -> None:
        await self._get(self.url("held/1"))

    async def _get(self, url: str) -> int:
        raise NotImplementedError


class HttpcoreRival(HTTPRival):
    """httpcore on trio."""

    label = package = "httpcore"
    library = "trio"

    async def open(self, limit: int) -> None:
        module = import_module(self.package)
        self._pool: Any = module.AsyncConnectionPool(
            ssl_context=_trusting_context(), max_connections=limit, keepalive_expiry=60.0
        )

    async def close(self) -> None:
        await self._pool.aclose()

    async def _get(self, url: str) -> int:
        response = await self._pool.request("GET", url)
        return int(response.content)

    async def ask_and_lose_patience(self) -> None:
        async with self._pool.stream("GET", self.url("half/77")) as response:
            with trio.move_on_after(_IMPATIENT):
                await response.aread()

    async def ask_silent(self) -> None:
        await self._pool.request("GET", f"https://{_HOST}:{self.silent_port}/")


@final
class Httpcore2Rival(HttpcoreRival):
    """httpcore2 on trio."""

    label: ClassVar[str] = "httpcore2"
    package: ClassVar[str] = "httpcore2"


@final
class AiohttpRival(HTTPRival):
    """aiohttp's client."""

    label = package = "aiohttp"
    library = "asyncio"

    async def open(self, limit: int) -> None:
        module = import_module("aiohttp")
        connector = module.TCPConnector(limit=limit)
        self._session: Any = module.ClientSession(connector=connector)

    async def close(self) -> None:
        await self._session.close()

    async def _get(self, url: str) -> int:
        async with self._session.get(url) as response:
            return int(await response.text())

    async def ask_and_lose_patience(self) -> None:
        async with self._session.get(self.url("half/77")) as response:
            with suppress(TimeoutError):
                async with asyncio.timeout(_IMPATIENT):
                    await response.read()

    async def ask_silent(self) -> None:
        url = f"https://{_HOST}:{self.silent_port}/"
        async with self._session.get(url, ssl=_trusting_context()):
            pass


@final
class ConpoolRival(HTTPRival):
    """conpool itself, on the same terms as the others."""

    label = package = "conpool"
    library = "trio"

    async def open(self, limit: int) -> None:
        # A dial outlives the task that wanted it, but not this time-out.
        config = conpool.PoolConfig(max_connections=limit, connect_timeout=0.5, shutdown_grace=0.5)
        self._pool = conpool.ConnectionPool(config)
        await self._pool.__aenter__()

    async def close(self) -> None:
        await self._pool.aclose()

    async def leave(self) -> None:
        await self._pool.__aexit__(None, None, None)

    async def _get(self, url: str) -> int:
        host, path = url.removeprefix("http://").split(":")[0], "/".join(url.split("/")[3:])
        async with self._pool.connection(conpool.Endpoint(host, self.port)) as conn:
            await conn.send_all(_request(path))
            reply = b""
            while not (found := _REPLY.fullmatch(reply)) or len(found[2]) < int(found[1]):
                data = await conn.receive_some()
                if not data:
                    raise trio.BrokenResourceError("the server hung up")
                reply += bytes(data)
            return int(found[2])

    async def ask_and_lose_patience(self) -> None:
        async with self._pool.connection(conpool.Endpoint(_HOST, self.port)) as conn:
            await conn.send_all(_request("half/77"))
            with trio.move_on_after(_IMPATIENT):
                while True:
                    await conn.receive_some()

    async def ask_silent(self) -> None:
        tls = conpool.TLS(context=_trusting_context())
        async with self._pool.connection(conpool.Endpoint(_HOST, self.silent_port, tls=tls)):
            pass


_REPLY: Final = re.compile(rb"HTTP/1\.1 200 OK\r\nContent-Length: (\d+)\r\n\r\n(\d*)")


def _request(path: str) -> bytes:
    return f"GET /{path} HTTP/1.1\r\nHost: {_HOST}\r\n\r\n".encode()


def _trusting_context() -> ssl.SSLContext:
    """Return a client's context that trusts every server; no handshake is ever completed here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
