"""How to encrypt a connection, and whom to expect at its other end."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast, final

from conpool._values.config_error import ConfigError, shown
from conpool._values.host import valid_host
from conpool._values.validation import valid_flag
from conpool._values.value import Value, call_text

# One context for each alpn tuple, kept for good: a program has a handful of them, and each new one
# loads the authorities again, which takes tens of milliseconds.
_shared_contexts: Final[dict[tuple[str, ...], ssl.SSLContext]] = {}

_MAX_PROTOCOL: Final = 255  # its length is one byte on the wire (RFC 7301)


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class TLS(Value):
    """How to encrypt, and whom to expect at the other end.

    Without `context`, all with the same `alpn` share one `ssl.create_default_context()`, which is
    built on first use and reads the machine's authorities then. Contexts compare by identity, and
    the pool takes them to be immutable. To rotate a certificate, build a new context, or change
    this one and call `clear` on the pool.

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
        https_compatible: Take a connection that ends without close_notify as ended, not as
            broken. Many web servers end connections in this way.

    Raises:
        ConfigError: The context is no `ssl.SSLContext`, is a server's, or does not compare by
            identity; `alpn` stands beside a context (set it on the context); a protocol is not 1
            to 255 ASCII characters; the server name is not a host.
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
            name = certificate_name(valid_host("server_hostname", name))
        self._seal(
            context=_check_context(context, protocols),
            server_hostname=name,
            alpn=protocols,
            https_compatible=valid_flag("https_compatible", https_compatible),
        )

    def __repr__(self) -> str:
        shared = self.context is _shared_contexts.get(self.alpn)
        return call_text(
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
    return tuple(_check_protocol(protocol) for protocol in cast("Iterable[object]", alpn))


def _check_protocol(protocol: object) -> str:
    if isinstance(protocol, str) and protocol.isascii() and 1 <= len(protocol) <= _MAX_PROTOCOL:
        return str.__str__(protocol)
    raise ConfigError(f"a protocol in alpn has 1 to 255 ASCII characters, unlike {shown(protocol)}")


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
        # If two threads come here at once, both take the context of the first.
        context = _shared_contexts.setdefault(alpn, context)
    return context


def valid_tls(tls: object) -> TLS | None:
    """Return how to encrypt: True means `TLS()`, False and None mean not at all."""
    if isinstance(tls, bool):
        return TLS() if tls else None
    return valid_tls_only(tls)


def valid_tls_only(tls: object) -> TLS | None:
    """Return how to encrypt; refuse a bool, because `TLS()` would not be a useful default."""
    if tls is None or isinstance(tls, TLS):
        return tls
    raise ConfigError(f"tls must be a TLS, not {type(tls).__name__}")


def certificate_name(host: str) -> str:
    """Return the name to verify for a host: no certificate has a final dot or a zone."""
    return host.partition("%")[0].removesuffix(".")
