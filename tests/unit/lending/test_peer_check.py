"""Asking the peer: who is asked when, and every way in which the hook can go wrong (F079)."""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, CloseReason, ConfigError, Connection, ConnectionPool, PoolClosed
from tests.support.pools import (
    HERE,
    THERE,
    Network,
    answer_after,
    counts,
    exchange,
    hold,
    listen,
    open_pool,
    reasons,
    settle,
    use,
)

Lease = Connection[None]


class Asked:
    """A hook that answers what it is told to, and records whom it was asked about."""

    def __init__(self, *answers: object) -> None:
        self.ids: list[int] = []
        self._answers = list(answers)

    async def __call__(self, connection: Lease) -> bool:
        self.ids.append(connection.id)
        await exchange(connection)
        answer = self._answers.pop(0) if self._answers else True
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]


# ── what can be a hook ──────────────────────────────────────────────────────────


async def plain(connection: Lease) -> bool:
    raise NotImplementedError


class Methods:
    async def method(self, connection: Lease) -> bool:
        raise NotImplementedError

    async def __call__(self, connection: Lease) -> bool:
        raise NotImplementedError


def not_async(connection: Lease) -> bool:
    raise NotImplementedError


async def generator(connection: Lease) -> AsyncIterator[bool]:
    yield True


@pytest.mark.parametrize(
    "hook",
    [
        None,
        plain,
        Methods(),
        Methods().method,
        functools.partial(plain),
        lambda lease, **_: plain(lease),
    ],
)
def test_whatever_can_be_awaited_may_be_a_hook(hook: object) -> None:
    ConnectionPool(health_check=hook)  # type: ignore[call-overload]


@pytest.mark.parametrize("hook", [True, "ping", not_async, generator, len])
def test_whatever_cannot_be_awaited_is_refused_when_the_pool_is_made(hook: object) -> None:
    """F019"""
    with pytest.raises(ConfigError, match="health_check must be an async function"):
        ConnectionPool(health_check=hook)  # type: ignore[call-overload]


# ── who is asked when ───────────────────────────────────────────────────────────


async def test_new_connection_is_not_asked() -> None:
    ask = Asked()
    async with open_pool(health_check=ask) as pool:
        await use(pool, 3)
    assert ask.ids == []


async def test_idle_connection_is_asked_before_it_is_lent() -> None:
    ask = Asked()
    async with open_pool(health_check=ask) as pool:
        await use(pool)
        assert await use(pool) == [1]
        assert ask.ids == [1]
        assert pool.stats(HERE).total_created == 1


async def test_connection_that_is_asked_counts_as_active(autojump_clock: MockClock) -> None:
    seen: list[dict[str, int]] = []

    async def ask(connection: Lease) -> bool:
        seen.append(counts(pool))
        return True

    async with open_pool(health_check=ask) as pool:
        await use(pool)
        await use(pool)
    assert seen == [{"active": 1, "waiting": 1}]


async def test_asking_is_no_lease() -> None:
    """G26: neither counters nor observers hear of it."""
    async with open_pool(health_check=Asked()) as pool:
        await use(pool)
        async with pool.connection(HERE) as connection:
            assert connection.uses == 2
        stats = pool.stats(HERE)
        assert (stats.acquired, stats.use_time.count, stats.wait_time.count) == (2, 2, 2)


@pytest.mark.parametrize(("idle", "asked"), [(4.999, 0), (5.0, 1), (5.001, 1)])
async def test_one_that_was_not_idle_for_long_is_not_asked(
    idle: float, asked: int, autojump_clock: MockClock
) -> None:
    ask = Asked()
    async with open_pool(health_check=ask, health_check_after=5.0) as pool:
        await use(pool)
        await trio.sleep(idle)
        await use(pool)
    assert len(ask.ids) == asked


async def test_one_that_is_handed_over_directly_is_not_asked(autojump_clock: MockClock) -> None:
    ask = Asked()
    async with open_pool(max_connections_per_endpoint=1, health_check=ask) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(hold, pool)
        assert ask.ids == []
        assert pool.stats(HERE).total_reused == 4


async def test_idle_one_that_a_waiter_gets_is_asked(autojump_clock: MockClock) -> None:
    """After a pause, say."""
    ask = Asked()
    async with open_pool(health_check=ask) as pool:
        await use(pool)
        pool.pause(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool)
            await settle()
            pool.resume(HERE)
        assert ask.ids == [1]


