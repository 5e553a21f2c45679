"""Which connection has last served which key, so that the same caller finds it again.

Only connections that are open remember a key, one each: the memory is bounded by their number.
"""

from __future__ import annotations

from collections.abc import Hashable

from conpool._core.few import entered, without
from conpool._core.records import AnyEntry


def remember(entry: AnyEntry, key: Hashable) -> None:
    """`entry` serves `key`, and may serve it again."""
    forget(entry)
    entry.affinity = key
    entry.sub.known = entered(entry.sub.known, key, entry)


def forget(entry: AnyEntry) -> None:
    """`entry` serves its key no more."""
    if entry.affinity is not None and entry.sub.known.get(entry.affinity) is entry:
        entry.sub.known = without(entry.sub.known, entry.affinity)
