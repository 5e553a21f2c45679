"""What happens to a whole pool at the same moment, in every possible order (see `stage`).

Closing, the limit over all endpoints, warmth, checks, and what operators do.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import conpool
from conpool._core import pool_limit

from .stage import KINDS_OF_END, Stage, T, explore
from .world import AWAY, config

# ── the whole pool ──────────────────────────────────────────────────────────────


@KINDS_OF_END
def test_close_against_release_against_cancel_against_acquire(how: str, lingers: bool) -> None:
    """httpcore: after `aclose` a queued request dials on the closed pool."""

    async def scenario() -> None:
        stage = Stage(config(1), lingers=lingers)
        async with stage.set(closes=True):
            lease = await stage.lend()
            await stage.waits("first")
            stage.releases(lease, how)
            stage.closes()
            stage.cancel("first")
            stage.comes("newcomer")
        stage.assert_all_told("newcomer")

    explore(scenario)


@pytest.mark.parametrize("lingers", [False, True])
def test_close_against_dial_against_cancel(lingers: bool) -> None:
    async def scenario() -> None:
        stage = Stage(config(1), delay=1.0, lingers=lingers)
        async with stage.set(closes=True):
            await trio.sleep_until(T - 1)
            await stage.waits("first")
            await stage.waits("second")
            stage.closes()
            stage.cancel("first")
        stage.assert_all_told("second")

    explore(scenario)


def test_close_against_dial_against_acquire() -> None:
    async def scenario() -> None:
        stage = Stage(config(1), delay=1.0, lingers=True)
        async with stage.set(closes=True):
            await trio.sleep_until(T - 1)
            await stage.waits("first")
            stage.closes()
            stage.comes("newcomer")
        stage.assert_all_told("first", "newcomer")

    explore(scenario)


def test_close_against_close_against_time_out_against_release() -> None:
    async def scenario() -> None:
        stage = Stage(config(1), lingers=True)
        async with stage.set(closes=True):
            lease = await stage.lend()
            await trio.sleep_until(T - 5)
            await stage.waits("first", timeout=5.0)
            stage.closes()
            stage.closes()
            stage.releases(lease)
        assert stage.connector.live == 0

    explore(scenario)


def test_close_against_the_end_of_its_grace() -> None:
    """The lease ends in the moment in which it would be closed under its user."""

    async def scenario() -> None:
        stage = Stage(config(2, shutdown_grace=5.0), lingers=True)
        async with stage.set(closes=True):
            leases = [await stage.lend(), await stage.lend()]
            await trio.sleep_until(T - 5)
            stage.closes(T - 5)
            await stage.waits("first")
            for lease in leases:
                stage.releases(lease)
        stage.assert_all_told("first")

    explore(scenario)


@pytest.mark.parametrize("overtakes", [0, 8])
@pytest.mark.parametrize("lingers", [False, True])
def test_the_limit_of_the_pool_with_two_endpoints(
    monkeypatch: pytest.MonkeyPatch, overtakes: int, lingers: bool
) -> None:
    """PgBouncer #131: nobody starves beside a busy neighbour, whether slots change hands or not."""
    monkeypatch.setattr(pool_limit, "MAX_OVERTAKES", overtakes)

    async def scenario() -> None:
        stage = Stage(config(1, max_connections=1), lingers=lingers)
        async with stage.set():
            lease = await stage.lend()
            await stage.waits("away", endpoint=AWAY)
            await stage.waits("home")
            stage.releases(lease)
            stage.cancel("home")
            stage.comes("newcomer", endpoint=AWAY)
        stage.assert_all_served("away", "newcomer", perhaps=("home",))
        stage.assert_before("away", "newcomer")

    explore(scenario)


def test_an_idle_connection_between_two_endpoints() -> None:
    """Lent again here, or closed to make room there; and then the other way round."""

    async def scenario() -> None:
        stage = Stage(config(1, max_connections=1), lingers=True)
        async with stage.set():
            lease = await stage.lend()
            stage.world.held.clear()
            stage.pool.release(lease)
            stage.comes("home")
            stage.comes("away", endpoint=AWAY)
            stage.comes("another", endpoint=AWAY)
        stage.assert_all_served("home", "away", "another")

    explore(scenario)


def test_no_more_is_closed_than_is_wanted() -> None:
    """While one connection is on its way out, the other idle ones stay."""

    async def scenario() -> None:
        stage = Stage(config(2, max_connections=2), lingers=True)
        async with stage.set():
            leases = [await stage.lend(), await stage.lend()]
            stage.world.held.clear()
            for lease in leases:
                stage.pool.release(lease)
            stage.comes("away", endpoint=AWAY)
            stage.comes("home")
        stage.assert_all_served("home", "away")
        # One made room for the newcomer, and one for the proof that all slots can be had at home.
        reasons = stage.pool.all_stats().closed_by_reason
        assert reasons[conpool.CloseReason.EVICTED] == 2

    explore(scenario)


