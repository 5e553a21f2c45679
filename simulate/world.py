"""Servers, a network to them, and callers; time is virtual, so that an hour takes seconds.

The pools are real, down to their background tasks. Only what is behind a `Connector` is simulated.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import trio
from trio.testing import MockClock

import conpool

T = TypeVar("T")

REFUSAL: Final = 0.001
"""Seconds until a server that is away refuses a dial: its machine is still there."""


def run(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run in virtual time: whenever all tasks wait, the clock jumps to the next deadline."""
    return trio.run(main, *args, clock=MockClock(autojump_threshold=0))


class Server:
    """Answers each request after its service time, as many at once as it has workers."""

    def __init__(
        self, seed: int, service: float = 0.1, *, workers: int = 1_000_000, dial: float = 0.001
    ) -> None:
        self.dials: list[float] = []
        """When each attempt to connect began."""
        self.is_up = True
        self.hangs = False
        self.slowness = 1.0
        self.service = service
        self.crowding = 0.0
        """By how much of its service time each request beyond the workers slows all."""
        self.workers = workers
        self.dial = dial
        self._random = random.Random(seed)
        self._free = trio.Semaphore(workers)
        self._busy = 0
        self._owed = 0
        self._streams: set[Stream] = set()

    async def connect(self) -> Stream:
        self.dials.append(trio.current_time())
        await trio.sleep(float("inf") if self.hangs else self.dial if self.is_up else REFUSAL)
        if not self.is_up:
            raise ConnectionRefusedError("simulated")
        stream = Stream(self)
        self._streams.add(stream)
        return stream

    async def answer(self) -> None:
        """Take the time of one request, which is random, exponential around `service`."""
        self._busy += 1
        try:
            await self._free.acquire()
            try:
                crowd = max(0, self._busy - self.workers) * self.crowding
                await trio.sleep(self._draw() * self.slowness * (1 + crowd))
            finally:
                self._end_work()
        finally:
            self._busy -= 1

    def set_workers(self, workers: int) -> None:
        """Have more of them at once, or fewer as requests end."""
        for _ in range(workers - self.workers):
            if self._owed:
                self._owed -= 1
            else:
                self._free.release()
        for _ in range(self.workers - workers):
            try:
                self._free.acquire_nowait()
            except trio.WouldBlock:
                self._owed += 1
        self.workers = workers

    def crash(self) -> None:
        """Refuse from now on, and end every connection."""
        self.is_up = False
        for stream in list(self._streams):
            stream.break_off()

    def forget(self, stream: Stream) -> None:
        self._streams.discard(stream)

    def _end_work(self) -> None:
        if self._owed:
            self._owed -= 1  # this worker is the one to go
        else:
            self._free.release()

    def _draw(self) -> float:
        return self._random.expovariate(1 / self.service) if self.service else 0.0


class Stream(trio.abc.Stream):
    """The client's end of a connection to a simulated server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._is_broken = False
        self._is_closed = False
        self._receiving: trio.CancelScope | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._require_alive()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self._require_alive()
        with trio.CancelScope() as self._receiving:
            await self._server.answer()
        self._require_alive()
        return b"!"

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self._is_closed = True
        self._server.forget(self)

    def break_off(self) -> None:
        self._is_broken = True
        if self._receiving is not None:
            self._receiving.cancel()

    def _require_alive(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError
        if self._is_broken:
            raise trio.BrokenResourceError


class Network(conpool.Connector):
    """Leads each endpoint to its server."""

    def __init__(self, servers: dict[conpool.Endpoint, Server]) -> None:
        self._servers = servers

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        assert isinstance(endpoint, conpool.Endpoint)
        return await self._servers[endpoint].connect()


@dataclass(frozen=True, slots=True)
class Call:
    """What came of one call."""

    asked: float
    """When its caller asked for a connection."""
    waited: float
    """Seconds until the caller got one, or learned that there is none."""
    ended: float
    """When the reply was there, or the error."""
    outcome: str
    """`served`, or the name of an exception."""

    @property
    def is_served(self) -> bool:
        return self.outcome == "served"


class Callers:
    """Calls a server through a pool, and remembers what came of it."""

    def __init__(self, pool: conpool.ConnectionPool) -> None:
        self.calls: list[Call] = []
        self._pool = pool

    async def call(self, endpoint: conpool.Endpoint) -> Call:
        """Take a lease for one request; an error of the pool or of the server is an outcome."""
        asked = trio.current_time()
        waited = None
        outcome = "served"
        try:
            async with self._pool.connection(endpoint) as conn:
                waited = trio.current_time() - asked
                await conn.send_all(b"?")
                await conn.receive_some()  # a simulated reply is one byte
        except (conpool.PoolError, trio.BrokenResourceError) as error:
            outcome = type(error).__name__
        now = trio.current_time()
        call = Call(asked, now - asked if waited is None else waited, now, outcome)
        self.calls.append(call)
        return call

    async def come(
        self, rate: float, seconds: float, seed: int, endpoint: conpool.Endpoint
    ) -> None:
        """Have `rate` callers a second come at random, whether or not others still wait."""
        chance = random.Random(seed)
        ends_at = trio.current_time() + seconds
        next_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            while (next_at := next_at + chance.expovariate(rate)) < ends_at:
                await trio.sleep_until(next_at)
                nursery.start_soon(self.call, endpoint)


def share(values: Sequence[float], part: float) -> float:
    """Return the value that `part` of all values do not exceed; 0 if there is none."""
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def most_in_a_second(times: Sequence[float]) -> int:
    """Return the highest number of times within any second."""
    most, first = 0, 0
    ordered = sorted(times)
    for last, time in enumerate(ordered):
        while ordered[first] <= time - 1:
            first += 1
        most = max(most, last - first + 1)
    return most
