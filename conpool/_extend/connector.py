"""What opens the transport to an endpoint: the seam for one's own."""

from __future__ import annotations

import trio

from conpool._values.endpoint import AnyEndpoint


class Connector:
    """Opens the transport to an endpoint: TCP, UNIX socket, tunnel. Subclass it to bring your own.

    TLS is not its business: the pool adds it on top of what `connect` returns. Nor are limits,
    time-outs and repetition: the pool counts the connection before it asks for one, cancels
    `connect` when `connect_timeout` has passed, and waits between attempts.

    Example:
        >>> import conpool, trio
        >>> class JumpHost(conpool.Connector):
        ...     async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        ...         return await trio.open_tcp_stream("jump.example", 2222)
    """

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        """Open a byte stream to `endpoint`. It runs in a task of the pool.

        A `trio.SocketStream`, and the TLS that the pool adds to it, is probed and watched while
        it is idle; any other stream is taken to be alive until a read or a write fails.

        Args:
            endpoint: The peer; its `tls` is for the pool to see to.

        Returns:
            A stream that is connected, and from then on the pool's to close.

        Raises:
            OSError: It cannot be opened. The pool makes a `ConnectError` of it, and of anything
                else that is raised; a `ConnectError` for this endpoint is passed on as it is.
            NotImplementedError: The subclass has no `connect`.

        Cancelling it must leave no socket open: whatever was opened is closed before it ends.
        """
        raise NotImplementedError(f"{type(self).__name__} has no connect()")
