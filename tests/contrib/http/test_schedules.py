"""What happens to one transport at the same moment, in every possible order.

Whoever is not cancelled gets an answer, each its own, and nothing is left behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import h2.exceptions
import pytest
import trio
import trio.abc

from conpool import ConnectionPool, PoolConfig
from conpool.testing import MemoryConnector, assert_quiescent, explore_schedules, fixed_order

from .clients import ONE_LIBRARY, Client, Peer, Server
from .h2_server import Link
from .test_cancelled import NO_TLS

T = 9.7
"""The moment. The pool has nothing of its own to do then."""

TURNS = 2
"""How many of trio's turns are tried in each order."""

LIMIT = 1_000
"""More schedules than any of these scenarios has; one that reaches it has not been explored."""


def explore(scenario: Callable[[], Awaitable[object]]) -> None:
    assert 1 < explore_schedules(scenario, limit=LIMIT) < LIMIT


class Stage:
    """A transport over connections in memory, and requests that come and go."""

    def __init__(
        self, client: Client, serve: Callable[[trio.abc.Stream], Awaitable[object]], *, h2: bool
    ) -> None:
        self.pool: Any
        self.answers: dict[str, str] = {}
        """The body that each request got, or the name of its error."""
        self._lib = client.lib
        self._scopes: dict[str, trio.CancelScope] = {}
        self._connector = MemoryConnector(serve)
        driver: Any = client.contrib.HTTPDriver() if h2 else None
        config = PoolConfig(max_connections_per_endpoint=1)
        self.pool = ConnectionPool(config, connector=self._connector, driver=driver)
        self._transport = client.transport(self.pool, http1=not h2, http2=h2, verify=NO_TLS)
        self._nursery: trio.Nursery

    @asynccontextmanager
    async def set(self) -> AsyncIterator[Stage]:
        """Prepare in the block; at its end comes `T`."""
        with ExitStack() as order:
            order.enter_context(fixed_order())
            async with self.pool:
                async with trio.open_nursery() as self._nursery:
                    yield self
                    await trio.sleep_until(T - 0.5)
                    trio.lowlevel.add_instrument(_Curtain(order))
                await trio.sleep(60)
                assert_quiescent(self.pool)
        assert self._connector.live == 0
        assert not self._connector.errors

    def asks(self, path: str, at: float = T, body: Any = None) -> None:
        async def ask() -> None:
            with trio.CancelScope() as self._scopes[path]:
                await trio.sleep_until(at)
                await self._ask(path, body)

        self._nursery.start_soon(ask, name=path)

    def cancels(self, path: str) -> None:
        async def cancel() -> None:
            await trio.sleep_until(T)
            self._scopes[path].cancel()

        self._nursery.start_soon(cancel, name=f"cancel {path}")

    async def _ask(self, path: str, body: Any) -> None:
        method = "GET" if body is None else "POST"
        request = self._lib.Request(method, f"http://127.0.0.1:1{path}", content=body)
        try:
            response = await self._transport.handle_async_request(request)
            try:
                self.answers[path] = (await response.aread()).decode()
            finally:
                await response.aclose()
        except self._lib.TransportError as error:
            self.answers[path] = type(error).__name__

    def assert_answered(self, *paths: str, perhaps: str | None = None) -> None:
        """Each of `paths` got its own answer, and `perhaps` that or none."""
        expected = {path: path for path in paths}
        if perhaps in self.answers:
            expected[perhaps] = perhaps
        assert self.answers == expected


class _Curtain(trio.abc.Instrument):
    """Opens at `T`, and falls a few turns later: in what comes then nobody else has a part."""

    def __init__(self, order: ExitStack) -> None:
        self._order = order
        self._turns = 0

    def after_io_wait(self, timeout: float) -> None:
        if trio.current_time() < T:
            return
        self._turns += 1
        if self._turns == 1:
            self._order.close()
        elif self._turns == 1 + TURNS:
            self._order.enter_context(fixed_order())


# ── HTTP/1.1 ────────────────────────────────────────────────────────────────────


async def serve_first_at_t(stream: trio.abc.Stream) -> None:
    """Answer the first request of each connection at `T`, and others at once."""
    peer = Peer(stream, Server(), 1)
    while (request := await peer.request()) is not None:
        await trio.sleep_until(T)
        await peer.answer(request.target.encode())


