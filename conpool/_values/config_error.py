"""The two root errors, and how an error message shows a wrong value."""

from __future__ import annotations

import reprlib


class PoolError(Exception):
    """Base of every error that conpool raises itself."""


class ConfigError(PoolError, ValueError):
    """A value that no pool could work with; raised before any socket exists."""


def shown(value: object) -> str:
    """Show a wrong value, cut short, for an error message."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an int with more digits than Python will print
        return f"a huge {type(value).__name__}"
