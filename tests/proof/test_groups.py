"""Groups: an acquire that is cancelled at any moment, and what happens at once, in every order."""

from __future__ import annotations

import pytest
import trio

import conpool
from conpool.testing import MemoryConnector

from .cases import Case, acquire, one_comes_later, one_holds, sweep_acquire
from .connectors import serve_echo
from .stage import KINDS_OF_END, Stage, T, explore
from .world import AWAY, HOME, World, config

GROUP = conpool.EndpointGroup([HOME, AWAY], policy="first_available")


class HalfDown(MemoryConnector):
    """Refuses the first member of the group."""

    def __init__(self) -> None:
        super().__init__(serve_echo, delay=1.0)

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        if endpoint == HOME:
            await trio.sleep(0.5)
            raise ConnectionRefusedError
        return await super().connect(endpoint)


async def both_are_held(world: World) -> None:
    await world.start("holder", 2, endpoint=HOME)
    await world.start("other", 3, endpoint=AWAY)


async def one_is_idle_at_each(world: World) -> None:
    await world.lay_idle(1, HOME)
    await world.lay_idle(1, AWAY)


CASES = {
    "cold": Case(endpoint=GROUP),
    "cold, with another behind": Case(beside=one_comes_later, fate="in order", endpoint=GROUP),
    "warm": Case(before=one_is_idle_at_each, endpoint=GROUP),
    "the first is full": Case(before=one_holds, endpoint=GROUP),
    "all are full, with another behind": Case(
        before=both_are_held, beside=one_comes_later, fate="in order", endpoint=GROUP
    ),
    "the first is down": Case(make_connector=HalfDown, endpoint=GROUP),
    "queued for a slot of the pool": Case(
        config(1, max_connections=1), before=one_holds, endpoint=GROUP
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_acquire_of_a_group_that_is_cancelled_was_never_made(name: str) -> None:
    """G10, G15."""
    sweep_acquire(CASES[name], acquire)


@KINDS_OF_END
def test_what_two_members_get_back_at_once(how: str, lingers: bool) -> None:
    async def scenario() -> None:
        stage = Stage(config(1), lingers=lingers, has_groups=True)
        async with stage.set():
            leases = [await stage.lend(HOME), await stage.lend(AWAY)]
            await stage.waits("first", endpoint=GROUP)
            for lease in leases:
                stage.releases(lease, how)
            stage.cancel("first")
        stage.assert_all_served(perhaps=("first",))

    explore(scenario)


def test_a_waiter_of_a_group_against_a_caller_of_a_member() -> None:
    async def scenario() -> None:
        stage = Stage(config(1), has_groups=True)
        async with stage.set():
            leases = [await stage.lend(HOME), await stage.lend(AWAY)]
            await stage.waits("first", endpoint=GROUP)
            await stage.waits("second", endpoint=HOME)
            for lease in leases:
                stage.releases(lease)
        stage.assert_all_served("first", "second")

    explore(scenario)


def test_marking_against_a_dial_against_cancel() -> None:
    async def scenario() -> None:
        stage = Stage(config(1), delay=1.0, has_groups=True)
        async with stage.set():
            await trio.sleep_until(T - 1)
            await stage.waits("first", endpoint=GROUP)
            await stage.waits("second", endpoint=GROUP)
            stage.at(lambda: stage.pool.mark_unhealthy(AWAY))
            stage.cancel("first")
        stage.assert_all_served("second", perhaps=("first",))

    explore(scenario)


def test_closing_against_a_waiter_of_a_group() -> None:
    async def scenario() -> None:
        stage = Stage(config(1), has_groups=True)
        async with stage.set(closes=True):
            lease = await stage.lend(HOME)
            other = await stage.lend(AWAY)
            await stage.waits("first", endpoint=GROUP)
            stage.releases(lease)
            stage.closes()
            stage.releases(other, "discard")
        stage.assert_all_told("first")

    explore(scenario)
