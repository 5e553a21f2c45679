from __future__ import annotations

import itertools
import math
import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import trio

from conpool.testing import explore_schedules, fixed_order
from conpool.testing._schedules import replay
from tests.unit.testing.toys import (
    DeafSemaphore,
    ForgetfulSemaphore,
    SoundSemaphore,
    TicketSemaphore,
    ToyClass,
)

Scenario: TypeAlias = Callable[[], Awaitable[object]]

# ── counting ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 4, 5])
def test_tasks_of_one_step_run_in_every_order(tasks: int) -> None:
    seen: list[tuple[int, ...]] = []

    async def scenario() -> None:
        order: list[int] = []

        async def note(number: int) -> None:
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(note, number)
        seen.append(tuple(order))

    assert explore_schedules(scenario) == math.factorial(tasks)
    assert seen == list(itertools.permutations(range(tasks)))


@pytest.mark.parametrize(("tasks", "steps"), [(2, 1), (2, 4), (3, 2), (3, 3)])
def test_every_batch_is_permuted_independently(tasks: int, steps: int) -> None:
    seen: set[tuple[int, ...]] = set()

    async def scenario() -> None:
        order: list[int] = []

        async def walk(number: int) -> None:
            for step in range(steps):
                order.append(number)
                if step < steps - 1:
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(walk, number)
        seen.add(tuple(order))

    schedules = math.factorial(tasks) ** steps
    assert explore_schedules(scenario) == schedules
    assert len(seen) == schedules


def test_timers_that_are_due_together_fire_in_every_order() -> None:
    seen: set[str] = set()

    async def scenario() -> None:
        order: list[str] = []

        async def wait(name: str, seconds: float) -> None:
            await trio.sleep(seconds)
            order.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "a", 3600)
            nursery.start_soon(wait, "b", 3600)
            nursery.start_soon(wait, "c", 7200)
        assert trio.current_time() == 7200
        seen.add("".join(order))

    # 3! to start, 2! when a and b wake
    assert explore_schedules(scenario) == 12
    assert seen == {"abc", "bac"}


def test_system_tasks_take_part() -> None:
    seen: set[str] = set()

    async def scenario() -> None:
        order: list[str] = []

        async def note(name: str) -> None:
            order.append(name)

        trio.lowlevel.spawn_system_task(note, "system")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, "child")
        seen.add(" ".join(order))

    assert explore_schedules(scenario) == 2
    assert seen == {"system child", "child system"}


def test_what_stands_under_fixed_order_is_not_explored() -> None:
    seen: set[str] = set()

    async def scenario() -> None:
        order: list[str] = []

        async def note(name: str) -> None:
            order.append(name)

        async def three(names: str) -> None:
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(note, name)

        with fixed_order():
            await three("abc")
            with fixed_order():
                await three("def")
            await three("ghi")
        await three("xyz")
        seen.add("".join(order))

    assert explore_schedules(scenario) == 6
    assert len(seen) == 6
    assert {order[:9] for order in seen} == {"abcdefghi"}


def test_fixed_order_ends_with_a_run_that_was_broken_off() -> None:
    async def deadlock() -> None:
        with fixed_order(), trio.CancelScope(shield=True):
            try:
                await trio.sleep_forever()
            finally:
                await trio.sleep_forever()  # noqa: ASYNC102 - what outlasts even being closed

    with pytest.raises(AssertionError, match="never ends"):
        explore_schedules(deadlock)

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(trio.lowlevel.cancel_shielded_checkpoint)

    assert explore_schedules(scenario) == 36


def test_what_ends_with_the_run_is_not_explored() -> None:
    async def scenario() -> None:
        for _ in range(5):
            trio.lowlevel.spawn_system_task(trio.sleep_forever)

    assert explore_schedules(scenario) == 1


def test_limit_stops_early() -> None:
    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(trio.lowlevel.checkpoint)

    assert explore_schedules(scenario, limit=100) == 100
    assert explore_schedules(scenario) == 24**2


# ── telling right from wrong ────────────────────────────────────────────────────


def release_against_cancel(make: ToyClass) -> Scenario:
    """A holder gives back, a waiter is cancelled, a third comes: all at once, at limit 1."""

    async def scenario() -> None:
        semaphore = make(1)
        await semaphore.acquire()
        scope = trio.CancelScope()

        async def wait() -> None:
            with scope:
                await semaphore.acquire()
                semaphore.release()

        async def give_back() -> None:
            semaphore.release()

        async def cancel() -> None:
            scope.cancel()

        async def come() -> None:
            await semaphore.acquire()
            semaphore.release()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            for task in (give_back, cancel, come):
                nursery.start_soon(task)
        assert semaphore.free == 1, "a token is lost"

    return scenario


