"""The default connector: TCP and UNIX sockets, straight or through a proxy.

How a TCP peer is reached:

1. Its name is looked up, or remembered (`name_cache`).
2. Its addresses race; the last winner starts first (`race`).
3. A new socket must have a peer, and the peer must not be the socket itself. TCP can connect a
   socket to itself: if nobody listens on a local port, the system may choose that very port for
   our end. Such a self-connect is detected and refused.
4. With a proxy, steps 1 to 3 were about the proxy. Now it is asked for a tunnel (`tunnel`).

Nothing awaits between the moment a socket exists and the `try` that closes it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar, final
from weakref import WeakKeyDictionary

import trio

from conpool._connection.closing import close_now
from conpool._dial.address import Address, interleave, read_literal
from conpool._dial.lookup import Resolver
from conpool._dial.name_cache import NameCache, ResolverStats
from conpool._dial.progress import note_phase
from conpool._dial.race import race
from conpool._dial.socket_options import apply_options, as_stream, bind_late, socket_options
from conpool._dial.tunnel import find_tunnel
from conpool._dial.unix import connect_unix
from conpool._errors.connect import ConnectError, LocalResourceError
from conpool._errors.explain import as_connect_error
from conpool._extend.connector import Connector
from conpool._values.endpoint import AnyEndpoint, Endpoint, UnixEndpoint
from conpool._values.states import DialPhase
from conpool._values.validation import valid_async_function, valid_seconds

T = TypeVar("T")


@final
class TCPConnector(Connector):
    """The default: DNS cache, happy eyeballs, proxies, socket options.

    A pool makes one of its own. Make one yourself to choose other times, to share its memory of
    names between pools, or to bring a resolver:

        >>> from conpool import ConnectionPool, TCPConnector
        >>> connector = TCPConnector(dns_ttl=30.0, user_timeout=20.0)
        >>> pool = ConnectionPool(connector=connector)

    The system's resolver runs in threads of the connector's own (at most 20; more names wait), so
    that a slow name never delays another use of trio's threads. A resolver set with
    `trio.socket.set_custom_hostname_resolver` is honoured. While a resolver is down or slow, its
    old answers still serve, for up to a day.

    Args:
        dns_ttl: How long the addresses of a name are remembered, in seconds. 0 remembers nothing,
            not even failures and old answers.
        happy_eyeballs_delay: How long to wait for one address before the next is tried too, in
            seconds (RFC 8305). `math.inf` tries one after the other.
        keepalive: After so many seconds of silence the system asks the peer whether it is there,
            and ends the connection if there is no answer for as long again. None: never.
        user_timeout: The system ends a connection on which bytes stay unacknowledged for so many
            seconds (TCP_USER_TIMEOUT). None leaves it to the system, which takes a quarter of an
            hour. It also ends connections to a live peer that does not read for so long. On a
            system without such an option it does nothing.
        resolver: Finds the addresses of names, in place of the system: `await resolver(host,
            family)` returns IP addresses as strings, the best first. `family` is `socket.AF_INET`,
            `socket.AF_INET6` or 0 for both. An empty result means that the name does not exist;
            `OSError`, that the resolver cannot say.

    Raises:
        ConfigError: A duration is negative or no number, or `resolver` is no async function.
    """

    def __init__(
        self,
        *,
        dns_ttl: float = 300.0,
        happy_eyeballs_delay: float = 0.25,
        keepalive: float | None = 60.0,
        user_timeout: float | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        if resolver is not None:
            valid_async_function("resolver", resolver)
        self._resolver = resolver
        self._dns_ttl = valid_seconds("dns_ttl", dns_ttl, positive=False)
        self._delay = valid_seconds("happy_eyeballs_delay", happy_eyeballs_delay, positive=False)
        self._keepalive = _optional_seconds("keepalive", keepalive)
        self._user_timeout = _optional_seconds("user_timeout", user_timeout)
        self._options = socket_options(self._keepalive, self._user_timeout)
        # One for each run of trio: a run's clock and threads mean nothing to another run.
        self._names_of: WeakKeyDictionary[trio.lowlevel.TrioToken, NameCache] = WeakKeyDictionary()

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        """Connect to an endpoint, through its proxy if it has one. The pool adds the TLS.

        Returns:
            A `trio.SocketStream`, or a `trio.SSLStream` if the way to the proxy is encrypted.

        Raises:
            ConnectError: As `ResolveError`, `ProxyError` or `LocalResourceError` if one of them
                fits; `attempts` has one error for each address.

        Cancelling it closes all its sockets, and takes nothing from others who look up the name.
        """
        if isinstance(endpoint, UnixEndpoint):
            stream: trio.abc.Stream = await connect_unix(endpoint)
        elif endpoint.proxy is None:
            stream = await self._connect_tcp(endpoint)
        else:
            tunnel = find_tunnel(endpoint)
            stream = await tunnel(await self._connect_tcp(endpoint))
        try:
            note_phase("open")  # a connector around this one may go on to log in
        except BaseException:
            await close_now(stream)  # noqa: ASYNC102 - shields and bounds itself
            raise
        return stream

    async def addresses(self, endpoint: AnyEndpoint) -> frozenset[str] | None:
        """Return the IP addresses of the name that is dialled: the endpoint's, or its proxy's.

        The name is looked up if what is remembered of it has expired. None for IP addresses and
        UNIX sockets, and for names that cannot be remembered: `dns_ttl` is 0, or other names fill
        the memory.

        Raises:
            ConnectError: The name cannot be resolved, or `local_address` is no IP address.

        Cancelling it takes nothing from others who look up the name.
        """
        await trio.lowlevel.checkpoint()
        if isinstance(endpoint, UnixEndpoint):
            return None
        return await self._ask(NameCache.addresses, endpoint)

    @property
    def resolver_stats(self) -> ResolverStats:
        """How look-ups went in this run of trio; to be read inside a run."""
        return self._names().stats

    def __repr__(self) -> str:
        return (
            f"<TCPConnector dns_ttl={self._dns_ttl} happy_eyeballs_delay={self._delay}"
            f" keepalive={self._keepalive} user_timeout={self._user_timeout}>"
        )

    # ── the way to one host ─────────────────────────────────────────────────────

    async def _connect_tcp(self, endpoint: Endpoint) -> trio.SocketStream:
        """Connect to the endpoint itself, or to its proxy if it has one."""
        answer = await self._ask(NameCache.resolve, endpoint)
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
            # Addresses that never answer do not fail: the dial is cancelled.
            if started == len(addresses):
                answer.expire()
            raise
        answer.winner = winner
        return as_stream(sock)

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

    async def _ask(
        self, ask: Callable[[NameCache, str, int, int], Awaitable[T]], endpoint: Endpoint
    ) -> T:
        """Ask the memory of names about the host that is dialled first."""
        phase = _phase(endpoint, "resolve")
        note_phase(phase)
        local = _local_address(endpoint)
        host, port = _first_hop(endpoint)
        try:
            return await ask(self._names(), host, port, local.family if local else 0)
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
    """Until the tunnel stands, whatever goes wrong is about the proxy."""
    return phase if endpoint.proxy is None else "proxy"


def _optional_seconds(name: str, seconds: float | None) -> float | None:
    return None if seconds is None else valid_seconds(name, seconds, positive=True)


# ── this end ────────────────────────────────────────────────────────────────────


@final
class _CannotBind(OSError):
    """We could not take the local address; this says nothing about the peer."""


def _local_address(endpoint: Endpoint) -> Address | None:
    if endpoint.local_address is None:
        return None
    try:
        local = read_literal(endpoint.local_address)
    except OSError as error:  # its zone does not exist on this machine
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
    """Connect, and make sure that there is a peer and that it is not the socket itself."""
    try:
        await sock.connect(address.at(port))
    except OSError as error:
        if error.errno is None:
            raise
        # trio names the address only if the connect fails late, and in many words.
        raise OSError(error.errno, f"{os.strerror(error.errno)} ({address.ip})") from error
    try:
        peer = sock.getpeername()
    except OSError as error:
        said = f"the peer closed the connection at once ({address.ip})"
        raise OSError(errno.ECONNRESET, said) from error
    if peer == sock.getsockname():
        said = f"self-connect: nobody listens there ({address.ip})"
        raise OSError(errno.ECONNREFUSED, said)


def _explain(failures: ExceptionGroup[Exception], endpoint: Endpoint) -> ConnectError:
    for failure in failures.exceptions:
        if isinstance(failure, _CannotBind):
            return _cannot_dial_from(endpoint, failure.errno, str(failure.strerror))
    attempts = [failure for failure in failures.exceptions if isinstance(failure, OSError)]
    return as_connect_error(failures, endpoint, _phase(endpoint, "tcp"), attempts)
