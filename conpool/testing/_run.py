"""One run of trio in which we put the tasks in order, and which cannot hang.

trio works in rounds: it waits for timers and I/O, takes every task that is runnable by then as one
batch, and lets each of them run to its next checkpoint. What becomes runnable meanwhile belongs to
the next batch. So the order inside the batches is all that scheduling leaves open; trio shuffles it
to keep programs from relying on it. The proofs need that order in their own hands:
`cancel_everywhere` the same one each time, `explore_schedules` each one once.

How it is done, here and nowhere else:

1. Under Hypothesis, trio sorts each batch by the age of its tasks and has `_r`, the `random.Random`
   of its run loop, shuffle it. For the length of a run `_Order` stands in for `_r`, and the switch
   for that mode is on.
2. The init task and the one that serves `TrioToken.run_sync_soon` are left out and run first: what
   they do in the midst of a run comes from threads and signals, whose moment is nobody's to choose.
   All other tasks take part, system tasks too.
3. `require_known_trio` runs three tasks in a given order before anything is believed. A trio whose
   loop has changed is refused; no proof over an order that was not obeyed passes for one.
4. `_Watch` sees a run that will never end: nothing is runnable and nobody is left to change that,
   or the steps exceed `MAX_STEPS`. It cancels it; a run that outlasts even that (a shield, a loop
   that eats `Cancelled`) is broken off from inside, and its coroutines are closed.
5. Python's shared `random` is seeded alike for each run and put back afterwards, so that jitter
   does not make two runs differ.

Not in our hands: what comes from outside (sockets, threads, the real clock), the order of sets, and
the order in which trio aborts several tasks of one scope.
"""

from __future__ import annotations

import functools
import importlib
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator, MutableSequence, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, TypeAlias, final

import trio
from trio.lowlevel import Task
from trio.testing import MockClock

Arrange: TypeAlias = Callable[[list[Task]], None]
"""Puts a batch, which comes oldest task first, into the order in which it shall run."""

MAX_STEPS: Final = 100_000
"""Steps of tasks in one run before it counts as endless: a second or two. A scenario takes tens."""

_STEPS_TO_END: Final = 10_000  # how long a cancelled scenario may take to clean up
_PATIENCE: Final = 10.0  # real seconds for a socket or thread to answer, where time is simulated
_NEVER: Final = 86_400.0  # trio waits this long for I/O, a day, where no timer is set

_LOOP: Final = "trio._core._run"
_SOURCE: Final = "_r"
_SWITCH: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"

_one_at_a_time: Final = threading.RLock()  # the run loop's source of order is one per process


def run(
    main: Callable[[], Awaitable[object]],
    arrange: Arrange,
    *,
    clock: trio.abc.Clock | None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> None:
    """Run `main` under trio with its batches in the order that `arrange` gives them.

    Raises:
        AssertionError: The run would never have ended; says where each task was.
        BaseException: Whatever `main` raises.
    """
    watch = _Watch()
    order = _Order(arrange, watch)

    async def root() -> None:
        trio.lowlevel.current_task().name = "scenario"
        order.begin()
        # The batch that this step belongs to was ordered before that; the next one is ours.
        await trio.lowlevel.cancel_shielded_checkpoint()
        with watch.scope:
            await main()
        order.end()

    with _in_charge(order), _same_jitter():
        try:
            trio.run(root, clock=clock, instruments=[watch, *instruments])
        finally:
            if watch.verdict is not None:
                _bury(watch.abandoned)
                # A run that was broken off failed by our own hand, which explains nothing.
                cause = None if watch.broken_off else sys.exception()
                raise AssertionError(watch.verdict) from cause


# ── the order ───────────────────────────────────────────────────────────────────


@final
class _Order:
    """Stands in for trio's source of randomness and shuffles as it is told."""

    def __init__(self, arrange: Arrange, watch: _Watch) -> None:
        self._arrange = arrange
        self._watch = watch
        self._thread = threading.get_ident()
        self._instead_of: Any = _loop().get(_SOURCE)
        self._trios_own: frozenset[Task] | None = None

    def begin(self) -> None:
        """Order the batches from here on; called by the first step of the main task."""
        self._trios_own = _trios_own()

    def end(self) -> None:
        """Order no more batches: what ends with the run can prove nothing."""
        self._trios_own = None

    def shuffle(self, batch: MutableSequence[Any]) -> None:
        """Called by trio in each round, with the batch sorted by age; it runs from the end."""
        if threading.get_ident() != self._thread:  # another thread's run of trio
            self._instead_of.shuffle(batch)
            return
        self._watch.round_begins(len(batch))
        if self._trios_own is None or not batch:
            return
        ours = [task for task in batch if task not in self._trios_own]
        first = [task for task in batch if task in self._trios_own]
        if ours:
            self._arrange(ours)
        batch[:] = [*reversed(ours), *first]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instead_of, name)


def _loop() -> dict[str, Any]:
    return vars(importlib.import_module(_LOOP))


@contextmanager
def _in_charge(order: _Order) -> Generator[None]:
    loop = _loop()
    with _one_at_a_time:
        before = loop[_SOURCE], loop[_SWITCH]
        loop[_SOURCE], loop[_SWITCH] = order, True
        try:
            yield
        finally:
            loop[_SOURCE], loop[_SWITCH] = before


@contextmanager
def _same_jitter() -> Generator[None]:
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


