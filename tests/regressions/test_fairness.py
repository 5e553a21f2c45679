"""Whose turn it was, and who was served: cases that other pools did not survive.

Each test is named after the report of it, and its docstring says what happened there."""

from __future__ import annotations
