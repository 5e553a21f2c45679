"""Room on the stack for what must not break off: a connection's way out of the books.

A caller may be near Python's recursion limit. A `RecursionError` amid a change to the books would
leave them half changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import RLock
from typing import Final

_FRAMES: Final = 50
"""How deep the calls of a close may go: half as deep was seen, and observers need some, too."""

_limit_lock: Final = RLock()
"""Two threads that raised the limit at the same time would not put it back."""


def with_room(call: Callable[[], object]) -> None:
    """Make `call`, with a higher recursion limit for as long as it takes if need be.

    Raises:
        RecursionError: There is no room at all, and nothing was called.
    """
    try:
        if _is_deep():
            _need_room(_FRAMES)
    except RecursionError:
        with_more_room(call)
    except BaseException:  # an interrupt, for instance: the call must be made all the same
        call()
        raise
    else:
        call()


def with_more_room(call: Callable[[], object]) -> None:
    """As `with_room`, where there was too little; it takes the fewest calls to get more."""
    with _limit_lock:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(limit)  # raises where it could not be put back
        sys.setrecursionlimit(limit + 2 * _FRAMES)
        try:
            call()
        finally:
            sys.setrecursionlimit(limit)


def _is_deep() -> bool:
    """Whether more than half of the stack is in use, as it hardly ever is."""
    try:
        sys._getframe(sys.getrecursionlimit() // 2)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    except ValueError:
        return False
    return True


def _need_room(frames: int) -> None:
    """Raise `RecursionError` if so many calls inside one another are not possible here."""
    if frames:
        _need_room(frames - 1)
