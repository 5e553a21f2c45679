"""Each check has a name: `nox -s lint`. `nox` alone runs the usual ones, `nox -l` lists all.

Arguments after `--` go to the tool: `nox -s tests -- -k release`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "typing", "docs"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
ASYNC_RULES = "ASYNC101,ASYNC102,ASYNC103,ASYNC119"  # ruff does not have these
ON_ALL_CORES = ("-n", "logical", "--dist", "worksteal")
PROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> Sequence[str]:
    """The packages of a dependency group of pyproject.toml."""
    return nox.project.dependency_groups(PROJECT, name)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite, with branch coverage."""
    session.install("-e", ".[test]", "coverage>=7.10")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *ON_ALL_CORES, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    if not session.posargs:  # a part of the suite covers a part of the package
        session.run("coverage", "report")


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """The suite with the oldest trio that pyproject.toml allows."""
    (trio,) = PROJECT["project"]["dependencies"]
    session.install("-e", ".[test]", trio.replace(">=", "=="))
    session.run("pytest", *ON_ALL_CORES, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, and flake8-async for the rules that ruff lacks."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("flake8", f"--select={ASYNC_RULES}", "conpool", "examples", "tests")


@nox.session
def typing(session: nox.Session) -> None:
    """mypy and pyright, both strict; every public name must have a type."""
    session.install("-e", ".[test]", "nox", *group("typing"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "conpool", "--ignoreexternal")


@nox.session
def trio_typing(session: nox.Session) -> None:
    """mypy on a program that uses trio-typing, too, in an environment of its own."""
    # Later versions of mypy crash in trio-typing's plugin.
    session.install(".", "trio-typing[mypy]", "mypy==1.10.1")
    cache = session.create_tmp()
    session.chdir("tests/downstream")
    session.run("mypy", f"--cache-dir={cache}")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; warnings are errors."""
    session.install("-e", ".", *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def screens(session: nox.Session) -> None:
    """Draw what the commands show, for the documentation: `nox -s screens -- top`."""
    session.install("-e", ".[cli,httpx2,psycopg]", *group("screens"), *group("rivals"))
    session.run("python", "-m", "docs.screens", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """What a lease costs, compared with plain pools and with other libraries."""
    session.install("-e", ".[test]", *group("bench"))
    session.run("python", "-m", "bench", *session.posargs)


@nox.session
def compare(session: nox.Session) -> None:
    """This tree beside another commit, in turns: `nox -s compare -- origin/main`."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "bench", "compare", *(session.posargs or ["main"]))


@nox.session
def soak(session: nox.Session) -> None:
    """Mixed traffic and faults for the minutes given, then long walks: `nox -s soak -- 30`."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "soak", *session.posargs)
    walks = "tests/proof/test_meddlers.py"
    session.run("python", "-m", "pytest", "-q", walks, env={"CONPOOL_WALKS": "20000"})


@nox.session
def simulate(session: nox.Session) -> None:
    """Bad days in virtual time, with the pictures: `nox -s simulate -- overload --draw`."""
    session.install("-e", ".", *group("simulate"))
    session.run("python", "-m", "simulate", *session.posargs)


@nox.session
def mutate(session: nox.Session) -> None:
    """Plant one bug after the other: `nox -s mutate -- mechanical --sample 40 --jobs 2`."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "mutations", *session.posargs)


@nox.session
def httpx_suite(session: nox.Session) -> None:
    """httpx's own tests on trio, over our transport: `nox -s httpx_suite -- path/to/checkout`."""
    session.install("-e", ".[test]", "httpx[brotli,cli,http2,socks,zstd]", "chardet", "uvicorn")
    plugin = Path("tests/contrib/http").resolve()
    session.chdir(session.posargs[0])
    session.run(
        *("pytest", "-p", "over_pool", "-p", "no:trio", "-p", "no:valkey", "-k", "trio"),
        *("tests/client", "tests/test_timeouts.py", "tests/test_asgi.py", "tests/test_auth.py"),
        *session.posargs[1:],
        env={"PYTHONPATH": str(plugin)},
    )


@nox.session
def psycopg_suite(session: nox.Session) -> None:
    """psycopg's own tests on trio, with our class: `nox -s psycopg_suite -- path/to/checkout`.

    The checkout must be of the installed version, or of one near it. A PostgreSQL is started for
    it, unless `PSYCOPG_TEST_DSN` names one.
    """
    session.install("-e", ".[test]", "anyio", "dnspython", "mypy")
    here = Path.cwd()
    tests = sorted(Path(session.posargs[0]).resolve().glob("tests/test_*_async.py"))
    left_out = {"test_waiting_async.py", "test_tstring_async.py"}  # asyncio's; Python 3.14's
    names = [f"tests/{path.name}" for path in tests if path.name not in left_out]
    session.run(
        *("python", "-m", "tests.contrib.psycopg.suite", session.posargs[0], "-p", "no:trio"),
        *("-p", "no:valkey", "-p", "on_trio", "--timeout=20", "-m", "not slow", *names),
        *session.posargs[1:],
        env={"PYTHONPATH": f"{here / 'tests/contrib/psycopg'}:{here}"},
    )


@nox.session
def rivals(session: nox.Session) -> None:
    """Run the cases that broke other pools against those pools."""
    session.install("-e", ".[test]", *group("rivals"))
    session.run("python", "-m", "rivals", *session.posargs)
