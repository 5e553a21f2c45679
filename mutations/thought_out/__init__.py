"""Bugs that somebody thought of, each as a pinned passage. Each file has a list `MUTATIONS`."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from mutations.bug import Mutation

SOURCES: Final = (
    "core",
    "corpus",
    "exporters",
    "groups",
    "http",
    "overload",
    "proof",
    "sessions",
    "shell",
    "straight",
)


def load(sources: list[str]) -> list[Mutation]:
    """The mutations of these lists, or of all."""
    found: list[Mutation] = []
    for source in sources or SOURCES:
        found += import_module(f"{__name__}.{source}").MUTATIONS
    names = [mutation.name for mutation in found]
    assert len(set(names)) == len(names), "two mutations have the same name"
    return found
