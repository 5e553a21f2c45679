"""From a URL to the endpoint that leads there, and to the way in which the request names it."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, final

from conpool._values.config_error import ConfigError, named
from conpool._values.endpoint import AnyEndpoint, Endpoint, UnixEndpoint
from conpool._values.group import EndpointGroup, Target
from conpool._values.proxy import HTTPProxy, SOCKS5Proxy
from conpool._values.tls import TLS, certificate_name
from conpool.contrib._http.outgoing import Header

PRIOR_KNOWLEDGE: Final = "HTTP/2 with prior knowledge"
"""The partition of an endpoint that is to speak HTTP/2 without TLS (RFC 9113, section 3.3)."""

_MOST_KEPT: Final = 10_000
"""Origins whose endpoints are remembered: making one costs as much as a lease."""

_PORTS: Final = {"http": 80, "https": 443}


class Route(NamedTuple):
    """Where a request goes."""

    target: Target
    is_forwarded: bool
    """Whether an HTTP proxy reads the request itself, and needs the whole URL."""


@final
class Routes:
    """Finds the endpoint or the group of a URL, the same one each time."""

    def __init__(
        self,
        lib: Any,
        context: ssl.SSLContext,
        *,
        proxy: Any,
        uds: str | None,
        local_address: str | None,
        prior_knowledge: bool,
        groups: Mapping[str, EndpointGroup],
    ) -> None:
        if groups and (proxy is not None or uds is not None):
            raise ConfigError("groups cannot stand beside proxy or uds")
        self._lib = lib
        self._context = context
        self._uds = uds if proxy is None else None
        self._local_address = local_address
        self._partition = PRIOR_KNOWLEDGE if prior_knowledge else None
        self._groups = {_host_of(lib, key): _checked(group) for key, group in groups.items()}
        self._known: dict[tuple[str, str, int | None, str | None], Route] = {}
        if isinstance(proxy, str | lib.URL):
            proxy = lib.Proxy(proxy)
        self._proxy = None if proxy is None else self._make_proxy(proxy)
        self._has_proxy_headers = proxy is not None and bool(proxy.headers)
        self.proxy_headers: list[Header] = []
        """What a forwarded request says to the proxy."""
        if proxy is not None and isinstance(self._proxy, HTTPProxy):
            self.proxy_headers = [*proxy.headers.raw, *_credentials(proxy)]

    def find(self, url: Any, extensions: Any) -> Route:
        """Return the route to `url`.

        Raises:
            Exception: The library's `UnsupportedProtocol`, if `url` is none for HTTP; conpool's
                `ConfigError`, if its host or port cannot be dialled.
        """
        key = (url.scheme, url.host, url.port, extensions.get("sni_hostname"))
        route = self._known.get(key)
        if route is None:
            route = self._make(url, *key)
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            self._known[key] = route
        return route

    def _make(self, url: Any, scheme: str, host: str, port: int | None, sni: str | None) -> Route:
        if scheme not in _PORTS:
            raise self._lib.UnsupportedProtocol(
                f"Request URL has an unsupported protocol '{scheme}://'."
                if scheme
                else "Request URL is missing an 'http://' or 'https://' protocol."
            )
        name = url.raw_host.decode("ascii").strip("[]")
        group = self._find_group(name, port or _PORTS[scheme])
        # Then no host of an endpoint's own says whom to expect.
        is_elsewhere = self._uds is not None or group is not None
        tls = self._tls(name, sni, is_elsewhere=is_elsewhere) if scheme == "https" else None
        partition = self._partition if tls is None else None
        if group is not None:
            members = [self._make_member(each, tls, partition) for each in group.endpoints]
            return Route(EndpointGroup(members, policy=group.policy), False)
        if self._uds is not None:
            return Route(UnixEndpoint(self._uds, tls=tls, partition=partition), False)
        proxy = self._proxy
        if isinstance(proxy, HTTPProxy):
            if tls is None:
                hop = Endpoint(
                    proxy.host,
                    proxy.port,
                    tls=proxy.tls or False,
                    local_address=self._local_address,
                )
                return Route(hop, True)
            if self._has_proxy_headers:
                raise self._lib.UnsupportedProtocol("a tunnel cannot carry the proxy's own headers")
        endpoint = Endpoint(
            name,
            port or _PORTS[scheme],
            tls=tls or False,
            proxy=proxy,
            local_address=self._local_address,
            partition=partition,
        )
        return Route(endpoint, False)

    def _find_group(self, host: str, port: int) -> EndpointGroup | None:
        if not self._groups:
            return None
        return self._groups.get((host, port)) or self._groups.get((host, None))

    def _make_member(
        self, bare: AnyEndpoint, tls: TLS | None, partition: str | None
    ) -> AnyEndpoint:
        if isinstance(bare, UnixEndpoint):
            return UnixEndpoint(bare.path, tls=tls, partition=partition)
        return Endpoint(
            bare.host,
            bare.port,
            tls=tls or False,
            local_address=self._local_address,
            partition=partition,
        )

    def _tls(self, host: str, sni: str | None, *, is_elsewhere: bool) -> TLS:
        name = sni or (certificate_name(host) if is_elsewhere else None)
        return TLS(self._context, server_hostname=name, https_compatible=True)

    def _make_proxy(self, proxy: Any) -> HTTPProxy | SOCKS5Proxy:
        url = proxy.url
        host = url.raw_host.decode("ascii").strip("[]")
        username, password = proxy.auth or (None, None)
        if url.scheme in {"socks5", "socks5h"}:
            return SOCKS5Proxy(host, url.port or 1080, username=username, password=password)
        tls: TLS | bool = False
        if url.scheme == "https":
            context = proxy.ssl_context or self._lib.create_ssl_context()
            tls = TLS(context, https_compatible=True)
        port = url.port or _PORTS[url.scheme]
        return HTTPProxy(host, port, username=username, password=password, tls=tls)


def _host_of(lib: Any, key: str) -> tuple[str, int | None]:
    """Return the host and the port that `key` names, as a URL has them."""
    try:
        url = lib.URL(f"//{key}")
    except (lib.InvalidURL, TypeError):
        url = None
    if url is None or not url.host or url.userinfo or url.raw_path not in {b"", b"/"}:
        raise ConfigError(f"groups needs a host, or host:port, as its key, not {key!r}")
    return url.raw_host.decode("ascii").strip("[]"), url.port


def _checked(group: object) -> EndpointGroup:
    if not isinstance(group, EndpointGroup):
        raise ConfigError(f"groups maps hosts to an EndpointGroup, not to {named(group)}")
    for member in group.endpoints:
        bare: AnyEndpoint
        if isinstance(member, UnixEndpoint):
            bare = UnixEndpoint(member.path)
        else:
            bare = Endpoint(member.host, member.port)
        if member != bare:
            raise ConfigError(f"give host and port of {member}: the rest comes from the URL")
    return group


def _credentials(proxy: Any) -> list[Header]:
    if proxy.raw_auth is None:
        return []
    basic = base64.b64encode(b":".join(proxy.raw_auth))
    return [(b"Proxy-Authorization", b"Basic " + basic)]
