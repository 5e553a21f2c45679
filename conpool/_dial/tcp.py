"""The default connector: TCP and UNIX sockets, straight or through a proxy.

How a TCP peer is reached:

1. its name is looked up, or remembered (`_resolve`);
2. its addresses race, the one that won last first (`_race`);
3. a socket counts as connected only if it has a peer, and the peer is not itself: a connect to a local
   port nobody listens on may get that very port for its own end, and then meets itself;
4. with a proxy, all that was about the proxy, and now it is asked for a tunnel (`_tunnel`).

Nothing awaits between having a socket and being bound to close it.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Self, final
from weakref import WeakKeyDictionary

import trio

from conpool._dial.address import Address, interleave, read_literal
from conpool._dial.lookup import Resolver
from conpool._dial.name_cache import Answer, NameCache, ResolverStats
from conpool._dial.progress import note_phase
from conpool._dial.race import race
from conpool._dial.socket_options import apply_options, bind_late, socket_options
from conpool._dial.tunnel import find_tunnel
from conpool._dial.unix import connect_unix
from conpool._errors.connect import ConnectError, LocalResourceError
from conpool._errors.explain import as_connect_error
from conpool._extend.connector import Connector
from conpool._values.config_error import ConfigError
from conpool._values.endpoint import AnyEndpoint, Endpoint, UnixEndpoint
from conpool._values.states import DialPhase
from conpool._values.validation import valid_seconds


@final
class TCPConnector(Connector):
    """The default: DNS cache, happy eyeballs, proxies, socket options.

    A pool makes one of its own. Make one yourself to choose other times, to share the memory of
    names between pools, or to resolve names in another way:

        >>> from conpool import ConnectionPool, TCPConnector
        >>> connector = TCPConnector(dns_ttl=30.0, user_timeout=20.0)
        >>> pool = ConnectionPool(connector=connector)

    NameCache are looked up in threads of its own (20 at most; more names wait), so that a slow
    resolver never delays another use of trio's threads. A resolver set with
    `trio.socket.set_custom_hostname_resolver` is honoured. While the resolver is down or slow,
    what it said before still serves, for up to a day.

    Args:
        dns_ttl: How long the addresses of a name are remembered, in seconds; 0 remembers nothing,
            failures and old answers included.
        happy_eyeballs_delay: How long one address may leave us waiting before the next is tried
            too, in seconds (RFC 8305). `math.inf` tries them one after the other.
        keepalive: After so many seconds of silence the system asks whether the peer is there,
            and closes the connection if it does not answer for as long again. None for never.
        user_timeout: Close a connection whose bytes were not acknowledged for so many seconds
            (TCP_USER_TIMEOUT); None leaves it to the system, which takes a quarter of an hour. It
            also ends connections to a live peer that does not read for so long. Where the system
            has no such option it does nothing.

    Raises:
        ConfigError: A duration is negative or no number.
    """

    __slots__ = (
        "_delay",
        "_dns_ttl",
        "_keepalive",
        "_names_of",
        "_options",
        "_resolver",
        "_user_timeout",
    )

    def __init__(
        self,
        *,
        dns_ttl: float = 300.0,
        happy_eyeballs_delay: float = 0.25,
        keepalive: float | None = 60.0,
        user_timeout: float | None = None,
    ) -> None:
        self._dns_ttl = valid_seconds("dns_ttl", dns_ttl, positive=False)
        self._delay = valid_seconds("happy_eyeballs_delay", happy_eyeballs_delay, positive=False)
        self._keepalive = _optional_seconds("keepalive", keepalive)
        self._user_timeout = _optional_seconds("user_timeout", user_timeout)
        self._resolver: Resolver | None = None
        self._options = socket_options(self._keepalive, self._user_timeout)
        # One memory for each run of trio: what it holds means nothing to another run.
        self._names_of: WeakKeyDictionary[trio.lowlevel.TrioToken, NameCache] = WeakKeyDictionary()

    @classmethod
    def with_resolver(
        cls,
        resolver: Resolver,
        *,
        dns_ttl: float = 300.0,
        happy_eyeballs_delay: float = 0.25,
        keepalive: float | None = 60.0,
        user_timeout: float | None = None,
    ) -> Self:
        """Make a connector that asks `resolver` for the addresses of names, instead of the system.

        Args:
            resolver: `await resolver(host, family)` returns IP addresses as strings, the best first.
                `family` is `socket.AF_INET`, `socket.AF_INET6` or 0 for both. No address means that
                the name does not exist; `OSError`, that the resolver could not say.
            dns_ttl: As for the constructor, and so are the others.
            happy_eyeballs_delay: See there.
            keepalive: See there.
            user_timeout: See there.

        Raises:
            ConfigError: A duration is negative or no number; `resolver` is not callable.
        """
        if not callable(resolver):
            raise ConfigError(f"resolver must be an async function, not {resolver!r}")
        connector = cls(
            dns_ttl=dns_ttl,
            happy_eyeballs_delay=happy_eyeballs_delay,
            keepalive=keepalive,
            user_timeout=user_timeout,
        )
        connector._resolver = resolver
        return connector

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        """Connect to an endpoint, through its proxy if it has one; TLS is added by the pool.

        Returns:
            A `trio.SocketStream`, or, behind a proxy that is reached by TLS, a `trio.SSLStream`.

        Raises:
            ConnectError: `ResolveError`, `ProxyError` or `LocalResourceError` where one fits;
                `attempts` has one error for each address.

        Cancelling it closes all its sockets, and takes nothing from others who look up the name.
        """
        if isinstance(endpoint, UnixEndpoint):
            return await connect_unix(endpoint)
        if endpoint.proxy is None:
            return await self._connect_tcp(endpoint)
        tunnel = find_tunnel(endpoint)
        return await tunnel(await self._connect_tcp(endpoint))

    def addresses_now(self, endpoint: AnyEndpoint) -> frozenset[str] | None:
        """Return the IP addresses last found for what is dialled, in `getpeername`'s spelling.

        With a proxy, that is the proxy. None if it is not known: for an IP address, a UNIX
        socket, a name that was not looked up yet or could not be. It asks nobody and does not
        wait.

        Raises:
            ConnectError: The endpoint's `local_address` is not an IP address.
        """
        if isinstance(endpoint, UnixEndpoint):
            return None
        local = _local_address(endpoint)
        host, port = _first_hop(endpoint)
        return self._names().addresses_now(host, port, local.family if local else 0)

    def is_due(self, endpoint: AnyEndpoint) -> bool:
        """Whether `refresh_addresses` would ask the resolver for what was found before.

        Raises:
            ConnectError: The endpoint's `local_address` is not an IP address.
        """
        if isinstance(endpoint, UnixEndpoint):
            return False
        local = _local_address(endpoint)
        host, port = _first_hop(endpoint)
        return self._names().is_due(host, port, local.family if local else 0)

    async def refresh_addresses(self, endpoint: AnyEndpoint) -> frozenset[str] | None:
        """Look up what is dialled, if that is due, and return what `addresses_now` then does.

        Raises:
            ConnectError: It cannot be resolved.

        Cancelling it changes nothing.
        """
        if isinstance(endpoint, Endpoint):
            await self._resolve(endpoint)
        return self.addresses_now(endpoint)

    @property
    def resolver_stats(self) -> ResolverStats:
        """How look-ups went in this run of trio. Only to be asked inside of one."""
        return self._names().stats

    def __repr__(self) -> str:
        return (
            f"<TCPConnector dns_ttl={self._dns_ttl} happy_eyeballs_delay={self._delay}"
            f" keepalive={self._keepalive} user_timeout={self._user_timeout}>"
        )

    # ── the way to one host ─────────────────────────────────────────────────────

    async def _connect_tcp(self, endpoint: Endpoint) -> trio.SocketStream:
        """Connect to the endpoint itself, or to its proxy if it has one."""
        answer = await self._resolve(endpoint)
        addresses = interleave(answer.addresses, answer.winner)
        local, port = _local_address(endpoint), _first_hop(endpoint)[1]
        started = 0

        async def attempt(address: Address) -> trio.socket.SocketType:
            nonlocal started
            started += 1
            return await self._open_socket(address, port, local)

        note_phase(_phase(endpoint, "tcp"))
        try:
            winner, sock = await race(addresses, attempt, delay=self._delay)
        except ExceptionGroup as failures:
            error = _explain(failures, endpoint)
            if not isinstance(error, LocalResourceError):
                answer.expire()
            raise error from failures
        except BaseException:
            # Addresses that swallow everything never fail; they are cancelled.
            if started == len(addresses):
                answer.expire()
            raise
        answer.winner = winner
        return trio.SocketStream(sock)

    async def _open_socket(
        self, address: Address, port: int, local: Address | None
    ) -> trio.socket.SocketType:
        sock = trio.socket.socket(address.family, socket.SOCK_STREAM)
        try:
            apply_options(sock, self._options)
            if local is not None:
                await _bind(sock, local)
            await _meet(sock, address, port)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _resolve(self, endpoint: Endpoint) -> Answer:
        phase = _phase(endpoint, "resolve")
        note_phase(phase)
        local = _local_address(endpoint)
        host, port = _first_hop(endpoint)
        try:
            return await self._names().resolve(host, port, local.family if local else 0)
        except OSError as error:
            raise as_connect_error(error, endpoint, phase) from error

    def _names(self) -> NameCache:
        token = trio.lowlevel.current_trio_token()
        names = self._names_of.get(token)
        if names is None:
            names = self._names_of[token] = NameCache(ttl=self._dns_ttl, resolver=self._resolver)
        return names


def _first_hop(endpoint: Endpoint) -> tuple[str, int]:
    hop = endpoint if endpoint.proxy is None else endpoint.proxy
    return hop.host, hop.port


def _phase(endpoint: Endpoint, phase: DialPhase) -> DialPhase:
    """Whatever goes wrong on the way to a proxy is about the proxy."""
    return phase if endpoint.proxy is None else "proxy"


def _optional_seconds(name: str, seconds: float | None) -> float | None:
    return None if seconds is None else valid_seconds(name, seconds, positive=True)


# ── this end ────────────────────────────────────────────────────────────────────


@final
class _CannotBind(OSError):
    """The local address is not to be had; nothing is known of the peer."""


def _local_address(endpoint: Endpoint) -> Address | None:
    if endpoint.local_address is None:
        return None
    try:
        local = read_literal(endpoint.local_address)
    except OSError as error:  # a zone that is not here
        raise _cannot_dial_from(endpoint, error.errno, str(error.strerror)) from error
    if local is None:
        raise _cannot_dial_from(endpoint, errno.EINVAL, "that is no IP address")
    return local


def _cannot_dial_from(endpoint: Endpoint, code: int | None, why: str) -> ConnectError:
    message = f"cannot dial from local_address {endpoint.local_address}: {why}"
    return ConnectError(message, endpoint=endpoint, phase=_phase(endpoint, "tcp"), errno=code)


async def _bind(sock: trio.socket.SocketType, local: Address) -> None:
    bind_late(sock)
    try:
        await sock.bind(local.at(0))
    except OSError as error:
        raise _CannotBind(error.errno, error.strerror) from error


# ── the other end ───────────────────────────────────────────────────────────────


async def _meet(sock: trio.socket.SocketType, address: Address, port: int) -> None:
    """Connect, and make sure that the socket is connected, and to somebody else."""
    try:
        await sock.connect(address.at(port))
    except OSError as error:
        if error.errno is None:
            raise
        # trio says which address it was only for those that fail late, and in many words.
        raise OSError(error.errno, f"{os.strerror(error.errno)} ({address.ip})") from error
    try:
        peer = sock.getpeername()
    except OSError as error:
        said = f"the peer closed the connection at once ({address.ip})"
        raise OSError(errno.ECONNRESET, said) from error
    if peer == sock.getsockname():
        # The system took the port that was dialled for our end; nobody else is there.
        said = f"self-connect: nobody listens there ({address.ip})"
        raise OSError(errno.ECONNREFUSED, said)


def _explain(failures: ExceptionGroup[Exception], endpoint: Endpoint) -> ConnectError:
    for failure in failures.exceptions:
        if isinstance(failure, _CannotBind):
            return _cannot_dial_from(endpoint, failure.errno, str(failure.strerror))
    attempts = [failure for failure in failures.exceptions if isinstance(failure, OSError)]
    return as_connect_error(failures, endpoint, _phase(endpoint, "tcp"), attempts)
