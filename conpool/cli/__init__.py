"""The command line: `conpool demo`, also as `python -m conpool demo`.

A command imports what the extra `cli` brings only when it runs, so that `conpool --help` works
without the extra.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence

__all__ = ["main"]

_EXTRA = frozenset({"rich", "trustme"})
"""The packages that `pip install 'conpool[cli]'` brings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The arguments after the program's name; None: those of the process.

    Returns:
        0 if every promise held, 1 if one did not, 2 if the command cannot run, 130 after Ctrl-C.

    Raises:
        SystemExit: After `--help` and `--version` (0), and for wrong arguments (2).
    """
    _parser().parse_args(argv)
    try:
        from conpool.cli._demo import run
        from conpool.cli._screen import choose_screen

        return run(choose_screen())
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(
            f"conpool demo needs {missing}: python -m pip install 'conpool[cli]'", file=sys.stderr
        )
        return 2
    except (KeyboardInterrupt, BaseExceptionGroup) as error:
        if not _is_interrupt(error):
            raise
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="conpool", description="Lend connections, cleanly: a connection pool for trio."
    )
    version = importlib.metadata.version("conpool")
    parser.add_argument("--version", action="version", version=f"conpool {version}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    summary = "watch the pool work with a server of its own, and test its promises"
    commands.add_parser("demo", help=summary, description=summary.capitalize() + ".")
    return parser


def _is_interrupt(error: KeyboardInterrupt | BaseExceptionGroup[BaseException]) -> bool:
    """Whether `error` is Ctrl-C and nothing else, perhaps inside groups."""
    if isinstance(error, KeyboardInterrupt):
        return True
    return error.split(KeyboardInterrupt)[1] is None
