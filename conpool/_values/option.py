"""An option of the configuration: a field with its default and its rule.

The constructor checks every option by its rule, and `from_env` reads text by the same rule. A rule
refuses only values that no pool could work with; others may be unusual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Final, TypeVar

from conpool._values.config_error import ConfigError, shown
from conpool._values.validation import valid_count, valid_seconds, valid_share

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule:
    """Which values an option may have, and how text becomes one."""

    valid: Callable[[str, object], object]
    """Takes the name and a value; returns the value to store, or raises `ConfigError`."""
    number: Callable[[str], object] | None
    """Reads a number from text; None: the environment cannot set this option."""
    words: Mapping[str, object]
    """Words, in lower case, and the values that they stand for."""
    optional: bool = False
    """Whether the value may be None."""

    def check(self, name: str, value: object) -> object:
        """Return the value to store, or raise `ConfigError`."""
        return None if value is None and self.optional else self.valid(name, value)

    def parse(self, text: str) -> object:
        """Return the value that the text stands for, or the text itself, which `check` refuses."""
        if text.lower() in self.words:
            return self.words[text.lower()]
        try:
            return text if self.number is None else self.number(text)
        except ValueError:
            return text


def count(minimum: int, *, optional: bool = False) -> Rule:
    """Allow an int of at least `minimum`; if `optional`, None means "no limit"."""
    words: dict[str, object] = {"inf": None, "none": None} if optional else {}
    return Rule(partial(valid_count, minimum=minimum), int, words, optional=optional)


def seconds(*, positive: bool = False, minimum: float = 0.0, optional: bool = False) -> Rule:
    """Allow a duration of at least `minimum`, above 0 if `positive`; None if `optional`."""
    words = {"none": None if optional else math.inf}
    valid = partial(valid_seconds, positive=positive, minimum=minimum)
    return Rule(valid, float, words, optional=optional)


SHARE: Final = Rule(valid_share, float, {})
"""Allows a number from 0 to 1."""


def instance_or_none(kind: type[object]) -> Rule:
    """Allow an instance of `kind`, or None."""

    def valid(name: str, value: object) -> object:
        if not isinstance(value, kind):
            raise ConfigError(f"{name} must be a {kind.__name__} or None, not {shown(value)}")
        return value

    return Rule(valid, None, {}, optional=True)


def option(default: T, rule: Rule, *, pool_wide: bool = False) -> T:
    """Declare a field of a frozen dataclass; to type checkers it has an ordinary default.

    A `pool_wide` option concerns the whole pool: no endpoint can have a value of its own.
    """
    return field(default=default, metadata={"rule": rule, "pool_wide": pool_wide})


def rules_of(options: Any) -> dict[str, Rule]:
    """Return the rule of each option by name; `options` is a class or an object of it."""
    return {option.name: option.metadata["rule"] for option in fields(options)}


def validate_fields(value: Any) -> None:
    """Check every option of a new object, and store it in its proper type.

    Raises:
        ConfigError: An option breaks its rule.
    """
    for name, rule in rules_of(value).items():
        object.__setattr__(value, name, rule.check(name, getattr(value, name)))


def options_text(value: Any) -> str:
    """Write a constructor call that makes an equal object, without the defaults."""
    said: list[str] = []
    for option in fields(value):
        now = getattr(value, option.name)
        if now != option.default:
            # repr writes `inf`, a name that Python does not know.
            text = "float('inf')" if now == math.inf else repr(now)
            said.append(f"{option.name}={text}")
    return f"{type(value).__name__}({', '.join(said)})"
