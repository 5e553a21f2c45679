"""Connections that several leases share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from conpool import ConnectError, Connection, ConnectionPool
from tests.support.drivers import GREETING, Mux, MuxDriver, greet_and_echo
from tests.support.pools import HERE, THERE, Network, counts, open_pool, reasons, settle

Lease = Connection[Mux]


@asynccontextmanager
async def lending(
    driver: MuxDriver,
    serve: Callable[[trio.abc.Stream], Awaitable[object]] = greet_and_echo,
    **options: Any,
) -> AsyncIterator[ConnectionPool[Mux]]:
    async with open_pool(Network(serve), driver=driver, **options) as pool:
        yield cast("ConnectionPool[Mux]", pool)


async def test_leases_share_a_connection_up_to_its_capacity() -> None:
    async with lending(MuxDriver(3)) as pool, AsyncExitStack() as stack:
        leases = [await stack.enter_async_context(pool.connection(HERE)) for _ in range(7)]
        assert [lease.id for lease in leases] == [1, 1, 1, 2, 2, 2, 3]
        assert counts(pool) == {"active": 3}
        async with trio.open_nursery() as nursery:
            for number, lease in enumerate(leases):
                nursery.start_soon(ask, lease, b"%d" % number)


async def ask(lease: Lease, line: bytes) -> None:
    assert await lease.session.call(line) == line


async def test_callers_that_come_together_share_one_dial(autojump_clock: MockClock) -> None:
    ids: list[int] = []

    async def use() -> None:
        async with pool.connection(HERE) as conn:
            ids.append(conn.id)
            await trio.sleep(1)

    async with lending(MuxDriver(100)) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(use)
        assert ids == [1] * 50
        assert (trio.current_time(), pool.stats(HERE).total_created) == (1, 1)
        assert counts(pool) == {"idle": 1}


async def test_the_fullest_that_has_room_is_preferred() -> None:
    async with lending(MuxDriver(3)) as pool:
        leases = [await pool.acquire(HERE) for _ in range(6)]
        for lease in (leases[0], leases[3], leases[4]):  # one holds two, the other one
            pool.release(lease)
        leases[0] = await pool.acquire(HERE)
        assert leases[0].id == 1
        pool.release(leases[5])
        assert counts(pool) == {"active": 1, "idle": 1}
        for lease in leases[:3]:
            pool.release(lease)
        assert counts(pool) == {"idle": 2}


async def test_a_waiter_gets_the_room_of_who_leaves(autojump_clock: MockClock) -> None:
    async with lending(MuxDriver(2), max_connections_per_endpoint=1) as pool:
        leases = [await pool.acquire(HERE) for _ in range(2)]
        got: list[Lease] = []

        async def wait() -> None:
            got.append(await pool.acquire(HERE))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(1)
            assert not got
            pool.release(leases[0])
        assert got[0].id == 1
        pool.release(got[0])
        pool.release(leases[1])
        assert counts(pool) == {"idle": 1}


async def test_whoever_queues_behind_one_who_wants_a_new_connection_shares_the_next(
    autojump_clock: MockClock,
) -> None:
    ids: list[int] = []

    async def use(fresh: bool) -> None:
        async with pool.connection(HERE, fresh=fresh) as conn:
            ids.append(conn.id)
            await trio.sleep(1)

    async with lending(MuxDriver(2), max_connections_per_endpoint=1) as pool:
        first = await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, True)
            await settle()
            nursery.start_soon(use, False)
            await settle()
            pool.release(first)
        assert (first.id, ids) == (1, [2, 2])


async def test_an_exception_ends_only_its_own_lease() -> None:
    async with lending(MuxDriver(2)) as pool, pool.connection(HERE) as other:
        with pytest.raises(ValueError, match="mine"):
            async with pool.connection(HERE) as mine:
                assert mine.id == other.id
                raise ValueError("mine")
        await ask(other, b"still here")
        assert counts(pool) == {"active": 1}
        async with pool.connection(HERE) as third:
            assert third.id == other.id


async def test_an_interrupted_send_lets_the_others_end_and_takes_no_new_ones() -> None:
    async with lending(MuxDriver(3)) as pool:
        first, second = await pool.acquire(HERE), await pool.acquire(HERE)
        first._lease.entry.link.exchange.taints |= 1
        pool.release(first)
        await ask(second, b"still here")
        async with pool.connection(HERE) as third:
            assert third.id == 2
        pool.release(second)
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_a_connection_that_goes_away_lives_until_its_last_lease_ends() -> None:
    driver = MuxDriver(3)
    async with lending(driver) as pool:
        first, second = await pool.acquire(HERE), await pool.acquire(HERE)
        driver.sessions[0].room = 0
        async with pool.connection(HERE) as third:
            assert third.id == 2
        pool.release(first)
        await ask(second, b"still here")
        pool.release(second)
        assert reasons(pool) == {"DISCARDED": 1}


async def test_capacity_may_shrink_below_what_is_lent_and_grow_again() -> None:
    driver = MuxDriver(3)
    async with lending(driver, max_connections_per_endpoint=1) as pool:
        leases = [await pool.acquire(HERE) for _ in range(3)]
        driver.sessions[0].room = 1
        for lease in leases[:2]:
            pool.release(lease)
            with pytest.raises(trio.WouldBlock):
                pool.acquire_nowait(HERE)
        driver.sessions[0].room = 2
        with trio.fail_after(1):
            lease = await pool.acquire(HERE)
        assert lease.id == 1
        pool.release(lease)
        pool.release(leases[2])


@pytest.mark.parametrize("who_asks", ["a lease that ends", "the sweep"])
async def test_those_who_wait_get_the_room_that_has_grown(
    who_asks: str, autojump_clock: MockClock
) -> None:
    driver = MuxDriver(2)
    async with lending(driver, max_connections_per_endpoint=1, reap_interval=5) as pool:
        leases = [await pool.acquire(HERE) for _ in range(2)]

        async def wait() -> None:
            leases.append(await pool.acquire(HERE))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await settle()
            driver.sessions[0].room = 4
            if who_asks == "a lease that ends":
                pool.release(leases[0])
                await settle()
            else:
                await trio.sleep(5.5)
            assert len(leases) == 4
        for lease in leases:
            pool.release(lease)


async def test_one_who_waits_gets_the_room_that_has_come_back(autojump_clock: MockClock) -> None:
    driver = MuxDriver(3)
    async with lending(driver, max_connections_per_endpoint=1) as pool:
        leases = [await pool.acquire(HERE) for _ in range(3)]
        driver.sessions[0].room = 1
        pool.release(leases.pop())

        async def wait() -> None:
            leases.append(await pool.acquire(HERE))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await settle()
            driver.sessions[0].room = 4
            pool.release(leases.pop(0))
            await settle()
            assert len(leases) == 2
        for lease in leases:
            pool.release(lease)


async def test_callers_that_come_together_use_no_connection_too_often(
    autojump_clock: MockClock,
) -> None:
    ids: list[int] = []

    async def use() -> None:
        async with pool.connection(HERE) as conn:
            ids.append(conn.id)
            await trio.sleep(1)

    async with lending(MuxDriver(5), max_connection_uses=2) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(use)
        assert sorted(ids) == [1, 1, 2, 2]


async def test_one_who_was_handed_room_that_is_gone_waits_on(autojump_clock: MockClock) -> None:
    driver = MuxDriver(2)
    async with lending(driver, max_connections_per_endpoint=1) as pool:
        leases = [await pool.acquire(HERE) for _ in range(2)]

        async def wait() -> None:
            leases.append(await pool.acquire(HERE))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await settle()
            pool.release(leases[0])
            driver.sessions[0].room = 1
            await settle()
            assert len(leases) == 2
            pool.release(leases[1])
            await settle()
            assert len(leases) == 3
        pool.release(leases[2])


async def test_a_connection_that_is_too_old_takes_no_new_leases(
    autojump_clock: MockClock,
) -> None:
    async with lending(MuxDriver(2), max_connection_lifetime=10) as pool:
        first = await pool.acquire(HERE)
        await trio.sleep(10)
        async with pool.connection(HERE) as second:
            assert (first.id, second.id) == (1, 2)
        pool.release(first)
        assert reasons(pool) == {"LIFETIME": 1}


async def test_a_companion_that_ends_breaks_all_its_leases(autojump_clock: MockClock) -> None:
    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.send_all(GREETING)
        await trio.sleep(1)
        await stream.aclose()

    async with lending(MuxDriver(2), hang_up) as pool:
        leases = [await pool.acquire(HERE) for _ in range(2)]
        await trio.sleep(2)
        for lease in leases:
            with pytest.raises(trio.BrokenResourceError):
                lease.session  # noqa: B018
            pool.release(lease)
        assert reasons(pool) == {"PEER_CLOSED": 1}
        assert counts(pool) == {}


async def test_the_stream_of_a_shared_lease_is_refused() -> None:
    async with lending(MuxDriver(2)) as pool, pool.connection(HERE) as conn:
        with pytest.raises(RuntimeError, match=r"only conn\.session"):
            await conn.send_all(b"x")
        with pytest.raises(RuntimeError, match="only conn"):
            await conn.receive_some()
        with pytest.raises(RuntimeError, match="detached"):
            conn.detach()
        await ask(conn, b"in order")


async def test_retiring_one_lease_keeps_new_ones_away() -> None:
    async with lending(MuxDriver(3)) as pool:
        first, second = await pool.acquire(HERE), await pool.acquire(HERE)
        first.retire()
        async with pool.connection(HERE) as third:
            assert third.id == 2
        await ask(second, b"still here")
        pool.release(first)
        pool.release(second)
        assert reasons(pool) == {"DISCARDED": 1}


async def test_discarding_one_lease_closes_after_the_last() -> None:
    async with lending(MuxDriver(2)) as pool:
        first, second = await pool.acquire(HERE), await pool.acquire(HERE)
        pool.discard(first)
        await ask(second, b"still here")
        pool.release(second)
        assert reasons(pool) == {"DISCARDED": 1}


async def test_another_endpoint_is_not_starved_by_leases_that_take_turns(
    autojump_clock: MockClock,
) -> None:
    """G16: the connection takes no new leases once the waiter was passed often enough."""
    async with lending(MuxDriver(2), max_connections=1) as pool, trio.open_nursery() as nursery:

        async def take_turns() -> None:
            while True:
                async with pool.connection(HERE) as conn:
                    await ask(conn, b"ping")
                    await trio.sleep(1)

        nursery.start_soon(take_turns)
        await trio.sleep(0.5)
        nursery.start_soon(take_turns)
        await settle()
        with trio.fail_after(100):
            async with pool.connection(THERE):
                pass
        nursery.cancel_scope.cancel()


async def test_a_new_connection_that_takes_no_leases_is_a_failed_dial() -> None:
    """Else the pool would dial such a server as fast as it can, for one who waits."""
    async with lending(MuxDriver(0)) as pool:
        with pytest.raises(ConnectError, match="takes no leases") as caught:
            await pool.acquire(HERE)
        assert caught.value.phase == "open"
        assert pool._core.subs[HERE].gate.is_failing
        assert counts(pool) == {}


async def test_who_does_not_wait_does_not_go_before_those_who_do() -> None:
    """G13: room that nobody knows of yet is for who has waited."""
    driver = MuxDriver(1)
    async with lending(driver, max_connections_per_endpoint=1) as pool:
        lease = await pool.acquire(HERE)

        async def wait() -> None:
            async with pool.connection(HERE) as conn:
                assert conn.id == lease.id

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await settle()
            driver.sessions[0].room = 2
            with pytest.raises(trio.WouldBlock):
                pool.acquire_nowait(HERE)
            pool.release(lease)


async def test_room_that_a_woken_waiter_finds_is_for_the_next() -> None:
    """G12."""
    driver = MuxDriver(1)
    got: list[Lease] = []

    async def wait() -> None:
        got.append(await pool.acquire(HERE))

    async with lending(driver, max_connections_per_endpoint=1) as pool:
        lease = await pool.acquire(HERE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await settle()
            pool.release(lease)
            driver.sessions[0].room = 2
        assert [conn.id for conn in got] == [1, 1]
        for conn in got:
            pool.release(conn)
