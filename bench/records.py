"""Keeps the tables of a run as JSON, with what they were measured on.

A run replaces the tables of its own cases, so that a file may grow case by case. Each case says
when, with which versions and on which machine it was measured.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TypeAlias

import conpool

from .measure import Aim, Scale, Table

Record: TypeAlias = dict[str, Any]
"""What JSON keeps of one case: `run`, `table`."""

KEPT: Final = Path(__file__).parent / "results.json"
"""The run that docs/performance.md shows."""

_RIVALS: Final = (
    "coredis",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "psycopg",
    "psycopg-pool",
    "redis",
)
_ROOT: Final = Path(__file__).parent.parent


def describe_run(scale: Scale) -> Record:
    """Return when, with what and on what this process measures."""
    packages = {"trio": version("trio"), "conpool": conpool.__version__}
    for name in _RIVALS:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "scale": scale.name,
        "commit": _find_commit(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": packages,
        "machine": {
            "cpu": _find_cpu(),
            "cores": os.cpu_count(),
            "kernel": f"{platform.system()} {platform.release()}",
        },
    }


def save(path: Path, tables: Mapping[str, Table], run: Record) -> None:
    """Write `tables` into `path`, in place of earlier ones of the same cases."""
    records = json.loads(path.read_text("utf-8")) if path.exists() else {}
    records |= {name: {"run": run, "table": asdict(table)} for name, table in tables.items()}
    path.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", "utf-8")


def load(path: Path = KEPT) -> dict[str, Table]:
    """Return the tables that `path` keeps, by the names of their cases."""
    return {name: _read(record["table"]) for name, record in load_records(path).items()}


def load_records(path: Path = KEPT) -> dict[str, Record]:
    """Return all that `path` keeps."""
    records: dict[str, Record] = json.loads(path.read_text("utf-8"))
    return records


def _read(kept: Record) -> Table:
    rows = [tuple(row) for row in kept["rows"]]
    aims = [Aim(**aim) for aim in kept["aims"]]
    return Table(kept["title"], tuple(kept["head"]), rows, kept["note"], aims)


def _find_cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _find_commit() -> str:
    """Return the commit that is checked out; the sdist has none."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
