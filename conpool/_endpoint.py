"""Where to connect and how: the identity under which connections are shared.

Everything that could make two connections different is a field here and takes part in equality.
Most of curl's advisories for connections that matched when they should not have are about a field
that somebody forgot, so `Value` compares whatever `_seal` was given.

What is refused is what cannot work or would work less safely than it looks: trio dials ports
modulo 65,536, cuts a host at a NUL, and verifies no host name at all if it is given none.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from ._checks import (
    ConfigError,
    Value,
    check_flag,
    check_host,
    check_partition,
    check_port,
    shown,
)
from ._url import parse_url

_HIDDEN: Final = "<hidden>"

# ── TLS ─────────────────────────────────────────────────────────────────────────

# One for each alpn tuple, for good: a program has a handful, and a context that came and went
# with its endpoints would load the authorities (tens of milliseconds) again and again.
_shared_contexts: Final[dict[tuple[str, ...], ssl.SSLContext]] = {}


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class TLS(Value):
    """How to encrypt, and whom to expect at the other end.

    Without `context`, one shared `ssl.create_default_context()` for each `alpn` tuple, built when
    first asked for (that reads the machine's authorities). A context is part of the identity as
    the object it is, and is taken to be immutable: to rotate a certificate, build a new context,
    or call `clear` on the pool after changing this one.

    >>> from conpool import TLS, Endpoint
    >>> Endpoint("192.0.2.7", 443, tls=TLS(server_hostname="example.org"))
    Endpoint('192.0.2.7', 443, tls=TLS(server_hostname='example.org'))
    >>> TLS(alpn=["h2", "http/1.1"]).context is TLS(alpn=["h2", "http/1.1"]).context
    True

    Args:
        context: A client's context of your own.
        server_hostname: The name to send (SNI) and to verify; the endpoint's host by default. A
            trailing dot is dropped and an international name encoded; case is kept.
        alpn: Protocols to offer, the preferred first.
        https_compatible: Take a connection that ends without close_notify as ended, as web
            servers do, rather than as broken.

    Raises:
        ConfigError: The context is no `ssl.SSLContext`, a server's, or compares otherwise than by
            identity; `alpn` beside a context of one's own (set it on the context); a protocol
            that is not 1 to 255 ASCII characters; a server name that is no host.
    """

    __slots__ = ("alpn", "context", "https_compatible", "server_hostname")

    context: ssl.SSLContext
    server_hostname: str | None
    alpn: tuple[str, ...]
    https_compatible: bool

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        *,
        server_hostname: str | None = None,
        alpn: Iterable[str] = (),
        https_compatible: bool = False,
    ) -> None:
        protocols = _check_alpn(alpn)
        name = server_hostname
        if name is not None:
            name = _without_dot_or_zone(check_host("server_hostname", name))
        self._seal(
            context=_check_context(context, protocols),
            server_hostname=name,
            alpn=protocols,
            https_compatible=check_flag("https_compatible", https_compatible),
        )

    def __repr__(self) -> str:
        shared = self.context is _shared_contexts.get(self.alpn)
        return _call(
            "TLS",
            *(() if shared else (f"<{type(self.context).__name__}>",)),
            server_hostname=self.server_hostname,
            alpn=self.alpn,
            https_compatible=self.https_compatible,
        )

    def _arguments(self) -> Mapping[str, object]:
        arguments = dict(super()._arguments())
        if self.context is _shared_contexts.get(self.alpn):
            del arguments["context"]  # it is not picklable, and the other process has its own
        return arguments


def _check_alpn(alpn: object) -> tuple[str, ...]:
    if isinstance(alpn, str | bytes) or not isinstance(alpn, Iterable):
        raise ConfigError(f"alpn must be several names of protocols, not {shown(alpn)}")
    protocols = tuple(alpn)
    for protocol in protocols:
        fits = isinstance(protocol, str) and protocol.isascii() and 1 <= len(protocol) <= 255
        if not fits:
            raise ConfigError(
                f"a protocol in alpn has 1 to 255 ASCII characters, unlike {shown(protocol)}"
            )
    return protocols


def _check_context(context: object, alpn: tuple[str, ...]) -> ssl.SSLContext:
    if context is None:
        return _shared_context(alpn)
    if not isinstance(context, ssl.SSLContext):
        raise ConfigError(f"context must be an ssl.SSLContext, not {type(context).__name__}")
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ConfigError("context is a server's; a client needs ssl.create_default_context()")
    kind = type(context)
    if kind.__eq__ is not object.__eq__ or kind.__hash__ is not object.__hash__:
        raise ConfigError(f"context must compare by identity, and {kind.__name__} does not")
    if alpn and context is not _shared_contexts.get(alpn):
        raise ConfigError("alpn beside a context: call context.set_alpn_protocols() instead")
    return context


def _shared_context(alpn: tuple[str, ...]) -> ssl.SSLContext:
    context = _shared_contexts.get(alpn)
    if context is None:
        context = ssl.create_default_context()
        if alpn:
            context.set_alpn_protocols(list(alpn))
        # Of two threads that came here together, the first one's is everybody's.
        context = _shared_contexts.setdefault(alpn, context)
    return context


def _check_tls(tls: object) -> TLS | None:
    if tls is None or isinstance(tls, TLS):
        return tls
    if isinstance(tls, bool):
        return TLS() if tls else None
    raise ConfigError(f"tls must be a TLS, True or False, not {type(tls).__name__}")


def _without_dot_or_zone(host: str) -> str:
    """Turn a host into a name to verify: certificates know neither a final dot nor a zone."""
    return host.partition("%")[0].removesuffix(".")


# ── proxies ─────────────────────────────────────────────────────────────────────


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class HTTPProxy(Value):
    """An HTTP CONNECT proxy; `tls` encrypts the hop to the proxy itself.

    >>> from conpool import Endpoint, HTTPProxy
    >>> proxy = HTTPProxy("squid.example", 3128, username="joe", password="secret")
    >>> print(Endpoint("example.org", 443, tls=True, proxy=proxy))
    example.org:443 (TLS, via squid.example:3128)
    >>> proxy
    HTTPProxy('squid.example', 3128, credentials=<hidden>)

    Args:
        host: The proxy's name or address.
        port: The proxy's port.
        username: For basic authentication; without a colon.
        password: May be left out beside a user name.
        tls: Encrypt the hop to the proxy.

    Raises:
        ConfigError: Host or port cannot be dialled; a password without a user name, or credentials
            that basic authentication (RFC 7617) cannot carry.
    """

    __slots__ = ("host", "password", "port", "tls", "username")

    host: str
    port: int
    username: str | None
    password: str | None
    tls: TLS | None

    def __init__(
        self,
        host: str,
        port: int,
        *,
        username: str | None = None,
        password: str | None = None,
        tls: TLS | bool = False,
    ) -> None:
        _check_credential("username", username)
        _check_credential("password", password)
        if password is not None and username is None:
            raise ConfigError("the proxy's password needs a username beside it")
        if username is not None and ":" in username:
            raise ConfigError("an HTTP proxy's username cannot have a colon (RFC 7617)")
        self._seal(
            host=check_host("the proxy's host", host),
            port=check_port("the proxy's port", port),
            username=username,
            password=password,
            tls=_check_tls(tls),
        )

    def __repr__(self) -> str:
        hidden = _HIDDEN if self.username is not None else None
        return _call("HTTPProxy", repr(self.host), repr(self.port), credentials=hidden, tls=self.tls)


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class SOCKS5Proxy(Value):
    """A SOCKS5 proxy that resolves the host name itself (RFC 1928, RFC 1929).

    >>> from conpool import Endpoint, SOCKS5Proxy
    >>> tor = SOCKS5Proxy("127.0.0.1", 9050)
    >>> print(Endpoint("example.org", 80, proxy=tor))
    example.org:80 (via 127.0.0.1:9050)

    Args:
        host: The proxy's name or address.
        port: The proxy's port.
        username: 1 to 255 bytes; together with a password or not at all.
        password: 1 to 255 bytes.

    Raises:
        ConfigError: Host or port cannot be dialled; one credential without the other, or one that
            RFC 1929 cannot carry or that has a control character.
    """

    __slots__ = ("host", "password", "port", "username")

    host: str
    port: int
    username: str | None
    password: str | None

    def __init__(
        self, host: str, port: int, *, username: str | None = None, password: str | None = None
    ) -> None:
        if (username is None) != (password is None):
            raise ConfigError("a SOCKS5 proxy takes a username and a password, or neither")
        _check_credential("username", username, limit=255)
        _check_credential("password", password, limit=255)
        self._seal(
            host=check_host("the proxy's host", host),
            port=check_port("the proxy's port", port),
            username=username,
            password=password,
        )

    def __repr__(self) -> str:
        hidden = _HIDDEN if self.username is not None else None
        return _call("SOCKS5Proxy", repr(self.host), repr(self.port), credentials=hidden)


def _check_credential(name: str, value: object, *, limit: int | None = None) -> None:
    """Refuse what a protocol cannot carry. No message shows the value."""
    if value is None:
        return
    if not isinstance(value, str):
        raise ConfigError(f"the proxy's {name} must be a str, not {type(value).__name__}")
    # CR and LF would write headers; a newline at the end is how a secret comes out of a file.
    if any(c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in value):
        raise ConfigError(f"the proxy's {name} has a control character")
    if limit is not None and not 1 <= len(value.encode()) <= limit:
        raise ConfigError(f"the proxy's {name} must have 1 to {limit} bytes")


# ── endpoints ───────────────────────────────────────────────────────────────────


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Endpoint(Value):
    """One TCP peer. Immutable and hashable; every field is part of its identity.

    Two acquisitions share a connection only if their endpoints are equal. `str` is short and for
    people; neither it nor `repr` shows the partition or a proxy's credentials.

    >>> from conpool import Endpoint
    >>> print(Endpoint("example.org", 443, tls=True))
    example.org:443 (TLS)
    >>> Endpoint("example.org", 443) == Endpoint("example.org", 443, partition="tenant 7")
    False

    The host is kept as given, its case too: `Example.org` and `example.org` are two endpoints,
    each dialled, sent as SNI and verified as written. Two things change: an international name
    becomes its A-label (`bücher.example` and `xn--bcher-kva.example` are one endpoint), and the
    dot that may end a name is dialled but neither sent nor verified.

    Args:
        host: A name, an IPv4 address, or an IPv6 address without brackets, with its zone if it
            has one. Whether the zone exists is found out by dialling.
        port: 1 to 65535.
        tls: How to encrypt from the first byte; True means `TLS()`.
        proxy: Dial through this proxy.
        local_address: Dial from this address of this machine.
        partition: The caller's own part of the identity (user, database, tenant). It is compared
            as a dict compares keys, so that 1, 1.0 and True are one partition.

    Raises:
        ConfigError: The host or port cannot be dialled, a field has the wrong type, a host with a
            zone is behind a proxy, or the partition cannot be hashed and compared.
    """

    __slots__ = ("host", "local_address", "partition", "port", "proxy", "tls")

    host: str
    port: int
    tls: TLS | None
    proxy: HTTPProxy | SOCKS5Proxy | None
    local_address: str | None
    partition: Hashable

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: TLS | bool = False,
        proxy: HTTPProxy | SOCKS5Proxy | None = None,
        local_address: str | None = None,
        partition: Hashable = None,
    ) -> None:
        host = check_host("host", host)
        if local_address is not None:
            local_address = check_host("local_address", local_address)
        self._seal(
            host=host,
            port=check_port("port", port),
            tls=_check_tls(tls),
            proxy=_check_proxy(proxy, host),
            local_address=local_address,
            partition=check_partition(partition),
        )

    @classmethod
    def from_url(cls, url: str, *, tls: TLS | None = None) -> AnyEndpoint:
        """Make an endpoint of a URL: `rediss://user:pw@host:6380/0`, `unix:///run/x.sock`.

        | scheme | port | partition |
        | --- | --- | --- |
        | http, https | 80, 443 | none |
        | redis, rediss | 6379 | user, number (0), password |
        | postgres, postgresql | 5432 | user, database, password |
        | mysql | 3306 | user, database, password |
        | amqp, amqps | 5672, 5671 | user, virtual host (/), password |
        | memcached | 11211 | none |
        | tcp, tls | to be given | none |
        | unix | | none |

        The password is never kept: a digest keyed by a secret of the process stands for it in the
        partition. Where there is no partition, credentials and path are dropped. Options that are
        not refused say nothing of the connection, and are dropped too; an http URL may have any.
        No error shows what follows the scheme.

        Args:
            url: What to read. What is reserved in a password is percent-encoded.
            tls: Encrypt like this, from the first byte, whatever the scheme says.

        Raises:
            ConfigError: An unknown scheme, no host, a port that is missing or cannot be dialled,
                an option that sets TLS (`sslmode`) or belongs elsewhere in the URL (`password`),
                a fragment, or text that is not properly percent-encoded.
        """
        if tls is not None and not isinstance(tls, TLS):
            raise ConfigError(f"tls must be a TLS or None, not {type(tls).__name__}")
        parsed = parse_url(url)
        if not parsed.host:
            return UnixEndpoint(parsed.path, tls=tls)
        return cls(
            parsed.host, parsed.port, tls=tls or parsed.encrypted, partition=parsed.login
        )

    def __str__(self) -> str:
        notes = ["TLS"] if self.tls is not None else []
        if self.proxy is not None:
            notes.append(f"via {_address(self.proxy.host, self.proxy.port)}")
        return _address(self.host, self.port) + (f" ({', '.join(notes)})" if notes else "")

    def __repr__(self) -> str:
        return _call(
            "Endpoint",
            repr(self.host),
            repr(self.port),
            tls=self.tls,
            proxy=self.proxy,
            local_address=self.local_address,
            partition=_hide(self.partition),
        )


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class UnixEndpoint(Value):
    """One peer behind a UNIX socket; the text of the path is its identity.

    >>> from conpool import UnixEndpoint
    >>> print(UnixEndpoint("/run/postgresql/.s.PGSQL.5432", partition="app"))
    unix:/run/postgresql/.s.PGSQL.5432
    >>> print(UnixEndpoint(chr(0) + "bus"))  # Linux's abstract namespace
    unix:@bus

    Args:
        path: Where the socket is. A relative path is looked up from the folder in which the
            program is when it dials. Bytes, and a path object that gives bytes, are decoded as
            `os.fsdecode` does. A leading NUL means the abstract namespace.
        tls: How to encrypt; a context that checks host names needs a `server_hostname`.
        partition: The caller's own part of the identity.

    Raises:
        ConfigError: The path is empty, longer than the system allows (107 bytes on Linux) or has a
            NUL inside; `tls` has nothing to verify; the partition cannot be hashed and compared.
    """

    __slots__ = ("partition", "path", "tls")

    path: str
    tls: TLS | None
    partition: Hashable

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        tls: TLS | None = None,
        partition: Hashable = None,
    ) -> None:
        encryption = _check_tls(tls)
        if (
            encryption is not None
            and encryption.server_hostname is None
            and encryption.context.check_hostname
        ):
            # trio would then verify nothing at all, and say nothing about it.
            raise ConfigError(
                "TLS over a UNIX socket needs TLS(server_hostname=...): the context checks host "
                "names and there is none to check"
            )
        self._seal(
            path=_check_path(path), tls=encryption, partition=check_partition(partition)
        )

    def __str__(self) -> str:
        path = self.path.replace("\0", "@")
        shown_path = path if path.isprintable() else ascii(path)[1:-1]
        return f"unix:{shown_path}{' (TLS)' if self.tls is not None else ''}"

    def __repr__(self) -> str:
        hidden = _hide(self.partition)
        return _call("UnixEndpoint", repr(self.path), tls=self.tls, partition=hidden)


AnyEndpoint: TypeAlias = Endpoint | UnixEndpoint


def server_name(target: Endpoint | UnixEndpoint | HTTPProxy) -> str | None:
    """Return the name to send and verify in a TLS handshake with `target` itself.

    None without TLS, and over a UNIX socket whose context checks no names.
    """
    if target.tls is None:
        return None
    if target.tls.server_hostname is not None or isinstance(target, UnixEndpoint):
        return target.tls.server_hostname
    return _without_dot_or_zone(target.host)


def _check_proxy(proxy: object, host: str) -> HTTPProxy | SOCKS5Proxy | None:
    if proxy is None:
        return None
    if not isinstance(proxy, HTTPProxy | SOCKS5Proxy):
        raise ConfigError(f"proxy must be an HTTPProxy or SOCKS5Proxy, not {type(proxy).__name__}")
    if "%" in host:
        raise ConfigError("a zone names an interface of this machine: a proxy cannot use it")
    return proxy


# sun_path has 108 bytes on Linux and 104 on the BSDs and macOS, with the NUL that ends it.
_MAX_PATH: Final = 107 if sys.platform == "linux" else 103


def _check_path(path: object) -> str:
    if not isinstance(path, str | bytes | os.PathLike):
        raise ConfigError(f"path must be a str or a path object, not {type(path).__name__}")
    try:
        text = os.fsdecode(path)  # pyright: ignore[reportUnknownArgumentType]
        size = len(os.fsencode(text))
    except (UnicodeError, TypeError) as error:
        raise ConfigError(f"path cannot be encoded for this system: {shown(path)}") from error
    if text in ("", "\0"):
        raise ConfigError("path must not be empty")
    if "\0" in text[1:]:
        raise ConfigError("path can have a NUL only at its start (the abstract namespace)")
    if size > _MAX_PATH:
        raise ConfigError(f"path must have at most {_MAX_PATH} bytes, not {size}")
    return text


# ── text ────────────────────────────────────────────────────────────────────────


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _hide(partition: Hashable) -> str | None:
    return None if partition is None else _HIDDEN


def _call(name: str, *arguments: str, **options: object) -> str:
    """Write a constructor call without the options that are at their default."""
    said = [
        f"{key}={value if value is _HIDDEN else repr(value)}"
        for key, value in options.items()
        if value is not None and value is not False and value != ()
    ]
    return f"{name}({', '.join((*arguments, *said))})"
