"""Bugs of conpool itself that the proofs found, each in its shortest form."""

from __future__ import annotations

import errno

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import conpool
from conpool._connection.idle_watch import IdleWatch
from conpool.testing import MemoryConnector, assert_quiescent

ENDPOINT = conpool.Endpoint("db.example", 5432)


def connector() -> MemoryConnector:
    return MemoryConnector(trio.abc.Stream.receive_some)


class Leases(conpool.Observer):
    def __init__(self) -> None:
        self.acquired_ids: list[int] = []
        self.released_ids: list[int] = []

    def acquired(self, info: conpool.ConnectionInfo, waited: float) -> None:
        self.acquired_ids.append(info.id)

    def released(self, info: conpool.ConnectionInfo, held: float) -> None:
        self.released_ids.append(info.id)


async def test_what_a_health_check_closes_was_never_lent() -> None:
    """`discard` took a hook's handle for a lease, and ended a lease that had not begun (G26)."""

    async def close(conn: conpool.Connection[None]) -> bool:
        await conn.aclose()
        return True

    leases = Leases()
    async with conpool.ConnectionPool(
        connector=connector(), health_check=close, observers=[leases]
    ) as pool:
        for _ in range(2):
            async with pool.connection(ENDPOINT):
                pass
        assert leases.acquired_ids == leases.released_ids == [1, 2]
        assert pool.stats(ENDPOINT).use_time.count == 2


async def test_what_a_health_check_releases_is_nobody_elses_yet(autojump_clock: MockClock) -> None:
    """A hook released the connection that it checked: a waiter got it beside its caller (G2)."""
    config = conpool.PoolConfig(max_connections_per_endpoint=1)
    users: list[int] = []

    async def release(conn: conpool.Connection[None]) -> bool:
        pool.release(conn)
        await trio.sleep(1)
        return True

    async def use() -> None:
        async with pool.connection(ENDPOINT) as conn:
            assert conn.id not in users
            users.append(conn.id)
            await trio.sleep(5)
            users.remove(conn.id)

    async with conpool.ConnectionPool(config, connector=connector(), health_check=release) as pool:
        async with pool.connection(ENDPOINT):
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await wait_all_tasks_blocked()
            nursery.start_soon(use)
        assert_quiescent(pool)


async def test_what_a_callback_does_is_told_after_what_it_was_told() -> None:
    """A callback closed the new connection, and observers heard of its end first."""
    heard: list[str] = []

    class Listener(conpool.Observer):
        def connected(self, info: conpool.ConnectionInfo, took: float) -> None:
            heard.append("connected")

        def closed(self, info: conpool.ConnectionInfo, reason: conpool.CloseReason) -> None:
            heard.append("closed")

    pool: conpool.ConnectionPool[None] = conpool.ConnectionPool(
        connector=connector(), on_created=lambda _: pool.clear(), observers=[Listener()]
    )
    async with pool:
        await pool.warm(ENDPOINT, 1)
    assert heard == ["connected", "closed"]


async def test_whoever_goes_back_to_the_queue_finds_books_that_are_in_use(
    autojump_clock: MockClock,
) -> None:
    """After a clear and a sweep in a long check, the caller joined a forgotten queue (G19)."""

    async def think(conn: conpool.Connection[None]) -> bool:
        await trio.sleep(8)
        return True

    config = conpool.PoolConfig(health_check_timeout=10, reap_interval=1)
    async with conpool.ConnectionPool(config, connector=connector(), health_check=think) as pool:
        async with pool.connection(ENDPOINT):
            pass

        async def use() -> None:
            async with pool.connection(ENDPOINT):
                assert pool.stats(ENDPOINT).active == 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await trio.sleep(1)
            pool.clear()


async def test_whoever_lost_a_connection_amid_its_check_gets_none_unchecked(
    autojump_clock: MockClock,
) -> None:
    """After a clear in a check, the caller queued again, and got an idle one unprobed."""
    checked: list[int] = []

    async def think(conn: conpool.Connection[None]) -> bool:
        checked.append(conn.id)
        await trio.sleep(3)
        return True

    async with conpool.ConnectionPool(connector=connector(), health_check=think) as pool:
        await pool.warm(ENDPOINT, 1)

        async def use() -> None:
            async with pool.connection(ENDPOINT) as conn:
                assert (conn.id, checked) == (2, [1])  # a new one, and not idle before

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await trio.sleep(1)
            pool.clear()
            await pool.warm(ENDPOINT, 1)


# ── sockets that are closed already ─────────────────────────────────────────────


class Sockets(conpool.Connector):
    """Dials a listener on this machine and keeps the streams."""

    def __init__(self, port: int) -> None:
        self.endpoint = conpool.Endpoint("127.0.0.1", port)
        self.streams: list[trio.SocketStream] = []

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        self.streams.append(await trio.open_tcp_stream("127.0.0.1", self.endpoint.port))
        return self.streams[-1]


