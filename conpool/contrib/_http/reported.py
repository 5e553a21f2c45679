"""An exchange that feeds the circuit breaker of its server.

What counts says something about the server: it breaks off an answer, breaks the protocol, or lets
a read or write time-out of the client library pass. These do not count:

- whatever the caller does: a cancellation, a body that fails, a response closed early;
- a kept connection that ends before the first byte of an answer: a server may close what idles;
- a request that an HTTP/2 server hands back untouched;
- a new connection that ends early, before its first byte: the pool itself counts that one;
- an answer of any status. One below 500 is a success. Above, only the caller knows, and may report.
"""

from __future__ import annotations

from typing import Any, Final, final

from conpool._core.failures import EARLY
from conpool._lending.lease import Connection
from conpool._pool.pool import ConnectionPool
from conpool.contrib._http.h1 import PlainExchange
from conpool.contrib._http.multiplex import ConnectionFailed
from conpool.contrib._http.outgoing import Answer, Exchange, Gone, Outgoing, Unprocessed

_SERVER_ERROR: Final = 500


@final
class ReportedExchange:
    """Passes all on to an exchange, and tells the pool how it ended."""

    def __init__(
        self,
        lib: Any,
        pool: ConnectionPool[Any],
        conn: Connection[Any],
        exchange: Exchange,
        outgoing: Outgoing,
    ) -> None:
        self._telling = (
            lib.ReadError,
            lib.WriteError,
            lib.RemoteProtocolError,
            lib.ReadTimeout,
            lib.WriteTimeout,
        )
        self._pool = pool
        self._conn = conn
        self._was_fresh = conn.fresh
        self._exchange = exchange
        self.trace_name: str = exchange.trace_name
        self._out = outgoing

    async def start(self) -> Answer:
        """Send the request, and return the head of the answer."""
        try:
            answer = await self._exchange.start()
        except Gone as gone:
            if not isinstance(gone, Unprocessed) and self._is_news():
                self._report(gone)
            raise
        except self._telling as error:
            if self._out.can_resend:  # else it may come from the caller's own body
                self._report(error)
            raise
        if answer.status < _SERVER_ERROR:
            self._pool.report_success(self._conn.endpoint)
        return answer

    async def read(self) -> bytes | None:
        """Return the next piece of the answer's body; None at its end."""
        try:
            return await self._exchange.read()
        except self._telling as error:
            self._report(error)
            raise

    async def close(self) -> None:
        """End the lease, if the body has not been read to its end."""
        await self._exchange.close()

    def _is_news(self) -> bool:
        """Whether it says anything that the connection ended, and the pool has not counted it."""
        is_plain = isinstance(self._exchange, PlainExchange)
        return self._was_fresh and not (is_plain and self._conn.age < EARLY)

    def _report(self, error: BaseException) -> None:
        cause = error.__cause__
        if isinstance(cause, ConnectionFailed):  # all requests that shared it have this cause
            if cause.is_reported:
                return
            cause.is_reported = True
        self._pool.report_failure(self._conn.endpoint)
