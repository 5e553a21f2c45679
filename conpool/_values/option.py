"""An option of the configuration: a field with its default and its rule.

The constructor checks every option by its rule, and `from_env` reads text by the same rule.
A rule refuses values that no pool could work with; unusual values are the caller's affair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeAlias, TypeVar

from conpool._values.config_error import ConfigError, shown
from conpool._values.validation import valid_count, valid_seconds, valid_share

T = TypeVar("T")

_UNLIMITED: Final = frozenset({"inf", "none"})


@dataclass(frozen=True, slots=True)
class Count:
    """An int of at least `minimum`; if it is optional, None means "no limit"."""

    minimum: int
    optional: bool = False

    def check(self, name: str, value: object) -> int | None:
        """Return the value to store, or raise `ConfigError`."""
        if value is None and self.optional:
            return None
        return valid_count(name, value, minimum=self.minimum)

    def parse(self, text: str) -> object:
        """Return the value that the text stands for, or the text itself, for `check` to refuse."""
        if self.optional and text.lower() in _UNLIMITED:
            return None
        try:
            return int(text)
        except ValueError:
            return text


@dataclass(frozen=True, slots=True)
class Seconds:
    """A duration; 0 only unless `positive`, None only if `optional`."""

    positive: bool = False
    optional: bool = False

    def check(self, name: str, value: object) -> float | None:
        """Return the value to store, or raise `ConfigError`."""
        if value is None and self.optional:
            return None
        return valid_seconds(name, value, positive=self.positive)

    def parse(self, text: str) -> object:
        """As `Count.parse`."""
        if text.lower() == "none":
            return None if self.optional else math.inf
        return _number(text)


@dataclass(frozen=True, slots=True)
class Share:
    """A number from 0 to 1."""

    def check(self, name: str, value: object) -> float:
        """Return the value to store, or raise `ConfigError`."""
        return valid_share(name, value)

    def parse(self, text: str) -> object:
        """As `Count.parse`."""
        return _number(text)


@dataclass(frozen=True, slots=True)
class InstanceOrNone:
    """An instance of `kind`, or None. No text means one, so the environment cannot set it."""

    kind: type[object]

    def check(self, name: str, value: object) -> object:
        """Return the value to store, or raise `ConfigError`."""
        if value is not None and not isinstance(value, self.kind):
            raise ConfigError(f"{name} must be a {self.kind.__name__} or None, not {shown(value)}")
        return value


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


Rule: TypeAlias = Count | Seconds | Share | InstanceOrNone


def option(default: T, rule: Rule, *, pool_wide: bool = False) -> T:
    """Declare a field of a frozen dataclass; to type checkers it has an ordinary default.

    A `pool_wide` option concerns the whole pool, so that no endpoint can have its own.
    """
    return field(default=default, metadata={"rule": rule, "pool_wide": pool_wide})


def rules_of(options: Any) -> dict[str, Rule]:
    """Return the rule of each option by name; `options` is a class or an object of it."""
    return {option.name: option.metadata["rule"] for option in fields(options)}


def pool_wide_of(options: Any) -> frozenset[str]:
    """Return the names of the pool-wide options."""
    return frozenset(option.name for option in fields(options) if option.metadata["pool_wide"])


def validate_fields(value: Any) -> None:
    """Check every option of a new object, and store it in its proper type.

    Raises:
        ConfigError: An option breaks its rule.
    """
    for name, rule in rules_of(value).items():
        object.__setattr__(value, name, rule.check(name, getattr(value, name)))


def options_text(value: Any) -> str:
    """Write a constructor call that makes an equal object, without the defaults."""
    said = [
        f"{option.name}={_literal(getattr(value, option.name))}"
        for option in fields(value)
        if getattr(value, option.name) != option.default
    ]
    return f"{type(value).__name__}({', '.join(said)})"


def _literal(value: object) -> str:
    # repr writes `inf`, a name that Python does not know.
    return "float('inf')" if value == math.inf else repr(value)
