"""What was left in a connection, and who read it next: cases that other pools did not survive.

Each test is named after the report of it, and its docstring says what happened there."""

from __future__ import annotations
