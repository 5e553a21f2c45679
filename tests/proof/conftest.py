"""Prints how much was tried: a proof that tried nothing would look like one that found nothing."""

from __future__ import annotations

import pytest

from .totals import tried


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if tried:
        counts = ", ".join(f"{count:,} {what}" for what, count in tried.items())
        terminalreporter.write_line(f"proof: {counts} tried")
