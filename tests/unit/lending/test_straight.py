"""The straight line through the shell: an idle hit, its return, and a hand-over.

The pools here have nobody who hears of their leases, so they may take it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.lowlevel import checkpoint
from trio.testing import MockClock

from conpool import (
    AcquireTimeout,
    AnyEndpoint,
    ConnectError,
    Connection,
    ConnectionInfo,
    ConnectionPool,
    Observer,
    PoolClosed,
    QueueFull,
)
from conpool._connection.link import Link
from conpool._engine.engine import Engine
from conpool._lending import acquire, release
from conpool._stats.histogram import MOST_RECENT
from tests.support.loopback_servers import serving
from tests.support.pools import (
    HERE,
    Network,
    counts,
    exchange,
    hold,
    open_pool,
    reasons,
    settle,
    use,
)

Pool = ConnectionPool[None]
Amid = Callable[..., None]


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What went straight, by the name of the function."""
    seen: list[str] = []

    def watch(module: Any, name: str) -> None:
        original = getattr(module, name)

        def watched(*args: Any) -> Any:
            answer = original(*args)
            if answer:
                seen.append(name)
            return answer

        monkeypatch.setattr(module, name, watched)

    watch(acquire, "take")
    watch(acquire, "begin")
    watch(release, "keep")
    watch(release, "pass_on")
    return seen


async def test_a_hit_and_its_return_go_straight(straight: list[str]) -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool)
        straight.clear()
        async with pool.connection(HERE) as connection:
            assert counts(pool) == {"active": 1}
            assert (connection.uses, connection.reused) == (2, True)
            assert await exchange(connection) == b"ping"
        assert straight == ["take", "begin", "keep"]
        assert counts(pool) == {"idle": 1}


@pytest.mark.parametrize("straightness", [True, False])
async def test_statistics_are_the_same_whichever_way_leases_go(
    autojump_clock: MockClock, straightness: bool
) -> None:
    async with open_pool(
        is_plain=straightness, max_connections_per_endpoint=1, acquire_timeout=math.inf
    ) as pool:
        for seconds in (1.0, 2.0):
            async with trio.open_nursery() as nursery:
                for _ in range(MOST_RECENT):
                    nursery.start_soon(hold, pool, HERE, seconds)
            await use(pool)
        stats = pool.stats(HERE)
        leases = 2 * MOST_RECENT + 2
        assert (stats.acquired, stats.total_reused) == (leases, leases - 1)
        assert stats.wait_time.count == stats.use_time.count == leases
        assert stats.use_time.total == 3.0 * MOST_RECENT
        assert stats.wait_time.total == 3.0 * sum(range(MOST_RECENT))
        assert (stats.use_time.max, stats.wait_time.max) == (2.0, 2.0 * (MOST_RECENT - 1))
        assert (stats.acquire_timeouts, stats.acquire_cancelled) == (0, 0)


async def test_a_hand_over_goes_straight_in_order(
    autojump_clock: MockClock, straight: list[str]
) -> None:
    order: list[int] = []

    async def take(pool: Pool, number: int) -> None:
        async with pool.connection(HERE, timeout=100.0 if number % 2 else None):
            order.append(number)
            await trio.sleep(1.0)

    async with open_pool(is_plain=True, max_connections_per_endpoint=1) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(take, pool, number)
                await settle()
        assert trio.current_time() == 4.0
        assert order == [0, 1, 2, 3]
        assert straight == ["pass_on"] * 3 + ["keep"]
        await trio.sleep(200.0)  # no deadline is left that somebody would look at


async def test_one_that_is_handed_over_straight_and_cancelled_gives_it_back(
    autojump_clock: MockClock, straight: list[str]
) -> None:
    async with open_pool(is_plain=True, max_connections_per_endpoint=1) as pool:
        first = await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool)
            await settle()
            pool.release(first)
            nursery.cancel_scope.cancel()
        assert straight == ["pass_on"]
        assert counts(pool) == {"idle": 1}
        assert pool.stats(HERE).acquire_cancelled == 1


