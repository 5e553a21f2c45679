"""Everything that goes wrong while a pool runs; `ConfigError`, which comes earlier, is in `_checks`.

One class for each party that must act: the peer or the network (`ConnectError` and its kinds), this
machine (`LocalResourceError`), the callers who hold too much or come too many (`AcquireTimeout`,
`QueueFull`), the one who closed the pool (`PoolClosed`). All can be copied and pickled.

How `as_connect_error` finds the class for whatever a connector, a handshake or a driver raised:

1. It looks for the true errors. trio hides those of TCP in a group under the cause of an `OSError`
   without errno, and those of TLS under the cause of a `BrokenResourceError` without text.
2. Of several it takes the one that tells most. A machine without IPv6 has "network unreachable" or
   "cannot assign address" for one half of its attempts, whatever ails the other.
3. What this machine ran out of is a `LocalResourceError`, in every phase.
4. A time-out is a `ConnectTimeout`; in a phase that has a class of its own it is of both.
5. Otherwise the phase decides, except that look-ups and handshakes which a connector makes inside
   its "tcp" phase are known by their exceptions.

What a message may show: the text of system and TLS errors, and of exceptions that connectors and
drivers raise. The last is theirs to keep free of secrets, as their docs say.
"""

from __future__ import annotations

import errno as codes
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, cast

import trio

from conpool._stats.report import duration, shorten
from conpool._stats.snapshot import EndpointStats
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import Target
from conpool._values.states import Phase
from conpool._values.validation import PoolError

_HOLDERS_SHOWN: Final = 10
_ATTEMPTS_SHOWN: Final = 5
_TEXT_WIDTH: Final = 300
"""Some exceptions carry a whole reply as their text; a message is read in a terminal."""


