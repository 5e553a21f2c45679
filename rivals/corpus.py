"""The cases. Each returns what went wrong, which may be nothing.

After every case the pool must serve the next caller, with that caller's own answer, and no socket
may be open that the pool does not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Final, TypeAlias

from .rival import Rival
from .runtime import Cut, Fate, Job, Runtime, When, wait_ended, wait_for
from .sockets import count_sockets

NewRival: TypeAlias = Callable[[Runtime], Rival]

_MOST_STEPS: Final = 60
_PATIENCE: Final = 1.5
_TO_SETTLE: Final = 0.03


@dataclass(slots=True)
class Findings:
    """What went wrong, at how many of the points that were tried."""

    points: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    note: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing was wrong."""
        return not self.seen

    def __str__(self) -> str:
        of = f" at {self.points} points" if self.points > 1 else ""
        if self.is_good:
            return f"ok{of}{self.note}"
        if self.points <= 1:
            return "; ".join(self.seen)
        parts = (f"{what}: {times} of {self.points}" for what, times in self.seen.items())
        return "; ".join(parts)


Case: TypeAlias = Callable[[Runtime, NewRival], Awaitable[Findings]]


async def cancel_in_use(runtime: Runtime, new: NewRival) -> Findings:
    """A request over an idle connection is cancelled at each of its steps; another follows."""

    async def one(rival: Rival, cut: Cut) -> Job:
        await rival.ask(1)
        return await _end(runtime, runtime.start(lambda: rival.ask(2), cut))

    return await _sweep(runtime, new, one)


async def cancel_in_queue(runtime: Runtime, new: NewRival) -> Findings:
    """A waiting request is cancelled, also in the tick in which it gets the only connection."""

    async def one(rival: Rival, cut: Cut) -> Job:
        holder = runtime.start(rival.hold)
        await wait_for(runtime, lambda: rival.is_held)
        waiter = runtime.start(lambda: rival.ask(2), cut)
        await runtime.sleep(0.01)
        rival.let_go()
        await _end(runtime, holder)
        return await _end(runtime, waiter)

    return await _sweep(runtime, new, one)


async def cancel_in_dial(runtime: Runtime, new: NewRival) -> Findings:
    """The first request is cancelled at each step of connecting."""

    async def one(rival: Rival, cut: Cut) -> Job:
        return await _end(runtime, runtime.start(lambda: rival.ask(2), cut))

    return await _sweep(runtime, new, one)


async def cancel_in_handshake(runtime: Runtime, new: NewRival) -> Findings:
    """A TLS handshake that hangs is cancelled: its socket must be closed."""
    found = Findings(points=1)
    async with _opened(new(runtime), 1) as rival:
        job = runtime.start(rival.ask_silent)
        await wait_for(
            runtime,
            lambda: job.fate is not Fate.RUNNING or count_sockets(rival.silent_port) > 0,
        )
        await runtime.sleep(_TO_SETTLE)
        _raise_failure(job)
        job.cancel()
        await _end(runtime, job)
        if job.fate is Fate.RUNNING:
            found.seen["it does not end"] += 1
        job = runtime.start(lambda: rival.ask(3))
        await _end(runtime, job)
        if job.fate is not Fate.RETURNED:
            found.seen["slot lost"] += 1
    await runtime.sleep(_TO_SETTLE)
    if count_sockets(rival.silent_port):
        found.seen["socket left open after the pool was closed"] += 1
    return found


async def swallow_timeout(runtime: Runtime, new: NewRival) -> Findings:
    """A block swallows a time-out; nobody may read the late rest of that reply."""
    found = Findings(points=1)
    async with _opened(new(runtime), 1) as rival:
        job = await _end(runtime, runtime.start(rival.ask_and_lose_patience))
        _raise_failure(job)
        for number in (2, 3):
            found.seen.update(await _ask_next(runtime, rival, number))
            await runtime.sleep(0.15)  # by then the late rest has arrived
    return found


async def receive_unasked(runtime: Runtime, new: NewRival) -> Findings:
    """The server sends bytes over an idle connection; nobody may take them for an answer."""
    found = Findings(points=1)
    async with _opened(new(runtime), 1) as rival:
        await rival.ask(1)
        await rival.receive_unasked()
        for number in (2, 3):
            found.seen.update(await _ask_next(runtime, rival, number))
    return found


async def keep_limit(runtime: Runtime, new: NewRival) -> Findings:
    """Thirty tasks over a limit of two, some of them cancelled: count the sockets."""
    limit, most = 2, 0
    chance = Random(7)
    async with _opened(new(runtime), limit) as rival:
        jobs = [runtime.start(lambda: _ask_often(rival)) for _ in range(30)]
        for _ in range(2000):
            most = max(most, rival.count_sockets())
            if all(job.fate is not Fate.RUNNING for job in jobs):
                break
            if chance.random() < 0.1:
                chance.choice(jobs[::3]).cancel()
            await runtime.sleep(0)
    found = Findings(points=1, note=f": at most {most}")
    if most > limit:
        found.seen[f"{most} sockets, for a limit of {limit}"] += 1
    return found


