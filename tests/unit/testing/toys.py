"""Small semaphores; some are wrong in ways that real pools were, and the proofs must notice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task
from trio.testing import MockClock


def mock_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class Toy(Protocol):
    free: int

    async def acquire(self) -> None: ...
    def release(self) -> None: ...


ToyClass: TypeAlias = Callable[[int], Toy]


class SoundSemaphore:
    """Right: hand-over is one synchronous step, with an abort function."""

    def __init__(self, tokens: int) -> None:
        self.free = tokens
        self._waiting: dict[Task, None] = {}

    async def acquire(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.free:
            self.free -= 1
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        task = trio.lowlevel.current_task()
        self._waiting[task] = None

        def abort(_: RaiseCancelT) -> Abort:
            del self._waiting[task]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def release(self) -> None:
        if self._waiting:
            task = next(iter(self._waiting))
            del self._waiting[task]
            trio.lowlevel.reschedule(task)
        else:
            self.free += 1


class ForgetfulSemaphore:
    """Wrong: an await between taking the token and owning it (httpcore #1093's shape)."""

    def __init__(self, tokens: int) -> None:
        self.free = tokens
        self._freed = trio.Event()

    async def acquire(self) -> None:
        while not self.free:
            await self._freed.wait()
        self.free -= 1
        await trio.lowlevel.checkpoint()

    def release(self) -> None:
        self.free += 1
        self._freed.set()
        self._freed = trio.Event()


class TicketSemaphore:
    """Wrong: a ticket with an Event; a cancelled waiter loses its token (aiohttp #9670)."""

    def __init__(self, tokens: int) -> None:
        self.free = tokens
        self._tickets: deque[trio.Event] = deque()

    async def acquire(self) -> None:
        if self.free:
            await trio.lowlevel.checkpoint_if_cancelled()
            self.free -= 1
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        ticket = trio.Event()
        self._tickets.append(ticket)
        try:
            await ticket.wait()
        except trio.Cancelled:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
            raise

    def release(self) -> None:
        if self._tickets:
            self._tickets.popleft().set()
        else:
            self.free += 1


class DeafSemaphore(SoundSemaphore):
    """Wrong: it wakes nobody."""

    def release(self) -> None:
        self.free += 1
