"""What opens the transport to an endpoint: subclass `Connector` to open it in your own way."""

from __future__ import annotations

import trio

from conpool._values.endpoint import AnyEndpoint


class Connector:
    """Opens the transport to an endpoint: TCP, UNIX socket, tunnel. Subclass it to bring your own.

    TLS is not its business: the pool adds it on top of what `connect` returns. Nor are limits,
    time-outs and repetition: the pool counts the connection before it calls `connect`, cancels
    `connect` after `connect_timeout`, and waits between attempts. Only `connect` is needed.

    Example:
        >>> import conpool, trio
        >>> class JumpHost(conpool.Connector):
        ...     async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        ...         return await trio.open_tcp_stream("jump.example", 2222)
    """

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        """Open a byte stream to `endpoint`. It runs in a task of the pool.

        The pool probes and watches an idle `trio.SocketStream`, with or without its TLS. It takes
        any other stream to be alive until a read or a write fails.

        Args:
            endpoint: The peer. Ignore its `tls`: the pool adds it.

        Returns:
            A connected stream. From now on the pool owns it, and closes it.

        Raises:
            OSError: It cannot be opened. The pool makes a `ConnectError` of this and of any other
                exception; a `ConnectError` for this endpoint it passes on as it is.
            NotImplementedError: The subclass has no `connect`.

        When cancelled, it must close every socket that it has opened before it returns.
        """
        raise NotImplementedError(f"{type(self).__name__} has no connect()")

    async def addresses(self, endpoint: AnyEndpoint) -> frozenset[str] | None:
        """Return the IP addresses that `endpoint` leads to now; None (the default): not known.

        Override it to have the pool follow a server that moves. While connections to `endpoint`
        are open, a task of the pool asks every `reap_interval` seconds, and waits at most
        `connect_timeout` for the answer. The pool then leaves connections to all other addresses:
        it closes idle ones at once, and lent ones when they come back. It does not ask while all
        connections lead to the very address that is the endpoint's `host` (or its proxy's).

        The addresses must be spelled as `getpeername` spells them. An exception is logged at debug
        level, and closes no connection.
        """
        return None
