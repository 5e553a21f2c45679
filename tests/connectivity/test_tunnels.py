"""Tunnels through a pool: what a proxy may do after it has agreed, and how a tunnel ends."""

from __future__ import annotations

import contextlib
import errno
import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.abc import Stream

from conpool import (
    TLS,
    CloseReason,
    ConnectTimeout,
    Endpoint,
    HTTPProxy,
    PoolConfig,
    ProxyError,
    SOCKS5Proxy,
    TLSError,
)
from tests._net import LOOPBACK
from tests._proxies import Connecting, Socks, proxy_at_work, read_exactly, read_head
from tests.support.clean import PATIENCE

from .places import QUIET, ask, echoing, linux_only, listened_to

AGREED = b"HTTP/1.1 200 Connection established\r\n\r\n"
SOCKS_AGREED = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34"


async def agree_to_connect(stream: Stream, early: bytes = b"") -> None:
    await read_head(stream)
    await stream.send_all(AGREED + early)


async def agree_by_socks(stream: Stream, early: bytes = b"") -> None:
    await read_exactly(stream, 3)
    await stream.send_all(b"\x05\x00")
    await read_exactly(stream, 10)
    await stream.send_all(SOCKS_AGREED + early)


Agree = Callable[[Stream, bytes], Awaitable[None]]
KINDS = pytest.mark.parametrize(
    ("kind", "agree"), [(HTTPProxy, agree_to_connect), (SOCKS5Proxy, agree_by_socks)]
)
Kind = type[HTTPProxy | SOCKS5Proxy]


# ── agreed, and then ────────────────────────────────────────────────────────────


@KINDS
async def test_f120_a_proxy_that_agrees_and_hangs_up_is_the_end_of_a_plain_stream(
    kind: Kind, agree: Agree
) -> None:
    async with (
        proxy_at_work(lambda stream: agree(stream, b"")) as port,
        listened_to() as (pool, log),
    ):
        endpoint = Endpoint(LOOPBACK, 1, proxy=kind(LOOPBACK, port))
        with trio.fail_after(PATIENCE):
            async with pool.connection(endpoint) as conn:
                assert await conn.receive_some() == b""
        assert log.reasons == [CloseReason.PEER_CLOSED]


@KINDS
async def test_f120_a_proxy_that_agrees_and_hangs_up_is_an_error_of_tls(
    kind: Kind, agree: Agree, client_ssl: ssl.SSLContext
) -> None:
    async with (
        proxy_at_work(lambda stream: agree(stream, b"")) as port,
        listened_to() as (pool, log),
    ):
        endpoint = Endpoint(LOOPBACK, 1, tls=TLS(client_ssl), proxy=kind(LOOPBACK, port))
        with pytest.raises(TLSError) as caught:
            await ask(pool, endpoint)
        assert caught.value.phase == "tls"
        assert pool.stats(endpoint).total_created == 0
        assert len(log.connect_errors) == 1


@linux_only
@KINDS
async def test_f120_a_tunnel_that_was_warmed_and_whose_proxy_hung_up_is_never_lent(
    kind: Kind, agree: Agree
) -> None:
    async with (
        proxy_at_work(lambda stream: agree(stream, b"")) as port,
        listened_to() as (pool, log),
    ):
        endpoint = Endpoint(LOOPBACK, 1, proxy=kind(LOOPBACK, port))
        await pool.warm(endpoint, 1)
        await log.wait_closed(CloseReason.PEER_CLOSED)
        assert pool.stats(endpoint).idle == 0


@KINDS
async def test_f120_early_bytes_of_a_plain_target_are_the_first_callers(
    kind: Kind, agree: Agree
) -> None:
    async def greet_and_echo(stream: Stream) -> None:
        await agree(stream, b"220 hello\r\n")
        async for data in stream:
            await stream.send_all(data)

    async with proxy_at_work(greet_and_echo) as port, listened_to() as (pool, log):
        endpoint = Endpoint(LOOPBACK, 1, proxy=kind(LOOPBACK, port))
        with trio.fail_after(PATIENCE):
            async with pool.connection(endpoint) as conn:
                assert await read_exactly(conn, 11) == b"220 hello\r\n"
            for _ in range(3):
                await ask(pool, endpoint)
        assert log.dialled == 1


