"""Fails each call that the code under test makes into other code, one a run.

Memory runs out, a descriptor was closed by a stranger, the caller is near the recursion limit:
any call can fail. Where one fails, cleanup code that was never run before runs.

A point is a call from a function of the code under test to a function that is none of its own,
made while the block is open, in whatever task. The exception is raised instead of the call. Python
tells a profile function (`sys.setprofile`) of every call just before it; what that raises, the
caller gets. These do not count:

- functions and methods of `builtins` and `collections`, and what `except` and `isinstance` call:
  they are as good as operators;
- the end of a `with` block and `__del__`: nobody can do without the first, and nobody hears of the
  second;
- a coroutine that goes on after it has waited: it has begun, so the call was made.

The first run fails nothing, and counts the points. Then each point gets a run of its own. The tasks
run in the same order each time, and no garbage is collected meanwhile, so that a number means the
same point in each run.
"""

from __future__ import annotations

import dis
import functools
import gc
import sys
from collections.abc import Awaitable, Callable, Collection, Generator
from contextlib import contextmanager
from types import BuiltinFunctionType, CodeType, FrameType, TracebackType
from typing import Any, Final, Self, cast, final

import trio

from conpool.testing import _run

_OPERATORS: Final = frozenset({"builtins", "collections", "_collections"})
_NEVER: Final = frozenset(
    {"__exit__", "__aexit__", "__del__", "__instancecheck__", "__subclasscheck__"}
)
_NOBODYS: Final = "conpool.testing"


