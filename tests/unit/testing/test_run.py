from __future__ import annotations

import importlib
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest
import trio
from trio.lowlevel import Task

from conpool.testing import _run, cancel_everywhere, explore_schedules
from tests.unit.testing.toys import mock_clock


def as_they_come(batch: list[Task]) -> None:
    """Oldest task first."""


@pytest.fixture(name="loop")
def unchecked_loop() -> Iterator[ModuleType]:
    """trio's run loop, which conpool then checks anew."""
    _run.require_known_trio.cache_clear()
    yield importlib.import_module("trio._core._run")
    _run.require_known_trio.cache_clear()


# ── the order ───────────────────────────────────────────────────────────────────


def test_batches_run_as_arranged_and_hold_none_of_trios_own_tasks() -> None:
    ran: list[str] = []
    batches: list[list[str]] = []

    async def note(name: str) -> None:
        ran.append(name)

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        token.run_sync_soon(ran.append, "soon")  # wakes trio's own task into the same batch
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(note, name, name=name)

    def backwards(batch: list[Task]) -> None:
        batch.reverse()
        batches.append([task.name for task in batch])

    _run.run(main, backwards, clock=None)
    assert ran == ["soon", "c", "b", "a"]
    assert ["c", "b", "a"] in batches
    assert not [name for batch in batches for name in batch if name.startswith("<")]


def test_trio_is_left_as_it_was(loop: ModuleType) -> None:
    before = vars(loop)["_r"], vars(loop)["_ALLOW_DETERMINISTIC_SCHEDULING"]

    async def fail() -> None:
        assert vars(loop)["_r"] is not before[0]
        raise ValueError

    with pytest.raises(ValueError):
        _run.run(fail, as_they_come, clock=None)
    assert (vars(loop)["_r"], vars(loop)["_ALLOW_DETERMINISTIC_SCHEDULING"]) == before
    assert isinstance(before[0], random.Random)


def test_run_of_another_thread_keeps_its_own_order() -> None:
    batches: list[int] = []

    async def elsewhere() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(trio.lowlevel.checkpoint)

    async def main() -> None:
        thread = threading.Thread(target=trio.run, args=(elsewhere,))
        thread.start()
        thread.join()

    _run.run(main, lambda batch: batches.append(len(batch)), clock=None)
    assert batches == [1]


# ── other versions of trio ──────────────────────────────────────────────────────


async def nothing(*_: object) -> None:
    pass


@pytest.mark.parametrize("use", [cancel_everywhere, explore_schedules])
@pytest.mark.parametrize("name", ["_r", "_ALLOW_DETERMINISTIC_SCHEDULING"])
def test_trio_that_moved_its_source_of_order_is_refused(
    use: Callable[[Any], int], name: str, loop: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(vars(loop), name)
    with pytest.raises(RuntimeError, match=f"cannot order the tasks of trio {trio.__version__}"):
        use(nothing)


@pytest.mark.usefixtures("loop")
def test_trio_without_the_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "_LOOP", "trio._core._elsewhere")
    with pytest.raises(RuntimeError, match="trio._core._elsewhere has no _r"):
        explore_schedules(nothing)


def test_trio_that_does_not_obey_is_refused(
    loop: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the names are still there, but the loop does not use them
    unused = {"_r": random.Random(), "_ALLOW_DETERMINISTIC_SCHEDULING": False}
    monkeypatch.setattr(_run, "_loop", lambda: unused)
    monkeypatch.setattr(loop, "_ALLOW_DETERMINISTIC_SCHEDULING", False)
    with pytest.raises(RuntimeError, match=r"should run in the order \[1, 2, 0\] ran in "):
        explore_schedules(nothing)


# ── runs that would never end ───────────────────────────────────────────────────


@pytest.mark.parametrize("clock", [None, mock_clock, trio.testing.MockClock])
def test_deadlock_is_told_from_waiting_and_says_who_waits_where(
    clock: Callable[[], trio.abc.Clock] | None,
) -> None:
    async def sleeper(event: trio.Event) -> None:
        await event.wait()

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleeper, trio.Event(), name="the sleeper")
            nursery.start_soon(trio.sleep_forever, name="the lazy one")

    with pytest.raises(AssertionError) as caught:
        _run.run(scenario, as_they_come, clock=clock and clock())
    lines = caught.value.args[0].splitlines()
    assert lines[1].startswith(f"  scenario: {__file__}:")
    assert lines[0] == "the scenario never ends: every task waits for another"
    assert lines[1].endswith(" in scenario")
    assert lines[2].startswith("  the lazy one: ")
    assert lines[2].endswith(" in sleep_forever")
    assert lines[3].startswith(f"  the sleeper: {__file__}:")
    assert lines[3].endswith(" in sleeper")
    assert len(lines) == 4


def test_deadlock_behind_a_shield_is_broken_off(capfd: pytest.CaptureFixture[str]) -> None:
    ended: list[str] = []

    async def scenario() -> None:
        try:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
        finally:
            ended.append("its finally ran")

    with pytest.raises(AssertionError, match="and it does not end when it is cancelled"):
        _run.run(scenario, as_they_come, clock=mock_clock())
    assert ended == ["its finally ran"]
    assert capfd.readouterr() == ("", "")


def test_deadlock_after_the_end_of_the_scenario_is_broken_off() -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    async def scenario() -> None:
        trio.lowlevel.spawn_system_task(stubborn)

    with pytest.raises(AssertionError, match="in stubborn"):
        _run.run(scenario, as_they_come, clock=mock_clock())


def test_busy_loop_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "MAX_STEPS", 1_000)

    async def scenario() -> None:
        for _ in itertools.count():
            await trio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match="it was still running after 1,000 steps") as caught:
        _run.run(scenario, as_they_come, clock=None)
    assert "it does not end when" not in caught.value.args[0]


def test_busy_loop_that_eats_cancellations_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "MAX_STEPS", 1_000)
    monkeypatch.setattr(_run, "_STEPS_TO_END", 100)

    async def scenario() -> None:
        while True:
            with suppress(trio.Cancelled):
                await trio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match="and it does not end when it is cancelled"):
        _run.run(scenario, as_they_come, clock=None)


def test_endless_timers_are_found_by_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "MAX_STEPS", 1_000)

    async def scenario() -> None:
        while True:  # noqa: ASYNC110 - timers without end
            await trio.sleep(5)

    with pytest.raises(AssertionError, match="it was still running after 1,000 steps"):
        _run.run(scenario, as_they_come, clock=mock_clock())


def test_socket_that_nobody_writes_to_is_given_up_where_time_is_simulated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_run, "_PATIENCE", 0.05)

    async def scenario() -> None:
        left, right = trio.socket.socketpair()
        with left, right:
            await trio.sleep(3600)
            await left.recv(1)

    with pytest.raises(AssertionError, match=r"nothing came from outside in 0.05 s"):
        _run.run(scenario, as_they_come, clock=mock_clock())


def test_waiting_for_all_to_be_blocked_is_no_deadlock() -> None:
    async def scenario() -> None:
        for cushion in (0.0, 0.01):
            await trio.testing.wait_all_tasks_blocked(cushion)

    for clock in (None, mock_clock(), trio.testing.MockClock()):
        _run.run(scenario, as_they_come, clock=clock)


def test_failure_on_the_way_out_of_a_deadlock_is_the_cause() -> None:
    async def scenario() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError

    with pytest.raises(AssertionError, match="never ends") as caught:
        _run.run(scenario, as_they_come, clock=mock_clock())
    assert isinstance(caught.value.__cause__, ValueError)
