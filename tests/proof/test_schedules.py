"""What happens to one endpoint at the same moment, in every possible order (see `stage`).

Whoever was not cancelled has been served in the end, in the order of arrival (G13).
"""

from __future__ import annotations

from functools import partial

import pytest
import trio

from conpool import CircuitBreaker

from .stage import KINDS_OF_END, Stage, T, explore
from .world import config

# ── release, cancellation, newcomer ─────────────────────────────────────────────


@KINDS_OF_END
def test_release_against_cancel_against_new_acquire(how: str, lingers: bool) -> None:
    """aiohttp #9670: a woken waiter, cancelled, swallows the wake-up; #4936: a newcomer barges."""

    async def scenario() -> None:
        stage = Stage(config(1), lingers=lingers)
        async with stage.set():
            lease = await stage.lend()
            await stage.waits("first")
            await stage.waits("second")
            stage.releases(lease, how)
            stage.cancel("first")
            stage.comes("newcomer")
            stage.comes("another")
        stage.assert_served("second", perhaps=("first", "newcomer", "another"))
        stage.assert_before("second", "newcomer", "another")

    explore(scenario)


@KINDS_OF_END
def test_two_releases_against_cancels(how: str, lingers: bool) -> None:
    async def scenario() -> None:
        stage = Stage(config(2), lingers=lingers)
        async with stage.set():
            leases = [await stage.lend(), await stage.lend()]
            await stage.waits("first")
            await stage.waits("second")
            for lease in leases:
                stage.releases(lease, how)
            stage.cancel("first")
        stage.assert_served("second", perhaps=("first",))

    explore(scenario)


def test_release_against_a_waiter_for_a_new_one() -> None:
    async def scenario() -> None:
        stage = Stage(config(1))
        async with stage.set():
            lease = await stage.lend()
            await stage.waits("fresh", fresh=True)
            await stage.waits("second")
            stage.releases(lease)
            stage.cancel("second")
            stage.comes("newcomer")
        stage.assert_served("fresh", "newcomer", perhaps=("second",))

    explore(scenario)


# ── dials ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [1, 2])
def test_dial_against_the_cancellation_of_its_waiter(limit: int) -> None:
    """httpcore #1093: the slot is gone for good; psycopg #1275: handed to one who is cancelled."""

    async def scenario() -> None:
        stage = Stage(config(limit), delay=1.0)
        async with stage.set():
            await trio.sleep_until(T - 1)
            await stage.waits("first")
            await stage.waits("second")
            stage.cancel("first")
            stage.comes("newcomer")
        if limit == 1:
            stage.assert_served("second", "newcomer", perhaps=("first",))
        else:
            stage.assert_all_served("second", "newcomer", perhaps=("first",))

    explore(scenario)


def test_failing_dial_against_the_cancellation_of_its_waiter() -> None:
    """asyncpg #1269, generic-connection-pool 0.8: failed and cancelled, counted twice or never."""

    async def scenario() -> None:
        stage = Stage(config(1), delay=1.0)
        async with stage.set():
            await trio.sleep_until(T - 1)
            stage.connector.refuses = True
            await stage.waits("first")
            await stage.waits("second")
            stage.cancel("first")
            stage.comes("newcomer")
            stage.at(stage.connector.accept, T + 0.001)
        stage.assert_served("second", "newcomer")

    explore(scenario)


@pytest.mark.parametrize("is_cleared", [False, True])
def test_g28_trial_against_its_cancellation_against_a_newcomer(is_cleared: bool) -> None:
    """However they fall together, the next one finds a circuit that is closed, or may be tried."""

    async def scenario() -> None:
        breaker = CircuitBreaker(failure_threshold=1, reset_timeout=0.5)
        stage = Stage(config(2, circuit_breaker=breaker), delay=1.0)
        async with stage.set():
            stage.pool.report_failure(stage.world.endpoint)
            await trio.sleep_until(T - 1)
            await stage.waits("trial")
            if is_cleared:
                stage.at(partial(stage.pool.clear, stage.world.endpoint))
            else:
                stage.cancel("trial")
            stage.comes("newcomer")
            stage.comes("later", T + 5)
        stage.assert_all_served("later", perhaps=("trial", "newcomer"))

    explore(scenario)


