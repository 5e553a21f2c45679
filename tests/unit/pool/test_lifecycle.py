"""How a pool begins and ends: every way of leaving the block, and nothing that outlives it."""

from __future__ import annotations

import asyncio
import gc
import signal
import ssl

import pytest
import trio
from trio.testing import MockClock

from conpool import (
    TLS,
    CloseReason,
    ConnectError,
    Connection,
    ConnectionInfo,
    ConnectionPool,
    Endpoint,
    Observer,
    PoolClosed,
    PoolConfig,
)
from conpool._values.states import PoolState
from tests.support.pools import (
    HERE,
    THERE,
    Network,
    counts,
    exchange,
    find_pool_tasks,
    hold,
    listen,
    make_pool,
    open_pool,
    reasons,
    settle,
    use,
)

# ── before, after, elsewhere ────────────────────────────────────────────────────


async def test_pool_that_is_not_open_yet_lends_nothing() -> None:
    """F020"""
    network = Network()
    pool = make_pool(network)
    assert not pool.closed
    for attempt in (pool.acquire(HERE), pool.connection(HERE).__aenter__(), pool.warm(HERE, 1)):
        with pytest.raises(PoolClosed, match=f"pool {pool.name} is not open: use `async with`"):
            await attempt
    for attempt_now in (pool.acquire_nowait, pool.pause):
        with pytest.raises(PoolClosed, match="is not open"):
            attempt_now(HERE)
    with pytest.raises(PoolClosed, match="is not open"):
        pool.set_limit(HERE, 3)
    assert pool.close_idle() == 0
    pool.clear()
    pool.resume()
    assert counts(pool) == {}
    assert not network.dials


async def test_pool_that_has_ended_lends_nothing() -> None:
    """F020 F116"""
    async with open_pool() as pool:
        await use(pool)
    assert pool.closed
    for attempt in (pool.acquire(HERE), pool.connection(HERE).__aenter__(), pool.warm(HERE, 1)):
        with pytest.raises(PoolClosed, match=f"pool {pool.name} is closed"):
            await attempt
    for attempt_now in (pool.acquire_nowait, pool.pause):
        with pytest.raises(PoolClosed, match="is closed"):
            attempt_now(HERE)
    with pytest.raises(PoolClosed, match="is closed"):
        pool.set_limit(HERE, 3)
    assert pool.close_idle() == 0
    pool.clear()
    pool.clear(interrupt_in_use=True)
    pool.resume()
    await pool.drain()
    assert pool.stats(HERE).total_created == 1


async def test_pool_is_opened_once() -> None:
    async with open_pool() as pool:
        with pytest.raises(
            RuntimeError,
            match=r"pool pool-\d+ is open and cannot be opened: a pool can be opened once",
        ):
            await pool.__aenter__()
        await use(pool)
    with pytest.raises(RuntimeError, match="is closed and cannot be opened"):
        await pool.__aenter__()


async def test_pool_that_was_closed_before_it_was_opened_stays_closed() -> None:
    pool = make_pool(Network())
    await pool.aclose()
    assert pool.closed
    await pool.aclose()
    with pytest.raises(RuntimeError, match="is closed and cannot be opened"):
        await pool.__aenter__()
    with pytest.raises(PoolClosed):
        await pool.acquire(HERE)


async def test_opening_that_is_cancelled_has_opened_nothing() -> None:
    pool = make_pool(Network())
    with trio.CancelScope() as scope:
        scope.cancel()
        await pool.__aenter__()
    assert scope.cancelled_caught
    assert not find_pool_tasks()
    async with pool:
        await use(pool)


async def test_opening_that_is_cancelled_on_its_way_is_completed(
    autojump_clock: MockClock,
) -> None:
    """Half open is no state: the cancellation comes at the next checkpoint."""
    reached = False
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                scope.cancel()

            nursery.start_soon(cancel)
            async with open_pool():
                reached = True
                await trio.sleep(1)
    assert reached
    assert scope.cancelled_caught


