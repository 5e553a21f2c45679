"""What the core has decided is done: dials, closes, time, news, each without hurting another."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from conpool import (
    TLS,
    AcquireTimeout,
    AnyEndpoint,
    CloseReason,
    ConnectError,
    Connection,
    ConnectionInfo,
    ConnectionPool,
    Connector,
    Endpoint,
    EndpointStats,
    Observer,
    PoolStats,
)
from conpool._connection.closing import close_gracefully, try_close_now
from tests.support.pools import (
    HERE,
    THERE,
    Grammar,
    Network,
    Steps,
    alike,
    counts,
    echo,
    exchange,
    find_pool_tasks,
    hold,
    listen,
    open_pool,
    reasons,
    settle,
    use,
)

USER: ContextVar[str] = ContextVar("user", default="nobody")


# ── background tasks ────────────────────────────────────────────────────────────


async def test_background_tasks_carry_the_endpoint_in_their_names(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(Network(delay=1)) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool)
        await settle()
        assert f"conpool dial to {HERE}" in find_pool_tasks()


async def test_background_tasks_run_in_the_context_in_which_the_pool_was_opened(
    autojump_clock: MockClock,
) -> None:
    """§6: not in that of whoever happened to cause them."""
    seen: set[str] = set()

    class Seeing(Network):
        async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
            seen.add(USER.get())
            return await super().connect(endpoint)

    async def ask(connection: Connection[None]) -> bool:
        seen.add(USER.get())
        return True

    async def visit() -> None:
        USER.set("visitor")
        async with pool.connection(HERE):
            pass

    USER.set("opener")
    async with open_pool(
        Seeing(), health_check=ask, health_check_interval=4, reap_interval=1
    ) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit)
        await trio.sleep(6)
    assert seen == {"opener"}


async def test_dial_of_one_visitor_knows_nothing_of_another(autojump_clock: MockClock) -> None:
    """A context variable that a connector sets stays in its dial."""

    class Setting(Network):
        async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
            assert USER.get() == "nobody"
            USER.set(str(endpoint))
            return await super().connect(endpoint)

    async with open_pool(Setting()) as pool:
        await use(pool, 3)
        await use(pool, 3, THERE)
    assert USER.get() == "nobody"


@pytest.mark.parametrize(
    ("error", "phase"),
    [
        (ValueError("broken"), "open"),
        (OSError(5, "broken"), "tcp"),
        (ExceptionGroup("many", [OSError()]), "tcp"),
    ],
)
async def test_connector_that_raises_anything_fails_its_caller_and_nobody_else(
    error: Exception, phase: str, autojump_clock: MockClock
) -> None:
    """G20 G25"""
    network = Network()
    network.failures[THERE] = error
    async with open_pool(network) as pool, pool.connection(HERE) as other:
        with pytest.raises(ConnectError) as caught:
            await pool.acquire(THERE)
        assert alike(caught.value.__cause__, error)
        assert (caught.value.endpoint, caught.value.phase) == (THERE, phase)
        assert await exchange(other) == b"ping"


async def test_connector_may_raise_a_finished_error_of_its_own() -> None:
    """G25"""
    network = Network()
    error = ConnectError("no route", endpoint=HERE, phase="proxy")
    network.failures[HERE] = error
    async with open_pool(network) as pool:
        with pytest.raises(ConnectError) as caught:
            await pool.acquire(HERE)
    assert alike(caught.value, error)


# ── time ────────────────────────────────────────────────────────────────────────


async def test_one_timer_keeps_the_time_of_all(autojump_clock: MockClock) -> None:
    """G14: an earlier deadline that comes later is kept too."""
    ends: list[float] = []

    async def ask(timeout: float) -> None:
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=timeout)
        ends.append(trio.current_time())

    async with (
        open_pool(max_connections_per_endpoint=1) as pool,
        pool.connection(HERE),
        trio.open_nursery() as nursery,
    ):
        for timeout in (50.0, 40.0, 30.0, 20.0, 10.0):
            nursery.start_soon(ask, timeout)
            await trio.sleep(1)
        assert find_pool_tasks()["conpool timer"] == 1
    assert ends == [14, 23, 32, 41, 50]


async def test_timer_does_not_run_where_nobody_waits(autojump_clock: MockClock) -> None:
    woken = 0

    class Waking(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal woken
            woken += task.name == "conpool timer"

    async with open_pool(reap_interval=1000) as pool:
        await use(pool)
        await settle()
        trio.lowlevel.add_instrument(Waking())
        for _ in range(100):
            await use(pool)
            await trio.sleep(1)
    assert woken <= 2  # for the first, whose dial was waited for; and at the end


# ── closing ─────────────────────────────────────────────────────────────────────


class OnlyAwaiting(trio.abc.Stream):
    """Can be closed by awaiting alone, which takes its time."""

    def __init__(self, inner: trio.abc.Stream, takes: float) -> None:
        self.inner = inner
        self.takes = takes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        try:
            await trio.sleep(self.takes)
        finally:
            with trio.CancelScope(shield=True):
                await self.inner.aclose()


class Wrapping(Network):
    """Gives out streams in a wrapping of the test's own."""

    def __init__(
        self, wrap: Callable[[trio.abc.Stream], trio.abc.Stream], serve: object = echo
    ) -> None:
        super().__init__(serve)  # type: ignore[arg-type]
        self.wrap = wrap

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        return self.wrap(await super().connect(endpoint))


