"""What the proofs found wrong in conpool itself, each in its shortest form."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import conpool
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
    """`discard` took the hook's handle for a lease: one that had not begun was released (G26)."""

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
    """A hook that released what it checks had it lent to the next waiter, beside its caller (G2)."""
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
    """A callback that closed the new connection had observers hear of the end before the beginning."""
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
    """A clear during a long check, and a sweep: the caller queued where nobody looked any more (G19)."""

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