@final
class Failure:
    """The block in which one call fails; `fail_everywhere` makes it.

    An exception that leaves the block goes no further if it is the one that was raised, or a group
    of nothing else.
    """

    def __init__(self, counts: _Counts, error: BaseException | None, chosen: int, of: int) -> None:
        self.raised: BaseException | None = None
        """The exception that was raised instead of a call; None as long as none was."""
        self.where: str = "nothing failed"
        self.passed: int = 0
        self.is_entered: bool = False
        self._counts = counts
        self._error = error
        self._chosen = chosen
        self._of = of
        self._before: Any = None

    def __enter__(self) -> Self:
        if self.is_entered:
            raise RuntimeError("the block can be entered only once")
        self.is_entered = True
        self._before = sys.getprofile()
        sys.setprofile(self._see)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        sys.setprofile(self._before)
        return exc is not None and self._is_ours(exc)

    def _is_ours(self, exc: BaseException) -> bool:
        if isinstance(exc, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", exc)
            return all(map(self._is_ours, group.exceptions))
        return exc is self.raised

    def _see(self, frame: FrameType, event: str, called: object) -> None:
        """Count a call; Python raises in the caller what this raises."""
        caller: FrameType | None = frame
        if event == "call":
            caller, called = frame.f_back, frame
        elif event != "c_call":
            return
        if caller is None or not self._counts.is_point(caller, called):
            return
        self.passed += 1
        if self.passed == self._chosen and self._error is not None:
            code = caller.f_code
            place = f"{code.co_filename}:{caller.f_lineno} in {code.co_qualname}"
            self.where = f"call {self._chosen} of {self._of} failed: {_name(called)}, at {place}"
            self.raised = self._error
            raise self._error

    def __repr__(self) -> str:
        return f"<Failure, {self.where}>"


def fail_everywhere(
    scenario: Callable[[Failure], Awaitable[object]],
    *,
    within: Collection[str],
    apart_from: Collection[str] = (),
    error: Callable[[], BaseException] = MemoryError,
    check: Callable[[], Awaitable[object]] | None = None,
    clock: Callable[[], trio.abc.Clock] | None = None,
) -> int:
    """Run `scenario` once for each call out of the code under test, failed there.

    Each run is a `trio.run` of its own; call it from a synchronous test. The scenario builds what
    it needs, enters the block that it gets around the code that is to suffer, and may then look at
    what is left. Instead of one call that this code makes to code outside of `within` there, an
    exception is raised. After the scenario `check` runs, outside of the block. In the first run
    nothing fails: scenario and check must hold then, too.

    Calls of all tasks count, but not those of other threads. With real sockets runs differ, and a
    point that a run does not reach is not tried.

    Example:
        >>> __name__ = "my_client"  # as if this code stood in a module of that name
        >>> import io
        >>> async def save(text: str) -> None:
        ...     file = io.BytesIO()
        ...     with file:
        ...         file.write(text.encode())
        >>> async def scenario(failure: Failure) -> None:
        ...     with failure:
        ...         await save("hello")
        >>> fail_everywhere(scenario, within=["my_client"]) >= 2
        True

    Args:
        scenario: Takes the block; ends by itself if nothing fails.
        within: The code under test: modules and packages, by name.
        apart_from: Modules and packages of it whose calls do not count.
        error: Makes the exception of a run.
        check: Raises if something is wrong after the scenario.
        clock: Makes the clock of each run; by default the real one. With
            `trio.testing.MockClock(autojump_threshold=0)` waiting takes no time.

    Returns:
        How many points were tried.

    Raises:
        BaseException: `scenario` or `check` raised it; a note names the point.
        AssertionError: A run would never have ended; the message says where each task was.
        RuntimeError: `scenario` never enters its block, trio already runs in this thread, or
            conpool cannot order the tasks of this version of trio.
    """
    _run.require_known_trio()
    counts = _Counts(within, apart_from)
    points = _attempt(scenario, check, clock, Failure(counts, None, 0, 0)).passed
    tried = 0
    for number in range(1, points + 1):
        failure = Failure(counts, error(), number, points)
        tried += _attempt(scenario, check, clock, failure).raised is not None
    return tried


def _attempt(
    scenario: Callable[[Failure], Awaitable[object]],
    check: Callable[[], Awaitable[object]] | None,
    clock: Callable[[], trio.abc.Clock] | None,
    failure: Failure,
) -> Failure:
    async def main() -> None:
        await scenario(failure)
        if not failure.is_entered:
            raise RuntimeError("the scenario never entered the block that it was given")
        if check is not None:
            await check()

    profile = sys.getprofile()
    try:
        with _no_garbage():
            _run.run(main, lambda _: None, clock=None if clock is None else clock())
    except BaseException as exc:
        exc.add_note(f"conpool.testing: {failure.where}")
        raise
    finally:
        sys.setprofile(profile)  # the block may never have been left
    return failure


@contextmanager
def _no_garbage() -> Generator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@final
class _Counts:
    """Knows which calls count."""

    def __init__(self, within: Collection[str], apart_from: Collection[str]) -> None:
        if isinstance(within, str) or isinstance(apart_from, str):
            raise TypeError("within and apart_from take a collection of names, not one name")
        self._calls_of = _Modules(within, (*apart_from, _NOBODYS))
        self._own = _Modules(within, (_NOBODYS,))

    def is_point(self, caller: FrameType, called: object) -> bool:
        if not self._calls_of[_module(caller)]:  # first: this is asked at every call of a run
            return False
        if not isinstance(called, FrameType):
            return _find_owner(called) not in _OPERATORS
        return (
            not self._own[_module(called)]
            and called.f_code.co_name not in _NEVER
            and called.f_lasti == _find_start(called.f_code)
        )


@final
class _Modules(dict[str, bool]):
    """Whether a module, by its name, belongs to `packages` and not to the `others`."""

    def __init__(self, packages: Collection[str], others: Collection[str]) -> None:
        super().__init__()
        self._packages = packages
        self._others = others

    def __missing__(self, module: str) -> bool:
        self[module] = _is_in(module, self._packages) and not _is_in(module, self._others)
        return self[module]


def _is_in(module: str, packages: Collection[str]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in packages)


def _module(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name


def _find_owner(function: object) -> str:
    """Return the module of a function that is written in C, or of the type of a method."""
    assert isinstance(function, BuiltinFunctionType) or callable(function)
    return (
        getattr(function, "__module__", None)
        or type(getattr(function, "__self__", function)).__module__
    )


@functools.cache
def _find_start(code: CodeType) -> int:
    """Return where the call of a function, or the first step of a coroutine, is told of."""
    return next(one.offset for one in dis.get_instructions(code) if one.opname == "RESUME")


def _name(called: object) -> str:
    if isinstance(called, FrameType):
        return f"{_module(called)}.{called.f_code.co_qualname}".lstrip(".")
    return f"{_find_owner(called)}.{getattr(called, '__qualname__', called)}"