async def test_one_who_wants_a_new_connection_is_served_by_a_return_of_another(
    autojump_clock: MockClock, straight: list[str]
) -> None:
    async with (
        open_pool(is_plain=True, max_connections_per_endpoint=1) as pool,
        trio.open_nursery() as nursery,
    ):
        connection = await pool.acquire(HERE)
        nursery.start_soon(partial(hold, pool, fresh=True))
        await settle()
        pool.release(connection)
        await settle()
        assert counts(pool) == {"active": 1}
        assert reasons(pool) == {"EVICTED": 1}
        assert straight == []


class HearsWhoAsks(Observer):
    heard = 0

    def acquire_started(self, endpoint: AnyEndpoint) -> None:
        self.heard += 1


class HearsBeginnings(Observer):
    heard = 0

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        self.heard += 1


class HearsEnds(Observer):
    heard = 0

    def released(self, info: ConnectionInfo, held: float) -> None:
        self.heard += 1


@pytest.mark.parametrize("watching", [HearsWhoAsks, HearsBeginnings, HearsEnds])
async def test_an_observer_hears_of_each_lease(
    watching: type[HearsWhoAsks | HearsBeginnings | HearsEnds],
) -> None:
    observer = watching()
    async with open_pool(is_plain=True, observers=[observer]) as pool:
        for _ in range(3):
            await use(pool)
    assert observer.heard == 3


async def test_a_callback_for_reuse_hears_of_each() -> None:
    heard: list[int] = []
    async with open_pool(is_plain=True, on_reused=lambda info: heard.append(info.id)) as pool:
        for _ in range(3):
            await use(pool)
    assert heard == [1, 1]


# ── what is not straight ────────────────────────────────────────────────────────


async def test_a_peer_that_has_closed_is_noticed_before_the_connection_is_lent() -> None:
    async with serving() as server, ConnectionPool() as pool:
        assert await use(pool, 1, server.endpoint) == [1]
        (entry,) = pool._core.subs[server.endpoint].idle
        (stream,) = server.live
        stream.socket.close()
        assert entry.link.poll(5000), "without a checkpoint, so that only the hit can notice it"
        assert await use(pool, 1, server.endpoint) == [2]
        assert reasons(pool, server.endpoint) == {"PEER_CLOSED": 1}
        assert counts(pool, server.endpoint) == {"idle": 1}


async def wait_moved(pool: Pool, endpoint: AnyEndpoint) -> None:
    """Until the poll of the only connection finds something."""
    (entry,) = pool._core.subs[endpoint].limit.borrowers
    with trio.fail_after(5):
        while not entry.link.poll(0):  # noqa: ASYNC110 - the kernel sets no event
            await trio.sleep(0.001)


async def test_what_was_sent_and_not_answered_is_not_kept() -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool)
        with trio.CancelScope() as scope:
            async with pool.connection(HERE) as connection:
                scope.cancel()
                await connection.receive_some()
        assert counts(pool) == {}
        assert len(reasons(pool)) == 1


async def test_what_the_peer_said_after_the_answer_is_noticed_at_the_return() -> None:
    async def chat(stream: trio.abc.Stream) -> None:
        await stream.send_all(await stream.receive_some())
        await asked.wait()
        await stream.send_all(b"and more")
        await trio.sleep_forever()

    asked = trio.Event()
    async with serving(chat) as server, ConnectionPool() as pool:
        async with pool.connection(server.endpoint) as connection:
            assert await exchange(connection) == b"ping"
            asked.set()
            await wait_moved(pool, server.endpoint)
        await settle()
        assert counts(pool, server.endpoint) == {}


@pytest.mark.parametrize("straightness", [True, False])
async def test_what_a_block_ended_in_counts_on_both_ways(straightness: bool) -> None:
    async with open_pool(is_plain=straightness) as pool:
        await use(pool)
        with pytest.raises(ZeroDivisionError):
            async with pool.connection(HERE) as connection:
                await exchange(connection)
                raise ZeroDivisionError
        assert (counts(pool), reasons(pool)) == ({}, {"ERROR": 1})


