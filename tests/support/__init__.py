"""What several suites share: the invariants of the books, and a shell played by hand."""

from __future__ import annotations

from .invariants import check

__all__ = ["check"]
