"""Addresses to connect to: how they are read, and the order in which they are tried."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any, Final, NamedTuple

MOST_TRIED: Final = 16
"""How many addresses of each family one dial tries.

Whoever answers for a name may give thousands, and a dial would spend its time on them.
"""

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


def spell(text: object) -> str | None:
    """Spell an IP address as `getpeername` does; None if `text` is no IP address."""
    if not isinstance(text, str):
        return None
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text.partition("%")[0]))
    except (OSError, ValueError):
        return None


def interleave(addresses: Iterable[Address], first: Address | None = None) -> list[Address]:
    """Put addresses in the order in which to try them (RFC 8305, section 4).

    The given order, but IPv4 and IPv6 take turns: if one of the two does not work here, the second
    attempt already uses the other. Of each, only the first `MOST_TRIED` are tried.

    Args:
        addresses: The best first; an address that comes twice is tried once.
        first: The address that connected last. If it is one of `addresses`, it goes first.
    """
    unique = dict.fromkeys(addresses)
    if first is not None and first in unique:
        unique = {first: None} | unique
    families: dict[int, list[Address]] = {}
    for address in unique:
        family = families.setdefault(address.family, [])
        if len(family) < MOST_TRIED:
            family.append(address)
    turns = zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]
