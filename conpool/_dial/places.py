"""The places of look-ups: how many threads may ask the system for names, and for which names.

A look-up that hangs must not delay the look-ups of other names, and cannot be stopped. So

1. There are `PLACES` for look-ups. A look-up that finds all of them taken waits in line.
2. A look-up that has its place for `ITS_TIME` without an answer is late. It gives the place to the
   one that waits, and its thread goes on without a place; at most `MOST_LATE` threads do so.
3. A name whose last look-up was late is slow. Its next one takes one of the `SLOW_PLACES`, until
   it has been in time again. So names that hang wait for each other and for nobody else.

Only where `MOST_LATE` look-ups of names that were never slow before hang at once do others wait.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final, Generic, TypeVar, final

import trio

PLACES: Final = 20
"""How many look-ups may be under way that are not late; half of what trio allows all threads."""

ITS_TIME: Final = 1.0
"""How long a look-up keeps its place from others, in seconds; most take a few milliseconds."""

MOST_LATE: Final = 60
SLOW_PLACES: Final = 20
MOST_THREADS: Final = PLACES + MOST_LATE + SLOW_PLACES
"""The ceiling. A thread that waits costs little more than some kilobytes of its stack."""

MOST_SLOW: Final = 1024
"""How many slow names are remembered."""

NameT = TypeVar("NameT", bound=Hashable)


@final
class Place:
    """One look-up's place, or the permission to go on without one."""

    __slots__ = ("limiter", "taken_at")

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self.limiter: trio.CapacityLimiter | None = limiter
        """What the place counts against; None: it was late, and has given the place away."""
        self.taken_at = math.inf


@final
class Places(Generic[NameT]):
    """Gives places to look-ups. It belongs to one run of trio, and needs no task of its own."""

    __slots__ = ("_late", "_ordinary", "_slow", "_slow_names", "_taken")

    def __init__(self) -> None:
        self._ordinary = trio.CapacityLimiter(PLACES)
        self._slow = trio.CapacityLimiter(SLOW_PLACES)
        self._taken: dict[Place, None] = {}
        """The ordinary places that are taken, the longest first."""
        self._late = 0
        self._slow_names: dict[NameT, None] = {}

    async def take(self, name: NameT) -> Place:
        """Wait for a place for the look-up of `name`; if this is cancelled, none is taken."""
        if name in self._slow_names:
            place = Place(self._slow)
            await self._slow.acquire_on_behalf_of(place)
        else:
            place = Place(self._ordinary)
            await self._take_ordinary(place)
            self._taken[place] = None
        place.taken_at = trio.current_time()
        return place

    async def _take_ordinary(self, place: Place) -> None:
        while True:
            self._move_late_ones()
            with trio.CancelScope(deadline=self._next_is_late_at()):
                await self._ordinary.acquire_on_behalf_of(place)
                return

    def give_back(self, name: NameT, place: Place) -> None:
        """The look-up of `name` has ended."""
        self._slow_names.pop(name, None)
        if trio.current_time() - place.taken_at >= ITS_TIME:
            self._slow_names[name] = None
            if len(self._slow_names) > MOST_SLOW:
                del self._slow_names[next(iter(self._slow_names))]
        self.give_up(place)

    def give_up(self, place: Place) -> None:
        """Give a place back: there is no look-up."""
        self._taken.pop(place, None)
        if place.limiter is not None:
            place.limiter.release_on_behalf_of(place)
            return
        self._late -= 1
        if self._ordinary.statistics().tasks_waiting:
            self._move_late_ones()

    def _move_late_ones(self) -> None:
        """Have the look-ups that are late give their places away, as far as the ceiling allows."""
        now = trio.current_time()
        while self._next_is_late_at() <= now:
            place = next(iter(self._taken))
            del self._taken[place]
            place.limiter = None
            self._late += 1
            self._ordinary.release_on_behalf_of(place)

    def _next_is_late_at(self) -> float:
        """Return when the next look-up can give its place away for being late."""
        if not self._taken or self._late >= MOST_LATE:
            return math.inf
        return next(iter(self._taken)).taken_at + ITS_TIME

    def __repr__(self) -> str:
        taken = len(self._taken), self._late, self._slow.borrowed_tokens
        return "<Places: {} taken, {} late, {} slow>".format(*taken)
