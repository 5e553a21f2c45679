"""`Connection`: one lease of a pooled connection, the only thing that a caller gets to hold."""

# pyright: reportPrivateUsage=false
# The functions at the end are this file's own way into a lease.

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, Protocol, final

import trio
from trio.lowlevel import enable_ki_protection

from conpool._connection.exchange import CLOSED_STREAM
from conpool._connection.pooled import PooledLease
from conpool._extend.driver import SessionT
from conpool._values.endpoint import AnyEndpoint
from conpool._values.guesses import ON_CONNECTION, answers_attributes
from conpool._values.states import CloseReason

_DISCARDED: Final = CloseReason.DISCARDED
"""A name of its own: looking up a member of an enum takes a call."""


class Owner(Protocol):
    """What a lease asks of the pool that it belongs to."""

    unended: dict[PooledLease, CloseReason]
    """Leases that nobody has any more, and that the pool must still end."""

    def discard(self, connection: Connection[Any]) -> None:
        """End the lease and close the connection."""
        ...

    def detach(self, connection: Connection[Any]) -> trio.abc.Stream:
        """End the lease and hand the stream over."""
        ...

    def retire(self, connection: Connection[Any]) -> None:
        """Have the connection closed when the lease ends."""
        ...

    def dropped(self, lease: PooledLease) -> None:
        """The handle of `lease` was garbage-collected. Called from anywhere, at any time."""
        ...

    async def is_healthy(self, connection: Connection[Any]) -> bool:
        """Probe the connection, and ask its peer if there is a way to."""
        ...

    def refuse_other_thread(self) -> None:
        """Raise `RuntimeError` in another thread than the pool's own."""
        ...


