"""What a case returns: figures, promises with what was measured, and a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.measure import Table


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that must hold, and what the run showed."""

    text: str
    is_kept: bool
    measured: str

    def __str__(self) -> str:
        return f"{'kept  ' if self.is_kept else 'BROKEN'}  {self.text}: {self.measured}"


@dataclass(slots=True)
class Report:
    """The outcome of one case."""

    table: Table
    promises: list[Promise] = field(default_factory=list)
    draw: Callable[[Any], None] | None = None
    """Draws on a figure of matplotlib."""
    size: tuple[float, float] = (8.0, 3.4)
    """Of the picture, in inches."""

    def promise(self, text: str, is_kept: bool, measured: str) -> None:
        self.promises.append(Promise(text, is_kept, measured))

    def __str__(self) -> str:
        return "\n".join([str(self.table), *map(str, self.promises)])

    def save(self, path: Path) -> None:
        """Draw the picture into a file."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        assert self.draw is not None
        style: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
        style |= {"grid.alpha": 0.3, "font.size": 9, "legend.frameon": False}
        mpl.rcParams.update(style)
        figure = Figure(figsize=self.size, layout="constrained")
        self.draw(figure)
        figure.savefig(path, dpi=110)
