"""What goes wrong: the client library's exceptions, with their causes, and what is sent again."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import h11
import pytest
import trio

import conpool
from conpool import ConnectionPool, PoolConfig
from conpool._values.config_error import PoolError
from conpool.contrib._http.errors import translate
from conpool.contrib._http.transport import make_config
from conpool.testing import assert_quiescent
from tests._proxies import reset

from .clients import LOOPBACK, Client, Peer, answer_all, serving

TIMEOUTS = {"connect": None, "read": None, "write": None, "pool": None}


def only(**timeouts: float) -> dict[str, Any]:
    return {"timeout": TIMEOUTS | timeouts}


async def is_refused() -> int:
    """A port at which nobody listens."""
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


# ── no connection ───────────────────────────────────────────────────────────────


async def test_a_refused_connection(client: Client) -> None:
    port = await is_refused()
    async with client.open() as session:
        with pytest.raises(client.lib.ConnectError) as caught:
            await session.get(f"http://{LOOPBACK}:{port}")
        assert isinstance(caught.value.__cause__, conpool.ConnectError)
        assert caught.value.request.url.port == port


async def test_a_name_that_does_not_exist(client: Client) -> None:
    async with client.open() as session:
        with pytest.raises(client.lib.ConnectError) as caught:
            await session.get("http://nobody.invalid/")
        assert isinstance(caught.value.__cause__, conpool.ResolveError)


@pytest.mark.parametrize("url", ["http://127.0.0.1:0/", "http://127.0.0.1:1/"])
async def test_a_port_that_cannot_be_dialled(client: Client, url: str) -> None:
    async with client.open() as session:
        with pytest.raises(client.lib.ConnectError) as caught:
            await session.get(url)
        assert isinstance(caught.value.__cause__, PoolError)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "//127.0.0.1/"])
async def test_another_protocol(client: Client, url: str) -> None:
    transport = client.transport()
    with pytest.raises(client.lib.UnsupportedProtocol):
        await transport.handle_async_request(client.lib.Request("GET", url))
    await transport.aclose()


@pytest.mark.parametrize("pool", [{}, {"pool": 0.02}, {"pool": 1.0}])
async def test_a_dial_that_takes_too_long(client: Client, pool: dict[str, float]) -> None:
    class Never(conpool.Connector):
        async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
            await trio.sleep_forever()

    async with (
        ConnectionPool(PoolConfig(shutdown_grace=0), connector=Never()) as mine,
        client.open(mine) as session,
    ):
        with pytest.raises(client.lib.ConnectTimeout) as caught, trio.fail_after(0.9):
            await session.get("http://127.0.0.1:9/", extensions=only(connect=0.05, **pool))
        assert isinstance(caught.value.__cause__, PoolError)


async def test_a_dial_may_take_longer_than_the_wait_for_a_turn(client: Client) -> None:
    class Slow(conpool.Connector):
        async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
            await trio.sleep(0.05)
            return await conpool.TCPConnector().connect(endpoint)

    async with (
        serving() as server,
        ConnectionPool(connector=Slow()) as mine,
        client.open(mine) as session,
    ):
        response = await session.get(server.url(), extensions=only(connect=5, pool=0.01))
        assert response.text == "/ "


@pytest.mark.parametrize("connect", [{}, {"connect": 0.01}, {"connect": 1.0}])
async def test_no_turn_in_time(client: Client, connect: dict[str, float]) -> None:
    limits = client.lib.Limits(max_connections=1)
    async with serving() as server, client.open(limits=limits) as session:
        async with session.stream("GET", server.url()):
            with pytest.raises(client.lib.PoolTimeout) as caught:
                await session.get(server.url(), extensions=only(pool=0.05, **connect))
            assert isinstance(caught.value.__cause__, conpool.AcquireTimeout)
        assert (await session.get(server.url(), extensions=only(pool=1, **connect))).text == "/ "


async def test_a_full_queue(client: Client) -> None:
    config = PoolConfig(max_connections_per_endpoint=1, max_waiting_per_endpoint=0)
    async with (
        serving() as server,
        client.open(config=config) as session,
        session.stream("GET", server.url()),
    ):
        with pytest.raises(client.lib.PoolTimeout) as caught:
            await session.get(server.url())
        assert isinstance(caught.value.__cause__, conpool.QueueFull)


async def test_any_other_error_of_the_pools(client: Client) -> None:
    assert type(translate(client.lib, PoolError("other"))) is client.lib.ConnectError


async def test_a_closed_transport(client: Client) -> None:
    transport = client.transport()
    await transport.aclose()
    with pytest.raises(client.lib.ConnectError) as caught:
        await transport.handle_async_request(client.lib.Request("GET", "http://127.0.0.1/"))
    assert isinstance(caught.value.__cause__, conpool.PoolClosed)


async def test_a_pool_that_cannot_be_opened(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        async def __aenter__(self) -> None:
            raise OSError("no file is left")

        async def __aexit__(self, *args: object) -> None: ...

    transport = client.transport()
    monkeypatch.setattr(transport._host, "_make", Broken)
    async with serving() as server:
        request = client.lib.Request("GET", server.url())
        with pytest.raises(client.lib.ConnectError, match="no file is left") as caught:
            await transport.handle_async_request(request)
        assert isinstance(caught.value.__cause__, PoolError)
        monkeypatch.undo()
        response = await transport.handle_async_request(request)
        assert await response.aread() == b"/ "
        await transport.aclose()


async def test_arguments_that_cannot_stand_together(client: Client) -> None:
    limits, config = client.lib.Limits(), PoolConfig()
    pool = ConnectionPool()
    for args, options in (
        ((), {"http1": False}),
        ((), {"limits": limits, "config": config}),
        ((pool,), {"config": config}),
        ((pool,), {"limits": limits}),
        ((pool,), {"http2": True}),
    ):
        with pytest.raises(conpool.ConfigError):
            client.transport(*args, **options)


# ── a request that cannot be sent, an answer that cannot be read ────────────────


async def test_a_request_that_is_not_http(client: Client) -> None:
    async with serving() as server, client.open() as session:
        with pytest.raises(client.lib.LocalProtocolError) as caught:
            await session.request("GET", server.url(), headers=[(b"X", b"a\nb")])
        assert isinstance(caught.value.__cause__, h11.LocalProtocolError)
        assert (await session.get(server.url())).text == "/ "


async def test_a_body_longer_than_it_said(client: Client) -> None:
    async with serving() as server, client.open() as session:
        with pytest.raises(client.lib.LocalProtocolError):
            await session.post(server.url(), content=b"abc", headers={"Content-Length": "2"})
        assert_quiescent(client.pool_of(session))


async def test_no_answer_in_time(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with serving(script) as server, client.open() as session:
        with pytest.raises(client.lib.ReadTimeout):
            await session.get(server.url(), extensions=only(read=0.02))
        with pytest.raises(client.lib.ReadTimeout):
            await session.post(server.url(), content=pieces(), extensions=only(read=0.02))
        assert_quiescent(client.pool_of(session))


async def do_nothing(peer: Peer) -> None:
    await trio.sleep_forever()


async def pieces() -> AsyncIterator[bytes]:
    yield b"one"
    await trio.sleep(0.05)
    yield b"two"


async def test_no_rest_in_time(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await peer.gone()

    async with serving(script) as server, client.open() as session:
        with pytest.raises(client.lib.ReadTimeout):
            await session.get(server.url(), extensions=only(read=0.02))
        assert_quiescent(client.pool_of(session))


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_server_that_takes_nothing(client: Client, in_pieces: bool) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1_000_000

    content: Any = endless() if in_pieces else b"x" * 50_000_000
    async with serving(do_nothing) as server, client.open() as session:
        with pytest.raises(client.lib.WriteTimeout):
            await session.post(server.url(), content=content, extensions=only(write=0.05))
        assert_quiescent(client.pool_of(session))


async def test_a_connection_that_breaks_in_an_answer(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await trio.sleep(0.02)
        reset(peer.stream)

    async with serving(script) as server, client.open() as session:
        with pytest.raises(client.lib.ReadError) as caught:
            await session.get(server.url())
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
        assert_quiescent(client.pool_of(session))


async def test_a_pool_that_is_closed_under_a_response(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await peer.gone()

    async with serving(script) as server:
        async with client.open() as session:
            request = session.build_request("GET", server.url())
            response = await session.send(request, stream=True)
        with pytest.raises(client.lib.ReadError) as caught:
            await response.aread()
        assert isinstance(caught.value.__cause__, trio.ClosedResourceError)


# ── sent again ──────────────────────────────────────────────────────────────────


async def stale(peer: Peer) -> None:
    """Answer one request, and close the connection when the next one has come."""
    await peer.request()
    await peer.answer()
    if peer.number == 1:
        await peer.stream.receive_some()
        reset(peer.stream)
    else:
        await answer_all(peer)


async def test_an_idempotent_request_is_sent_again_once(client: Client) -> None:
    async with serving(stale) as server, client.open() as session:
        await session.get(server.url())
        assert (await session.put(server.url("/again"), content=b"body")).text == "hello"
        assert server.connections == 2
        assert server.requests[-1].body == b"body"


async def test_it_is_sent_again_on_a_fresh_connection(client: Client) -> None:
    """Others that idle may have ended at the same moment."""
    both = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if len(server.requests) == 2:
            both.set()
        await both.wait()
        await peer.answer()
        if peer.number <= 2:
            await peer.stream.receive_some()
            reset(peer.stream)

    async with serving(script) as server, client.open() as session:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(session.get, server.url())
        assert (await session.get(server.url("/again"))).text == "hello"
        assert server.connections == 3


async def test_a_request_that_may_not_be_repeated_is_not(client: Client) -> None:
    async with serving(stale) as server, client.open() as session:
        await session.get(server.url())
        with pytest.raises(client.lib.TransportError):
            await session.post(server.url(), content=b"body")
        await session.get(server.url())

        async def body() -> AsyncIterator[bytes]:
            yield b"gone"

        assert (await session.put(server.url(), content=body())).status_code == 200


async def test_a_body_that_is_gone_is_not_sent_again(client: Client) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"gone"

    async with serving(stale) as server, client.open() as session:
        await session.get(server.url())
        with pytest.raises(client.lib.TransportError):
            await session.put(server.url(), content=body())
        assert server.connections == 1


async def test_a_fresh_connection_that_ends_is_the_callers_to_know(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    async with serving(script) as server, client.open() as session:
        with pytest.raises(client.lib.RemoteProtocolError, match="without sending a response"):
            await session.get(server.url())
        assert server.connections == 1


async def test_retries_dial_again(client: Client) -> None:
    dials: list[float] = []

    class Second(conpool.Connector):
        async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
            dials.append(trio.current_time())
            if len(dials) == 1:
                raise OSError("not yet")
            return await conpool.TCPConnector().connect(endpoint)

    async with serving() as server, ConnectionPool(connector=Second()) as pool:
        async with client.open(pool, retries=1) as session:
            assert (await session.get(server.url())).text == "/ "
        assert len(dials) == 2


async def test_retries_come_to_an_end(client: Client) -> None:
    port = await is_refused()
    async with client.open(retries=1) as session:
        with pytest.raises(client.lib.ConnectError):
            await session.get(f"http://{LOOPBACK}:{port}", timeout=2)


# ── limits ──────────────────────────────────────────────────────────────────────


def test_limits_are_the_pools(client: Client) -> None:
    limits = client.lib.Limits(max_connections=7, max_keepalive_connections=3, keepalive_expiry=2)
    config = make_config(limits)
    assert (config.max_connections, config.max_connections_per_endpoint) == (7, 7)
    assert (config.max_idle_per_endpoint, config.max_idle_time) == (3, 2)


async def test_no_limits(client: Client) -> None:
    limits = client.lib.Limits(
        max_connections=None, max_keepalive_connections=0, keepalive_expiry=None
    )
    async with serving() as server, client.open(limits=limits) as session:
        await session.get(server.url())
        assert client.pool_of(session).all_stats().idle == 0
