"""`fail_everywhere`: which calls are points, what is raised there, and what is left as it was."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from conpool.testing import Failure, fail_everywhere
from tests.unit.testing.toys import SoundSemaphore, mock_clock

HERE = [__name__]

Scenario = Callable[[Failure], Awaitable[object]]


def inside(call: Callable[[], object]) -> Scenario:
    """A scenario that makes a call in its block."""

    async def scenario(failure: Failure) -> None:
        with failure:
            call()

    return scenario


class Unlike(Exception):
    """No exception of anybody else's."""


# ── what counts ─────────────────────────────────────────────────────────────────


def test_calls_of_functions_outside_count_in_python_and_in_c() -> None:
    def two() -> None:
        trio.CancelScope()
        time.monotonic()

    assert fail_everywhere(inside(two), within=HERE) == 2


def test_calls_inside_and_operators_do_not_count() -> None:
    def own() -> None:
        pass

    def work() -> None:
        own()
        assert sorted([len("a"), 2]) == [1, 2]
        assert isinstance(MockClock(), trio.abc.Clock)

    # The clock is made by a call; what `isinstance` calls is none.
    assert fail_everywhere(inside(work), within=HERE) == 1


def test_calls_of_code_that_is_not_under_test_do_not_count() -> None:
    def work() -> None:
        trio.CancelScope().cancel()

    assert fail_everywhere(inside(work), within=["conpool"]) == 0
    assert fail_everywhere(inside(work), within=HERE, apart_from=HERE) == 0
    assert fail_everywhere(inside(work), within=[__package__ or ""]) == 2


def test_the_end_of_a_block_is_never_left_out() -> None:
    def work() -> None:
        with trio.CancelScope() as scope:  # noqa: ASYNC100 - it is about its calls
            scope.cancel()

    assert fail_everywhere(inside(work), within=HERE) == 3  # made, entered, cancelled


def test_an_await_counts_once_however_often_it_waits() -> None:
    async def scenario(failure: Failure) -> None:
        with failure:
            await trio.sleep(1)

    assert fail_everywhere(scenario, within=HERE, clock=mock_clock) == 1


def test_calls_of_all_tasks_count_while_the_block_is_open() -> None:
    async def scenario(failure: Failure) -> None:
        async def child() -> None:
            with suppress(MemoryError):
                await trio.sleep(1)

        await trio.sleep(1)  # before the block
        with failure:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
        await trio.sleep(1)  # after it

    # Making and entering the nursery, and starting the child; there a block and a sleep.
    assert fail_everywhere(scenario, within=HERE, clock=mock_clock) == 3 + 2 + 1


# ── what is raised ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, Unlike])
def test_each_call_fails_once_instead_of_being_made(error: type[BaseException]) -> None:
    made: list[list[str]] = []

    async def scenario(failure: Failure) -> None:
        calls: list[str] = []
        made.append(calls)
        with failure:
            time.monotonic()
            calls.append("first")
            trio.CancelScope()
            calls.append("second")
        assert type(failure.raised) in {error, type(None)}

    assert fail_everywhere(scenario, within=HERE, error=error) == 2
    assert made == [["first", "second"], [], ["first"]]


def test_a_group_of_nothing_else_goes_no_further() -> None:
    async def scenario(failure: Failure) -> None:
        with failure:
            try:
                time.monotonic()
            except MemoryError as error:
                raise ExceptionGroup("outer", [ExceptionGroup("inner", [error])]) from None

    assert fail_everywhere(scenario, within=HERE) == 1


def test_what_else_leaves_the_block_comes_out_and_a_note_names_the_point() -> None:
    async def scenario(failure: Failure) -> None:
        with failure:
            try:
                time.monotonic()
            except MemoryError:
                raise Unlike from None

    with pytest.raises(Unlike) as caught:
        fail_everywhere(scenario, within=HERE)
    (note,) = caught.value.__notes__
    assert "call 1 of 1 failed: time.monotonic, at " in note
    assert "test_fail.py" in note


def test_the_first_run_fails_nothing() -> None:
    seen: list[BaseException | None] = []

    async def scenario(failure: Failure) -> None:
        with failure:
            time.monotonic()
        seen.append(failure.raised)
        assert ("nothing failed" in repr(failure)) == (failure.raised is None)

    fail_everywhere(scenario, within=HERE)
    assert seen[0] is None
    assert isinstance(seen[1], MemoryError)


def test_a_check_runs_outside_of_the_block() -> None:
    checks = 0

    async def check() -> None:
        nonlocal checks
        checks += 1
        time.monotonic()

    assert fail_everywhere(inside(time.monotonic), within=HERE, check=check) == 1
    assert checks == 2


# ── what it finds ───────────────────────────────────────────────────────────────


class Leaky(SoundSemaphore):
    """Wrong: a call that fails after the token was taken keeps it."""

    async def acquire(self) -> None:
        await super().acquire()
        time.monotonic()


def test_a_slot_that_is_lost_when_a_call_fails_is_found() -> None:
    async def scenario(failure: Failure) -> None:
        toy = Leaky(1)
        with failure:
            await toy.acquire()
            toy.release()
        assert toy.free == 1

    with pytest.raises(AssertionError) as caught:
        fail_everywhere(scenario, within=HERE)
    assert "time.monotonic" in caught.value.__notes__[-1]


def test_a_task_that_sleeps_on_when_a_call_fails_is_found() -> None:
    async def scenario(failure: Failure) -> None:
        event = trio.Event()
        with failure:
            event.set()
        await event.wait()

    with pytest.raises(AssertionError, match="never ends"):
        fail_everywhere(scenario, within=HERE)


# ── what is left as it was ──────────────────────────────────────────────────────


def test_profiler_and_garbage_collection_are_as_before() -> None:
    def profile(*_: Any) -> None: ...

    sys.setprofile(profile)
    try:
        assert fail_everywhere(inside(time.monotonic), within=HERE) == 1
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
    assert gc.isenabled()
    gc.disable()
    try:
        fail_everywhere(inside(time.monotonic), within=HERE)
        assert not gc.isenabled()
    finally:
        gc.enable()


# ── wrong use ───────────────────────────────────────────────────────────────────


def test_a_scenario_must_enter_its_block_once() -> None:
    async def never(failure: Failure) -> None: ...

    async def twice(failure: Failure) -> None:
        with failure:
            pass
        with failure:
            pass

    with pytest.raises(RuntimeError, match="never entered"):
        fail_everywhere(never, within=HERE)
    with pytest.raises(RuntimeError, match="only once"):
        fail_everywhere(twice, within=HERE)


def test_one_name_is_no_collection() -> None:
    with pytest.raises(TypeError, match="collection"):
        fail_everywhere(inside(time.monotonic), within="conpool")
    with pytest.raises(TypeError, match="collection"):
        fail_everywhere(inside(time.monotonic), within=HERE, apart_from="conpool")
