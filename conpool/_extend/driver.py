"""What one protocol does with a connection: authors of client libraries subclass `Driver`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

import trio

from conpool._values.endpoint import AnyEndpoint

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # `ConnectionPool` alone has no sessions. From Python 3.13 on, `typing` can say so, too.
    SessionT = TypeVar("SessionT", default=None)
else:
    from typing import TypeVar

    SessionT = TypeVar("SessionT")


class Driver(Generic[SessionT]):
    r"""What one protocol does with a connection. Subclass it; only `open` is needed.

    A pool with a driver lends sessions that are logged in and ready: `conn.session` is what `open`
    returned. The other methods say how the protocol checks a session, cleans it and says goodbye,
    and when an exchange is complete. Override those that the protocol needs.

    The pool awaits these methods in its own tasks, never in a caller's task. A slow method delays
    only the connection that it was called for.

    Example:
        >>> import conpool, trio
        >>> class GreetingDriver(conpool.Driver[bytes]):
        ...     async def open(
        ...         self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint
        ...     ) -> bytes:
        ...         greeting = b""
        ...         while not greeting.endswith(b"\n"):  # it may come in pieces
        ...             if not (part := await stream.receive_some()):
        ...                 raise EOFError("the server hung up before its greeting was complete")
        ...             greeting += part
        ...         return greeting
    """

    async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> SessionT:
        """Greet, authenticate, negotiate; runs inside `connect_timeout`.

        It should wait for at least one reply: under TLS 1.3 a server may refuse the client's
        certificate, and any server may be full, only after the connection seems to be up. If the
        server speaks first in this protocol, `open` must read the greeting.

        Args:
            stream: The connection's own, with TLS if the endpoint asks for it. What moves on it
                counts for the release rule. The session may keep it.
            endpoint: The peer.

        Returns:
            The session, which leases offer as `conn.session`.

        Raises:
            Exception: Anything. The pool closes the stream and raises a `ConnectError` whose
                phase is `"open"` and whose cause this is. That error shows this one's text, so
                keep passwords out of it.
            NotImplementedError: The subclass has no `open`.

        Cancelling it ends the dial; the pool closes the stream.
        """
        raise NotImplementedError(f"{type(self).__name__} has no open()")

    async def run(self, session: SessionT) -> None:
        """Run beside the connection for as long as it lives, for instance to read replies.

        When it ends or raises, the pool closes the connection, or does not lend it again. The pool
        cancels it before it closes the connection. A `run` that is not overridden never starts.
        """

    def has_companion(self, session: SessionT) -> bool:
        """Return whether this session needs `run`; asked once, when it is open.

        If one driver speaks two protocols, perhaps only one of them needs a companion. The pool
        probes and watches a connection without a companion itself.
        """
        return True

    async def check(self, session: SessionT) -> bool:
        """Ask the peer whether it is alive; runs inside `health_check_timeout`.

        The pool calls it for a connection that has been idle; nobody else can use it meanwhile.

        Returns:
            Whether the pool may lend the connection. False, an exception, no answer in time, or a
            cancellation closes it.
        """
        return True

    async def reset(self, session: SessionT) -> None:
        """Clear what one lease left behind for the next; runs inside `health_check_timeout`.

        For instance, roll back, or leave a database that the caller selected. The pool calls it
        after each lease whose connection it means to keep. An exception, or a cancellation, closes
        the connection.
        """

    def needs_reset(self, session: SessionT) -> bool:
        """Return whether a lease has left anything behind that `reset` would clear.

        The pool asks at the end of each lease, if `reset` is overridden. False saves a task, and
        the next caller the wait for it.
        """
        return True

    async def close(self, session: SessionT) -> None:
        """Say goodbye; runs inside `close_timeout`, shielded.

        The pool calls it only if the last exchange is complete, and closes the stream afterwards,
        whatever this raises. Only `close_timeout` cancels it: then the stream is closed by force.
        """

    async def cancel(self, session: SessionT) -> None:
        """Tell the peer to stop what an exchange that was cut short had asked for.

        A server may go on with an abandoned query long after its connection is gone. The pool calls
        this in the background before it closes such a connection, shielded, and gives it
        `close_timeout` seconds; the connection keeps its slot meanwhile. If `cancel` is not
        overridden, the pool closes an unclean connection at once.
        """

    def is_clean(self, session: SessionT) -> bool:
        """Return whether no reply is owed and nothing is half done.

        The pool asks at each release. The answer decides: true keeps the connection even after an
        exception or a cancelled receive (never after an interrupted send), false closes it. If
        `is_clean` is not overridden, the pool judges by the bytes that moved instead.
        """
        return True

    def capacity(self, session: SessionT) -> int:
        """Return how many leases, running ones included, may share the connection; 1: exclusive.

        The pool asks anew each time, because the peer may change its mind. While the number is
        above 1, the stream methods of a lease raise: callers can share a session, but no stream.
        """
        return 1


class NativeDriver(Driver[SessionT]):
    """For client libraries that open their own socket, such as libpq's.

    The pool calls `connect` instead of its connector and `open`. The stream methods of a lease
    raise, and the probe looks at `fileno`. A subclass must override `is_clean`, because the pool
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
        """Do not call it: `connect` does it all.

        Raises:
            NotImplementedError: Always, without a checkpoint.
        """
        raise NotImplementedError(f"{type(self).__name__} opens sessions in connect()")

    async def connect(self, endpoint: AnyEndpoint) -> SessionT:
        """Open a socket to `endpoint` and a session on it; runs inside `connect_timeout`.

        Args:
            endpoint: The peer. The library itself must see to its `tls` and `proxy`.

        Returns:
            The session, which leases offer as `conn.session`.

        Raises:
            Exception: Anything; see `Driver.open`.
            NotImplementedError: The subclass has no `connect`.

        When cancelled, it must leave no socket open: the pool has no session to abort yet.
        """
        raise NotImplementedError(f"{type(self).__name__} has no connect()")

    def _opened(self, session: SessionT, endpoint: AnyEndpoint, pool: object) -> None:
        """Learn whose session it is, in our own drivers."""

    def fileno(self, session: SessionT) -> int:
        """Return the open descriptor to probe and to watch, or -1 if there is none.

        Raises:
            NotImplementedError: The subclass has no `fileno`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fileno()")

    def abort(self, session: SessionT) -> None:
        """Free the descriptor at once, without I/O.

        The pool calls it when `close` fails, takes too long or leaves the descriptor open, and when
        there is no goodbye to say: the session is unclean, or `close` is not overridden. The pool
        calls it once, and again only if it raises. It must not block, and must do no harm to a
        session that is closed already. Before it, tasks that wait for the descriptor get
        `trio.ClosedResourceError`.

        Raises:
            NotImplementedError: The subclass has no `abort`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no abort()")
