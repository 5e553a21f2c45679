"""Sessions that own their socket: the pool sees a descriptor, and the driver does the rest."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import (
    AnyEndpoint,
    CloseReason,
    ConfigError,
    ConnectError,
    ConnectionPool,
    ConnectTimeout,
    NativeDriver,
    PoolClosed,
    PoolConfig,
)
from tests.support.clean import PATIENCE, Case, clean
from tests.support.drivers import GREETING, Native, NativeSession, PoliteNative, greet_and_echo
from tests.support.loopback_servers import Serving, serving
from tests.unit.pool.test_fork import in_child

from .sites import TCPSite

Pool = ConnectionPool[NativeSession]


@asynccontextmanager
async def lending(
    driver: Native, server: Serving, config: PoolConfig | None = None
) -> AsyncIterator[tuple[Case, Pool]]:
    async with clean(server.endpoint, config, driver=driver) as case:
        yield case, cast("Pool", case.pool)


async def call(pool: Pool, server: Serving, line: bytes = b"ping") -> int:
    async with pool.connection(server.endpoint) as conn:
        assert await conn.session.call(line) == line
        return conn.id


@asynccontextmanager
async def held(
    site: TCPSite, driver: Native, config: PoolConfig | None = None
) -> AsyncIterator[tuple[Case, Pool, trio.SocketStream]]:
    """A pool that has one idle connection, and the server's end of it."""
    async with clean(None, config, driver=driver) as case, trio.open_nursery() as nursery:
        pool = cast("Pool", case.pool)
        nursery.start_soon(warm, pool, site)
        server = cast("trio.SocketStream", await site.accept())
        await server.send_all(GREETING)
        await case.log.wait_until(lambda: pool.stats(site.endpoint).idle == 1)
        yield case, pool, server


async def warm(pool: Pool, site: TCPSite) -> None:
    await pool.warm(site.endpoint, 1)


# ── lending ─────────────────────────────────────────────────────────────────────


async def test_a_native_session_is_lent_again_and_nothing_is_dialled_for_it() -> None:
    driver = Native()
    async with serving(greet_and_echo) as server, lending(driver, server) as (case, pool):
        assert [await call(pool, server), await call(pool, server)] == [1, 1]
        assert not case.recorder.sockets, "the connector was asked"
        assert pool.stats(server.endpoint).active == 0
    assert driver.log == ["abort"]


async def test_a_lease_has_no_stream_to_use_or_to_detach() -> None:
    async with serving(greet_and_echo) as server, lending(Native(), server) as (case, pool):
        async with pool.connection(server.endpoint) as conn:
            with pytest.raises(RuntimeError, match=r"only conn\.session"):
                await conn.send_all(b"x")
            with pytest.raises(RuntimeError, match=r"only conn\.session"):
                await conn.receive_some()
            with pytest.raises(RuntimeError, match=r"only conn\.session"):
                await conn.wait_send_all_might_not_block()
            with pytest.raises(RuntimeError, match=r"only conn\.session"):
                await conn.send_eof()
            with pytest.raises(RuntimeError, match="detached"):
                conn.detach()
            assert await conn.session.call(b"still here") == b"still here"
            assert await conn.is_healthy()
            assert (conn.ssl_object, conn.alpn_protocol, conn.peer_address) == (None, None, None)
        assert not case.log.reasons


async def test_a_session_that_is_owed_an_answer_is_aborted() -> None:
    driver = PoliteNative()
    async with serving(greet_and_echo) as server, lending(driver, server) as (case, pool):
        async with pool.connection(server.endpoint) as conn:
            conn.session.owes += 1
        await case.log.wait_closed(CloseReason.INCOMPLETE)
        assert driver.log == ["abort"]


@pytest.mark.parametrize("missing", ["connect", "fileno", "is_clean", "abort"])
def test_a_driver_that_lacks_what_it_needs_is_refused(missing: str) -> None:
    lacking = type("Lacking", (Native,), {missing: getattr(NativeDriver, missing)})
    with pytest.raises(ConfigError, match=rf"Lacking must override {missing}\(\)"):
        ConnectionPool(driver=lacking())


