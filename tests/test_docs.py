"""What the documentation shows runs, and names only what exists."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import conpool

ROOT = Path(__file__).parents[1]
SNIPPETS = sorted((ROOT / "docs" / "snippets").glob("*.py"))
PAGES = [
    ROOT / "README.md",
    *(page for kind in ("*.md", "*.rst") for page in sorted((ROOT / "docs").rglob(kind))),
]

FENCED = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
DIRECTIVE = re.compile(r"^( *)\.\. code-block:: python\n\n((?:\1 +\S.*\n|[ ]*\n)+)", re.MULTILINE)


def code_in(page: Path) -> list[str]:
    """The pieces of Python that a page shows."""
    text = page.read_text("utf-8") + "\n"
    return FENCED.findall(text) + [textwrap.dedent(m[2]) for m in DIRECTIVE.finditer(text)]


def test_the_pages_have_code() -> None:
    assert sum(len(code_in(page)) for page in PAGES) > 10


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda path: path.stem)
def test_a_snippet_runs_as_it_stands(snippet: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", snippet],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_names_only_what_exists(page: Path) -> None:
    for code in code_in(page):
        # Pieces begin in the middle: they may await, and use names that they do not define.
        tree = compile(code, str(page), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_conpool(node.value):
                assert node.attr in conpool.__all__, f"conpool.{node.attr}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                check_keywords(node, node.func)


def is_conpool(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "conpool"


def check_keywords(call: ast.Call, func: ast.Attribute) -> None:
    """What is called on `conpool` or `pool` has the parameters that it is given."""
    owner = conpool if is_conpool(func.value) else conpool.ConnectionPool
    if owner is not conpool and not (isinstance(func.value, ast.Name) and func.value.id == "pool"):
        return
    parameters = inspect.signature(getattr(owner, func.attr)).parameters
    for keyword in call.keywords:
        assert keyword.arg in parameters, f"{func.attr}({keyword.arg}=)"
