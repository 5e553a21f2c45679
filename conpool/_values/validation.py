"""The rules that values share.

Each function takes the value's name for the error message, and returns the value to store or raises
`ConfigError`. The message shows the value, too, unless it might be a secret.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping
from typing import TypeVar, cast

from conpool._values.config_error import ConfigError, named, shown

T = TypeVar("T")

# ── numbers ─────────────────────────────────────────────────────────────────────


def valid_count(name: str, value: object, *, minimum: int) -> int:
    """Return an int of at least `minimum`, but no bool."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} must be an int of at least {minimum}, not {shown(value)}")
    return int(value)


def valid_seconds(
    name: str, value: object, *, positive: bool = False, minimum: float = 0.0
) -> float:
    """Return a duration of at least `minimum` seconds; above 0 if `positive`; maybe `math.inf`."""
    seconds = _as_float(value)
    if seconds is None or not (seconds > 0 if positive else seconds >= minimum):
        least = "more than 0" if positive else f"{minimum:g} or more"
        raise ConfigError(
            f"{name} must be {least} seconds (math.inf: no limit), not {shown(value)}"
        )
    return seconds


def valid_share(name: str, value: object) -> float:
    """Return a number from 0 to 1."""
    share = _as_float(value)
    if share is None or not 0 <= share <= 1:
        raise ConfigError(f"{name} must be a number from 0 to 1, not {shown(value)}")
    return share


def _as_float(value: object) -> float | None:
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an int beyond 1.8e308
        return None


def valid_flag(name: str, value: object) -> bool:
    """Return a bool; refuse other values that Python takes for true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {shown(value)}")
    return value


def valid_port(name: str, value: object) -> int:
    """Return a port number; trio dials one that is too large modulo 65,536."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be an int, not {type(value).__name__}")
    if not 1 <= value <= 65535:
        raise ConfigError(f"{name} must be from 1 to 65535, not {shown(value)}")
    return int(value)


# ── objects ─────────────────────────────────────────────────────────────────────


def valid_instance(name: str, value: object, kind: type[T]) -> T:
    """Return an instance of `kind`."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name} must be a {kind.__name__}, not {named(value)}")
    return value


def valid_mapping(name: str, value: object) -> Mapping[object, object]:
    """Return a mapping."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} must be a mapping, not {named(value)}")
    return cast("Mapping[object, object]", value)


def valid_async_function(name: str, value: object) -> None:
    """Refuse what cannot be an async function, and what was plainly not written as one."""
    if not callable(value):
        raise ConfigError(f"{name} must be an async function, not {named(value)}")
    if inspect.isasyncgenfunction(value) or _is_plain_function(value):
        raise ConfigError(f"{name} must be an async function: {named(value)} is not")


def _is_plain_function(value: object) -> bool:
    """Whether `value` was written with `def`. A lambda may well return an awaitable."""
    if inspect.iscoroutinefunction(value) or getattr(value, "__name__", "") == "<lambda>":
        return False
    return inspect.isroutine(value)


# ── identity ────────────────────────────────────────────────────────────────────


def valid_partition(value: Hashable) -> Hashable:
    """Return a partition that the pool can hash and compare; show nothing of it."""
    kind = type(value).__name__
    try:
        hash(value)
        # Compare it to a stranger, too: an `__eq__` that expects its own type fails only when
        # two hashes collide.
        equal = bool(value == value) and not bool(value == object())  # noqa: PLR0124
    except Exception as error:
        raise ConfigError(f"partition ({kind}) cannot be hashed and compared") from error
    if not equal:
        raise ConfigError(f"partition ({kind}) must equal itself, and not everything else")
    return value
