"""Runs a scenario in every order that trio's scheduling could give its tasks.

In each round trio runs a batch of runnable tasks, in any order (see `_run`). A schedule is one
choice of order for each batch. A batch of n tasks offers n! orders, numbered lexicographically; in
order 0 the oldest task runs first. The choices of a run are a path in a tree, which we walk depth
first:

1. Run along a prefix of choices, then choose 0 at each further batch, and note the batches.
2. Drop choices from the end while they are the last of their batch; then raise the last one left.
3. If there is none to raise, all schedules have run.

A batch of one task leaves no choice and is not noted. Time is simulated, so that timers fire at the
same moments in each run.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar, final

from trio.lowlevel import Task
from trio.testing import MockClock

from conpool.testing import _run

_T = TypeVar("_T")

_fixed: Final[set[object]] = set()  # one object for each open `fixed_order`

_BATCHES_SHOWN: Final = 40  # in the note of a failure, which gives all choices


def explore_schedules(scenario: Callable[[], Awaitable[object]], *, limit: int = 100_000) -> int:
    """Run `scenario` once for each permutation of each batch of runnable tasks.

    Each run is a `trio.run` of its own under an autojumping `trio.testing.MockClock`; call it from
    a synchronous test. The scenario asserts what must hold. Two runs in the same order must behave
    the same, so the scenario must build everything anew, and use no sockets or threads. The two
    tasks of trio itself are not permuted, because they do nothing during such a run.

    The number of runs grows with the factorial of the tasks that are runnable at once: three or
    four tasks of a few steps each are a good size. Use `fixed_order` around the rest.

    Example:
        >>> import trio
        >>> orders = set()
        >>> async def scenario() -> None:
        ...     order: list[str] = []
        ...     async with trio.open_nursery() as nursery:
        ...         for name in "abc":
        ...             nursery.start_soon(note, order, name)
        ...     orders.add("".join(order))
        >>> async def note(order: list[str], name: str) -> None:
        ...     order.append(name)
        >>> explore_schedules(scenario)
        6
        >>> sorted(orders)
        ['abc', 'acb', 'bac', 'bca', 'cab', 'cba']

    Args:
        scenario: Raises if something is wrong.
        limit: Stop after so many schedules.

    Returns:
        How many schedules ran. If it is less than `limit`, all of them did.

    Raises:
        BaseException: `scenario` raised it; a note gives the schedule, and says how to replay it.
        AssertionError: A run would never have ended; the message says where each task was.
        RuntimeError: Two runs in the same order differed, trio already runs in this thread, or
            conpool cannot order the tasks of this version of trio.
    """
    _run.require_known_trio()
    path: list[_Choice] = []
    runs = 0
    while runs < limit:
        runs += 1
        schedule = _Schedule(path)
        try:
            schedule.run(scenario)
        except BaseException as exc:
            exc.add_note(f"conpool.testing: in schedule {runs:,}. {schedule.describe()}")
            raise
        path = schedule.next_path()
        if not path:
            break
    return runs


@contextmanager
def fixed_order() -> Generator[None]:
    """Have `explore_schedules` try one order only inside the block: the oldest task runs first.

    Use it around set-up and tear-down, which multiply the schedules and show nothing new. It
    applies to all tasks, from the next batch on. Outside of `explore_schedules` it does nothing.

    Example:
        >>> import trio
        >>> async def scenario() -> None:
        ...     with fixed_order():
        ...         await three_tasks()
        ...     await three_tasks()
        >>> async def three_tasks() -> None:
        ...     async with trio.open_nursery() as nursery:
        ...         for _ in range(3):
        ...             nursery.start_soon(trio.lowlevel.cancel_shielded_checkpoint)
        >>> explore_schedules(scenario)
        36
    """
    mark = object()
    _fixed.add(mark)
    try:
        yield
    finally:
        _fixed.discard(mark)


def replay(scenario: Callable[[], Awaitable[object]], choices: Sequence[int]) -> None:
    """Run `scenario` once, in the order that the note of a failure gives.

    Raises:
        BaseException: What `scenario` raises.
        RuntimeError: The batches of this run differ from those of the failure.
    """
    _run.require_known_trio()
    _Schedule([_Choice(number, None) for number in choices]).run(scenario)


class _Choice(NamedTuple):
    """The order in which one batch ran."""

    number: int  # of the permutation
    batch: tuple[str, ...] | None  # the names of the tasks, oldest first; None: not known

    @property
    def is_last(self) -> bool:
        return self.batch is not None and self.number + 1 == math.factorial(len(self.batch))


@final
class _Schedule:
    """One path through the tree: takes the choices of `prefix`, then 0 for each further batch."""

    def __init__(self, prefix: list[_Choice]) -> None:
        self._prefix = prefix
        self._taken: list[_Choice] = []
        self._differs: str | None = None

    def run(self, scenario: Callable[[], Awaitable[object]]) -> None:
        try:
            _run.run(scenario, self._arrange, clock=MockClock(autojump_threshold=0))
        finally:
            if self._differs is not None:
                raise _not_the_same(self._differs)
        if len(self._taken) < len(self._prefix):
            raise _not_the_same(f"it ended after {len(self._taken)} of {len(self._prefix)} choices")

    def next_path(self) -> list[_Choice]:
        """Return the next path in depth-first order; empty after the last."""
        path = self._taken
        while path and path[-1].is_last:
            path.pop()
        if path:
            path[-1] = path[-1]._replace(number=path[-1].number + 1)
        return path

    def describe(self) -> str:
        """Show the schedule, and how to run it again."""
        choices = [choice.number for choice in self._taken]
        while choices and not choices[-1]:
            choices.pop()  # a run chooses 0 by itself
        shown = [
            " → ".join(_permute(list(choice.batch or ()), choice.number)) for choice in self._taken
        ]
        if len(shown) > _BATCHES_SHOWN:
            shown[_BATCHES_SHOWN:] = ["…"]
        return (
            "Run it again with "
            f"`conpool.testing._schedules.replay(scenario, {choices})`. The batches of several "
            "tasks ran in this order:\n" + "\n".join(f"  {line}" for line in shown)
        )

    def _arrange(self, batch: list[Task]) -> None:
        if len(batch) < 2 or _fixed or self._differs is not None:
            return
        names = tuple(task.name for task in batch)
        number = self._choose(names)
        self._taken.append(_Choice(number, names))
        if number:
            batch[:] = _permute(batch, number)

    def _choose(self, names: tuple[str, ...]) -> int:
        depth = len(self._taken)
        if depth >= len(self._prefix):
            return 0
        number, expected = self._prefix[depth]
        if expected is not None and expected != names:
            self._differs = f"a batch was {expected}, and is now {names}"
        elif number >= math.factorial(len(names)):
            self._differs = f"choice {number} is more than the batch {names} offers"
        return 0 if self._differs else number


def _not_the_same(how: str) -> RuntimeError:
    return RuntimeError(
        f"the scenario is not the same in each run: {how}. Does it keep state from one run "
        "to the next, or use a thread, a socket or a random number of its own?"
    )


def _permute(tasks: list[_T], number: int) -> list[_T]:
    """Return the permutation of `tasks` with this number in lexicographic order."""
    rest = tasks.copy()
    permuted: list[_T] = []
    while rest:
        which, number = divmod(number, math.factorial(len(rest) - 1))
        permuted.append(rest.pop(which))
    return permuted