async def test_stream_that_can_only_be_closed_by_awaiting_is_given_its_time(
    autojump_clock: MockClock,
) -> None:
    network = Wrapping(lambda inner: OnlyAwaiting(inner, takes=0.5))
    async with open_pool(network, close_timeout=2) as pool:
        await use(pool)
        pool.close_idle()
        assert counts(pool) == {"closing": 1}
        await pool.drain()
        assert trio.current_time() == 0.5
        assert (counts(pool), network.live) == ({}, 0)


async def test_close_that_hangs_is_bounded_and_holds_its_slot_until_it_is_done(
    autojump_clock: MockClock,
) -> None:
    """G1 G11 G16"""
    network = Wrapping(lambda inner: OnlyAwaiting(inner, takes=1000))
    async with open_pool(network, close_timeout=2, max_connections_per_endpoint=1) as pool:
        await use(pool)
        pool.close_idle()
        started = trio.current_time()
        await use(pool, endpoint=THERE)
        assert trio.current_time() == started
        assert counts(pool) == {"closing": 1}
        async with pool.connection(HERE):
            assert trio.current_time() == started + 2
        pool.clear()
    assert trio.current_time() == 4


async def test_unclean_one_that_can_only_be_closed_by_awaiting_gets_no_time(
    autojump_clock: MockClock,
) -> None:
    """G11"""
    network = Wrapping(lambda inner: OnlyAwaiting(inner, takes=1000))
    async with open_pool(network, close_timeout=2, max_connections_per_endpoint=1) as pool:
        with pytest.raises(ValueError):
            async with pool.connection(HERE):
                raise ValueError
        assert counts(pool) == {"closing": 1}
        await settle()
        assert (counts(pool), reasons(pool)) == ({}, {"ERROR": 1})
        assert trio.current_time() == 0


class Failing(OnlyAwaiting):
    """Cannot be closed in peace."""

    def __init__(self, inner: trio.abc.Stream, error: Exception) -> None:
        super().__init__(inner, 0.0)
        self.error = error

    async def aclose(self) -> None:
        await super().aclose()
        raise self.error


class FailingAtOnce(Failing):
    """And says so without awaiting."""

    def close(self) -> None:
        raise self.error


