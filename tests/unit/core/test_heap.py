from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from conpool._core.heap import Heap


def rows_of(heap: Heap[str]) -> int:
    """How many rows it has, the empty ones too."""
    return len(heap._rows) + len(heap._left)


def test_an_empty_heap_has_nothing_first() -> None:
    heap: Heap[str] = Heap()
    assert (heap.first(), heap.next_key, len(heap)) == (None, None, 0)
    assert heap.pop_until(math.inf, 9) == []


def test_the_item_with_the_lowest_key_is_first() -> None:
    heap: Heap[str] = Heap()
    for key in (2.0, 1.0, 3.0):
        heap.push(key, str(key))
    assert (heap.first(), heap.next_key) == ("1.0", 1.0)


def test_of_equal_keys_the_one_that_came_first_is_first() -> None:
    heap: Heap[str] = Heap()
    for name in "abcde":
        heap.push(1.0, name)
    assert heap.pop_until(1.0, 9) == [*"abcde"]


def test_an_item_that_left_is_first_no_more() -> None:
    heap: Heap[str] = Heap()
    row = heap.push(1.0, "a")
    heap.push(2.0, "b")
    heap.drop(row)
    assert (heap.first(), heap.live) == ("b", 1)


def test_an_item_leaves_once() -> None:
    heap: Heap[str] = Heap()
    row = heap.push(1.0, "a")
    heap.push(2.0, "b")
    heap.drop(row)
    heap.drop(row)
    assert heap.live == 1


def test_the_next_key_may_be_that_of_one_who_left_but_is_never_too_high() -> None:
    heap: Heap[str] = Heap()
    row = heap.push(1.0, "a")
    heap.push(2.0, "b")
    heap.drop(row)
    assert heap.next_key == 1.0


def test_popping_goes_as_far_as_the_key_and_no_further() -> None:
    heap: Heap[str] = Heap()
    for key in (1.0, 2.0, 3.0):
        heap.push(key, str(key))
    assert heap.pop_until(2.0, 9) == ["1.0", "2.0"]
    assert heap.pop_until(2.9, 9) == []
    assert heap.pop_until(3.0, 9) == ["3.0"]


def test_popping_removes_no_more_rows_than_asked_for() -> None:
    """G34."""
    heap: Heap[str] = Heap()
    for key in (1.0, 2.0, 3.0):
        heap.push(key, str(key))
    assert heap.pop_until(9.0, 2) == ["1.0", "2.0"]
    assert heap.pop_until(9.0, 2) == ["3.0"]


def test_an_empty_row_counts_as_one_of_those_that_are_popped() -> None:
    heap: Heap[str] = Heap()
    heap.drop(heap.push(1.0, "a"))
    heap.push(2.0, "b")
    assert heap.pop_until(9.0, 1) == []
    assert heap.pop_until(9.0, 1) == ["b"]


def test_what_was_popped_can_be_dropped_without_harm() -> None:
    heap: Heap[str] = Heap()
    row = heap.push(1.0, "a")
    heap.push(2.0, "b")
    heap.pop_until(1.0, 1)
    heap.drop(row)
    assert (heap.live, heap.first()) == (1, "b")


def test_f147_empty_rows_are_cleaned_up_a_few_at_a_time() -> None:
    """G34: no call moves more than a handful of rows."""
    heap: Heap[str] = Heap()
    heap.push(math.inf, "stays")
    rows = [heap.push(float(number), "goes") for number in range(10_000)]
    counts = []
    for row in rows:
        heap.drop(row)
        counts.append(rows_of(heap))
    assert max(before - after for before, after in pairwise(counts)) <= 5
    assert counts[-1] < 5000
    assert heap.first() == "stays"


def test_rows_of_the_gone_do_not_outnumber_the_living_for_long() -> None:
    """Nothing grows with the past."""
    heap: Heap[str] = Heap()
    heap.push(1e6, "stays")
    most = 0
    for _ in range(100_000):
        heap.drop(heap.push(1000.0, "goes"))
        most = max(most, rows_of(heap))
    assert most < 200
    assert heap.pop_until(1e6, 1000) == ["stays"]


def test_the_living_survive_a_clean_up() -> None:
    heap: Heap[str] = Heap()
    rows = [heap.push(float(number), str(number)) for number in range(1000)]
    for number, row in enumerate(rows):
        if number % 10:
            heap.drop(row)
    assert heap.pop_until(math.inf, 10_000) == [str(number) for number in range(0, 1000, 10)]


def test_an_item_can_leave_while_its_row_is_yet_to_be_moved() -> None:
    heap: Heap[str] = Heap()
    rows = [heap.push(float(number), str(number)) for number in range(400)]
    for row in rows[:-20]:
        heap.drop(row)
    assert heap._left
    for row in rows[-20:-1]:
        heap.drop(row)
    assert (heap.first(), heap.live) == ("399", 1)


@given(st.lists(st.tuples(st.sampled_from(["push", "drop", "pop"]), st.integers(0, 50))))
@pytest.mark.timeout(60)
def test_a_heap_is_a_sorted_list_with_fewer_steps(steps: list[tuple[str, int]]) -> None:
    heap: Heap[int] = Heap()
    rows = {}
    expected: dict[int, float] = {}
    for number, (what, key) in enumerate(steps):
        if what == "push":
            for item in range(number * 100, number * 100 + 10):
                rows[item] = heap.push(key, item)
                expected[item] = key
        elif what == "drop":
            for item in sorted(expected)[: 2 * key]:
                del expected[item]
                heap.drop(rows.pop(item))
        else:
            due = [
                i for i in sorted(expected, key=lambda i: (expected[i], i)) if expected[i] <= key
            ]
            assert heap.pop_until(key, 100_000) == due
            for item in due:
                del expected[item], rows[item]
        assert len(heap) == len(expected)
        first = heap.first()
        assert first == min(expected, key=lambda i: (expected[i], i), default=None)
        lowest = min(expected.values(), default=None)
        assert heap.next_key == lowest  # `first` has swept away the empty rows before it


def test_counts_the_items_below_a_key() -> None:
    heap: Heap[str] = Heap()
    rows = [heap.push(float(number), str(number)) for number in range(10)]
    heap.drop(rows[3])
    assert [heap.count_below(key, 99) for key in (0.0, 3.0, 4.0, 99.0)] == [0, 3, 3, 9]


def test_counts_the_items_below_a_key_while_rows_are_yet_to_be_moved() -> None:
    heap: Heap[str] = Heap()
    rows = [heap.push(float(number), str(number)) for number in range(400)]
    for row in rows[100:-20]:
        heap.drop(row)
    assert heap._left
    assert heap._rows
    assert heap.count_below(390.0, 999) == 110


def test_the_lowest_is_first_while_its_row_is_yet_to_be_moved() -> None:
    heap: Heap[str] = Heap()
    rows = [heap.push(float(number), str(number)) for number in range(400)]
    for row in rows[100:-20]:
        heap.drop(row)
    assert heap._left
    assert heap._rows
    assert (heap.first(), heap.next_key) == ("0", 0.0)


def test_counting_stops_where_it_is_enough() -> None:
    heap: Heap[str] = Heap()
    for number in range(1000):
        heap.push(float(number), "")
    assert heap.count_below(999.0, 3) == 3


def test_shows_how_many_it_has_and_how_many_rows_that_takes() -> None:
    heap: Heap[str] = Heap()
    heap.push(1.0, "a")
    heap.drop(heap.push(2.0, "b"))
    assert repr(heap) == "<Heap of 1, 2 rows>"
