"""HTTP/1.1 over pooled connections: framing, streaming, and when the lease ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from .clients import Client, Peer, answer_all, serving


def idle(client: Client, session: Any) -> int:
    """How many connections idle; nothing may be lent."""
    stats = client.pool_of(session).all_stats()
    assert stats.active == 0
    return int(stats.idle)


# ── the answer's framing ────────────────────────────────────────────────────────


async def test_requests_share_a_connection(client: Client) -> None:
    async with serving() as server, client.open() as session:
        for number in range(3):
            response = await session.get(server.url(f"/{number}"))
            assert (response.status_code, response.text) == (200, f"/{number} ")
        assert server.connections == 1
        assert idle(client, session) == 1


FRAMED = {
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "abc",
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
        "abc",
    ),
    "interim": (
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
        ),
        "abc",
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", ""),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
}


@pytest.mark.parametrize("kind", FRAMED)
async def test_the_end_of_an_answer_is_found(client: Client, kind: str) -> None:
    answer, text = FRAMED[kind]

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(answer)

    async with serving(script) as server, client.open() as session:
        for _ in range(2):
            assert (await session.get(server.url())).text == text
        assert server.connections == 1
        assert idle(client, session) == 1


async def test_the_answer_to_head_has_no_body(client: Client) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")

    async with serving(script) as server, client.open() as session:
        for _ in range(2):
            response = await session.head(server.url())
            assert response.headers["content-length"] == "5"
        assert server.connections == 1


CLOSING = {
    "said so": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nabc",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("kind", CLOSING)
async def test_a_connection_that_ends_with_its_answer_is_not_kept(
    client: Client, kind: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CLOSING[kind])

    async with serving(script) as server, client.open() as session:
        for _ in range(2):
            assert (await session.get(server.url())).text == "abc"
        assert server.connections == 2
        assert idle(client, session) == 0


async def test_a_request_that_asks_to_close_is_obeyed(client: Client) -> None:
    async with serving() as server, client.open() as session:
        await session.get(server.url(), headers={"Connection": "close"})
        assert idle(client, session) == 0


# ── streaming, and the end of the lease ─────────────────────────────────────────


async def test_the_lease_ends_with_the_last_byte(client: Client) -> None:
    more = trio.Event()

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
            await more.wait()
            await peer.send(b"def")

    async with (
        serving(script) as server,
        client.open() as session,
        session.stream("GET", server.url()) as response,
    ):
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"abc"
        assert client.pool_of(session).all_stats().active == 1
        more.set()
        assert [piece async for piece in pieces] == [b"def"]
        assert idle(client, session) == 1


async def test_a_response_may_be_read_and_closed_in_other_tasks_and_scopes(client: Client) -> None:
    async with serving() as server, client.open() as session:
        with trio.CancelScope() as gone:
            request = session.build_request("GET", server.url("/far"))
            response = await session.send(request, stream=True)
        gone.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(response.aread)
        assert response.text == "/far "
        assert idle(client, session) == 1


@pytest.mark.parametrize(("size", "is_kept"), [(10_000, True), (10_000_000, False)])
async def test_an_unread_body_is_drained_if_little_is_left(
    client: Client, size: int, is_kept: bool
) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.answer(b"x" * size)

    async with serving(script) as server, client.open() as session:
        async with session.stream("GET", server.url()):
            pass
        assert idle(client, session) == is_kept


async def test_a_slow_rest_is_not_waited_for(client: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr("conpool.contrib._http.h1.DRAIN_TIMEOUT", 0.01)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await trio.sleep_forever()

    async with serving(script) as server, client.open() as session:
        with trio.fail_after(2):
            async with session.stream("GET", server.url(), timeout=None):
                pass
        assert idle(client, session) == 0


async def test_a_body_is_sent_as_it_comes(client: Client) -> None:
    arrived = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.piece() == b"one"
        arrived.set()
        assert await peer.piece() == b"two"
        assert await peer.piece() == b""
        await peer.answer()
        await peer.gone()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await arrived.wait()
        yield b"two"

    async with serving(script) as server, client.open() as session:
        assert (await session.post(server.url(), content=body())).text == "hello"
        assert idle(client, session) == 1


async def test_a_long_body_arrives_whole(client: Client) -> None:
    body = bytes(range(256)) * 4_000
    async with serving() as server, client.open() as session:
        await session.post(server.url(), content=body)
        assert server.requests[0].body == body


@pytest.mark.parametrize("status", [413, 302])
async def test_an_early_refusal_ends_a_long_upload(client: Client, status: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"no", status=status)
        await trio.sleep_forever()  # it reads nothing more

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    async with serving(script) as server, client.open() as session:
        response = await session.post(server.url(), content=body())
        assert (response.status_code, response.text) == (status, "no")
        assert idle(client, session) == 0


async def test_an_early_answer_of_a_server_that_closes_is_read(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"no", status=413, extra=b"Connection: close\r\n")

    async with serving(script) as server, client.open() as session:
        response = await session.post(server.url(), content=b"x" * 100_000)
        assert response.status_code == 413


async def test_an_early_welcome_lets_the_upload_go_on(client: Client) -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer()
        while piece := await peer.piece():
            got.append(piece)
        await peer.gone()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            await trio.sleep(0.01)
            yield b"piece"

    async with serving(script) as server, client.open() as session:
        assert (await session.post(server.url(), content=body())).text == "hello"
        assert got == [b"piece"] * 3
        assert idle(client, session) == 1


async def test_an_error_of_the_body_is_the_callers_own(client: Client) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        raise ZeroDivisionError

    async with serving() as server, client.open() as session:
        with pytest.raises(ZeroDivisionError):
            await session.post(server.url(), content=body())
        assert idle(client, session) == 0


# ── 100-continue ────────────────────────────────────────────────────────────────

EXPECT = {"Expect": "100-continue"}


async def test_the_body_waits_for_the_servers_consent(client: Client) -> None:
    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert head is not None
        with trio.move_on_after(0.05) as scope:
            await peer.piece()
        assert scope.cancelled_caught
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.piece() == b"body"
        await peer.piece()
        await peer.answer()
        await peer.gone()

    async with serving(script) as server, client.open() as session:
        response = await session.post(server.url(), content=b"body", headers=EXPECT)
        assert response.text == "hello"
        assert idle(client, session) == 1


async def test_a_refused_body_is_not_sent(client: Client) -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"no", status=417)
        got.extend([bytes(piece) async for piece in peer.stream])

    async with serving(script) as server, client.open() as session:
        response = await session.post(server.url(), content=b"body", headers=EXPECT)
        assert response.status_code == 417
        assert idle(client, session) == 0
    assert not got


async def test_a_server_that_ignores_the_question_gets_the_body(
    client: Client, monkeypatch: Any
) -> None:
    monkeypatch.setattr("conpool.contrib._http.h1.CONTINUE_TIMEOUT", 0.01)
    async with serving() as server, client.open() as session:
        response = await session.post(server.url(), content=b"body", headers=EXPECT)
        assert response.text == "/ body"


# ── extensions ──────────────────────────────────────────────────────────────────


async def test_a_response_says_how_it_came(client: Client) -> None:
    async with serving() as server, client.open() as session:
        response = await session.get(server.url())
        extensions = response.extensions
        assert (extensions["http_version"], extensions["reason_phrase"]) == (b"HTTP/1.1", b"Fine")
        stream = extensions["network_stream"]
        assert stream.get_extra_info("server_addr")[1] == server.port
        assert stream.get_extra_info("ssl_object") is None
        with pytest.raises(RuntimeError, match="belong to the response"):
            await stream.read(1)


async def test_a_trace_hears_of_each_step(client: Client) -> None:
    heard: list[str] = []

    async def trace(name: str, info: Any) -> None:
        heard.append(name)
        await trio.lowlevel.checkpoint()

    async with serving() as server, client.open() as session:
        await session.get(server.url(), extensions={"trace": trace})
        assert heard == [
            f"{step}.{state}"
            for step in (
                "conpool.acquire",
                "http11.send_request_headers",
                "http11.receive_response_headers",
                "http11.receive_response_body",
            )
            for state in ("started", "complete")
        ] + ["http11.response_closed.started", "http11.response_closed.complete"]


async def test_a_client_needs_no_block(client: Client) -> None:
    async with serving() as server:
        session = client.lib.AsyncClient(transport=client.transport())
        assert (await session.get(server.url())).text == "/ "
        await session.aclose()
        assert client.pool_of(session) is None or client.pool_of(session).closed


async def test_a_transport_outlives_a_run(client: Client) -> None:
    transport = client.transport()

    async def main() -> None:
        async with serving(answer_all) as server:
            request = client.lib.Request("GET", server.url())
            response = await transport.handle_async_request(request)
            assert await response.aread() == b"/ "

    for _ in range(2):
        await trio.to_thread.run_sync(trio.run, main)
