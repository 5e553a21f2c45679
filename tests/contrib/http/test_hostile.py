"""Servers that mean harm: the library's error, bounded memory, and nothing handed on."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import conpool
from conpool.contrib._http.multiplex import ConnectionFailed, Multiplex
from conpool.contrib._http.routes import PRIOR_KNOWLEDGE
from conpool.testing import MemoryConnector, assert_quiescent

from .clients import ONE_LIBRARY, Client, Peer, serving
from .h2_server import Link, answer_path, serving_h2

MOST_MEMORY = 8_000_000
"""Bytes that a hostile server may make us keep: a few times our own limits."""


@asynccontextmanager
async def bounded() -> AsyncIterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY


async def send_for_ever(peer: Peer, start: bytes, piece: bytes) -> None:
    await peer.request()
    await peer.send(start)
    while True:
        await peer.send(piece)


async def endless_head(peer: Peer) -> None:
    await send_for_ever(peer, b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1_000)


async def endless_line(peer: Peer) -> None:
    await send_for_ever(peer, b"HTTP/1.1 200 OK\r\nX: ", b"y" * 10_000)


async def endless_interim(peer: Peer) -> None:
    await send_for_ever(peer, b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)


async def endless_size_of_chunk(peer: Peer) -> None:
    await send_for_ever(
        peer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 10_000
    )


async def endless_trailers(peer: Peer) -> None:
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    await send_for_ever(peer, start, b"X: y\r\n" * 1_000)


async def no_http(peer: Peer) -> None:
    await send_for_ever(peer, b"SSH-2.0-OpenSSH\r\n", b"x" * 10_000)


async def short_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")


async def short_chunks(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc")


async def two_lengths(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")


async def unasked_upgrade(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n")
    await peer.gone()


BROKEN = [
    endless_head,
    endless_line,
    endless_interim,
    endless_size_of_chunk,
    endless_trailers,
    no_http,
    short_body,
    short_chunks,
    two_lengths,
    unasked_upgrade,
]


@ONE_LIBRARY
@pytest.mark.parametrize("script", BROKEN, ids=lambda script: script.__name__)
async def test_a_broken_answer_is_an_error_and_the_end(
    client: Client, script: Callable[[Peer], Awaitable[None]]
) -> None:
    async with serving(script) as server, client.open() as session:
        async with bounded():
            with pytest.raises(client.lib.RemoteProtocolError):
                await session.get(server.url())
        stats = client.pool_of(session).all_stats()
        assert (stats.active, stats.idle) == (0, 0)
        assert_quiescent(client.pool_of(session))


GREEDY = {
    "a longer body": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef",
    "two answers": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" * 2,
    "bytes after an empty one": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nabc",
    "bytes after none": b"HTTP/1.1 204 No Content\r\n\r\nabc",
}


@ONE_LIBRARY
@pytest.mark.parametrize("kind", GREEDY)
@pytest.mark.parametrize("is_late", [False, True])
async def test_what_is_too_much_reaches_nobody(client: Client, kind: str, is_late: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if is_late:  # it comes when the connection idles
            await peer.send(GREEDY[kind][:-3])
            await answered.wait()
            await peer.send(GREEDY[kind][-3:])
        else:
            await peer.send(GREEDY[kind])
        sent.set()
        await peer.gone()

    async with serving(script) as server, client.open() as session:
        for number in range(1, 4):
            answered, sent = trio.Event(), trio.Event()
            with trio.move_on_after(1):
                assert (await session.get(server.url())).text in {"abc", ""}
            answered.set()
            async with bounded():
                await sent.wait()
            assert server.connections == number


async def test_an_answer_before_the_request(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(b"poison")
        await peer.request()
        await peer.gone()

    class Late(conpool.Connector):
        """Hands the connection over when the answer is there."""

        async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
            stream = await conpool.TCPConnector().connect(endpoint)
            assert isinstance(stream, trio.SocketStream)
            await trio.lowlevel.wait_readable(stream.socket)
            return stream

    async with (
        serving(script) as server,
        conpool.ConnectionPool(connector=Late()) as pool,
        client.open(pool) as session,
    ):
        with pytest.raises(client.lib.RemoteProtocolError, match="before the request"):
            await session.get(server.url())
        assert server.requests == []
        assert_quiescent(pool)


# ── HTTP/2 ──────────────────────────────────────────────────────────────────────


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


FLOODS = {
    "settings": frame(4) * 100,
    "pings": frame(6, b"12345678") * 100,
    "resets": frame(3, b"\0\0\0\0", stream=1) * 100,
    "empty data": frame(0, stream=1) * 100,
    "goaways": frame(7, b"\0\0\0\x09\0\0\0\0") * 100,
    "unknown frames": frame(200, b"x" * 100) * 100,
    "continuations": frame(1, b"", stream=1) + frame(9, b"x" * 1_000, stream=1) * 100,
    "a giant frame": b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 100_000,
    "windows": frame(8, b"\x7f\xff\xff\xff") * 100,
    "data for nobody": frame(0, b"x" * 10_000, stream=7) * 100,
    "padding": frame(0, b"\xff" + bytes(255), flags=8, stream=1) * 100,
    "a promise": frame(5, b"\0\0\0\2\x88", flags=4, stream=1),
    "no frames": b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10,
    "endless interim": frame(1, b"\x48\x82\x08\x03", flags=4, stream=1) * 100,
}


IN_A_BODY = {"empty data", "padding"}
"""Sent behind the head of an answer, where they are allowed."""


@ONE_LIBRARY
@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_is_an_error_and_the_end(client: Client, kind: str) -> None:
    async def handle(link: Link, number: int) -> None:
        if len(server.links) > 1:
            await answer_path(link, number)
            return
        if kind in IN_A_BODY:
            await link.head(number)
        while True:
            await link.raw(FLOODS[kind])

    async with (
        serving_h2(handle) as server,
        client.open(http1=False, http2=True) as session,
    ):
        async with bounded():
            with pytest.raises(client.lib.RemoteProtocolError):
                await session.post(server.url + "/first", content=b"x")
            await server.links[0].over.wait()
        assert (await session.get(server.url + "/second")).text == "/second"
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert client.pool_of(session).all_stats().idle == 1
        assert_quiescent(client.pool_of(session))


class Deaf(trio.abc.Stream):
    """The far end asks for ever, and takes nothing after our greeting."""

    def __init__(self) -> None:
        self.sends = 0
        self.asked = 0

    async def send_all(self, data: Any) -> None:
        self.sends += 1
        await trio.sleep(0 if self.sends == 1 else math.inf)

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.asked == 1:
            return frame(4)
        return frame(6, b"12345678") * 10 + frame(0, b"x", stream=1)

    async def aclose(self) -> None:
        raise NotImplementedError


async def test_a_server_that_asks_and_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conpool.contrib._http.multiplex.MAX_REPLIES", 10_000)
    session = Multiplex(Deaf())
    await session.open()
    with trio.fail_after(5), pytest.RaisesGroup(ConnectionFailed):
        await session.run()
    assert session.failure is not None
    assert session.failure.is_violation


async def test_a_huge_head_is_refused(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        link.h2.send_headers(
            number, [(":status", "200"), *((f"x-{each}", "y" * 1_000) for each in range(200))]
        )
        await link.flush()

    async with serving_h2(handle) as server, client.open(http1=False, http2=True) as session:
        with pytest.raises(client.lib.RemoteProtocolError):
            await session.get(server.url)


@pytest.mark.parametrize("size", [2, 4])
async def test_a_body_of_another_size_than_promised(client: Client, size: int) -> None:
    async def handle(link: Link, number: int) -> None:
        link.h2.send_headers(number, [(":status", "200"), ("content-length", "3")])
        await link.body(number, b"x" * size)

    async with serving_h2(handle) as server, client.open(http1=False, http2=True) as session:
        with pytest.raises(client.lib.RemoteProtocolError):
            await session.get(server.url)
        assert client.pool_of(session).all_stats().idle == 0


async def test_a_stream_that_nobody_has_opened_is_answered(client: Client) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.send_all(frame(4))
        await is_idle.wait()
        await stream.send_all(frame(1, b"\x88", flags=5, stream=1))
        async for _ in stream:
            pass

    is_idle = trio.Event()
    connector = MemoryConnector(serve)
    async with conpool.ConnectionPool(
        connector=connector, driver=client.contrib.HTTPDriver()
    ) as pool:
        await pool.warm(conpool.Endpoint("127.0.0.1", 1, partition=PRIOR_KNOWLEDGE), 1)
        assert pool.all_stats().idle == 1
        is_idle.set()
        await trio.testing.wait_all_tasks_blocked()
        assert pool.all_stats().idle == 0
    assert connector.live == 0


@pytest.mark.parametrize("status", ["abc", "", "9", "99999", "0_9", "000"])
async def test_a_status_that_is_none(client: Client, status: str) -> None:
    async def handle(link: Link, number: int) -> None:
        link.h2.send_headers(number, [(":status", status)], end_stream=True)
        await link.flush()

    async with serving_h2(handle) as server, client.open(http1=False, http2=True) as session:
        with pytest.raises(client.lib.RemoteProtocolError):
            await session.get(server.url)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert_quiescent(client.pool_of(session))


@ONE_LIBRARY
async def test_bytes_that_come_one_by_one_take_no_more_memory(client: Client) -> None:
    count = 4_000

    async def handle(link: Link, number: int) -> None:
        await link.head(number)
        await link.raw(frame(0, b"x", stream=number) * count + frame(6, b"12345678"))
        await link.do("end_stream", number)

    async with serving_h2(handle) as server, client.open(http1=False, http2=True) as session:
        request = session.build_request("GET", server.url)
        tracemalloc.start()
        try:
            response = await session.send(request, stream=True)
            while not server.links[0].pings:
                await server.links[0].moved()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 60 * count
        assert len(await response.aread()) == count