@pytest.mark.parametrize("straightness", [True, False])
async def test_what_is_still_in_use_is_not_kept_on_either_way(straightness: bool) -> None:
    async with (
        open_pool(is_plain=straightness) as pool,
        trio.open_nursery() as nursery,
    ):
        connection = await pool.acquire(HERE)
        nursery.start_soon(receive_in_vain, connection)
        await settle()
        pool.release(connection)
        assert len(reasons(pool)) == 1
        assert counts(pool) == {}


async def receive_in_vain(connection: Connection[None]) -> None:
    with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
        await connection.receive_some()


async def test_what_was_interrupted_is_not_kept() -> None:
    async with open_pool(is_plain=True) as pool:
        connection = await pool.acquire(HERE)
        pool.clear(interrupt_in_use=True)
        assert await use(pool) == [2]
        assert pool._core.subs[HERE].is_straight
        pool.release(connection)
        assert counts(pool) == {"idle": 1}
        assert await use(pool) == [2]


async def test_a_paused_endpoint_lends_nothing(autojump_clock: MockClock) -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool)
        pool.pause(HERE)
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=1.0)
        pool.resume(HERE)
        assert await use(pool) == [1]


async def test_a_lease_that_is_released_twice_ends_once() -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool)
        connection = await pool.acquire(HERE)
        pool.release(connection)
        again = await pool.acquire(HERE)
        pool.release(connection)
        assert counts(pool) == {"active": 1}
        pool.release(again)
        assert pool.stats(HERE).use_time.count == 3


async def test_what_comes_back_to_a_closing_pool_is_closed(autojump_clock: MockClock) -> None:
    async with open_pool(is_plain=True, shutdown_grace=10.0) as pool:
        connection = await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.aclose)
            await settle()
            pool.release(connection)
            assert counts(pool) in ({}, {"closing": 1})
        assert trio.current_time() < 10.0
        with pytest.raises(PoolClosed):
            await pool.acquire(HERE)


async def test_nobody_overtakes_on_the_straight_line(autojump_clock: MockClock) -> None:
    """G13"""
    async with open_pool(is_plain=True, max_connections_per_endpoint=2) as pool:
        await use(pool)
        other = await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            second = await pool.acquire(HERE)
            nursery.start_soon(hold, pool)
            await settle()
            pool.release(other)
            with trio.move_on_after(0.5) as scope:
                await pool.acquire(HERE)
            assert scope.cancelled_caught
            pool.release(second)


async def test_a_new_connection_and_a_key_are_not_for_the_straight_line(
    straight: list[str],
) -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool, 2)
        straight.clear()
        async with pool.connection(HERE, affinity="a") as connection:
            first = connection.id
        await use(pool, 2)
        async with pool.connection(HERE, affinity="a") as connection:
            assert connection.id == first
        async with pool.connection(HERE, fresh=True) as connection:
            assert connection.uses == 1
        assert straight.count("begin") == 2


# ── amid the checkpoint of a hit ────────────────────────────────────────────────


@pytest.fixture
def amid(monkeypatch: pytest.MonkeyPatch) -> Amid:
    """Have something done while the next hit is in its checkpoint."""

    def prepare(call: Callable[[], object], *, seconds: float = -1.0) -> None:
        async def checkpoint_and_call() -> None:
            monkeypatch.setattr(acquire, "checkpoint", checkpoint)
            call()
            if seconds >= 0.0:
                with trio.CancelScope(shield=True):
                    await trio.sleep(seconds)
                    await settle()
            await checkpoint()

        monkeypatch.setattr(acquire, "checkpoint", checkpoint_and_call)

    return prepare


async def test_a_hit_that_is_cancelled_leaves_all_as_it_was() -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool, 2)
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.acquire(HERE)
        assert counts(pool) == {"idle": 2}
        await settle()  # so that the books are looked at
        stats = pool.stats(HERE)
        assert (stats.acquired, stats.acquire_cancelled, stats.wait_time.count) == (2, 1, 2)
        assert await use(pool) == [2]


async def test_a_hit_that_is_cleared_amid_its_checkpoint_is_not_lent(amid: Amid) -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool)
        amid(pool.clear)
        async with pool.connection(HERE) as connection:
            assert connection.id == 2
        assert reasons(pool) == {"CLEARED": 1}
        assert counts(pool) == {"idle": 1}


