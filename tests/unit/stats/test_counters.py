from __future__ import annotations

import dataclasses

import pytest

from conpool._stats.counters import COUNTERS, Counters, ReasonCounts
from conpool._stats.histogram import MOST_RECENT, Histogram
from conpool._stats.snapshot import EndpointStats, PoolStats
from conpool._values.states import CloseReason


def numbers(counters: Counters) -> dict[str, object]:
    """Every field there is, found by reflection, so that a new one cannot be forgotten."""
    found: dict[str, object] = {}
    for name in COUNTERS:
        value = getattr(counters, name)
        found[name] = (value.count, value.total) if isinstance(value, Histogram) else value
    return found


def filled(factor: int) -> Counters:
    counters = Counters()
    for position, field in enumerate(dataclasses.fields(Counters), 1):
        name, value = field.name, getattr(counters, field.name)
        if isinstance(value, Histogram):
            for _ in range(position * factor):
                value.add(0.5)
        elif name != "closed_by_reason":
            setattr(counters, name, position * factor)
    counters.closed_by_reason = ReasonCounts({CloseReason.ERROR: factor})
    return counters


def test_starts_at_nothing() -> None:
    counters = Counters()
    assert set(map(str, numbers(counters).values())) == {"0", "{}", "(0, 0.0)"}


def test_absorbing_adds_every_counter() -> None:
    counters, other = filled(1), filled(10)
    counters.absorb(other)
    assert numbers(counters) == numbers(filled(11))
    assert numbers(other) == numbers(filled(10))


def test_a_hit_counts_as_a_lease_that_was_reused_and_did_not_wait() -> None:
    counters = Counters()
    counters.note_wait(2.0)
    counters.other_leases += 1
    counters.hits += 3
    assert (counters.acquired, counters.total_reused) == (4, 3)
    waits = counters.wait_time
    assert (waits.count, waits.total, waits.quantile(0.75)) == (4, 2.0, 0.0)
    assert counters.other_waits.count == 1


def test_durations_are_counted_before_they_pile_up() -> None:
    counters = Counters()
    for number in range(1, 3 * MOST_RECENT):
        counters.note_wait(1.0)
        counters.note_use(2.0)
        assert len(counters.other_waits.recent) < MOST_RECENT
        assert len(counters.use_time.recent) < MOST_RECENT
        assert counters.wait_time.count == counters.use_time.count == number
        assert counters.wait_time.total == number
        assert counters.use_time.total == 2.0 * number


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


def test_a_reason_that_never_occurred_reads_as_zero_and_is_not_listed() -> None:
    counts = ReasonCounts()
    assert counts[CloseReason.ERROR] == 0
    assert counts == {}


def test_every_counter_is_a_number_of_the_snapshot() -> None:
    names = [field.name for field in dataclasses.fields(EndpointStats)]
    assert [name for name in names if name in COUNTERS] == list(COUNTERS)


def test_counters_take_no_name_that_is_not_declared() -> None:
    with pytest.raises(AttributeError):
        Counters().created = 1  # type: ignore[attr-defined]


def test_repr_tells_the_counters() -> None:
    counters = Counters()
    counters.total_created = 3
    assert repr(counters).startswith("Counters(total_created=3, hits=0, other_leases=0, ")


def test_the_whole_pools_statistics_have_each_number_that_can_be_added_up() -> None:
    """A counter that is missing there was forgotten, unless it is named here."""
    numbers = {name for name in COUNTERS if isinstance(getattr(Counters(), name), int)}
    missing = numbers - {field.name for field in dataclasses.fields(PoolStats)}
    assert missing == {"acquire_cancelled"}