async def test_without_waiting_nobody_is_asked() -> None:
    ask = Asked()
    async with open_pool(health_check=ask) as pool:
        await use(pool)
        pool.release(pool.acquire_nowait(HERE))
    assert ask.ids == []


async def test_who_wants_a_fresh_one_asks_nobody() -> None:
    ask = Asked()
    async with open_pool(health_check=ask) as pool:
        await use(pool)
        async with pool.connection(HERE, fresh=True) as connection:
            assert connection.id == 2
    assert ask.ids == []


async def test_hook_may_use_the_pool_itself() -> None:
    async def ask(connection: Lease) -> bool:
        async with pool.connection(THERE) as other:
            return await exchange(other) == b"ping"

    async with open_pool(health_check=ask) as pool:
        await use(pool)
        assert await use(pool) == [1]


async def test_hook_is_asked_in_the_context_in_which_the_pool_was_opened() -> None:
    """What it learns is the endpoint's: the caller may have gone by then."""
    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen: list[str] = []

    async def ask(connection: Lease) -> bool:
        seen.append(user.get())
        return True

    user.set("service")
    async with open_pool(health_check=ask) as pool:
        user.set("alice")
        await use(pool)
        await use(pool)
    assert seen == ["service"]


# ── no ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("answer", [False, None, 0, "", ValueError("dead"), OSError()])
async def test_one_that_says_no_or_raises_is_replaced(answer: object) -> None:
    """F079"""
    async with open_pool(health_check=Asked(answer)) as pool:
        await use(pool)
        assert await use(pool) == [2]
        assert reasons(pool) == {"UNHEALTHY": 1}


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ValueError("dead"), logging.WARNING),
        (trio.BrokenResourceError("dead"), logging.INFO),
        (ConnectionResetError(errno.ECONNRESET, "dead"), logging.INFO),
    ],
)
async def test_one_that_raises_is_told_of_in_the_log(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What the peer has done is no fault of the hook's."""
    caplog.set_level(logging.DEBUG, logger="conpool")
    async with open_pool(health_check=Asked(error), name="orders") as pool:
        await use(pool)
        await use(pool)
    (record,) = caplog.records
    assert record.levelno == level
    assert vars(record)["pool"] == "orders"
    assert vars(record)["endpoint"] == str(HERE)
    assert f"{type(error).__name__}: " in caplog.text


async def test_one_that_is_too_slow_is_told_of_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="conpool")

    async def hang(_: object) -> bool:
        await trio.sleep_forever()

    async with open_pool(health_check=hang, health_check_timeout=2.0) as pool:
        await use(pool)
        await use(pool)
    assert "took longer than 2 s" in caplog.text


async def test_one_that_says_anything_true_is_lent() -> None:
    async with open_pool(health_check=Asked("PONG")) as pool:
        await use(pool)
        assert await use(pool) == [1]


async def test_one_that_hangs_is_replaced_when_its_time_is_up(autojump_clock: MockClock) -> None:
    """F079"""
    network = Network(answer_after(100))
    async with open_pool(network, health_check=Asked(), health_check_timeout=3) as pool:
        await use(pool)
        assert await use(pool) == [2]
        assert trio.current_time() == 3
        assert reasons(pool) == {"UNHEALTHY": 1}
        assert network.live == 1


async def test_next_idle_one_is_tried_when_the_newest_is_dead() -> None:
    async with open_pool(health_check=Asked(False)) as pool:
        await use(pool, 3)
        assert await use(pool) == [2]
        assert counts(pool) == {"idle": 2}


async def test_two_dead_ones_in_a_row_are_enough_for_a_new_one(autojump_clock: MockClock) -> None:
    """F078: a server that has restarted must not cost a time-out for each connection it had."""
    network = Network(listen)
    ask = Asked()
    async with open_pool(network, health_check=ask, health_check_timeout=3) as pool:
        await use(pool, 10)
        async with pool.connection(HERE) as connection:
            assert connection.id == 11
        assert trio.current_time() == 6
        assert ask.ids == [10, 9]


async def test_dead_ones_are_replaced_even_if_all_slots_are_theirs(
    autojump_clock: MockClock,
) -> None:
    """F078"""
    network = Network(listen)
    async with open_pool(
        network, health_check=Asked(), health_check_timeout=1, max_connections_per_endpoint=4
    ) as pool:
        await use(pool, 4)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(hold, pool, HERE, 1.0)
        assert trio.current_time() <= 4
        assert pool.stats(HERE).acquire_timeouts == 0