async def test_a_hit_that_is_cleared_and_cancelled_amid_its_checkpoint_is_closed(
    amid: Amid,
) -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool)
        with trio.CancelScope() as scope:

            def clear_and_cancel() -> None:
                pool.clear()
                scope.cancel()

            amid(clear_and_cancel)
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        await settle()
        assert counts(pool) == {}
        assert reasons(pool) == {"CLEARED": 1}
        assert pool.stats(HERE).acquire_cancelled == 1


async def test_a_hit_amid_whose_checkpoint_its_endpoint_is_paused_is_lent(amid: Amid) -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool)
        amid(lambda: pool.pause(HERE))
        connection = await pool.acquire(HERE)
        assert (connection.id, connection.uses) == (1, 2)
        pool.release(connection)
        stats = pool.stats(HERE)
        assert (stats.acquired, stats.total_reused, stats.wait_time.count) == (2, 1, 2)
        assert counts(pool) == {"idle": 1}


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_hit_whose_pool_is_closed_amid_its_checkpoint_is_closed(
    amid: Amid, is_cancelled: bool
) -> None:
    failed: list[BaseException] = []

    class Watching(Observer):
        def acquire_failed(
            self, endpoint: AnyEndpoint, error: BaseException, waited: float
        ) -> None:
            failed.append(error)

    async with open_pool(is_plain=True, observers=[Watching()]) as pool:
        await use(pool)
        scope = trio.CancelScope()

        def close() -> None:
            pool._engine.stop_serving()
            if is_cancelled:
                scope.cancel()

        amid(close)
        error: BaseException | None = None
        with scope:
            try:
                await pool.acquire(HERE)
            except PoolClosed as raised:
                error = raised
        assert scope.cancelled_caught is is_cancelled
        assert (error is None) is is_cancelled
        assert len(failed) == 1
        await settle()
        assert counts(pool) == {}
        assert reasons(pool) == {"POOL_CLOSED": 1}


async def test_one_that_waits_gets_what_a_cancelled_hit_puts_back(
    amid: Amid, autojump_clock: MockClock
) -> None:
    async with (
        open_pool(is_plain=True, max_connections_per_endpoint=1) as pool,
        trio.open_nursery() as nursery,
    ):
        await use(pool)
        with trio.CancelScope() as scope:

            def come_and_cancel() -> None:
                nursery.start_soon(hold, pool)
                scope.cancel()

            amid(come_and_cancel, seconds=0.0)
            await pool.acquire(HERE)
        await settle()
        assert counts(pool) == {"active": 1}
        assert trio.current_time() == 0.0


async def test_a_hit_that_is_one_too_many_when_it_is_cancelled_is_closed(amid: Amid) -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool, 2)
        other = await pool.acquire(HERE)
        with trio.CancelScope() as scope:

            def lower_and_cancel() -> None:
                pool.set_limit(HERE, 1)
                scope.cancel()

            amid(lower_and_cancel)
            await pool.acquire(HERE)
        await settle()
        assert (counts(pool), reasons(pool)) == ({"active": 1}, {"SURPLUS": 1})
        pool.release(other)