@pytest.mark.parametrize("kind", [Failing, FailingAtOnce])
@pytest.mark.parametrize("ends", ["kept", "raises", "discarded"])
async def test_close_that_raises_is_logged_and_the_slot_is_free(
    kind: type[Failing], ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    """G11 G20: nobody's block ends in it."""
    streams: list[Failing] = []

    class Closing(Network):
        async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
            stream = kind(memory_stream_pair()[0], RuntimeError("cannot close"))
            streams.append(stream)
            return stream

    async with open_pool(Closing(), max_connections_per_endpoint=1) as pool:
        for _ in range(3):
            try:
                async with pool.connection(HERE) as connection:
                    if ends == "raises":
                        raise ValueError
                    if ends == "discarded":
                        pool.discard(connection)
            except ValueError:
                assert ends == "raises"
            pool.close_idle()
            await pool.drain()
        assert counts(pool) == {}
        assert pool.stats(HERE).total_closed == 3
    # One that is closed by force is cut short, and so does not come as far as to raise.
    if kind is FailingAtOnce or ends == "kept":
        assert "RuntimeError: cannot close" in caplog.text
        assert {record.name for record in caplog.records} == {"conpool"}


async def test_broken_stream_that_cannot_say_goodbye_is_not_worth_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = Failing(memory_stream_pair()[0], trio.BrokenResourceError())
    await close_gracefully(stream, 1.0)
    assert not caplog.records


async def test_close_is_shielded_and_bounded(autojump_clock: MockClock) -> None:
    """G18"""
    client, server = memory_stream_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await close_gracefully(OnlyAwaiting(client, takes=0.5), 1.0)
    assert not scope.cancelled_caught
    assert trio.current_time() == 0.5
    assert await server.receive_some() == b""


async def test_half_of_a_pair_that_cannot_be_closed_at_once_is_told() -> None:
    client, _ = memory_stream_pair()
    other = OnlyAwaiting(memory_stream_pair()[0], takes=0)
    assert try_close_now(client)
    assert not try_close_now(trio.StapledStream(client.send_stream, other))
    assert not try_close_now(trio.StapledStream(other, client.receive_stream))
    assert not try_close_now(other)


async def test_stream_whose_close_is_a_coroutine_is_awaited() -> None:
    class Coroutine(OnlyAwaiting):
        async def close(self) -> None:
            raise NotImplementedError

    assert not try_close_now(Coroutine(memory_stream_pair()[0], takes=0))


# ── goodbyes over TLS ───────────────────────────────────────────────────────────


class Clogged(trio.abc.Stream):
    """Lets nothing more out once it is clogged, and can be closed at once."""

    def __init__(self, inner: trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]):
        self.inner = inner
        self.is_clogged = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_clogged:
            await trio.sleep_forever()
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()

    def close(self) -> None:
        try_close_now(self.inner)


