"""Addresses to connect to: how they are read, and the order in which they are tried."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

_IPV6_PARTS: Final = 4
"""Address, port, flow label, zone. A Python built without IPv6 gives two parts, as bytes."""


class Address(NamedTuple):
    """One IP address of a host, spelled as `getpeername` spells it."""

    family: int
    ip: str
    port: int = 0
    """0 for the port that the caller dials. A resolver set by trio's hook may give another port."""
    flowinfo: int = 0
    scope_id: int = 0

    def at(self, port: int) -> tuple[Any, ...]:
        """Return what `connect` and `bind` take."""
        if self.family == socket.AF_INET6:
            return (self.ip, self.port or port, self.flowinfo, self.scope_id)
        return (self.ip, self.port or port)


def read_address(family: int, sockaddr: tuple[Any, ...]) -> Address | None:
    """Make an `Address` of a result of `getaddrinfo`; None if it is neither IPv4 nor IPv6."""
    try:
        # A resolver of the user's own may spell an IPv6 address in another way.
        ip = socket.inet_ntop(family, socket.inet_pton(family, sockaddr[0].partition("%")[0]))
    except (OSError, AttributeError, TypeError):
        return None
    if family == socket.AF_INET6 and len(sockaddr) == _IPV6_PARTS:
        return Address(family, ip, sockaddr[1], sockaddr[2], sockaddr[3])
    return Address(family, ip, sockaddr[1])


def read_literal(host: str, family: int = 0) -> Address | None:
    """Read an IP address, without a look-up; None if `host` is a name.

    Raises:
        socket.gaierror: It is an IP address with a zone that this machine does not have, or an
            IP address of another family than `family`.
    """
    try:
        found = socket.getaddrinfo(
            host.encode(), None, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST
        )
    except socket.gaierror as error:
        # For an unknown zone the system gives the same code as for a name; only a zone has ":".
        if error.errno == socket.EAI_NONAME and ":" not in host:
            return None
        raise
    kind, _, _, _, sockaddr = found[0]
    return read_address(kind, sockaddr)


def interleave(addresses: Iterable[Address], first: Address | None = None) -> list[Address]:
    """Put addresses in the order in which to try them (RFC 8305, section 4).

    The given order, but IPv4 and IPv6 take turns: if one of the two does not work here, the second
    attempt already uses the other.

    Args:
        addresses: The best first; an address that comes twice is tried once.
        first: The address that connected last. If it is one of `addresses`, it goes first.
    """
    left = list(dict.fromkeys(addresses))
    if first is not None and first in left:
        left.remove(first)
        left.insert(0, first)
    ordered: list[Address] = []
    while left:
        turn = next((a for a in left if not ordered or a.family != ordered[-1].family), left[0])
        left.remove(turn)
        ordered.append(turn)
    return ordered
