from __future__ import annotations

import errno
import math
from collections.abc import Mapping

import pytest
import trio
from trio.testing import MockClock

from conpool._dial.race import race
from conpool.testing import cancel_everywhere, explore_schedules
from tests._net import progress_noted

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
UNREACHABLE = OSError(errno.ENETUNREACH, "no route")
NEVER = math.inf


class Socket:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Track:
    """Attempts whose duration and outcome the plan sets; it knows all their sockets."""

    def __init__(self, plan: Mapping[str, tuple[float, OSError | None]]) -> None:
        self.plan = plan
        self.started: list[tuple[str, float]] = []
        self.sockets: dict[str, Socket] = {}

    async def attempt(self, address: str) -> Socket:
        self.started.append((address, trio.current_time()))
        sock = self.sockets[address] = Socket()
        seconds, error = self.plan[address]
        try:
            await trio.sleep(seconds)
            if error is not None:
                raise error
        except BaseException:
            sock.close()
            raise
        return sock

    async def run(self, delay: float = 0.25) -> str:
        address, sock = await race(list(self.plan), self.attempt, delay=delay)
        assert self.open == [address]
        assert sock is self.sockets[address]
        return address

    @property
    def open(self) -> list[str]:
        return [address for address, sock in self.sockets.items() if not sock.closed]


async def test_only_one_is_tried_if_it_answers_within_the_delay(autojump_clock: MockClock) -> None:
    track = Track({"a": (0.2, None), "b": (0.0, None)})
    assert await track.run() == "a"
    assert track.started == [("a", 0.0)]


async def test_f025_a_silent_address_costs_one_delay(autojump_clock: MockClock) -> None:
    track = Track({"a": (NEVER, None), "b": (0.1, None)})
    assert await track.run() == "b"
    assert trio.current_time() == pytest.approx(0.35)
    assert track.started == [("a", 0.0), ("b", 0.25)]


async def test_f025_after_a_failure_the_next_is_tried_at_once(autojump_clock: MockClock) -> None:
    track = Track({"a": (0.01, REFUSED), "b": (0.01, REFUSED), "c": (0.01, None)})
    assert await track.run() == "c"
    assert trio.current_time() == pytest.approx(0.03)


async def test_the_failure_of_an_older_attempt_starts_the_next_too(
    autojump_clock: MockClock,
) -> None:
    track = Track({"a": (0.3, REFUSED), "b": (NEVER, None), "c": (0.0, None)})
    assert await track.run() == "c"
    assert track.started == [("a", 0.0), ("b", 0.25), ("c", 0.3)]


async def test_a_slow_first_may_still_win(autojump_clock: MockClock) -> None:
    track = Track({"a": (0.4, None), "b": (NEVER, None)})
    assert await track.run() == "a"
    assert track.sockets["b"].closed


async def test_an_endless_delay_tries_one_after_the_other(autojump_clock: MockClock) -> None:
    track = Track({"a": (100.0, REFUSED), "b": (0.0, None)})
    assert await track.run(delay=NEVER) == "b"
    assert track.started == [("a", 0.0), ("b", 100.0)]


async def test_without_a_delay_all_are_tried_together(autojump_clock: MockClock) -> None:
    track = Track({"a": (3.0, None), "b": (2.0, None), "c": (1.0, None)})
    assert await track.run(delay=0.0) == "c"
    assert trio.current_time() == pytest.approx(1.0)


async def test_f026_all_errors_come_out_together(autojump_clock: MockClock) -> None:
    track = Track({"a": (0.1, REFUSED), "b": (0.1, UNREACHABLE)})
    with progress_noted() as progress, pytest.raises(ExceptionGroup) as caught:
        await track.run()
    assert caught.value.exceptions == (REFUSED, UNREACHABLE)
    assert progress.attempts == [REFUSED, UNREACHABLE]
    assert track.open == []


async def test_one_address_alone_fails_in_the_same_way() -> None:
    track = Track({"a": (0.0, REFUSED)})
    with progress_noted() as progress, pytest.raises(ExceptionGroup) as caught:
        await track.run()
    assert caught.value.exceptions == (REFUSED,)
    assert progress.attempts == [REFUSED]


async def test_an_attempt_that_breaks_ends_the_race(autojump_clock: MockClock) -> None:
    track = Track({"a": (NEVER, None), "b": (0.0, None)})

    async def attempt(address: str) -> Socket:
        if address == "b":
            raise ValueError(address)
        return await track.attempt(address)

    with pytest.raises(ExceptionGroup) as caught:
        await race(["a", "b"], attempt, delay=0.1)
    assert caught.group_contains(ValueError)
    assert track.open == []


async def _both_connect_at_once() -> None:
    answered = trio.Event()
    sockets: list[Socket] = []

    async def attempt(address: str) -> Socket:
        sockets.append(Socket())
        mine = sockets[-1]
        try:
            await answered.wait()
        except BaseException:
            mine.close()
            raise
        return mine

    async def answer() -> None:
        while len(sockets) < 2:
            await trio.lowlevel.checkpoint()
        answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        _, winner = await race(["a", "b"], attempt, delay=0.0)
        assert [sock.closed for sock in sockets].count(False) == 1
        assert not winner.closed


async def test_f045_of_two_that_connect_in_one_tick_one_is_closed() -> None:
    await _both_connect_at_once()


def test_f045_of_two_that_connect_in_one_tick_one_is_closed_whatever_the_order() -> None:
    assert explore_schedules(_both_connect_at_once, limit=5_000) > 1


@pytest.mark.parametrize(
    "plan",
    [
        {"a": (0.0, None)},
        {"a": (0.1, REFUSED), "b": (0.1, None)},
        {"a": (9.0, None), "b": (0.5, None), "c": (0.25, None)},
    ],
)
def test_g10_cancelled_anywhere_it_leaves_no_socket_open(
    plan: dict[str, tuple[float, OSError | None]],
) -> None:
    tracks: list[Track] = []

    async def scenario(scope: trio.CancelScope) -> None:
        track = Track(plan)
        tracks.append(track)
        with scope:
            await track.run()
            track.sockets.clear()
        assert track.open == []

    points = cancel_everywhere(scenario, clock=lambda: MockClock(autojump_threshold=0))
    assert points >= 1
    assert len(tracks) > points


async def test_a_winner_is_closed_if_the_race_is_cancelled_over_a_loser(
    autojump_clock: MockClock,
) -> None:
    """A loser that is slow to close delays the end of the race; the winner must not be lost."""
    winner = Socket()

    async def attempt(address: str) -> Socket:
        if address == "a":
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(5.0)
                await trio.lowlevel.checkpoint()  # noqa: ASYNC102 - what is tested
        return winner

    with trio.move_on_after(1.0) as scope:
        await race(["a", "b"], attempt, delay=0.1)
    assert scope.cancelled_caught
    assert winner.closed
