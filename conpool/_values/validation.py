"""What every value of conpool shares: the two root errors and the checks.

A check takes the name of what it looks at, so that the error can say which one was wrong, and
returns what is to be stored. It shows the value too, unless it might be a secret.
"""

from __future__ import annotations

import ipaddress
import reprlib
from collections.abc import Hashable
from typing import Final


class PoolError(Exception):
    """Base of every error that conpool raises itself."""


class ConfigError(PoolError, ValueError):
    """A value that no pool could work with; raised before any socket exists."""


def shown(value: object) -> str:
    """Show a wrong value, cut short, for an error message."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an int with more digits than Python will print
        return f"a huge {type(value).__name__}"


# ── numbers ─────────────────────────────────────────────────────────────────────


def check_count(name: str, value: object, *, minimum: int) -> int:
    """Return a whole number of at least `minimum`.

    Raises:
        ConfigError: It is a bool, not an int, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} must be an int of at least {minimum}, not {shown(value)}")
    return int(value)


def check_seconds(name: str, value: object, *, positive: bool) -> float:
    """Return a duration in seconds, `math.inf` included; 0 only unless `positive`.

    Raises:
        ConfigError: It is a bool, not a number, NaN, too large for a float, or below the minimum.
    """
    seconds = _as_float(value)
    if seconds is None or not (seconds > 0 if positive else seconds >= 0):
        least = "more than 0" if positive else "0 or more"
        raise ConfigError(
            f"{name} must be {least} seconds (math.inf: no limit), not {shown(value)}"
        )
    return seconds


def check_share(name: str, value: object) -> float:
    """Return a number from 0 to 1.

    Raises:
        ConfigError: It is a bool, not a number, NaN, or outside.
    """
    share = _as_float(value)
    if share is None or not 0 <= share <= 1:
        raise ConfigError(f"{name} must be a number from 0 to 1, not {shown(value)}")
    return share


def _as_float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an int beyond 1.8e308
        return None


def check_flag(name: str, value: object) -> bool:
    """Return a bool, and nothing that is merely true or false.

    Raises:
        ConfigError: It is not a bool.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {shown(value)}")
    return value


def check_port(name: str, value: object) -> int:
    """Return a port number.

    trio dials ports modulo 65,536, so that one out of range would reach another server.

    Raises:
        ConfigError: It is a bool, not an int, or outside 1…65535.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be an int, not {type(value).__name__}")
    if not 1 <= value <= 65535:
        raise ConfigError(f"{name} must be from 1 to 65535, not {shown(value)}")
    return int(value)


# ── hosts ───────────────────────────────────────────────────────────────────────

MAX_HOST: Final = 253  # RFC 1035's 255 bytes on the wire, as text
# What the URL standard forbids in a host, and the comma of libpq's lists of hosts.
_FORBIDDEN: Final = frozenset("#/:<>?@[\\]^|%,")
# IDNA 2003 (Python's codec) and IDNA 2008 (trio, browsers) send these to different hosts.
_AMBIGUOUS: Final = frozenset("ßẞς\u200c\u200d")


def check_host(name: str, value: object) -> str:
    """Return a host name as an A-label, or an IP address as it was given.

    Case is kept: two spellings are two identities, and each is dialled and verified as written.
    An IPv6 address comes without brackets, with its zone (`fe80::1%eth0`) if it has one.

    Raises:
        ConfigError: It is not a str, empty, too long, has blanks, control characters or
            delimiters, or is neither a name that IDNA can encode nor an IP address.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a str, not {type(value).__name__}")
    host = str.__str__(value)
    problem = _problem_with_text(host) or _problem_with_shape(host)
    if problem is None and ":" not in host:
        host, problem = _to_ascii(host)
    if problem is not None:
        # A URL given as a host has an @ where it has a password.
        what = "what was given" if "@" in host else shown(host)
        raise ConfigError(f"{name} cannot be {what}: {problem}")
    return host


def _problem_with_text(host: str) -> str | None:
    if not host:
        return "it is empty"
    if len(host) > MAX_HOST + 1:
        return f"it is longer than {MAX_HOST} characters"
    if not _AMBIGUOUS.isdisjoint(host):
        return "IDNA 2003 and 2008 disagree on it (give the xn-- form)"
    if " " in host or not host.isprintable():
        return "it has a blank or a control character"
    return None


def _problem_with_shape(host: str) -> str | None:
    if host.startswith("["):
        return "an IPv6 address is given without brackets"
    if ":" in host and "/" not in host:
        return None if _is_ipv6(host) else "it is not an IPv6 address (the port is an argument)"
    return _forbidden_in(host)


def _forbidden_in(host: str) -> str | None:
    if "," in host:
        return "it has a comma (for several servers there is EndpointGroup)"
    found = _FORBIDDEN.intersection(host)
    return f"it has a {min(found)!r} (for a URL there is Endpoint.from_url)" if found else None


def _is_ipv6(host: str) -> bool:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return address.scope_id is None or not _FORBIDDEN.intersection(address.scope_id)


def _to_ascii(host: str) -> tuple[str, str | None]:
    """Encode once, here: what is dialled, sent as SNI and verified is one and the same string."""
    try:
        encoded = host.encode("idna").decode("ascii")
    except UnicodeError:
        return host, "it is not a domain name (labels have 1 to 63 characters)"
    if len(encoded.removesuffix(".")) > MAX_HOST:
        return host, f"it is longer than {MAX_HOST} characters when encoded"
    # Normalisation can make delimiters out of other characters: ℀ becomes a/c.
    return encoded, _forbidden_in(encoded)


# ── identity ────────────────────────────────────────────────────────────────────


def check_partition(value: Hashable) -> Hashable:
    """Return a partition that can be compared without surprises inside the pool.

    Raises:
        ConfigError: It is unhashable, its `__hash__` or `__eq__` raises, or it is not equal to
            itself. The message does not show it, since it may be a secret.
    """
    kind = type(value).__name__
    try:
        hash(value)
        # A stranger too: keys that look into `other` unasked fail only on a collision.
        equal = bool(value == value) and not bool(value == object())  # noqa: PLR0124
    except Exception as error:
        raise ConfigError(f"partition ({kind}) cannot be hashed and compared") from error
    if not equal:
        raise ConfigError(f"partition ({kind}) must equal itself, and not everything else")
    return value
