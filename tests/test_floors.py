"""The house stands: a file imports only from below itself, and none grows too tall.

Folders are floors. A folder imports only from folders below it, and inside a folder a file imports
only from files to its left. Imports for the type checker alone count, because a reader follows
those, too. A change that adds a file gives it a place here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import conpool

# Top first. A line has a folder, then its files, the lowest first; `*` stands for all its files.
HOUSE = """
__main__:
cli: *
contrib: *
testing: *
__init__:
_pool: follow reap lifecycle describe steering blocking pool
_lending: refusal lease waiting peer_check share release undoing acquire block
_engine: insist room background attendant holders news diagnosis dialler engine
_dial: progress address places lookup name_cache socket_options race unix http_connect socks5 \
  tunnel tcp dial
_connection: closing exchange session tls_tap probe link pooled hand_over idle_watch
_errors: pool_log connect blame copies obstacles pool explain
-- trio from here up, not below --
_core: limit circuit gate heap shedding few queue records outgoing affinity effects timetable \
  straight pool_limit standing spare ledger retiring chores keeping refusing warming balancer \
  dials sharing serving checks failures ending orders seen core
_extend: connector driver observer logging_observer
_stats: histogram counters memory report latency overview snapshot
_values: config_error validation guesses host value states tls proxy login url endpoint group \
  option config
"""
PURE = "_core"
"""Nothing that this folder reaches may do I/O."""
MOST_LINES = 400
"""Of a file."""
LONGEST_FUNCTION = 60

ROWS = [line.partition(":") for line in HOUSE.splitlines() if ":" in line]
FLOOR_OF = {folder: -number for number, (folder, _, _) in enumerate(ROWS)}
PLACE_OF = {
    (folder, file): place for folder, _, files in ROWS for place, file in enumerate(files.split())
}
ROOT = Path(conpool.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

by_path = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def room(path: Path) -> tuple[str, str]:
    """The folder that a file stands in, and its name there."""
    *folders, name = path.relative_to(ROOT).with_suffix("").parts
    return (folders[0], name) if folders else (name, "__init__")


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, for whatever purpose."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: relative imports hide the floor"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_below(path: Path) -> set[tuple[str, str]]:
    """The rooms of conpool that a file imports from."""
    found: set[tuple[str, str]] = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "conpool":
            continue
        folder = parts[1] if len(parts) > 1 and parts[1] in FLOOR_OF else "__init__"
        is_file = len(parts) > 2 and (ROOT / folder / f"{parts[2]}.py").exists()
        found.add((folder, parts[2] if is_file else "__init__"))
    return found - {room(path)}


@by_path
def test_a_file_imports_only_from_below(path: Path) -> None:
    folder, file = room(path)
    assert folder in FLOOR_OF, f"{folder} has no floor yet"
    for other, name in rooms_below(path):
        if other != folder:
            assert FLOOR_OF[other] < FLOOR_OF[folder], f"{folder} imports upwards, from {other}"
        elif (folder, "*") not in PLACE_OF and file != "__init__":
            assert (folder, file) in PLACE_OF, f"{folder}/{file} has no place yet"
            assert PLACE_OF[folder, name] < PLACE_OF[folder, file], f"{file} imports {name}"


@by_path
def test_a_private_folder_hands_on_nothing(path: Path) -> None:
    folder, file = room(path)
    if file == "__init__" and folder.startswith("_") and not folder.startswith("__"):
        (only,) = ast.parse(path.read_text("utf-8")).body
        assert isinstance(only, ast.Expr), f"{folder} does more than state its rule"
        assert len(path.read_text("utf-8").splitlines()) <= 5


def test_every_place_of_the_table_is_taken() -> None:
    for folder, file in PLACE_OF:
        assert file == "*" or (ROOT / folder / f"{file}.py").exists(), f"{folder}/{file} is gone"


def test_the_core_does_not_reach_trio() -> None:
    reached: set[tuple[str, str]] = set()
    waiting = {room(path) for path in (ROOT / PURE).glob("*.py")}
    while waiting:
        folder, file = waiting.pop()
        reached.add((folder, file))
        path = ROOT / folder / f"{file}.py"
        names = {top.split(".")[0] for top in imported(path)}
        assert not names & {"trio", "asyncio", "anyio", "socket", "ssl"} - ALLOWED.get(file, set())
        waiting |= rooms_below(path) - reached
    assert len(reached) > 15, "the core was not found"


# An endpoint holds the caller's ssl.SSLContext; it opens nothing.
ALLOWED = {"tls": {"ssl"}}


@by_path
def test_no_file_and_no_function_grows_too_long(path: Path) -> None:
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{node.name} has {lines} lines"
