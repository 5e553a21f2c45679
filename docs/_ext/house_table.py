"""`.. house::` draws the folders of the package.

Their order comes from the test that enforces it, and their rules from their own docstrings.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
FLOORS = ROOT / "tests" / "test_floors.py"
PACKAGE = ROOT / "conpool"
WIDTHS = (14, 43, 43)


class Floor(NamedTuple):
    folder: str
    rule: str
    files: list[str]


def read_house() -> str:
    """The table of `tests/test_floors.py`."""
    for node in ast.parse(FLOORS.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HOUSE":
            return str(ast.literal_eval(node.value))
    raise LookupError(f"{FLOORS.name} has no table of floors")


def find_floors() -> Iterator[Floor | str]:
    """Each folder with its rule and its files, top first; other lines of the table as they are."""
    for line in read_house().strip().splitlines():
        folder, colon, files = line.partition(":")
        if not colon:
            yield line.strip("- ")
            continue
        home = PACKAGE if folder == "__init__" else PACKAGE / folder
        if (home / "__init__.py").exists():  # not yet, or a module
            named = [] if files.strip() == "*" else files.split()
            yield Floor(folder, read_rule(home / "__init__.py"), named)


def read_rule(path: Path) -> str:
    """The first paragraph of a folder's docstring."""
    rule = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert rule, f"{path} does not say what its folder is for"
    return " ".join(rule.partition("\n\n")[0].split())


class House(Directive):
    def run(self) -> list[nodes.Node]:
        self.state.document.settings.env.note_dependency(str(FLOORS))
        group = nodes.tgroup(cols=len(WIDTHS))
        group += [nodes.colspec(colwidth=width) for width in WIDTHS]
        head, body = nodes.thead(), nodes.tbody()
        group += [head, body]
        head += row(text("folder, top first"), text("its rule"), text("its files"))
        for floor in find_floors():
            if isinstance(floor, str):
                line = nodes.entry("", text(floor), morecols=len(WIDTHS) - 1)
                body += nodes.row("", line)
            else:
                names = nodes.paragraph()
                for name in floor.files:
                    names += [nodes.literal(text=name), nodes.Text(" ")]
                body += row(code(floor.folder), text(floor.rule.replace("`", "")), names)
        return [nodes.table("", group, classes=["colwidths-given"])]


def row(*cells: nodes.Node) -> nodes.row:
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def text(content: str) -> nodes.paragraph:
    return nodes.paragraph(text=content)


def code(content: str) -> nodes.paragraph:
    return nodes.paragraph("", "", nodes.literal(text=content))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("house", House)
    return {"parallel_read_safe": True}
