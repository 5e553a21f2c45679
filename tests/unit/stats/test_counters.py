from __future__ import annotations

from conpool._stats.counters import Counters
from conpool._stats.histogram import Histogram
from conpool._values.states import CloseReason


def numbers(counters: Counters) -> dict[str, object]:
    """Every field there is, found by reflection, so that a new one cannot be forgotten."""
    found: dict[str, object] = {}
    for name in Counters.__slots__:
        value = getattr(counters, name)
        found[name] = (value.count, value.total) if isinstance(value, Histogram) else value
    return found


def filled(factor: int) -> Counters:
    counters = Counters()
    for position, name in enumerate(Counters.__slots__, 1):
        value = getattr(counters, name)
        if isinstance(value, Histogram):
            for _ in range(position * factor):
                value.add(0.5)
        elif name != "by_reason":
            setattr(counters, name, position * factor)
    counters.closed_by_reason = {CloseReason.ERROR: factor}
    return counters


def test_starts_at_nothing() -> None:
    counters = Counters()
    assert set(map(str, numbers(counters).values())) == {"0", "{}", "(0, 0.0)"}


def test_absorbing_adds_every_counter() -> None:
    counters, other = filled(1), filled(10)
    counters.absorb(other)
    assert numbers(counters) == numbers(filled(11))
    assert numbers(other) == numbers(filled(10))


def test_absorbing_joins_the_reasons_of_both() -> None:
    counters, other = Counters(), Counters()
    counters.count_closed(CloseReason.ERROR)
    counters.count_closed(CloseReason.ERROR)
    other.count_closed(CloseReason.ERROR)
    other.count_closed(CloseReason.EVICTED)
    counters.absorb(other)
    assert counters.total_closed == 4
    assert counters.closed_by_reason == {CloseReason.ERROR: 3, CloseReason.EVICTED: 1}
    assert other.closed_by_reason == {CloseReason.ERROR: 1, CloseReason.EVICTED: 1}


def test_repr_tells_the_counters() -> None:
    counters = Counters()
    counters.total_created = 3
    assert repr(counters) == "<Counters: 3 created, 0 reused, 0 closed, 0 errors, 0 acquired>"
