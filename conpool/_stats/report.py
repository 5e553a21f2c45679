"""Plain text for people: aligned columns, and numbers in human units.

This file knows nothing of pools. It writes ASCII only, because some consoles cannot print an
ellipsis and raise.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

WIDTH: Final = 80
"""How many columns a block of lines has."""

NO_BREAK: Final = "\N{NO-BREAK SPACE}"
"""In a block, a space at which no line may end."""

_GAP: Final = "  "
_ELLIPSIS: Final = "..."


def block(title: str, lines: Mapping[str, str]) -> str:
    """Lay out labelled lines under `title`, wrapped at `WIDTH` columns."""
    indent = max(map(len, lines)) + 2 * len(_GAP)
    wrap = textwrap.TextWrapper(WIDTH, subsequent_indent=" " * indent)
    wrapped = (wrap.fill(f"{_GAP}{name}".ljust(indent) + text) for name, text in lines.items())
    return "\n".join([title, *wrapped]).replace(NO_BREAK, " ")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str]) -> str:
    """Lay out rows of cells under `header`, with `footer` below a line.

    The first column holds names and is aligned left; the others hold numbers, aligned right.
    """
    columns = zip(header, *rows, footer, strict=True)
    widths = [max(map(len, column)) for column in columns]
    rule = "-" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    body = [_line(row, widths) for row in rows]
    return "\n".join([_line(header, widths), rule, *body, rule, _line(footer, widths)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = cells
    padded = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
    return _GAP.join([name.ljust(widths[0]), *padded]).rstrip()


def shorten(text: str, width: int) -> str:
    """Cut the middle out of `text` if it is longer than `width`: its ends say most."""
    if len(text) <= width:
        return text
    kept = width - len(_ELLIPSIS)
    tail = kept // 2
    return text[: kept - tail] + _ELLIPSIS + text[len(text) - tail :]


def duration(seconds: float) -> str:
    """Show a duration with a unit, in three digits: `850us`, `1.24ms`, `12.0min`, `2.5h`."""
    if seconds == 0.0:
        return "0"
    if not math.isfinite(seconds):
        return "-"
    for factor, unit in ((1e6, "us"), (1e3, "ms"), (1.0, "s")):
        # From 999.5 on, three digits would be rounded up to four.
        if seconds * factor < 999.5 and (unit != "s" or seconds < 99.95):
            return f"{seconds * factor:.3g}{unit}"
    return f"{seconds / 60:.1f}min" if seconds < 5997 else f"{seconds / 3600:.1f}h"
