"""FAULTS 39 to 44, 79, 101: what drivers and servers do to one another, over real sockets."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import (
    AcquireTimeout,
    AnyEndpoint,
    CloseReason,
    ConnectionPool,
    ConnectTimeout,
    Endpoint,
    Login,
    PoolConfig,
)
from tests.support.clean import PATIENCE, Case, clean
from tests.support.drivers import GREETING, Plain, Session, greet_and_echo, make_driver
from tests.support.faults import LOOPBACK
from tests.support.loopback_servers import Serving, serving

from .blocks import fails
from .sites import Site, TCPSite

Open = Callable[[trio.abc.Stream], Awaitable[Any]]


class Opening(Plain):
    """Opens sessions in a way of its own."""

    def __init__(self, open_session: Open) -> None:
        super().__init__()
        self._open = open_session

    async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Session:
        return cast("Session", await self._open(stream))


@asynccontextmanager
async def lending(
    driver: Plain, server: Serving, config: PoolConfig | None = None
) -> AsyncIterator[tuple[Case, ConnectionPool[Session]]]:
    async with clean(server.endpoint, config, driver=driver) as case:
        yield case, cast("ConnectionPool[Session]", case.pool)


async def call(pool: ConnectionPool[Session], server: Serving) -> int:
    async with pool.connection(server.endpoint) as conn:
        assert await conn.session.call(b"ping") == b"ping"
        return conn.id


# ── open ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_f039_a_server_that_accepts_and_closes_fails_the_dial(site: Site, how: Any) -> None:
    opening = trio.Event()

    class Telling(Plain):
        async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Session:
            opening.set()
            return await super().open(stream, endpoint)

    async with clean(None, driver=Telling()) as case, trio.open_nursery() as nursery:

        async def hang_up() -> None:
            server = await site.accept()
            await opening.wait()  # a reset any sooner would fail the phase before
            site.end(server, how)

        nursery.start_soon(hang_up)
        error = await fails(case, site.endpoint)
        assert error.phase == "open"
        assert isinstance(error.__cause__, EOFError | trio.BrokenResourceError)
        assert case.pool.stats(site.endpoint).errors == 1


async def test_f039_without_a_driver_the_body_sees_the_end(tcp_site: TCPSite) -> None:
    async with clean(None) as case:
        async with case.pool.connection(tcp_site.endpoint) as conn:
            tcp_site.end(await tcp_site.accept())
            assert await conn.receive_some() == b""
        assert case.log.reasons == [CloseReason.PEER_CLOSED]


async def test_f040_a_silent_server_is_given_up_at_the_connect_timeout(site: Site) -> None:
    config = PoolConfig(connect_timeout=0.2)
    async with clean(None, config, driver=Plain()) as case:
        error = await fails(case, site.endpoint)
        assert isinstance(error, ConnectTimeout)
        assert error.phase == "open"


async def test_f041_a_refusal_has_the_drivers_exception_as_its_cause_and_no_password() -> None:
    async def full(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"-ERR max number of clients reached\n")

    async with serving(full) as server:
        login = Login("app", "hunter2", "orders")
        endpoint = Endpoint(LOOPBACK, server.port, login=login)
        async with clean(None, driver=Plain()) as case:
            error = await fails(case, endpoint)
            assert error.phase == "open"
            assert isinstance(error.__cause__, ConnectionRefusedError)
            assert "max number of clients" in str(error)
            assert "app@" in str(error)
            seen = (str(error), repr(error), repr(error.__cause__), str(case.pool.all_stats()))
            assert not any("hunter2" in text for text in seen)
            assert case.pool.stats(endpoint).errors == 1
            assert case.pool._core.subs[endpoint].gate.is_failing


async def test_f042_a_late_greeting_is_unread_data_for_a_pool_without_a_driver(
    site: Site,
) -> None:
    async with clean(None) as case:
        server = await site.lend(case)
        await server.send_all(GREETING)
        case.await_stir()
        with pytest.raises(trio.WouldBlock):
            case.pool.acquire_nowait(site.endpoint)
        assert case.log.reasons == [CloseReason.UNREAD_DATA]


async def test_f042_a_driver_waits_for_a_late_greeting(tcp_site: TCPSite) -> None:
    async with clean(None, driver=Plain()) as case, trio.open_nursery() as nursery:

        async def greet() -> None:
            server = await tcp_site.accept()
            await wait_all_tasks_blocked()
            assert case.pool.stats(tcp_site.endpoint).connecting == 1
            for byte in GREETING:
                await server.send_all(bytes([byte]))
                await wait_all_tasks_blocked()

        nursery.start_soon(greet)
        with trio.fail_after(PATIENCE):
            async with case.pool.connection(tcp_site.endpoint) as conn:
                assert isinstance(conn.session, Session)


async def raises(stream: trio.abc.Stream) -> None:
    raise ZeroDivisionError("mine")


async def hangs(stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def hangs_in_a_receive(stream: trio.abc.Stream) -> None:
    while True:
        await stream.receive_some()
        await trio.lowlevel.checkpoint()


async def forgets_to_await(stream: trio.abc.Stream) -> object:
    return stream.receive_some()


async def closes(stream: trio.abc.Stream) -> Session:
    await stream.aclose()
    return Session(stream)


async def half_closes(stream: trio.abc.Stream) -> Session:
    await cast("trio.abc.HalfCloseableStream", stream).send_eof()
    return Session(stream)


async def closes_and_receives(stream: trio.abc.Stream) -> Session:
    await stream.aclose()
    await stream.receive_some()
    return Session(stream)


async def swallows_a_cut_send(stream: trio.abc.Stream) -> Session:
    with trio.move_on_after(0):
        await stream.send_all(b"x")
    return Session(stream)


@pytest.mark.parametrize(
    ("act", "cause", "text"),
    [
        (raises, ZeroDivisionError, "mine"),
        (hangs, None, "connect_timeout"),
        (hangs_in_a_receive, None, "connect_timeout"),
        (forgets_to_await, TypeError, r"Opening.open\(\) returned a coroutine"),
        (closes, ConnectionError, "has ended"),
        (half_closes, ConnectionError, "has ended"),
        (closes_and_receives, trio.ClosedResourceError, ""),
        (swallows_a_cut_send, ConnectionError, "has ended"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_f043_whatever_open_does_wrong_is_a_connect_error(
    act: Open, cause: type[Exception] | None, text: str
) -> None:
    config = PoolConfig(connect_timeout=0.1 if cause is None else 10.0)
    async with (
        serving(greet_and_echo) as server,
        clean(None, config, driver=Opening(act)) as case,
    ):
        error = await fails(case, server.endpoint)
        assert error.phase == "open"
        assert re.search(text, str(error))
        assert cause is None or isinstance(error.__cause__, cause)
        assert isinstance(error, ConnectTimeout) == (cause is None)
        await server.wait_live(0)


async def test_f043_a_plain_open_that_is_no_coroutine_says_so() -> None:
    class Sync(Plain):
        def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Any:
            return Session(stream)

    async with serving(greet_and_echo) as server, clean(None, driver=Sync()) as case:
        error = await fails(case, server.endpoint)
        assert error.phase == "open"
        assert isinstance(error.__cause__, TypeError)


async def test_f043_an_open_that_acquires_from_its_own_pool_ends_in_a_time_out() -> None:
    inner: list[Exception] = []

    async def acquires(stream: trio.abc.Stream) -> object:
        try:
            await case.pool.acquire(server.endpoint)
        except AcquireTimeout as error:
            inner.append(error)
            raise
        raise AssertionError("its own dial has the only slot")

    config = PoolConfig(max_connections_per_endpoint=1, acquire_timeout=0.1, connect_timeout=10)
    async with (
        serving(greet_and_echo) as server,
        clean(None, config, driver=Opening(acquires)) as case,
    ):
        with trio.fail_after(PATIENCE), pytest.raises(AcquireTimeout) as caught:
            await case.pool.acquire(server.endpoint)
        assert caught.value.phase == "connect"
        await case.settle()
        assert len(inner) == 1
        (failed,) = case.log.connect_errors
        assert failed.__cause__ is inner[0]


async def test_f043_an_open_that_is_no_mere_error_ends_the_pool() -> None:
    async def fatal(stream: trio.abc.Stream) -> object:
        raise SystemExit(3)

    async with serving(greet_and_echo) as server:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with clean(None, driver=Opening(fatal)) as case:
                await case.pool.acquire(server.endpoint)
        assert caught.value.subgroup(SystemExit) is not None
        assert case.pool.stats(server.endpoint).active == 0
        await server.wait_live(0)


@pytest.mark.parametrize("swallows", [False, True])
async def test_f044_open_that_is_cancelled_at_its_last_checkpoint_leaves_no_socket(
    swallows: bool,
) -> None:
    reached = trio.Event()

    async def opens(stream: trio.abc.Stream) -> Session:
        session = Session(stream)
        session.owes = 1
        await session.answer()
        reached.set()
        await trio.sleep_forever()

    class Swallowing(Opening):
        async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Session:
            try:
                return await super().open(stream, endpoint)
            except trio.Cancelled:
                if swallows:
                    return Session(stream)
                raise

    async with serving(greet_and_echo) as server:
        async with clean(None, driver=Swallowing(opens)) as case, trio.open_nursery() as nursery:
            nursery.start_soon(case.pool.acquire, server.endpoint)
            await reached.wait()
            nursery.cancel_scope.cancel()
            await trio.lowlevel.cancel_shielded_checkpoint()
            with trio.CancelScope(shield=True):
                assert case.pool.stats(server.endpoint).connecting == 1, "it goes on for nobody"
                await case.pool.aclose()
                assert case.recorder.open == 0
        await server.wait_live(0)


# ── check ───────────────────────────────────────────────────────────────────────


async def check_raises(session: Session) -> bool:
    raise ZeroDivisionError


async def check_is_falsy(session: Session) -> Any:
    await trio.lowlevel.checkpoint()
    return 0


async def check_hangs(session: Session) -> bool:
    await trio.sleep_forever()


async def check_hangs_in_a_receive(session: Session) -> bool:
    await session.answer()
    return True


async def check_closes(session: Session) -> bool:
    await session.stream.aclose()
    return True


async def check_asks_and_does_not_read(session: Session) -> bool:
    await session.stream.send_all(b"ping\n")
    return True


async def check_reads_half(session: Session) -> bool:
    await session.stream.send_all(b"ping\n")
    assert await session.stream.receive_some(2) == b"pi"
    return True


async def check_swallows_a_time_out(session: Session) -> bool:
    with trio.move_on_after(0):
        await session.stream.receive_some()
    return True


MISDEEDS = [
    (check_raises, CloseReason.UNHEALTHY, CloseReason.ERROR),
    (check_is_falsy, CloseReason.UNHEALTHY, None),
    (check_hangs, CloseReason.UNHEALTHY, CloseReason.UNHEALTHY),
    (check_hangs_in_a_receive, CloseReason.UNHEALTHY, CloseReason.UNHEALTHY),
    (check_closes, CloseReason.DISCARDED, CloseReason.DISCARDED),
    (check_asks_and_does_not_read, CloseReason.INCOMPLETE, CloseReason.INCOMPLETE),
    (check_reads_half, CloseReason.UNREAD_DATA, CloseReason.UNREAD_DATA),
    (check_swallows_a_time_out, CloseReason.INCOMPLETE, CloseReason.INCOMPLETE),
]


def once(act: Callable[[Session], Awaitable[Any]]) -> Callable[[Session], Awaitable[bool]]:
    """Misbehave the first time, and do well ever after."""
    asked = 0

    async def method(session: Session) -> bool:
        nonlocal asked
        asked += 1
        if asked == 1:
            return cast("bool", await act(session))
        return await session.call(b"ask") == b"ask"

    return method


@pytest.mark.parametrize(
    ("act", "reason", "_"), MISDEEDS, ids=lambda value: value.__name__ if callable(value) else ""
)
async def test_f079_whatever_a_check_does_the_caller_gets_a_good_connection(
    act: Callable[[Session], Awaitable[Any]], reason: CloseReason, _: object
) -> None:
    driver = make_driver(check=once(act))
    config = PoolConfig(health_check_timeout=0.05)
    async with serving(greet_and_echo) as server, lending(driver, server, config) as (case, pool):
        assert [await call(pool, server), await call(pool, server)] == [1, 2]
        assert case.log.reasons == [reason]
        assert await call(pool, server) == 2


@pytest.mark.parametrize("method", ["check", "reset"])
async def test_f079_f101_what_is_no_mere_error_ends_the_pool(method: str) -> None:
    async def fatal(session: Session) -> bool:
        raise SystemExit(3)

    async with serving(greet_and_echo) as server:
        with pytest.raises(BaseExceptionGroup) as caught:
            driver = make_driver(**{method: fatal})
            async with clean(None, driver=driver) as case:
                pool = cast("ConnectionPool[Session]", case.pool)
                await call(pool, server)
                await call(pool, server)
        assert caught.value.subgroup(SystemExit) is not None
        assert case.pool.stats(server.endpoint).active == 0
        await server.wait_live(0)


# ── reset ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("act", "_", "reason"), MISDEEDS, ids=lambda value: value.__name__ if callable(value) else ""
)
async def test_f101_whatever_a_reset_does_the_slot_comes_back(
    act: Callable[[Session], Awaitable[Any]],
    _: object,
    reason: CloseReason | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "conpool")
    driver = make_driver(reset=once(act))
    config = PoolConfig(health_check_timeout=0.05, max_connections_per_endpoint=1)
    async with serving(greet_and_echo) as server, lending(driver, server, config) as (case, pool):
        assert await call(pool, server) == 1
        assert await call(pool, server) == (1 if reason is None else 2)
        assert case.log.reasons == ([] if reason is None else [reason])
        assert ("reset of" in caplog.text) == (reason is CloseReason.ERROR), "it is reported"
        await end_all_resets(case)


async def test_f101_a_lease_does_not_wait_for_the_reset_of_its_connection() -> None:
    driver = make_driver(reset=check_hangs)
    config = PoolConfig(health_check_timeout=0.05)
    async with serving(greet_and_echo) as server, lending(driver, server, config) as (case, pool):
        with trio.fail_after(PATIENCE):
            assert [await call(pool, server) for _ in range(3)] == [1, 2, 3]
        await case.log.wait_closed(*[CloseReason.UNHEALTHY] * 3)
        case.then = None


async def test_f101_a_connection_that_is_closed_during_its_reset_ends_the_reset() -> None:
    ended = trio.Event()

    async def reset(session: Session) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    driver = make_driver(reset=reset)
    async with serving(greet_and_echo) as server, lending(driver, server) as (case, pool):
        await call(pool, server)
        await wait_all_tasks_blocked()
        await end_all_resets(case)
        with trio.fail_after(PATIENCE):
            await ended.wait()
        assert case.log.reasons == [CloseReason.CLEARED]


async def end_all_resets(case: Case) -> None:
    """Wait until the last lease is cleaned up after, too."""
    case.then = None  # it would be reset once more
    with trio.fail_after(PATIENCE):
        await case.pool.drain()
        await wait_all_tasks_blocked()
