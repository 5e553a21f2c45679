from __future__ import annotations

import random
import socket

import pytest
import trio
from trio.testing import MockClock

from conpool.testing import _cancel, cancel_everywhere
from tests.unit.testing.toys import (
    ForgetfulSemaphore,
    SoundSemaphore,
    TicketSemaphore,
    ToyClass,
    mock_clock,
)

# ── counting ────────────────────────────────────────────────────────────────────


def test_scope_without_checkpoint_has_one_point() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        with scope:
            pass

    assert cancel_everywhere(scenario) == 1


def test_each_checkpoint_is_one_point_more() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        with scope:
            for _ in range(5):
                await trio.lowlevel.checkpoint()

    assert cancel_everywhere(scenario) == 1 + 5


def test_wait_has_a_point_while_everybody_waits_and_one_after_it() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(1)

    assert cancel_everywhere(scenario, clock=mock_clock) == 1 + 2


def test_points_outside_of_the_scope_are_not_tried() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        await trio.sleep(3)
        with scope:
            await trio.lowlevel.checkpoint()
        await trio.sleep(3)

    assert cancel_everywhere(scenario, clock=mock_clock) == 1 + 1


def test_steps_of_child_and_system_tasks_are_points() -> None:
    async def two_steps() -> None:
        await trio.lowlevel.checkpoint()

    async def scenario(scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(two_steps)
                trio.lowlevel.spawn_system_task(two_steps)

    # two steps of each child, then one of the scenario's own task
    assert cancel_everywhere(scenario) == 1 + 2 * 2 + 1


def test_each_point_hits_another_place() -> None:
    seen: list[tuple[str, ...]] = []

    async def scenario(scope: trio.CancelScope) -> None:
        reached: list[str] = []
        with scope:
            reached.append("entered")
            await trio.lowlevel.checkpoint()
            reached.append("checked")
            await trio.sleep(1)
            reached.append("slept")
            await trio.lowlevel.cancel_shielded_checkpoint()
            reached.append("yielded")
        assert scope.cancelled_caught == (scope.cancel_called and reached[-1] != "yielded")
        seen.append(tuple(reached))

    points = cancel_everywhere(scenario, clock=mock_clock)
    everything = ("entered", "checked", "slept", "yielded")
    expected = [
        everything,  # not cancelled
        everything[:1],  # before it entered the scope
        everything[:1],  # at the checkpoint
        everything[:2],  # asleep
        everything[:2],  # woken, but not yet running
        everything,  # too late: what follows is shielded
    ]
    assert seen == expected
    assert points == len(seen) - 1


def test_the_scenario_sees_its_tasks_in_the_same_order_each_time() -> None:
    orders: set[tuple[int, ...]] = set()

    async def scenario(scope: trio.CancelScope) -> None:
        order: list[int] = []

        async def note(number: int) -> None:
            order.append(number)

        with scope:
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(note, number)
        orders.add(tuple(order))

    assert cancel_everywhere(scenario) == 1 + 6 + 1
    assert orders == {(0, 1, 2, 3, 4, 5)}


def test_jitter_is_the_same_in_each_run_and_undone_afterwards() -> None:
    drawn: set[float] = set()

    async def scenario(scope: trio.CancelScope) -> None:
        drawn.add(random.random())
        with scope:
            await trio.sleep(random.random())

    random.seed(1)
    cancel_everywhere(scenario, clock=mock_clock)
    random.seed(2)
    before = random.getstate()
    cancel_everywhere(scenario, clock=mock_clock)
    assert len(drawn) == 1
    assert random.getstate() == before


def test_points_are_found_without_the_private_field_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        await trio.lowlevel.checkpoint()
        with scope:
            await trio.lowlevel.checkpoint()

    assert cancel_everywhere(scenario, check=trio.lowlevel.checkpoint) == 1 + 1
    monkeypatch.setattr(_cancel, "_is_open", lambda _: True)
    assert cancel_everywhere(scenario, check=trio.lowlevel.checkpoint) == 1 + 2


# ── telling right from wrong ────────────────────────────────────────────────────


async def take_and_give_back(make: ToyClass, scope: trio.CancelScope) -> None:
    semaphore = make(1)
    with scope:
        await semaphore.acquire()
        semaphore.release()
    assert semaphore.free == 1, "a token is lost"


async def wait_while_another_gives_back(make: ToyClass, scope: trio.CancelScope) -> None:
    semaphore = make(1)
    await semaphore.acquire()

    async def give_back() -> None:
        await trio.sleep(1)
        semaphore.release()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_back)
        with scope:
            await semaphore.acquire()
            semaphore.release()
    assert semaphore.free == 1, "a token is lost"


