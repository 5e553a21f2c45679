"""The states of a connection, a circuit and a pool, and why a connection is closed.

The picture in the design page is drawn from `TRANSITIONS`; a move that is not in it raises.
"""

from __future__ import annotations

import enum
from typing import Final, Literal, TypeAlias, TypeVar

DialPhase: TypeAlias = Literal["resolve", "tcp", "proxy", "tls", "open"]
"""Where a dial is: name look-up, transport, tunnel, encryption, or the driver's `open`."""

AcquirePhase: TypeAlias = Literal["queue", "connect", "check"]
"""What an acquire waits for: a connection, the dial made for it, or a health check."""


EnumT = TypeVar("EnumT", bound=enum.EnumType)


def hashed_in_c(kind: EnumT) -> EnumT:
    """Have members be hashed as plain objects: `Enum` makes a call in Python for each look-up."""
    type.__setattr__(kind, "__hash__", object.__hash__)
    return kind


@hashed_in_c
@enum.unique
class CloseReason(enum.Enum):
    """Why the pool closed a connection, or let go of it."""

    LIFETIME = "lifetime"
    """It reached `max_connection_lifetime` (less its own jitter)."""
    IDLE_TIME = "idle time"
    """It was idle for `max_idle_time`."""
    USES = "uses"
    """It was lent `max_connection_uses` times."""
    PEER_CLOSED = "peer closed"
    """The peer ended it: end of file, reset, or TLS bytes that make no sense; or the driver's `run`
    returned."""
    UNREAD_DATA = "unread data"
    """Bytes had arrived that nobody asked for or nobody read."""
    UNHEALTHY = "unhealthy"
    """The health check said no, raised, or did not answer in time; or two in a row had failed,
    and this connection had been silent for as long; or the driver's `reset` took too long."""
    ERROR = "error"
    """The block that held it raised, or the driver's `reset` or `run`, or something raised while
    the pool took it back."""
    CANCELLED = "cancelled"
    """The block that held it was cancelled."""
    INCOMPLETE = "incomplete"
    """An operation on it was cut short, or what was sent had no answer yet; or the driver's
    `is_clean` said so."""
    DISCARDED = "discarded"
    """The caller closed, half-closed, retired or discarded it, or dropped the lease; or the
    driver's `capacity` was 0."""
    EVICTED = "evicted"
    """It was idle or being checked, or given back, and another caller needed its slot."""
    CLEARED = "cleared"
    """It was older than a `clear` or a `drain`, or `close_idle` closed it."""
    MOVED = "moved"
    """Its endpoint's name no longer leads to this address."""
    SURPLUS = "surplus"
    """It was one too many: the limit was lowered, or `max_idle_per_endpoint` were idle already."""
    DETACHED = "detached"
    """The caller took it out of the pool."""
    POOL_CLOSED = "pool closed"
    """The pool was closing."""


@enum.unique
class CircuitState(enum.Enum):
    """Whether an endpoint's circuit lets dials through."""

    CLOSED = "closed"
    """Dials go through."""
    OPEN = "open"
    """No dial starts."""
    HALF_OPEN = "half open"
    """A few dials try the server."""


_C = CircuitState

CIRCUIT_TRANSITIONS: Final[frozenset[tuple[CircuitState, CircuitState]]] = frozenset(
    {
        (_C.CLOSED, _C.OPEN),  # the server has failed too often in a row
        (_C.OPEN, _C.HALF_OPEN),  # the time is over, and the first dial tries the server
        (_C.HALF_OPEN, _C.OPEN),  # it has failed again
        (_C.HALF_OPEN, _C.CLOSED),  # it serves
        (_C.OPEN, _C.CLOSED),  # it has served, or somebody says so, or nobody asks any more
    }
)


@hashed_in_c
@enum.unique
class ConnectionState(enum.Enum):
    """Where a connection is in its life. All but CLOSED count against the limits."""

    CONNECTING = "connecting"
    IDLE = "idle"
    ACTIVE = "active"
    CLOSING = "closing"
    CLOSED = "closed"


_S = ConnectionState

TRANSITIONS: Final[frozenset[tuple[ConnectionState, ConnectionState]]] = frozenset(
    {
        (_S.CONNECTING, _S.ACTIVE),  # the dial succeeded; what follows is a give-back
        (_S.CONNECTING, _S.CLOSED),  # the dial failed
        (_S.IDLE, _S.ACTIVE),  # lent, or checked for a waiter
        (_S.IDLE, _S.CLOSING),  # expired, evicted, found dead, told to go
        (_S.ACTIVE, _S.IDLE),  # given back while nobody waited
        (_S.ACTIVE, _S.CLOSING),  # given back and not kept, or closed under its lease
        (_S.CLOSING, _S.CLOSED),  # its file is closed
    }
)


@enum.unique
class PoolState(enum.Enum):
    """Where a pool is in its life."""

    NEW = "new"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


_P = PoolState

POOL_TRANSITIONS: Final[frozenset[tuple[PoolState, PoolState]]] = frozenset(
    {
        (_P.NEW, _P.OPEN),  # its block was entered
        (_P.NEW, _P.CLOSED),  # closed before it was opened
        (_P.OPEN, _P.DRAINING),  # it lends no more and waits for leases to end
        (_P.OPEN, _P.CLOSED),  # its background did not start, or the process is a fork
        (_P.DRAINING, _P.CLOSED),  # nothing is left open, or the process is a fork
    }
)


@enum.unique
class WaitOutcome(enum.Enum):
    """Why a waiter gets no connection."""

    TIMEOUT = "timeout"
    DIAL_FAILED = "dial failed"
    POOL_CLOSED = "pool closed"
    CIRCUIT_OPEN = "circuit open"
    UNHEALTHY = "unhealthy"
    SHED = "shed"
    ALL_FAILED = "all members of the group failed"
