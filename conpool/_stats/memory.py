"""The counters of endpoints that the pool holds nothing else of: the last ones, by endpoint.

A pool drops its record of an endpoint soon after the last connection is gone. A test or a scrape
that comes a minute later still wants to see what happened there. So the counters stay, and an
endpoint that is asked for again goes on with its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

from conpool._stats.counters import Counters
from conpool._values.endpoint import AnyEndpoint

KEPT: Final = 1000
"""How many endpoints are remembered: a few megabytes at most, whatever a crawler visits."""


@final
class Memory:
    """Remembers the counters of dropped endpoints; those of the oldest go into one sum.

    Another thread may read `kept`. An endpoint is in here, among the pool's own, or for a moment
    in both: never in neither. And `forgotten` only grows.
    """

    __slots__ = ("forgotten", "kept")

    def __init__(self) -> None:
        self.kept: dict[AnyEndpoint, Counters] = {}
        """The one that was dropped last stands last."""
        self.forgotten = Counters()
        """The sum of the others that were dropped."""

    def keep(self, endpoint: AnyEndpoint, counters: Counters) -> None:
        """Remember `counters` of an endpoint that is about to be dropped."""
        self.kept[endpoint] = counters
        # Two at most: one takes the place of the new one, one makes up for one that had to stay.
        for _ in range(min(len(self.kept) - KEPT, 2)):
            self._forget(next(iter(self.kept)))

    def pop(self, endpoint: AnyEndpoint) -> None:
        """`endpoint` is one of the pool's own again, with its counters."""
        self.kept.pop(endpoint, None)

    def known_with(self, subs: Mapping[AnyEndpoint, object]) -> list[AnyEndpoint]:
        """Return the endpoints of `subs`, which are the pool's own, and those remembered."""
        before = self.kept.copy()
        # An endpoint that goes from one to the other meanwhile is in one of these copies.
        return list(dict.fromkeys((*list(subs), *self.kept.copy(), *before)))

    def _forget(self, endpoint: AnyEndpoint) -> None:
        counters = self.kept[endpoint]
        if counters.acquired > counters.use_time.count:
            # A lease that was closed under its holder has yet to report its end, here.
            del self.kept[endpoint]
            self.kept[endpoint] = counters
        else:
            self.forgotten.absorb(counters)
            del self.kept[endpoint]
