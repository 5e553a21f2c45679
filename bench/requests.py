"""What a pool saves: requests over kept connections, and over a fresh connection for each."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack
from typing import Final

import trio

import conpool
from conpool.cli._certificates import make_contexts

from .measure import Run, Scale, Table, race
from .server import HOST, serving

_REQUEST: Final = b"x" * 64


async def measure_requests(scale: Scale) -> Table:
    """Time sequential requests, fresh and pooled, plain and over TLS 1.3."""
    server_context, client_context = make_contexts()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving())
        tls_port = await stack.enter_async_context(serving(server_context))
        pool = await stack.enter_async_context(conpool.ConnectionPool())
        plain = conpool.Endpoint(HOST, port)
        tls = conpool.Endpoint(HOST, tls_port, tls=conpool.TLS(context=client_context))
        async with pool.connection(tls) as conn:
            assert conn.ssl_object is not None
            version = conn.ssl_object.version()
        kept = await stack.enter_async_context(await trio.open_tcp_stream(HOST, port))
        runs: dict[str, Run] = {
            "plain, a fresh connection for each": _fresh(port, None),
            "plain, pooled": _pooled(pool, plain),
            "plain, one connection without a pool": _kept(kept),
            f"{version}, a fresh connection for each": _fresh(tls_port, client_context),
            f"{version}, pooled": _pooled(pool, tls),
        }
        count = scale.pick(100, 100, 10)
        times = await race(runs, count=count, rounds=scale.pick(9, 5, 2))
    fresh_plain, _, _, fresh_tls, _ = runs
    rows: list[tuple[str, ...]] = []
    for number, name in enumerate(runs):
        fresh = fresh_plain if number < 3 else fresh_tls
        target = {"plain, pooled": "≥ 2.5", f"{version}, pooled": "≥ 10"}.get(name, "")
        rows.append((name, f"{times.micros(name):.0f}", f"{times.ratio(fresh, name):.1f}", target))
    return Table(
        f"{count} requests in sequence, {len(_REQUEST)} bytes there and back",
        ("", "µs each", "times as fast", "target"),
        rows,
        "On loopback, where a round trip costs nothing: reuse saves more elsewhere. The time is"
        " that of client and server together; the certificate's key is P-256.",
    )


def _fresh(port: int, tls: ssl.SSLContext | None) -> Run:
    async def run(count: int) -> None:
        for _ in range(count):
            stream: trio.abc.Stream = await trio.open_tcp_stream(HOST, port)
            if tls is not None:
                stream = trio.SSLStream(stream, tls, server_hostname=HOST)
            async with stream:
                await _ask(stream)

    return run


def _pooled(pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint) -> Run:
    async def run(count: int) -> None:
        for _ in range(count):
            async with pool.connection(endpoint) as conn:
                await _ask(conn)

    return run


def _kept(stream: trio.abc.Stream) -> Run:
    async def run(count: int) -> None:
        for _ in range(count):
            await _ask(stream)

    return run


async def _ask(stream: trio.abc.Stream) -> None:
    await stream.send_all(_REQUEST)
    missing = len(_REQUEST)
    while missing:
        missing -= len(await stream.receive_some())
