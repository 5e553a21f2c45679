"""Which tests belong to a file, and which files are mutated unless others are asked for."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import conpool
from mutations.bug import Stage

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = Path(conpool.__file__).parent

MUTATED: Final = (
    "_core/*.py",
    "_lending/*.py",
    "_engine/*.py",
    "_connection/hand_over.py",
    "_connection/exchange.py",
)
"""The policy, and what hands connections over: where a bug costs most and shows least."""

_CALLERS: Final = (
    "tests/unit/lending",
    "tests/unit/engine",
    "tests/unit/pool",
    "tests/regressions",
)
_MODEL: Final = ("tests/model/test_model.py", "tests/model/test_pool_walk.py")

# Folder of the package → runs of pytest. Each file's own tests come before all of these, the quick
# ones first, because the tests of most bugs end there.
_TESTS: Final[dict[str, tuple[Stage, ...]]] = {
    "_values": (("tests/unit/values",), ("tests/unit",)),
    "_stats": (("tests/unit/stats",), ("tests/unit",)),
    "_extend": (("tests/unit/extend",), ("tests/unit",)),
    "_core": (
        ("tests/unit/core",),
        ("tests/connectivity/test_warming.py", *_CALLERS, "tests/model/test_state_machine.py"),
        _MODEL,
    ),
    "_errors": (("tests/unit/errors",), ("tests/unit",)),
    "_connection": (("tests/unit/connection",), _CALLERS, ("tests/faults",), ("tests/proof",)),
    "_dial": (("tests/unit/dial",), ("tests/connectivity",), ("tests/faults",), ("tests/proof",)),
    "_engine": (
        ("tests/unit/engine",),
        _CALLERS,
        ("tests/model/test_pool_walk.py",),
        ("tests/proof",),
    ),
    "_lending": (
        ("tests/unit/lending",),
        _CALLERS,
        ("tests/model/test_pool_walk.py",),
        ("tests/proof",),
    ),
    "_pool": (("tests/unit/pool",), _CALLERS, ("tests/faults",), ("tests/proof",)),
}


def find_files(patterns: list[str]) -> list[str]:
    """The files that match `patterns`, or `MUTATED`; raise `LookupError` if there is none."""
    wanted = [pattern.removeprefix("conpool/") for pattern in patterns or MUTATED]
    paths = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
    found = [path for path in paths if any(fnmatch(path, pattern) for pattern in wanted)]
    if not found:
        raise LookupError(f"no file of the package matches {' or '.join(wanted)}")
    return found


def find_stages(file: str) -> tuple[Stage, ...]:
    """The runs of pytest for a file; raise `LookupError` if its folder is not in the table."""
    folder, _, name = file.rpartition("/")
    if folder not in _TESTS:
        raise LookupError(f"mutations/belongs.py does not say which tests belong to {file}")
    own = f"tests/unit/{folder.removeprefix('_')}/test_{name}"
    return ((own,), *_TESTS[folder]) if (ROOT / own).exists() else _TESTS[folder]
