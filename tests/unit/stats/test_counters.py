from __future__ import annotations

from conpool._stats.counters import Tally
from conpool._stats.histogram import Histogram
from conpool._values.states import CloseReason


def numbers(tally: Tally) -> dict[str, object]:
    """Every field there is, found by reflection, so that a new one cannot be forgotten."""
    found: dict[str, object] = {}
    for name in Tally.__slots__:
        value = getattr(tally, name)
        found[name] = (value.count, value.total) if isinstance(value, Histogram) else value
    return found


def filled(factor: int) -> Tally:
    tally = Tally()
    for position, name in enumerate(Tally.__slots__, 1):
        value = getattr(tally, name)
        if isinstance(value, Histogram):
            for _ in range(position * factor):
                value.add(0.5)
        elif name != "by_reason":
            setattr(tally, name, position * factor)
    tally.by_reason = {CloseReason.ERROR: factor}
    return tally


def test_starts_at_nothing() -> None:
    tally = Tally()
    assert set(map(str, numbers(tally).values())) == {"0", "{}", "(0, 0.0)"}


def test_absorbing_adds_every_counter() -> None:
    tally, other = filled(1), filled(10)
    tally.absorb(other)
    assert numbers(tally) == numbers(filled(11))
    assert numbers(other) == numbers(filled(10))


def test_absorbing_joins_the_reasons_of_both() -> None:
    tally, other = Tally(), Tally()
    tally.count_closed(CloseReason.ERROR)
    tally.count_closed(CloseReason.ERROR)
    other.count_closed(CloseReason.ERROR)
    other.count_closed(CloseReason.EVICTED)
    tally.absorb(other)
    assert tally.closed == 4
    assert tally.by_reason == {CloseReason.ERROR: 3, CloseReason.EVICTED: 1}
    assert other.by_reason == {CloseReason.ERROR: 1, CloseReason.EVICTED: 1}


def test_repr_tells_the_counters() -> None:
    tally = Tally()
    tally.created = 3
    assert repr(tally) == "<Tally: 3 created, 0 reused, 0 closed, 0 errors, 0 acquired>"