async def keep_limit_over_hosts(runtime: Runtime, new: NewRival) -> Findings:
    """Twenty hosts, one after the other, for a limit of two: count the sockets."""
    limit, most = 2, 0
    async with _opened(new(runtime), limit) as rival:
        for host in range(1, 21):
            await rival.ask_host(host)
            most = max(most, rival.count_sockets())
    found = Findings(points=1, note=f": at most {most}")
    if most > limit:
        found.seen[f"{most} sockets, for a limit of {limit}"] += 1
    return found


async def close_with_queue(runtime: Runtime, new: NewRival) -> Findings:
    """The pool is closed while a request waits for the only connection."""
    found = Findings(points=1)
    async with _opened(new(runtime), 1) as rival:
        holder = runtime.start(rival.hold)
        await wait_for(runtime, lambda: rival.is_held)
        waiter = runtime.start(lambda: rival.ask(2))
        await runtime.sleep(_TO_SETTLE)
        closing = runtime.start(rival.close)
        await runtime.sleep(_TO_SETTLE)
        rival.let_go()
        await _end(runtime, closing)
        await _end(runtime, holder)
        await _end(runtime, waiter)
        if waiter.fate is Fate.RETURNED:
            found.seen["served after the close"] += 1
        elif waiter.fate is Fate.RUNNING:
            found.seen["waits for ever"] += 1
        await runtime.sleep(_TO_SETTLE)
        if rival.count_sockets():
            found.seen["socket left open"] += 1
    return found


async def ask_closed(runtime: Runtime, new: NewRival) -> Findings:
    """A request after the pool was closed."""
    found = Findings(points=1)
    async with _opened(new(runtime), 1) as rival:
        await rival.ask(1)
        await rival.close()
        late = await _end(runtime, runtime.start(lambda: rival.ask(2)))
        if late.fate is Fate.RETURNED:
            found.seen["served, over a new connection"] += 1
        elif late.fate is Fate.RUNNING:
            found.seen["waits for ever"] += 1
        await runtime.sleep(_TO_SETTLE)
        if rival.count_sockets():
            found.seen["socket left open"] += 1
    return found


CASES: Final[dict[str, Case]] = {
    "cancelled in use": cancel_in_use,
    "cancelled in the queue": cancel_in_queue,
    "cancelled in the dial": cancel_in_dial,
    "cancelled in a TLS handshake": cancel_in_handshake,
    "time-out swallowed": swallow_timeout,
    "bytes while idle": receive_unasked,
    "limit, tasks cancelled": keep_limit,
    "limit, many hosts": keep_limit_over_hosts,
    "closed, one in the queue": close_with_queue,
    "closed, asked again": ask_closed,
}


# ── what the cases share ────────────────────────────────────────────────────────


async def _sweep(
    runtime: Runtime, new: NewRival, one: Callable[[Rival, Cut], Awaitable[Job]]
) -> Findings:
    """Cancel at each step, each time with a new pool of one connection."""
    found = Findings()
    for when in When:
        for step in count(1):
            cut = Cut(step, when)
            async with _opened(new(runtime), 1) as rival:
                job = await one(rival, cut)
                if not cut.reached or step > _MOST_STEPS:
                    _raise_failure(job)
                    break
                found.points += 1
                found.seen.update(await _look_after(runtime, rival, job))
            await runtime.sleep(_TO_SETTLE)
            if rival.count_sockets():
                found.seen["socket left open after the pool was closed"] += 1
                await _let_linger(runtime, rival)
    return found


async def _let_linger(runtime: Runtime, rival: Rival) -> None:
    """Wait for sockets that close late, so that the next point does not count them."""
    await wait_for(runtime, lambda: not rival.count_sockets(), 0.5)


async def _look_after(runtime: Runtime, rival: Rival, job: Job) -> set[str]:
    seen: set[str] = set()
    if job.fate is Fate.RUNNING:
        seen.add("it does not end")
        job.cancel()
    elif job.fate is Fate.RETURNED and runtime.cancellation_always_raises:
        seen.add("cancellation swallowed")
    elif job.fate is Fate.FAILED:
        seen.add(f"{type(job.error).__name__} in place of the cancellation")
    await runtime.sleep(_TO_SETTLE)  # by then a late reply has arrived
    return seen | set(await _ask_next(runtime, rival, 3))


async def _ask_next(runtime: Runtime, rival: Rival, number: int) -> list[str]:
    """Make the next request; return what is wrong with it."""
    job = await _end(runtime, runtime.start(lambda: rival.ask(number)))
    if job.fate is Fate.RUNNING:
        job.cancel()
        return ["slot lost"]
    if job.fate is Fate.FAILED:
        return [f"the next caller gets {type(job.error).__name__}"]
    return [] if job.value == number else ["the next caller reads another's reply"]


async def _ask_often(rival: Rival) -> None:
    for number in range(3):
        await rival.ask(number)


async def _end(runtime: Runtime, job: Job) -> Job:
    await wait_ended(runtime, job, _PATIENCE)
    return job


def _raise_failure(job: Job) -> None:
    """Raise the job's error: here it should have none."""
    if job.fate is Fate.FAILED:
        assert job.error is not None
        raise job.error


@asynccontextmanager
async def _opened(rival: Rival, limit: int) -> AsyncIterator[Rival]:
    await rival.open(limit)
    try:
        yield rival
    finally:
        rival.let_go()
        await rival.leave()