def test_sound_semaphore_passes_in_every_order() -> None:
    # 3! for those that start together; in three of these, two of them go on together
    assert explore_schedules(release_against_cancel(SoundSemaphore)) == 6 + 3


def test_ticket_given_to_a_cancelled_waiter_is_caught() -> None:
    # the newcomer waits for the lost token
    with pytest.raises(AssertionError, match="every task waits for another") as caught:
        explore_schedules(release_against_cancel(TicketSemaphore))
    assert " in come" not in caught.value.args[0]
    assert re.search(r"come: .*toys.py:\d+ in acquire", caught.value.args[0])


def test_await_between_taking_and_owning_is_caught() -> None:
    async def scenario() -> None:
        semaphore = ForgetfulSemaphore(1)
        scope = trio.CancelScope()

        async def take() -> None:
            with scope:
                await semaphore.acquire()
                semaphore.release()

        async def cancel() -> None:
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            nursery.start_soon(cancel)
        assert semaphore.free == 1, "a token is lost"

    with pytest.raises(AssertionError, match="a token is lost"):
        explore_schedules(scenario)


def test_lost_wake_up_is_caught_as_a_deadlock() -> None:
    with pytest.raises(AssertionError, match="every task waits for another"):
        explore_schedules(release_against_cancel(DeafSemaphore))


# ── failures ────────────────────────────────────────────────────────────────────


def fail_in_the_order(wanted: str) -> Scenario:
    async def scenario() -> None:
        order: list[str] = []

        async def note(name: str) -> None:
            order.append(name)
            await trio.lowlevel.checkpoint()
            order.append(name)

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(note, name, name=name)
        if "".join(order) == wanted:
            raise ValueError(wanted)

    return scenario


def test_failure_comes_out_as_it_is_with_schedule_and_replay() -> None:
    with pytest.raises(ValueError, match="bacabc") as caught:
        explore_schedules(fail_in_the_order("bacabc"))
    [note] = caught.value.__notes__
    assert note == (
        "conpool.testing: in schedule 13. Run it again with "
        "`conpool.testing._schedules.replay(scenario, [2])`. "
        "The batches of several tasks ran in this order:\n"
        "  b → a → c\n"
        "  a → b → c"
    )


def test_replay_runs_the_failed_schedule_again() -> None:
    scenario = fail_in_the_order("bcacab")
    with pytest.raises(ValueError) as caught:
        explore_schedules(scenario)
    [note] = caught.value.__notes__
    found = re.search(r"replay\(scenario, \[(\d+), (\d+)\]\)", note)
    assert found is not None
    choices = [int(choice) for choice in found.groups()]
    assert choices == [3, 4]
    with pytest.raises(ValueError, match="bcacab"):
        replay(scenario, choices)
    replay(scenario, [3, 3])


def test_replay_of_choices_that_do_not_exist_is_refused() -> None:
    scenario = fail_in_the_order("never")
    with pytest.raises(RuntimeError, match=r"choice 6 is more than the batch \('a', 'b', 'c'\)"):
        replay(scenario, [6])
    with pytest.raises(RuntimeError, match="it ended after 2 of 3 choices"):
        replay(scenario, [0, 0, 0])


def test_long_schedules_are_shown_in_part() -> None:
    async def scenario() -> None:
        async def walk() -> None:
            for _ in range(60):
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(walk)
            nursery.start_soon(walk)
        raise ValueError

    with pytest.raises(ValueError) as caught:
        explore_schedules(scenario)
    [note] = caught.value.__notes__
    assert note.count("→") == 40
    assert note.endswith("\n  …")


def test_scenario_that_remembers_the_last_run_is_refused() -> None:
    runs = 0

    async def scenario() -> None:
        nonlocal runs
        runs += 1
        async with trio.open_nursery() as nursery:
            for _ in range(1 + runs):
                nursery.start_soon(trio.lowlevel.checkpoint)

    with pytest.raises(RuntimeError, match="the scenario is not the same in each run"):
        explore_schedules(scenario)


async def test_inside_of_a_run_it_is_refused() -> None:
    async def scenario() -> None:
        pass

    with pytest.raises(RuntimeError, match="from inside"):
        explore_schedules(scenario)