class TLSNetwork(Network):
    """TLS servers in memory, whose clients may be clogged."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(self._serve_tls)
        self.context = context
        self.clients: list[Clogged] = []
        self.goodbyes = 0

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        client = Clogged(await super().connect(endpoint))  # type: ignore[arg-type]
        self.clients.append(client)
        return client

    async def _serve_tls(self, stream: trio.abc.Stream) -> None:
        server = trio.SSLStream(stream, self.context, server_side=True)
        try:
            async for data in server:
                await server.send_all(data)
            self.goodbyes += 1
        except trio.BrokenResourceError:
            pass


def tls_endpoint(context: ssl.SSLContext) -> Endpoint:
    return Endpoint("localhost", 443, tls=TLS(context))


async def test_clean_connection_over_tls_says_goodbye(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    network, endpoint = TLSNetwork(server_ssl), tls_endpoint(client_ssl)
    async with open_pool(network) as pool:
        async with pool.connection(endpoint) as connection:
            assert await exchange(connection) == b"ping"
        pool.close_idle()
        assert counts(pool, endpoint) == {"closing": 1}
        await settle()
        assert counts(pool, endpoint) == {}
        assert network.goodbyes == 1


async def test_one_direction_over_tls_cannot_be_closed_alone(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    """F092: refused, and nothing has happened."""
    network, endpoint = TLSNetwork(server_ssl), tls_endpoint(client_ssl)
    async with open_pool(network) as pool:
        async with pool.connection(endpoint) as connection:
            with pytest.raises(NotImplementedError, match="TLS ends both together"):
                await connection.send_eof()
            assert await exchange(connection) == b"ping"
        assert counts(pool, endpoint) == {"idle": 1}


async def test_unclean_connection_over_tls_is_closed_at_once(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """F070 G11"""
    network, endpoint = TLSNetwork(server_ssl), tls_endpoint(client_ssl)
    async with open_pool(network) as pool:
        async with pool.connection(endpoint) as connection:
            await connection.send_all(b"ping")
        assert (counts(pool, endpoint), network.live) == ({}, 0)
        await settle()
        assert network.goodbyes == 0


async def test_goodbye_that_blocks_is_over_in_time_and_its_slot_free_then(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """F070 G1"""
    network, endpoint = TLSNetwork(server_ssl), tls_endpoint(client_ssl)
    async with open_pool(network, close_timeout=3, max_connections_per_endpoint=1) as pool:
        await use(pool, 1, endpoint)
        network.clients[0].is_clogged = True
        pool.close_idle()
        await trio.sleep(2.9)
        assert (counts(pool, endpoint), network.live) == ({"closing": 1}, 1)
        async with pool.connection(endpoint):
            assert trio.current_time() == 3
            assert network.live == 1


async def test_goodbyes_that_block_delay_the_end_of_the_pool_once_and_not_each(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """G17"""
    network, endpoint = TLSNetwork(server_ssl), tls_endpoint(client_ssl)
    async with open_pool(network, close_timeout=3) as pool:
        await use(pool, 5, endpoint)
        for client in network.clients:
            client.is_clogged = True
    assert trio.current_time() == 3
    assert network.live == 0


async def test_no_time_for_goodbyes_closes_by_force(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    network, endpoint = TLSNetwork(server_ssl), tls_endpoint(client_ssl)
    async with open_pool(network, close_timeout=0) as pool:
        await use(pool, 1, endpoint)
        network.clients[0].is_clogged = True
    assert trio.current_time() == 0
    assert network.live == 0


async def test_stream_that_a_connector_encrypted_itself_says_goodbye_too(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    class Encrypting(TLSNetwork):
        async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
            stream = await super().connect(endpoint)
            return trio.SSLStream(stream, client_ssl, server_hostname="localhost")

    network = Encrypting(server_ssl)
    async with open_pool(network) as pool:
        async with pool.connection(HERE) as connection:
            assert await exchange(connection) == b"ping"
        assert counts(pool) == {"idle": 1}
    assert network.goodbyes == 1


# ── news ────────────────────────────────────────────────────────────────────────


class Recording(Observer):
    """Writes down what it hears, in short."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def acquire_started(self, endpoint: AnyEndpoint) -> None:
        self.heard.append("acquire_started")

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        self.heard.append(f"acquired {info.id} use {info.uses} after {waited:g}")

    def acquire_failed(self, endpoint: AnyEndpoint, error: BaseException, waited: float) -> None:
        self.heard.append(f"acquire_failed {type(error).__name__} after {waited:g}")

    def released(self, info: ConnectionInfo, held: float) -> None:
        self.heard.append(f"released {info.id} after {held:g}")

    def connecting(self, info: ConnectionInfo) -> None:
        self.heard.append(f"connecting {info.id}")

    def connected(self, info: ConnectionInfo, took: float) -> None:
        self.heard.append(f"connected {info.id} in {took:g} at {info.created_at:g}")

    def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
        self.heard.append(f"connect_failed {info.id} {type(error).__name__} in {took:g}")

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        self.heard.append(f"closed {info.id} {reason.name}")

    def cleared(self, endpoint: AnyEndpoint) -> None:
        self.heard.append(f"cleared {endpoint}")


