"""Errors about the peer and the way to it: the pool could not open a connection."""

from __future__ import annotations

import errno as codes
import os
import pickle
import ssl
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

import trio

from conpool._stats.report import shorten
from conpool._values.config_error import PoolError
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import DialPhase

MAX_ATTEMPTS: Final = 32
"""How many attempts an error keeps: those of one dial to 16 addresses of each family."""

_ATTEMPTS_SHOWN: Final = 5
_TEXT_WIDTH: Final = 300
"""Some exceptions have a whole reply as their text, too long for a message in a terminal."""

_TLS_HINTS: Final = {"WRONG_VERSION_NUMBER": " (does the server speak TLS on this port?)"}


class DetailedError(PoolError):
    """An error that can be pickled although its constructor takes keyword arguments."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__.copy())


def _restored(cls: type[DetailedError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = cls.__new__(cls)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class ConnectError(DetailedError, OSError):
    """The pool could not open a connection; no socket of the attempt is left open.

    Attributes:
        endpoint: The endpoint that was dialled.
        phase: How far the dial came: `"resolve"`, `"tcp"` (UNIX sockets too), `"proxy"`, `"tls"`
            or `"open"` (the driver's).
        errno: The system's number, or None: in the phase `"resolve"` a code of the resolver
            (`socket.EAI_NONAME` …), otherwise a number of the module `errno`.
        strerror: What the number means; None if there is no number.
        attempts: One error for each address tried, at most 32.
    """

    endpoint: AnyEndpoint
    phase: DialPhase
    attempts: tuple[OSError, ...]
    errno: int | None
    strerror: str | None

    def __init__(
        self,
        message: str,
        *,
        endpoint: AnyEndpoint,
        phase: DialPhase,
        errno: int | None = None,
        attempts: Iterable[OSError] = (),
    ) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.phase = phase
        self.attempts = tuple(islice(attempts, MAX_ATTEMPTS))
        self.errno = errno if _is_number(errno) else None
        if self.errno is not None:
            # The resolver's numbers are not the system's.
            is_system = phase != "resolve" or isinstance(self, ConnectTimeout | LocalResourceError)
            self.strerror = os.strerror(self.errno) if is_system else message

    def __str__(self) -> str:
        code = "" if self.errno is None or isinstance(self, ResolveError) else _code(self.errno)
        head = f"cannot connect to {self.endpoint}, phase {self.phase}: {self.args[0]}{code}"
        if len(self.attempts) < 2:
            return head
        tried = [said(attempt) for attempt in self.attempts[:_ATTEMPTS_SHOWN]]
        if len(self.attempts) > _ATTEMPTS_SHOWN:
            tried.append(f"and {len(self.attempts) - _ATTEMPTS_SHOWN} more")
        return f"{head}; tried {len(self.attempts)} addresses: {'; '.join(tried)}"

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError keeps its errno outside the instance's dictionary.
        numbered = {} if self.errno is None else {"errno": self.errno, "strerror": self.strerror}
        attempts = tuple(map(_picklable, self.attempts))
        return _restored, (type(self), self.args, self.__dict__ | numbered | {"attempts": attempts})


class ConnectRefused(ConnectError, ConnectionRefusedError):
    """Nobody listens there: every address that answered has refused; errno is `ECONNREFUSED`.

    `except ConnectionRefusedError` catches it, as it would without a pool. A proxy that refuses is
    a `ProxyError`.
    """


class ConnectTimeout(ConnectError, trio.TooSlowError):
    """The dial took longer than `connect_timeout` or the system allows; errno is `ETIMEDOUT`."""


class ResolveError(ConnectError):
    """The host name has no address, or the resolver failed."""


class ProxyError(ConnectError):
    """The proxy could not be reached, or refused to tunnel."""


class TLSError(ConnectError):
    """The TLS handshake failed, for instance because one side refused a certificate."""


class ResolveTimeout(ConnectTimeout, ResolveError):
    """The time ran out during the look-up of the host name."""


class ProxyTimeout(ConnectTimeout, ProxyError):
    """The time ran out on the way to the proxy, or before it opened the tunnel."""


class TLSTimeout(ConnectTimeout, TLSError):
    """The time ran out in the TLS handshake."""


class LocalResourceError(ConnectError):
    """This machine ran out of files, memory or ports (`EMFILE` …); the peer is not to blame."""


def _code(number: int) -> str:
    return f" [{codes.errorcode.get(number, f'errno {number}')}]"


def _is_number(code: object) -> bool:
    """Whether a C int can hold `code`: an exception of somebody else's may have any errno."""
    return isinstance(code, int) and abs(code) < 2**31


def _picklable(attempt: OSError) -> OSError:
    """Return `attempt`, or a plain error in its place if it does not survive pickling."""
    try:
        pickle.loads(pickle.dumps(attempt))  # noqa: S301 - what we have just written
    except Exception:  # noqa: BLE001 - a connector's own error may refuse in any way
        return OSError(number_of(attempt), said(attempt))
    return attempt


# ── what an exception of any kind says ──────────────────────────────────────────
#
# Connectors and drivers raise what they like, and what they raise may itself raise when it is read.


def number_of(error: BaseException) -> int | None:
    """Return the errno of an error, if it has one that is a number."""
    try:
        code = error.errno if isinstance(error, OSError) else None
    except Exception:  # noqa: BLE001 - a property may raise anything
        return None
    return code if _is_number(code) else None


def said(leaf: BaseException) -> str:
    """Return the text of an error, in one line if possible."""
    try:
        return shorten(_own_words(leaf) or _text(leaf), _TEXT_WIDTH)
    except Exception:  # noqa: BLE001 - it must not replace the error that we explain
        return type(leaf).__qualname__


def _own_words(leaf: BaseException) -> str | None:
    match leaf:
        case ConnectError():
            return None  # its text has more than its `strerror`
        case ssl.SSLCertVerificationError(verify_message=message):
            return f"certificate verify failed: {message}"
        case ssl.SSLEOFError():
            return "unexpected end of file (the peer closed the connection)"
        case ssl.SSLError(reason=str(reason)):
            return reason + _TLS_HINTS.get(reason, "")
        case OSError(strerror=str(strerror)):
            return strerror
        case _:
            return None


def _text(leaf: BaseException) -> str:
    text = str(leaf)
    name = type(leaf).__qualname__
    return f"{name}: {text}" if text else name