# ── the probe ───────────────────────────────────────────────────────────────────


async def test_the_probe_finds_that_the_peer_has_closed(tcp_site: TCPSite) -> None:
    async with held(tcp_site, Native()) as (case, pool, server):
        server.socket.close()
        case.await_stir()
        with pytest.raises(trio.WouldBlock):
            pool.acquire_nowait(tcp_site.endpoint)
        assert case.log.reasons == [CloseReason.PEER_CLOSED]


async def test_the_probe_finds_a_byte_and_leaves_it_where_it_is(tcp_site: TCPSite) -> None:
    peeked: list[bytes] = []

    class Curious(Native):
        def abort(self, session: NativeSession) -> None:
            peeked.append(session.socket.recv(100))
            super().abort(session)

    async with held(tcp_site, Curious()) as (case, pool, server):
        await server.send_all(b"x")
        case.await_stir()
        with pytest.raises(trio.WouldBlock):
            pool.acquire_nowait(tcp_site.endpoint)
        assert case.log.reasons == [CloseReason.UNREAD_DATA]
        assert peeked == [b"x"]


@pytest.mark.parametrize("default", [None, 5.0])
@pytest.mark.parametrize("blocks", [True, False])
async def test_the_probe_leaves_the_mode_of_the_socket_alone(
    tcp_site: TCPSite, blocks: bool, default: float | None
) -> None:
    driver = Native()
    async with (
        held(tcp_site, driver) as (_, pool, server),
        pool.connection(tcp_site.endpoint) as conn,
    ):
        conn.session.socket.setblocking(blocks)
        await server.send_all(b"x")
        await trio.lowlevel.wait_readable(conn.session.socket)
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(default)
        try:
            assert not await conn.is_healthy()
        finally:
            socket.setdefaulttimeout(before)
        assert os.get_blocking(conn.session.socket.fileno()) == blocks
        assert conn.session.socket.recv(10) == b"x"


async def test_a_descriptor_that_the_session_closed_itself_is_not_looked_at() -> None:
    """The number may be somebody else's by then."""
    driver = Native()
    async with serving(greet_and_echo) as server, lending(driver, server) as (case, pool):
        async with pool.connection(server.endpoint) as conn:
            session = conn.session
            number = session.socket.fileno()
            session.socket.close()
            ours, theirs = socket.socketpair()  # the lowest free number: the session's
            assert number in {ours.fileno(), theirs.fileno()}
        try:
            assert await call(pool, server) == 2
            assert case.log.reasons == [CloseReason.PEER_CLOSED]
        finally:
            ours.close()
            theirs.close()


async def test_without_a_descriptor_there_is_nothing_to_look_at(tcp_site: TCPSite) -> None:
    class Blind(Native):
        def fileno(self, session: NativeSession) -> int:
            return -1

    async with held(tcp_site, Blind()) as (case, pool, server):
        await server.send_all(b"x")
        await wait_all_tasks_blocked()
        async with pool.connection(tcp_site.endpoint) as conn:
            assert conn.id == 1
            assert await conn.is_healthy()
        assert not case.log.reasons


async def test_the_watch_notices_that_the_peer_has_hung_up(tcp_site: TCPSite) -> None:
    config = PoolConfig(reap_interval=1000)
    async with held(tcp_site, Native(), config) as (case, _, server):
        server.socket.close()
        await case.log.wait_closed(CloseReason.PEER_CLOSED)


# ── the end ─────────────────────────────────────────────────────────────────────


async def test_a_close_that_does_its_work_needs_no_abort() -> None:
    driver = PoliteNative()
    async with serving(greet_and_echo) as server, lending(driver, server) as (case, pool):
        await call(pool, server)
        pool.close_idle()
        await case.log.wait_until(lambda: len(case.log.reasons) == 1)
        assert driver.log == ["close"]
        await server.wait_live(0)


