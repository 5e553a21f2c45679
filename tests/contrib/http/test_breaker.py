"""The transport tells the circuit breaker what it sees of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.errors
import pytest
import trio
import trio.testing

from conpool import (
    CircuitBreaker,
    CircuitState,
    ConnectionPool,
    Endpoint,
    EndpointGroup,
    PoolConfig,
)
from conpool._core.failures import EARLY

from .clients import LOOPBACK, Client, Peer, Script, serving
from .h2_server import Link, serving_h2


def after(failures: int) -> PoolConfig:
    """A breaker that opens after so many failures in a row."""
    breaker = CircuitBreaker(failure_threshold=failures, reset_timeout=60)
    return PoolConfig(circuit_breaker=breaker)


PROMISED = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"


async def hang_up(peer: Peer) -> None:
    await peer.request()


async def break_off(peer: Peer) -> None:
    await peer.request()
    await peer.send(PROMISED)


async def talk_nonsense(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"nonsense\r\n\r\n")


async def say_nothing(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


async def stop_talking(peer: Peer) -> None:
    await break_off(peer)
    await peer.gone()


def answering(*statuses: int) -> Script:
    async def answer(peer: Peer) -> None:
        for status in statuses:
            if await peer.request() is not None:
                await peer.answer(status=status)

    return answer


def answering_then(last: Script) -> Script:
    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await last(peer)

    return answer


@asynccontextmanager
async def feeding(
    client: Client, port: int, config: PoolConfig | None = None, **options: Any
) -> AsyncIterator[tuple[Any, ConnectionPool[Any], Endpoint]]:
    """A client whose pool has a breaker."""
    async with client.open(config=config or after(1), **options) as session:
        await session._transport.__aenter__()
        yield session, client.pool_of(session), Endpoint(LOOPBACK, port)


def circuit(pool: ConnectionPool[Any], endpoint: Endpoint) -> CircuitState:
    return pool.stats(endpoint).circuit


# ── what counts ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (break_off, "RemoteProtocolError"),
        (talk_nonsense, "RemoteProtocolError"),
        (say_nothing, "ReadTimeout"),
        (stop_talking, "ReadTimeout"),
        (answering_then(break_off), "RemoteProtocolError"),
    ],
)
async def test_what_a_server_does_wrong_counts(client: Client, script: Script, error: str) -> None:
    async with serving(script) as server, feeding(client, server.port) as (session, pool, here):
        timeout = client.lib.Timeout(10, read=0.05 if error == "ReadTimeout" else 10)
        with pytest.raises(getattr(client.lib, error)):
            for _ in range(2):
                await session.post(server.url(), timeout=timeout)
                assert circuit(pool, here) is CircuitState.CLOSED
        assert circuit(pool, here) is CircuitState.OPEN


async def test_a_new_connection_that_ends_early_counts_once(client: Client) -> None:
    async with (
        serving(hang_up) as server,
        feeding(client, server.port, after(2)) as (session, pool, here),
    ):
        for state in (CircuitState.CLOSED, CircuitState.OPEN):
            with pytest.raises(client.lib.RemoteProtocolError):
                await session.post(server.url())
            assert circuit(pool, here) is state


async def test_a_new_connection_that_ends_late_without_a_byte_counts(
    client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    async def hang_up_late(peer: Peer) -> None:
        await peer.request()
        await trio.sleep(EARLY + 1)

    async with (
        serving(hang_up_late) as server,
        feeding(client, server.port) as (session, pool, here),
    ):
        with pytest.raises(client.lib.RemoteProtocolError):
            await session.post(server.url())
        assert circuit(pool, here) is CircuitState.OPEN


async def test_a_group_reports_the_member(client: Client) -> None:
    async with serving(break_off) as bad, serving() as good:
        members = [Endpoint(LOOPBACK, server.port) for server in (bad, good)]
        groups = {"api.example": EndpointGroup(members, policy="first_available")}
        async with feeding(client, bad.port, groups=groups) as (session, pool, _):
            with pytest.raises(client.lib.RemoteProtocolError):
                await session.get("http://api.example/")
            assert (await session.get("http://api.example/")).status_code == 200
            assert [circuit(pool, each) for each in members] == [
                CircuitState.OPEN,
                CircuitState.CLOSED,
            ]


# ── what does not ───────────────────────────────────────────────────────────────


async def test_answers_of_any_status_are_no_failure(client: Client) -> None:
    async with (
        serving(answering(200, 404, 503)) as server,
        feeding(client, server.port) as (session, pool, here),
    ):
        for _ in range(3):
            await session.get(server.url())
        assert circuit(pool, here) is CircuitState.CLOSED


async def test_an_answer_ends_a_row_of_failures_but_not_a_5xx(client: Client) -> None:
    async with (
        serving(answering(404, 503, 503)) as server,
        feeding(client, server.port, after(2)) as (session, pool, here),
    ):
        pool.report_failure(here)
        await session.get(server.url())
        pool.report_failure(here)  # the first one of a new row
        assert circuit(pool, here) is CircuitState.CLOSED
        await session.get(server.url())
        pool.report_failure(here)  # so a caller can count what 503 means to it
        assert circuit(pool, here) is CircuitState.OPEN


async def test_a_kept_connection_that_ends_does_not_count(client: Client) -> None:
    async with (
        serving(answering_then(hang_up)) as server,
        feeding(client, server.port) as (session, pool, here),
    ):
        await session.post(server.url())
        with pytest.raises(client.lib.RemoteProtocolError):
            await session.post(server.url())
        assert circuit(pool, here) is CircuitState.CLOSED


async def body_that_fails(client: Client) -> AsyncIterator[bytes]:
    yield b"some"
    raise client.lib.ReadError("another server's")


async def cancelled(client: Client, session: Any, url: str) -> None:
    with trio.move_on_after(0.05) as scope:
        await session.get(url)
    assert scope.cancelled_caught


async def with_bad_body(client: Client, session: Any, url: str) -> None:
    with pytest.raises(client.lib.ReadError):
        await session.post(url, content=body_that_fails(client))


async def closed_early(client: Client, session: Any, url: str) -> None:
    async with session.stream("GET", url):
        pass


@pytest.mark.parametrize(
    ("script", "use"),
    [(say_nothing, cancelled), (say_nothing, with_bad_body), (stop_talking, closed_early)],
)
async def test_what_the_caller_does_never_counts(
    client: Client, script: Script, use: Callable[[Client, Any, str], Awaitable[None]]
) -> None:
    async with serving(script) as server, feeding(client, server.port) as (session, pool, here):
        await use(client, session, server.url())
        assert circuit(pool, here) is CircuitState.CLOSED


async def test_nothing_is_reported_without_a_breaker(client: Client) -> None:
    def refuse(_: object) -> None:
        raise AssertionError

    async with (
        serving(break_off) as server,
        feeding(client, server.port, PoolConfig()) as (session, pool, _),
    ):
        pool.report_failure = pool.report_success = refuse  # type: ignore[assignment, method-assign]
        with pytest.raises(client.lib.RemoteProtocolError):
            await session.get(server.url())


# ── HTTP/2 ──────────────────────────────────────────────────────────────────────


async def test_a_shared_connection_that_breaks_counts_once(client: Client) -> None:
    errors = 0

    async def begin(link: Link, number: int) -> None:
        await link.head(number)
        if number >= 5:  # the third request
            await link.stream.aclose()

    async with serving_h2(begin) as server:
        options = {"http1": False, "http2": True}
        async with (
            client.open(config=after(2), **options) as session,
            trio.open_nursery() as nursery,
        ):

            async def get() -> None:
                nonlocal errors
                with pytest.raises((client.lib.ReadError, client.lib.RemoteProtocolError)):
                    await session.get(server.url)
                errors += 1

            for _ in range(3):
                nursery.start_soon(get)
        assert errors == 3
        pool = client.pool_of(session)
        (stats,) = pool.all_stats().endpoints.values()
        assert stats.circuit is CircuitState.CLOSED


async def test_a_shared_connection_that_ends_before_its_first_answer_counts(
    client: Client,
) -> None:
    async def hang_up(link: Link, number: int) -> None:
        await link.stream.aclose()

    options = {"http1": False, "http2": True}
    async with (
        serving_h2(hang_up) as server,
        client.open(config=after(1), **options) as session,
    ):
        with pytest.raises((client.lib.ReadError, client.lib.RemoteProtocolError)):
            await session.get(server.url)
        (stats,) = client.pool_of(session).all_stats().endpoints.values()
        assert stats.circuit is CircuitState.OPEN


async def test_a_request_that_is_handed_back_does_not_count(client: Client) -> None:
    async def refuse(link: Link, number: int) -> None:
        await link.do("reset_stream", number, h2.errors.ErrorCodes.REFUSED_STREAM)

    options = {"http1": False, "http2": True}
    async with (
        serving_h2(refuse) as server,
        client.open(config=after(1), **options) as session,
    ):
        with pytest.raises(client.lib.RemoteProtocolError):
            await session.get(server.url)
        (stats,) = client.pool_of(session).all_stats().endpoints.values()
        assert stats.circuit is CircuitState.CLOSED
