"""What opens the transport to an endpoint: users subclass `Connector` to bring their own."""

from __future__ import annotations

import trio

from conpool._values.endpoint import AnyEndpoint


class Connector:
    """Opens the transport to an endpoint: TCP, UNIX socket, tunnel. Subclass it to bring your own.

    Only `connect` is needed. The pool does the rest: it counts the connection before it calls
    `connect`, cancels `connect` after `connect_timeout`, waits between attempts, and puts TLS on
    top of the stream.

    Example:
        >>> import conpool, trio
        >>> class JumpHost(conpool.Connector):
        ...     async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        ...         return await trio.open_tcp_stream("jump.example", 2222)
    """

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        """Open a byte stream to `endpoint`. It runs in a task of the pool.

        Args:
            endpoint: The peer. Ignore its `tls`: the pool adds it.

        Returns:
            A connected stream, which the pool will close. While it is idle, the pool probes and
            watches a `trio.SocketStream`, with or without TLS on top. It takes any other stream
            to be alive until a read or a write fails.

        Raises:
            OSError: The stream cannot be opened. The pool makes a `ConnectError` of this and of
                any other exception, but passes on a `ConnectError` for this endpoint as it is.
                The phase is `"tcp"` for an `OSError`, and `"open"` for other exceptions, such as
                those of a login.
            NotImplementedError: The subclass has no `connect`.

        When cancelled, it must close every socket that it has opened before it returns.
        """
        raise NotImplementedError(f"{type(self).__name__} has no connect()")

    async def addresses(self, endpoint: AnyEndpoint) -> frozenset[str] | None:
        """Return the IP addresses that `endpoint` leads to now; None (the default) if not known.

        Override it to have the pool follow a server that moves. While connections to `endpoint`
        are open, a task of the pool calls this every `reap_interval` seconds, and cancels it after
        `connect_timeout`, or after 30 seconds if that is longer. The pool then closes connections
        to all other addresses: idle ones at once, and lent ones when they come back. It does not
        ask while all connections lead to the very address that is the endpoint's `host` (or its
        proxy's).

        An empty set means that nothing is known now. Of an exception, or a result that is no set
        of IP addresses, the pool makes a log entry. In all these cases it closes no
        connection, and asks again at the next round.
        """
        return None