async def test_pool_is_of_no_use_in_another_thread() -> None:
    """F020: with a clear error, and without a hang."""
    outcome: list[str] = []

    async def elsewhere(pool: ConnectionPool[None]) -> None:
        for attempt in (pool.acquire(HERE), pool.acquire(THERE)):
            try:
                await attempt
            except RuntimeError as error:
                outcome.append(str(error))
        try:
            pool.acquire_nowait(HERE)
        except RuntimeError as error:
            outcome.append(str(error))

    async with open_pool() as pool:
        await use(pool)
        await trio.to_thread.run_sync(trio.run, elsewhere, pool)
        assert len(outcome) == 3
        assert all(text.startswith(f"pool {pool.name} belongs to another") for text in outcome)
        assert counts(pool) == {"idle": 1}


async def test_pool_is_of_no_use_in_a_thread_without_trio() -> None:
    """F020"""

    async def start(pool: ConnectionPool[None]) -> None:
        await pool.acquire(HERE)

    def elsewhere(pool: ConnectionPool[None]) -> str:
        try:
            start(pool).send(None)
        except RuntimeError as error:
            return str(error)
        raise AssertionError

    async with open_pool() as pool:
        await use(pool)
        assert "async context" in await trio.to_thread.run_sync(elsewhere, pool)
        assert counts(pool) == {"idle": 1}


def test_pool_is_of_no_use_in_a_later_run() -> None:
    """F020"""
    pools: list[ConnectionPool[None]] = []

    async def first() -> None:
        async with make_pool(Network()) as pool:
            await use(pool)
            pools.append(pool)

    async def second() -> None:
        with pytest.raises(PoolClosed):
            await pools[0].acquire(HERE)

    trio.run(first)
    trio.run(second)


def test_pool_is_of_no_use_under_asyncio() -> None:
    """F020"""
    pool = make_pool(Network())

    async def open_it() -> None:
        async with pool:
            raise AssertionError("opened")

    async def acquire() -> None:
        await pool.acquire(HERE)

    for attempt, text in ((open_it, "with trio only"), (acquire, "from async context")):
        with pytest.raises(RuntimeError, match=text):
            asyncio.run(attempt())


async def test_pool_may_be_opened_by_hand() -> None:
    pool = make_pool(Network())
    assert await pool.__aenter__() is pool
    await use(pool)
    await pool.__aexit__(None, None, None)
    assert not find_pool_tasks()


# ── leaving the block ───────────────────────────────────────────────────────────


async def test_block_that_ends_leaves_nothing(autojump_clock: MockClock) -> None:
    """G19: `open_pool` looks for tasks, connections and events that are left."""
    async with open_pool() as pool:
        assert repr(pool).startswith(f"<conpool.ConnectionPool '{pool.name}' open: 0 endpoints")
        await use(pool, 5)
        await use(pool, 5, THERE)
    assert pool.closed
    assert pool._core.state is PoolState.CLOSED
    assert reasons(pool) == reasons(pool, THERE) == {"POOL_CLOSED": 5}
    assert repr(pool).endswith(" closed: 2 endpoints>")


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_the_block_raises_comes_out_as_it_was(
    kind: type[BaseException], autojump_clock: MockClock
) -> None:
    error = kind("mine")
    with pytest.raises(kind) as caught:
        async with open_pool() as pool:
            await use(pool)
            async with pool.connection(HERE):
                raise error
    assert caught.value is error
    assert error.__context__ is error.__cause__ is None


