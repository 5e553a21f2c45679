"""`python -m bench.plots FILE FOLDER`: draw the pictures of docs/performance.md from kept figures.

Each picture carries a mark of the figures that it shows, so that a test can tell whether it is of
the run that is kept.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .measure import Table
from .records import load

Tables = dict[str, Table]

_OURS: Final = "#1f6f8b"
_OTHERS: Final = "#b8b8b8"
_SECOND: Final = "#d98d2b"


def draw_lease(figure: Any, tables: Tables) -> None:
    """An uncontended lease and a contended one, beside other pools."""
    left, right = figure.subplots(1, 2)
    rows = [row for row in tables["uncontended"].rows if "observer" not in row[0]]
    _bars(left, rows, 2, "uncontended, in checkpoints of trio")
    _bars(right, tables["contended"].rows, 1, "1,000 tasks over 10, µs per lease", is_log=True)


def draw_budget(figure: Any, tables: Tables) -> None:
    """The bytecodes of a lease by function."""
    functions = [row for row in tables["budget"].rows if row[0] != "all of conpool"]
    rows = [row for row in functions if _number(row[1])]
    _bars(figure.subplots(), rows, 1, "bytecodes of an uncontended lease")


def draw_growth(figure: Any, tables: Tables) -> None:
    """Time by the number of endpoints, connections and waiters."""
    endpoints, waiters = figure.subplots(1, 2)
    rows = tables["growth"].rows
    for what, colour in (("the same each time", _OURS), ("each in turn", _SECOND)):
        points = [(_number(row[0].partition(", ")[0]), _number(row[3])) for row in rows]
        chosen = [point for point, row in zip(points, rows, strict=True) if row[0].endswith(what)]
        _line(endpoints, chosen, what, colour)
    _axes(endpoints, "endpoints", "µs per lease")
    for name, colour in (("conpool", _OURS), ("CapacityLimiter + deque, class", _OTHERS)):
        chosen = [
            (_number(row[0].rpartition(", ")[2]), _number(row[2]))
            for row in tables["handover"].rows
            if row[0].rpartition(", ")[0] == name
        ]
        _line(waiters, chosen, name, colour)
    _axes(waiters, "waiters", "µs per hand-over")


def draw_clients(figure: Any, tables: Tables) -> None:
    """Whole clients over our pool and over their own, in times of ours."""
    axes = figure.subplots()
    names: list[str] = []
    ratios: list[float] = []
    for case in ("http", "psycopg"):
        for row in tables[case].rows:
            names.append(row[0] if case == "http" else f"psycopg, {row[0]}")
            ratios.append(_number(row[3]))
    for row in tables["redis"].rows:
        if row[0].startswith("conpool"):
            names.append(f"Redis, {row[0].removeprefix('conpool, ')}")
            ratios.append(_number(row[2]))
    positions = range(len(names))
    axes.barh(positions, ratios, color=_OURS)
    axes.set_yticks(positions, names)
    axes.invert_yaxis()
    _use_log(axes)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times as fast as the client's stock pool")
    for position, ratio in zip(positions, ratios, strict=True):
        axes.annotate(f" {ratio:g}", (max(ratio, 1), position), va="center", fontsize=8)


PICTURES: Final[dict[str, tuple[Callable[[Any, Tables], None], tuple[str, ...], Any]]] = {
    "performance-lease": (draw_lease, ("uncontended", "contended"), (10.0, 3.4)),
    "performance-budget": (draw_budget, ("budget",), (8.0, 4.0)),
    "performance-growth": (draw_growth, ("growth", "handover"), (9.0, 3.2)),
    "performance-clients": (draw_clients, ("http", "psycopg", "redis"), (8.0, 4.4)),
}
"""Each picture's painter, the cases that it shows, and its size in inches."""


def mark(tables: Tables, cases: tuple[str, ...]) -> str:
    """Return a short text that no other figures have."""
    shown = repr([(case, tables[case].head, tables[case].rows) for case in cases])
    return f"conpool-bench-{hashlib.sha256(shown.encode()).hexdigest()[:16]}"


def draw(tables: Tables, folder: Path) -> None:
    """Draw all pictures."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
    style |= {"grid.alpha": 0.3, "font.size": 9, "legend.frameon": False, "axes.axisbelow": True}
    mpl.rcParams.update(style)
    for name, (paint, cases, size) in PICTURES.items():
        figure = Figure(figsize=size, layout="constrained")
        paint(figure, tables)
        source = {"Source": mark(tables, cases)}
        figure.savefig(folder / f"{name}.png", dpi=110, metadata=source)


def _bars(
    axes: Any, rows: list[tuple[str, ...]], column: int, title: str, *, is_log: bool = False
) -> None:
    values = [_number(row[column]) for row in rows]
    is_ours = [row[0].startswith("conpool") or "." in row[0].split(" ")[0] for row in rows]
    positions = range(len(rows))
    axes.barh(positions, values, color=[_OURS if ours else _OTHERS for ours in is_ours])
    axes.set_yticks(positions, [row[0] for row in rows], fontsize=8)
    axes.invert_yaxis()
    if is_log:
        _use_log(axes)
    axes.set_title(title, fontsize=9)
    for position, value in zip(positions, values, strict=True):
        axes.annotate(f" {value:,g}", (value, position), va="center", fontsize=7)
    axes.margins(x=0.12)


def _use_log(axes: Any) -> None:
    """Use a logarithmic scale, without its labels: each bar has a number."""
    axes.set_xscale("log")
    axes.tick_params(axis="x", which="both", labelbottom=False)


def _line(axes: Any, points: list[tuple[float, float]], label: str, colour: str) -> None:
    axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label, color=colour)


def _axes(axes: Any, across: str, up: str) -> None:
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend()


def _number(cell: str) -> float:
    return float(cell.replace(",", ""))


if __name__ == "__main__":
    kept, into = map(Path, sys.argv[1:])
    draw(load(kept), into)
