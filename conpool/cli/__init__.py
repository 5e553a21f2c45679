"""The command line: `conpool demo`, `bench`, `probe` and `top`, also as `python -m conpool`.

A command imports what the extra `cli` brings only when it runs, so that `conpool --help` works
without the extra.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Final, cast

from conpool.cli._arguments import make_parser

__all__ = ["main"]

_EXTRA: Final = frozenset({"rich", "trustme"})
"""The packages that `pip install 'conpool[cli]'` brings."""

_INTERRUPTED: Final = 130
_PIPE_BROKEN: Final = 141
"""What a shell reports for a program that SIGINT or SIGPIPE has ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The arguments after the program's name; None: those of the process.

    Returns:
        0 if all was well, 1 if something was not (a promise that did not hold, a server that cannot
        be reached), 2 if the command cannot run, 130 after Ctrl-C, 141 if nobody reads its output.

    Raises:
        SystemExit: After `--help` and `--version` (0), and for wrong arguments (2).
    """
    parser = make_parser()
    options = parser.parse_args(argv)
    try:
        status = _run(options)
        sys.stdout.flush()
        return status
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        what = f"conpool {options.command} needs {missing}"
        print(f"{what}: python -m pip install 'conpool[cli]'", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, BrokenPipeError, BaseExceptionGroup) as error:
        if _is_only(KeyboardInterrupt, error):
            return _INTERRUPTED
        if not _is_only(BrokenPipeError, error):
            raise
        _drop_output()
        return _PIPE_BROKEN


def _run(options: Namespace) -> int:
    from conpool.cli._screen import choose_screen

    screen = choose_screen(is_silent=options.json)
    match options.command:
        case "demo":
            from conpool.cli._demo import run as show

            return show(screen, options.json)
        case "bench":
            from conpool.cli._bench import run as compare

            return compare(options, screen)
        case "probe":
            from conpool.cli._probe import run as probe

            return probe(options, screen)
        case _:
            from conpool.cli._top import run as watch

            return watch(options)


def _is_only(kind: type[BaseException], error: BaseException) -> bool:
    """Whether `error` is of this kind and nothing else, perhaps inside groups."""
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(kind)[1] is None
    return isinstance(error, kind)


def _drop_output() -> None:
    """Let the interpreter write what is left of the output to nowhere, without a complaint."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
