"""The command line: `conpool demo`, also as `python -m conpool demo`.

What a command needs beyond the package itself is imported when it runs, so that
`conpool --help` works without the `cli` extra.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence

__all__ = ["main"]

_EXTRA = frozenset({"cryptography", "rich"})
"""What `pip install 'conpool[cli]'` brings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The arguments after the program's name; those of the process if None.

    Returns:
        0 if all went well, 1 if something was not so, 2 for what cannot be run at all,
        130 after Ctrl-C.

    Raises:
        SystemExit: After `--help` and `--version` (0) and for arguments that make no
            sense (2).
    """
    _parser().parse_args(argv)
    try:
        return _run_demo()
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
    summary = "watch the pool work against a server of its own, and check what it promises"
    commands.add_parser("demo", help=summary, description=summary.capitalize() + ".")
    return parser


def _run_demo() -> int:
    from conpool.cli._demo import run
    from conpool.cli._screen import choose_screen

    return run(choose_screen())


def _is_interrupt(error: KeyboardInterrupt | BaseExceptionGroup[BaseException]) -> bool:
    """Whether this is Ctrl-C and nothing else, alone or in trio's groups."""
    if isinstance(error, KeyboardInterrupt):
        return True
    return error.split(KeyboardInterrupt)[1] is None