async def test_group_that_the_block_raises_is_not_wrapped_again() -> None:
    error = ExceptionGroup("mine", [ValueError(), OSError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool() as pool:
            await use(pool)
            raise error
    assert caught.value is error


async def test_leases_get_their_grace_when_the_block_ends_well(autojump_clock: MockClock) -> None:
    """G17"""
    async with trio.open_nursery() as nursery:
        async with open_pool(shutdown_grace=10) as pool:
            lease = await nursery.start(hold, pool, HERE, 4.0)
            await settle()
        assert trio.current_time() == 4
        assert lease.uses == 1
        assert reasons(pool) == {"POOL_CLOSED": 1}


async def test_leases_that_outlast_their_grace_are_closed_under_their_holders(
    autojump_clock: MockClock,
) -> None:
    """G17"""
    ended: list[float] = []

    async def read(pool: ConnectionPool[None]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            async with pool.connection(HERE) as connection:
                await connection.receive_some()
        ended.append(trio.current_time())

    async with (
        open_pool(Network(listen), shutdown_grace=10) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(read, pool)
        await settle()
        await pool.aclose()
        assert trio.current_time() == 10
        assert pool._core.state is PoolState.CLOSED
    assert ended == [10]
    assert reasons(pool) == {"POOL_CLOSED": 1}


@pytest.mark.parametrize("grace", [0.0, 10.0])
async def test_leases_get_no_grace_when_the_block_raises(
    grace: float, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(ValueError):
            async with make_pool(Network(), shutdown_grace=grace) as pool:
                await nursery.start(hold, pool, HERE, 4.0)
                raise ValueError
        assert trio.current_time() == 0
        assert reasons(pool) == {"POOL_CLOSED": 1}


async def test_leases_get_no_grace_when_the_block_is_cancelled(autojump_clock: MockClock) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(2) as scope:
            async with make_pool(network, shutdown_grace=10) as pool:
                await nursery.start(hold, pool, HERE, 4.0)
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() == 2
        assert network.live == 0


async def test_leases_of_the_very_task_that_closes_get_no_grace(autojump_clock: MockClock) -> None:
    """F115: it cannot end them while it waits for them."""
    async with make_pool(Network(), shutdown_grace=10) as pool:
        lease = await pool.acquire(HERE)
    assert trio.current_time() == 0
    with pytest.raises(trio.ClosedResourceError):
        await lease.receive_some()
    pool.release(lease)


async def test_grace_of_zero_is_none(autojump_clock: MockClock) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        async with make_pool(network, shutdown_grace=0) as pool:
            await nursery.start(hold, pool, HERE, 4.0)
        assert trio.current_time() == 0
        assert network.live == 0


async def test_grace_without_end_waits_for_the_last(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with open_pool(shutdown_grace=float("inf")) as pool:
            await nursery.start(hold, pool, HERE, 1000.0)
        assert trio.current_time() == 1000


async def test_what_is_raised_in_a_cancelled_scope_is_not_replaced_by_the_cancellation(
    autojump_clock: MockClock,
) -> None:
    """With a lease of another task to be waited for, or not."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope, pytest.raises(ValueError):
            async with make_pool(Network()) as pool:
                await nursery.start(hold, pool, HERE, 4.0)
                scope.cancel()
                raise ValueError
        assert not scope.cancelled_caught
        assert trio.current_time() == 0


async def test_block_that_ends_well_in_a_cancelled_scope_leaves_nothing(
    autojump_clock: MockClock,
) -> None:
    """G18: the grace is over."""
    network = Network()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with make_pool(network) as pool:
                await nursery.start(hold, pool, HERE, 4.0)
                scope.cancel()
        assert trio.current_time() == 0
        assert network.live == 0
        assert not find_pool_tasks()


async def test_cleanup_code_in_a_cancelled_block_can_still_use_the_pool(
    autojump_clock: MockClock,
) -> None:
    """Roll back, say: with a dial and a wait, and so with the timer and the dials."""
    done = False
    async with open_pool(Network(delay=1), max_connections_per_endpoint=1) as pool:
        with trio.move_on_after(0.5):
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    async with pool.connection(HERE) as connection:
                        assert await exchange(connection) == b"ping"
                        done = True
    assert done


async def test_cleanup_code_of_the_block_itself_can_still_use_the_pool(
    autojump_clock: MockClock,
) -> None:
    done = False
    with trio.move_on_after(0.5):
        async with open_pool(Network(delay=1), acquire_timeout=5) as pool:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    async with pool.connection(HERE) as connection:
                        assert await exchange(connection) == b"ping"
                        done = True
    assert done
    assert trio.current_time() == 1.5


def test_interrupted_block_leaves_nothing_and_raises_the_interrupt() -> None:
    """KeyboardInterrupt as it really comes, in the midst of an exchange."""
    network = Network(listen)

    async def main() -> None:
        async with open_pool(network) as pool, pool.connection(HERE) as connection:
            signal.raise_signal(signal.SIGINT)
            await exchange(connection)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert network.live == 0


def test_interrupt_that_comes_inside_the_pool_waits_for_the_next_checkpoint() -> None:
    """Between two fields of the books it would leave them wrong for ever."""
    network = Network()

    class Interrupting(Observer):
        def released(self, info: ConnectionInfo, held: float) -> None:
            signal.raise_signal(signal.SIGINT)

    after: list[dict[str, int]] = []

    async def main() -> None:
        async with open_pool(network, observers=[Interrupting()]) as pool:
            try:
                async with pool.connection(HERE):
                    pass
                await trio.sleep(1)
            finally:
                after.append(counts(pool))

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert after == [{"idle": 1}]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_dial_that_dies_ends_the_block_and_serves_nobody_any_more(
    kind: type[BaseException],
) -> None:
    """What is not a connector's to raise is let through, and leaves nothing all the same."""
    network = Network()
    network.failures[THERE] = kind("not for a connector")
    told: list[str] = []

    async def acquire(pool: ConnectionPool[None]) -> None:
        with pytest.raises(PoolClosed):
            await pool.acquire(THERE)
        told.append("refused")

    async def main() -> None:
        async with make_pool(network) as pool:
            await use(pool, 3)
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(acquire, pool)

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert caught.value.subgroup(kind)
    assert told == ["refused"] * 3
    assert network.live == network.dialling == 0


def test_guest_that_dies_in_the_background_leaves_nothing(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    """Not even what would have had a goodbye to say."""

    async def serve(stream: trio.abc.Stream) -> None:
        async for _ in trio.SSLStream(stream, server_ssl, server_side=True):
            pass

    def die(info: ConnectionInfo, reason: CloseReason) -> None:
        if reason is CloseReason.LIFETIME:
            raise SystemExit

    network = Network(serve)
    endpoint = Endpoint("localhost", 443, tls=TLS(client_ssl))

    async def main() -> None:
        async with make_pool(
            network, on_closed=die, overrides={HERE: PoolConfig(max_connection_lifetime=10)}
        ) as pool:
            await use(pool, 2, endpoint)
            network.serve_with(listen)
            await use(pool, 1)
            await trio.sleep(1000)

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert caught.value.subgroup(SystemExit)
    assert network.live == 0


# ── aclose ──────────────────────────────────────────────────────────────────────


async def test_pool_may_be_closed_before_its_block_ends() -> None:
    async with open_pool() as pool:
        await use(pool)
        await pool.aclose()
        assert pool.closed
        assert reasons(pool) == {"POOL_CLOSED": 1}
        assert not find_pool_tasks()


async def test_closing_twice_is_harmless(autojump_clock: MockClock) -> None:
    """F115"""
    async with open_pool() as pool:
        await use(pool)
        await pool.aclose()
        with trio.testing.assert_checkpoints():
            await pool.aclose()


async def test_all_who_close_wait_for_the_end(autojump_clock: MockClock) -> None:
    """F115"""
    ended: list[float] = []

    async def close(pool: ConnectionPool[None]) -> None:
        await pool.aclose()
        ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        async with open_pool() as pool:
            await nursery.start(hold, pool, HERE, 4.0)
            for _ in range(3):
                nursery.start_soon(close, pool)
                await trio.sleep(0.5)
        assert trio.current_time() == 4
    assert ended == [4, 4, 4]


async def test_tasks_that_close_do_not_wait_for_their_own_leases(
    autojump_clock: MockClock,
) -> None:
    """F115: several at the same time, each with a lease."""

    async def close(pool: ConnectionPool[None]) -> None:
        async with pool.connection(HERE):
            await settle()
            await pool.aclose()

    async with open_pool(shutdown_grace=60) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(close, pool)
        assert trio.current_time() == 0


async def test_block_that_raises_ends_the_grace_that_another_gave(
    autojump_clock: MockClock,
) -> None:
    async def close(pool: ConnectionPool[None]) -> None:
        await pool.aclose()

    async with trio.open_nursery() as nursery:
        with pytest.raises(ValueError):
            async with make_pool(Network(), shutdown_grace=100) as pool:
                await nursery.start(hold, pool, HERE, 20.0)
                nursery.start_soon(close, pool)
                await trio.sleep(3)
                raise ValueError
        assert trio.current_time() == 3
        assert not find_pool_tasks()


async def test_acquire_during_the_grace_is_refused(autojump_clock: MockClock) -> None:
    """F116 G17"""
    async with trio.open_nursery() as nursery:
        async with open_pool() as pool:
            await use(pool, 2)
            await nursery.start(hold, pool, HERE, 4.0)
            nursery.start_soon(pool.aclose)
            await trio.sleep(1)
            assert pool.closed
            assert pool._core.state is PoolState.DRAINING
            for endpoint in (HERE, THERE):
                with pytest.raises(PoolClosed):
                    await pool.acquire(endpoint)
                with pytest.raises(PoolClosed):
                    pool.acquire_nowait(endpoint)
            with pytest.raises(PoolClosed):
                await pool.warm(HERE, 1)
        assert trio.current_time() == 4


async def test_connection_given_back_during_the_grace_is_closed(
    autojump_clock: MockClock,
) -> None:
    """F117"""
    network = Network()
    async with trio.open_nursery() as nursery, open_pool(network) as pool:
        await nursery.start(hold, pool, HERE, 2.0)
        await nursery.start(hold, pool, HERE, 4.0)
        nursery.start_soon(pool.aclose)
        await trio.sleep(3)
        assert network.live == 1
        assert counts(pool) == {"active": 1}


async def test_lease_given_back_after_the_end_is_no_error() -> None:
    """F117"""
    async with open_pool() as pool:
        released, discarded, closed = [await pool.acquire(HERE) for _ in range(3)]
        await pool.aclose()
        pool.release(released)
        pool.discard(discarded)
        await closed.aclose()
        assert reasons(pool) == {"POOL_CLOSED": 3}


async def everything_at_once(
    pool: ConnectionPool[None], network: Network, nursery: trio.Nursery, told: list[str]
) -> None:
    """Users, waiters, dials, warmers, checks and closes, all under way (F113)."""

    async def wait(endpoint: Endpoint) -> None:
        try:
            await hold(pool, endpoint, 100.0)
        except PoolClosed:
            told.append(f"refused at {trio.current_time():g}")
        except ConnectError:
            told.append("failed")

    async def warm() -> None:
        with pytest.raises(PoolClosed):
            await pool.warm(Endpoint("warm.example", 1), 2)
        told.append(f"cold at {trio.current_time():g}")

    checked = Endpoint("checked.example", 1)
    await use(pool, 2, checked)
    for _ in range(2):
        await nursery.start(hold, pool, HERE, 100.0)
    for _ in range(3):
        nursery.start_soon(wait, HERE)
    network.silent.update({THERE, Endpoint("warm.example", 1)})
    for _ in range(2):
        nursery.start_soon(wait, THERE)
    nursery.start_soon(warm)
    nursery.start_soon(wait, checked)
    await settle()


@pytest.mark.parametrize("way", ["aclose", "block", "cancelled", "raised"])
async def test_all_that_a_pool_can_be_about_ends_with_it(
    way: str, autojump_clock: MockClock
) -> None:
    """G17 G18 G19 F113"""

    async def hang(connection: Connection[None]) -> bool:
        await connection.receive_some()
        return True

    told: list[str] = []
    network = Network(listen)
    pool: ConnectionPool[None] = make_pool(
        network,
        max_connections_per_endpoint=2,
        shutdown_grace=7,
        close_timeout=1,
        health_check=hang,
        health_check_timeout=60,
    )
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            try:
                async with pool:
                    await everything_at_once(pool, network, nursery, told)
                    assert counts(pool) == {"active": 2, "waiting": 3}
                    assert counts(pool, THERE) == {"connecting": 2, "waiting": 2}
                    if way == "aclose":
                        await pool.aclose()
                    elif way == "raised":
                        raise ValueError
                    elif way == "cancelled":
                        scope.cancel()
            except ValueError:
                assert way == "raised"
        assert trio.current_time() == (7 if way in {"aclose", "block"} else 0)
        assert network.live == network.dialling == 0
        assert not find_pool_tasks()
        assert counts(pool) == counts(pool, THERE) == {}
        await settle()
        assert sorted(told) == ["cold at 0"] + ["refused at 0"] * 6
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after", [0.0, 1.0, 6.9])
async def test_cancelled_close_closes_everything_by_force(
    after: float, autojump_clock: MockClock
) -> None:
    """G18"""
    network = Network()
    async with make_pool(network, shutdown_grace=7) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            await nursery.start(hold, pool, HERE, 100.0)
        with trio.move_on_after(after) as scope:
            await pool.aclose()
        assert scope.cancelled_caught
        assert trio.current_time() == after
        assert network.live == 0
        assert not find_pool_tasks()
        nursery.cancel_scope.cancel()
    assert reasons(pool) == {"POOL_CLOSED": 3}


async def test_cancelled_wait_for_another_who_closes_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    """G18"""
    async with trio.open_nursery() as nursery:
        async with open_pool() as pool:
            await nursery.start(hold, pool, HERE, 4.0)
            nursery.start_soon(pool.aclose)
            await settle()
            with trio.move_on_after(1) as scope:
                await pool.aclose()
            assert scope.cancelled_caught
            assert counts(pool) == {"active": 1}
        assert trio.current_time() == 4


async def test_dial_that_ends_in_the_tick_in_which_the_pool_closes_is_closed(
    autojump_clock: MockClock,
) -> None:
    """G19"""
    network = Network(delay=1)

    async def acquire(pool: ConnectionPool[None]) -> None:
        with pytest.raises(PoolClosed):
            await pool.acquire(HERE)

    for _ in range(10):
        async with trio.open_nursery() as nursery, open_pool(network) as pool:
            nursery.start_soon(acquire, pool)
            await trio.sleep(1)
            if pool.stats(HERE).connecting == 0:  # it has come before us
                nursery.cancel_scope.cancel()
        assert network.live == 0


async def test_observer_hears_of_the_end_of_dials_that_were_given_up(
    autojump_clock: MockClock,
) -> None:
    """G26"""
    told: list[str] = []

    class Told(Observer):
        def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
            told.append(f"{type(error).__name__} after {took:g}")

        def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
            told.append(reason.name)

    network = Network()
    network.silent.add(HERE)
    async with open_pool(network, observers=[Told()]) as pool:
        with trio.move_on_after(3):
            await pool.acquire(HERE)
    assert told == ["PoolClosed after 3"]
    assert pool.stats(HERE).errors == 0


@pytest.mark.parametrize("name", ["aclose", "leave"])
async def test_pool_that_has_ended_can_be_collected(name: str) -> None:
    """G19: nothing of trio's or of this package's holds on to it."""
    before = sum(isinstance(thing, ConnectionPool) for thing in gc.get_objects())
    async with make_pool(Network()) as pool:
        await use(pool)
        if name == "aclose":
            await pool.aclose()
    del pool
    gc.collect()
    assert sum(isinstance(thing, ConnectionPool) for thing in gc.get_objects()) <= before
