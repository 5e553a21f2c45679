"""Where to connect and how: the identity under which connections are shared.

Everything that could make two connections different is a field here and takes part in equality.
Most of curl's advisories about wrongly shared connections are about a forgotten field, so `Value`
compares every field that `_seal` is given.

The constructors refuse values that cannot work, or that work less safely than they look: trio
dials ports modulo 65,536, cuts a host at a NUL, and verifies no host name if it is given none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, TypeAlias, cast, final

from conpool._values.config_error import ConfigError
from conpool._values.host import valid_host
from conpool._values.login import Login, with_login
from conpool._values.proxy import HTTPProxy, SOCKS5Proxy
from conpool._values.tls import TLS, certificate_name, valid_tls, valid_tls_only
from conpool._values.url import parse_url
from conpool._values.validation import valid_instance, valid_partition, valid_port
from conpool._values.value import HIDDEN, Value, call_text


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Endpoint(Value):
    """One TCP peer. Immutable and hashable; every field is part of its identity.

    Two acquisitions share a connection only if their endpoints are equal. `str` is short, for
    people. Neither `str` nor `repr` shows a password, the partition or a proxy's credentials.

    >>> from conpool import Endpoint
    >>> print(Endpoint("example.org", 443, tls=True))
    example.org:443 (TLS)
    >>> Endpoint("example.org", 443) == Endpoint("example.org", 443, partition="tenant 7")
    False

    The host is kept as given, its case too: `Example.org` and `example.org` are two endpoints,
    each dialled, sent as SNI and verified as written. There are two exceptions. An international
    name becomes its A-label: `bücher.example` and `xn--bcher-kva.example` are one endpoint. A dot
    at the end of a name is dialled, but neither sent nor verified.

    Args:
        host: A name, an IPv4 address, or an IPv6 address without brackets, with its zone if it
            has one. Only a dial finds out whether the zone exists.
        port: 1 to 65535.
        tls: How to encrypt from the first byte; True means `TLS()`.
        proxy: Dial through this proxy.
        local_address: Dial from this address of this machine.
        login: Who speaks, to which database. The pool does not log in; a driver does.
        partition: The caller's own part of the identity (a tenant, say). It is compared as a dict
            compares keys, so that 1, 1.0 and True are one partition.

    Raises:
        ConfigError: The host or port cannot be dialled, a field has the wrong type, a host with a
            zone is behind a proxy, or the partition cannot be hashed and compared.
    """

    __slots__ = ("host", "local_address", "login", "partition", "port", "proxy", "tls")

    host: str
    port: int
    tls: TLS | None
    proxy: HTTPProxy | SOCKS5Proxy | None
    local_address: str | None
    login: Login | None
    partition: Hashable

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: TLS | bool = False,
        proxy: HTTPProxy | SOCKS5Proxy | None = None,
        local_address: str | None = None,
        login: Login | None = None,
        partition: Hashable = None,
    ) -> None:
        host = valid_host("host", host)
        if local_address is not None:
            local_address = valid_host("local_address", local_address)
        self._seal(
            host=host,
            port=valid_port("port", port),
            tls=valid_tls(tls),
            proxy=_check_proxy(proxy, host),
            local_address=local_address,
            login=_check_login(login),
            partition=valid_partition(partition),
        )

    @classmethod
    def from_url(cls, url: str, *, tls: TLS | None = None) -> AnyEndpoint:
        """Make an endpoint of a URL: `rediss://user:pw@host:6380/0`, `unix:///run/x.sock`.

        ====================  ===========  =================================
        scheme                port         login
        ====================  ===========  =================================
        http, https           80, 443      none
        redis, rediss         6379         user, password, number (0)
        postgres, postgresql  5432         user, password, database
        mysql                 3306         user, password, database
        amqp, amqps           5672, 5671   user, password, virtual host (/)
        memcached             11211        none
        tcp, tls              to be given  none
        unix                  none         none
        ====================  ===========  =================================

        Where a scheme has no login, credentials and path are dropped. Where it has one but the URL
        does not, the login is None. A lone word before the @ is a user name, and is shown: a
        password alone is written `:pw@`. Except in an http URL, an option that sets TLS or belongs
        elsewhere in the URL is refused; all other options are dropped. An error shows nothing of
        what follows the scheme, except the name of an option.

        Args:
            url: The URL, with reserved characters of a password percent-encoded.
            tls: Encrypt like this, from the first byte, whatever the scheme says.

        Raises:
            ConfigError: The scheme is unknown; there is no host; the port is missing or cannot be
                dialled; an option sets TLS (`sslmode`) or belongs elsewhere in the URL
                (`password`); there is a fragment; the text is not properly percent-encoded.
        """
        tls = valid_tls_only(tls)
        parsed = parse_url(url)
        if not parsed.host:
            return UnixEndpoint(parsed.path, tls=tls)
        return cls(parsed.host, parsed.port, tls=tls or parsed.encrypted, login=parsed.login)

    def __str__(self) -> str:
        notes = ["TLS"] if self.tls is not None else []
        if self.proxy is not None:
            notes.append(f"via {_address(self.proxy.host, self.proxy.port)}")
        text = with_login(_address(self.host, self.port), self.login)
        return text + (f" ({', '.join(notes)})" if notes else "")

    def __repr__(self) -> str:
        return call_text(
            "Endpoint",
            repr(self.host),
            repr(self.port),
            tls=self.tls,
            proxy=self.proxy,
            local_address=self.local_address,
            login=self.login,
            partition=_hide(self.partition),
        )


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class UnixEndpoint(Value):
    """One peer behind a UNIX socket; paths are compared as text.

    >>> from conpool import Login, UnixEndpoint
    >>> login = Login("app", "secret", database="orders")
    >>> print(UnixEndpoint("/run/postgresql/.s.PGSQL.5432", login=login))
    app@unix:/run/postgresql/.s.PGSQL.5432:/orders
    >>> print(UnixEndpoint(chr(0) + "bus"))  # Linux's abstract namespace
    unix:@bus

    Args:
        path: Where the socket is. A relative path starts from the program's working directory at
            the time of the dial. Bytes, and a path object that gives bytes, are decoded as
            `os.fsdecode` does. A leading NUL means the abstract namespace.
        tls: How to encrypt; a context that checks host names needs a `server_hostname`.
        login: Who speaks, to which database.
        partition: The caller's own part of the identity.

    Raises:
        ConfigError: The path is empty, longer than the system allows (107 bytes on Linux) or has a
            NUL inside; `tls` has nothing to verify; the partition cannot be hashed and compared.
    """

    __slots__ = ("login", "partition", "path", "tls")

    path: str
    tls: TLS | None
    login: Login | None
    partition: Hashable

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        tls: TLS | None = None,
        login: Login | None = None,
        partition: Hashable = None,
    ) -> None:
        tls = valid_tls_only(tls)
        if tls is not None and tls.server_hostname is None and tls.context.check_hostname:
            # trio would silently verify nothing.
            raise ConfigError(
                "TLS over a UNIX socket needs TLS(server_hostname=...): the context checks host "
                "names and there is none to check"
            )
        self._seal(
            path=_check_path(path),
            tls=tls,
            login=_check_login(login),
            partition=valid_partition(partition),
        )

    def __str__(self) -> str:
        path = self.path.replace("\0", "@")
        shown_path = path if path.isprintable() else ascii(path)[1:-1]
        # A slash alone would make the database a part of the path.
        text = with_login(f"unix:{shown_path}", self.login, slash=":/")
        return f"{text}{' (TLS)' if self.tls is not None else ''}"

    def __repr__(self) -> str:
        return call_text(
            "UnixEndpoint",
            repr(self.path),
            tls=self.tls,
            login=self.login,
            partition=_hide(self.partition),
        )


AnyEndpoint: TypeAlias = Endpoint | UnixEndpoint


def server_name(target: Endpoint | UnixEndpoint | HTTPProxy) -> str | None:
    """Return the name to send and verify in a TLS handshake with `target` itself.

    It is None without TLS, and for a UNIX socket whose context checks no names.
    """
    if target.tls is None:
        return None
    if target.tls.server_hostname is not None or isinstance(target, UnixEndpoint):
        return target.tls.server_hostname
    return certificate_name(target.host)


def _check_proxy(proxy: object, host: str) -> HTTPProxy | SOCKS5Proxy | None:
    if proxy is None:
        return None
    if not isinstance(proxy, HTTPProxy | SOCKS5Proxy):
        raise ConfigError(f"proxy must be an HTTPProxy or SOCKS5Proxy, not {type(proxy).__name__}")
    if "%" in host:
        raise ConfigError("a zone names an interface of this machine: a proxy cannot use it")
    return proxy


def _check_login(login: Login | None) -> Login | None:
    return None if login is None else valid_instance("login", login, Login)


# sun_path has 108 bytes on Linux and 104 on the BSDs and macOS, with the NUL that ends it.
_MAX_PATH: Final = 107 if sys.platform == "linux" else 103


def _check_path(path: object) -> str:
    if not isinstance(path, str | bytes | os.PathLike):
        raise ConfigError(f"path must be a str or a path object, not {type(path).__name__}")
    try:
        text = os.fsdecode(cast("os.PathLike[str]", path))
        size = len(os.fsencode(text))
    except (UnicodeError, TypeError):  # TypeError: a path object returned no path
        raise ConfigError("path cannot be encoded for this system") from None
    if text in ("", "\0"):
        raise ConfigError("path must not be empty")
    if "\0" in text[1:]:
        raise ConfigError("path can have a NUL only at its start (the abstract namespace)")
    if size > _MAX_PATH:
        raise ConfigError(f"path must have at most {_MAX_PATH} bytes, not {size}")
    return text


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _hide(partition: Hashable) -> str | None:
    return None if partition is None else HIDDEN
