"""One bug, as it is thought of and as it is planted."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import unified_diff
from typing import TypeAlias, final

Stage: TypeAlias = tuple[str, ...]
"""What one run of pytest is given: paths relative to the project, the likeliest to fail first."""


@final
@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A bug that somebody thought of, and the tests that should notice it."""

    name: str
    """What is broken, as a sentence; unique."""
    file: str
    """The file in the package, for example `_core/core.py`."""
    old: str
    """A passage that occurs exactly once in the file."""
    new: str
    """What stands there instead."""
    tests: Stage
    """What should notice it, relative to the project; the likeliest to notice first."""


@final
@dataclass(frozen=True, kw_only=True)
class Bug:
    """A bug of either kind, ready to be planted."""

    name: str
    """A sentence, or the id of a mutant."""
    file: str
    """The file in the package."""
    sound: str
    """The text of the file."""
    broken: str
    """Its text with the bug."""
    stages: tuple[Stage, ...]
    """Runs of pytest, one after the other, until one of them fails."""
    is_thought_out: bool

    def diff(self) -> str:
        """Return what the bug changes, with three lines around it."""
        lines = unified_diff(
            self.sound.splitlines(), self.broken.splitlines(), self.file, self.file, lineterm=""
        )
        return "\n".join(lines)


def fit(mutation: Mutation, sound: str) -> Bug | str:
    """Return the bug that `mutation` makes of a file's text, or why its passage does not fit."""
    count = sound.count(mutation.old)
    if count != 1:
        return f"its passage occurs {count} times in {mutation.file}"
    broken = sound.replace(mutation.old, mutation.new)
    if broken == sound:
        return "it changes nothing"
    return Bug(
        name=mutation.name,
        file=mutation.file,
        sound=sound,
        broken=broken,
        stages=(mutation.tests,),
        is_thought_out=True,
    )
