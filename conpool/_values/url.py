"""Read a URL into the parts of an endpoint, for `Endpoint.from_url`.

A URL may hold a password, and a mistyped URL may hold it anywhere: a raw `/` in a password makes
its first half a port and the rest a path. So no message here shows any part of the URL after its
scheme, except the name of an option, and no exception is chained to one that does.

1. This module splits the text itself, because `urllib.parse.urlsplit` drops newlines, folds case
   and shows parts of the URL in its errors.
2. The scheme gives the default port, whether TLS is on from the first byte, and what a session is.
3. Host and port are checked by the rules of an endpoint.
4. User, password and database become a `Login`, where the scheme has sessions to tell apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote

from conpool._values.config_error import ConfigError
from conpool._values.host import valid_host
from conpool._values.login import Login
from conpool._values.validation import valid_port


class Parsed(NamedTuple):
    """The parts of a URL. A UNIX socket has a path and no host."""

    host: str
    port: int
    path: str
    encrypted: bool
    login: Login | None


_Session = Literal["none", "name", "number", "vhost"]


class _Scheme(NamedTuple):
    port: int | None
    encrypted: bool = False
    session: _Session = "none"


_SCHEMES: Final[Mapping[str, _Scheme]] = {
    "http": _Scheme(80),
    "https": _Scheme(443, encrypted=True),
    "redis": _Scheme(6379, session="number"),
    "rediss": _Scheme(6379, encrypted=True, session="number"),
    "postgres": _Scheme(5432, session="name"),
    "postgresql": _Scheme(5432, session="name"),
    "mysql": _Scheme(3306, session="name"),
    "memcached": _Scheme(11211),
    "amqp": _Scheme(5672, session="vhost"),
    "amqps": _Scheme(5671, encrypted=True, session="vhost"),
    "tcp": _Scheme(None),
    "tls": _Scheme(None, encrypted=True),
    "unix": _Scheme(None),
}

# In an http URL, query and fragment belong to the request and not to the connection.
_HTTP: Final = frozenset({"http", "https"})

# Options of TLS without "tls" or "ssl" in their name: AMQP's, and those of MySQL's connectors.
_TLS_OPTIONS: Final = frozenset(
    {"cacertfile", "certfile", "keyfile", "verify", "verifypeer", "servernameindication"}
)
# Options that name another server or session: to drop them would connect to the wrong one.
_MISPLACED: Final = frozenset(
    {"user", "username", "password", "passwd", "host", "hostaddr", "hostname", "port"}
    | {"db", "dbname", "database", "vhost", "virtualhost", "path", "socket", "unixsocket"}
)

_SPLIT: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?",
    re.DOTALL,
)


def parse_url(url: object) -> Parsed:
    """Read a URL; raise `ConfigError` as `Endpoint.from_url` says."""
    if not isinstance(url, str):
        raise ConfigError(f"a URL must be a str, not {type(url).__name__}")
    split = _SPLIT.fullmatch(url)
    if split is None:
        raise ConfigError("a URL must start with a scheme and ://")
    scheme, authority, path, query, fragment = split.groups(default="")
    scheme = scheme.lower()
    rules = _SCHEMES.get(scheme)
    if rules is None:
        raise ConfigError(f"unknown scheme {scheme}://; known are {', '.join(_SCHEMES)}")
    if "\\" in authority:
        # Some read it as a slash, which ends the host: they would go to another server.
        raise ConfigError(f"a {scheme} URL must percent-encode a backslash (%5C)")
    if " " in url or not url.isprintable():
        raise ConfigError(f"a {scheme} URL must percent-encode blanks and control characters")
    if scheme not in _HTTP:
        _check_rest(scheme, path, query, fragment)
    if scheme == "unix":
        return _parse_unix(authority, path)
    userinfo, at, address = authority.rpartition("@")
    host, port = _parse_address(scheme, address, rules.port)
    login = _parse_login(scheme, rules.session, userinfo if at else "", path)
    return Parsed(host, port, "", rules.encrypted, login)


def _check_rest(scheme: str, path: str, query: str, fragment: str) -> None:
    """Refuse a fragment, an @ or an option that shows a mistake."""
    if fragment or "@" in path or "@" in query:
        # Most likely a password has a raw /, ? or #, and what stands before that became the host.
        raise ConfigError(
            f"a {scheme} URL has no fragment, and no @ after its address; "
            "percent-encode / ? # and @ in a password (%2F %3F %23 %40)"
        )
    for option, value in parse_qsl(query, keep_blank_values=True):
        plain = option.lower().replace("_", "").replace("-", "")
        if "ssl" in plain or "tls" in plain or plain in _TLS_OPTIONS:
            raise ConfigError(
                f"the URL sets {plain}: TLS is set by the scheme or by the argument tls"
            )
        if plain == "host" and _is_path(value):
            raise ConfigError(_LIBPQ_SOCKET)
        if plain in _MISPLACED:
            raise ConfigError(f"the URL sets {plain} as an option: put it before the ?")


def _is_path(host: str) -> bool:
    """Whether a host is libpq's way to write the folder of a UNIX socket."""
    return host.startswith("/")


