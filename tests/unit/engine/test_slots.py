"""Which slots a caller waited for in vain, and who holds them, across endpoints (F134, F147)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from conpool import AcquireTimeout, ConnectError, Connection, ConnectionPool, Endpoint, Login
from conpool._core.chores import PIECE
from conpool._engine import holders
from tests.support.pools import HERE, THERE, Network, hold, make_pool, open_pool, settle, use

ELSEWHERE = Endpoint("elsewhere.example", 5432)


async def time_out(
    pool: ConnectionPool[None], endpoint: Endpoint = HERE, timeout: float | None = None
) -> AcquireTimeout:
    with pytest.raises(AcquireTimeout) as caught:
        await pool.acquire(endpoint, timeout=timeout)
    return caught.value


async def hold_both(
    outer: tuple[ConnectionPool[None], Endpoint], inner: tuple[ConnectionPool[None], Endpoint]
) -> None:
    async with outer[0].connection(outer[1]):
        await settle()
        async with inner[0].connection(inner[1]):
            pass


class Nesting:
    """Tasks that hold a connection to one endpoint and wait for one to another."""

    def __init__(self) -> None:
        self.errors: list[AcquireTimeout] = []

    async def nest(
        self,
        outer: tuple[ConnectionPool[None], Endpoint],
        inner: tuple[ConnectionPool[None], Endpoint],
    ) -> None:
        pool, endpoint = outer
        async with pool.connection(endpoint):
            await settle()
            self.errors.append(await time_out(*inner))

    @property
    def deadlocks(self) -> list[bool]:
        return [error.deadlock for error in self.errors]


# ── the pool-wide limit ─────────────────────────────────────────────────────────


async def test_f134_holders_of_the_whole_pool_are_named_with_their_endpoints(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_pool(max_connections=2, acquire_timeout=5, name="app") as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(hold, pool, THERE, 100, name="first")
        await trio.sleep(1)
        await nursery.start(hold, pool, ELSEWHERE, 100, name="second")
        error = await time_out(pool)
        assert [holder.partition(", ")[0] for holder in error.holders] == [
            "task 'first' has held connection 1 to there.example:5432 for 6s",
            "task 'second' has held connection 2 to elsewhere.example:5432 for 5s",
        ]
        assert error.stats.active == 0
        said = str(error).splitlines()
        assert said[1] == (
            "the pool-wide limit is used up: 2 active, 0 idle, 0 connecting, 0 closing, limit 2"
        )
        assert said[-1].startswith(
            "remedies: hold connections for less time; raise max_connections;"
        )
        assert not error.deadlock
        nursery.cancel_scope.cancel()


async def test_holders_of_other_logins_are_told_apart(autojump_clock: MockClock) -> None:
    app, admin = (
        Endpoint("db.example", 5432, login=Login(user, "canary", "orders"))
        for user in ("app", "admin")
    )
    async with (
        open_pool(max_connections=2, acquire_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(hold, pool, app, 100, name="first")
        await trio.sleep(1)  # the one that has held for longest is named first
        await nursery.start(hold, pool, admin, 100, name="second")
        error = await time_out(pool)
        assert [holder.partition(" for ")[0] for holder in error.holders] == [
            "task 'first' has held connection 1 to app@db.example:5432/orders",
            "task 'second' has held connection 2 to admin@db.example:5432/orders",
        ]
        assert "canary" not in str(error)
        nursery.cancel_scope.cancel()


async def test_f134_where_the_endpoint_is_full_its_own_holders_are_named(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_pool(max_connections=2, max_connections_per_endpoint=1, acquire_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(hold, pool, THERE, 100, name="elsewhere")
        await nursery.start(hold, pool, HERE, 100, name="here")
        error = await time_out(pool)
        assert [holder.split("'")[1] for holder in error.holders] == ["here"]
        assert "pool-wide" not in str(error)
        nursery.cancel_scope.cancel()


async def test_f134_dials_that_fill_the_pool_are_counted_and_nobody_is_blamed(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    network.silent.add(THERE)
    async with (
        open_pool(network, max_connections=1, acquire_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(hold, pool, THERE)
        await settle()
        error = await time_out(pool, timeout=1)
        assert error.holders == ()
        assert "used up: 0 active, 0 idle, 1 connecting, 0 closing, limit 1" in str(error)
        assert "less time" not in str(error)
        nursery.cancel_scope.cancel()


async def test_f134_a_dial_under_way_is_not_blamed_on_the_pool_wide_limit(
    autojump_clock: MockClock,
) -> None:
    """Its own dial has the last slot."""
    network = Network()
    network.silent.add(HERE)
    async with open_pool(network, max_connections=2, acquire_timeout=5) as pool:
        async with pool.connection(THERE):
            error = await time_out(pool)
        assert (error.phase, error.holders, error.deadlock) == ("connect", (), False)
        assert "pool-wide" not in str(error)
        assert "allow more time" in str(error)


async def test_f134_who_waited_for_a_check_is_not_sent_to_those_who_hold(
    autojump_clock: MockClock,
) -> None:
    async def hang(connection: Connection[None]) -> bool:
        await trio.sleep(3)
        return False

    async with (
        open_pool(max_connections_per_endpoint=2, health_check=hang) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(hold, pool, HERE, 10)
        await use(pool)
        error = await time_out(pool, timeout=2)
        assert (error.phase, error.holders) == ("check", ())
        assert str(error).endswith("\nremedies: allow more time; lower health_check_timeout")
        assert pool.stats(HERE).wait_time.max == 2
        nursery.cancel_scope.cancel()


# ── pauses and back-off ─────────────────────────────────────────────────────────


async def test_f134_a_pause_is_named_and_not_the_limit_of_the_pool(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections=1, acquire_timeout=5) as pool:
        pool.pause(HERE)
        async with pool.connection(THERE):
            error = await time_out(pool)
        assert error.stats.paused
        assert error.stats.oldest_wait == 0.0
        assert str(error).splitlines()[1:] == [
            "the endpoint is paused: the pool lends and dials nothing until resume is called",
            "remedies: call resume for the endpoint",
        ]


async def test_f134_back_off_is_named_with_the_time_of_its_beginning(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    async with open_pool(network, acquire_timeout=5) as pool:
        network.refuse()
        with pytest.raises(ConnectError):
            await pool.acquire(HERE)
        pool._core.subs[HERE].gate._not_before = 30.0
        await trio.sleep(10)
        error = await time_out(pool)
        refused = error.last_connect_error
        assert error.__cause__ is refused is not None
        assert str(error).splitlines()[1:3] == [
            "no dial has succeeded for 15s; dials back off, the next attempt is due in 15s",
            f"last connect error: {refused}",
        ]
        assert "mend what the last connect error names" in str(error)
        network.accept()
        async with pool.connection(HERE, timeout=20):
            pass
        assert pool._core.subs[HERE].gate.outage_since is None


# ── deadlocks ───────────────────────────────────────────────────────────────────


async def test_f134_tasks_of_two_endpoints_that_share_a_limit_wait_for_one_another(
    autojump_clock: MockClock,
) -> None:
    tasks = Nesting()
    async with (
        open_pool(max_connections=2, acquire_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(tasks.nest, (pool, HERE), (pool, THERE))
        nursery.start_soon(tasks.nest, (pool, THERE), (pool, HERE))
    assert tasks.deadlocks == [True, True]
    assert "raise max_connections above" in str(tasks.errors[0])


async def test_f134_holders_of_one_endpoint_that_wait_for_another_are_a_deadlock(
    autojump_clock: MockClock,
) -> None:
    tasks = Nesting()
    async with (
        open_pool(max_connections=2, acquire_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(2):
            nursery.start_soon(tasks.nest, (pool, HERE), (pool, THERE))
    assert tasks.deadlocks == [True, True]


@pytest.mark.parametrize("is_closed", [True, False])
async def test_f134_a_circle_of_endpoints_is_a_deadlock_and_a_chain_is_none(
    is_closed: bool, autojump_clock: MockClock
) -> None:
    circle = [Endpoint(f"host{number}", 1) for number in range(5)]
    tasks = Nesting()
    async with (
        open_pool(max_connections_per_endpoint=1, acquire_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        for outer, inner in zip(circle, [*circle[1:], circle[0]], strict=True):
            if is_closed or outer is not circle[2]:
                nursery.start_soon(tasks.nest, (pool, outer), (pool, inner))
        if not is_closed:
            nursery.start_soon(hold, pool, circle[2], 6)
    assert tasks.deadlocks == [is_closed] * (5 if is_closed else 4)


async def test_f134_who_waits_beside_a_deadlock_learns_of_it(autojump_clock: MockClock) -> None:
    """It holds nothing, but those for whom it waits will never come to an end by themselves."""
    tasks = Nesting()
    async with (
        open_pool(max_connections_per_endpoint=1, acquire_timeout=50) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(tasks.nest, (pool, HERE), (pool, THERE))
        nursery.start_soon(tasks.nest, (pool, THERE), (pool, HERE))
        await trio.sleep(1)
        assert (await time_out(pool, timeout=5)).deadlock
        nursery.cancel_scope.cancel()


async def test_f134_deadlock_across_pools_is_found_where_endpoints_are_full(
    autojump_clock: MockClock,
) -> None:
    tasks = Nesting()
    async with (
        make_pool(Network(), max_connections_per_endpoint=1, acquire_timeout=9) as one,
        make_pool(Network(), max_connections_per_endpoint=1, acquire_timeout=5) as other,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(tasks.nest, (one, HERE), (other, HERE))
        nursery.start_soon(hold_both, (other, HERE), (one, HERE))
    assert tasks.deadlocks == [True]


async def test_f134_the_limit_of_one_pool_is_not_taken_for_that_of_another(
    autojump_clock: MockClock,
) -> None:
    """The holder waits for a dial in a pool that has slots left, and so will go on."""
    network = Network()
    network.silent.add(ELSEWHERE)
    async with (
        make_pool(Network(), max_connections=1, acquire_timeout=5) as one,
        make_pool(network, acquire_timeout=9) as other,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(hold_both, (one, HERE), (other, ELSEWHERE))
        await settle()
        error = await time_out(one, THERE)
        assert len(error.holders) == 1
        assert not error.deadlock
        nursery.cancel_scope.cancel()


async def test_f134_who_may_not_wait_learns_of_the_deadlock_of_others(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_pool(max_connections_per_endpoint=1, acquire_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(hold_both, (pool, HERE), (pool, THERE))
        nursery.start_soon(hold_both, (pool, THERE), (pool, HERE))
        await settle()
        assert (await time_out(pool, timeout=0)).deadlock
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("what", ["a dial", "a pause", "nothing"])
async def test_f134_a_holder_that_will_go_on_is_in_no_deadlock(
    what: str, autojump_clock: MockClock
) -> None:
    network = Network()
    tasks = Nesting()
    async with open_pool(network, max_connections_per_endpoint=1, acquire_timeout=50) as pool:
        if what == "a dial":
            network.silent.add(THERE)
        if what == "a pause":
            pool.pause(THERE)
        async with trio.open_nursery() as nursery:
            if what == "nothing":
                nursery.start_soon(hold, pool, HERE, 100)
            else:
                nursery.start_soon(tasks.nest, (pool, HERE), (pool, THERE))
            await trio.sleep(1)
            error = await time_out(pool, timeout=5)
            assert len(error.holders) == 1
            assert not error.deadlock
            nursery.cancel_scope.cancel()


async def test_f134_a_search_that_would_take_too_long_says_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "_MOST_LOOKED_AT", 2)
    for count in (2, 3):
        tasks = Nesting()
        async with (
            open_pool(max_connections_per_endpoint=count, acquire_timeout=5) as pool,
            trio.open_nursery() as nursery,
        ):
            for _ in range(count):
                nursery.start_soon(tasks.nest, (pool, HERE), (pool, HERE))
        assert tasks.deadlocks == [count == 2] * count


# ── many at once ────────────────────────────────────────────────────────────────


async def test_f147_a_dozen_holders_are_described_and_all_are_counted(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(max_connections_per_endpoint=20, acquire_timeout=5) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(13):
                await nursery.start(hold, pool, HERE, 100, name=f"holder {number}")
                await trio.sleep(0.1)
            own = [await pool.acquire(HERE) for _ in range(7)]
            error = await time_out(pool)
            assert [holder.split("'")[1] for holder in error.holders] == [
                f"holder {number}" for number in range(12)
            ]
            assert "\n  and 8 more\nthe caller itself holds 7 of them\n" in str(error)
            nursery.cancel_scope.cancel()
        for lease in own:
            pool.release(lease)


async def test_f147_those_whose_time_is_up_together_share_one_description(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[str] = []
    find_place = holders._find_place

    def counting(task: trio.lowlevel.Task) -> str:
        described.append(task.name)
        return find_place(task)

    monkeypatch.setattr(holders, "_find_place", counting)
    errors: list[AcquireTimeout] = []

    async def ask(pool: ConnectionPool[None]) -> None:
        errors.append(await time_out(pool))

    async with open_pool(max_connections_per_endpoint=30, acquire_timeout=5) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(hold, pool, HERE, 6)
            await settle()
            for _ in range(500):
                nursery.start_soon(ask, pool)
        assert len(errors) == 500
        assert len({error.holders for error in errors}) == 1
        assert len(described) == 12 * 500 / PIECE  # for each step of the timer


async def test_f147_the_first_to_wake_is_described_where_it_waits(
    autojump_clock: MockClock,
) -> None:
    """It describes itself for the others, while it runs."""
    errors: list[AcquireTimeout] = []

    async def nest(pool: ConnectionPool[None]) -> None:
        async with pool.connection(HERE):
            await settle()
            errors.append(await time_out(pool))

    async with (
        open_pool(max_connections_per_endpoint=3, acquire_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):
            nursery.start_soon(nest, pool)
    for error in errors:
        places = sorted(holder.split(", ")[1].split(" (")[0] for holder in error.holders)
        assert places == ["the caller itself", *["waits in time_out"] * 2]
