"""The proxies through which a connection can be dialled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from conpool._values.config_error import ConfigError
from conpool._values.host import valid_host
from conpool._values.tls import TLS, valid_tls
from conpool._values.validation import valid_port
from conpool._values.value import HIDDEN, Value, call_text


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
        password: Needs a user name beside it.
        tls: Encrypt the hop to the proxy.

    Raises:
        ConfigError: Host or port cannot be dialled; there is a password without a user name;
            basic authentication (RFC 7617) cannot carry the credentials.
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
            host=valid_host("the proxy's host", host),
            port=valid_port("the proxy's port", port),
            username=username,
            password=password,
            tls=valid_tls(tls),
        )

    def __repr__(self) -> str:
        hidden = HIDDEN if self.username is not None else None
        return call_text(
            "HTTPProxy", repr(self.host), repr(self.port), credentials=hidden, tls=self.tls
        )


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
        ConfigError: Host or port cannot be dialled; one credential is missing, has a control
            character, or is one that RFC 1929 cannot carry.
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
            host=valid_host("the proxy's host", host),
            port=valid_port("the proxy's port", port),
            username=username,
            password=password,
        )

    def __repr__(self) -> str:
        hidden = HIDDEN if self.username is not None else None
        return call_text("SOCKS5Proxy", repr(self.host), repr(self.port), credentials=hidden)


def _check_credential(name: str, value: object, *, limit: int | None = None) -> None:
    """Refuse what a protocol cannot carry. No message shows the value."""
    if value is None:
        return
    if not isinstance(value, str):
        raise ConfigError(f"the proxy's {name} must be a str, not {type(value).__name__}")
    # CR and LF would write headers; a secret that was read from a file often ends in a newline.
    if any(c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in value):
        raise ConfigError(f"the proxy's {name} has a control character")
    if limit is not None and not 1 <= len(value.encode()) <= limit:
        raise ConfigError(f"the proxy's {name} must have 1 to {limit} bytes")
