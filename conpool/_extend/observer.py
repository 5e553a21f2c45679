"""What observers see: users subclass `Observer` for metrics, logs and traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import CircuitState, CloseReason


@final
@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """What callbacks and observers learn about a connection, but never its bytes.

    Attributes:
        id: Its number in this pool, higher than the number of every earlier dial.
        endpoint: The peer.
        created_at: When the dial succeeded (until then: began), in seconds on trio's clock.
        uses: How many leases have begun on it.
    """

    id: int
    endpoint: AnyEndpoint
    created_at: float
    uses: int


class Observer:
    """Override the methods whose events you want to see; the pool logs what they raise.

    The pool calls them in trio's thread when its books are already right. They must not block, and
    may call any synchronous method of the pool. Calls come in pairs: each `connecting` has one
    `connected` or `connect_failed`, each `connected` one `closed`, each `acquired` one `released`,
    and each `acquire_started` one `acquired` or `acquire_failed`.

    >>> from conpool import ConnectionInfo, Observer
    >>> class Slow(Observer):
    ...     def acquired(self, info: ConnectionInfo, waited: float) -> None:
    ...         if waited > 1.0:
    ...             print(f"waited {waited:.1f} s for {info.endpoint}")
    """

    def _joined(self, pool: object) -> None:
        """`pool` has been made with this observer: exporters of our own read its numbers."""

    def acquire_started(self, endpoint: AnyEndpoint) -> None:
        """A task asks for a connection to `endpoint`."""

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        """A lease has begun after `waited` seconds."""

    def acquire_failed(self, endpoint: AnyEndpoint, error: BaseException, waited: float) -> None:
        """An acquire ended in `error` (`trio.Cancelled` too) after `waited` seconds."""

    def released(self, info: ConnectionInfo, held: float) -> None:
        """A lease has ended after `held` seconds; `closed` follows unless the pool keeps it."""

    def connecting(self, info: ConnectionInfo) -> None:
        """A dial has begun."""

    def connected(self, info: ConnectionInfo, took: float) -> None:
        """A dial has succeeded after `took` seconds."""

    def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
        """A dial has ended in `error` after `took` seconds.

        If the pool has ended it, the error says so: `PoolClosed`, or a `ConnectError` that nobody
        needs the connection any more. `EndpointStats.errors` does not count these.
        """

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        """The pool has closed a connection, or let go of it, for `reason`."""

    def cleared(self, endpoint: AnyEndpoint) -> None:
        """The pool will not lend again any connection to `endpoint` that exists now."""

    def circuit_changed(self, endpoint: AnyEndpoint, old: CircuitState, new: CircuitState) -> None:
        """The circuit of `endpoint` has gone from `old` to `new`."""
