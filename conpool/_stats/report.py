"""Plain-text tables for people: aligned columns and numbers in human units.

Knows nothing of pools. ASCII only, since a table goes wherever `print` goes, and there are still
consoles that raise at an ellipsis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_GAP = "  "
_ELLIPSIS = "..."


def table(header: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str]) -> str:
    """Lay out rows of cells under `header`, with `footer` below a line.

    The first column is aligned left and the others right, as names and numbers want it.
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
    """Cut the middle out of `text` where it is longer than `width`; both ends tell most."""
    if len(text) <= width:
        return text
    kept = width - len(_ELLIPSIS)
    tail = kept // 2
    return text[: kept - tail] + _ELLIPSIS + text[len(text) - tail :]


def duration(seconds: float) -> str:
    """A duration with a unit, in three digits: `850us`, `1.24ms`, `3.5s`, `12.0min`, `2.5h`."""
    if seconds == 0.0:
        return "0"
    if not math.isfinite(seconds):
        return "-"
    for factor, unit in ((1e6, "us"), (1e3, "ms"), (1.0, "s")):
        # Half a unit below a thousand it would be rounded up into four digits.
        if seconds * factor < 999.5 and (unit != "s" or seconds < 99.95):
            return f"{seconds * factor:.3g}{unit}"
    return f"{seconds / 60:.1f}min" if seconds < 5997 else f"{seconds / 3600:.1f}h"
