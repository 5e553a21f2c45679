"""`{bench} CASE` shows the figures of a case, `{bench-aims}` what they aim at, `{bench-runs}` when,
where and with what they were measured: all from bench/results.json.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bench.records import KEPT, load, load_records  # noqa: E402

SMALL = 2
"""Columns of figures are narrow; the others get the rest."""

FIGURE = re.compile(r"[\d,.]+|[≤≥]\s?[\d,.]+|[\d.]+…[\d.]+")
FUNCTION = re.compile(r"_*[a-z_]+|[A-Z]\w+\.[\w.<>]+")
"""A name as the budget has it: of a method, or of a function of a module."""


class Bench(Directive):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.state.document.settings.env.note_dependency(str(KEPT))
        found = load()[self.arguments[0]]
        shown: list[nodes.Node] = [table(found.head, found.rows)]
        if found.note:
            shown.append(nodes.paragraph(text=found.note))
        return shown


class BenchAims(Directive):
    def run(self) -> list[nodes.Node]:
        self.state.document.settings.env.note_dependency(str(KEPT))
        rows = []
        for case in load().values():
            for aim in case.aims:
                sign = "≥" if aim.is_floor else "≤"
                verdict = "yes" if aim.is_met else "no"
                limit = f"{sign}\N{NO-BREAK SPACE}{aim.limit:,g}"
                rows.append((aim.text, f"{aim.measured:,.2f}", limit, verdict))
        return [table(("", "measured", "aim", "met"), rows)]


class BenchRuns(Directive):
    def run(self) -> list[nodes.Node]:
        self.state.document.settings.env.note_dependency(str(KEPT))
        runs: dict[str, list[str]] = {}
        for case, record in load_records().items():
            runs.setdefault(describe(record["run"]), []).append(case)
        if len(runs) == 1:
            return [nodes.paragraph(text=f"{next(iter(runs))}.")]
        items = [
            nodes.list_item("", nodes.paragraph(text=f"{', '.join(cases)}: {text}."))
            for text, cases in runs.items()
        ]
        return [nodes.bullet_list("", *items)]


def describe(run: dict[str, Any]) -> str:
    machine = run["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in run["packages"].items())
    commit = f", of commit {run['commit']}" if run["commit"] else ""
    return (
        f"A {run['scale']} run of {run['date']}{commit}, on {machine['cores']} cores of"
        f" {machine['cpu']}, {machine['kernel']}; {run['python']}, {packages}"
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    for column in range(len(head)):
        widest = max(len(row[column]) for row in [head, *rows])
        group += nodes.colspec(colwidth=max(widest, SMALL))
    group += nodes.thead("", line(head))
    body = nodes.tbody()
    for row in rows:
        body += line(row)
    group += body
    return nodes.table("", group)


def line(cells: tuple[str, ...]) -> nodes.row:
    row = nodes.row()
    for number, cell in enumerate(cells):
        shown = nodes.paragraph()
        if number == 0 and cell.partition(",")[0] == "conpool":
            shown += nodes.strong(text=cell)
        elif number == 0 and FUNCTION.fullmatch(cell):
            shown += nodes.literal(text=cell)
        else:
            for place, part in enumerate(cell.split("`")):
                shown += nodes.literal(text=part) if place % 2 else nodes.Text(part)
        is_figure = bool(FIGURE.fullmatch(cell))
        row += nodes.entry("", shown, classes=["text-right"] if is_figure else [])
    return row


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("bench", Bench)
    app.add_directive("bench-aims", BenchAims)
    app.add_directive("bench-runs", BenchRuns)
    return {"parallel_read_safe": True}
