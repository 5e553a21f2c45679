"""`python -m bench compare BASE`: this tree beside another commit, in one run.

Each has a process of its own with its own conpool, and the benchmark of this tree tells both what
to do, in turns. The exit code is 1 if a case takes longer than at the base by more than the
tolerance, in the median of the rounds, or if an uncontended lease needs one bytecode more: the
number of bytecodes is exact.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final, final

from .contestant import BYTECODES, CASES
from .measure import FULL, QUICK, TINY, Scale, Table

ROOT: Final = Path(__file__).parent.parent
TOLERANCE: Final = 1.05
"""The same code differs from itself by 2 % in the median, on a machine that has other work."""

_EXACT: Final = ("lease", "lease by acquire and release")
"""Cases that may not need one bytecode more."""

_COUNTED: Final = (*_EXACT, "lease among 100 tasks", "dial and discard, in memory")
_MORE: Final = 0.01
"""Less than this share of a bytecode is no more than the rounding of an average."""


def main(argv: Sequence[str]) -> int:
    """Compare, print a table and what is worse, and return the exit code."""
    parser = argparse.ArgumentParser("bench compare", description=__doc__)
    parser.add_argument("base", help="a commit, a branch or a tag")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="the largest ratio (%(default)s)"
    )
    parser.add_argument("--bytecodes", action="store_true", help="time nothing: ten seconds")
    parser.add_argument("--full", action="store_true", help="more rounds, more exact")
    parser.add_argument("--tiny", action="store_true", help="only to see that it runs")
    args = parser.parse_args(argv)
    scale = TINY if args.tiny else FULL if args.full else QUICK
    with checked_out(args.base) as base, Contestant(base) as theirs, Contestant(ROOT) as ours:
        table, worse = compare(
            theirs, ours, scale, tolerance=args.tolerance, is_timed=not args.bytecodes
        )
    print(table)
    for line in worse:
        print(f"WORSE  {line}")
    return 1 if worse else 0


def compare(
    theirs: Contestant, ours: Contestant, scale: Scale, *, tolerance: float, is_timed: bool
) -> tuple[Table, list[str]]:
    """Have both do each case in turns; return the figures, and what is worse than at the base."""
    rows: list[tuple[str, ...]] = []
    worse: list[str] = []
    for case in _COUNTED:
        counted, count = case + BYTECODES, scale.pick(640, 320, 32)
        before, now = theirs.do(counted, count), ours.do(counted, count)
        limit = before + _MORE if case in _EXACT else before * tolerance
        rows.append((counted, f"{before:.2f}", f"{now:.2f}", f"{now / before:.3f}"))
        if now > limit:
            worse.append(f"{case}: {now:.2f} bytecodes, {before:.2f} at the base")
    for case in CASES if is_timed else ():
        count, rounds = scale.pick(5000, 2000, 20), scale.pick(31, 15, 2)
        times = [(theirs.do(case, count), ours.do(case, count)) for _ in range(rounds)]
        before, now = (median(side) for side in zip(*times, strict=True))
        ratio = median(mine / its for its, mine in times)
        rows.append((f"{case}, µs", f"{before:.2f}", f"{now:.2f}", f"{ratio:.3f}"))
        if ratio > tolerance:
            worse.append(f"{case}: {ratio:.2f} times as long as at the base, limit {tolerance:g}")
    return Table("This tree beside its base", ("", "base", "this", "ratio"), rows), worse


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Unpack the conpool of a commit for the length of the block; yield the folder around it."""
    command = ["git", "archive", "--format=tar", commit, "conpool"]
    packed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    with tempfile.TemporaryDirectory(prefix="conpool-base-") as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


@final
class Contestant:
    """A process that measures the conpool of one folder."""

    def __init__(self, folder: Path) -> None:
        # conpool comes from `folder`, and all else from here.
        path = os.pathsep.join([str(folder), str(ROOT)])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", "bench.contestant"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.origin = Path(self._read())
        if not self.origin.is_relative_to(folder):
            raise RuntimeError(f"conpool came from {self.origin}, not from {folder}")

    def do(self, case: str, count: int) -> float:
        """Do a case `count` times, and return what was measured."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{case} {count}\n")
        self._process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the contestant died with exit code {self._process.wait()}")
        return line.rstrip("\n")

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()
