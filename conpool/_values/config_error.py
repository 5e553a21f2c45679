"""The two root errors, and how an error message shows a wrong value."""

from __future__ import annotations

import reprlib
from types import FunctionType


class PoolError(Exception):
    """Base of every error that conpool raises itself."""


class ConfigError(PoolError, ValueError):
    """A value that no pool could work with; raised before any socket exists."""


def shown(value: object) -> str:
    """Show a wrong value, cut short, for an error message. It must not be one with a secret."""
    try:
        return reprlib.repr(value)
    except Exception:  # noqa: BLE001 - a huge int raises, and so may anything of the user's own
        size = "huge" if isinstance(value, int) else "strange"
        return f"a {size} {type(value).__name__}"


def named(value: object) -> str:
    """Name a value of a wrong kind, for an error message, and show nothing that may be a secret."""
    if value is None or isinstance(value, bool | int | float):
        return shown(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, FunctionType):
        return f"the function {value.__name__}"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"