async def test_events_of_a_life_come_in_order(autojump_clock: MockClock) -> None:
    """G26"""
    recording = Recording()
    async with open_pool(Network(delay=2), observers=[recording]) as pool:
        async with pool.connection(HERE):
            await trio.sleep(3)
        async with pool.connection(HERE):
            await trio.sleep(1)
        pool.clear(HERE)
    assert recording.heard == [
        "acquire_started",
        "connecting 1",
        "connected 1 in 2 at 0",
        "acquired 1 use 1 after 2",
        "released 1 after 3",
        "acquire_started",
        "acquired 1 use 2 after 0",
        "released 1 after 1",
        f"cleared {HERE}",
        "closed 1 CLEARED",
    ]


async def test_events_of_a_failure_come_in_order(autojump_clock: MockClock) -> None:
    """G26"""
    recording = Recording()
    network = Network(delay=2)
    network.refuse()
    async with open_pool(network, observers=[recording]) as pool:
        with pytest.raises(ConnectError):
            await pool.acquire(HERE)
        network.accept()
        network.silent.add(HERE)
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=1)
    assert recording.heard == [
        "acquire_started",
        "connecting 1",
        "connect_failed 1 ConnectRefused in 2",
        "acquire_failed ConnectRefused after 2",
        "acquire_started",
        "connecting 2",
        "acquire_failed AcquireTimeout after 1",
        "connect_failed 2 PoolClosed in " + recording.heard[-1].rsplit(" ", 1)[1],
    ]


async def test_event_of_a_cancelled_waiter_is_told_though_nobody_else_stirs(
    autojump_clock: MockClock,
) -> None:
    """G26: and what its leaving has caused."""
    recording = Recording()
    async with (
        open_pool(max_connections_per_endpoint=1, observers=[recording]) as pool,
        pool.connection(HERE),
    ):
        recording.heard.clear()
        with trio.move_on_after(1):
            await pool.acquire(HERE)
        assert recording.heard == ["acquire_started", "acquire_failed Cancelled after 1"]


async def test_lease_without_waiting_is_told_like_any_other(autojump_clock: MockClock) -> None:
    """G26"""
    recording = Recording()

    class OnlyStarts(Observer):
        started = 0

        def acquire_started(self, endpoint: AnyEndpoint) -> None:
            self.started += 1

    starts = OnlyStarts()
    async with open_pool(observers=[recording, starts]) as pool:
        await use(pool)
        recording.heard.clear()
        pool.release(pool.acquire_nowait(HERE))
        assert recording.heard == [
            "acquire_started",
            "acquired 1 use 2 after 0",
            "released 1 after 0",
        ]
        assert starts.started == 2


async def test_callbacks_hear_of_creation_reuse_and_end() -> None:
    heard: list[tuple[object, ...]] = []
    async with open_pool(
        on_created=lambda info: heard.append(("created", info.id, info.uses)),
        on_reused=lambda info: heard.append(("reused", info.id, info.uses)),
        on_closed=lambda info, reason: heard.append(("closed", info.id, reason)),
    ) as pool:
        await use(pool)
        await use(pool)
    assert heard == [
        ("created", 1, 0),
        ("reused", 1, 2),
        ("closed", 1, CloseReason.POOL_CLOSED),
    ]


class Raising(Observer):
    """Raises whatever it is told."""

    def acquire_started(self, endpoint: AnyEndpoint) -> None:
        raise ValueError("guest")

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        raise ValueError("guest")

    def acquire_failed(self, endpoint: AnyEndpoint, error: BaseException, waited: float) -> None:
        raise ValueError("guest")

    def released(self, info: ConnectionInfo, held: float) -> None:
        raise ValueError("guest")

    def connecting(self, info: ConnectionInfo) -> None:
        raise ValueError("guest")

    def connected(self, info: ConnectionInfo, took: float) -> None:
        raise ValueError("guest")

    def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
        raise ValueError("guest")

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        raise ValueError("guest")

    def cleared(self, endpoint: AnyEndpoint) -> None:
        raise ValueError("guest")


def fail(*args: object) -> None:
    raise ValueError("callback")