@ONE_LIBRARY
def test_an_answer_against_a_cancellation_and_a_newcomer(client: Client) -> None:
    async def scenario() -> None:
        stage = Stage(client, serve_first_at_t, h2=False)
        async with stage.set():
            stage.asks("/first", 1)
            stage.asks("/second", 2)
            stage.cancels("/first")
            stage.asks("/third")
        stage.assert_answered("/second", "/third", perhaps="/first")

    explore(scenario)


@ONE_LIBRARY
def test_a_server_that_leaves_against_a_request(client: Client) -> None:
    peers: list[Peer] = []

    async def serve(stream: trio.abc.Stream) -> None:
        peer = Peer(stream, Server(), 1)
        peers.append(peer)
        while (request := await peer.request()) is not None:
            await peer.answer(request.target.encode())
            if peer is peers[0]:
                await trio.sleep_until(T)
                return

    async def scenario() -> None:
        peers.clear()
        stage = Stage(client, serve, h2=False)
        async with stage.set():
            stage.asks("/warm", 1)
            stage.asks("/first")
            stage.cancels("/first")
            stage.asks("/second")
        stage.assert_answered("/warm", "/second", perhaps="/first")

    explore(scenario)


class AtT:
    """A body whose second piece comes at `T`."""

    def __init__(self) -> None:
        self._left = [b"two", b"one"]

    def __aiter__(self) -> AtT:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        if len(self._left) == 1:
            await trio.sleep_until(T)
        return self._left.pop()


@ONE_LIBRARY
@pytest.mark.parametrize("status", [200, 413])
def test_an_early_answer_against_the_body_and_a_cancellation(client: Client, status: int) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        peer = Peer(stream, Server(), 1)
        while (head := await peer.head()) is not None:
            await trio.sleep_until(T)
            await peer.answer(head.target, status=status)
            while await peer.piece():
                pass

    async def scenario() -> None:
        stage = Stage(client, serve, h2=False)
        async with stage.set():
            stage.asks("/first", 1, AtT())
            stage.cancels("/first")
        stage.assert_answered(perhaps="/first")

    explore(scenario)


# ── HTTP/2 ──────────────────────────────────────────────────────────────────────

Event = Callable[[Link, int], Awaitable[object]]


async def answers(link: Link, number: int) -> None:
    await link.answer(number)


async def leaves(link: Link, number: int) -> None:
    await link.raw(b"\0\0\x08\x07\0\0\0\0\0" + bytes(8))


async def refuses(link: Link, number: int) -> None:
    await link.do("reset_stream", number, 7)


async def breaks_off(link: Link, number: int) -> None:
    assert isinstance(link.stream, trio.abc.HalfCloseableStream)
    await link.stream.send_eof()


async def lowers_its_limit(link: Link, number: int) -> None:
    await link.do("update_settings", {3: 0})
    await link.answer(number)
    await trio.sleep(1)
    await link.do("update_settings", {3: 100})


@ONE_LIBRARY
@pytest.mark.parametrize(
    ("happens", "max_streams"),
    [
        (answers, 1),
        (answers, 100),
        (leaves, 100),
        (refuses, 100),
        (breaks_off, 100),
        (lowers_its_limit, 100),
    ],
)
def test_on_a_shared_connection(client: Client, happens: Event, max_streams: int) -> None:
    """What a server does at `T`, against a cancellation and a newcomer."""
    links: list[Link] = []

    async def handle(link: Link, number: int) -> None:
        await link.ended[number].wait()
        with suppress(h2.exceptions.ProtocolError):  # the client has left meanwhile
            if link is links[0] and number == 1:
                await trio.sleep_until(T)
                await happens(link, number)
            else:
                await link.answer(number)

    async def serve(stream: trio.abc.Stream) -> None:
        link = Link(stream, max_streams)
        links.append(link)
        await link.run(handle)

    async def scenario() -> None:
        links.clear()
        stage = Stage(client, serve, h2=True)
        async with stage.set():
            stage.asks("/first", 1)
            stage.cancels("/first")
            stage.asks("/second")
        stage.assert_answered("/second", perhaps="/first")

    explore(scenario)
