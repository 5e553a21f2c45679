"""`python -m simulate`: run the named cases, or all; exit code 1 if one breaks a promise."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from bench.measure import FULL, QUICK, TINY, Scale

from .crowds import measure_cold, measure_crowd, measure_idle
from .outages import measure_outage, measure_restart
from .overload import measure_overload, measure_slowdown
from .report import Report
from .sizes import measure_adaptive, measure_size

Case: TypeAlias = Callable[[Scale], Report]

CASES: Final[dict[str, Case]] = {
    "outage": measure_outage,
    "restart": measure_restart,
    "overload": measure_overload,
    "slowdown": measure_slowdown,
    "size": measure_size,
    "adaptive": measure_adaptive,
    "idle": measure_idle,
    "cold": measure_cold,
    "crowd": measure_crowd,
}
PICTURES: Final = Path(__file__).parent.parent / "docs" / "_static"


def main(argv: Sequence[str] | None = None) -> int:
    """Run cases, print figures and promises, and return the exit code."""
    parser = argparse.ArgumentParser("simulate", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument("--quick", action="store_true", help="fewer callers")
    parser.add_argument("--tiny", action="store_true", help="only to see that it runs")
    parser.add_argument("--draw", action="store_true", help="draw the pictures in docs/_static")
    args = parser.parse_args(argv)
    unknown = set(args.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    # The pools say on every bad day that it is one.
    logging.getLogger("conpool").addHandler(logging.NullHandler())
    scale = TINY if args.tiny else QUICK if args.quick else FULL
    broken = 0
    for name in args.cases or CASES:
        report = CASES[name](scale)
        print(report, end="\n\n", flush=True)
        broken += sum(not promise.is_kept for promise in report.promises)
        if args.draw and report.draw is not None:
            report.save(PICTURES / f"simulate-{name}.png")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
