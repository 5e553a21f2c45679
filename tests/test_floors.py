"""The house stands: a module imports only from floors below its own, and none grows too tall.

Imports for the type checker alone count, for a reader follows those too. A new module is
given its floor here, in the same change.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import conpool

# fmt: off
FLOORS = (
    # leaves
    "_address _backoff _checks _histogram _progress _states _table _value",
    # values that users build, and what is counted
    "_config _encryption _tally _url",
    "_proxy",
    "_endpoint",
    "_group",
    "_stats",
    # the core: the whole policy, and what it keeps its books in
    "_capacity",
    "_books",
    "_agenda _effects _room",
    "_ledger",
    "_dial_policy",
    "_core",
    # ── the line: trio above, not below ──
    # what users subclass, and what can go wrong
    "_connector _driver _errors _observer",
    # one connection: open it, look at it, lend it, close it
    "_closing _lookup _race _refusal _socket_options _tls _unix _watch _wire",
    "_http_proxy _probe _resolve _socks5",
    "_link _tunnel",
    "_dial _tcp _verdict",
    "_holders _lease",
    "_health",
    # many: who dials, who waits, who tends, who closes
    "_engine",
    "_waiting",
    "_lender",
    "_block _maintenance",
    "_lifecycle",
    # the face
    "_pool",
    "__init__",
    "contrib testing",
    "cli",
    "__main__",
)
# fmt: on
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names.split()}
ROOT = Path(conpool.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))


def unit(path: Path) -> str:
    """A module, or the sub-package that it is part of: what has a floor."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, for whatever purpose; `conpool` itself spelled out."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: relative imports hide the floor"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if node.module == "conpool" else str(node.module)


def units_below(path: Path) -> set[str]:
    """The units of conpool that a module imports."""
    found = {name.split(".")[1] for name in imported(path) if name.startswith("conpool.")}
    faces = {name for name in imported(path) if name == "conpool"}
    return {name if name in FLOOR_OF else "__init__" for name in found | faces} - {unit(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_lower_floors(path: Path) -> None:
    name = unit(path)
    assert name in FLOOR_OF, f"{name} has no floor yet"
    too_high = {other for other in units_below(path) if FLOOR_OF[other] >= FLOOR_OF[name]}
    assert not too_high, f"{name} is on floor {FLOOR_OF[name]} and imports upwards: {too_high}"


def test_the_core_does_not_reach_trio() -> None:
    reached: set[str] = set()
    waiting = {"_core"}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        names = {top.split(".")[0] for top in imported(ROOT / f"{name}.py")}
        assert not names & {"trio", "asyncio", "anyio", "socket", "ssl"} - ALLOWED.get(name, set())
        waiting |= units_below(ROOT / f"{name}.py") - reached
    assert len(reached) > 5, "the core was not found"


# An endpoint holds the caller's ssl.SSLContext and reads addresses; it opens nothing.
ALLOWED = {"_encryption": {"ssl"}, "_address": {"socket"}}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_passes_450_lines_and_no_function_60(path: Path) -> None:
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= 450
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"
