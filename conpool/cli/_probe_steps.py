"""The steps of `conpool probe`: each measures one thing on a real connection."""

from __future__ import annotations

import os
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import trio

import conpool
from conpool._errors.explain import as_connect_error
from conpool._values.states import DialPhase
from conpool.cli._screen import plain

_MOST_ADDRESSES: Final = 8
FRESH: Final = 3
"""Fresh connections whose median counts: one may meet a cold cache."""
_SOON: Final = 0.3
"""Seconds that a server has to speak first."""
_SHOWN: Final = 200
"""Bytes of an unasked message that the findings have."""
_MOST_BYTES: Final = 65_536
"""Of a reply: no server has a longer head."""


class Attempt(NamedTuple):
    """A dial to one address."""

    address: str
    seconds: float | None
    error: str | None


class Encryption(NamedTuple):
    """What the TLS handshake agreed on."""

    seconds: float
    version: str | None
    cipher: str | None
    alpn: str | None
    subject: str | None
    issuer: str | None
    days_left: int | None
    """Until the certificate expires; None if it was not checked."""


class Reuse(NamedTuple):
    """What a kept connection saves."""

    what: str
    """What was sent, or a lease alone."""
    fresh: float
    """Seconds with a connection of its own."""
    kept: float | None
    """Seconds over a connection that was kept; None if the server keeps none."""
    reply: str = ""
    """The status of the reply, as in `200 OK`; empty if the protocol has none."""


class Idle(NamedTuple):
    """How long the server kept an idle connection."""

    waited: float
    is_closed: bool
    said: bytes
    """What it sent meanwhile."""


class Exchange(NamedTuple):
    """A request without consequences, and how its reply ends."""

    name: str
    request: bytes
    end: bytes
    over_tls: str | None = None
    """The scheme of the same protocol over TLS, if there is one."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and what may be said there."""

    endpoint: conpool.AnyEndpoint
    exchange: Exchange | None
    timeout: float
    offering: ssl.SSLContext | None = None
    """Offers all protocols that the server may choose from; the endpoint's own, what we speak."""

    @property
    def context(self) -> ssl.SSLContext | None:
        """How to encrypt what we say; None: not at all."""
        return self.endpoint.tls.context if self.endpoint.tls else None

    @property
    def doubt(self) -> str:
        """What may be behind a reply that is none: a server of TLS that was spoken to without."""
        if self.context is not None or self.exchange is None or self.exchange.over_tls is None:
            return ""
        return f" (does it speak TLS on this port? Then write {self.exchange.over_tls}://)"


class StepFailed(Exception):
    """The server cannot be used; the message says why."""


class NoReply(StepFailed):
    """The server hung up without a word."""


@contextmanager
def explained(target: Target, phase: DialPhase) -> Generator[None, None, None]:
    """Explain the failure of a step.

    Raises:
        StepFailed: The step failed, or took too long.
    """
    try:
        yield
    except trio.TooSlowError:
        where = f"{target.endpoint}, phase {phase}"
        raise StepFailed(f"{where}: no answer within {target.timeout:g} s") from None
    except conpool.PoolError as error:
        raise StepFailed(str(error)) from error
    except (OSError, trio.BrokenResourceError, ExceptionGroup) as error:
        raise StepFailed(str(as_connect_error(error, target.endpoint, phase))) from error


async def resolve(endpoint: conpool.Endpoint) -> tuple[float, list[tuple[int, Any]]]:
    """Look the name up; return the seconds, and family and address of each that it has."""
    began_at = trio.current_time()
    found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    addresses: list[tuple[int, Any]] = list(dict.fromkeys((one[0], one[4]) for one in found))
    return trio.current_time() - began_at, addresses[:_MOST_ADDRESSES]


async def try_address(family: int, address: Any, timeout: float) -> Attempt:
    """Connect to one address, and hang up."""
    began_at = trio.current_time()
    error: str | None = None
    with trio.socket.socket(family) as sock, trio.move_on_after(timeout) as scope:
        try:
            await sock.connect(address)
        except OSError as raised:
            # trio puts the address into the text.
            error = os.strerror(raised.errno) if raised.errno else str(raised)
    if scope.cancelled_caught:
        error = f"no answer within {timeout:g} s"
    seconds = trio.current_time() - began_at
    shown = address if isinstance(address, str) else address[0]
    return Attempt(shown, None if error else seconds, error)


async def open_stream(endpoint: conpool.AnyEndpoint) -> trio.SocketStream:
    """Connect without TLS."""
    if isinstance(endpoint, conpool.UnixEndpoint):
        return await trio.open_unix_socket(endpoint.path)
    return await trio.open_tcp_stream(endpoint.host, endpoint.port)