def test_two_endpoints_whose_waiters_are_cancelled() -> None:
    async def scenario() -> None:
        stage = Stage(config(2, max_connections=2))
        async with stage.set():
            leases = [await stage.lend(), await stage.lend(AWAY)]
            await stage.waits("away", endpoint=AWAY)
            await stage.waits("home")
            for lease in leases:
                stage.releases(lease)
            stage.cancel("away")
            stage.comes("newcomer", endpoint=AWAY)
        stage.assert_all_served("home", "newcomer", perhaps=("away",))

    explore(scenario)


# ── warmth, checks, limits ──────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [1, 2])
def test_warmth_against_waiters(limit: int) -> None:
    """What is kept warm never goes before somebody who waits."""

    async def scenario() -> None:
        stage = Stage(config(limit, min_idle_per_endpoint=1, reap_interval=T))
        async with stage.set():
            leases = [await stage.lend() for _ in range(limit)]
            await stage.waits("first")
            stage.releases(leases[0], "discard")
            stage.cancel("first")
            stage.comes("newcomer")
            if limit == 2:
                stage.releases(leases[1])
        stage.assert_all_served("newcomer", perhaps=("first",))

    explore(scenario)


def test_warming_against_waiters_against_cancel() -> None:
    async def scenario() -> None:
        stage = Stage(config(2), delay=1.0)
        async with stage.set():
            await trio.sleep_until(T - 1)
            stage.warms("warming", 2)
            await wait_all_tasks_blocked()
            await stage.waits("first")
            stage.cancel("first")
            stage.cancel("warming")
            stage.comes("newcomer")
        stage.assert_all_served("newcomer", perhaps=("first",))

    explore(scenario)


@pytest.mark.parametrize("answer", [True, False])
def test_a_health_check_against_another_waiter(answer: bool) -> None:
    """Whoever has its check fail has had its turn: it goes before those who came later."""

    async def answers(_: conpool.Connection[None]) -> bool:
        await trio.sleep_until(T)
        return answer

    async def scenario() -> None:
        stage = Stage(config(1, health_check_timeout=60.0), health_check=answers)
        async with stage.set():
            lease = await stage.lend()
            stage.world.held.clear()
            stage.pool.release(lease)
            await stage.waits("first")
            await stage.waits("second")
            stage.cancel("second")
            stage.comes("newcomer")
        stage.assert_served("first", "newcomer", perhaps=("second",))

    explore(scenario)


@pytest.mark.parametrize("answer", [True, False])
def test_a_health_check_against_the_cancellation_of_its_caller(answer: bool) -> None:
    async def answers(_: conpool.Connection[None]) -> bool:
        await trio.sleep_until(T)
        return answer

    async def scenario() -> None:
        stage = Stage(config(1, health_check_timeout=60.0), health_check=answers)
        async with stage.set():
            lease = await stage.lend()
            stage.world.held.clear()
            stage.pool.release(lease)
            await stage.waits("first")
            await stage.waits("second")
            stage.cancel("first")
            stage.comes("newcomer")
        stage.assert_served("second", "newcomer", perhaps=("first",))

    explore(scenario)


def test_a_check_in_the_background_against_acquire() -> None:
    async def answers(_: conpool.Connection[None]) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    async def scenario() -> None:
        settings = config(1, health_check_interval=1.0, reap_interval=T, health_check_after=60.0)
        stage = Stage(settings, health_check=answers)
        async with stage.set():
            lease = await stage.lend()
            stage.world.held.clear()
            stage.pool.release(lease)
            stage.comes("first")
            stage.comes("second")
            stage.cancel_at("first")
        stage.assert_all_served("second", perhaps=("first",))

    explore(scenario)


def test_a_lower_limit_against_releases_against_acquire() -> None:
    async def scenario() -> None:
        stage = Stage(config(2))
        async with stage.set():
            leases = [await stage.lend(), await stage.lend()]
            await stage.waits("first")
            for lease in leases:
                stage.releases(lease)
            stage.at(lambda: stage.pool.set_limit(stage.world.endpoint, 1))
            stage.comes("newcomer")
            stage.world.limit = 1
        stage.assert_all_served("first", "newcomer")

    explore(scenario)


def test_pause_and_resume_against_release_against_acquire() -> None:
    async def scenario() -> None:
        stage = Stage(config(1))
        async with stage.set():
            lease = await stage.lend()
            await stage.waits("first")
            stage.releases(lease)
            stage.at(stage.pool.pause)
            stage.at(stage.pool.resume)
            stage.at(stage.pool.resume, T + 0.001)
            stage.comes("newcomer")
        stage.assert_served("first", "newcomer")

    explore(scenario)
