"""A turnstile that loses a turn if a visitor is cancelled, one that does not, and the proof."""

from __future__ import annotations

from collections import deque

import trio
from trio.testing import wait_all_tasks_blocked

from conpool.testing import cancel_everywhere


class Turnstile:
    """One at a time, first come, first served."""

    def __init__(self) -> None:
        self.is_free = True
        self.queue: deque[trio.Event] = deque()

    async def enter(self) -> None:
        if self.is_free:
            self.is_free = False
            return
        turn = trio.Event()
        self.queue.append(turn)
        await turn.wait()

    def leave(self) -> None:
        if self.queue:
            self.queue.popleft().set()
        else:
            self.is_free = True


class CarefulTurnstile(Turnstile):
    async def enter(self) -> None:
        if self.is_free:
            self.is_free = False
            return
        turn = trio.Event()
        self.queue.append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn in self.queue:
                self.queue.remove(turn)
            else:  # the turn was given already, and nobody is here to use it
                self.leave()
            raise


def find_lost_turn(kind: type[Turnstile]) -> str:
    async def scenario(scope: trio.CancelScope) -> None:
        turnstile = kind()

        async def visit() -> None:
            with scope:
                await turnstile.enter()
                turnstile.leave()

        await turnstile.enter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit)
            await wait_all_tasks_blocked()
            turnstile.leave()
        assert turnstile.is_free

    try:
        return f"sound at {cancel_everywhere(scenario)} points"
    except AssertionError as error:
        return error.__notes__[0]


if __name__ == "__main__":
    print(find_lost_turn(Turnstile))
    print(find_lost_turn(CarefulTurnstile))