@answers_attributes(ON_CONNECTION)
@final
class Connection(trio.abc.HalfCloseableStream, Generic[SessionT]):
    """One lease of a pooled connection: itself a trio stream, dead once released.

    It reads and writes like any other stream. Once the lease has ended, every operation raises
    `trio.ClosedResourceError`, so a handle that was kept cannot touch the next caller's traffic.

        async with pool.connection(endpoint) as conn:
            await conn.send_all(request)
            reply = await read_reply(conn)  # yours: it reads the reply to its end
    """

    __slots__ = ("__weakref__", "_exchange", "_lease", "_owner", "_uses")

    def __init__(self, owner: Owner, lease: PooledLease) -> None:
        entry = lease.entry
        self._owner = owner
        self._lease = lease
        self._uses = entry.uses
        self._exchange: trio.abc.HalfCloseableStream = entry.link.offered
        """The connection's own stream, for as long as the lease lasts."""

    # ── the stream ──────────────────────────────────────────────────────────────

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`.

        If it is cancelled, some of the data may have been sent; the pool closes the connection when
        the lease ends.

        Raises:
            trio.BrokenResourceError: The connection is broken.
            trio.BusyResourceError: Another task is sending.
            trio.ClosedResourceError: The lease has ended, or the pool closed the connection.
        """
        await self._exchange.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until `send_all` might not block. Cancelling it leaves nothing behind.

        Raises:
            trio.BrokenResourceError: The connection is broken.
            trio.BusyResourceError: Another task is sending.
            trio.ClosedResourceError: The lease has ended, or the pool closed the connection.
        """
        await self._exchange.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive what there is, at most `max_bytes`; empty at the end of file.

        If it is cancelled, no byte is lost, but the reply may still come: unless `mark_clean` says
        otherwise, the pool closes the connection when the lease ends.

        Raises:
            trio.BrokenResourceError: The connection is broken.
            trio.BusyResourceError: Another task is receiving.
            trio.ClosedResourceError: The lease has ended, or the pool closed the connection.
        """
        return await self._exchange.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """Close the sending direction. The pool closes the connection when the lease ends.

        Raises:
            NotImplementedError: The stream cannot do that; TLS cannot.
            trio.BrokenResourceError: The connection is broken.
            trio.BusyResourceError: Another task is sending.
            trio.ClosedResourceError: The lease has ended, or the pool closed the connection.
        """
        await self._exchange.send_eof()

    @enable_ki_protection
    async def aclose(self) -> None:
        """End the lease now and close the connection. Idempotent.

        The lease has ended even if this call is cancelled.
        """
        self._owner.discard(self)
        await trio.lowlevel.checkpoint()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # ── what becomes of the connection ──────────────────────────────────────────

    @enable_ki_protection
    def retire(self) -> None:
        """Have the pool close the connection, instead of reusing it, when the lease ends.

        Call it when the peer has said that it will close, as with HTTP's `Connection: close`.

        Raises:
            trio.ClosedResourceError: The lease has ended.
        """
        self._owner.retire(self)

    @enable_ki_protection
    def mark_clean(self) -> None:
        """Vouch that the exchange is complete, whatever the pool would conclude.

        That excuses an exception, a cancelled receive and an unanswered send: the pool lends the
        connection again. It never excuses an interrupted send, and lapses at the next operation.

        Raises:
            trio.ClosedResourceError: The lease has ended.
        """
        self._owner.refuse_other_thread()
        self._held().entry.link.exchange.vouch()

    @enable_ki_protection
    def detach(self) -> trio.abc.Stream:
        """Take the stream out of the pool for good and end the lease; the caller closes it now.

        Raises:
            RuntimeError: The stream is not this lease's own: others share it, or a library has it.
            trio.ClosedResourceError: The lease has ended.
        """
        return self._owner.detach(self)

    async def is_healthy(self) -> bool:
        """Probe the connection, and ask the peer if pool or driver have a check.

        Call it between exchanges: a reply that lies unread makes the connection unhealthy, and is
        lost. It takes at most `health_check_timeout` seconds. If it is cancelled, the exchange
        counts as cut short.

        Raises:
            trio.BusyResourceError: Some task is inside an operation on it.
            trio.ClosedResourceError: The lease has ended.
        """
        return await self._owner.is_healthy(self)

    # ── what it is: all but the session may still be asked after the end ───────────

    @property
    def endpoint(self) -> AnyEndpoint:
        """Where it leads."""
        return self._lease.entry.sub.endpoint

    @property
    def id(self) -> int:
        """The connection's number: unique in its pool, rising."""
        return self._lease.entry.id

    @property
    def session(self) -> SessionT:
        """What the pool's driver made of the connection; None without a driver.

        Do not keep it: the pool cannot take the object back when the lease ends.

        Raises:
            trio.BrokenResourceError: The driver's `run` for this connection has ended.
            trio.ClosedResourceError: The lease has ended, or the pool closed the connection.
        """
        link = self._held().entry.link
        link.exchange.refuse_if_dead()
        session: SessionT = link.session
        return session

    @property
    def alpn_protocol(self) -> str | None:
        """The protocol that TLS negotiated, if any."""
        ssl_object = self.ssl_object
        return None if ssl_object is None else ssl_object.selected_alpn_protocol()

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The TLS state, to ask for certificate and cipher. Not to be read from or written to."""
        return self._lease.entry.link.ssl_object

    @property
    def peer_address(self) -> Any:
        """The address that was connected to; a proxy's, if there is one; None without a socket."""
        return self._lease.entry.link.peer_address

    @property
    def fresh(self) -> bool:
        """Whether it was opened for this lease: neither used nor idle since.

        If it is not fresh and its peer closes it at once, try once more: the peer may have given it
        up while it was idle. That may also happen to a connection that was never lent before.
        """
        return self._uses == 1 and not self._lease.entry.idled_unused

    @property
    def reused(self) -> bool:
        """Whether it was lent before. Whether it may be stale, `fresh` says."""
        return self._uses > 1

    @property
    def uses(self) -> int:
        """How often it had been lent, this lease included."""
        return self._uses

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return trio.current_time() - self._lease.entry.created_at

    def _held(self) -> PooledLease:
        if self._exchange is CLOSED_STREAM:
            raise trio.ClosedResourceError(f"{self!r}: this lease has ended")
        return self._lease

    def __reduce__(self) -> NoReturn:
        # `copy`, `deepcopy` and `pickle` all end here.
        raise TypeError(
            "a lease cannot be copied or pickled: a second handle would outlive it"
            " and reach the traffic of the next caller"
        )

    def __repr__(self) -> str:
        state = "given back" if self._exchange is CLOSED_STREAM else f"use {self._uses}"
        return f"<conpool.Connection {self.id} to {self.endpoint}, {state}>"

    def __del__(self) -> None:
        if self._exchange is not CLOSED_STREAM:
            try:
                self._owner.dropped(self._lease)
            except BaseException:
                # Garbage may be collected where there is no room for a call, and this is none.
                self._owner.unended[self._lease] = _DISCARDED
                raise


# For the owner, which must end a lease and may not see into it otherwise.


def end_lease(connection: Connection[Any]) -> PooledLease | None:
    """Make the handle worthless; return its lease, or None if that had ended before."""
    if connection._exchange is CLOSED_STREAM:  # noqa: SLF001
        return None
    connection._exchange = CLOSED_STREAM  # noqa: SLF001
    return connection._lease  # noqa: SLF001


def held_lease(connection: Connection[Any]) -> PooledLease:
    """Return the lease of a handle that has not ended.

    Raises:
        trio.ClosedResourceError: It has.
    """
    return connection._held()  # noqa: SLF001