def test_dial_against_release_against_cancel() -> None:
    """The waiter takes whichever comes first, and the other is nobody's loss."""

    async def scenario() -> None:
        stage = Stage(config(2), delay=1.0)
        async with stage.set():
            lease = await stage.lend()
            await trio.sleep_until(T - 1)
            await stage.waits("first")
            stage.releases(lease)
            stage.cancel("first")
            stage.comes("newcomer")
        stage.assert_all_served("newcomer", perhaps=("first",))

    explore(scenario)


# ── time ────────────────────────────────────────────────────────────────────────


@KINDS_OF_END
@pytest.mark.parametrize("has_own_deadline", [True, False])
def test_time_out_against_hand_over(how: str, lingers: bool, has_own_deadline: bool) -> None:
    """vitess #20308, poolboy #70: handed to a waiter whose time is up."""

    async def scenario() -> None:
        stage = Stage(config(1, acquire_timeout=5.0), lingers=lingers)
        async with stage.set():
            lease = await stage.lend()
            await trio.sleep_until(T - 5)
            await stage.waits("first", timeout=5.0 if has_own_deadline else None)
            await stage.waits("second", timeout=8.0)
            stage.releases(lease, how)
            stage.comes("newcomer", timeout=8.0)
        stage.assert_served("second", "newcomer", perhaps=("first",))

    explore(scenario)


@pytest.mark.parametrize("end", ["lifetime", "idle time"])
def test_expiry_against_acquire_against_the_reaper(end: str) -> None:
    """What is too old at `T` is lent to nobody, and closed once."""

    async def scenario() -> None:
        ages = (
            {"max_connection_lifetime": T - 1.0, "lifetime_jitter": 0.0}
            if end == "lifetime"
            else {"max_idle_time": T - 1.0}
        )
        stage = Stage(config(1, **ages, reap_interval=T))
        async with stage.set():
            await trio.sleep_until(1.0)
            lease = await stage.lend()
            stage.world.spoilt.add(lease.id)
            stage.world.held.clear()
            stage.pool.release(lease)
            stage.comes("first")
            stage.comes("second")
        stage.assert_all_served("first", "second")

    explore(scenario)


def test_expiry_against_hand_over() -> None:
    async def scenario() -> None:
        ages = {"max_connection_lifetime": T - 1.0, "lifetime_jitter": 0.0}
        stage = Stage(config(1, **ages, reap_interval=T))
        async with stage.set():
            await trio.sleep_until(1.0)
            lease = await stage.lend()
            stage.world.spoilt.add(lease.id)
            await stage.waits("first")
            await stage.waits("second")
            stage.releases(lease)
            stage.cancel("first")
            stage.comes("newcomer")
        stage.assert_served("second", "newcomer", perhaps=("first",))

    explore(scenario)


# ── clear ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.parametrize("source", ["dial", "release"])
def test_clear_against_dial_and_release(source: str, interrupt: bool) -> None:
    """G24: what is handed over after `clear` has returned was opened after it, too."""

    async def scenario() -> None:
        stage = Stage(config(1), delay=1.0)

        def clear() -> None:
            # Even one that was handed over a moment before: its lease has not begun.
            for sub in stage.pool._core.subs.values():
                stage.world.spoilt.update(entry.id for entry in sub.limit.borrowers)
            stage.pool.clear(interrupt_in_use=interrupt)

        async with stage.set():
            if source == "release":
                lease = await stage.lend()
                stage.releases(lease)
            await trio.sleep_until(T - 1)
            await stage.waits("first")
            await stage.waits("second")
            stage.at(clear)
            stage.comes("newcomer")
            stage.extend(5.0)
        stage.assert_served("first", "second", "newcomer")

    explore(scenario)
