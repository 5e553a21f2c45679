"""Pools of ten lines, written here to compare with.

They promise nothing: they do not count a connection while it closes, do not probe an idle one, and
do not notice an unfinished exchange.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, final

import trio

Dial = Callable[[], Awaitable[trio.abc.Stream]]


@final
class LimiterPool:
    """A `CapacityLimiter` and a deque, lent by a class or by a generator."""

    def __init__(self, limit: int, dial: Dial) -> None:
        self.limiter = trio.CapacityLimiter(limit)
        self.idle: deque[trio.abc.Stream] = deque()
        self.dial = dial

    def connection(self) -> LimiterLease:
        """Lend for the length of a block, by a class: the cheapest way."""
        return LimiterLease(self)

    def timed_connection(self, seconds: float) -> TimedLimiterLease:
        """Lend for the length of a block, after at most so many seconds."""
        return TimedLimiterLease(self, seconds)

    @asynccontextmanager
    async def generated_connection(self) -> AsyncIterator[trio.abc.Stream]:
        """Lend for the length of a block, by a generator: the obvious way."""
        async with LimiterLease(self) as stream:
            yield stream

    def close(self) -> None:
        """Close what is idle."""
        for stream in self.idle:
            if isinstance(stream, trio.SocketStream):
                stream.socket.close()


class LimiterLease:
    """One lease of a `LimiterPool`."""

    __slots__ = ("_pool", "_stream")

    def __init__(self, pool: LimiterPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> trio.abc.Stream:
        pool = self._pool
        await pool.limiter.acquire_on_behalf_of(self)
        self._stream = pool.idle.pop() if pool.idle else await pool.dial()
        return self._stream

    async def __aexit__(self, *exc_info: object) -> None:
        self._pool.idle.append(self._stream)
        self._pool.limiter.release_on_behalf_of(self)


@final
class TimedLimiterLease(LimiterLease):
    """One lease of a `LimiterPool`, with a time-out of its own."""

    __slots__ = ("_seconds",)

    def __init__(self, pool: LimiterPool, seconds: float) -> None:
        super().__init__(pool)
        self._seconds = seconds

    async def __aenter__(self) -> trio.abc.Stream:
        with trio.fail_after(self._seconds):
            return await super().__aenter__()


@final
class ChannelPool:
    """A memory channel that holds the connections; all are dialled beforehand."""

    def __init__(self, limit: int) -> None:
        send, receive = trio.open_memory_channel[Any](limit)
        self.send, self.receive = send, receive

    async def fill(self, limit: int, dial: Dial) -> None:
        """Dial all connections."""
        for _ in range(limit):
            self.send.send_nowait(await dial())

    def connection(self) -> ChannelLease:
        """Lend for the length of a block."""
        return ChannelLease(self)

    def close(self) -> None:
        """Close what is idle."""
        while self.receive.statistics().current_buffer_used:
            self.receive.receive_nowait().socket.close()


@final
class ChannelLease:
    """One lease of a `ChannelPool`."""

    __slots__ = ("_pool", "_stream")

    def __init__(self, pool: ChannelPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Any:
        self._stream = await self._pool.receive.receive()
        return self._stream

    async def __aexit__(self, *exc_info: object) -> None:
        self._pool.send.send_nowait(self._stream)
