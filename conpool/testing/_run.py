"""One run of trio whose tasks run in the order that we choose, and which cannot hang.

trio works in rounds: it waits for timers and I/O, takes all runnable tasks as one batch, and runs
each task of the batch to its next checkpoint. A task that becomes runnable meanwhile belongs to the
next batch. So scheduling leaves only the order inside a batch open; trio shuffles it, to keep
programs from relying on it. The proofs must control that order: `cancel_everywhere` needs the same
order each time, and `explore_schedules` each order once.

How we control it, here and nowhere else:

1. For Hypothesis trio has a mode in which it sorts each batch by the age of its tasks, and then has
   `_r`, the `random.Random` of its run loop, shuffle the batch. During a run we switch that mode
   on, and `_Order` stands in for `_r`.
2. Two tasks of trio itself, the init task and the one behind `TrioToken.run_sync_soon`, run first:
   they act on threads and signals, whose moment nobody can choose. We order all other tasks, system
   tasks too.
3. `require_known_trio` first runs three tasks in a given order. If trio's loop has changed and does
   not obey, it refuses that version of trio, because no proof would be one.
4. `_Watch` notices a run that will never end: no task is runnable and nothing can change that, or
   the steps exceed `MAX_STEPS`. It cancels the run. If the run goes on even then (a shield, a loop
   that swallows `Cancelled`), it breaks the run off from inside, and the coroutines are closed.
5. We seed Python's shared `random` alike for each run and restore it afterwards, so that jitter
   does not make two runs differ.

We do not control events from outside (sockets, threads, the real clock), the order of sets, and the
order in which trio aborts several tasks of one scope.
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
"""Puts a batch, whose oldest task is first, into the order in which it is to run."""

MAX_STEPS: Final = 100_000
"""A run with more steps of tasks (a second or two) counts as endless; a scenario takes tens."""

_STEPS_TO_END: Final = 10_000  # how long a cancelled scenario may take to clean up
_PATIENCE: Final = 10.0  # real seconds for a socket or thread to answer, if time is simulated
_NEVER: Final = 86_400.0  # trio waits this long for I/O, a day, if no timer is set

_LOOP: Final = "trio._core._run"
_SOURCE: Final = "_r"
_SWITCH: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"

_one_at_a_time: Final = threading.RLock()  # all run loops of the process share `_r`


def run(
    main: Callable[[], Awaitable[object]],
    arrange: Arrange,
    *,
    clock: trio.abc.Clock | None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> None:
    """Run `main` under trio, with each batch in the order that `arrange` gives it.

    Raises:
        AssertionError: The run would never have ended; the message says where each task was.
        BaseException: What `main` raises.
    """
    watch = _Watch()
    order = _Order(arrange, watch)

    async def root() -> None:
        trio.lowlevel.current_task().name = "scenario"
        order.begin()
        # trio ordered the batch of this step before that; the next batch is the first of ours.
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
                # If we broke the run off, its exception is our own and explains nothing.
                cause = None if watch.broken_off else sys.exception()
                raise AssertionError(watch.verdict) from cause


# ── the order ───────────────────────────────────────────────────────────────────


@final
class _Order:
    """Stands in for trio's source of randomness, and shuffles by `arrange`."""

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
        """Order no more batches: the end of the run itself proves nothing."""
        self._trios_own = None

    def shuffle(self, batch: MutableSequence[Any]) -> None:
        """Order a batch; trio calls this in each round, and then runs the batch from its end."""
        if threading.get_ident() != self._thread:  # a run of trio in another thread
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
        RuntimeError: It does not; conpool does not know this version of trio yet.
    """
    try:
        loop = _loop()
    except ImportError:
        loop = {}
    if not hasattr(loop.get(_SOURCE), "shuffle") or not isinstance(loop.get(_SWITCH), bool):
        _refuse_trio(f"{_LOOP} has no {_SOURCE} and {_SWITCH} of the known kind")
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
        "Use an older trio for these tests until a newer conpool knows this one."
    )


# ── the end ─────────────────────────────────────────────────────────────────────


class _BrokenOff(BaseException):
    """We raise it inside trio's loop to leave a run that does not end."""


@final
class _Watch(trio.abc.Instrument):
    """Ends a run that would never end, and says why."""

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
            # trio has decided already how long to sleep: wake it
            trio.lowlevel.current_trio_token().run_sync_soon(lambda: None)

    def _end(self, why: str) -> None:
        if self.verdict is None:
            self.verdict = f"the scenario never ends: {why}\n{_whereabouts()}"
            self._steps_left = _STEPS_TO_END
            self.scope.cancel()
        else:
            self.verdict += "\nand it does not end when it is cancelled"
            self.broken_off = True
            self.abandoned = _all_tasks()


def _is_stuck(*, timers_move: bool) -> bool:
    """Whether nothing can make a task runnable any more."""
    statistics = trio.lowlevel.current_statistics()
    return (
        statistics.tasks_runnable == 0
        and statistics.run_sync_soon_queue_size == 0
        and not (timers_move and statistics.seconds_to_next_deadline < float("inf"))
        and _waiting_for_io(statistics.io_statistics) <= 1  # trio's own wake-up socket
        and not any(_is_in_thread(task) for task in _all_tasks())
    )


def _waiting_for_io(statistics: object) -> int:
    """Sum up the waiting tasks, under the names that trio's I/O backends have for them."""
    kinds = ("", "_read", "_write", "_overlapped")
    waiting: int = sum(getattr(statistics, f"tasks_waiting{kind}", 0) for kind in kinds)
    return waiting


def _is_in_thread(task: Task) -> bool:
    return any(
        frame.f_code.co_name == "to_thread_run_sync" for frame, _ in task.iter_await_frames()
    )


def _bury(tasks: list[Task]) -> None:
    """Close the coroutines of a run that we broke off, and ignore their errors."""
    hook, sys.unraisablehook = sys.unraisablehook, _say_nothing
    try:
        for task in reversed(tasks):
            with suppress(BaseException):
                task.coro.close()
            for nursery in task.child_nurseries:
                # Otherwise the nursery complains to stderr when it is collected.
                getattr(nursery, "_children", set[Task]()).clear()
        tasks.clear()
    finally:
        sys.unraisablehook = hook


def _say_nothing(_: object) -> None:
    pass


# ── who is where ────────────────────────────────────────────────────────────────


def place(task: Task) -> str:
    """Say where a task waits: in its innermost frame that is not trio's."""
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
    """Return every task of the run, parents first."""
    root = trio.lowlevel.current_root_task()
    assert root is not None  # trio is running
    found = [root]
    for task in found:  # `found` grows meanwhile
        for nursery in task.child_nurseries:
            found.extend(sorted(nursery.child_tasks, key=lambda child: child.name))
    return found


def _trios_own() -> frozenset[Task]:
    """Return the init task, and the task of its first nursery, behind `run_sync_soon`."""
    root = trio.lowlevel.current_root_task()
    assert root is not None  # trio is running
    return frozenset({root}).union(*(nursery.child_tasks for nursery in root.child_nurseries[:1]))


def _whereabouts() -> str:
    own = _trios_own()
    return "\n".join(f"  {task.name}: {place(task)}" for task in _all_tasks() if task not in own)
