"""`python -m bench`: run the named cases, or all of them, and print a table for each.

`python -m bench compare BASE` compares with another commit instead: see `bench.compare`.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from . import compare, records
from .cases import CASES, measure, measure_apart
from .measure import FULL, QUICK, TINY


def main(argv: Sequence[str] | None = None) -> None:
    """Run cases and print their tables."""
    if argv and argv[0] == "compare":
        sys.exit(compare.main(argv[1:]))
    parser = argparse.ArgumentParser("bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds: five minutes, less exact"
    )
    parser.add_argument("--tiny", action="store_true", help="only to see that it runs")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep the figures, beside those of other cases"
    )
    args = parser.parse_args(argv)
    unknown = set(args.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    scale = TINY if args.tiny else QUICK if args.quick else FULL
    print(
        f"Python {platform.python_version()}, trio {trio.__version__}, {platform.system()}"
        f" {platform.release()}, {scale.name} run\n"
    )
    run = records.describe_run(scale)
    for name in args.cases or CASES:
        table = measure(name, scale) if len(args.cases) == 1 else measure_apart(name, scale)
        print(table, end="\n\n", flush=True)
        if args.json is not None:
            records.save(args.json, {name: table}, run)


if __name__ == "__main__":
    main(sys.argv[1:])
