"""Cancellation at any point: nothing is lost, nothing is handed on, and each answer is its own."""

from __future__ import annotations

import os
import random
import ssl
from contextlib import suppress
from typing import Any

import h11
import pytest
import trio
import trio.testing
from trio.testing import MockClock

import conpool
from conpool.testing import MemoryConnector, assert_quiescent, cancel_everywhere

from .clients import ONE_LIBRARY, Client, Peer, serving
from .h2_server import Link, serving_h2

# ── at every checkpoint ─────────────────────────────────────────────────────────


async def memory_http1(stream: trio.abc.Stream) -> None:
    http = h11.Connection(h11.SERVER)
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some()
            http.receive_data(bytes(data))
            if not data:
                return
        elif isinstance(event, h11.EndOfMessage):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
            await stream.send_all(b"def")
            http = h11.Connection(h11.SERVER)


async def memory_http2(stream: trio.abc.Stream) -> None:
    link = Link(stream, 1)

    async def handle(link: Link, number: int) -> None:
        await link.ended[number].wait()
        await link.head(number)
        await link.body(number, b"abc", ends=False)
        await link.body(number, b"def")

    await link.run(handle)


class Pieces:
    """A body that takes time, and no generator: httpx does not close those that it is given."""

    def __init__(self) -> None:
        self._left = [b"two", b"one"]

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        await trio.sleep(1)
        return self._left.pop()


NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Not used. Without it, each transport would read the machine's authorities."""


@ONE_LIBRARY
@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize(
    "what", ["get", "upload", "warm", "early close", "two time-outs", "traced"]
)
def test_cancelled_anywhere_a_request_leaves_nothing(
    client: Client, protocol: str, what: str
) -> None:
    is_new = protocol == "HTTP/2"
    serve = memory_http2 if is_new else memory_http1
    url = "http://127.0.0.1:1/"
    both = {"connect": 5.0, "pool": 9.0 if what == "two time-outs" else 5.0}
    timeout = client.lib.Timeout(None, **both)

    async def pause(name: str, info: Any) -> None:
        await trio.lowlevel.checkpoint()

    async def scenario(scope: trio.CancelScope) -> None:
        connector = MemoryConnector(serve, delay=1.0 if what == "two time-outs" else 0.0)
        driver: Any = client.contrib.HTTPDriver() if is_new else None
        config = conpool.PoolConfig(max_connections_per_endpoint=1)
        pool: Any = conpool.ConnectionPool(config, connector=connector, driver=driver)
        async with pool:
            transport = client.transport(pool, http1=not is_new, http2=is_new, verify=NO_TLS)
            async with client.lib.AsyncClient(transport=transport) as session:
                if what == "warm":
                    await session.get(url)
                with scope:
                    if what in {"early close", "traced"}:
                        request = client.lib.Request("GET", url)
                        request.extensions = {"trace": pause} if what == "traced" else {}
                        response = await transport.handle_async_request(request)
                        try:
                            assert await anext(aiter(response.stream)) == b"abc"
                        finally:
                            await response.aclose()
                    else:
                        content = Pieces() if what == "upload" else None
                        method = "GET" if content is None else "POST"
                        response = await session.request(
                            method, url, content=content, timeout=timeout
                        )
                        assert response.content == b"abcdef"
                await trio.sleep(5)
                assert_quiescent(pool)
                # What the cancelled request has left is good for the next one.
                with trio.fail_after(100):
                    assert (await session.get(url)).content == b"abcdef"
                assert_quiescent(pool)
        assert connector.live == 0

    points = cancel_everywhere(scenario, clock=lambda: MockClock(autojump_threshold=0))
    assert points > 3