@pytest.mark.parametrize("fault", ["raises", "hangs", "leaves it open", "hangs after closing"])
async def test_a_close_that_fails_is_followed_by_one_abort(fault: str) -> None:
    class Failing(Native):
        async def close(self, session: NativeSession) -> None:
            self.log.append("close")
            if fault == "raises":
                raise OSError("no")
            if fault == "hangs after closing":
                session.socket.close()
            if fault.startswith("hangs"):
                await trio.sleep_forever()

    driver = Failing()
    config = PoolConfig(close_timeout=0.05)
    async with serving(greet_and_echo) as server, lending(driver, server, config) as (case, pool):
        await call(pool, server)
        pool.close_idle()
        await case.log.wait_until(lambda: len(case.log.reasons) == 1)
        assert driver.log == ["close", "abort"]
        await server.wait_live(0)


async def test_an_abort_that_raises_costs_nobody_a_slot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Raising(Native):
        def abort(self, session: NativeSession) -> None:
            super().abort(session)
            raise ZeroDivisionError

    driver = Raising()
    async with serving(greet_and_echo) as server, lending(driver, server) as (case, pool):
        await call(pool, server)
        assert pool.close_idle() == 1
        await case.settle()
        assert pool.stats(server.endpoint).closing == 0
        assert set(driver.log) == {"abort"}
        assert "by force failed" in caplog.text
    caplog.clear()


@pytest.mark.parametrize("way", ["clear", "pool"])
async def test_a_task_that_waits_on_the_socket_is_woken_when_the_pool_closes_it(way: str) -> None:
    """Whoever waits for a descriptor that is simply closed waits for ever."""
    driver = Native()
    ended: list[str] = []

    async def wait(pool: Pool, server: Serving) -> None:
        with pytest.raises(trio.ClosedResourceError):
            async with pool.connection(server.endpoint) as conn:
                await conn.session.answer()
        ended.append("woken")

    config = PoolConfig(shutdown_grace=0)
    async with serving(greet_and_echo) as server, trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + PATIENCE
        async with lending(driver, server, config) as (case, pool):
            nursery.start_soon(wait, pool, server)
            await case.log.wait_until(lambda: pool.stats(server.endpoint).active == 1)
            await wait_all_tasks_blocked()
            if way == "clear":
                pool.clear(interrupt_in_use=True)
                await wait_all_tasks_blocked()
            else:
                await pool.aclose()
            assert driver.log == ["abort"]
    assert ended == ["woken"]


async def test_a_lease_that_the_pool_has_closed_has_no_session_any_more() -> None:
    async with (
        serving(greet_and_echo) as server,
        lending(Native(), server) as (_, pool),
        pool.connection(server.endpoint) as conn,
    ):
        pool.clear(interrupt_in_use=True)
        with pytest.raises(trio.ClosedResourceError):
            conn.session  # noqa: B018


async def test_a_forked_child_leaves_the_parents_session_alone() -> None:
    driver = Native()
    async with serving(greet_and_echo) as server, lending(driver, server) as (_, pool):
        await pool.warm(server.endpoint, 2)
        async with pool.connection(server.endpoint) as conn:

            async def look() -> None:
                with pytest.raises(PoolClosed):
                    await pool.acquire(server.endpoint)
                with pytest.raises(trio.ClosedResourceError):
                    conn.session  # noqa: B018
                pool.release(conn)
                await pool.aclose()
                assert driver.log == []

            assert await in_child(look) == ""
            assert await conn.session.call(b"still here") == b"still here"
        assert await call(pool, server) == conn.id


# ── connect ─────────────────────────────────────────────────────────────────────


async def fails(pool: Pool, endpoint: AnyEndpoint) -> ConnectError:
    with trio.fail_after(PATIENCE), pytest.raises(ConnectError) as caught:
        await pool.acquire(endpoint)
    assert caught.value.phase == "open"
    return caught.value


async def test_what_connect_raises_is_a_connect_error_of_phase_open() -> None:
    async def full(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"sorry, too many clients already\n")

    async with serving(full) as server, clean(None, driver=Native()) as case:
        error = await fails(cast("Pool", case.pool), server.endpoint)
        assert isinstance(error.__cause__, ConnectionRefusedError)
        assert "too many clients" in str(error)
        assert case.pool.stats(server.endpoint).errors == 1
        await server.wait_live(0)


