"""What one protocol does with a connection: the seam for authors of client libraries."""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from conpool._values.endpoint import AnyEndpoint

SessionT = TypeVar("SessionT")


class Driver(Generic[SessionT]):
    """What one protocol does with a connection. Subclass it; only `open` is needed.

    A pool with a driver lends sessions that are logged in and ready: `conn.session` is whatever
    `open` returned. The other methods say how the protocol checks a session, cleans it, says
    goodbye, and when an exchange is complete; leave out those that it has no need of.

    The pool calls them in its own tasks, never in that of a caller, and a slow one delays only
    the connection that it was called for.

    Example:
        >>> import conpool, trio
        >>> class GreetingDriver(conpool.Driver[bytes]):
        ...     async def open(
        ...         self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint
        ...     ) -> bytes:
        ...         return bytes(await stream.receive_some())
    """

    async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> SessionT:
        """Greet, authenticate, negotiate; runs inside `connect_timeout`.

        It should make one round trip at least: under TLS 1.3 a server may refuse the client's
        certificate, and any server may be full, only after the connection seems to be up. Of a
        protocol in which the server speaks first, it reads the greeting.

        Args:
            stream: The connection's own, with TLS where the endpoint asks for it; what moves on
                it counts for the release rule. The session may keep it.
            endpoint: The peer.

        Returns:
            The session, which leases offer as `conn.session`.

        Raises:
            Exception: Anything. The pool closes the stream and raises a `ConnectError` whose
                phase is `"open"` and whose cause this is; its text becomes part of that error's,
                so keep passwords out of it.
            NotImplementedError: The subclass has no `open`.

        Cancelling it ends the dial; the pool closes the stream.
        """
        raise NotImplementedError(f"{type(self).__name__} has no open()")

    async def run(self, session: SessionT) -> None:
        """A companion task, alive as long as the connection is; say, a loop that reads replies.

        When an overriding one ends or raises, the connection is closed, or is not lent again.
        The one here has nothing to do, is never started, and ends nothing.

        Cancelling it is how the pool ends it, before the connection is closed.
        """

    async def check(self, session: SessionT) -> bool:
        """Ask the peer whether it is alive; runs inside `health_check_timeout`.

        Called for a connection that has been idle, and that no one else can use meanwhile.

        Returns:
            Whether it may be lent. False, an exception or no answer in time closes it.

        Cancelling it closes the connection.
        """
        return True

    async def reset(self, session: SessionT) -> None:
        """Clear what one lease left behind before the next; runs inside `health_check_timeout`.

        Called after a lease whose connection is to be kept, such as to roll back or to leave a
        database that the caller had chosen. An exception closes the connection.

        Cancelling it closes the connection.
        """

    async def close(self, session: SessionT) -> None:
        """Say goodbye; runs inside `close_timeout`, shielded.

        Called only where the last exchange is complete. The pool closes the stream after it,
        whatever it raises.

        Cancelling it (which only `close_timeout` does) closes the stream by force.
        """

    def is_clean(self, session: SessionT) -> bool:
        """Whether no reply is owed and nothing is half done; asked, without awaiting, at release.

        Overridden, it decides: true keeps the connection even after an exception or a cancelled
        receive (never after an interrupted send), false closes it. The one here is not asked:
        without an overriding one the pool goes by the bytes that moved.

        Returns:
            True where the next lease may begin on it.
        """
        return True

    def capacity(self, session: SessionT) -> int:
        """How many leases may share the connection now; 1 is exclusive.

        Asked anew each time, since the peer may change its mind. While it is above 1 the lease's
        own stream methods are refused: several callers can share a session, but not a stream.

        Returns:
            A number of leases, the running ones included.
        """
        return 1


class NativeDriver(Driver[SessionT]):
    """For client libraries that open their own socket, such as libpq's.

    `connect` runs instead of the pool's connector and `open`; the lease's stream methods then
    raise, and `fileno` is what the probe looks at. `is_clean` must be overridden, since the pool
    sees no bytes (`ConfigError`).

    Example:
        >>> import conpool
        >>> class LibpqDriver(conpool.NativeDriver["PGconn"]):
        ...     async def connect(self, endpoint: conpool.AnyEndpoint) -> "PGconn":
        ...         return await wait_for_pgconn(endpoint)
        ...
        ...     def fileno(self, session: "PGconn") -> int:
        ...         return session.socket
        ...
        ...     def is_clean(self, session: "PGconn") -> bool:
        ...         return session.transaction_status == IDLE
        ...
        ...     def abort(self, session: "PGconn") -> None:
        ...         session.finish()
    """

    async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> SessionT:
        """Not called: there is no stream to open a session on, and `connect` does it all.

        Raises:
            NotImplementedError: Always.

        It has no checkpoint and cannot be cancelled.
        """
        raise NotImplementedError(f"{type(self).__name__} opens sessions in connect()")

    async def connect(self, endpoint: AnyEndpoint) -> SessionT:
        """Open a socket to `endpoint` and a session on it; runs inside `connect_timeout`.

        Args:
            endpoint: The peer. Its `tls` and `proxy` are for the library to see to.

        Returns:
            The session, which leases offer as `conn.session`.

        Raises:
            Exception: Anything. The pool raises a `ConnectError` whose phase is `"open"` and
                whose cause this is; its text becomes part of that error's, so keep passwords
                out of it.
            NotImplementedError: The subclass has no `connect`.

        Cancelling it must leave no socket open: the pool has no session to abort yet.
        """
        raise NotImplementedError(f"{type(self).__name__} has no connect()")

    def fileno(self, session: SessionT) -> int:
        """The descriptor that the probe looks at and the idle watch waits on.

        Returns:
            An open descriptor, or -1 where there is nothing to look at.

        Raises:
            NotImplementedError: The subclass has no `fileno`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fileno()")

    def abort(self, session: SessionT) -> None:
        """Free the descriptor now, without I/O; called when `close` fails or is too slow.

        Also called where no goodbye is due: the session is unclean, or `close` is not overridden.
        It must not block, and must do no harm to a session that is closed already.

        Raises:
            NotImplementedError: The subclass has no `abort`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no abort()")
