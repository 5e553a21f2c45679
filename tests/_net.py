"""What tests of the connector share: resolvers and sockets that do what the test tells them."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

import pytest
import trio

from conpool._dial.address import Address
from conpool._dial.progress import Progress, current
from conpool._dial.tcp import TCPConnector
from conpool._errors.connect import ConnectError, ConnectRefused
from conpool._values.endpoint import Endpoint

LOOPBACK = "127.0.0.1"


def v4(ip: str) -> Address:
    return Address(socket.AF_INET, ip)


def v6(ip: str) -> Address:
    return Address(socket.AF_INET6, ip)


class Hosts:
    """A resolver for a connector, with names and their addresses or errors."""

    def __init__(self, **names: Sequence[str] | Exception) -> None:
        self.names: dict[str, Sequence[str] | Exception] = dict(names)
        self.asked: list[str] = []
        self.delay = 0.0
        self.gate: trio.Event | None = None

    async def __call__(self, host: str, family: int) -> Sequence[str]:
        self.asked.append(host)
        if self.gate is not None:
            await self.gate.wait()
        await trio.sleep(self.delay)
        found = self.names[host]
        if isinstance(found, Exception):
            raise found
        return found


class Hook(trio.abc.HostnameResolver):
    """A resolver for trio's hook, that finds the same socket addresses for every name."""

    def __init__(self, *found: tuple[int, tuple[Any, ...]]) -> None:
        self.found = found
        self.asked: list[tuple[object, object]] = []

    async def getaddrinfo(self, host: object, port: object, *args: object, **kwargs: object) -> Any:
        self.asked.append((host, port))
        await trio.lowlevel.checkpoint()
        return [(family, socket.SOCK_STREAM, 6, "", sockaddr) for family, sockaddr in self.found]

    async def getnameinfo(self, sockaddr: object, flags: int) -> Any:
        raise NotImplementedError


@contextlib.contextmanager
def hooked(hook: Hook) -> Iterator[Hook]:
    old = trio.socket.set_custom_hostname_resolver(hook)
    try:
        yield hook
    finally:
        trio.socket.set_custom_hostname_resolver(old)


class SystemResolver:
    """Stands in for the system's `getaddrinfo`, and holds its threads until `let_go`."""

    def __init__(self, found: str = LOOPBACK) -> None:
        self.asked: list[str] = []
        self.found = found
        self.fails: OSError | None = None
        self.gate = threading.Event()
        self.slow = ""
        """Names that start with this are held."""
        self._real = socket.getaddrinfo
        self._wake: tuple[trio.lowlevel.TrioToken, trio.Event] | None = None

    def __call__(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return self._real(host, port, family, type, proto, flags)
        name = host.decode()
        self.asked.append(name)
        if self._wake is not None:
            token, asked = self._wake
            token.run_sync_soon(asked.set)
        if name.startswith(self.slow):
            assert self.gate.wait(20)
        if self.fails is not None:
            raise self.fails
        # The system is not asked: it would open a socket, perhaps while a test counts files.
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.found, 0))]

    def let_go(self) -> None:
        """Let all threads end, and wait until they have ended.

        Call `wait_asked` before: a thread that has not asked yet is not seen here.
        """
        self.gate.set()
        for thread in threading.enumerate():
            while thread.name.startswith("conpool look-up"):
                time.sleep(0.001)

    async def wait_asked(self, count: int) -> None:
        with trio.fail_after(10):
            while True:
                asked = trio.Event()
                self._wake = (trio.lowlevel.current_trio_token(), asked)
                if len(self.asked) >= count:
                    return
                await asked.wait()


@contextlib.asynccontextmanager
async def listening(host: str = LOOPBACK) -> AsyncIterator[tuple[trio.SocketListener, int]]:
    (listener,) = await trio.open_tcp_listeners(0, host=host)
    async with listener:
        yield listener, cast("int", listener.socket.getsockname()[1])


@contextlib.contextmanager
def refusing(host: str = LOOPBACK, port: int = 0) -> Iterator[int]:
    """A port that is taken, so that no other process gets it, and on which nobody listens."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        taken.bind((host, port))
        yield taken.getsockname()[1]


@contextlib.contextmanager
def swallowing(host: str = LOOPBACK, port: int = 0) -> Iterator[int]:
    """A port that does not answer: its backlog is full, so the system drops each SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        port = listener.getsockname()[1]
        # Linux takes one more than the backlog says, and leaves the next one half open.
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield port


class FakeSocket(trio.socket.SocketType):
    """A socket without a system: connecting takes as long, and ends, as the plan says."""

    def __init__(self, family: int, plan: FakeNetwork) -> None:
        self._family = family
        self._plan = plan
        self._peer: tuple[Any, ...] = ()
        self.closed = False

    type = socket.SOCK_STREAM

    def setsockopt(self, *args: Any) -> None:
        raise OSError("no options here")

    async def bind(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()

    async def connect(self, address: Any) -> None:
        delay, error = self._plan.answers[address[0]]
        self._plan.dialled.append(address[0])
        await trio.sleep(delay)
        if error is not None:
            raise error
        self._peer = address

    def getpeername(self) -> Any:
        if self._plan.no_peer is not None:
            raise self._plan.no_peer
        return self._peer

    def getsockname(self) -> Any:
        return ("192.0.2.254", 1)

    def close(self) -> None:
        self.closed = True


class FakeNetwork(trio.abc.SocketFactory):
    """A network for `MockClock`: for each address, how long connecting takes, and its error."""

    def __init__(self, **answers: tuple[float, OSError | None]) -> None:
        self.answers = answers
        self.dialled: list[str] = []
        self.sockets: list[FakeSocket] = []
        self.no_peer: OSError | None = None
        self.exhausted: OSError | None = None

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> FakeSocket:
        if self.exhausted is not None:
            raise self.exhausted
        self.sockets.append(FakeSocket(family, self))
        return self.sockets[-1]

    @property
    def open(self) -> int:
        return sum(not sock.closed for sock in self.sockets)


class FromPort(trio.abc.SocketFactory):
    """Sockets that come from one port: what the kernel does by chance when it picks one."""

    def __init__(self, port: int) -> None:
        self.port = port

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> Any:
        sock = socket.socket(family, type)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK, self.port))
        return trio.socket.from_stdlib_socket(sock)


@contextlib.contextmanager
def on_network(factory: trio.abc.SocketFactory) -> Iterator[None]:
    old = trio.socket.set_custom_socket_factory(factory)
    try:
        yield
    finally:
        trio.socket.set_custom_socket_factory(old)


@contextlib.contextmanager
def progress_noted() -> Iterator[Progress]:
    """Note progress as a dial does."""
    progress = Progress()
    token = current.set(progress)
    try:
        yield progress
    finally:
        current.reset(token)


async def fails(
    connector: TCPConnector, endpoint: Endpoint, kind: type[ConnectError] | None = None
) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await connector.connect(endpoint)
    is_refused = caught.value.errno == errno.ECONNREFUSED
    assert type(caught.value) is (kind or (ConnectRefused if is_refused else ConnectError))
    assert caught.value.endpoint == endpoint
    return caught.value


@contextlib.asynccontextmanager
async def connected(
    connector: TCPConnector, endpoint: Endpoint
) -> AsyncIterator[trio.SocketStream]:
    stream = await connector.connect(endpoint)
    assert isinstance(stream, trio.SocketStream)
    async with stream:
        yield stream
