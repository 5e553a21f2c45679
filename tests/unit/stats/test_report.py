from __future__ import annotations

import math

import pytest

from conpool._stats.report import NO_BREAK, WIDTH, block, duration, shorten, table


def test_aligns_names_left_and_numbers_right() -> None:
    text = table(["name", "count"], [["a", "1"], ["longer", "1000000"]], ["total", "1000001"])
    assert text.splitlines() == [
        "name      count",
        "---------------",
        "a             1",
        "longer  1000000",
        "---------------",
        "total   1000001",
    ]


def test_a_table_without_rows_still_has_its_total() -> None:
    text = table(["name", "count"], [], ["total", "0"])
    assert text.splitlines() == ["name   count", "------------", "------------", "total      0"]


def test_a_row_of_another_length_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        table(["a", "b", "c"], [["1", "2"]], ["1", "2", "3"])


def test_a_block_aligns_its_lines_behind_their_labels() -> None:
    assert block("title", {"a": "1", "longer": "2 3"}).splitlines() == [
        "title",
        "  a       1",
        "  longer  2 3",
    ]


def test_a_block_wraps_a_long_line_below_its_start_and_not_at_a_no_break_space() -> None:
    pair = f"first{NO_BREAK}second"
    title, *lines = block("title", {"label": ", ".join([pair] * 20)}).splitlines()
    assert title == "title"
    assert len(lines) > 2
    assert all(line.startswith(("  label  first", "         first")) for line in lines)
    assert all(line.endswith(("second,", "second")) for line in lines)
    assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("example.org:443", 15, "example.org:443"),
        ("example.org:443", 14, "exampl...g:443"),
        ("a" * 50 + "b" * 50, 10, "aaaa...bbb"),
    ],
)
def test_shortens_in_the_middle(text: str, width: int, short: str) -> None:
    assert shorten(text, width) == short
    assert len(short) <= width


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0"),
        (0.0000004, "0.4us"),
        (0.00085, "850us"),
        (0.0009996, "1ms"),
        (0.00124, "1.24ms"),
        (0.99949, "999ms"),
        (0.9996, "1s"),
        (3.5, "3.5s"),
        (30.0, "30s"),
        (99.9, "99.9s"),
        (100.0, "1.7min"),
        (720.0, "12.0min"),
        (5990.0, "99.8min"),
        (9000.0, "2.5h"),
        (1e6, "277.8h"),
        (math.inf, "-"),
        (math.nan, "-"),
    ],
)
def test_durations_have_units_and_three_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
