"""Closing at once and by force, and closing gracefully within a time limit."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import pytest
import trio
from trio.abc import AsyncResource
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from conpool import TLS, Endpoint
from conpool._connection.closing import close_by_force, close_gracefully, try_close_now
from conpool._errors.pool_log import PoolLog
from tests.support.faults import fill
from tests.support.loopback_servers import tcp_pair, tls_pair

FOREVER = 60.0


class Resource(AsyncResource):
    """Closes in the way that a test chooses."""

    def __init__(self, outcome: BaseException | None = None, *, hangs: bool = False) -> None:
        self.outcome, self.hangs = outcome, hangs
        self.asked = 0
        self.cut_short = False

    async def aclose(self) -> None:
        self.asked += 1
        if self.outcome is not None:
            raise self.outcome
        try:
            if self.hangs:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            self.cut_short = True
            raise


class WithClose(Resource):
    """Has a way to close without awaiting."""

    def __init__(self, outcome: BaseException | None = None, *, hangs: bool = False) -> None:
        super().__init__(outcome, hangs=hangs)
        self.forced = 0

    def close(self) -> None:
        self.forced += 1


class WithAsyncClose(Resource):
    async def close(self) -> None:
        raise AssertionError("nobody awaits this")


# ── by force ────────────────────────────────────────────────────────────────────


async def test_a_socket_is_closed_at_once_under_whoever_uses_it() -> None:
    client, server = await tcp_pair()

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await client.receive_some()

    async with server, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        assert try_close_now(client)
        assert client.socket.fileno() == -1
    assert try_close_now(client), "twice does no harm"


@pytest.mark.parametrize("layers", [1, 2])
async def test_tls_is_closed_at_once_without_a_word(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext, layers: int
) -> None:
    low_client, low_server = await tcp_pair()
    client, server = await tls_pair(server_ssl, TLS(client_ssl), (low_client, low_server))
    if layers == 2:
        client, server = await tls_pair(server_ssl, TLS(client_ssl), (client, server))

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await client.receive_some()

    async with low_server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            assert try_close_now(client)
        assert low_client.socket.fileno() == -1
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()


async def test_both_halves_of_a_stream_in_memory_are_closed() -> None:
    client, server = memory_stream_pair()
    assert try_close_now(client)
    assert await server.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"x")


def test_half_a_stream_that_cannot_be_closed_at_once_leaves_the_whole_to_an_await() -> None:
    quick: Any = WithClose()
    slow: Any = Resource()
    assert not try_close_now(trio.StapledStream(quick, slow))
    assert not try_close_now(trio.StapledStream(slow, quick))
    assert quick.forced == 2


def test_only_a_plain_close_counts_as_one() -> None:
    plain = WithClose()
    assert try_close_now(plain)
    assert plain.forced == 1
    assert not try_close_now(Resource())
    assert not try_close_now(WithAsyncClose())


def test_what_a_stream_raises_when_closed_by_force_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def close(self) -> None:
            raise ZeroDivisionError

    broken: Any = Broken()
    assert try_close_now(broken), "there is nothing more that could be done"
    assert "by force failed" in caplog.text


async def test_what_only_an_await_can_close_is_given_no_time() -> None:
    resource = Resource(hangs=True)
    with trio.fail_after(5):
        await close_by_force(resource)
    assert resource.cut_short


# ── with a goodbye ──────────────────────────────────────────────────────────────


async def test_the_server_sees_a_tls_client_say_goodbye(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    client, server = await tls_pair(server_ssl, TLS(client_ssl))
    await close_gracefully(client, FOREVER)
    assert await server.receive_some() == b"", "an end without a goodbye would raise"
    await server.aclose()


async def test_f070_a_peer_that_does_not_read_cannot_hold_up_the_goodbye(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    low_client, low_server = await tcp_pair()
    client, _ = await tls_pair(server_ssl, TLS(client_ssl), (low_client, low_server))
    async with low_server:
        await fill(low_client)
        began = trio.current_time()
        with trio.fail_after(5):
            await close_gracefully(client, 0.05)
        assert trio.current_time() - began >= 0.05
        assert low_client.socket.fileno() == -1


async def test_it_cannot_be_cancelled_but_ends_in_time() -> None:
    stuck, quick = WithClose(hangs=True), WithClose()
    with trio.CancelScope() as scope:
        scope.cancel()
        await close_gracefully(stuck, 0.01)
        await close_gracefully(quick, FOREVER)
    assert stuck.cut_short
    assert stuck.forced == 1
    assert quick.asked == 1
    assert not quick.cut_short


async def test_a_peer_that_is_gone_is_nobodys_concern(caplog: pytest.LogCaptureFixture) -> None:
    resource = WithClose(trio.BrokenResourceError("gone"))
    await close_gracefully(resource, FOREVER)
    assert resource.forced == 1
    assert not caplog.records


async def test_what_a_stream_raises_when_closed_is_logged_and_it_is_closed_by_force(
    caplog: pytest.LogCaptureFixture,
) -> None:
    resource = WithClose(ZeroDivisionError("closing"))
    await close_gracefully(resource, FOREVER)
    assert resource.forced == 1
    ((_, level, message),) = caplog.record_tuples
    assert level == logging.ERROR
    assert "failed" in message


async def test_what_is_no_ones_to_swallow_comes_out_and_the_file_is_closed_all_the_same() -> None:
    resource = WithClose(SystemExit(3))
    with pytest.raises(SystemExit):
        await close_gracefully(resource, FOREVER)
    assert resource.forced == 1


async def test_a_goodbye_that_takes_too_long_is_told_of(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "conpool")
    stream, _ = memory_stream_pair()
    log = PoolLog("orders", Endpoint("db.example", 5432))
    await close_gracefully(stream, 2.0, trio.sleep_forever, log)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("pool orders: Stapled")
    assert record.getMessage().endswith("is closed by force: its goodbye takes longer than 2 s")
    assert vars(record)["endpoint"] == "db.example:5432"


@pytest.mark.parametrize(
    ("error", "level"), [(OSError("gone"), logging.INFO), (KeyError("bug"), logging.WARNING)]
)
async def test_a_goodbye_that_fails_is_told_of(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise error

    caplog.set_level(logging.INFO, "conpool")
    stream, _ = memory_stream_pair()
    await close_gracefully(stream, 2.0, fail)
    (record,) = caplog.records
    assert record.levelno == level
    assert "the goodbye of" in record.getMessage()
