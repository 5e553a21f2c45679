"""Let docstrings be written for readers of the source, and still come out well here.

- Code is shown by indenting it. Where a blank line is followed by a deeper indentation, what
  follows is code; sections such as `Args:` have no blank line there, and `>>>` needs no help.
- `Raises, on entering the block:` is a `Raises:` section.
- A colon in the first line of a property is a colon, not the end of a type.
- A public name is public wherever it is defined: `conpool._pool.pool.ConnectionPool` is
  `conpool.ConnectionPool`. Private base classes are not shown.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import conpool

PRIVATE_PATH = re.compile(r"\bconpool\._[a-z_]+(?:\.[a-z_]+)*\.")
COLON = "\N{MODIFIER LETTER COLON}"  # what napoleon does not see


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def before_napoleon(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    if what in {"property", "attribute"} and lines:
        lines[0] = lines[0].replace(":", COLON)
    marked: list[str] = []
    last = ""  # the last line whose indentation counts
    for number, line in enumerate(lines):
        new_paragraph = number > 0 and not lines[number - 1].strip()
        deeper = indentation(line) > indentation(last)
        if line.strip() and new_paragraph and deeper and not line.lstrip().startswith(">>>"):
            marked += [" " * indentation(last) + ".. code-block:: python", ""]
        if line.strip():
            last = line
        raises = line.strip().startswith("Raises,")
        marked.append(line[: indentation(line)] + "Raises:" if raises else line)
    lines[:] = marked


def after_napoleon(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    for number, line in enumerate(lines):
        # Types of attributes come from their annotations, spelled out in full.
        lines[number] = PRIVATE_PATH.sub("~conpool.", line).replace(COLON, ":")


def public_bases(app: Sphinx, name: str, obj: object, options: Any, bases: list[Any]) -> None:
    shown: list[Any] = []
    for base in bases:
        shown += base.__bases__ if is_private(base) else [base]
    bases[:] = dict.fromkeys(shown)


def is_private(base: Any) -> bool:
    module, name = getattr(base, "__module__", ""), getattr(base, "__name__", "")
    return module.startswith("conpool._") and name not in conpool.__all__


def find_public(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.Node | None:
    target = str(node.get("reftarget", ""))
    if not target.startswith("conpool._"):
        return None
    name = target.rpartition(".")[2]
    if name not in conpool.__all__:
        return contnode  # a type variable, or a value that is only passed through
    python = env.get_domain("py")
    document = str(node["refdoc"])
    return python.resolve_xref(env, document, app.builder, "obj", f"conpool.{name}", node, contnode)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)
    app.connect("autodoc-process-bases", public_bases)
    app.connect("missing-reference", find_public)
    return {"parallel_read_safe": True}
