"""The arguments of each command. Wrong ones end the program with one line and status 2."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
from typing import Final, Protocol


class _Commands(Protocol):
    """What `add_subparsers` returns; its own name is private."""

    def add_parser(self, name: str, *, help: str, description: str) -> argparse.ArgumentParser: ...  # noqa: A002


_SORTS: Final = ("busiest", "waiting", "slowest", "errors", "closes")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser for all commands."""
    parser = argparse.ArgumentParser(
        prog="conpool",
        description="Lend connections, cleanly: a connection pool for trio.",
        epilog="'conpool COMMAND --help' tells more. Exit status: 0 all is well, 1 something is"
        " not, 2 wrong arguments or a missing package, 130 after Ctrl-C.",
    )
    version = importlib.metadata.version("conpool")
    parser.add_argument("--version", action="version", version=f"conpool {version}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    _add(commands, "demo", "watch the pool work with a server of its own, and test its promises")
    _add_bench(commands)
    _add_probe(commands)
    _add_top(commands)
    return parser


def _add(commands: _Commands, name: str, summary: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    return command


def _add_bench(commands: _Commands) -> None:
    command = _add(commands, "bench", "compare the pool with fresh connections and other pools")
    command.description = (
        "Compare the pool with fresh connections, and with the pools of httpx2, psycopg_pool and"
        " redis-py where these are installed. It takes a few seconds and talks only to servers of"
        " its own, on the loopback address."
    )
    command.add_argument(
        "--rounds", type=_count, default=7, metavar="N", help="take the median of N rounds (7)"
    )
    command.add_argument(
        "--tasks", type=_count, default=200, metavar="N", help="tasks that share ten (200)"
    )


def _add_probe(commands: _Commands) -> None:
    command = _add(commands, "probe", "see how a server takes to kept connections")
    command.description = (
        "Connect to a server: how long the name look-up, the dial, TLS and a reused connection"
        " take, what was negotiated, and what that means for a pool. It sends HEAD to a web server,"
        " PING to Redis, version to memcached, and nothing to any other."
    )
    command.add_argument(
        "url", metavar="URL", help="https://host/path, rediss://host, tcp://host:port, unix:///path"
    )
    command.add_argument(
        "--wait",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="then wait so long for the server to close an idle connection (0)",
    )
    command.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="for each step (10)"
    )
    command.add_argument(
        "--requests", type=_count, default=10, metavar="N", help="over one connection (10)"
    )
    command.add_argument("--ca", metavar="FILE", help="trust these authorities (PEM)")
    command.add_argument(
        "--insecure", action="store_true", help="accept any certificate, to look at it"
    )


def _add_top(commands: _Commands) -> None:
    command = _add(commands, "top", "watch the pools of a running service")
    command.description = (
        "Watch the pools of a service that has mounted conpool.contrib.asgi.StatusApp. In a"
        " terminal the table is live until Ctrl-C; elsewhere it is printed once."
    )
    command.add_argument(
        "url", metavar="URL", help="where the StatusApp is: http://host:8000/status"
    )
    command.add_argument(
        "--interval", type=_seconds, default=2.0, metavar="SECONDS", help="between looks (2)"
    )
    command.add_argument(
        "--count", type=_count, metavar="N", help="look N times (a terminal: until Ctrl-C; else 1)"
    )
    command.add_argument(
        "--rows", type=_count, metavar="N", help="endpoints of each pool (as many as fit; else 20)"
    )
    command.add_argument("--sort", choices=_SORTS, default="busiest", help="which come first")
    command.add_argument("--match", default="", metavar="TEXT", help="only endpoints with TEXT")


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1e6:
        raise argparse.ArgumentTypeError(f"must be seconds, 0 or more, not {text!r}")
    return number
