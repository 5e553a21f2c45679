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
"""How many columns a text has, unless another width is given: it is more, so that all fits."""

NO_BREAK: Final = "\N{NO-BREAK SPACE}"
"""In a block, a space at which no line may end."""

_GAP: Final = "  "
_ELLIPSIS: Final = "..."


def block(title: str, lines: Mapping[str, str], width: int = WIDTH) -> str:
    """Lay out labelled lines under `title`, wrapped at `width` columns."""
    indent = max(map(len, lines)) + 2 * len(_GAP)
    wrap = textwrap.TextWrapper(width, subsequent_indent=" " * indent)
    wrapped = (wrap.fill(f"{_GAP}{name}".ljust(indent) + text) for name, text in lines.items())
    return "\n".join([title, *wrapped]).replace(NO_BREAK, " ")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str]) -> str:
    """Lay out rows of cells under `header`, with `footer` below a line.

    The first column holds names and is aligned left; the others hold numbers, aligned right. A
    cell of the header may have several lines.
    """
    heads = _stack(header)
    columns = zip(*heads, *rows, footer, strict=True)
    widths = [max(map(len, column)) for column in columns]
    rule = "-" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    body = [_line(row, widths) for row in rows]
    top = [_line(head, widths) for head in heads]
    return "\n".join([*top, rule, *body, rule, _line(footer, widths)])


def width_of(rows: Sequence[Sequence[str]]) -> int:
    """Return how many columns of text a table needs for these columns, beside its first one."""
    columns = zip(*_stack(rows[0]), *rows[1:], strict=True)
    return sum(len(_GAP) + max(map(len, column)) for column in columns)


def _stack(header: Sequence[str]) -> list[list[str]]:
    """Spread a header over as many lines as its highest cell has; the others stand at the foot."""
    cells = [cell.split("\n") for cell in header]
    height = max(map(len, cells))
    padded = [[""] * (height - len(cell)) + cell for cell in cells]
    return [list(line) for line in zip(*padded, strict=True)]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = cells
    padded = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
    return _GAP.join([name.ljust(widths[0]), *padded]).rstrip()


def valid_width(spec: str) -> int:
    """Return the width that a format `spec` asks for: none is `WIDTH`.

    Raises:
        ValueError: It is no number of at least so many columns.
    """
    if not spec:
        return WIDTH
    if not spec.isascii() or not spec.isdigit() or int(spec) < WIDTH:
        raise ValueError(f"statistics take a width of {WIDTH} or more as format, not {spec!r}")
    return int(spec)


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