async def test_who_found_a_dead_one_goes_before_those_who_came_later(
    autojump_clock: MockClock,
) -> None:
    """G13"""
    order: list[str] = []
    network = Network(listen)

    async def take(name: str) -> None:
        async with pool.connection(HERE):
            order.append(name)
            await trio.sleep(1)

    async with open_pool(
        network, health_check=Asked(), health_check_timeout=3, max_connections_per_endpoint=1
    ) as pool:
        await use(pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, "first")
            await settle()
            for name in ("second", "third"):
                nursery.start_soon(take, name)
                await settle()
    assert order == ["first", "second", "third"]


# ── what else a hook can do ─────────────────────────────────────────────────────


async def test_hook_that_leaves_its_question_open_costs_the_connection() -> None:
    """F079 G3: the answer would be the next caller's."""

    async def ask(connection: Lease) -> bool:
        await connection.send_all(b"ping")
        return True

    async with open_pool(health_check=ask) as pool:
        await use(pool)
        assert await use(pool) == [2]
        assert reasons(pool) == {"INCOMPLETE": 1}


@pytest.mark.parametrize("answer", [True, False])
async def test_hook_that_closes_the_connection_has_closed_it(answer: bool) -> None:
    """F079 G26: though it held no lease that could end."""

    async def ask(connection: Lease) -> bool:
        await connection.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await connection.receive_some()
        return answer

    async with open_pool(health_check=ask) as pool:
        await use(pool)
        assert await use(pool) == [2]
        assert reasons(pool) == {"DISCARDED": 1}
        assert pool.stats(HERE).use_time.count == 2


async def test_hook_cannot_give_back_what_was_not_lent_to_it(autojump_clock: MockClock) -> None:
    """G2: it would be lent to somebody else while it is checked."""

    async def ask(connection: Lease) -> bool:
        pool.release(connection)
        assert counts(pool) == {"active": 1, "waiting": 1}
        return True

    async with open_pool(health_check=ask) as pool:
        await use(pool)
        assert await use(pool) == [1]
        assert pool.stats(HERE).use_time.count == 2


async def test_hook_may_discard_the_connection() -> None:
    """G26"""

    async def ask(connection: Lease) -> bool:
        pool.discard(connection)
        return True

    async with open_pool(health_check=ask) as pool:
        await use(pool)
        assert await use(pool) == [2]
        assert reasons(pool) == {"DISCARDED": 1}


async def test_hook_that_takes_the_stream_out_of_the_pool_has_it() -> None:
    network = Network()
    streams: list[trio.abc.Stream] = []

    async def ask(connection: Lease) -> bool:
        streams.append(connection.detach())
        return True

    async with open_pool(network, health_check=ask) as pool:
        await use(pool)
        assert await use(pool) == [2]
        assert reasons(pool) == {"DETACHED": 1}
        assert await exchange(streams[0]) == b"ping"
        await streams[0].aclose()


async def test_hook_that_asks_the_pool_asks_in_circles_for_its_time_and_no_longer(
    autojump_clock: MockClock,
) -> None:
    async def ask(connection: Lease) -> bool:
        return await connection.is_healthy()

    async with open_pool(health_check=ask, health_check_timeout=1) as pool:
        await use(pool)
        assert await use(pool) in ([1], [2])


async def test_hook_that_keeps_the_connection_keeps_nothing() -> None:
    """G6"""
    kept: list[Lease] = []

    async def ask(connection: Lease) -> bool:
        kept.append(connection)
        return True

    async with open_pool(health_check=ask) as pool:
        await use(pool)
        async with pool.connection(HERE) as connection:
            with pytest.raises(trio.ClosedResourceError):
                await kept[0].receive_some()
            await kept[0].aclose()
            assert await exchange(connection) == b"ping"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_no_hook_should_raise_ends_the_pool(kind: type[BaseException]) -> None:
    """F079 G11: as with what no connector should raise."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_pool(health_check=Asked(kind()), max_connections_per_endpoint=1) as pool:
            await use(pool)
            await pool.acquire(HERE)
    assert caught.value.subgroup(kind) is not None
    assert counts(pool) == {}


# ── time and cancellation ───────────────────────────────────────────────────────


async def test_f131_check_goes_on_when_the_time_of_who_waits_for_it_is_up(
    autojump_clock: MockClock,
) -> None:
    """G14 F078: what it finds is the endpoint's, and how long it may take as well."""
    network = Network(listen)
    async with open_pool(network, health_check=Asked(), health_check_timeout=50) as pool:
        await use(pool)
        with pytest.raises(AcquireTimeout) as caught:
            await pool.acquire(HERE, timeout=2)
        assert (caught.value.phase, caught.value.waited) == ("check", 2)
        assert trio.current_time() == 2
        assert counts(pool) == {"active": 1}
        assert pool.stats(HERE).acquire_timeouts == 1
        await trio.sleep(48.5)
        assert counts(pool) == {}
        assert pool.all_stats().closed_by_reason == {CloseReason.UNHEALTHY: 1}