async def test_a_hit_that_is_retired_before_it_is_cancelled_is_closed(
    amid: Amid, autojump_clock: MockClock
) -> None:
    async with open_pool(is_plain=True) as pool, trio.open_nursery() as nursery:
        await use(pool)
        with trio.CancelScope() as scope:

            def drain_and_cancel() -> None:
                nursery.start_soon(partial(pool.drain, HERE, over=1.0))
                scope.cancel()

            amid(drain_and_cancel, seconds=2.0)
            await pool.acquire(HERE)
        await settle()
        assert (counts(pool), reasons(pool)) == ({}, {"CLEARED": 1})


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_of_many_that_are_cleared_amid_their_checkpoint_none_is_lent(
    autojump_clock: MockClock, is_cancelled: bool
) -> None:
    """A clear closes a few at a time: the others must be known by their age."""
    many = 250
    ids: list[int] = []

    async def wait() -> None:
        async with pool.connection(HERE) as connection:
            ids.append(connection.id)

    class ClearsOnce(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if not reasons(pool) and counts(pool) == {"active": many}:
                pool.clear()
                if is_cancelled:
                    nursery.cancel_scope.cancel()

    async with open_pool(
        is_plain=True, every_step=False, max_connections_per_endpoint=many
    ) as pool:
        await use(pool, many)
        clearing = ClearsOnce()
        trio.lowlevel.add_instrument(clearing)
        async with trio.open_nursery() as nursery:
            for _ in range(many):
                nursery.start_soon(wait)
        trio.lowlevel.remove_instrument(clearing)
        await settle()
        assert reasons(pool) == {"CLEARED": many}
        assert len(ids) == (0 if is_cancelled else many)
        assert not ids or min(ids) > many
        assert counts(pool).keys() <= {"idle"}


async def test_of_many_that_are_cancelled_as_their_pool_closes_none_is_left(
    autojump_clock: MockClock,
) -> None:
    many = 250

    class ClosesOnce(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if pool._core.is_open and counts(pool) == {"active": many}:
                pool._engine.stop_serving()
                nursery.cancel_scope.cancel()

    async with open_pool(
        is_plain=True, every_step=False, max_connections_per_endpoint=many
    ) as pool:
        await use(pool, many)
        closing = ClosesOnce()
        trio.lowlevel.add_instrument(closing)
        async with trio.open_nursery() as nursery:
            for _ in range(many):
                nursery.start_soon(pool.acquire, HERE)
        trio.lowlevel.remove_instrument(closing)
    assert reasons(pool) == {"POOL_CLOSED": many}
    assert trio.current_time() == 0.0


async def test_a_hit_that_looks_odd_and_is_fit_is_lent_without_a_wait() -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool)
        (entry,) = pool._core.subs[HERE].idle
        entry.link.poll = lambda _: 1
        assert entry.link.probe() is None
        connection = await pool.acquire(HERE, timeout=0.0)
        assert connection.id == 1
        pool.release(connection)


async def test_another_thread_gets_no_hit() -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool)

        def ask() -> None:
            with pytest.raises(RuntimeError, match="belongs to another thread"):
                trio.run(pool.acquire, HERE)

        await trio.to_thread.run_sync(ask)
        assert counts(pool) == {"idle": 1}


async def test_a_hit_that_cannot_be_looked_at_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise ValueError("a look that fails")

    async with open_pool(is_plain=True) as pool:
        await use(pool)
        (entry,) = pool._core.subs[HERE].idle
        entry.link.poll = fail
        with monkeypatch.context() as patch:
            patch.setattr(Link, "probe", fail)
            with pytest.raises(ValueError, match="a look that fails"):
                await pool.acquire(HERE)
        await settle()
        assert reasons(pool) == {"ERROR": 1}
        assert await use(pool) == [2]


# ── closed, without any connection, deadlocked ──────────────────────────────────


async def test_a_pool_that_has_stopped_lends_no_idle_connection() -> None:
    async with open_pool(is_plain=True) as pool:
        await use(pool)
        assert pool._engine.lends_in
        pool._engine.stop_serving()
        assert not pool._engine.lends_in
        with pytest.raises(PoolClosed):
            await pool.acquire(HERE)


async def test_callers_wait_for_the_next_dial_after_a_failure(autojump_clock: MockClock) -> None:
    """They are looked at for deadlocks, though there is no connection at all."""
    network = Network()
    network.refuse()
    async with open_pool(network, is_plain=True) as pool:
        for _ in range(3):
            with pytest.raises(ConnectError):
                await pool.acquire(HERE)
        network.accept()
        assert await use(pool)


async def test_a_deadlock_of_a_straight_endpoint_is_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def acquire_twice(pool: Pool) -> None:
        async with pool.connection(HERE):
            await settle()
            async with pool.connection(HERE):
                pass

    async with open_pool(is_plain=True, max_connections_per_endpoint=2) as pool:
        with trio.move_on_after(1.0):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(acquire_twice, pool)
                nursery.start_soon(acquire_twice, pool)
    told = [record for record in caplog.records if "deadlock at" in record.getMessage()]
    assert len(told) == 1
    assert told[0].levelno == logging.WARNING


