"""Plant one bug after the other in a copy of the project, and see that the tests notice each.

    python -m tests.mutations.run [-l] [-s core …] [-t tests/model/test_model.py …] [words …]

With words, only mutations whose name has one of them; with `-s`, only those of that list; with `-t`, only these
tests are run, to see what they notice without the others. The working tree is never changed. First the
tests are run against the copy as it is: they must pass there. Exits with 1 unless every bug was noticed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from . import Mutation

ROOT: Final = Path(__file__).parents[2]
COPIED: Final = ("conpool", "examples", "tests", "pyproject.toml", "README.md")
SOURCES: Final = ("core", "corpus", "proof", "shell")
PATIENCE: Final = 300.0
"""Seconds for one mutation; a bug that makes the tests hang has been noticed."""

# Exit codes of pytest: all passed, some failed.
_PASSED, _FAILED = 0, 1


def find_mutations(words: list[str], sources: list[str], tests: list[str]) -> list[Mutation]:
    """The mutations asked for, with other `tests` if those are given; each is checked."""
    found: list[Mutation] = []
    for source in sources or SOURCES:
        if (Path(__file__).parent / f"{source}.py").exists():
            found += importlib.import_module(f"{__package__}.{source}").MUTATIONS
    names = [mutation.name for mutation in found]
    assert len(set(names)) == len(names), "two mutations have the same name"
    for mutation in found:
        count = (ROOT / "conpool" / mutation.file).read_text("utf-8").count(mutation.old)
        assert count == 1, f"{mutation.name!r}: `old` occurs {count} times in {mutation.file}"
        assert mutation.old != mutation.new, mutation.name
    chosen = [m for m in found if not words or any(word in m.name for word in words)]
    return [replace(m, tests=tuple(tests)) for m in chosen] if tests else chosen


def run_tests(
    copy: Path, tests: tuple[str, ...], patience: float | None = PATIENCE
) -> tuple[int | None, str]:
    """Run `tests` in the copy: pytest's exit code, or None if they hang, and what it printed last."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    # Without byte code: a file changed twice within a second could be taken for its predecessor.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy)}
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout[-2000:] + done.stderr[-2000:]


def plant(copy: Path, mutation: Mutation) -> tuple[int | None, str]:
    """Run the tests of `mutation` with its bug in the copy, then take it out again."""
    file = copy / "conpool" / mutation.file
    sound = file.read_text("utf-8")
    file.write_text(sound.replace(mutation.old, mutation.new), "utf-8")
    try:
        return run_tests(copy, mutation.tests)
    finally:
        file.write_text(sound, "utf-8")


def make_copy(parent: str) -> Path:
    """Copy what the tests need, without caches."""
    copy = Path(parent) / "project"
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", ".*", "_build")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, copy / name)
    return copy


def main() -> int:
    """Try the mutations asked for; return 0 if all were noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("words", nargs="*", help="only mutations with one of these in their name")
    parser.add_argument("-l", "--list", action="store_true", help="only list them")
    parser.add_argument("-s", "--source", action="append", default=[], choices=SOURCES)
    parser.add_argument("-t", "--test", action="append", default=[], help="only these tests")
    options = parser.parse_args()
    mutations = find_mutations(options.words, options.source, options.test)
    if options.list:
        print("\n".join(f"{mutation.file:18} {mutation.name}" for mutation in mutations))
        return 0
    with tempfile.TemporaryDirectory() as parent:
        copy = make_copy(parent)
        tests = tuple(dict.fromkeys(test for mutation in mutations for test in mutation.tests))
        code, output = run_tests(copy, tests, patience=None)  # all of them: no single one may hang
        if code != _PASSED:
            print(f"without any bug the tests fail already:\n{output}")
            return 1
        missed = [mutation for mutation in mutations if not is_noticed(copy, mutation)]
    print(f"{len(mutations) - len(missed)} of {len(mutations)} planted bugs were noticed")
    return 1 if missed else 0


def is_noticed(copy: Path, mutation: Mutation) -> bool:
    """Try one mutation, and print what became of it."""
    started = time.monotonic()
    code, output = plant(copy, mutation)
    seconds = time.monotonic() - started
    if code == _PASSED:
        verdict = "SURVIVED"
    elif code == _FAILED:
        verdict = "killed"
    else:
        verdict = "killed (hangs)" if code is None else f"BROKEN: pytest exited with {code}"
    print(f"{verdict:10} {seconds:5.1f} s  {mutation.file:18} {mutation.name}", flush=True)
    if verdict.startswith("BROKEN"):
        print(output)
    return verdict.startswith("killed")


if __name__ == "__main__":
    sys.exit(main())
