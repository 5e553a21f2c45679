"""trio and asyncio behind one face: jobs, and a cut at any step of a job.

A step is one suspension of a job's task. A cut cancels the job at its n-th one, in one of two ways:

`BLOCKED`   as soon as the task has gone to sleep;
`SERVED`    when the event that it waits for has happened, but before it runs again. In this moment
            a pool may hand something to a task that is about to be cancelled.

On both libraries the moment is exact: steps are counted, not timed.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, final

import trio

Work: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]
T = TypeVar("T")


class When(enum.Enum):
    """The two moments in which a job can be cut."""

    BLOCKED = "blocked"
    SERVED = "served"


@dataclass(slots=True)
class Cut:
    """Where a job is cancelled, and whether it got that far."""

    step: int
    when: When
    reached: bool = False


class Fate(enum.Enum):
    """How a job has ended."""

    RUNNING = "running"
    RETURNED = "returned"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Job:
    """Work in a task of its own; errors are kept, not raised."""

    def __init__(self) -> None:
        self.fate = Fate.RUNNING
        self.value: Any = None
        self.error: BaseException | None = None

    def cancel(self) -> None:
        """Cancel it, if it still runs."""
        raise NotImplementedError


class Runtime(Protocol):
    """What a case needs of the library on which a pool runs."""

    cancellation_always_raises: bool
    """Whether a job that was cut and still returned must have swallowed its cancellation."""

    async def sleep(self, seconds: float) -> None:
        """Let other tasks run for a while."""
        ...

    def start(self, work: Work, cut: Cut | None = None) -> Job:
        """Start a job."""
        ...


async def wait_for(runtime: Runtime, is_so: Callable[[], bool], seconds: float = 2.0) -> bool:
    """Wait until `is_so()`; return whether that happened in time."""
    for _ in range(int(seconds / 0.002)):
        if is_so():
            return True
        await runtime.sleep(0.002)
    return is_so()


async def wait_ended(runtime: Runtime, job: Job, seconds: float = 2.0) -> bool:
    """Wait until a job has ended; return whether it did in time."""
    return await wait_for(runtime, lambda: job.fate is not Fate.RUNNING, seconds)


# ── asyncio ─────────────────────────────────────────────────────────────────────


@final
class AsyncioJob(Job):
    """A job in an asyncio task."""

    def __init__(self, work: Work, cut: Cut | None) -> None:
        super().__init__()
        self._task = asyncio.create_task(self._run(work, cut))

    async def _run(self, work: Work, cut: Cut | None) -> None:
        try:
            self.value = await (work() if cut is None else _Steps(work(), cut))
            self.fate = Fate.RETURNED
        except asyncio.CancelledError:
            self.fate = Fate.CANCELLED
        except Exception as error:  # noqa: BLE001 - kept for the case to judge
            self.fate, self.error = Fate.FAILED, error

    def cancel(self) -> None:
        self._task.cancel()


@final
class _Steps:
    """Awaits a coroutine, counting its steps, and has its task cancelled at one of them."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], cut: Cut) -> None:
        self._coroutine = coroutine
        self._cut = cut

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._coroutine.__await__()
        thrown: BaseException | None = None
        steps = 0
        while True:
            try:
                awaited = inner.send(None) if thrown is None else inner.throw(thrown)
            except StopIteration as stop:
                return stop.value
            steps += 1
            if steps == self._cut.step:
                self._apply(awaited)
            thrown = None
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - passed on to the coroutine
                thrown = error

    def _apply(self, awaited: asyncio.Future[Any] | None) -> None:
        self._cut.reached = True
        task = asyncio.current_task()
        assert task is not None
        if self._cut.when is When.BLOCKED:
            task.cancel()  # delivered as soon as the task yields
        elif awaited is None:
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            # Called before the task's own callback, so the task is cancelled just before it runs.
            awaited.add_done_callback(lambda _: task.cancel())


@final
class AsyncioRuntime:
    """Jobs on asyncio."""

    cancellation_always_raises = True

    def __init__(self) -> None:
        self._jobs: list[AsyncioJob] = []

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def start(self, work: Work, cut: Cut | None = None) -> Job:
        job = AsyncioJob(work, cut)
        self._jobs.append(job)
        return job

    async def end(self) -> None:
        """Cancel whatever still runs, and insist: some pools swallow the first cancellation."""
        for _ in range(10):
            running = [job._task for job in self._jobs if not job._task.done()]
            if not running:
                return
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=0.1)


# ── trio ────────────────────────────────────────────────────────────────────────


@final
class TrioJob(Job, trio.abc.Instrument):
    """A job in a trio task; it watches its own task if it is to be cut."""

    def __init__(self, work: Work, cut: Cut | None) -> None:
        super().__init__()
        self._work = work
        self._cut = cut
        self._scope = trio.CancelScope()
        self._task: trio.lowlevel.Task | None = None
        self._steps = 0

    async def run(self) -> None:
        """Do the work, in the task that is the job's own."""
        self._task = trio.lowlevel.current_task()
        if self._cut is not None:
            self._steps = 1  # under way already
            trio.lowlevel.add_instrument(self)
        try:
            with self._scope:
                self.value = await self._work()
        except Exception as error:  # noqa: BLE001 - kept for the case to judge
            self.fate, self.error = Fate.FAILED, error
        else:
            self.fate = Fate.CANCELLED if self._scope.cancelled_caught else Fate.RETURNED
        finally:
            if self._cut is not None:
                with suppress(KeyError):
                    trio.lowlevel.remove_instrument(self)

    def cancel(self) -> None:
        self._scope.cancel()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """The task runs, until its next suspension."""
        self._steps += task is self._task

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """The task has suspended itself."""
        if task is self._task:
            self._cut_if(When.BLOCKED)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """The event that the task waited for has happened."""
        if task is self._task:
            self._cut_if(When.SERVED)

    def _cut_if(self, when: When) -> None:
        cut = self._cut
        if cut is not None and cut.when is when and cut.step == self._steps and not cut.reached:
            cut.reached = True
            self._scope.cancel()


@final
class TrioRuntime:
    """Jobs on trio."""

    # A cut may come after the job's last checkpoint, where trio would have raised.
    cancellation_always_raises = False

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def start(self, work: Work, cut: Cut | None = None) -> Job:
        job = TrioJob(work, cut)
        self._nursery.start_soon(job.run)
        return job


# ── running a case ──────────────────────────────────────────────────────────────


@asynccontextmanager
async def _open_trio() -> AsyncIterator[TrioRuntime]:
    async with trio.open_nursery() as nursery:
        yield TrioRuntime(nursery)
        nursery.cancel_scope.cancel()


def run_on_trio(case: Callable[[Runtime], Awaitable[T]], seconds: float) -> T | None:
    """Run a case; None if it does not end in time."""

    async def main() -> T | None:
        with trio.move_on_after(seconds):
            async with _open_trio() as runtime:
                return await case(runtime)
        return None

    return trio.run(main)


def run_on_asyncio(case: Callable[[Runtime], Awaitable[T]], seconds: float) -> T | None:
    """Run a case; None if it does not end in time."""

    async def main() -> T | None:
        runtime = AsyncioRuntime()
        try:
            async with asyncio.timeout(seconds):
                return await case(runtime)
        except TimeoutError:
            return None
        finally:
            await runtime.end()

    return asyncio.run(main())