@ONE_LIBRARY
@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
def test_a_trace_that_breaks_off_leaves_nothing(client: Client, protocol: str) -> None:
    """It is the caller's own function, and may raise wherever we call it."""
    is_new = protocol == "HTTP/2"
    url = "http://127.0.0.1:1/"
    broke: list[str] = []

    async def scenario(calls: int) -> None:
        async def trace(name: str, info: Any) -> None:
            nonlocal calls
            calls -= 1
            if not calls:
                broke.append(name)
                raise ZeroDivisionError

        driver: Any = client.contrib.HTTPDriver() if is_new else None
        connector = MemoryConnector(memory_http2 if is_new else memory_http1)
        config = conpool.PoolConfig(max_connections_per_endpoint=1)
        async with conpool.ConnectionPool(config, connector=connector, driver=driver) as pool:
            transport = client.transport(pool, http1=not is_new, http2=is_new, verify=NO_TLS)
            request = client.lib.Request("POST", url, content=b"x" * 100_000)
            request.extensions = {"trace": trace}
            with suppress(ZeroDivisionError):
                response = await transport.handle_async_request(request)
                try:
                    assert await anext(aiter(response.stream)) == b"abc"
                finally:
                    await response.aclose()
            await trio.sleep(5)
            assert_quiescent(pool)
            with trio.fail_after(100):
                response = await transport.handle_async_request(client.lib.Request("GET", url))
                assert await response.aread() == b"abcdef"

    for calls in range(1, 20):
        trio.run(scenario, calls, clock=MockClock(autojump_threshold=0))
    assert {name.split(".")[1] for name in broke} == {
        "acquire",
        "send_request_headers",
        "send_request_body",
        "receive_response_headers",
        "receive_response_body",
        "response_closed",
    }


@ONE_LIBRARY
def test_cancelled_anywhere_a_transport_closes(client: Client) -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        transport = client.transport(verify=NO_TLS)
        with scope:
            async with transport:
                await trio.sleep(1)
        await transport.aclose()
        pool = transport._host._pool
        assert pool is None or pool.closed

    assert cancel_everywhere(scenario, clock=lambda: MockClock(autojump_threshold=0)) > 3


# ── many at once ────────────────────────────────────────────────────────────────


async def answer_late(peer: Peer) -> None:
    while (request := await peer.request()) is not None:
        await trio.sleep(random.random() * 0.004)
        await peer.answer(request.target.encode())


async def answer_late_h2(link: Link, number: int) -> None:
    await link.ended[number].wait()
    await trio.sleep(random.random() * 0.004)
    await link.answer(number)


@ONE_LIBRARY
@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
async def test_after_impatient_requests_all_others_are_served(
    client: Client, protocol: str
) -> None:
    """httpcore #1093: connections assigned to cancelled requests were lost for good."""
    limits = client.lib.Limits(max_connections=10)
    async with (
        serving(answer_late) as old,
        serving_h2(answer_late_h2, max_streams=2) as new,
        client.open(
            http1=protocol != "HTTP/2", http2=protocol == "HTTP/2", limits=limits
        ) as session,
    ):
        url = old.url("") if protocol == "HTTP/1.1" else new.url
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(give_up, session, url, random.random() * 0.012)
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(expect, session, url, f"/{number}")


async def give_up(session: Any, url: str, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await expect(session, url, f"/{seconds}")


async def expect(session: Any, url: str, path: str) -> None:
    response = await session.get(url + path)
    assert response.text == path


@ONE_LIBRARY
@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
async def test_each_answer_belongs_to_its_question(client: Client, protocol: str) -> None:
    """A tenth of the requests is cancelled; `CONPOOL_REQUESTS=10000` takes a minute."""
    choice = random.Random(7)
    limits = client.lib.Limits(max_connections=10)
    count = int(os.environ.get("CONPOOL_REQUESTS", "600"))

    async def ask(number: int) -> None:
        if choice.random() < 0.1:
            await give_up(session, url, choice.random() * 0.02)
        else:
            await expect(session, url, f"/{number}")

    async with (
        serving(answer_late, within=20 + count / 50) as old,
        serving_h2(answer_late_h2, within=20 + count / 50) as new,
        client.open(
            http1=protocol != "HTTP/2", http2=protocol == "HTTP/2", limits=limits
        ) as session,
    ):
        url = old.url("") if protocol == "HTTP/1.1" else new.url
        for start in range(0, count, 100):
            async with trio.open_nursery() as nursery:
                for number in range(start, start + 100):
                    nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert_quiescent(client.pool_of(session))
