"""Plants bugs in copies of the project, and runs the tests there."""

from __future__ import annotations

import enum
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Final, final

from mutations.belongs import PACKAGE, ROOT
from mutations.bug import Bug, Stage

# The tests, and what they import or read.
COPIED: Final = (
    *("tests", "examples", "bench", "soak", "rivals", "mutations", "docs"),
    *("noxfile.py", "pyproject.toml", "README.md"),
)
PATIENCE: Final = 120.0
"""Seconds for which a run of pytest may take longer than twice what all tests took without a bug.

Seldom needed, since each test has a time limit of its own. A bug that makes the tests hang has been
noticed.
"""
MEMORY: Final = 4 << 30
"""Bytes. A loop that a bug made endless must not take the machine with it."""

# Runs pytest with a bound on its memory. The child sets the bound itself, because a parent with
# threads may do next to nothing between fork and exec.
_PYTEST: Final = f"""
import sys, pytest
try:
    import resource
except ImportError:
    pass
else:
    resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY}, {MEMORY}))
sys.exit(pytest.main(sys.argv[1:]))
"""


class Verdict(enum.Enum):
    """What the tests made of a bug."""

    KILLED = "killed"
    HANGS = "killed (hangs)"
    BREAKS = "breaks the run"  # it cannot even be imported; or pytest was called wrongly
    SURVIVED = "SURVIVED"


# pytest's exit codes: all passed, some failed.
_VERDICTS: Final = {0: Verdict.SURVIVED, 1: Verdict.KILLED, None: Verdict.HANGS}


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one bug."""

    bug: Bug
    verdict: Verdict
    seconds: float
    output: str
    """What pytest printed last."""


def run_pytest(copy: Path, tests: Stage, limit: float | None) -> tuple[int | None, str]:
    """Run `tests` in a copy: pytest's exit code, or None if they hang, and what it printed last."""
    command = [sys.executable, "-c", _PYTEST, "-x", "-q", "-p", "no:cacheprovider", *tests]
    # Without byte code: a file changed twice within a second could be taken for its predecessor.
    # Without coverage: whoever measures this process wants no figures of a broken copy.
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(copy),
    }
    with subprocess.Popen(
        command,
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that the servers that the tests started can be ended with them
    ) as child:
        try:
            output, _ = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            _kill(child)
            return None, ""
        except BaseException:
            _kill(child)
            raise
    return child.returncode, output[-2000:]


def _kill(child: subprocess.Popen[str]) -> None:
    if sys.platform == "win32":
        child.kill()
    else:
        os.killpg(child.pid, signal.SIGKILL)


def try_bug(copy: Path, bug: Bug, limit: float) -> Outcome:
    """Plant a bug, run its tests until some fail, and take it out again."""
    started = time.monotonic()
    file = copy / "conpool" / bug.file
    file.write_text(bug.broken, "utf-8")
    verdict, output = Verdict.SURVIVED, ""
    try:
        for stage in bug.stages:
            code, output = run_pytest(copy, stage, limit)
            verdict = _VERDICTS.get(code, Verdict.BREAKS)
            if verdict is not Verdict.SURVIVED:
                break
    finally:
        file.write_text(bug.sound, "utf-8")
    return Outcome(bug, verdict, time.monotonic() - started, output)


def make_copy(parent: Path) -> Path:
    """Copy what the tests need, without caches."""
    copy = parent / "project"
    copy.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", ".*", "_build")
    for source in (PACKAGE, *(ROOT / name for name in COPIED)):
        name = source.name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    return copy


def run_without_bugs(bugs: Sequence[Bug]) -> tuple[float, str]:
    """Run the tests of `bugs` without any; return the seconds, and the output if they fail."""
    stages = dict.fromkeys(stage for bug in bugs for stage in bug.stages)
    tests = tuple(dict.fromkeys(test for stage in stages for test in stage))
    with TemporaryDirectory() as folder:
        copy = make_copy(Path(folder))
        started = time.monotonic()
        code, output = run_pytest(copy, tests, limit=None)
    return time.monotonic() - started, "" if code == 0 else output


def try_bugs(
    bugs: Sequence[Bug], jobs: int, limit: float, tell: Callable[[Outcome], None]
) -> list[Outcome]:
    """Try each bug, `jobs` at a time, each job in a copy of its own; `tell` each outcome."""
    copies: SimpleQueue[Path] = SimpleQueue()

    def try_one(bug: Bug) -> Outcome:
        copy = copies.get()
        try:
            outcome = try_bug(copy, bug, limit)
        finally:
            copies.put(copy)
        tell(outcome)
        return outcome

    with TemporaryDirectory() as folder:
        for number in range(jobs):
            copies.put(make_copy(Path(folder) / str(number)))
        with ThreadPoolExecutor(jobs) as workers:
            try:
                return list(workers.map(try_one, bugs))
            except BaseException:
                workers.shutdown(cancel_futures=True)
                raise
