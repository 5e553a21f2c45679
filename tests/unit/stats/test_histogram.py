from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given, strategies as st

from conpool._stats.histogram import LONGEST, QUANTILE_ERROR, SHORTEST, Histogram, count_within
from conpool._stats.latency import LatencySummary

in_range = st.floats(SHORTEST, LONGEST)
OFF = QUANTILE_ERROR + 1e-12  # floats round
any_duration = st.one_of(st.just(0.0), st.floats(0.0, 1e6))


def histogram_of(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    return histogram


def contents(histogram: Histogram) -> tuple[object, ...]:
    shares = (0.0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
    return histogram.count, histogram.max, histogram.quantiles(*shares)


def exact_quantile(durations: list[float], q: float) -> float:
    return sorted(durations)[max(math.ceil(q * len(durations)), 1) - 1]


def test_the_error_is_a_ninth() -> None:
    """The documentation says so; it does not compute the number."""
    assert pytest.approx(1 / 9) == QUANTILE_ERROR


def test_an_empty_one_answers_zero() -> None:
    histogram = Histogram()
    assert (histogram.count, histogram.total, histogram.max) == (0, 0.0, 0.0)
    assert histogram.quantiles(0.0, 0.5, 1.0) == (0.0, 0.0, 0.0)


def test_counts_and_sums_exactly() -> None:
    histogram = histogram_of([0.0, 0.5, 0.25, 0.0])
    assert (histogram.count, histogram.total, histogram.max) == (4, 0.75, 0.5)


@given(st.lists(in_range, min_size=1), st.floats(0.0, 1.0))
def test_a_quantile_is_off_by_a_ninth_of_its_value_at_most(
    durations: list[float], q: float
) -> None:
    exact = exact_quantile(durations, q)
    assert histogram_of(durations).quantile(q) == pytest.approx(exact, rel=OFF)


@given(st.lists(any_duration, min_size=1))
def test_zero_is_told_apart_from_the_shortest_durations(durations: list[float]) -> None:
    histogram = histogram_of(durations)
    for q in (0.1, 0.5, 0.9):
        assert (histogram.quantile(q) == 0.0) == (exact_quantile(durations, q) == 0.0)


@given(st.lists(any_duration), st.lists(st.floats(0.0, 1.0), min_size=2))
def test_quantiles_rise_with_the_share_up_to_the_longest(
    durations: list[float], shares: list[float]
) -> None:
    histogram = histogram_of(durations)
    answers = histogram.quantiles(*sorted(shares))
    assert list(answers) == sorted(answers)
    assert answers[-1] <= histogram.max == histogram.quantile(1.0)


@given(st.lists(any_duration), st.lists(any_duration))
def test_absorbing_is_the_same_as_having_counted_it_all(
    mine: list[float], others: list[float]
) -> None:
    histogram, other = histogram_of(mine), histogram_of(others)
    before = contents(other)
    histogram.absorb(other)
    assert contents(histogram) == contents(histogram_of(mine + others))
    assert histogram.total == pytest.approx(sum(mine) + sum(others))
    assert contents(other) == before


def test_absorbing_itself_doubles_it() -> None:
    histogram = histogram_of([0.0, 0.1])
    histogram.absorb(histogram)
    assert (histogram.count, histogram.total) == (4, 0.2)
    assert histogram.quantile(0.5) == 0.0
    assert histogram.quantile(0.75) == pytest.approx(0.1, rel=OFF)


def test_counting_in_one_leaves_another_alone() -> None:
    histogram, other = Histogram(), Histogram()
    histogram.add(0.1)
    histogram.absorb(other)
    other.absorb(Histogram())
    assert contents(other) == contents(Histogram())
    assert (histogram.count, Histogram()._buckets) == (1, [])


def test_what_is_below_zero_counts_as_zero() -> None:
    histogram = histogram_of([-1.0, math.nan])
    assert (histogram.count, histogram.total, histogram.max) == (2, 0.0, 0.0)


@pytest.mark.parametrize("seconds", [LONGEST, 1e9, sys.float_info.max, math.inf])
def test_f156_quantiles_end_at_the_last_bucket_and_the_longest_is_exact(seconds: float) -> None:
    histogram = histogram_of([LONGEST * 2, LONGEST * 2, seconds, 0.001])
    assert histogram.max == max(seconds, LONGEST * 2)
    assert LONGEST <= histogram.quantile(0.5) < LONGEST * 1.25
    assert histogram.quantile(1.0) == histogram.max


def test_the_first_bucket_takes_whatever_is_shorter() -> None:
    histogram = histogram_of([sys.float_info.min, 1e-9, 1e-9])
    assert 0.0 < histogram.quantile(0.5) <= histogram.max == 1e-9


def test_its_size_does_not_grow_with_what_it_counts() -> None:
    assert Histogram()._buckets is Histogram()._buckets == []
    histogram = histogram_of([1.3**power for power in range(-200, 200)])
    assert len(histogram._buckets) <= 106
    for _ in range(1000):
        histogram.add(1e300)
    assert len(histogram._buckets) <= 106


def test_repr_tells_what_it_has_counted() -> None:
    assert repr(histogram_of([0.5, 1.0])) == "<Histogram of 2 durations, 1.5 s, max 1 s>"


def test_tells_how_many_durations_stayed_within_each_limit() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.0, 0.0001, 0.02, 0.3, 20_000.0):
        histogram.add(seconds)
    within = count_within(histogram.copy_buckets(), histogram.count, (0.0, 0.001, 0.1, 1.0, 9999.0))
    assert within == [2, 3, 4, 5, 5]
    assert count_within((), 3, (1.0,)) == [3]
    assert count_within(Histogram().copy_buckets(), 0, (1.0,)) == [0]
    # Another thread may have counted a bucket, and read the count before.
    assert count_within(histogram.copy_buckets(), 0, (1.0,)) == [3]


@pytest.mark.parametrize("limit", [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0])
def test_a_duration_is_on_the_right_side_of_a_limit_unless_it_is_close(limit: float) -> None:
    histogram = Histogram()
    histogram.add(limit / (1.0 + QUANTILE_ERROR) * 0.99)
    assert count_within(histogram.copy_buckets(), 1, (limit,)) == [1]
    histogram = Histogram()
    histogram.add(limit / (1.0 - QUANTILE_ERROR) * 1.01)
    assert count_within(histogram.copy_buckets(), 1, (limit,)) == [0]


def test_counting_in_bulk_is_counting_one_by_one() -> None:
    durations = [0.0, 1e-9, SHORTEST, 0.01, 0.011, 0.0, 2.5, 7.0, LONGEST * 9]
    one_by_one, in_bulk = Histogram(), Histogram()
    in_bulk.add(0.3)
    one_by_one.add(0.3)
    for seconds in durations:
        one_by_one.add(seconds)
    in_bulk.add_all(durations)
    in_bulk.add_all([])
    assert in_bulk.copy_buckets() == one_by_one.copy_buckets()
    assert (in_bulk.count, in_bulk.max) == (one_by_one.count, one_by_one.max)
    assert in_bulk.total == pytest.approx(one_by_one.total)


def test_what_is_recent_belongs_to_it_before_it_is_counted() -> None:
    histogram, counted = Histogram(), Histogram()
    for seconds in (0.0, 0.5, 4.0):
        counted.add(seconds)
    histogram.add(0.5)
    histogram.recent += [4.0, 0.0]
    assert (histogram.count, histogram.total, histogram.max) == (3, 4.5, 4.0)
    assert histogram.copy_buckets() == counted.copy_buckets()
    assert histogram.quantiles(0.5, 1.0) == counted.quantiles(0.5, 1.0)
    settled = histogram.settled()
    assert (settled.recent, settled.count, histogram.recent) == ([], 3, [4.0, 0.0])
    assert settled.settled() is settled
    sum_of_both = Histogram()
    sum_of_both.absorb(histogram)
    assert (sum_of_both.count, sum_of_both.recent) == (3, [])


def test_zeros_are_counted_and_have_no_bucket() -> None:
    histogram = Histogram()
    histogram.add_zeros(3)
    histogram.add(1.0)
    assert (histogram.count, histogram.quantile(0.5), sum(histogram.copy_buckets())) == (4, 0.0, 1)


def test_a_summary_is_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may read while leases end."""
    histogram = Histogram()
    histogram.recent.append(1.0)
    quantiles = Histogram.quantiles

    def amid(self: Histogram, *shares: float) -> tuple[float, ...]:
        histogram.recent.append(9.0)
        return quantiles(self, *shares)

    monkeypatch.setattr(Histogram, "quantiles", amid)
    summary = LatencySummary.of(histogram)
    assert (summary.count, summary.total, summary.max) == (1, 1.0, 1.0)