def test_sound_semaphore_passes_everywhere() -> None:
    async def alone(scope: trio.CancelScope) -> None:
        await take_and_give_back(SoundSemaphore, scope)

    async def queued(scope: trio.CancelScope) -> None:
        await wait_while_another_gives_back(SoundSemaphore, scope)

    assert cancel_everywhere(alone, clock=mock_clock) == 2
    # before; at its start; all asleep; before the other's last step; woken
    assert cancel_everywhere(queued, clock=mock_clock) == 5


def test_await_between_taking_and_owning_is_caught() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        await take_and_give_back(ForgetfulSemaphore, scope)

    with pytest.raises(AssertionError, match="a token is lost") as caught:
        cancel_everywhere(scenario)
    [note] = caught.value.__notes__
    assert note == "conpool.testing: cancelled at point 1 of 2, before the scope was entered"


def test_ticket_given_to_a_cancelled_waiter_is_caught() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        await wait_while_another_gives_back(TicketSemaphore, scope)

    with pytest.raises(AssertionError, match="a token is lost") as caught:
        cancel_everywhere(scenario, clock=mock_clock)
    [note] = caught.value.__notes__
    # just before the other gives it back: the waiter is cancelled, but still in the queue
    assert "just before task" in note
    assert "in give_back; the scenario was at" in note
    assert note.endswith(" in acquire")


def test_locks_of_trio_pass_everywhere() -> None:
    for make in (trio.Lock, lambda: trio.CapacityLimiter(1), lambda: trio.Semaphore(1)):

        async def scenario(scope: trio.CancelScope) -> None:
            lock = make()  # noqa: B023 - used within this turn

            async def hold() -> None:
                async with lock:
                    await trio.sleep(1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(hold)
                await trio.testing.wait_all_tasks_blocked()
                with scope:
                    async with lock:
                        await trio.sleep(1)
            async with lock:
                pass

        assert cancel_everywhere(scenario, clock=mock_clock) > 5


# ── check ───────────────────────────────────────────────────────────────────────


def test_check_is_awaited_once_per_run_outside_of_the_scope() -> None:
    checked: list[float] = []

    async def scenario(scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(1)

    async def check() -> None:
        await trio.sleep(1)  # raises nothing, although the scope is cancelled
        checked.append(trio.current_time())

    assert cancel_everywhere(scenario, check=check, clock=mock_clock) == 3
    assert checked == [2, 1, 1, 2]


def test_what_check_raises_comes_out_as_it_is_and_names_the_point() -> None:
    error = ValueError("not what it was")
    cancelled = False

    async def scenario(scope: trio.CancelScope) -> None:
        nonlocal cancelled
        with scope:
            await trio.sleep(1)
        cancelled = scope.cancelled_caught

    async def check() -> None:
        if cancelled:
            raise error

    with pytest.raises(ValueError, match="not what it was") as caught:
        cancel_everywhere(scenario, check=check, clock=mock_clock)
    assert caught.value is error
    assert caught.value.__notes__ == [
        "conpool.testing: cancelled at point 1 of 3, before the scope was entered"
    ]


def test_point_while_everybody_waits_is_named() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        with scope:
            await trio.lowlevel.checkpoint()
            try:
                await trio.sleep(1)
            finally:
                if scope.cancel_called:
                    raise ValueError

    with pytest.raises(ValueError) as caught:
        cancel_everywhere(scenario, clock=mock_clock)
    [note] = caught.value.__notes__
    assert "cancelled at point 3 of 4, while every task waited; the scenario was at " in note
    assert note.endswith(" in scenario")


def test_scenario_that_fails_by_itself_is_not_blamed_on_a_cancellation() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        with scope:
            raise ValueError

    with pytest.raises(ValueError) as caught:
        cancel_everywhere(scenario)
    assert caught.value.__notes__ == ["conpool.testing: nothing was cancelled"]


# ── misuse ──────────────────────────────────────────────────────────────────────


def test_scenario_must_enter_its_scope() -> None:
    async def scenario(_: trio.CancelScope) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError, match="never entered the scope"):
        cancel_everywhere(scenario)


async def test_inside_of_a_run_it_is_refused() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        with scope:
            pass

    with pytest.raises(RuntimeError, match="from inside"):
        cancel_everywhere(scenario)


# ── the world outside ───────────────────────────────────────────────────────────


def test_real_time_and_sockets_are_waited_for() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        left, right = socket.socketpair()
        with left, right:
            near = trio.SocketStream(trio.socket.from_stdlib_socket(left))
            far = trio.SocketStream(trio.socket.from_stdlib_socket(right))

            async def answer() -> None:
                await trio.sleep(0.001)
                await far.send_all(b"x")

            async with near, far, trio.open_nursery() as nursery:
                nursery.start_soon(answer)
                with scope:
                    assert await near.receive_some() == b"x"

    assert cancel_everywhere(scenario) >= 3


def test_threads_are_waited_for() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        with scope:
            assert await trio.to_thread.run_sync(lambda: 7) == 7

    for clock in (None, mock_clock, MockClock):
        assert cancel_everywhere(scenario, clock=clock) >= 2
