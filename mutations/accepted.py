"""Reads `accepted.txt`: mechanical bugs that no test can see, because they change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

from mutations.mutator import read_key

LIST: Final = Path(__file__).with_suffix(".txt")

Key: TypeAlias = tuple[str, str, str]


def read_accepted(text: str) -> dict[Key, str]:
    """Return the reason for each; a line without one raises `ValueError`."""
    found: dict[Key, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, reason = line.partition(" ")
        if name.count(":") != 3 or not reason.strip():
            raise ValueError(f"not `file:line:kind:hash reason`: {line!r}")
        found[read_key(name)] = reason.strip()
    return found