@functools.cache
def require_known_trio() -> None:
    """Make sure that trio lets us order its batches.

    Raises:
        RuntimeError: It does not; this trio is newer than what conpool knows.
    """
    try:
        loop = _loop()
    except ImportError:
        loop = {}
    if not hasattr(loop.get(_SOURCE), "shuffle") or not isinstance(loop.get(_SWITCH), bool):
        _refuse_trio(f"{_LOOP} has no {_SOURCE} and {_SWITCH} as they were")
    ran: list[int] = []

    async def step(number: int) -> None:
        ran.append(number)

    async def three_tasks() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(step, number)

    def rotate(batch: list[Task]) -> None:
        batch.append(batch.pop(0))

    run(three_tasks, rotate, clock=MockClock(autojump_threshold=0))
    if ran != [1, 2, 0]:
        _refuse_trio(f"three tasks that should run in the order [1, 2, 0] ran in {ran}")


def _refuse_trio(why: str) -> NoReturn:
    raise RuntimeError(
        f"conpool.testing cannot order the tasks of trio {trio.__version__}: {why}. "
        "Use an older trio for these tests until conpool follows."
    )


# ── the end ─────────────────────────────────────────────────────────────────────


class _BrokenOff(BaseException):
    """Raised inside trio's loop to leave a run that will not end."""


@final
class _Watch(trio.abc.Instrument):
    """Ends a run that would not end by itself, and says why."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.verdict: str | None = None
        self.broken_off = False
        self.abandoned: list[Task] = []
        self._steps_left = MAX_STEPS
        self._idle_since: float | None = None

    def round_begins(self, size: int) -> None:
        if size:
            self._idle_since = None
            self._steps_left -= size
            if self._steps_left < 0:
                self._end(f"it was still running after {MAX_STEPS:,} steps")
        elif _is_stuck(timers_move=True):
            self._end("every task waits for another")
        elif self._has_lost_patience():
            self._end(f"no timer is left, and nothing came from outside in {_PATIENCE} s")
        if self.broken_off:
            raise _BrokenOff

    def _has_lost_patience(self) -> bool:
        if trio.lowlevel.current_statistics().seconds_to_next_deadline < float("inf"):
            self._idle_since = None
            return False
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        return time.monotonic() - self._idle_since > _PATIENCE

    def before_io_wait(self, timeout: float) -> None:
        if timeout >= _NEVER and _is_stuck(timers_move=False):
            self._end("every task waits for another")
            # trio has already decided how long to sleep
            trio.lowlevel.current_trio_token().run_sync_soon(lambda: None)

    def _end(self, why: str) -> None:
        if self.verdict is None:
            self.verdict = f"the scenario never ends: {why}\n{_whereabouts()}"
            self._steps_left = _STEPS_TO_END
            self.scope.cancel()
        else:
            self.verdict += "\nnor does it end when it is cancelled"
            self.broken_off = True
            self.abandoned = _all_tasks()


def _is_stuck(*, timers_move: bool) -> bool:
    """Whether nothing is left that could make a task runnable."""
    statistics = trio.lowlevel.current_statistics()
    return (
        statistics.tasks_runnable == 0
        and statistics.run_sync_soon_queue_size == 0
        and not (timers_move and statistics.seconds_to_next_deadline < float("inf"))
        and _waiting_for_io(statistics.io_statistics) <= 1  # trio's own wake-up socket
        and not any(_is_in_thread(task) for task in _all_tasks())
    )


def _waiting_for_io(statistics: object) -> int:
    """Sum up what each of trio's I/O backends calls its waiting tasks."""
    kinds = ("", "_read", "_write", "_overlapped")
    waiting: int = sum(getattr(statistics, f"tasks_waiting{kind}", 0) for kind in kinds)
    return waiting


def _is_in_thread(task: Task) -> bool:
    return any(
        frame.f_code.co_name == "to_thread_run_sync" for frame, _ in task.iter_await_frames()
    )


def _bury(tasks: list[Task]) -> None:
    """Close the coroutines of a run that was broken off, whatever they say about it."""
    hook, sys.unraisablehook = sys.unraisablehook, _say_nothing
    try:
        for task in reversed(tasks):
            with suppress(BaseException):
                task.coro.close()
            for nursery in task.child_nurseries:
                # else the nursery complains to stderr when it is collected
                getattr(nursery, "_children", set[Task]()).clear()
        tasks.clear()
    finally:
        sys.unraisablehook = hook


def _say_nothing(_: object) -> None:
    pass


# ── who is where ────────────────────────────────────────────────────────────────


def place(task: Task) -> str:
    """Where a task that is not running stands: its innermost frame that is not trio's."""
    theirs = trios = None
    for frame, line in task.iter_await_frames():
        where = f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
        module = frame.f_globals.get("__name__", "")
        if module.startswith(("trio.", "outcome.")) or module == __name__:
            trios = trios or where
        else:
            theirs = where
    return theirs or trios or "its end"


def _all_tasks() -> list[Task]:
    """Every task of the run, parents first."""
    root = trio.lowlevel.current_root_task()
    assert root is not None  # what runs in trio runs below it
    found = [root]
    for task in found:  # grows as it goes
        for nursery in task.child_nurseries:
            found.extend(sorted(nursery.child_tasks, key=lambda child: child.name))
    return found


def _trios_own() -> frozenset[Task]:
    """The init task, and the one in its outermost nursery, behind `TrioToken.run_sync_soon`."""
    root = trio.lowlevel.current_root_task()
    assert root is not None  # what runs in trio runs below it
    return frozenset({root}).union(*(nursery.child_tasks for nursery in root.child_nurseries[:1]))


def _whereabouts() -> str:
    own = _trios_own()
    return "\n".join(f"  {task.name}: {place(task)}" for task in _all_tasks() if task not in own)
