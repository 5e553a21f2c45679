"""Asks a proxy, over a connection to it, for a tunnel to the endpoint.

Three things hold for both protocols:

- Nothing that is meant for the target is sent before the proxy has agreed.
- Nothing is read beyond the proxy's answer. So the tunnel is the same stream, with the target's
  first byte still ahead, and no buffer exists through which somebody could slip bytes past TLS.
- A failed or cancelled request closes the connection by force: a proxy that has said no is not
  asked again over the same connection.

The protocols are spoken by libraries without I/O, h11 and socksio. They are extras, because an
application without a proxy needs neither.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from conpool._connection.tls_tap import encrypt
from conpool._errors.connect import ProxyError
from conpool._errors.explain import as_connect_error
from conpool._values.endpoint import Endpoint, server_name
from conpool._values.proxy import HTTPProxy

Tunnel: TypeAlias = Callable[[trio.SocketStream], Awaitable[trio.abc.Stream]]

Request: TypeAlias = Callable[[trio.abc.Stream, Endpoint], Awaitable[None]]
"""Asks for a tunnel in one protocol, and returns when the tunnel stands."""


def find_tunnel(endpoint: Endpoint) -> Tunnel:
    """Return a function that turns a connection to the endpoint's proxy into a tunnel.

    Raises:
        ProxyError: The library that speaks the proxy's protocol is not installed. This is known
            before any socket is opened.
    """
    request = _find_request(endpoint)

    async def tunnel(sock: trio.SocketStream) -> trio.abc.Stream:
        try:
            stream = await _encrypt_hop(sock, endpoint)
            await request(stream, endpoint)
        except Exception as error:
            sock.socket.close()
            raise as_connect_error(error, endpoint, "proxy") from error
        except BaseException:
            sock.socket.close()
            raise
        return stream

    return tunnel


def _find_request(endpoint: Endpoint) -> Request:
    # Here and not above: these modules import libraries that may not be installed.
    try:
        if isinstance(endpoint.proxy, HTTPProxy):
            from conpool._dial.http_connect import request_tunnel  # noqa: PLC0415
        else:
            from conpool._dial.socks5 import request_tunnel  # noqa: PLC0415
    except ImportError as error:
        extra = "proxy" if isinstance(endpoint.proxy, HTTPProxy) else "socks"
        why = f"{error.name} is not installed; pip install 'conpool[{extra}]'"
        raise ProxyError(why, endpoint=endpoint, phase="proxy") from error
    return request_tunnel


async def _encrypt_hop(sock: trio.SocketStream, endpoint: Endpoint) -> trio.abc.Stream:
    proxy = endpoint.proxy
    if not isinstance(proxy, HTTPProxy) or proxy.tls is None:
        return sock
    return await encrypt(sock, proxy.tls, server_name(proxy))
