from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from conpool._values.config_error import ConfigError
from conpool._values.option import (
    SHARE,
    Rule,
    count,
    instance_or_none,
    option,
    options_text,
    rules_of,
    seconds,
    validate_fields,
)


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Options:
    depth: int = option(3, count(1))
    delay: float = option(1.0, seconds())
    share: float = option(0.5, SHARE)
    error: ValueError | None = option(None, instance_or_none(ValueError))

    def __post_init__(self) -> None:
        validate_fields(self)

    def __repr__(self) -> str:
        return options_text(self)


def test_an_option_has_its_default_and_its_rule() -> None:
    assert Options().depth == 3
    assert list(rules_of(Options)) == ["depth", "delay", "share", "error"]
    assert rules_of(Options())["share"] is SHARE


def test_an_option_is_stored_in_its_proper_type() -> None:
    assert isinstance(Options(delay=2).delay, float)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("depth", 0, "an int of at least 1, not 0"),
        ("delay", -1, "0 or more seconds (math.inf: no limit), not -1"),
        ("share", 2, "a number from 0 to 1, not 2"),
        ("error", "gone", "a ValueError or None, not 'gone'"),
    ],
)
def test_a_value_that_breaks_the_rule_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(Options(), **{name: value})
    assert str(caught.value) == f"{name} must be {message}"


def test_the_text_of_options_leaves_out_defaults() -> None:
    assert repr(Options()) == "Options()"
    assert repr(Options(depth=4, share=1)) == "Options(depth=4, share=1.0)"


@pytest.mark.parametrize(
    ("rule", "text", "value"),
    [
        (count(1), "7", 7),
        (count(1), "none", "none"),
        (count(1), "inf", "inf"),
        (count(1), "1.5", "1.5"),
        (count(1, optional=True), "None", None),
        (count(1, optional=True), "INF", None),
        (seconds(), "2.5", 2.5),
        (seconds(), "none", math.inf),
        (seconds(), "inf", math.inf),
        (seconds(), "5s", "5s"),
        (seconds(optional=True), "none", None),
        (seconds(optional=True), "inf", math.inf),
        (SHARE, "0.5", 0.5),
        (SHARE, "none", "none"),
    ],
)
def test_a_text_is_read_by_the_rule_or_left_for_its_check(
    rule: Rule, text: str, value: object
) -> None:
    assert rule.parse(text) == value
