"""Dictionaries that are empty nearly always, and take memory only while something is in them.

A pool may know a hundred thousand endpoints, and each has several of these. An empty dictionary
takes 64 bytes, and one that was emptied 200. So all that are empty are one, which nobody can write
to: these functions make every change.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

K = TypeVar("K")
V = TypeVar("V")

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


def nothing() -> Mapping[Any, Any]:
    """Return the one that is empty."""
    return _NOTHING


def entered(few: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    """Enter `key`, and return what takes the place of `few`."""
    if not few:
        return {key: value}
    cast("dict[K, V]", few)[key] = value
    return few


def without(few: Mapping[K, V], key: K) -> Mapping[K, V]:
    """Remove `key`, if it is there, and return what takes the place of `few`."""
    if key in few:
        del cast("dict[K, V]", few)[key]
        return few or _NOTHING
    return few


def without_member(few: Mapping[K, dict[V, None]], key: K, member: V) -> Mapping[K, dict[V, None]]:
    """Remove `member` from what `key` leads to, and return what takes the place of `few`."""
    del few[key][member]
    return few if few[key] else without(few, key)
