from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from unittest import mock

import pytest

from conpool._values.config_error import ConfigError, named, shown
from conpool._values.validation import (
    valid_count,
    valid_flag,
    valid_instance,
    valid_partition,
    valid_port,
    valid_seconds,
    valid_share,
)


@pytest.mark.parametrize("port", [0, -1, 65536, 100063], ids="F001-{}".format)
def test_a_port_that_trio_would_take_modulo_65536_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=f"port must be from 1 to 65535, not {port}"):
        valid_port("port", port)


def test_a_port_too_long_to_print_is_refused() -> None:
    with pytest.raises(ConfigError, match="not (a huge int|<int instance)"):
        valid_port("port", 10**5000)


@pytest.mark.parametrize("port", [True, "5432", 5432.0, None], ids="F002-{!r}".format)
def test_a_port_that_is_no_int_is_refused(port: object) -> None:
    with pytest.raises(ConfigError, match=f"must be an int, not {type(port).__name__}"):
        valid_port("port", port)


@pytest.mark.parametrize("port", [1, 443, 65535])
def test_a_port_in_range_is_returned(port: int) -> None:
    assert valid_port("port", port) == port


@pytest.mark.parametrize("value", [0, -1, 1.5, 1.0, True, "1", None], ids="F011-{!r}".format)
def test_a_count_is_an_int_of_at_least_its_minimum(value: object) -> None:
    with pytest.raises(ConfigError, match=r"limit must be an int of at least 1, not "):
        valid_count("limit", value, minimum=1)


@pytest.mark.parametrize("value", [1, 10**9], ids="F011-{}".format)
def test_a_count_may_be_large(value: int) -> None:
    assert valid_count("limit", value, minimum=1) == value


@pytest.mark.parametrize(
    "value",
    [math.nan, -1, -math.inf, "5", True, None, 10**400, 1j],
    ids=["F013-nan", "F013-negative", "-inf", "F013-str", "F013-bool", "None", "huge", "complex"],
)
def test_a_duration_is_a_number_of_seconds_that_can_pass(value: object) -> None:
    with pytest.raises(ConfigError, match="time must be 0 or more seconds"):
        valid_seconds("time", value, positive=False)


def test_a_duration_may_be_infinite_and_becomes_a_float() -> None:
    """F013."""
    assert valid_seconds("time", math.inf, positive=True) == math.inf
    assert isinstance(valid_seconds("time", 5, positive=True), float)


def test_zero_is_a_duration_only_where_it_makes_sense() -> None:
    assert valid_seconds("time", 0, positive=False) == 0
    with pytest.raises(ConfigError, match="time must be more than 0 seconds"):
        valid_seconds("time", 0, positive=True)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, True, "0"], ids=repr)
def test_a_share_is_from_0_to_1(value: object) -> None:
    with pytest.raises(ConfigError, match="a number from 0 to 1"):
        valid_share("jitter", value)


def test_both_ends_of_a_share_are_allowed() -> None:
    assert [valid_share("jitter", value) for value in (0, 1)] == [0.0, 1.0]


@pytest.mark.parametrize("value", [0, 1, None, "yes"], ids=repr)
def test_a_flag_is_a_bool_and_nothing_else(value: object) -> None:
    with pytest.raises(ConfigError, match="flag must be True or False"):
        valid_flag("flag", value)
    assert valid_flag("flag", True)


class RaisingHash:
    def __hash__(self) -> int:
        raise RuntimeError("no hash")


@dataclass(frozen=True)
class LooksIntoStrangers:
    number: int

    def __eq__(self, other: object) -> bool:
        return bool(self.number == other.number)  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return self.number


@pytest.mark.parametrize(
    "partition",
    [[], ("user", []), RaisingHash(), LooksIntoStrangers(7), math.nan, mock.ANY],
    ids=[
        "F018-unhashable",
        "F018-unhashable-inside",
        "F018-hash-raises",
        "F018-eq-raises",
        "never-equal",
        "equal-to-all",
    ],
)
def test_a_partition_that_would_fail_inside_the_pool_is_refused(partition: object) -> None:
    with pytest.raises(ConfigError, match="partition"):
        valid_partition(partition)


@pytest.mark.parametrize("partition", [None, "tenant", ("user", 7), frozenset({1})], ids=repr)
def test_a_partition_is_returned_as_it_is(partition: object) -> None:
    assert valid_partition(partition) is partition


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "None"),
        (5, "5"),
        (dict, "the class dict"),
        (test_both_ends_of_a_share_are_allowed, "the function test_both_ends_of_a_share_are_al"),
        ("redis://joe:hunter2@host", "a str"),
        ({"password": "hunter2"}, "a dict"),
        (functools.partial(print, "hunter2"), "a partial"),
        (Unspeakable(), "an Unspeakable"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_f137_f157_a_stranger_is_named_and_nothing_in_it_shown(value: object, said: str) -> None:
    assert named(value).startswith(said)
    with pytest.raises(ConfigError) as caught:
        valid_instance("config", value, Unrelated)
    assert f"config must be a Unrelated, not {said}" in str(caught.value)
    assert "hunter2" not in str(caught.value)


class Unrelated:
    pass


def test_f137_a_value_that_cannot_be_shown_is_named() -> None:
    assert shown(Unspeakable()).startswith("<Unspeakable instance at")
    strange = type("str", (), {"__getitem__": None})()
    assert shown(strange).startswith(("a strange str", "<"))  # newer ones show it, cut short
