"""Makes a `ConnectError` of any exception that a connector, a handshake or a driver raised.

How `as_connect_error` chooses the class:

1. It looks for the true errors. trio hides those of TCP in a group, the cause of an `OSError`
   without errno. It hides that of TLS as the cause of a `BrokenResourceError` without text.
2. Of several errors it takes the most telling one. On a machine without IPv6, half of the attempts
   fail with "network unreachable" or "cannot assign address", whatever is wrong with the others.
3. If this machine ran out of something, it is a `LocalResourceError`, in every phase.
4. A time-out is a `ConnectTimeout`. If the phase has a class of its own, the error is of both.
5. Otherwise the phase decides. A connector may look names up or encrypt inside its "tcp" phase;
   such errors are recognised by their type. Of an exception that is no error of the system, and of
   one that comes from a stream, the phase is "open": something was wrong after the transport stood.

Exceptions of connectors and drivers may be anything: they may cause each other, be of any depth, or
raise when they are read. A walk through them is bounded, and the result is always a `ConnectError`.

A message shows the text of system errors, of TLS errors, and of exceptions that connectors and
drivers raise. The authors of these must keep secrets out of them, as their documentation says.
"""

from __future__ import annotations

import errno as codes
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeGuard, cast, get_args

import trio

from conpool._errors.connect import (
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    LocalResourceError,
    ProxyError,
    ProxyTimeout,
    ResolveError,
    ResolveTimeout,
    TLSError,
    TLSTimeout,
    number_of,
    said,
)
from conpool._stats.report import duration
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import DialPhase


def connect_timed_out(
    endpoint: AnyEndpoint, phase: DialPhase, seconds: float, attempts: Sequence[OSError] = ()
) -> ConnectTimeout:
    """Make the error for a dial that was in `phase` when its `connect_timeout` had passed."""
    _, cls = _CLASSES[phase]
    return cls(
        f"timed out: connect_timeout of {duration(seconds)}",
        endpoint=endpoint,
        phase=phase,
        errno=codes.ETIMEDOUT,
        attempts=attempts,
    )


def as_connect_error(
    exc: Exception, endpoint: AnyEndpoint, phase: DialPhase, attempts: Sequence[OSError] = ()
) -> ConnectError:
    """Make a `ConnectError` whose cause is `exc`.

    Args:
        exc: The exception of a connector, a handshake or a driver. A `ConnectError` for the same
            endpoint is returned as it is.
        endpoint: The endpoint that was dialled.
        phase: How far the dial had come.
        attempts: The errors of the addresses tried, if the connector noted them. Otherwise they
            are taken from `exc`.
    """
    try:
        error = exc if _is_about(exc, endpoint) else _explain(exc, endpoint, phase, attempts)
    except Exception:  # noqa: BLE001 - reading an exception can raise, too
        cls, _ = _CLASSES[phase]
        error = cls(type(exc).__qualname__, endpoint=endpoint, phase=phase, attempts=attempts)
    if error is not exc:
        error.__cause__ = exc
    return error


def _is_about(exc: BaseException, endpoint: AnyEndpoint) -> TypeGuard[ConnectError]:
    """Whether `exc` is a whole `ConnectError` for `endpoint`, which can be passed on as it is."""
    return (
        isinstance(exc, ConnectError)
        and exc.endpoint == endpoint
        and exc.phase in get_args(DialPhase)
        and exc.errno == number_of(exc)
        and isinstance(cast("object", exc.attempts), tuple)
        and bool(str(exc))
    )


def _explain(
    exc: Exception, endpoint: AnyEndpoint, phase: DialPhase, attempts: Sequence[OSError]
) -> ConnectError:
    leaves = tuple(_leaves(exc))
    telling = min(leaves, key=_rank)
    phase = _true_phase(phase, exc, leaves, telling)
    if phase == "tcp" and not attempts:
        attempts = [leaf for leaf in leaves if isinstance(leaf, OSError)]
    cls = _class_of(telling, phase)
    code = codes.ETIMEDOUT if issubclass(cls, ConnectTimeout) else _errno_of(telling)
    if cls is ResolveError and isinstance(telling, socket.gaierror):
        code = number_of(telling)
    text = said(telling)
    if code == codes.EADDRNOTAVAIL and (local := getattr(endpoint, "local_address", None)):
        text += f" (from local address {local})"
    return cls(text, endpoint=endpoint, phase=phase, errno=code, attempts=attempts)


# ── finding the class ───────────────────────────────────────────────────────────

