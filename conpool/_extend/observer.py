"""What observers see: the seam for metrics, logs and traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import CircuitState, CloseReason


@final
@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """What callbacks and observers learn about a connection; never its bytes.

    Attributes:
        id: Its number in this pool, higher than those of all that were dialled before it.
        endpoint: The peer.
        created_at: When it was opened, in seconds on trio's clock; until then, when its dial
            began.
        uses: How many leases have begun on it.
    """

    id: int
    endpoint: AnyEndpoint
    created_at: float
    uses: int


class Observer:
    """Override what you want to see. What it raises is logged and goes no further.

    The calls are made in trio's thread when the pool's books are already right. They must not
    block, and may call any synchronous method of the pool. They come in pairs: each `connecting`
    has one `connected` or `connect_failed`, each `connected` one `closed`, each `acquired` one
    `released`, and each `acquire_started` one `acquired` or `acquire_failed`.

    >>> from conpool import ConnectionInfo, Observer
    >>> class Slow(Observer):
    ...     def acquired(self, info: ConnectionInfo, waited: float) -> None:
    ...         if waited > 1.0:
    ...             print(f"waited {waited:.1f} s for {info.endpoint}")
    """

    def acquire_started(self, endpoint: AnyEndpoint) -> None:
        """Somebody asks for a connection to `endpoint`."""

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        """A lease has begun, after `waited` seconds."""

    def acquire_failed(self, endpoint: AnyEndpoint, error: BaseException, waited: float) -> None:
        """An acquire ended in `error` (`trio.Cancelled` too) after `waited` seconds."""

    def released(self, info: ConnectionInfo, held: float) -> None:
        """A lease has ended, after `held` seconds; whether it was kept, `closed` tells."""

    def connecting(self, info: ConnectionInfo) -> None:
        """A dial has begun."""

    def connected(self, info: ConnectionInfo, took: float) -> None:
        """A dial has succeeded, after `took` seconds."""

    def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
        """A dial has ended in `error` after `took` seconds."""

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        """The pool has let go of a connection, for `reason`."""

    def cleared(self, endpoint: AnyEndpoint) -> None:
        """No connection to `endpoint` that exists now is lent again."""

    def circuit_changed(self, endpoint: AnyEndpoint, old: CircuitState, new: CircuitState) -> None:
        """The circuit of `endpoint` has gone from `old` to `new`."""
