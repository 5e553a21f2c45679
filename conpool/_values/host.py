"""What can be a host: a name or an IP address, the same string to dial, to send and to verify."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from conpool._values.config_error import ConfigError, shown

MAX_HOST: Final = 253  # RFC 1035's 255 bytes on the wire, as text
# What the URL standard forbids in a host, the comma of libpq's lists of hosts, and what shows that
# somebody has given a list of options, perhaps with a password.
_FORBIDDEN: Final = frozenset("#/:<>?@[\\]^|%,=;&")
_HARMLESS: Final = re.compile(r"[\w.-]*")
# IDNA 2003 (Python's codec) and IDNA 2008 (trio, browsers) send these to different hosts.
_AMBIGUOUS: Final = frozenset("ßẞς\u200c\u200d")


def valid_host(name: str, value: object) -> str:
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
        # A URL or a list of options that is given as a host may hold a secret.
        what = shown(host) if _HARMLESS.fullmatch(host) else "what was given"
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
        return "write an IPv6 address without brackets"
    if ":" in host and "/" not in host:
        if _is_ipv6(host):
            return None
        return "it is not an IPv6 address (the port is an argument of its own)"
    return _forbidden_in(host)


def _forbidden_in(host: str) -> str | None:
    if "," in host:
        return "it has a comma (for several servers use EndpointGroup)"
    found = _FORBIDDEN.intersection(host)
    return f"it has a {min(found)!r} (for a URL use Endpoint.from_url)" if found else None


def _is_ipv6(host: str) -> bool:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return address.scope_id is None or not _FORBIDDEN.intersection(address.scope_id)


def _to_ascii(host: str) -> tuple[str, str | None]:
    """Encode once, so that one string is dialled, sent as SNI and verified."""
    try:
        encoded = host.encode("idna").decode("ascii")
    except UnicodeError:
        return host, "it is not a domain name (labels have 1 to 63 characters)"
    if len(encoded.removesuffix(".")) > MAX_HOST:
        return host, f"it is longer than {MAX_HOST} characters when encoded"
    # Normalisation can make delimiters out of other characters: ℀ becomes a/c.
    return encoded, _forbidden_in(encoded)
