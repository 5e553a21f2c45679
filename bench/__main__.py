"""`python -m bench`: run the named cases, or all of them, and print a table for each."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import trio

from .growth import measure_growth
from .http import measure_http
from .lease import measure_contended, measure_uncontended
from .measure import FULL, QUICK, TINY, Scale, Table
from .memory import measure_memory, measure_passing
from .outages import measure_outages
from .queue import measure_cancelling, measure_fairness, measure_handover
from .redis import measure_redis
from .requests import measure_requests
from .sessions import measure_sessions

Case: TypeAlias = Callable[[Scale], Table]


def _in_trio(measure: Callable[[Scale], Awaitable[Table]]) -> Case:
    return lambda scale: trio.run(measure, scale)


CASES: Final[dict[str, Case]] = {
    "uncontended": _in_trio(measure_uncontended),
    "contended": _in_trio(measure_contended),
    "sessions": _in_trio(measure_sessions),
    "growth": measure_growth,
    "handover": _in_trio(measure_handover),
    "cancelling": _in_trio(measure_cancelling),
    "fairness": _in_trio(measure_fairness),
    "outages": _in_trio(measure_outages),
    "requests": _in_trio(measure_requests),
    "http": measure_http,
    "redis": measure_redis,
    "memory": _in_trio(measure_memory),
    "passing": _in_trio(measure_passing),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run cases and print their tables."""
    parser = argparse.ArgumentParser("bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds: half a minute, less exact"
    )
    parser.add_argument("--tiny", action="store_true", help="only to see that it runs")
    args = parser.parse_args(argv)
    unknown = set(args.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    scale = TINY if args.tiny else QUICK if args.quick else FULL
    print(
        f"Python {platform.python_version()}, trio {trio.__version__}, {platform.system()}"
        f" {platform.release()}, {scale.name} run\n"
    )
    for name in args.cases or CASES:
        print(CASES[name](scale), end="\n\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