async def test_guests_that_raise_are_logged_and_disturb_nobody(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """G20 F101"""
    network = Network()
    async with open_pool(
        network,
        observers=[Raising(), last := Recording()],
        on_created=fail,
        on_reused=fail,
        on_closed=fail,
        max_connections_per_endpoint=1,
    ) as pool:
        await use(pool)
        await use(pool)
        pool.release(pool.acquire_nowait(HERE))
        pool.clear()
        network.refuse()
        with pytest.raises(ConnectError):
            await pool.acquire(HERE)
        assert counts(pool) == {}
    assert len(last.heard) == len([r for r in caplog.records if "guest" in str(r.exc_info)])
    assert len([r for r in caplog.records if "callback" in str(r.exc_info)]) == 4
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


class Meddling(Observer):
    """Calls every synchronous method of the pool, whatever it is told."""

    def __init__(self) -> None:
        self.pool: ConnectionPool[None]
        self.leases: list[Connection[None]] = []

    def meddle(self, *args: object) -> None:
        pool = self.pool
        if pool.closed:
            return
        pool.all_stats()
        pool.stats(HERE)
        repr(pool)
        pool.pause(HERE)
        pool.resume(HERE)
        pool.set_limit(HERE, 1)
        pool.set_limit(HERE, 3)
        pool.pause()
        pool.resume()
        pool.close_idle(THERE)
        for lease in self.leases:
            pool.release(lease)
        self.leases.clear()

    acquire_started = acquired = acquire_failed = released = meddle  # type: ignore[assignment]
    connecting = connected = connect_failed = meddle  # type: ignore[assignment]


async def test_guests_may_call_every_synchronous_method(autojump_clock: MockClock) -> None:
    """§6 G26: and others still hear everything in order."""
    meddling, last = Meddling(), Grammar()
    network = Network(delay=0.5)
    async with open_pool(
        network, observers=[meddling, last], max_connections=4, acquire_timeout=100
    ) as pool:
        meddling.pool = pool
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(hold, pool, (HERE, THERE)[number % 2])
                await trio.sleep(0.125)
        assert pool.all_stats().acquired == 20
    last.assert_complete()


async def test_guest_that_clears_the_pool_as_it_lends_hurts_nobody_else(
    autojump_clock: MockClock,
) -> None:
    """G26 G24"""

    class Clearing(Observer):
        def acquired(self, info: ConnectionInfo, waited: float) -> None:
            pool.clear()

        def connected(self, info: ConnectionInfo, took: float) -> None:
            pool.close_idle()

    last = Grammar()
    async with open_pool(observers=[Clearing(), last]) as pool:
        for _ in range(5):
            await use(pool, 2)
        assert pool.stats(HERE).total_reused == 0
    last.assert_complete()


async def test_guest_that_interrupts_the_lease_it_is_told_of_has_interrupted_it() -> None:
    """G26"""

    class Interrupting(Observer):
        def acquired(self, info: ConnectionInfo, waited: float) -> None:
            pool.clear(interrupt_in_use=True)

    last = Grammar()
    async with open_pool(observers=[Interrupting(), last]) as pool:
        async with pool.connection(HERE) as connection:
            with pytest.raises(trio.ClosedResourceError):
                await connection.receive_some()
        assert reasons(pool) == {"CLEARED": 1}
    last.assert_complete()


async def test_guest_that_takes_a_connection_by_itself_may_keep_it() -> None:
    """G26"""
    taken: list[Connection[None]] = []

    class Taking(Observer):
        def released(self, info: ConnectionInfo, held: float) -> None:
            if not taken:
                taken.append(pool.acquire_nowait(HERE))

    last = Grammar()
    async with open_pool(observers=[Taking(), last]) as pool:
        await use(pool)
        assert counts(pool) == {"active": 1}
        pool.release(taken[0])
        assert counts(pool) == {"idle": 1}
    last.assert_complete()


async def test_guests_see_books_that_are_right(autojump_clock: MockClock) -> None:
    """G30: at every event."""
    faults: list[str] = []

    class Looking(Observer):
        def look(self, *args: object) -> None:
            stats = pool.stats(HERE)
            kept = stats.active + stats.idle + stats.closing
            if stats.total_created - stats.total_closed != kept or stats.limit < kept:
                faults.append(str(stats))

        connecting = connected = connect_failed = closed = look  # type: ignore[assignment]
        acquired = released = look  # type: ignore[assignment]

    async with (
        open_pool(Network(delay=1), observers=[Looking()]) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(30):
            nursery.start_soon(hold, pool)
    assert not faults


# ── statistics ──────────────────────────────────────────────────────────────────


def check_identities(stats: PoolStats) -> None:
    members: tuple[EndpointStats | PoolStats, ...] = (*stats.endpoints.values(), stats)
    for member in members:
        kept = member.active + member.idle + member.closing
        assert member.total_created - member.total_closed == kept
        assert sum(member.closed_by_reason.values()) == member.total_closed
        assert member.total_reused <= member.acquired
    for one in stats.endpoints.values():
        assert 0 <= one.active + one.idle + one.connecting + one.closing <= one.limit
        assert one.wait_time.count >= one.acquired + one.acquire_timeouts
        assert one.connect_time.count == one.total_created
        assert one.use_time.count <= one.acquired


async def test_statistics_add_up_at_every_step(autojump_clock: MockClock) -> None:
    """G30"""
    network = Network(delay=0.3)
    steps = Steps(lambda: check_identities(pool.all_stats()))

    async def visit(number: int) -> None:
        endpoint = (HERE, THERE)[number % 2]
        with trio.move_on_after(0.5 + number % 5):
            try:
                async with pool.connection(endpoint, fresh=number % 7 == 0) as connection:
                    await trio.sleep(number % 3)
                    if number % 4 == 0:
                        connection.retire()
                    if number % 5 == 0:
                        raise ValueError
            except (ValueError, ConnectError, AcquireTimeout):
                pass

    async with open_pool(
        network,
        max_connections_per_endpoint=3,
        max_connections=4,
        acquire_timeout=3,
        max_idle_time=2,
        reap_interval=1,
        min_idle_per_endpoint=1,
    ) as pool:
        trio.lowlevel.add_instrument(steps)
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(visit, number)
                await trio.sleep(0.1)
                if number == 20:
                    network.refuse(THERE)
                if number == 40:
                    network.accept(THERE)
                    pool.clear()
        await trio.sleep(10)
        trio.lowlevel.remove_instrument(steps)
        stats = pool.all_stats()
    assert not steps.faults
    assert steps.count > 500
    assert stats.acquired > 20
    assert stats.errors > 0
    assert stats.closed_by_reason[CloseReason.EVICTED] > 0


async def test_endpoint_that_hangs_in_every_way_delays_no_other(
    autojump_clock: MockClock,
) -> None:
    """G16: dial, check, close; the other's longest wait is none at all."""

    class Hanging(Connector):
        def __init__(self) -> None:
            self.network = Network(listen)
            self.dials = 0

        async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
            if endpoint != THERE:
                return await self.network.connect(endpoint)
            self.dials += 1
            if self.dials > 3:
                await trio.sleep_forever()
            return OnlyAwaiting(await self.network.connect(endpoint), takes=1000)

    async def ask(connection: Connection[None]) -> bool:
        if connection.endpoint == THERE:
            await trio.sleep_forever()
        return True

    async def insist() -> None:
        while True:
            with suppress(AcquireTimeout, ConnectError):
                await hold(pool, THERE, 0.5)

    async with (
        open_pool(
            Hanging(),
            health_check=ask,
            health_check_interval=1,
            reap_interval=0.5,
            connect_timeout=3,
            acquire_timeout=5,
            close_timeout=2,
            max_idle_time=1,
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(10):
            nursery.start_soon(insist)
        for _ in range(300):
            await use(pool, 2)
            await trio.sleep(0.1)
        assert pool.stats(HERE).wait_time.max == 0
        assert pool.stats(THERE).errors + pool.stats(THERE).acquire_timeouts > 10
        nursery.cancel_scope.cancel()
