"""The transport: finds the way, borrows a connection, and sends the request, twice if need be.

A request is sent again, once, if its connection was not opened for it and ended before the first
byte of an answer, and if it is idempotent and its body is still there. An HTTP/2 server that says
that it has not looked at a request gets any request again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from conpool._lending.lease import Connection, held_lease
from conpool._pool.pool import ConnectionPool
from conpool._values.config import PoolConfig
from conpool._values.config_error import ConfigError, PoolError
from conpool._values.group import EndpointGroup, Target
from conpool.contrib._http.body import ResponseBody
from conpool.contrib._http.borrow import Borrower
from conpool.contrib._http.driver import HTTPDriver
from conpool.contrib._http.errors import translate
from conpool.contrib._http.h1 import PlainExchange
from conpool.contrib._http.h2 import SharedExchange
from conpool.contrib._http.host import PoolHost
from conpool.contrib._http.offer import offer
from conpool.contrib._http.outgoing import (
    Answer,
    Exchange,
    Gone,
    Outgoing,
    PlainSession,
    Unprocessed,
)
from conpool.contrib._http.reported import ReportedExchange
from conpool.contrib._http.routes import Routes

_NO_LIMIT: Final = 2**31
"""Connections per endpoint where the client library sets no limit."""

_CONNECT_TIMEOUT: Final = 30.0
"""Seconds for one dial of a pool of our own; callers give up by their own time-outs."""

_UNPROCESSED_TRIES: Final = 5
"""How often servers may hand back one request before the caller hears of it."""


def make_config(limits: Any) -> PoolConfig:
    """Return a configuration with the client library's limits."""
    most, most_idle = limits.max_connections, limits.max_keepalive_connections
    expiry = limits.keepalive_expiry
    return PoolConfig(
        max_connections_per_endpoint=_NO_LIMIT if most is None else most,
        max_connections=most,
        max_idle_per_endpoint=most_idle,
        max_idle_time=math.inf if expiry is None else expiry,
        connect_timeout=_CONNECT_TIMEOUT,
        shutdown_grace=0.0,  # the stock transport closes at once
    )


def _speaks_h2(pool: ConnectionPool[Any]) -> bool:
    engine = pool._engine  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return isinstance(engine.rules.driver, HTTPDriver)


@final
class Transport:
    """What `AsyncPoolTransport` does, for either client library."""

    def __init__(
        self,
        lib: Any,
        body: Callable[[Exchange, Outgoing], ResponseBody],
        pool: ConnectionPool[Any] | None,
        config: PoolConfig | None,
        *,
        verify: Any,
        cert: Any,
        http1: bool,
        http2: bool,
        limits: Any,
        trust_env: bool,
        proxy: Any,
        uds: str | None,
        local_address: str | None,
        retries: int,
        groups: Mapping[str, EndpointGroup] | None,
    ) -> None:
        if not (http1 or http2):
            raise ConfigError("one of http1 and http2 must be true")
        if pool is not None and (config is not None or limits is not None):
            raise ConfigError("a pool has a configuration of its own: give no config or limits")
        if config is not None and limits is not None:
            raise ConfigError("give either config or limits")
        if groups and (proxy is not None or uds is not None):
            raise ConfigError("groups cannot stand beside proxy or uds")
        if pool is not None and http2 and not _speaks_h2(pool):
            raise ConfigError("for HTTP/2 the pool needs driver=HTTPDriver()")
        context = lib.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)
        self._lib = lib
        self._body = body
        self._borrower = Borrower(lib, retries)
        self._speaks_h2 = http2
        self._routes = Routes(
            lib,
            offer(context, ("http/1.1",) * http1 + ("h2",) * http2),
            proxy=proxy,
            uds=uds,
            local_address=local_address,
            prior_knowledge=not http1,
            groups=groups or {},
        )
        self._given = pool
        own = config or make_config(
            limits or lib.Limits(max_connections=100, max_keepalive_connections=20)
        )
        self._host = PoolHost(lambda: self._make_pool(own))

    def _make_pool(self, config: PoolConfig) -> ConnectionPool[Any]:
        name = self._lib.__name__
        if not self._speaks_h2:
            return ConnectionPool(config, name=name)
        return ConnectionPool(config, driver=HTTPDriver(), name=name)

    async def open(self) -> None:
        """Open the pool, if it is our own."""
        if self._given is None:
            await self._host.open()

    async def aclose(self) -> None:
        """Close the pool, if it is our own."""
        if self._given is None:
            await self._host.aclose()

    async def send(self, request: Any) -> Any:
        """Send `request` and return the response, whose body is still to be read."""
        lib = self._lib
        try:
            route = self._routes.find(request.url, request.extensions)
            pool = self._given or await self._host.open()
            outgoing = Outgoing(lib, request, request.url.raw_path)
            if route.is_forwarded:
                self._address_proxy(outgoing, request.url)
            answer, exchange = await self._exchange(pool, route.target, outgoing)
        except PoolError as error:
            raise translate(lib, error) from error
        return lib.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=self._body(exchange, outgoing),
            extensions=answer.extensions,
        )

    def _address_proxy(self, outgoing: Outgoing, url: Any) -> None:
        outgoing.target = b"%s://%s%s" % (url.raw_scheme, url.netloc, outgoing.target)
        outgoing.headers = [*self._routes.proxy_headers, *outgoing.headers]

    async def _exchange(
        self, pool: ConnectionPool[Any], target: Target, outgoing: Outgoing
    ) -> tuple[Answer, Exchange]:
        needs_fresh = False
        repeated = unprocessed = 0
        while True:
            conn = await self._borrower.borrow(pool, target, outgoing, fresh=needs_fresh)
            was_fresh = conn.fresh
            exchange = made = self._make_exchange(pool, conn, outgoing)
            if held_lease(conn).entry.sub.gate.circuit is not None:
                exchange = ReportedExchange(self._lib, pool, conn, made, outgoing)
            try:
                return await exchange.start(), exchange
            except Unprocessed as gone:
                unprocessed += 1
                if not outgoing.can_resend or unprocessed >= _UNPROCESSED_TRIES:
                    raise gone.error from gone.__cause__
            except Gone as gone:
                if was_fresh or repeated or not outgoing.may_repeat:
                    raise gone.error from gone.__cause__
                repeated += 1
                # Others would share a connection that was opened for one.
                needs_fresh = isinstance(made, PlainExchange)

    def _make_exchange(
        self, pool: ConnectionPool[Any], conn: Connection[Any], outgoing: Outgoing
    ) -> Exchange:
        session = conn.session
        if session is None or isinstance(session, PlainSession):
            return PlainExchange(self._lib, pool, conn, outgoing)
        return SharedExchange(self._lib, pool, conn, outgoing)
