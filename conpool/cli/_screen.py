"""Shows the progress of a command: a bar in a terminal, plain lines elsewhere.

By default rich redraws in a thread of its own, and each redraw holds up trio's loop for
milliseconds. So the bar is drawn only when it moves, and ten times a second at most.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol, TextIO, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

_REDRAW_AFTER: Final = 0.1
"""Seconds between two redraws: smooth to the eye, and at most one percent of the time."""

_MARK_WIDTH: Final = 6

WIDTH: Final = 80
"""Columns that every terminal has."""


class Screen(Protocol):
    """Where a command shows what it does."""

    def say(self, text: str) -> None:
        """Show a text as it is."""

    def show_progress(self, title: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """Show a bar while the block runs; the function that the block gets moves it on by one."""
        ...

    def show_verdict(self, *, held: bool, title: str, finding: str) -> None:
        """Show the outcome of one test."""


@final
class PlainScreen:
    """Lines of text, complete and in order: for pipes, files and dumb terminals."""

    __slots__ = ("_file",)

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file

    def say(self, text: str) -> None:
        print(text, file=self._file, flush=True)

    @contextmanager
    def show_progress(self, title: str, total: int) -> Generator[Callable[[], None], None, None]:
        yield lambda: None

    def show_verdict(self, *, held: bool, title: str, finding: str) -> None:
        self.say(_verdict(held=held, title=title, finding=finding))


@final
class RichScreen:
    """A terminal: colours, and a bar that disappears when its block ends."""

    __slots__ = ("_console",)

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        # The terminal wraps long lines itself, and does so anew when its window grows.
        self._console.print(Text(text), soft_wrap=True)

    @contextmanager
    def show_progress(self, title: str, total: int) -> Generator[Callable[[], None], None, None]:
        description = TextColumn("{task.description}", markup=False)
        columns = (description, BarColumn(), MofNCompleteColumn())
        bar = Progress(*columns, console=self._console, auto_refresh=False, transient=True)
        task = bar.add_task(title, total=total)
        drawn_at = time.monotonic()

        def advance() -> None:
            nonlocal drawn_at
            bar.advance(task)
            if time.monotonic() - drawn_at >= _REDRAW_AFTER:
                bar.refresh()
                drawn_at = time.monotonic()

        with bar:
            yield advance

    def show_verdict(self, *, held: bool, title: str, finding: str) -> None:
        text = Text(_verdict(held=held, title=title, finding=finding))
        text.stylize("bold green" if held else "bold red", 0, _MARK_WIDTH)
        self._console.print(text, soft_wrap=True)


@final
class SilentScreen:
    """For `--json`: standard output belongs to the result, so a bar goes to standard error."""

    __slots__ = ("_bars",)

    def __init__(self, bars: RichScreen | None = None) -> None:
        self._bars = bars

    def say(self, text: str) -> None:
        """Say nothing."""

    @contextmanager
    def show_progress(self, title: str, total: int) -> Generator[Callable[[], None], None, None]:
        if self._bars is None:
            yield lambda: None
        else:
            with self._bars.show_progress(title, total) as advance:
                yield advance

    def show_verdict(self, *, held: bool, title: str, finding: str) -> None:
        """Say nothing."""


def choose_screen(*, is_silent: bool = False) -> Screen:
    """Choose a bar for a terminal, and lines for anything else."""
    console = Console(stderr=is_silent)
    bars = RichScreen(console) if console.is_terminal and not console.is_dumb_terminal else None
    return SilentScreen(bars) if is_silent else bars or PlainScreen()


def plain(text: str) -> str:
    """Return a text from elsewhere without what could steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _verdict(*, held: bool, title: str, finding: str) -> str:
    mark = "ok" if held else "FAILED"
    indent = " " * (_MARK_WIDTH + 2)
    return textwrap.fill(
        f"{mark:{_MARK_WIDTH}}  {title}: {finding}", WIDTH, subsequent_indent=indent
    )
