"""Streams that are the caller's own after an upgrade: `network_stream`, and TLS over it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from conpool import ConfigError

from .clients import LOOPBACK, Client, Peer, serving


@pytest.mark.parametrize("kind", ["upgrade", "connect"])
async def test_an_upgraded_stream_is_the_callers_own(client: Client, kind: str) -> None:
    async def script(peer: Peer) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await peer.stream.receive_some()
        if kind == "upgrade":
            await peer.send(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n"
                b"Connection: upgrade\r\n\r\nhi"
            )
        else:
            assert head.startswith(b"CONNECT example.org:1 HTTP/1.1\r\n")
            await peer.send(b"HTTP/1.1 200 Fine\r\n\r\nhi")
        async for data in peer.stream:
            await peer.send(bytes(data))

    async with serving(script) as server, client.open() as session:
        if kind == "upgrade":
            headers = {"Upgrade": "echo", "Connection": "upgrade"}
            request = session.build_request("GET", server.url(), headers=headers)
        else:
            target = {"target": b"example.org:1"}
            request = session.build_request("CONNECT", server.url(), extensions=target)
        response = await session.send(request, stream=True)
        stream = response.extensions["network_stream"]
        assert await stream.read(1) == b"h"
        assert await stream.read(10) == b"i"
        await stream.write(b"ping")
        assert await stream.read(10, timeout=5) == b"ping"
        with pytest.raises(client.lib.ReadTimeout):
            await stream.read(10, timeout=0.01)
        assert client.pool_of(session).all_stats().active == 0
        await response.aclose()
        with pytest.raises(client.lib.ReadError):
            await stream.read(10)


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
async def test_an_upgrade_that_is_refused_costs_no_connection(client: Client, method: str) -> None:
    async def script(peer: Peer) -> None:
        while await peer.head():
            await peer.answer(b"no", status=403)

    async with serving(script) as server, client.open() as session:
        extensions = {"target": b"example.org:1" if method == "CONNECT" else b"/"}
        headers = {"Upgrade": "echo", "Connection": "upgrade"} if method == "GET" else {}
        for _ in range(2):
            response = await session.request(
                method, server.url(), headers=headers, extensions=extensions
            )
            assert (response.status_code, response.text) == (403, "no")
        assert server.connections == 1


# ── TLS over it ─────────────────────────────────────────────────────────────────

Talk = Callable[[Peer], Awaitable[object]]


@asynccontextmanager
async def tunnel(client: Client, talk: Talk, *, early: bytes = b"") -> AsyncIterator[Any]:
    """The stream behind a CONNECT, at the far end of which `talk` runs."""
    gone = trio.Event()

    async def script(peer: Peer) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await peer.stream.receive_some()
        await peer.send(b"HTTP/1.1 200 Fine\r\n\r\n" + early)
        try:
            await talk(peer)
        finally:
            gone.set()

    async with serving(script) as server, client.open() as session:
        request = session.build_request(
            "CONNECT", server.url(), extensions={"target": b"example.org:1"}
        )
        response = await session.send(request, stream=True)
        yield response.extensions["network_stream"]
        await response.aclose()
        await gone.wait()


async def test_an_upgraded_stream_is_encrypted(
    client: Client, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext
) -> None:
    async def echo(peer: Peer) -> None:
        encrypted = trio.SSLStream(peer.stream, server_ssl, server_side=True)
        async for data in encrypted:
            await encrypted.send_all(b"I heard " + bytes(data))

    async with tunnel(client, echo) as plain:
        assert plain.get_extra_info("ssl_object") is None
        stream = await plain.start_tls(client_ssl, "localhost", timeout=5)
        await stream.write(b"secret")
        assert await stream.read(100) == b"I heard secret"
        assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert stream.get_extra_info("client_addr")[0] == LOOPBACK
        assert stream.get_extra_info("server_addr") == plain.get_extra_info("server_addr")
        assert stream.get_extra_info("socket").fileno() >= 0
        assert stream.get_extra_info("weather") is None
        await stream.aclose()


async def test_a_name_that_the_peer_does_not_have(
    client: Client, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext
) -> None:
    async def shake_hands(peer: Peer) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(peer.stream, server_ssl, server_side=True).do_handshake()

    async with tunnel(client, shake_hands) as plain:
        with pytest.raises(client.lib.ConnectError, match="certificate") as caught:
            await plain.start_tls(client_ssl, "example.org")
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
        with pytest.raises(client.lib.WriteError):
            await plain.write(b"secret")  # it is closed: nothing goes out in plain


async def test_a_handshake_that_takes_too_long(client: Client, client_ssl: ssl.SSLContext) -> None:
    async with tunnel(client, Peer.gone) as plain:
        with pytest.raises(client.lib.ConnectTimeout):
            await plain.start_tls(client_ssl, "localhost", timeout=0.02)
        with pytest.raises(client.lib.WriteError):
            await plain.write(b"secret")


async def test_plain_bytes_before_the_handshake_are_refused(
    client: Client, client_ssl: ssl.SSLContext
) -> None:
    async with tunnel(client, Peer.gone, early=b"poison") as plain:
        with pytest.raises(client.lib.ConnectError, match="before the TLS handshake"):
            await plain.start_tls(client_ssl, "localhost")
        with pytest.raises(client.lib.WriteError):
            await plain.write(b"secret")


async def test_a_context_that_checks_names_needs_one(
    client: Client, client_ssl: ssl.SSLContext
) -> None:
    async def echo(peer: Peer) -> None:
        async for data in peer.stream:
            await peer.send(bytes(data))

    async with tunnel(client, echo) as plain:
        with pytest.raises(ConfigError, match="server_hostname"):
            await plain.start_tls(client_ssl)
        await plain.write(b"still here")
        assert await plain.read(100) == b"still here"


async def test_a_peer_that_does_not_read(client: Client) -> None:
    async def stall(peer: Peer) -> None:
        await release.wait()

    release = trio.Event()
    async with tunnel(client, stall) as plain:
        with pytest.raises(client.lib.WriteTimeout):
            await plain.write(b"x" * 50_000_000, timeout=0.02)
        release.set()


async def test_a_stream_that_was_not_upgraded_is_the_responses(
    client: Client, client_ssl: ssl.SSLContext
) -> None:
    async with serving() as server, client.open() as session:
        stream = (await session.get(server.url())).extensions["network_stream"]
        for use, *arguments in (
            (stream.read, 1),
            (stream.write, b"x"),
            (stream.start_tls, client_ssl, "localhost"),
        ):
            with pytest.raises(RuntimeError, match="belong to the response"):
                await use(*arguments)
        await stream.aclose()
