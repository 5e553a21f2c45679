"""What the core wants done: its half of the conversation with the shell.

While it changes the books, the core puts effects into its outbox. Once the books are right, the
engine performs them in order and reports what became of each.

A waiter or a warmer in the outbox is to be woken; its own fields say with what. (They stand for
themselves because one is made for every lease that had to wait.)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, final

from conpool._core.records import Entry, LinkT, TaskT, Waiter, Warmer
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import CircuitState


@final
@dataclass(slots=True)
class Dial(Generic[LinkT, TaskT]):
    """Open `entry`, then report `dialled` or `dial_failed`."""

    entry: Entry[LinkT, TaskT]


@final
@dataclass(slots=True)
class GiveUp(Generic[LinkT, TaskT]):
    """End the dial of `entry` now, then report `dial_failed` without an error."""

    entry: Entry[LinkT, TaskT]


@final
@dataclass(slots=True)
class Check(Generic[LinkT, TaskT]):
    """Probe `entry`, have its peer asked if that is due, then report `checked`."""

    entry: Entry[LinkT, TaskT]


@final
@dataclass(slots=True)
class Reset(Generic[LinkT, TaskT]):
    """Clear what a lease has left behind on `entry`, then report `reset_over`."""

    entry: Entry[LinkT, TaskT]


@final
@dataclass(slots=True)
class Close(Generic[LinkT, TaskT]):
    """Close `entry`, with a goodbye if `gracefully`, then report `closed`."""

    entry: Entry[LinkT, TaskT]
    gracefully: bool


@final
@dataclass(slots=True)
class CircuitChanged:
    """Tell the observers that the circuit of `endpoint` has gone from `old` to `new`."""

    endpoint: AnyEndpoint
    old: CircuitState
    new: CircuitState


Effect: TypeAlias = (
    Waiter[LinkT, TaskT]
    | Warmer[TaskT]
    | Dial[LinkT, TaskT]
    | GiveUp[LinkT, TaskT]
    | Check[LinkT, TaskT]
    | Reset[LinkT, TaskT]
    | Close[LinkT, TaskT]
    | CircuitChanged
)


def note_circuit(
    effects: deque[Effect[Any, Any]], endpoint: AnyEndpoint, old: CircuitState, new: CircuitState
) -> None:
    """Enter a change of the circuit of `endpoint` into the outbox."""
    effects.append(CircuitChanged(endpoint, old, new))