async def test_a_connect_that_hangs_is_given_up_at_the_connect_timeout(tcp_site: TCPSite) -> None:
    async with clean(None, PoolConfig(connect_timeout=0.05), driver=Native()) as case:
        error = await fails(cast("Pool", case.pool), tcp_site.endpoint)
        assert isinstance(error, ConnectTimeout)
        assert await (await tcp_site.accept()).receive_some() == b"", "its socket is closed"


@pytest.mark.parametrize("way", ["the pool closes", "its slot is needed elsewhere"])
async def test_a_connect_that_is_given_up_leaves_no_socket(tcp_site: TCPSite, way: str) -> None:
    config = PoolConfig(max_connections=1)
    async with serving(greet_and_echo) as elsewhere, clean(None, config, driver=Native()) as case:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(case.pool.acquire, tcp_site.endpoint)
            server = await tcp_site.accept()
            nursery.cancel_scope.cancel()
        assert case.pool.stats(tcp_site.endpoint).connecting == 1, "it goes on for nobody"
        with trio.fail_after(PATIENCE):
            if way == "the pool closes":
                await case.pool.aclose()
            else:
                await call(cast("Pool", case.pool), elsewhere)
            assert await cast("trio.SocketStream", server).receive_some() == b""


class Stubborn(Native):
    """Cannot be cancelled once it has begun: it swallows that, and returns its session."""

    def __init__(self) -> None:
        super().__init__()
        self.proceed = trio.Event()

    async def connect(self, endpoint: AnyEndpoint) -> NativeSession:
        with trio.CancelScope(shield=True):
            session = await super().connect(endpoint)
            await self.proceed.wait()
        return session


async def test_a_connect_that_returns_after_the_pool_has_gone_leaves_no_socket() -> None:
    driver = Stubborn()
    async with serving(greet_and_echo) as server, trio.open_nursery() as nursery:

        async def acquire(pool: Pool) -> None:
            with pytest.raises(PoolClosed):
                await pool.acquire(server.endpoint)

        async def go_on() -> None:
            await wait_all_tasks_blocked()
            driver.proceed.set()

        async with lending(driver, server) as (case, pool):
            case.then = None
            nursery.start_soon(acquire, pool)
            await server.wait_live(1)
            nursery.start_soon(go_on)
            await pool.aclose()
        await server.wait_live(0)
    assert driver.log == ["abort"]


async def test_a_connect_that_returns_too_late_is_used_all_the_same() -> None:
    driver = Stubborn()
    config = PoolConfig(connect_timeout=0.01)
    async with serving(greet_and_echo) as server, lending(driver, server, config) as (_, pool):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, pool, server)
            await server.wait_live(1)
            await trio.sleep(0.02)
            driver.proceed.set()
        assert pool.stats(server.endpoint).idle == 1


@pytest.mark.parametrize("fault", ["raises", "no number", "abort raises too"])
async def test_a_session_without_a_proper_descriptor_is_aborted(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Native):
        def fileno(self, session: NativeSession) -> int:
            if fault == "no number":
                return cast("int", "seven")
            raise LookupError("no descriptor")

        def abort(self, session: NativeSession) -> None:
            super().abort(session)
            if fault == "abort raises too":
                raise ZeroDivisionError

    driver = Odd()
    async with serving(greet_and_echo) as server, clean(None, driver=driver) as case:
        error = await fails(cast("Pool", case.pool), server.endpoint)
        assert isinstance(error.__cause__, TypeError if fault == "no number" else LookupError)
        assert set(driver.log) == {"abort"}
        await server.wait_live(0)
    caplog.clear()


async def test_f043_a_connect_that_forgot_to_await_says_so() -> None:
    class Forgetful(Native):
        async def connect(self, endpoint: AnyEndpoint) -> NativeSession:
            return cast("NativeSession", super().connect(endpoint))

    async with serving(greet_and_echo) as server, clean(None, driver=Forgetful()) as case:
        error = await fails(cast("Pool", case.pool), server.endpoint)
        assert "forgot to await" in str(error)