# On Windows sockets have error numbers of their own; not all of them are aliases.
_EXHAUSTED: Final = frozenset(
    {codes.EMFILE, codes.ENFILE, codes.ENOBUFS, codes.ENOMEM, getattr(codes, "WSAEMFILE", -1)}
)
_LOCAL: Final = _EXHAUSTED | {codes.EADDRNOTAVAIL}

# The most telling error has the lowest rank. Exhaustion comes first: the address that we had no
# descriptor to try may be up. Then comes any answer, then the lack of an answer.
_RANK: Final = dict.fromkeys(_EXHAUSTED, 0) | {
    codes.EHOSTUNREACH: 2,
    codes.EADDRNOTAVAIL: 3,
    codes.ENETUNREACH: 4,
    codes.EAFNOSUPPORT: 4,
    None: 5,
}

# For each phase, the class of its errors and the class of its time-outs.
_CLASSES: Final[Mapping[DialPhase, tuple[type[ConnectError], type[ConnectTimeout]]]] = {
    "resolve": (ResolveError, ResolveTimeout),
    "tcp": (ConnectError, ConnectTimeout),
    "proxy": (ProxyError, ProxyTimeout),
    "tls": (TLSError, TLSTimeout),
    "open": (ConnectError, ConnectTimeout),
}

_FOREIGN: Final = (ssl.SSLError, socket.gaierror)
"""The numbers of OpenSSL and of the resolver look like the system's, but mean something else."""


_MOST_LOOKED_AT: Final = 1_000
"""How many exceptions inside groups and wrappers are looked at."""


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    """Find the errors that say something, inside groups and wrappers; at least one."""
    left = [exc]
    seen: set[int] = set()
    found = False
    while left and len(seen) < _MOST_LOOKED_AT:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, BaseExceptionGroup):
            left += reversed(cast("BaseExceptionGroup[BaseException]", one).exceptions)
        elif one.__cause__ is not None and _is_wrapper(one):
            left.append(one.__cause__)
        else:
            found = True
            yield one
    if not found:
        yield exc


def _is_wrapper(exc: BaseException) -> bool:
    is_bare = isinstance(exc, OSError) and number_of(exc) is None
    is_grouped = isinstance(exc.__cause__, BaseExceptionGroup)
    return isinstance(exc, trio.BrokenResourceError) or (is_bare and is_grouped)


def _rank(leaf: BaseException) -> int:
    if isinstance(leaf, OSError) and not isinstance(leaf, _FOREIGN):
        return _RANK.get(number_of(leaf), 1)
    return 1


def _errno_of(leaf: BaseException) -> int | None:
    """Return the system's number, if `leaf` has one."""
    return None if isinstance(leaf, _FOREIGN) else number_of(leaf)


def _true_phase(
    phase: DialPhase,
    exc: BaseException,
    leaves: Sequence[BaseException],
    telling: BaseException,
) -> DialPhase:
    if phase != "tcp":
        return phase
    if isinstance(telling, socket.gaierror):
        return "resolve"
    if isinstance(telling, ssl.SSLError):
        return "tls"
    # Connecting raises errors of the system. Whatever else a connector raises comes later, from
    # the login, say; and only a stream that is open can break.
    while isinstance(exc, BaseExceptionGroup):
        exc = cast("BaseExceptionGroup[BaseException]", exc).exceptions[0]
    is_of_system = any(map(_is_of_connecting, leaves))
    is_of_stream = isinstance(exc, trio.BrokenResourceError | trio.ClosedResourceError)
    return "tcp" if is_of_system and not is_of_stream else "open"


def _is_of_connecting(leaf: BaseException) -> bool:
    """Whether `leaf` may be what connecting raises.

    The system's own errors have numbers. Without one, these two are a connector's words for a login
    that was refused.
    """
    if isinstance(leaf, PermissionError) or type(leaf) is ConnectionError:
        return number_of(leaf) is not None
    return isinstance(leaf, OSError | trio.TooSlowError)


def _class_of(leaf: BaseException, phase: DialPhase) -> type[ConnectError]:
    code = _errno_of(leaf)
    if code in _LOCAL:
        return LocalResourceError
    failed, timed_out = _CLASSES[phase]
    if code == codes.ECONNREFUSED and phase == "tcp":
        return ConnectRefused
    is_late = isinstance(leaf, TimeoutError | trio.TooSlowError) or code == codes.ETIMEDOUT
    return timed_out if is_late else failed
