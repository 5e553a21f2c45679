"""The lock that keeps the tasks of one connection apart."""

from __future__ import annotations

from typing import final

import trio


@final
class Lock:
    """A fair lock that belongs to no task.

    `trio.Lock` must be released by the task that has acquired it. But psycopg holds the lock inside
    asynchronous generators, which trio may have to finish in another task.

    To acquire a free lock is no checkpoint: whoever cleans up in a cancelled scope must get as far
    as the wait for the socket, which decides what is to be done.
    """

    __slots__ = ("_is_locked", "_waiting")

    def __init__(self) -> None:
        self._is_locked = False
        self._waiting = trio.lowlevel.ParkingLot()

    def locked(self) -> bool:
        """Return whether somebody has it."""
        return self._is_locked

    async def acquire(self) -> None:
        """Wait for it. Cancelling that leaves the order of the others as it was."""
        if self._is_locked:
            await self._waiting.park()  # `release` hands it on
        self._is_locked = True

    def release(self) -> None:
        """Hand it to the first who waits."""
        if self._waiting:
            self._waiting.unpark()
        else:
            self._is_locked = False

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Lock {'taken' if self._is_locked else 'free'}, {len(self._waiting)} waiting>"
