"""What a pool must know of HTTP/2: which connections speak it, and how many leases each takes."""

from __future__ import annotations

from typing import Final, TypeAlias, final

import trio

from conpool._connection.exchange import ExchangeStream
from conpool._connection.tls_tap import find_tap
from conpool._extend.driver import Driver
from conpool._values.endpoint import AnyEndpoint
from conpool.contrib._http.multiplex import Multiplex
from conpool.contrib._http.outgoing import PlainSession
from conpool.contrib._http.routes import PRIOR_KNOWLEDGE

Session: TypeAlias = Multiplex | PlainSession

_H2: Final = "h2"


@final
class HTTPDriver(Driver[Session]):
    """For a pool whose connections speak HTTP/1.1 or HTTP/2, as TLS agrees for each.

    Give it to a pool of your own that is to serve an `AsyncPoolTransport(pool, http2=True)`. A
    connection that speaks HTTP/2 is shared by as many requests as its server allows, 100 at most.
    """

    async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Session:
        """Greet an HTTP/2 server, and wait for its settings."""
        if endpoint.partition != PRIOR_KNOWLEDGE and _chosen_protocol(stream) != _H2:
            return PlainSession()
        session = Multiplex(stream)
        await session.open()
        return session

    async def run(self, session: Session) -> None:
        """Read and write what the exchanges over HTTP/2 share."""
        assert isinstance(session, Multiplex)
        await session.run()

    def has_companion(self, session: Session) -> bool:
        """Return whether the session is HTTP/2's."""
        return isinstance(session, Multiplex)

    async def close(self, session: Session) -> None:
        """Say goodbye with a GOAWAY."""
        if isinstance(session, Multiplex):
            await session.say_goodbye()

    def is_clean(self, session: Session) -> bool:
        """Return whether no exchange over HTTP/1.1 is half done, and HTTP/2 has not failed."""
        if isinstance(session, Multiplex):
            return session.failure is None
        return session.is_clean

    def capacity(self, session: Session) -> int:
        """Return how many requests the server takes at once; 1 with HTTP/1.1."""
        return session.capacity if isinstance(session, Multiplex) else 1


def _chosen_protocol(stream: trio.abc.Stream) -> str | None:
    assert isinstance(stream, ExchangeStream)
    tap = find_tap(stream.stream)
    return None if tap is None else tap.ssl_object.selected_alpn_protocol()
