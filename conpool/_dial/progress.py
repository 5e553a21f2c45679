"""How far a dial has come, so that a time-out can say where the time went.

A time-out cancels the connector, and a cancelled connector cannot say what it was doing. So it
notes that as it goes, in the `Progress` that the dial has put into a context variable. Child tasks
inherit the variable, and so note into the same `Progress`.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import final

from conpool._values.states import DialPhase


@final
class Progress:
    """The phase a dial is in, and the errors of the addresses it has tried so far."""

    __slots__ = ("attempts", "phase")

    def __init__(self) -> None:
        self.phase: DialPhase = "tcp"
        self.attempts: list[OSError] = []

    def __repr__(self) -> str:
        return f"<Progress {self.phase}, {len(self.attempts)} failed attempts>"


current: ContextVar[Progress | None] = ContextVar("conpool_dial_progress", default=None)


def note_phase(phase: DialPhase) -> None:
    """Note that the running dial has reached `phase`."""
    progress = current.get()
    if progress is not None:
        progress.phase = phase


def note_attempt(error: OSError) -> None:
    """Note that one address failed with `error`."""
    progress = current.get()
    if progress is not None:
        progress.attempts.append(error)
