"""Planted bugs: each must be noticed by the tests it names. `python -m tests.mutations.run` tries them.

A suite that has never failed proves nothing. Each module here (`core`, `corpus`, …) has a list
`MUTATIONS`; a mutation replaces one passage of one file by another that looks nearly as good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One bug, and the tests that should notice it."""

    name: str
    """What is broken, as a sentence; unique."""
    file: str
    """The file in the package, for example `_core.py`."""
    old: str
    """A passage that occurs exactly once in the file."""
    new: str
    """What stands there instead."""
    tests: tuple[str, ...]
    """What to run, as pytest takes it, relative to the project; the likeliest to notice first."""