async def test_a_wake_that_fails_is_made_good(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_pool(is_plain=True, max_connections_per_endpoint=1) as pool,
        trio.open_nursery() as nursery,
    ):
        connection = await pool.acquire(HERE)
        nursery.start_soon(hold, pool)
        await settle()
        original = Engine.wake
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                patch.setattr(Engine, "wake", original)
                raise MemoryError

            patch.setattr(Engine, "wake", fail)
            with pytest.raises(MemoryError):
                pool.release(connection)
        await settle()
        assert counts(pool) == {"active": 1}
        assert trio.current_time() == 0.0


# ── names ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [name for name in dir(Connection) if not name.startswith("_")])
async def test_a_block_has_no_name_of_a_connection(name: str) -> None:
    async with open_pool(is_plain=True) as pool:
        block = pool.connection(HERE)
        with pytest.raises(AttributeError, match=f"no '{name}' here: .*async with"):
            getattr(block, name)


async def test_a_hit_that_nobody_gets_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    async with open_pool(is_plain=True) as pool:
        await use(pool)
        with monkeypatch.context() as patch:
            patch.setattr(acquire, "Connection", fail)
            with pytest.raises(MemoryError):
                await pool.acquire(HERE)
        await settle()
        assert (counts(pool), reasons(pool)) == ({}, {"ERROR": 1})
        stats = pool.stats(HERE)
        assert stats.use_time.count == stats.acquired == 2


# ── waits behind others, where all are lent ─────────────────────────────────────


@asynccontextmanager
async def all_lent_and_one_waits(**options: Any) -> AsyncIterator[tuple[Pool, Connection[None]]]:
    async with (
        open_pool(is_plain=True, max_connections_per_endpoint=1, **options) as pool,
        trio.open_nursery() as nursery,
    ):
        connection = await pool.acquire(HERE)
        nursery.start_soon(hold, pool, HERE, 1.0)
        await settle()
        assert counts(pool) == {"active": 1, "waiting": 1}
        yield pool, connection
        pool.release(connection)


async def test_the_second_in_line_waits_no_longer_than_it_says(autojump_clock: MockClock) -> None:
    async with all_lent_and_one_waits() as (pool, _):
        for seconds in (0.0, 1.0):
            with pytest.raises(AcquireTimeout):
                await pool.acquire(HERE, timeout=seconds)
            assert trio.current_time() == seconds
        assert counts(pool) == {"active": 1, "waiting": 1}
        assert pool.stats(HERE).acquire_timeouts == 2


async def test_no_more_wait_than_may_wait(autojump_clock: MockClock) -> None:
    async with all_lent_and_one_waits(max_waiting_per_endpoint=1) as (pool, _):
        with pytest.raises(QueueFull):
            await pool.acquire(HERE)
        assert trio.current_time() == 0.0


async def test_the_second_in_line_is_cancelled(autojump_clock: MockClock) -> None:
    async with all_lent_and_one_waits() as (pool, _):
        with trio.move_on_after(0.5) as scope:
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        assert counts(pool) == {"active": 1, "waiting": 1}
        stats = pool.stats(HERE)
        assert (stats.acquire_cancelled, stats.wait_time.count, stats.wait_time.max) == (1, 2, 0.5)


async def test_one_that_is_cancelled_in_line_is_queued_no_more(autojump_clock: MockClock) -> None:
    async with all_lent_and_one_waits() as (pool, _), trio.open_nursery() as nursery:
        nursery.start_soon(use, pool)
        await settle()
        waiter = list(pool._core.subs[HERE].queue)[-1]
        nursery.cancel_scope.cancel()
        await settle()
        assert not waiter.queued


async def test_an_observer_hears_of_a_wait_that_was_cancelled(autojump_clock: MockClock) -> None:
    class Ear(Observer):
        def acquire_failed(
            self, endpoint: AnyEndpoint, error: BaseException, waited: float
        ) -> None:
            heard.append((type(error), waited))

    heard: list[tuple[type[BaseException], float]] = []
    async with all_lent_and_one_waits(observers=[Ear()]) as (pool, _):
        with trio.move_on_after(0.5):
            await pool.acquire(HERE)
    assert heard == [(trio.Cancelled, 0.5)]