_LIBPQ_SOCKET: Final = (
    "the URL names the folder of a UNIX socket, as libpq understands it: write"
    " UnixEndpoint(path, login=Login(user, password, database)) with the path of the socket"
    " itself, /run/postgresql/.s.PGSQL.5432 for instance"
)


def _parse_unix(authority: str, path: str) -> Parsed:
    if authority:
        raise ConfigError("a unix URL has three slashes and no host: unix:///run/x.sock")
    return Parsed("", 0, _decoded("path", path), False, None)


def _parse_address(scheme: str, address: str, default: int | None) -> tuple[str, int]:
    if address.startswith("["):
        host, bracket, after = address[1:].partition("]")
        # RFC 6874 writes the % before a zone as %25.
        host = host.replace("%25", "%", 1)
        valid = bracket == "]" and ":" in host and (not after or after.startswith(":"))
        digits = after[1:]
    else:
        host, _, digits = address.partition(":")
        host = _decoded("host", host)
        valid = ":" not in host
    if digits and not (digits.isascii() and digits.isdigit() and len(digits) <= 5):
        valid = False
    port = int(digits) if valid and digits else default
    if scheme.startswith("postgres") and _is_path(host):
        raise ConfigError(_LIBPQ_SOCKET)
    if port is None and valid:
        raise ConfigError(f"a {scheme} URL needs a port")
    if not valid or not _passes(valid_host, host) or not _passes(valid_port, port):
        raise ConfigError(
            f"the {scheme} URL's host or port cannot be dialled; "
            "percent-encode / ? # and @ in a password"
        )
    return valid_host("host", host), valid_port("port", port)


def _passes(check: Callable[[str, object], object], value: object) -> bool:
    """Return whether `check` accepts the value; drop its error, which would show the value."""
    try:
        check("", value)
    except ConfigError:
        return False
    return True


def _parse_login(scheme: str, session: _Session, userinfo: str, path: str) -> Login | None:
    """Return everything that tells sessions apart, and nothing else; None if there is nothing."""
    if session == "none":
        return None
    user, colon, password = userinfo.partition(":")
    username = _clean("user", _decoded("user", user)) or None
    database = _parse_database(scheme, session, path)
    if username is None and database is None and not colon:
        return None
    return Login(username, _decoded("password", password) if colon else None, database)


def _parse_database(scheme: str, session: _Session, path: str) -> str | None:
    name = _clean("path", _decoded("path", path[1:]))
    if session == "number":
        if not name:
            return "0"  # what a redis server selects by itself
        if not (name.isascii() and name.isdigit() and len(name) <= 9):
            raise ConfigError(f"the path of a {scheme} URL is the number of a database")
        return str(int(name))
    if session == "vhost":
        # An AMQP URL without a path means the default virtual host; a path of / means the virtual
        # host with an empty name.
        return name if path else "/"
    return name or None


def _clean(part: str, text: str) -> str:
    if not text.isprintable():
        raise ConfigError(f"the URL's {part} has a control character")
    return text


def _decoded(part: str, text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        pass  # raise below, unchained: this error holds the text that could not be decoded
    raise ConfigError(f"the URL's {part} is not percent-encoded UTF-8")