class _DetailedError(PoolError):
    """Has keyword arguments, which exceptions do not pickle by themselves."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__.copy())


def _restored(cls: type[_DetailedError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = cls.__new__(cls)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


# ── the pool ────────────────────────────────────────────────────────────────────


class PoolClosed(PoolError, trio.ClosedResourceError):
    """The pool is closed or closing, or has not been opened; it lends nothing."""


class AcquireTimeout(_DetailedError, trio.TooSlowError):
    """No connection could be had in time.

    Says in which phase the time went, who holds the connections, and the last connect error
    (which is also the cause).

    Attributes:
        endpoint: What was asked for.
        phase: Where the time ended: in the `"queue"`, while a dial made for this caller was
            under way (`"connect"`), or in a health check (`"check"`).
        waited: How long the caller waited, in seconds.
        stats: The endpoint's numbers when the time was up.
        holders: A line for each lease: task name, where it waits now, seconds held.
        deadlock: Whether every holder was itself waiting for the same endpoint.
        last_connect_error: The endpoint's last failed dial, if its last dial failed.
    """

    endpoint: Target
    phase: Literal["queue", "connect", "check"]
    waited: float
    stats: EndpointStats
    holders: tuple[str, ...]
    deadlock: bool
    last_connect_error: ConnectError | None

    def __init__(
        self,
        *,
        endpoint: Target,
        phase: Literal["queue", "connect", "check"],
        waited: float,
        stats: EndpointStats,
        holders: Sequence[str],
        deadlock: bool,
        last_connect_error: ConnectError | None,
        pool_name: str,
        held_by_caller: int = 0,
    ) -> None:
        self.endpoint = endpoint
        self.phase = phase
        self.waited = waited
        self.stats = stats
        self.holders = tuple(holders)
        self.deadlock = deadlock
        self.last_connect_error = last_connect_error
        when = f"within {duration(waited)}" if waited > 0 else "at once"
        head = f"no connection to {endpoint} {when}, phase {phase}; {_counts(stats, pool_name)}"
        super().__init__("\n".join([head, *self._explanation(held_by_caller)]))

    def _explanation(self, held_by_caller: int) -> Iterator[str]:
        if self.last_connect_error is not None:
            yield f"last connect error: {self.last_connect_error}"
        if self.holders:
            yield "held by:"
            yield from (f"  {holder}" for holder in self.holders[:_HOLDERS_SHOWN])
        if len(self.holders) > _HOLDERS_SHOWN:
            yield f"  and {len(self.holders) - _HOLDERS_SHOWN} more (see .holders)"
        if held_by_caller:
            yield f"the caller itself holds {held_by_caller} of them"
        if self.deadlock:
            yield (
                "deadlock: the callers themselves hold all the connections while they wait for"
                " another; acquire once and pass the connection on, or raise the limit above the"
                " number of tasks that nest"
            )
        elif self.phase == "queue":
            yield (
                "remedies: hold connections for less time; raise max_connections_per_endpoint or"
                " max_connections; turn callers away early with max_waiting_per_endpoint or"
                " queue_target_delay"
            )


class QueueFull(_DetailedError):
    """`max_waiting_per_endpoint` tasks wait already, or the queue sheds load.

    Attributes:
        endpoint: What was asked for.
        stats: The endpoint's numbers at that time.
    """

    endpoint: Target
    stats: EndpointStats

    def __init__(
        self, *, endpoint: Target, stats: EndpointStats, pool_name: str, shed: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.stats = stats
        why = "waits have been too long, load is shed" if shed else "too many tasks wait already"
        knob = "queue_target_delay" if shed else "max_waiting_per_endpoint"
        super().__init__(
            f"no connection to {endpoint}, phase queue: {why}; {_counts(stats, pool_name)}\n"
            "remedies: try again later; send fewer requests at once; hold connections for less"
            f" time; raise max_connections_per_endpoint or max_connections; raise {knob}"
        )


class CircuitOpen(_DetailedError):
    """The endpoint failed so often that the pool leaves it alone for a while.

    Attributes:
        endpoint: Which one.
        retry_after: In how many seconds the pool will try it again.
    """

    endpoint: AnyEndpoint
    retry_after: float

    def __init__(self, *, endpoint: AnyEndpoint, retry_after: float) -> None:
        self.endpoint = endpoint
        self.retry_after = retry_after
        # Nothing is left to wait for when the trials that half-open allows are under way.
        when = f"in {duration(retry_after)}" if retry_after > 0 else "by others right now"
        super().__init__(
            f"no connection to {endpoint}, phase connect: its circuit is open after repeated"
            f" failures; it is tried again {when}"
        )


class NoHealthyEndpoint(_DetailedError):
    """No server of a group can be used.

    Attributes:
        reasons: For each member, why not.
    """

    reasons: Mapping[AnyEndpoint, str]

    def __init__(self, *, reasons: Mapping[AnyEndpoint, str]) -> None:
        self.reasons = dict(reasons)
        lines = (f"  {endpoint}: {reason}" for endpoint, reason in reasons.items())
        count = len(self.reasons)
        super().__init__("\n".join([f"none of {count} servers can be used:", *lines]))


def _counts(stats: EndpointStats, pool_name: str) -> str:
    return (
        f"{stats.active} active, {stats.idle} idle, {stats.connecting} connecting,"
        f" {stats.closing} closing, {stats.waiting} waiting, limit {stats.limit}; pool {pool_name}"
    )


# ── the peer and the way to it ──────────────────────────────────────────────────


class ConnectError(_DetailedError, OSError):
    """A connection could not be opened; nothing of the attempt is left.

    Attributes:
        endpoint: Which one.
        phase: How far it came: `"resolve"`, `"tcp"` (which stands for UNIX sockets too),
            `"proxy"`, `"tls"` or `"open"` (the driver's).
        errno: The real one where the system gave one: of `"resolve"` the resolver's code
            (`socket.EAI_NONAME` …), otherwise one of the module `errno`.
        attempts: One error for each address tried.
    """

    endpoint: AnyEndpoint
    phase: Phase
    attempts: tuple[OSError, ...]

    def __init__(
        self,
        message: str,
        *,
        endpoint: AnyEndpoint,
        phase: Phase,
        errno: int | None = None,
        attempts: Sequence[OSError] = (),
    ) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.phase = phase
        self.errno = errno
        self.attempts = tuple(attempts)

    def __str__(self) -> str:
        code = "" if self.errno is None or isinstance(self, ResolveError) else _code(self.errno)
        head = f"cannot connect to {self.endpoint}, phase {self.phase}: {self.args[0]}{code}"
        if len(self.attempts) < 2:
            return head
        tried = [_said(attempt) for attempt in self.attempts[:_ATTEMPTS_SHOWN]]
        if len(self.attempts) > _ATTEMPTS_SHOWN:
            tried.append(f"and {len(self.attempts) - _ATTEMPTS_SHOWN} more")
        return f"{head}; tried {len(self.attempts)} addresses: {'; '.join(tried)}"

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError keeps errno in a place of its own, outside the instance's dictionary.
        return _restored, (type(self), self.args, self.__dict__ | {"errno": self.errno})


class ConnectTimeout(ConnectError):
    """It took longer than `connect_timeout`, or than the system waits; errno is ETIMEDOUT."""


class ResolveError(ConnectError):
    """The host name has no address, or the resolver did not say."""


class ProxyError(ConnectError):
    """The proxy could not be reached, or refused to tunnel."""


class TLSError(ConnectError):
    """No encrypted connection: a certificate was not accepted, or the handshake failed."""


class ResolveTimeout(ConnectTimeout, ResolveError):
    """The time was up while the host name was looked up."""


class ProxyTimeout(ConnectTimeout, ProxyError):
    """The time was up while the proxy was asked."""


class TLSTimeout(ConnectTimeout, TLSError):
    """The time was up in the TLS handshake."""


class LocalResourceError(ConnectError):
    """This machine ran out (EMFILE, ENFILE, ENOBUFS, EADDRNOTAVAIL); the peer is not to blame."""


def connect_timed_out(
    endpoint: AnyEndpoint, phase: Phase, seconds: float, attempts: Sequence[OSError] = ()
) -> ConnectTimeout:
    """The error for a dial that was in `phase` when its `connect_timeout` of `seconds` was up."""
    _, cls = _CLASSES[phase]
    return cls(
        f"timed out: connect_timeout of {duration(seconds)}",
        endpoint=endpoint,
        phase=phase,
        errno=codes.ETIMEDOUT,
        attempts=attempts,
    )


def as_connect_error(
    exc: Exception, endpoint: AnyEndpoint, phase: Phase, attempts: Sequence[OSError] = ()
) -> ConnectError:
    """Make a `ConnectError` of whatever was raised while connecting, with it as the cause.

    Args:
        exc: What a connector, a handshake or a driver raised. A `ConnectError` for the same
            endpoint is returned as it is.
        endpoint: What was dialled.
        phase: How far the dial had come.
        attempts: The errors of the addresses tried, where the connector noted them; otherwise
            those found in `exc`.
    """
    if isinstance(exc, ConnectError) and exc.endpoint == endpoint:
        return exc
    leaves = tuple(_leaves(exc))
    telling = min(leaves, key=_rank)
    phase = _true_phase(telling, phase)
    if phase == "tcp" and not attempts:
        attempts = [leaf for leaf in leaves if isinstance(leaf, OSError)]
    cls = _class_of(telling, phase)
    code = codes.ETIMEDOUT if issubclass(cls, ConnectTimeout) else _errno_of(telling)
    if cls is ResolveError and isinstance(telling, socket.gaierror):
        code = telling.errno
    said = _said(telling)
    if code == codes.EADDRNOTAVAIL and (local := getattr(endpoint, "local_address", None)):
        said += f" (from local address {local})"
    error = cls(said, endpoint=endpoint, phase=phase, errno=code, attempts=attempts)
    error.__cause__ = exc
    return error


# ── finding the class ───────────────────────────────────────────────────────────

# On Windows a socket's errors have numbers of their own, and not all of them are aliases.
_EXHAUSTED: Final = frozenset(
    {codes.EMFILE, codes.ENFILE, codes.ENOBUFS, codes.ENOMEM, getattr(codes, "WSAEMFILE", -1)}
)
_LOCAL: Final = _EXHAUSTED | {codes.EADDRNOTAVAIL}

# Of several errors, the one that tells most has the lowest rank. One address that was not tried for
# want of a descriptor may well be up, so that comes first; any answer comes before none.
_RANK: Final = dict.fromkeys(_EXHAUSTED, 0) | {
    codes.EHOSTUNREACH: 2,
    codes.EADDRNOTAVAIL: 3,
    codes.ENETUNREACH: 4,
    codes.EAFNOSUPPORT: 4,
    None: 5,
}

# Of each phase, the class of its errors and that of its time-outs.
_CLASSES: Final[Mapping[Phase, tuple[type[ConnectError], type[ConnectTimeout]]]] = {
    "resolve": (ResolveError, ResolveTimeout),
    "tcp": (ConnectError, ConnectTimeout),
    "proxy": (ProxyError, ProxyTimeout),
    "tls": (TLSError, TLSTimeout),
    "open": (ConnectError, ConnectTimeout),
}

_FOREIGN: Final = (ssl.SSLError, socket.gaierror)
"""OpenSSL's numbers and the resolver's look like the system's and mean something else."""

_TLS_HINTS: Final = {"WRONG_VERSION_NUMBER": " (does the server speak TLS on this port?)"}


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    """The errors that say something, without the wrappers around them."""
    if isinstance(exc, BaseExceptionGroup):
        for member in cast("BaseExceptionGroup[BaseException]", exc).exceptions:
            yield from _leaves(member)
    elif exc.__cause__ is not None and _is_wrapper(exc):
        yield from _leaves(exc.__cause__)
    else:
        yield exc


def _is_wrapper(exc: BaseException) -> bool:
    is_bare = isinstance(exc, OSError) and exc.errno is None
    is_grouped = isinstance(exc.__cause__, BaseExceptionGroup)
    return isinstance(exc, trio.BrokenResourceError) or (is_bare and is_grouped)


def _rank(leaf: BaseException) -> int:
    if isinstance(leaf, OSError) and not isinstance(leaf, _FOREIGN):
        return _RANK.get(leaf.errno, 1)
    return 1


def _errno_of(leaf: BaseException) -> int | None:
    """The system's number, if `leaf` has one."""
    if isinstance(leaf, OSError) and not isinstance(leaf, _FOREIGN):
        return leaf.errno
    return None


def _true_phase(leaf: BaseException, phase: Phase) -> Phase:
    if phase == "tcp" and isinstance(leaf, socket.gaierror):
        return "resolve"
    if phase == "tcp" and isinstance(leaf, ssl.SSLError):
        return "tls"
    return phase


def _class_of(leaf: BaseException, phase: Phase) -> type[ConnectError]:
    code = _errno_of(leaf)
    if code in _LOCAL:
        return LocalResourceError
    failed, timed_out = _CLASSES[phase]
    is_late = isinstance(leaf, TimeoutError | trio.TooSlowError) or code == codes.ETIMEDOUT
    return timed_out if is_late else failed


def _said(leaf: BaseException) -> str:
    """What an error says of itself, in one line if it can be helped."""
    match leaf:
        case ssl.SSLCertVerificationError(verify_message=said):
            return f"certificate verify failed: {said}"
        case ssl.SSLEOFError():
            return "unexpected end of file (the peer closed the connection)"
        case ssl.SSLError(reason=str(reason)):
            return reason + _TLS_HINTS.get(reason, "")
        case OSError() if leaf.strerror:
            return leaf.strerror
        case _:
            return _text(leaf)


def _text(leaf: BaseException) -> str:
    try:
        text = shorten(str(leaf), _TEXT_WIDTH)
    except Exception:  # noqa: BLE001 - it must not replace the error that is being explained
        text = ""
    name = type(leaf).__qualname__
    return f"{name}: {text}" if text else name


def _code(number: int) -> str:
    return f" [{codes.errorcode.get(number, f'errno {number}')}]"
