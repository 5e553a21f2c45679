"""The transport: finds the way, borrows a connection, and sends the request, twice if need be.

A request is sent again, once, if its connection was not opened for it and ended before the first
byte of an answer, and if it is idempotent and its body is still there. An HTTP/2 server that says
that it has not looked at a request gets any request again.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, Self, TypeVar, cast

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

LimitsT = TypeVar("LimitsT")
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

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


class BasePoolTransport(Generic[LimitsT, RequestT, ResponseT]):
    """What `AsyncPoolTransport` is, for either client library."""

    _lib: ClassVar[Any]
    _body: ClassVar[type[ResponseBody]]
    """What the library's `Response` reads from."""

    def __init__(
        self,
        pool: ConnectionPool[Any] | None = None,
        *,
        config: PoolConfig | None = None,
        verify: ssl.SSLContext | str | bool = True,
        cert: Any = None,
        http1: bool = True,
        http2: bool = False,
        limits: LimitsT | None = None,
        trust_env: bool = True,
        proxy: Any = None,
        uds: str | None = None,
        local_address: str | None = None,
        retries: int = 0,
        groups: Mapping[str, EndpointGroup] | None = None,
    ) -> None:
        """Make a transport; it opens its pool when it is first used.

        Args:
            pool: An open pool of yours, which stays open. For HTTP/2 it needs an `HTTPDriver`.
            config: Limits and times of the transport's own pool, in place of `limits`.
            verify: Whom to trust; an `ssl.SSLContext` is the best way to say so.
            cert: A client certificate, as the client library takes it.
            http1: Offer HTTP/1.1. Without it, `http://` means HTTP/2 with prior knowledge.
            http2: Offer HTTP/2, which needs the package h2.
            limits: `max_connections` holds for the pool, `max_keepalive_connections` for the idle
                connections of each host, and `keepalive_expiry` for how long they idle.
            trust_env: Honour `SSL_CERT_FILE` and `SSL_CERT_DIR`.
            proxy: A URL, or the client library's `Proxy`: HTTP, HTTPS or SOCKS5.
            uds: The path of a UNIX socket to connect to, whatever the host.
            local_address: Dial from this address of this machine.
            retries: How often to try again if no connection can be opened.
            groups: The servers of a host of the URL, or of a `host:port`. Their endpoints have no
                more than host and port, or a UNIX path: TLS and the name to verify are the URL's.

        Raises:
            ConfigError: These arguments cannot stand together.
        """
        if not (http1 or http2):
            raise ConfigError("one of http1 and http2 must be true")
        if pool is not None and (config is not None or limits is not None):
            raise ConfigError("a pool has a configuration of its own: give no config or limits")
        if pool is not None and http2 and not _speaks_h2(pool):
            raise ConfigError("for HTTP/2 the pool needs driver=HTTPDriver()")
        lib = self._lib
        context = lib.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)
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
        self._host = PoolHost(partial(self._make_pool, self._choose_config(config, limits)))

    def _choose_config(self, config: PoolConfig | None, limits: LimitsT | None) -> PoolConfig:
        if config is None:
            stock = self._lib.Limits(max_connections=100, max_keepalive_connections=20)
            return make_config(limits or stock)
        if limits is not None:
            raise ConfigError("give either config or limits")
        return config

    def _make_pool(self, config: PoolConfig) -> ConnectionPool[Any]:
        name = self._lib.__name__
        if not self._speaks_h2:
            return ConnectionPool(config, name=name)
        return ConnectionPool(config, driver=HTTPDriver(), name=name)

    async def __aenter__(self) -> Self:
        if self._given is None:
            await self._host.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the transport's own pool at once; a pool of yours stays open.

        If it is cancelled, the pool has been closed all the same.
        """
        if self._given is None:
            await self._host.aclose()

    async def handle_async_request(self, request: RequestT) -> ResponseT:
        """Send one request, and return the response with its body still to be read.

        Cancelling it, or closing the response early, leaves nothing behind.
        """
        lib, sent = self._lib, cast("Any", request)
        try:
            route = self._routes.find(sent.url, sent.extensions)
            pool = self._given or await self._host.open()
            outgoing = Outgoing(lib, sent, sent.url.raw_path)
            if route.is_forwarded:
                self._address_proxy(outgoing, sent.url)
            answer, exchange = await self._exchange(pool, route.target, outgoing)
        except PoolError as error:
            raise translate(lib, error) from error
        response: ResponseT = lib.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=self._body(exchange, outgoing),
            extensions=answer.extensions,
        )
        return response

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
