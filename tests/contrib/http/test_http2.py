"""HTTP/2: exchanges that share a connection, and one that cannot hurt the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from h2.exceptions import ProtocolError

import conpool
from conpool import ConnectionPool
from conpool.contrib._http.multiplex import ConnectionFailed, Multiplex
from conpool.testing import assert_quiescent
from tests.servers import Certificates

from .clients import Client, answer_all, serving
from .h2_server import Link, answer_path, serving_h2


@asynccontextmanager
async def plain(client: Client, **options: Any) -> AsyncIterator[Any]:
    """A client that speaks HTTP/2 without TLS."""
    async with client.open(http1=False, http2=True, **options) as session:
        yield session
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert_quiescent(client.pool_of(session))


async def get_all(session: Any, *urls: str) -> list[str]:
    texts = dict.fromkeys(urls, "")

    async def get(url: str) -> None:
        texts[url] = (await session.get(url)).text

    async with trio.open_nursery() as nursery:
        for url in urls:
            nursery.start_soon(get, url)
    return list(texts.values())


# ── which protocol ──────────────────────────────────────────────────────────────


async def test_tls_agrees_on_the_protocol(client: Client, certificates: Certificates) -> None:
    new = certificates.server_context(alpn=["h2"])
    old = certificates.server_context(alpn=["http/1.1"])
    context = certificates.client_context()
    async with (
        serving_h2(context=new) as h2,
        serving(answer_all, old) as h1,
        client.open(verify=context, http2=True) as session,
    ):
        for _ in range(2):
            response = await session.get(h2.url + "/new")
            assert (response.text, response.http_version) == ("/new", "HTTP/2")
            response = await session.get(h1.url("/old"))
            assert (response.text, response.http_version) == ("/old ", "HTTP/1.1")
        assert (len(h2.links), h1.connections) == (1, 1)
        assert_quiescent(client.pool_of(session))


async def test_a_plain_connection_of_such_a_pool_is_probed(client: Client) -> None:
    """Its driver has a `run`, but not for HTTP/1.1, so the pool itself sees what has come."""
    hang_up = trio.Event()

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer()
        await hang_up.wait()

    async with serving(script) as server, client.open(http2=True) as session:
        await session.post(server.url())
        hang_up.set()
        await server.all_gone()
        await session.post(server.url())
        assert server.connections == 2


async def test_a_pool_of_the_callers_own(client: Client) -> None:
    driver = client.contrib.HTTPDriver()
    async with serving_h2() as server, ConnectionPool(driver=driver) as pool:
        async with client.open(pool, http1=False, http2=True) as session:
            assert (await session.get(server.url + "/mine")).text == "/mine"
        assert not pool.closed


async def test_a_peer_that_speaks_something_else(client: Client) -> None:
    async with serving() as server, plain(client) as session:
        with pytest.raises(client.lib.ConnectError) as caught:
            await session.get(server.url())
        assert isinstance(caught.value.__cause__, conpool.ConnectError)


# ── sharing ─────────────────────────────────────────────────────────────────────


async def test_requests_share_one_connection(client: Client) -> None:
    both = trio.Event()

    async def handle(link: Link, number: int) -> None:
        if len(link.requests) == 100:
            both.set()
        await both.wait()
        await link.answer(number)

    async with serving_h2(handle) as server, plain(client) as session:
        paths = [f"/{number}" for number in range(100)]
        assert await get_all(session, *(server.url + path for path in paths)) == paths
        assert len(server.links) == 1


async def test_the_server_limits_how_many(client: Client) -> None:
    both = trio.Event()

    async def handle(link: Link, number: int) -> None:
        if len(server.links) == 2 and all(len(link.requests) == 2 for link in server.links):
            both.set()
        await both.wait()
        await link.answer(number)

    async with serving_h2(handle, max_streams=2) as server, plain(client) as session:
        await get_all(session, *(f"{server.url}/{number}" for number in range(4)))
        assert [len(link.requests) for link in server.links] == [2, 2]


@pytest.mark.parametrize("limit", [0, 1])
async def test_the_server_lowers_its_limit_and_raises_it_again(client: Client, limit: int) -> None:
    lowered, go_on = trio.Event(), trio.Event()
    most = 0

    async def handle(link: Link, number: int) -> None:
        nonlocal most
        path = link.requests[number][":path"]
        if path == "/lower":
            await link.do("update_settings", {3: limit})
            await link.answer(number)
            lowered.set()
            await go_on.wait()
            await link.do("update_settings", {3: 100})
        else:
            most = max(most, link.h2.open_inbound_streams)
            await trio.lowlevel.checkpoint()
            await link.answer(number)

    options = {"limits": client.lib.Limits(max_connections=1)}
    async with serving_h2(handle) as server, plain(client, **options) as session:
        await session.get(server.url + "/lower")
        await lowered.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(get_all, session, *(f"{server.url}/{each}" for each in range(9)))
            await trio.sleep(0.05)
            assert most <= limit
            go_on.set()
        assert len(server.paths) == 10
        assert len(server.links) == 1


async def test_a_slow_reader_hurts_only_itself(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        size = 2_000_000 if link.requests[number][":path"] == "/big" else 10
        await link.answer(number, b"x" * size)

    async with serving_h2(handle) as server, plain(client) as session:
        request = session.build_request("GET", server.url + "/big")
        slow = [await session.send(request, stream=True) for _ in range(20)]
        for _ in range(20):
            assert len((await session.get(server.url + "/small")).content) == 10
        assert len(server.links) == 1
        assert len(await slow[0].aread()) == 2_000_000
        for response in slow:
            await response.aclose()
        await session.get(server.url + "/small")
        assert len(server.links[0].resets) == 19


# ── bodies ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_long_body_fits_through_the_windows(client: Client, in_pieces: bool) -> None:
    body = bytes(range(256)) * 2_000

    async def pieces() -> AsyncIterator[bytes]:
        yield body[:200_000]
        yield b""
        yield body[200_000:]

    async with serving_h2() as server, plain(client) as session:
        content: Any = pieces() if in_pieces else body
        assert (await session.post(server.url + "/up", content=content)).text == "/up"
        assert server.links[0].bodies[1] == body


@pytest.mark.parametrize("is_read", [False, True])
async def test_the_window_of_the_connection_opens_for_answers_that_have_ended(
    client: Client, monkeypatch: pytest.MonkeyPatch, is_read: bool
) -> None:
    """Else a connection would stand still after so many bytes, and nobody would know why."""
    monkeypatch.setattr("conpool.contrib._http.multiplex.CONNECTION_WINDOW", 100_000)

    async def handle(link: Link, number: int) -> None:
        link.h2.send_headers(number, [(":status", "200")])
        await link.do("send_data", number, b"x" * 16_000, end_stream=True)

    async with serving_h2(handle) as server, plain(client) as session:
        for _ in range(20):
            async with session.stream("GET", server.url) as response:
                if is_read:
                    assert len(await response.aread()) == 16_000


async def test_a_body_goes_on_when_the_window_of_its_stream_alone_opens(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        link.grants = False
        await link.do("increment_flow_control_window", 1_000_000)
        while len(link.bodies[number]) < 65_535:
            await link.moved()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await link.do("increment_flow_control_window", 1_000_000, number)
        await answer_path(link, number)

    async with serving_h2(handle) as server, plain(client) as session:
        await session.post(server.url, content=b"x" * 300_000)


async def test_trailers_and_interim_answers_are_passed_over(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        link.h2.send_headers(number, [(":status", "103"), ("link", "</a>")])
        await link.head(number)
        await link.body(number, b"abc", ends=False)
        link.h2.send_headers(number, [("x-sum", "7")], end_stream=True)
        await link.flush()

    async with serving_h2(handle) as server, plain(client) as session:
        response = await session.get(server.url)
        assert (response.status_code, response.text) == (200, "abc")
        assert "x-sum" not in response.headers


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_an_answer_without_a_body(client: Client, method: str, status: int) -> None:
    async def handle(link: Link, number: int) -> None:
        fields = [(":status", str(status)), ("content-length", "5" if status != 204 else "0")]
        link.h2.send_headers(number, fields, end_stream=True)
        await link.flush()

    async with serving_h2(handle) as server, plain(client) as session:
        response = await session.request(method, server.url)
        assert (response.status_code, response.content) == (status, b"")


async def test_a_window_that_never_opens(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        link.grants = False
        if number == 1:
            await link.answer(number)

    async with serving_h2(handle) as server, plain(client) as session:
        await session.get(server.url)
        with pytest.raises(client.lib.WriteTimeout):
            timeout = client.lib.Timeout(5, write=0.05)
            await session.post(server.url, content=b"x" * 1_000_000, timeout=timeout)
        await trio.sleep(0.01)
        assert server.links[0].resets == {3: 8}


async def test_an_early_refusal_ends_a_long_upload(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        await link.answer(number, b"no", status=413)

    async def endless() -> AsyncIterator[bytes]:
        yield b"one"
        await trio.sleep_forever()

    async with serving_h2(handle) as server, plain(client) as session:
        response = await session.post(server.url, content=endless())
        assert (response.status_code, response.text) == (413, "no")
        await session.post(server.url, content=b"again")
        assert server.links[0].resets == {1: 8}


async def test_a_refusal_that_comes_before_the_upload_has_begun(client: Client) -> None:
    answered = trio.Event()

    async def handle(link: Link, number: int) -> None:
        await link.answer(number, b"no", status=413)
        await link.do("ping", b"12345678")
        while not link.pings:
            await link.moved()
        answered.set()

    async def wait(name: str, info: Any) -> None:
        if name == "http2.send_request_headers.complete":
            await answered.wait()

    async def never() -> AsyncIterator[bytes]:
        await trio.Event().wait()
        yield b""

    async with serving_h2(handle) as server, plain(client) as session:
        with trio.fail_after(5):
            response = await session.post(server.url, content=never(), extensions={"trace": wait})
        assert (response.status_code, response.text) == (413, "no")


# ── what a server may do ────────────────────────────────────────────────────────


async def test_a_ping_is_answered(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        await link.do("ping", b"12345678")
        while not link.pings:
            await link.moved()
        await link.answer(number)

    async with serving_h2(handle) as server, plain(client) as session:
        await session.get(server.url)
        assert server.links[0].pings == 1


async def test_what_a_leaving_server_has_not_seen_goes_elsewhere(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        if link is not server.links[0]:
            await answer_path(link, number)
        elif number == 5:
            # It serves the first stream and none of the others.
            await goaway(link, last=1)
            await trio.sleep(0.01)
            await link.body(1, b"late")
        elif number == 1:
            await link.head(1)

    async with serving_h2(handle) as server, plain(client) as session:
        request = session.build_request("GET", server.url + "/first")
        first = await session.send(request, stream=True)
        texts: list[str] = []

        async def post(path: str) -> None:
            texts.append((await session.post(server.url + path, content=b"body")).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, "/second")
            nursery.start_soon(post, "/third")
        assert sorted(texts) == ["/second", "/third"]
        assert await first.aread() == b"late"
        assert len(server.links) == 2
        assert list(server.links[1].bodies.values()) == [b"body", b"body"]


async def test_a_leaving_server_answers_what_it_has_seen(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        await goaway(link, last=number)
        await link.do("ping", b"12345678")
        while not link.pings:
            await link.moved()
        await link.answer(number)

    async with serving_h2(handle) as server, plain(client) as session:
        assert (await session.post(server.url + "/seen", content=b"x")).text == "/seen"
        assert server.paths == ["/seen"]


async def test_a_server_that_leaves_while_nobody_asks(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        await link.answer(number)
        if link is server.links[0]:
            await goaway(link, last=number)

    async with serving_h2(handle) as server, plain(client) as session:
        await session.get(server.url)
        with trio.fail_after(5):
            await session.get(server.url)
            await server.links[0].over.wait()
        assert [len(link.requests) for link in server.links] == [1, 1]


async def goaway(link: Link, last: int, code: int = 0) -> None:
    payload = last.to_bytes(4, "big") + code.to_bytes(4, "big")
    await link.raw(b"\0\0\x08\x07\0\0\0\0\0" + payload)


async def test_a_refused_stream_is_tried_again(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        if number == 1:
            await link.do("reset_stream", number, 7)
        else:
            await answer_path(link, number)

    async with serving_h2(handle) as server, plain(client) as session:
        assert (await session.post(server.url + "/again", content=b"body")).text == "/again"
        assert server.paths == ["/again", "/again"]


async def test_a_server_that_refuses_for_ever(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        await link.do("reset_stream", number, 7)

    async with serving_h2(handle) as server, plain(client) as session:
        with pytest.raises(client.lib.RemoteProtocolError, match="refused"):
            await session.get(server.url)
        assert len(server.paths) == 5


@pytest.mark.parametrize("when", ["before the head", "in the body"])
async def test_a_reset_ends_one_exchange(client: Client, when: str) -> None:
    async def handle(link: Link, number: int) -> None:
        if link.requests[number][":path"] == "/reset":
            if when == "in the body":
                await link.head(number)
                await link.body(number, b"some", ends=False)
            await link.do("reset_stream", number, 2)
        else:
            await trio.sleep(0.02)
            await link.answer(number)

    async with serving_h2(handle) as server, plain(client) as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.get, server.url + "/good")
            with pytest.raises(client.lib.RemoteProtocolError, match="INTERNAL_ERROR"):
                await session.get(server.url + "/reset")
        assert len(server.links) == 1


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_lost_connection_ends_an_upload_that_waits(client: Client, in_pieces: bool) -> None:
    async def handle(link: Link, number: int) -> None:
        link.grants = False
        while len(link.bodies[number]) < (3 if in_pieces else 65_535):
            await link.moved()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await trio.aclose_forcefully(link.stream)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await trio.sleep_forever()

    async with serving_h2(handle) as server, plain(client) as session:
        content: Any = pieces() if in_pieces else b"x" * 100_000
        with trio.fail_after(5), pytest.raises(client.lib.ReadError):
            await session.post(server.url, content=content, timeout=None)


async def test_no_goodbye_is_said_in_the_middle_of_a_frame() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"\0\0\0\4\0\0\0\0\0")
    session = Multiplex(ours)
    await session.open()
    ours.send_stream.send_all_hook = trio.sleep_forever  # nothing passes any more
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with trio.fail_after(2):
        await session.say_goodbye()
    assert ours.send_stream.get_data_nowait() == b"\0\0\0\4\1\0\0\0\0"  # to its settings


async def test_a_lost_connection_ends_all_its_exchanges(client: Client) -> None:
    first_came = trio.Event()

    async def handle(link: Link, number: int) -> None:
        if len(server.links) == 1:
            first_came.set()
            if number == 3:
                await trio.aclose_forcefully(link.stream)
            return
        await answer_path(link, number)

    async with serving_h2(handle) as server, plain(client) as session:
        failed: list[str] = []

        async def post() -> None:
            try:
                await session.post(server.url + "/once", content=b"x")
            except client.lib.ReadError:
                failed.append("post")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post)
            await first_came.wait()
            assert (await session.get(server.url + "/twice")).text == "/twice"
        assert failed == ["post"]


# ── what a client may do ────────────────────────────────────────────────────────


async def test_a_cancelled_request_is_told_to_the_server(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        if link.requests[number][":path"] == "/good":
            await link.answer(number)
        else:
            scope.cancel()

    async with serving_h2(handle) as server, plain(client) as session:
        with trio.CancelScope() as scope:
            await session.get(server.url + "/never")
        assert (await session.get(server.url + "/good")).text == "/good"
        assert server.links[0].resets == {1: 8}


async def test_a_request_that_may_not_be_sent_hurts_no_other(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        await trio.sleep(0.02)
        await link.answer(number)

    async with serving_h2(handle) as server, plain(client) as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.get, server.url + "/good")
            await trio.testing.wait_all_tasks_blocked(0.005)
            with pytest.raises(client.lib.LocalProtocolError):
                await session.get(server.url + "/bad", headers={"TE": "gzip"})
        assert (await session.get(server.url + "/good")).text == "/good"
        assert server.paths.count("/bad") == 0


async def test_no_answer_in_time(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        if link.requests[number][":path"] == "/half":
            await link.head(number)

    async with serving_h2(handle) as server, plain(client) as session:
        for path in ("/none", "/half"):
            with pytest.raises(client.lib.ReadTimeout):
                await session.get(server.url + path, timeout=client.lib.Timeout(5, read=0.05))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert list(server.links[0].resets) == [1, 3]


@pytest.mark.parametrize("which", ["read", "write", "pool"])
async def test_what_others_do_puts_no_time_out_off(client: Client, which: str) -> None:
    async def handle(link: Link, number: int) -> None:
        link.grants = False
        if link.requests[number][":path"] == "/lower":
            await link.do("update_settings", {3: 0})
            await link.answer(number)
        with suppress(ProtocolError):  # the client has said goodbye
            while True:
                await trio.sleep(0.02)
                await link.do("increment_flow_control_window", 1)

    async with serving_h2(handle) as server, plain(client) as session:
        late = {
            "read": client.lib.ReadTimeout,
            "write": client.lib.WriteTimeout,
            "pool": client.lib.PoolTimeout,
        }
        if which == "pool":
            await session.get(server.url + "/lower")
        content = b"x" * 1_000_000 if which == "write" else None
        timeout = client.lib.Timeout(None, **{which: 0.1})
        with trio.fail_after(2), pytest.raises(late[which]):
            await session.post(server.url, content=content, timeout=timeout)


async def test_a_client_that_is_closed_under_its_responses(client: Client) -> None:
    async def handle(link: Link, number: int) -> None:
        await link.head(number)
        await link.body(number, b"abc", ends=False)

    async with serving_h2(handle) as server:
        async with client.open(http1=False, http2=True) as session:
            request = session.build_request("GET", server.url)
            closed, read = [await session.send(request, stream=True) for _ in range(2)]
        await closed.aclose()
        with pytest.raises(client.lib.ReadError, match="closed") as caught:
            await read.aread()
        assert isinstance(caught.value.__cause__, ConnectionFailed)


async def test_a_closing_client_says_goodbye(client: Client) -> None:
    async with serving_h2() as server:
        async with plain(client) as session:
            await session.get(server.url)
        await server.links[0].over.wait()
        assert server.links[0].goaways == 1


async def test_a_trace_hears_of_each_step(client: Client) -> None:
    heard: list[str] = []

    async def trace(name: str, info: Any) -> None:
        heard.append(name)
        await trio.lowlevel.checkpoint()

    async with serving_h2() as server, plain(client) as session:
        await session.post(server.url, content=b"x", extensions={"trace": trace})
        assert [name for name in heard if name.endswith("complete")] == [
            "conpool.acquire.complete",
            "http2.send_request_headers.complete",
            "http2.send_request_body.complete",
            "http2.receive_response_headers.complete",
            "http2.receive_response_body.complete",
            "http2.response_closed.complete",
        ]
