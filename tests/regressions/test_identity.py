"""Connections that were shared and should not have been: cases that other pools did not survive.

Each test is named after the report of it, and its docstring says what happened there."""

from __future__ import annotations