async def listening(nursery: trio.Nursery) -> Sockets:
    async def wait(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    listeners: list[trio.SocketListener] = await nursery.start(trio.serve_tcp, wait, 0)
    return Sockets(listeners[0].socket.getsockname()[1])


async def test_a_connection_that_was_closed_under_its_lease_is_not_healthy() -> None:
    """The probe used a descriptor that was closed, or by then another connection's."""
    async with trio.open_nursery() as nursery:
        sockets = await listening(nursery)
        async with conpool.ConnectionPool(connector=sockets) as pool:
            conn = await pool.acquire(sockets.endpoint)
            pool.clear(interrupt_in_use=True)
            assert not await conn.is_healthy()
            async with pool.connection(sockets.endpoint):  # may have the number now
                assert not await conn.is_healthy()
            pool.release(conn)
        nursery.cancel_scope.cancel()


async def test_a_socket_that_its_maker_has_closed_costs_no_slot() -> None:
    """The probe raised a ValueError out of `release`, and the slot was lost (G11)."""
    async with trio.open_nursery() as nursery:
        sockets = await listening(nursery)
        async with conpool.ConnectionPool(connector=sockets) as pool:
            async with pool.connection(sockets.endpoint):
                sockets.streams[0].socket.close()
            closed = pool.stats(sockets.endpoint).closed_by_reason
            assert closed == {conpool.CloseReason.PEER_CLOSED: 1}
            assert_quiescent(pool)
        nursery.cancel_scope.cancel()


# ── what is not an `Exception` ──────────────────────────────────────────────────


class Exit(BaseException):
    """Like `SystemExit`, or the exception of `pytest.fail`: the pool lets it through."""


class Quitter(conpool.Observer):
    """Raises it once, in one of its methods."""

    def __init__(self, event: str) -> None:
        self.event = event

    def quit(self, event: str) -> None:
        if event == self.event:
            self.event = ""
            raise Exit

    def connecting(self, info: conpool.ConnectionInfo) -> None:
        self.quit("connecting")

    def closed(self, info: conpool.ConnectionInfo, reason: conpool.CloseReason) -> None:
        self.quit("closed")


async def test_a_pool_ends_whatever_its_observers_raise(autojump_clock: MockClock) -> None:
    """Leaving the pool's block waited for background tasks that nobody had ended (G19)."""
    pool = conpool.ConnectionPool(connector=connector(), observers=[Quitter("closed")])
    with pytest.raises(Exit):
        async with pool:
            await pool.warm(ENDPOINT, 2)
    stats = pool.all_stats()
    assert (stats.idle, stats.total_closed) == (0, 2)


async def test_whoever_is_thrown_out_of_the_queue_leaves_it(autojump_clock: MockClock) -> None:
    """A waiter without a task was handed a dialled connection, and the slot was lost (G11)."""
    config = conpool.PoolConfig(max_connections_per_endpoint=1)
    async with conpool.ConnectionPool(
        config, connector=connector(), observers=[Quitter("connecting")]
    ) as pool:
        with pytest.raises(Exit):
            await pool.acquire(ENDPOINT)
        async with pool.connection(ENDPOINT):
            pass
        assert_quiescent(pool)


@pytest.mark.parametrize("expired", [1, 2])
async def test_what_was_taken_while_an_observer_quits_is_put_back(
    expired: int, autojump_clock: MockClock
) -> None:
    """An expired connection was closed while another was taken, and its slot was lost (G11)."""
    config = conpool.PoolConfig(max_idle_time=3, reap_interval=9)
    async with conpool.ConnectionPool(
        config, connector=connector(), observers=[Quitter("closed")]
    ) as pool:
        await pool.warm(ENDPOINT, 2)
        newest_first = reversed(pool._core.subs[ENDPOINT].idle)
        for entry, _ in zip(newest_first, range(expired), strict=False):
            entry.lapses_at = trio.current_time()
        with pytest.raises(Exit):
            await pool.acquire(ENDPOINT)
        stats = pool.stats(ENDPOINT)
        assert (stats.idle, stats.active) == (2 - expired, 0)
        assert_quiescent(pool)


async def test_nothing_is_begun_in_a_background_that_is_dying(autojump_clock: MockClock) -> None:
    """A slow goodbye delayed the end; a dial begun meanwhile kept the pool open for ever (G19)."""
    other = conpool.Endpoint("other.example", 5432)
    config = conpool.PoolConfig(health_check_interval=1, reap_interval=1)

    async def crash(conn: conpool.Connection[None]) -> bool:
        if conn.endpoint == other:
            raise Exit
        return True

    with pytest.raises(BaseExceptionGroup) as caught:
        async with conpool.ConnectionPool(
            config, connector=Reluctant(), health_check=crash
        ) as pool:
            await pool.warm(other, 1)
            conn = await pool.acquire(ENDPOINT)
            await trio.sleep(0.9)
            pool.discard(conn)
            await trio.sleep(0.2)
            with pytest.raises(conpool.PoolClosed):
                await pool.acquire(ENDPOINT)
            await trio.sleep_forever()
    assert caught.group_contains(Exit)
    assert pool.all_stats().connecting == 0


async def test_a_lease_that_ends_in_the_moment_of_that_death_holds_up_nothing(
    autojump_clock: MockClock,
) -> None:
    """A close that needed a task got none, and the pool's end waited for it for ever (G19)."""
    config = conpool.PoolConfig(health_check_interval=1, reap_interval=1)

    async def crash(conn: conpool.Connection[None]) -> bool:
        raise Exit

    class Moment(trio.abc.Instrument):
        """After the last background task has ended, and before their parent's next step."""

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if "conpool" in task.name and not engine.background._nursery.child_tasks:
                pool.discard(conn)
                trio.lowlevel.remove_instrument(self)

    pool = conpool.ConnectionPool(config, connector=Reluctant(), health_check=crash)
    engine = pool._engine
    with pytest.raises(BaseExceptionGroup) as caught:
        async with pool:
            await pool.warm(ENDPOINT, 2)
            conn = pool.acquire_nowait(ENDPOINT)
            trio.lowlevel.add_instrument(Moment())
            await trio.sleep_forever()
    assert caught.group_contains(Exit)
    assert pool.stats(ENDPOINT).closing == 0


class Reluctant(conpool.Connector):
    """Its streams take half a second to close, also if they are closed by force."""

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        return ReluctantStream()


class ReluctantStream(trio.abc.Stream):
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise NotImplementedError

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.5)


