"""`python -m bench`: run the named cases, or all of them, and print a table for each.

`python -m bench compare BASE` compares with another commit instead: see `bench.compare`.
"""

from __future__ import annotations

import argparse
import gc
import logging
import platform
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import trio

from . import compare, records
from .budget import measure_budget
from .closing import measure_closing
from .dials import measure_burst, measure_evictions
from .exporters import measure_exporters
from .growth import measure_growth, measure_masses
from .http import measure_http
from .lease import measure_contended, measure_uncontended
from .measure import FULL, QUICK, TINY, Scale, Table
from .memory import measure_memory, measure_passing, measure_waiting
from .options import measure_options
from .outages import measure_outages
from .psycopg import measure_psycopg
from .queue import measure_cancelling, measure_fairness, measure_handover
from .redis import measure_redis
from .requests import measure_requests
from .sessions import measure_sessions
from .steps import measure_steps

Case: TypeAlias = Callable[[Scale], Table]


def _in_trio(measure: Callable[[Scale], Awaitable[Table]]) -> Case:
    return lambda scale: trio.run(measure, scale)


CASES: Final[dict[str, Case]] = {
    "uncontended": _in_trio(measure_uncontended),
    "budget": _in_trio(measure_budget),
    "options": _in_trio(measure_options),
    "contended": _in_trio(measure_contended),
    "exporters": _in_trio(measure_exporters),
    "sessions": _in_trio(measure_sessions),
    "growth": measure_growth,
    "masses": measure_masses,
    "handover": measure_handover,
    "cancelling": _in_trio(measure_cancelling),
    "fairness": _in_trio(measure_fairness),
    "evictions": measure_evictions,
    "burst": _in_trio(measure_burst),
    "closing": _in_trio(measure_closing),
    "steps": measure_steps,
    "outages": _in_trio(measure_outages),
    "requests": _in_trio(measure_requests),
    "http": measure_http,
    "redis": measure_redis,
    "psycopg": measure_psycopg,
    "memory": _in_trio(measure_memory),
    "waiting": _in_trio(measure_waiting),
    "passing": _in_trio(measure_passing),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run cases and print their tables."""
    if argv and argv[0] == "compare":
        sys.exit(compare.main(argv[1:]))
    parser = argparse.ArgumentParser("bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds: half a minute, less exact"
    )
    parser.add_argument("--tiny", action="store_true", help="only to see that it runs")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep the figures, beside those of other cases"
    )
    args = parser.parse_args(argv)
    unknown = set(args.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    # The pools say that there are many of them.
    logging.getLogger("conpool").addHandler(logging.NullHandler())
    scale = TINY if args.tiny else QUICK if args.quick else FULL
    print(
        f"Python {platform.python_version()}, trio {trio.__version__}, {platform.system()}"
        f" {platform.release()}, {scale.name} run\n"
    )
    run = records.describe_run(scale)
    for name in args.cases or CASES:
        gc.collect()  # of the case before
        table = CASES[name](scale)
        print(table, end="\n\n", flush=True)
        if args.json is not None:
            records.save(args.json, {name: table}, run)


if __name__ == "__main__":
    main(sys.argv[1:])