async def test_the_second_in_line_is_cancelled_when_it_has_been_served(
    autojump_clock: MockClock,
) -> None:
    async with all_lent_and_one_waits() as (pool, connection), trio.open_nursery() as nursery:

        async def take_in_vain() -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await pool.acquire(HERE)
            assert scope.cancelled_caught

        scopes: list[trio.CancelScope] = []
        nursery.start_soon(take_in_vain)
        await settle()
        pool.release(connection)
        await trio.sleep(0.5)
        (first,) = pool._core.subs[HERE].limit.borrowers
        (lease,) = first.leases
        pool._releaser.give_back(Connection(pool._releaser, lease), None)
        scopes[0].cancel()
        await settle()
        assert counts(pool) == {"idle": 1}
        assert pool.stats(HERE).acquire_cancelled == 1


async def test_what_was_closed_before_the_second_in_line_woke_is_not_lent(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(is_plain=True, max_connections_per_endpoint=1) as pool:
        connection = await pool.acquire(HERE)
        ids: list[int] = []

        async def first() -> None:
            ids.append((lease := await pool.acquire(HERE)).id)
            pool.release(lease)
            pool.clear()

        async def second() -> None:
            async with pool.connection(HERE) as lease:
                ids.append(lease.id)

        async with trio.open_nursery() as nursery:
            for task in (first, second):
                nursery.start_soon(task)
                await settle()
            pool.release(connection)
        assert ids == [1, 2]
        stats = pool.stats(HERE)
        assert stats.wait_time.count == stats.acquired == 3


async def test_what_the_closing_pool_closed_before_the_second_in_line_woke_is_not_lent(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(is_plain=True, max_connections_per_endpoint=1) as pool:
        connection = await pool.acquire(HERE)

        async def first() -> None:
            pool.release(await pool.acquire(HERE))
            pool._engine.stop_serving()

        async def second() -> None:
            with pytest.raises(PoolClosed):
                await pool.acquire(HERE)

        async with trio.open_nursery() as nursery:
            for task in (first, second):
                nursery.start_soon(task)
                await settle()
            pool.release(connection)
        assert reasons(pool) == {"POOL_CLOSED": 1}


async def test_nothing_is_dialled_for_one_that_comes_cancelled_behind_another(
    autojump_clock: MockClock,
) -> None:
    network = Network(delay=1.0)
    async with open_pool(network, is_plain=True) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool)
        await settle()
        assert counts(pool) == {"connecting": 1, "waiting": 1}
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        await settle()
        assert len(network.dials) == 1


async def test_of_many_that_were_cleared_before_their_waiters_woke_none_is_lent() -> None:
    many = 250
    ids: list[int] = []

    async def wait(pool: Pool) -> None:
        async with pool.connection(HERE) as connection:
            ids.append(connection.id)

    async with open_pool(
        is_plain=True, max_connections_per_endpoint=many, every_step=False
    ) as pool:
        leases = [await pool.acquire(HERE) for _ in range(many)]
        async with trio.open_nursery() as nursery:
            for _ in leases:
                nursery.start_soon(wait, pool)
            await settle()
            for lease in leases:
                pool.release(lease)
            pool.clear()
        assert len(ids) == many
        assert min(ids) > many


# ── waits ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("straightness", [True, False])
async def test_those_who_waited_in_vain_are_counted(
    autojump_clock: MockClock, straightness: bool
) -> None:
    async with open_pool(is_plain=straightness, max_connections_per_endpoint=1) as pool:
        connection = await pool.acquire(HERE)
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=1.0)
        with trio.move_on_after(2.0):
            await pool.acquire(HERE)
        pool.release(connection)
        stats = pool.stats(HERE)
        assert (stats.wait_time.count, stats.wait_time.total) == (3, 3.0)
        assert (stats.acquire_timeouts, stats.acquire_cancelled) == (1, 1)