async def test_a_pool_that_cannot_open_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor for the idle watch, the pool left a nursery open; trio complained."""

    def refuse(_: IdleWatch) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(IdleWatch, "open", refuse)
    pool: conpool.ConnectionPool[None] = conpool.ConnectionPool()
    with pytest.raises(OSError, match="too many open files"):
        async with pool:
            raise AssertionError("it is not open")
    assert pool.closed
    with pytest.raises(conpool.PoolClosed):
        await pool.acquire(ENDPOINT)


async def test_a_pool_is_not_closed_by_a_task_of_its_own(autojump_clock: MockClock) -> None:
    """A background check closed the pool, and so waited for itself, uncancellable (G17)."""
    refused: list[str] = []

    async def close() -> None:
        with pytest.raises(RuntimeError, match="its own connector or background check"):
            await pool.aclose()
        refused.append(trio.lowlevel.current_task().name)

    async def check(conn: conpool.Connection[None]) -> bool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close, name="check")
        return True

    class Closing(conpool.Connector):
        async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
            await close()
            return await connector().connect(endpoint)

    config = conpool.PoolConfig(health_check_interval=1, reap_interval=1)
    async with conpool.ConnectionPool(config, connector=Closing(), health_check=check) as pool:
        await pool.warm(ENDPOINT, 1)
        await trio.sleep(1.5)
        assert refused == [f"conpool dial to {ENDPOINT}", "check"]


# ── counters ────────────────────────────────────────────────────────────────────


async def test_what_ends_after_its_books_were_dropped_is_counted(
    autojump_clock: MockClock,
) -> None:
    """A lease ended long after its connection was closed; a forgotten record counted it."""
    config = conpool.PoolConfig(reap_interval=5)
    async with conpool.ConnectionPool(config, connector=connector()) as pool:
        conn = await pool.acquire(ENDPOINT)
        pool.clear(interrupt_in_use=True)
        await trio.sleep(20)
        assert ENDPOINT not in pool._core.subs
        pool.release(conn)
        assert pool.stats(ENDPOINT).use_time.count == 1


async def test_who_is_refused_as_its_books_are_dropped_is_counted(
    autojump_clock: MockClock,
) -> None:
    """A sweep after a time-out has passed, and before the timed-out task has run."""
    other = conpool.Endpoint("other.example", 5432)
    config = conpool.PoolConfig(max_connections=1, acquire_timeout=10, reap_interval=100)
    async with conpool.ConnectionPool(config, connector=connector()) as pool:
        async with pool.connection(other), trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(conpool.AcquireTimeout):
                    await pool.acquire(ENDPOINT)

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            autojump_clock.autojump_threshold = float("inf")
            autojump_clock.jump(11)
            # The timer's work, and right after it the reaper's.
            core = pool._core
            pool._engine.report(core.ticked)
            core.swept(core.subs[ENDPOINT], trio.current_time())
            assert ENDPOINT not in core.subs
        assert pool.all_stats().acquire_timeouts == 1