@KINDS
async def test_f069_f120_g7_early_bytes_before_tls_reach_nobody(
    kind: Kind, agree: Agree, client_ssl: ssl.SSLContext
) -> None:
    async def inject(stream: Stream) -> None:
        await agree(stream, b"+OK injected\r\n")
        async for _ in stream:
            pass

    async with proxy_at_work(inject) as port, listened_to() as (pool, _):
        endpoint = Endpoint(LOOPBACK, 1, tls=TLS(client_ssl), proxy=kind(LOOPBACK, port))
        with pytest.raises((ProxyError, TLSError)):
            await ask(pool, endpoint)
        assert pool.all_stats().total_created == 0


# ── not agreed ──────────────────────────────────────────────────────────────────


async def silence(stream: Stream) -> None:
    async for _ in stream:
        pass


@pytest.mark.parametrize("kind", [HTTPProxy, SOCKS5Proxy])
async def test_f120_a_silent_proxy_costs_the_connect_timeout(kind: Kind) -> None:
    async with (
        proxy_at_work(silence) as port,
        listened_to(PoolConfig(connect_timeout=0.05)) as (pool, _),
    ):
        with pytest.raises(ProxyError) as caught:
            await ask(pool, Endpoint(LOOPBACK, 1, proxy=kind(LOOPBACK, port)))
        assert isinstance(caught.value, ConnectTimeout)
        assert (caught.value.phase, caught.value.errno) == ("proxy", errno.ETIMEDOUT)


async def test_f120_each_refusal_is_a_connection_of_its_own_that_the_proxy_sees_end() -> None:
    ended = 0

    async def refuse(stream: Stream) -> None:
        nonlocal ended
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        with contextlib.suppress(trio.BrokenResourceError):  # the rest of the answer goes unread
            assert await stream.receive_some() == b"", "sent before the proxy had agreed"
        ended += 1

    async with proxy_at_work(refuse) as port, listened_to() as (pool, log):
        for number in range(1, 4):
            with pytest.raises(ProxyError, match="403"):
                await ask(pool, Endpoint(LOOPBACK, 1, proxy=HTTPProxy(LOOPBACK, port)))
            with trio.fail_after(PATIENCE):
                while ended < number:
                    await trio.lowlevel.checkpoint()
        assert log.dialled == 3


# ── TLS to the target, through a proxy that is itself reached by TLS ──────────────


async def test_tls_in_tls_is_lent_again_looked_at_and_ended_in_due_form(
    client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext
) -> None:
    tls = TLS(client_ssl)
    async with (
        echoing(server_ssl) as target,
        proxy_at_work(Connecting(), server_ssl) as port,
    ):
        proxy = HTTPProxy(LOOPBACK, port, tls=tls)
        endpoint = Endpoint(LOOPBACK, target.port, tls=tls, proxy=proxy)
        async with listened_to(QUIET.replace(health_check_after=0.0)) as (pool, log):
            # Two layers of tickets lie unread in a connection that was only warmed.
            await pool.warm(endpoint, 2)
            for _ in range(10):
                async with pool.connection(endpoint) as one, pool.connection(endpoint) as other:
                    assert await one.is_healthy()
                    assert await other.is_healthy()
                await ask(pool, endpoint, bytes(100_000))
            assert log.dialled == 2
            assert log.reasons == []
        with trio.fail_after(PATIENCE):
            while target.live:
                await trio.lowlevel.checkpoint()
        assert target.goodbyes == 2


async def test_socks_with_credentials_through_a_pool() -> None:
    socks = Socks(credentials=(b"joe", b"hunter2"))
    async with echoing() as target, proxy_at_work(socks) as port, listened_to() as (pool, log):
        proxy = SOCKS5Proxy(LOOPBACK, port, username="joe", password="hunter2")
        endpoint = Endpoint("db.example", target.port, proxy=proxy)
        for _ in range(5):
            await ask(pool, endpoint)
        assert [host for _, host, _ in socks.asked] == [b"db.example"]
        assert log.dialled == 1
