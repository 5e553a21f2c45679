"""What happens to shared and reset connections at the same moment, in every order (see `stage`).

After each step the books balance, nobody waits while a connection has room (G12), and no connection
has more leases than it takes (G2).
"""

from __future__ import annotations

import pytest
import trio

import conpool
from conpool._values.states import CloseReason

from .stage import Stage, T, explore
from .world import config


class Room:
    """A session that takes so many leases, until its companion ends."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.ended = trio.Event()

    async def call(self, text: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return text


class Rooms(conpool.Driver[Room]):
    """Has connections shared, with the least that is needed."""

    def __init__(self, room: int = 2) -> None:
        self._room = room
        self.sessions: list[Room] = []

    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> Room:
        self.sessions.append(Room(self._room))
        return self.sessions[-1]

    async def run(self, session: Room) -> None:
        await session.ended.wait()

    def capacity(self, session: Room) -> int:
        return session.room

    def set_room(self, room: int) -> None:
        """Have the first connection take so many leases."""
        self.sessions[0].room = room


def make_stage(driver: Rooms, limit: int) -> Stage:
    return Stage(config(limit, close_timeout=0.25), driver=driver, room=2)


def reasons(stage: Stage) -> dict[CloseReason, int]:
    """Why connections were closed before the pool was."""
    found = stage.pool.stats(stage.world.endpoint).closed_by_reason
    at_end = CloseReason.POOL_CLOSED
    return {reason: count for reason, count in found.items() if count and reason is not at_end}


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("how", ["release", "discard"])
def test_release_against_goaway_against_acquire(limit: int, how: str) -> None:
    """The connection lives until its last lease ends; nobody who came too late is lost."""

    async def scenario() -> None:
        driver = Rooms()
        stage = make_stage(driver, limit)
        async with stage.set():
            leases = [await stage.lend(), await stage.lend()]
            assert leases[0].id == leases[1].id
            await stage.waits("first") if limit == 1 else None
            stage.releases(leases[0], how)
            stage.at(lambda: driver.set_room(0))
            stage.comes("newcomer")
            stage.releases_at(leases[1], T + 0.25)
        stage.assert_all_served("newcomer", *(["first"] if limit == 1 else []))
        assert sum(reasons(stage).values()) == 1

    explore(scenario)


def test_release_against_goaway_against_the_cancellation_of_a_waiter() -> None:
    async def scenario() -> None:
        driver = Rooms()
        stage = make_stage(driver, 1)
        async with stage.set():
            leases = [await stage.lend(), await stage.lend()]
            await stage.waits("first")
            stage.releases(leases[0])
            stage.releases(leases[1])
            stage.at(lambda: driver.set_room(0))
            stage.cancel("first")
        stage.assert_all_served(perhaps=("first",))

    explore(scenario)


def test_capacity_that_is_lowered_under_its_leases() -> None:
    """Two have what one may have now: nobody joins before both are gone, and nobody is lost."""

    async def scenario() -> None:
        driver = Rooms()
        stage = make_stage(driver, 1)
        async with stage.set():
            leases = [await stage.lend(), await stage.lend()]
            await stage.waits("first")
            stage.at(lambda: driver.set_room(1))
            stage.releases(leases[0])
            stage.comes("newcomer")
            stage.releases_at(leases[1], T + 0.25)
        stage.assert_served("first", "newcomer")
        assert not reasons(stage)

    explore(scenario)


def test_capacity_that_is_raised_against_release() -> None:
    async def scenario() -> None:
        driver = Rooms(1)
        stage = make_stage(driver, 1)
        async with stage.set():
            lease = await stage.lend()
            await stage.waits("first")
            await stage.waits("second")
            stage.at(lambda: driver.set_room(2))
            stage.releases(lease)
            stage.comes("newcomer")
        stage.assert_all_served("first", "second", "newcomer")

    explore(scenario)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_the_end_of_run_against_hand_over(is_cancelled: bool) -> None:
    """What ends between hand-over and lease is nobody's loss: the waiter keeps its place."""

    async def scenario() -> None:
        driver = Rooms()
        stage = make_stage(driver, 1)
        async with stage.set():
            leases = [await stage.lend(), await stage.lend()]
            await stage.waits("first")
            stage.releases(leases[0])
            stage.at(driver.sessions[0].ended.set)
            if is_cancelled:
                stage.cancel("first")
            stage.comes("newcomer")
            stage.releases_at(leases[1], T + 0.25)
        if is_cancelled:
            stage.assert_all_served("newcomer", perhaps=("first",))
        else:
            stage.assert_all_served("first", "newcomer")
        assert reasons(stage) == {CloseReason.PEER_CLOSED: 1}

    explore(scenario)


def test_the_end_of_run_against_the_end_of_the_pool() -> None:
    async def scenario() -> None:
        driver = Rooms()
        stage = make_stage(driver, 1)
        async with stage.set(closes=True):
            leases = [await stage.lend(), await stage.lend()]
            await stage.waits("first")
            stage.at(driver.sessions[0].ended.set)
            stage.closes()
            stage.releases(leases[0])
            stage.releases_at(leases[1], T - 1)
        stage.assert_all_told("first")

    explore(scenario)


def test_clear_against_join_against_release() -> None:
    async def scenario() -> None:
        driver = Rooms()
        stage = make_stage(driver, 1)
        async with stage.set():
            lease = await stage.lend()
            stage.at(stage.pool.clear)
            stage.releases(lease)
            stage.comes("newcomer")
        stage.assert_all_served("newcomer")

    explore(scenario)


# ── resets ──────────────────────────────────────────────────────────────────────


class Resetting(conpool.Driver[Room]):
    """Resets each connection, which takes half a second."""

    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> Room:
        return Room(1)

    async def reset(self, session: Room) -> None:
        await trio.sleep(0.5)

    async def cancel(self, session: Room) -> None:
        await trio.lowlevel.checkpoint()

    def is_clean(self, session: Room) -> bool:
        return True


@pytest.mark.parametrize("act", ["clear", "cancel", "nothing"])
def test_the_end_of_a_reset_against_acquire(act: str) -> None:
    async def scenario() -> None:
        stage = Stage(config(1), driver=Resetting())
        async with stage.set():
            lease = await stage.lend()
            await stage.waits("first")
            stage.releases_at(lease, T - 0.5)
            if act == "clear":
                stage.at(stage.pool.clear)
            if act == "cancel":
                stage.cancel("first")
            stage.comes("newcomer")
            stage.extend(2)
        if act == "cancel":
            stage.assert_all_served("newcomer", perhaps=("first",))
        else:
            stage.assert_served("first", "newcomer")

    explore(scenario)


def test_the_end_of_a_reset_against_the_end_of_the_pool() -> None:
    async def scenario() -> None:
        stage = Stage(config(1), driver=Resetting())
        async with stage.set(closes=True):
            lease = await stage.lend()
            await stage.waits("first")
            stage.releases_at(lease, T - 0.5)
            stage.closes()
            stage.comes("newcomer")
        stage.assert_all_told("first", "newcomer")

    explore(scenario)
