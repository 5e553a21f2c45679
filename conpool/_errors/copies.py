"""Copies of errors: one for each caller that is told, and one for the pool's memory.

An exception that is raised gathers the frames of its raiser, with all local variables. Raised in
several callers, it would show the data of one caller in the error report of another, and keep both
alive. So each caller gets an error of its own, and the pool remembers one without frames.

A copy is made without the class's own `__init__`, which may want other arguments than `args`. What
hangs on an error (causes, contexts, members of groups, attempts) is copied with it, up to a bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from types import WrapperDescriptorType
from typing import Any, Final, cast, final

from conpool._errors.connect import ConnectError, number_of, said

MOST_COPIED: Final = 100
"""How many exceptions are copied with an error; what hangs beyond these is left out."""


def copy_for_caller(error: ConnectError) -> ConnectError:
    """Return an error equal to `error` for another caller, not yet raised.

    Its causes are copies, too, with their tracebacks: these end in the dial, not in a caller. If a
    class of the user's own cannot be copied, the copy is of the nearest class of conpool's.
    """
    copy = _Copier(error, keeps_tracebacks=True).copy
    copy.__traceback__ = None
    return copy


def without_traceback(error: ConnectError) -> ConnectError:
    """Return an error equal to `error` that keeps no frame alive, nor does what hangs on it."""
    return _Copier(error, keeps_tracebacks=False).copy


@final
class _Copier:
    """Makes one copy of an error; what hangs on it in several places is copied once."""

    def __init__(self, error: ConnectError, *, keeps_tracebacks: bool) -> None:
        self._copies: dict[int, BaseException] = {}
        self._originals = {id(original): original for original in _reachable(error)}
        for original in self._originals.values():
            copy = self._copied(original)
            assert copy is not None
            if isinstance(copy, ConnectError):
                attempts = self._copy_all(_hanging_on(original))
                copy.attempts = tuple(cast("list[OSError]", attempts))
            copy.__traceback__ = original.__traceback__ if keeps_tracebacks else None
            copy.__cause__ = self._copied(original.__cause__)
            copy.__context__ = self._copied(original.__context__)
            copy.__suppress_context__ = original.__suppress_context__
        self.copy = cast("ConnectError", self._copies[id(error)])

    def _copied(self, original: BaseException | None) -> BaseException | None:
        """Return the copy of `original`; None if there is none, or it hangs too far away."""
        key = id(original)
        if original is None or key not in self._originals:
            return None
        if key not in self._copies:
            try:
                self._copies[key] = self._twin(original)
            except Exception:  # noqa: BLE001 - a class of the user's own may refuse in any way
                self._copies[key] = _stand_in(original)
        return self._copies[key]

    def _twin(self, original: BaseException) -> BaseException:
        """Make an exception of the same class, with the same fields."""
        cls: Any = type(original)
        args: Any = original.args
        text = said(original)
        if isinstance(original, BaseExceptionGroup):
            args = (cast("Any", original).message, self._copy_all(_hanging_on(original)))
        twin: Any = cls.__new__(cls, *args)
        if isinstance(cls.__init__, WrapperDescriptorType):
            twin.__init__(*args)  # one of Python's own, which sets fields that only it can set
        twin.args = args
        twin.__dict__.update(original.__dict__)
        if "__notes__" in twin.__dict__:
            twin.__notes__ = list(twin.__notes__)
        if isinstance(original, OSError):
            _copy_fields(original, twin)
        if type(twin) is not cls or said(twin) != text:
            raise TypeError(f"{cls.__qualname__} cannot be copied")
        return cast("BaseException", twin)

    def _copy_all(self, originals: Iterable[BaseException]) -> list[BaseException]:
        return [copy for original in originals if (copy := self._copied(original)) is not None]


def _hanging_on(error: Any) -> tuple[BaseException, ...]:
    """Return the attempts of a `ConnectError`, or the members of a group."""
    if not isinstance(error, ConnectError | BaseExceptionGroup):
        return ()
    name = "attempts" if isinstance(error, ConnectError) else "exceptions"
    try:
        found: Iterable[object] = getattr(cast("object", error), name)
        return tuple(one for one in found if isinstance(one, BaseException))
    except Exception:  # noqa: BLE001 - half built, it may have none
        return ()


def _reachable(error: BaseException) -> Iterator[BaseException]:
    """Find `error` and what hangs on it, the nearest first, but no more than `MOST_COPIED`."""
    left: deque[BaseException | None] = deque([error])
    seen: set[int] = set()
    while left and len(seen) < MOST_COPIED:
        one = left.popleft()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += (*_hanging_on(one), one.__cause__, one.__context__)


def _copy_fields(original: OSError, twin: OSError) -> None:
    """Copy the fields that an `OSError` keeps outside its dictionary."""
    for name in ("errno", "strerror", "filename", "filename2"):
        value = getattr(original, name, None)
        if value is not None:  # one that is set to None is not the same as one that is not set
            setattr(twin, name, value)


def _stand_in(original: BaseException) -> BaseException:
    """Make an exception of our own with the text of one that cannot be copied."""
    try:
        return _as_plain(cast("ConnectError", original))
    except Exception:  # noqa: BLE001 - it is something else, or half built
        return Exception(f"{type(original).__qualname__}: {said(original)}")


def _as_plain(original: ConnectError) -> ConnectError:
    cls = next(c for c in type(original).__mro__ if c.__module__ == ConnectError.__module__)
    is_plain = type(original).__str__ is ConnectError.__str__
    return cast("type[ConnectError]", cls)(
        original.args[0] if is_plain else said(original),
        endpoint=original.endpoint,
        phase=original.phase,
        errno=number_of(original),
        attempts=original.attempts,
    )