async def test_who_has_no_time_for_a_check_does_the_connection_no_harm(
    autojump_clock: MockClock,
) -> None:
    """F014"""
    ask = Asked()
    async with open_pool(health_check=ask) as pool:
        await use(pool)
        with pytest.raises(AcquireTimeout) as caught:
            await pool.acquire(HERE, timeout=0)
        assert caught.value.phase == "check"
        assert counts(pool) == {"idle": 1}
        assert ask.ids == []


async def test_f131_check_goes_on_when_its_caller_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    """G3 G10 G15"""
    network = Network(answer_after(4))
    async with open_pool(network, health_check=Asked()) as pool:
        await use(pool)
        with trio.move_on_after(1) as scope:
            await pool.acquire(HERE)
        assert scope.cancelled_caught
        assert (counts(pool), reasons(pool)) == ({"active": 1}, {})
        assert pool.stats(HERE).acquire_cancelled == 1
        await trio.sleep(3.5)
        assert (counts(pool), reasons(pool)) == ({"idle": 1}, {})


async def test_f131_check_serves_whoever_waits_when_it_is_over(autojump_clock: MockClock) -> None:
    ask = Asked()
    async with open_pool(Network(answer_after(4)), health_check=ask) as pool:
        await use(pool)
        with trio.move_on_after(1):
            await pool.acquire(HERE)
        assert await use(pool) == [1]
        assert (trio.current_time(), ask.ids) == (4, [1])


async def test_check_that_hangs_delays_nobody_else(autojump_clock: MockClock) -> None:
    """G16"""
    waited: list[float] = []

    async def ask(connection: Lease) -> bool:
        if connection.id == 1:
            await trio.sleep_forever()
        return True

    async def take() -> None:
        started = trio.current_time()
        async with pool.connection(HERE):
            waited.append(trio.current_time() - started)

    async with open_pool(health_check=ask, health_check_timeout=5) as pool:
        leases = [await pool.acquire(HERE) for _ in range(2)]
        for lease in reversed(leases):
            pool.release(lease)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(take)
                await settle()
        assert waited == [0, 0, 0, 0, 0], "nor its own caller, who got what came back"


@pytest.mark.parametrize("asks", [True, False])
async def test_pool_that_closes_neither_waits_for_a_check_nor_lends_after_it(
    asks: bool, autojump_clock: MockClock
) -> None:
    """G17"""
    refused: list[float] = []

    async def ask(connection: Lease) -> bool:
        if asks:
            await exchange(connection)
        await trio.sleep(3)
        return True

    async def acquire(pool: ConnectionPool[None]) -> None:
        with pytest.raises(PoolClosed):
            await pool.acquire(HERE)
        refused.append(trio.current_time())

    async with (
        open_pool(Network(listen), health_check=ask) as pool,
        trio.open_nursery() as nursery,
    ):
        await use(pool)
        nursery.start_soon(acquire, pool)
        await settle()
        await pool.aclose()
        assert trio.current_time() == 0
    assert refused == [0.0]


async def test_clear_reaches_what_is_being_checked(autojump_clock: MockClock) -> None:
    """G24"""

    async def ask(connection: Lease) -> bool:
        await trio.sleep(1)
        return True

    async with open_pool(health_check=ask) as pool:
        await use(pool)
        async with trio.open_nursery() as nursery:
            lease: Callable[[], Awaitable[Lease]] = functools.partial(nursery.start, hold, pool)
            nursery.start_soon(clear_soon, pool)
            assert (await lease()).id == 2
        assert reasons(pool) == {"CLEARED": 1}


async def clear_soon(pool: ConnectionPool[None]) -> None:
    await settle()
    assert counts(pool) == {"active": 1, "waiting": 1}
    pool.clear()