async def encrypt(
    target: Target, context: ssl.SSLContext, stream: trio.SocketStream
) -> trio.SSLStream[trio.SocketStream]:
    """Shake hands."""
    host = getattr(target.endpoint, "host", None)
    secure = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    await secure.do_handshake()
    return secure


async def look_at_tls(target: Target) -> Encryption:
    """Say what a handshake agrees on, and how long it takes."""
    async with await open_stream(target.endpoint) as stream:
        began_at = trio.current_time()
        assert target.offering is not None
        secure = await encrypt(target, target.offering, stream)
        seconds = trio.current_time() - began_at
        certificate: dict[str, Any] = secure.getpeercert() or {}
        cipher = secure.cipher()
        encryption = Encryption(
            seconds,
            secure.version(),
            cipher[0] if cipher else None,
            secure.selected_alpn_protocol(),
            _name_in(certificate.get("subject")),
            _name_in(certificate.get("issuer")),
            _days_left(certificate.get("notAfter")),
        )
        await trio.aclose_forcefully(secure)
        return encryption


def _name_in(parts: Any) -> str | None:
    """Return the common name of a certificate's subject or issuer, or else its organization."""
    fields = dict(pair for part in parts or () for pair in part)
    return fields.get("commonName") or fields.get("organizationName")


def _days_left(not_after: str | None) -> int | None:
    if not_after is None:
        return None
    return int((ssl.cert_time_to_seconds(not_after) - time.time()) // 86_400)


async def listen(target: Target) -> bytes:
    """Return what the server says before it is asked, if it does that soon."""
    async with await _open(target) as stream:
        with trio.move_on_after(_SOON):
            return bytes(await stream.receive_some(_SHOWN))
    return b""


async def _open(target: Target) -> trio.abc.Stream:
    """Connect, with TLS if the server speaks it."""
    with trio.fail_after(target.timeout):
        raw = await open_stream(target.endpoint)
        return raw if target.context is None else await encrypt(target, target.context, raw)


async def measure_reuse(target: Target, requests: int, advance: Callable[[], None]) -> Reuse:
    """Compare fresh connections with one that the pool keeps."""
    config = conpool.PoolConfig(
        acquire_timeout=target.timeout, connect_timeout=target.timeout, shutdown_grace=0.0
    )
    fresh: list[float] = []
    kept: list[float] = []
    reply = ""
    async with conpool.ConnectionPool(config, name="probe") as pool:
        for number in range(FRESH + requests):
            is_fresh = number < FRESH
            began_at = trio.current_time()
            is_kept = False
            try:
                async with pool.connection(target.endpoint, fresh=is_fresh) as conn:
                    is_kept = conn.reused
                    if target.exchange is not None:
                        reply = await _exchange(conn, target)
            except (NoReply, trio.BrokenResourceError):
                # The server closed it as we sent, which no pool can prevent: so it keeps none.
                if not is_kept:
                    raise
            else:
                (kept if is_kept else fresh).append(trio.current_time() - began_at)
            advance()
    what = "a lease alone" if target.exchange is None else target.exchange.name
    median = statistics.median
    return Reuse(what, median(fresh), median(kept) if kept else None, reply)


async def _exchange(stream: trio.abc.Stream, target: Target) -> str:
    """Ask, and return the status of the reply, if it is one of HTTP."""
    assert target.exchange is not None
    where, name = target.endpoint, target.exchange.name
    received = bytearray()
    with trio.fail_after(target.timeout):
        await stream.send_all(target.exchange.request)
        while not received.endswith(target.exchange.end):
            chunk = await stream.receive_some()
            received += chunk
            if not received:
                raise NoReply(f"{where}: no reply to {name}{target.doubt}")
            if not chunk or len(received) > _MOST_BYTES:
                raise StepFailed(f"{where}: no proper reply to {name}{target.doubt}")
    line = received.partition(b"\r\n")[0].decode("latin-1")
    return plain(line.partition(" ")[2].strip()) if line.startswith("HTTP/") else ""


async def watch_idle(target: Target, seconds: float, advance: Callable[[], None]) -> Idle:
    """Leave a connection idle after one exchange, until the server closes it or time is up."""
    async with await _open(target) as stream:
        if target.exchange is not None:
            await _exchange(stream, target)
        began_at = trio.current_time()
        said = bytearray()
        is_closed = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tick, advance)
            with trio.move_on_after(seconds):
                while not is_closed:
                    try:
                        chunk = await stream.receive_some()
                    except trio.BrokenResourceError:
                        chunk = b""
                    is_closed = not chunk
                    said += chunk[:_MOST_BYTES]
            nursery.cancel_scope.cancel()
        waited = trio.current_time() - began_at
        await trio.aclose_forcefully(stream)
    return Idle(waited, is_closed, bytes(said[:_SHOWN]))


async def _tick(advance: Callable[[], None]) -> None:
    while True:
        await trio.sleep(1.0)
        advance()
