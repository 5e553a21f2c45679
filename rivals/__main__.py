"""`python -m rivals`: run the corpus against each pool that is installed, and print a table."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final, TypeVar

import pytest

from tests.servers import Postgres, Server, Valkey

from .corpus import CASES, Case, Findings
from .http_rivals import AiohttpRival, ConpoolRival, Httpcore2Rival, HttpcoreRival
from .http_server import HTTPServer
from .rival import DoesNotApplyError, Rival
from .runtime import Runtime, run_on_asyncio, run_on_trio
from .server_rivals import PsycopgRival, RedisRival

_LONGEST: Final = 240.0

ServerT = TypeVar("ServerT", bound=Server)

NewRival = Callable[[], Rival]


def run_case(case: Case, new: NewRival, library: str) -> str:
    """Run one case against one pool; return what was seen."""

    def new_on(runtime: Runtime) -> Rival:
        rival = new()
        rival.runtime = runtime
        return rival

    async def run(runtime: Runtime) -> Findings:
        return await case(runtime, new_on)

    try:
        found = (run_on_trio if library == "trio" else run_on_asyncio)(run, _LONGEST)
    except DoesNotApplyError:
        return "-"
    except Exception as error:  # noqa: BLE001 - goes into the table, too
        return f"could not be run: {_innermost(error)!r}"
    return "does not end" if found is None else str(found)


def find_rivals(stack: ExitStack, wanted: Sequence[str]) -> Iterator[tuple[str, NewRival, str]]:
    """Start a server for each pool that is installed; yield the pool's label, factory, library."""
    http = stack.enter_context(HTTPServer())
    for kind in (ConpoolRival, HttpcoreRival, Httpcore2Rival, AiohttpRival):
        if _is_wanted(kind, wanted):
            yield _label(kind), partial(kind, http), kind.library
    if _is_wanted(RedisRival, wanted) and (valkey := _try_start(stack, Valkey)):
        yield _label(RedisRival), partial(RedisRival, valkey), RedisRival.library
    if _is_wanted(PsycopgRival, wanted) and (postgres := _try_start(stack, Postgres)):
        yield _label(PsycopgRival), partial(PsycopgRival, postgres), PsycopgRival.library


def _is_wanted(kind: type[Rival], wanted: Sequence[str]) -> bool:
    if wanted and kind.label not in wanted:
        return False
    try:
        version(kind.package)
    except PackageNotFoundError:
        return False
    return True


def _label(kind: type[Rival]) -> str:
    return f"{kind.label} {version(kind.package)} ({kind.library})"


def _try_start(stack: ExitStack, server: Callable[[], ServerT]) -> ServerT | None:
    try:
        started = server()
        stack.enter_context(started)
    except pytest.skip.Exception:  # its program is not on this machine
        return None
    return started


def _innermost(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, in Markdown, of what each pool does in each case."""
    parser = argparse.ArgumentParser("rivals", description=__doc__)
    parser.add_argument("--pools", nargs="+", default=[], help="only these, by name")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES, metavar="CASE")
    args = parser.parse_args(argv)
    print(f"Python {platform.python_version()}, {platform.system()} {platform.release()}\n")
    print("|".join(["", " pool ", *(f" {case} " for case in args.cases), ""]))
    print("|" + " --- |" * (len(args.cases) + 1))
    with ExitStack() as stack:
        for label, new, library in find_rivals(stack, args.pools):
            cells = [run_case(CASES[case], new, library) for case in args.cases]
            print("|".join(["", f" {label} ", *(f" {cell} " for cell in cells), ""]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
