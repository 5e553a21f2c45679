"""SOCKS5 (RFC 1928, with passwords by RFC 1929), spoken by socksio.

socksio packs requests and names codes. It does not find the end of an answer, and does not check
versions and lengths, so this file reads the answers. Each answer says how long it is. Exactly that
much is read, so that the target's first byte stays in the socket.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

import trio
from socksio import socks5

from conpool._dial.address import read_literal
from conpool._errors.connect import ProxyError
from conpool._values.endpoint import Endpoint
from conpool._values.proxy import SOCKS5Proxy

_VERSION: Final = 5
_PASSWORD_VERSION: Final = 1

_REPLIES: Final[dict[int, tuple[str, int | None]]] = {
    1: ("general failure", None),
    2: ("connection not allowed by its rules", errno.EACCES),
    3: ("network unreachable", errno.ENETUNREACH),
    4: ("host unreachable", errno.EHOSTUNREACH),
    5: ("connection refused", errno.ECONNREFUSED),
    6: ("time to live expired", None),
    7: ("command not supported", None),
    8: ("address type not supported", None),
}
"""The meaning of each code, and the errno with which a direct connect would have failed."""

_ADDRESS_SIZES: Final = {1: 4, 4: 16}


async def request_tunnel(stream: trio.abc.Stream, endpoint: Endpoint) -> None:
    """Ask the proxy at the other end of `stream` for a tunnel to the endpoint.

    A host name is sent as it is: the proxy resolves it.

    Raises:
        ProxyError: The proxy does not accept the credentials, could not connect, does not speak
            SOCKS5, or hung up.
        trio.BrokenResourceError: The connection broke.

    If it fails or is cancelled, the caller must close the stream.
    """
    await _log_in(stream, endpoint)
    await stream.send_all(_request(endpoint).dumps())
    version, code, _, kind = await _read(stream, endpoint, 4)
    _check_version(endpoint, version)
    if code != 0:
        said, number = _REPLIES.get(code, ("no code of SOCKS5", None))
        why = f"the proxy answered {code}: {said}"
        raise ProxyError(why, endpoint=endpoint, phase="proxy", errno=number)
    # The address from which the proxy dials. Nobody needs it, but it must be read.
    size = _ADDRESS_SIZES.get(kind)
    if kind == 3:
        size = (await _read(stream, endpoint, 1))[0]
    if size is None:
        why = f"the proxy's answer has an address of no known type ({kind})"
        raise ProxyError(why, endpoint=endpoint, phase="proxy")
    await _read(stream, endpoint, size + 2)


async def _log_in(stream: trio.abc.Stream, endpoint: Endpoint) -> None:
    proxy = endpoint.proxy
    assert isinstance(proxy, SOCKS5Proxy)
    methods = [socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
    if proxy.username is not None:
        methods.append(socks5.SOCKS5AuthMethod.USERNAME_PASSWORD)
    await stream.send_all(socks5.SOCKS5AuthMethodsRequest(methods).dumps())
    version, method = await _read(stream, endpoint, 2)
    _check_version(endpoint, version)
    if bytes([method]) not in methods:
        hint = "" if proxy.username is not None else "; it may want credentials"
        why = f"the proxy accepts no login that was offered{hint}"
        raise ProxyError(why, endpoint=endpoint, phase="proxy")
    if method == 0:
        return
    username, password = (proxy.username or "").encode(), (proxy.password or "").encode()
    await stream.send_all(socks5.SOCKS5UsernamePasswordRequest(username, password).dumps())
    version, status = await _read(stream, endpoint, 2)
    # Some proxies answer with the version of SOCKS; the status means the same.
    if status != 0 or version not in (_PASSWORD_VERSION, _VERSION):
        why = f"the proxy did not accept the credentials (status {status})"
        raise ProxyError(why, endpoint=endpoint, phase="proxy")


def _request(endpoint: Endpoint) -> socks5.SOCKS5CommandRequest:
    literal = read_literal(endpoint.host)
    if literal is None:
        kind, address = socks5.SOCKS5AType.DOMAIN_NAME, endpoint.host.encode("ascii")
    else:
        v6 = literal.family == socket.AF_INET6
        kind = socks5.SOCKS5AType.IPV6_ADDRESS if v6 else socks5.SOCKS5AType.IPV4_ADDRESS
        address = socket.inet_pton(literal.family, literal.ip)
    return socks5.SOCKS5CommandRequest(
        command=socks5.SOCKS5Command.CONNECT, atype=kind, addr=address, port=endpoint.port
    )


def _check_version(endpoint: Endpoint, version: int) -> None:
    if version != _VERSION:
        why = f"the proxy does not speak SOCKS5 (version byte {version})"
        raise ProxyError(why, endpoint=endpoint, phase="proxy")


async def _read(stream: trio.abc.Stream, endpoint: Endpoint, size: int) -> bytes:
    """Read exactly `size` bytes: the bytes behind them may be the target's."""
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        if not piece:
            why = "the proxy hung up before it answered"
            raise ProxyError(why, endpoint=endpoint, phase="proxy", errno=errno.ECONNRESET)
        data += piece
    return data
