"""`python -m soak 30`: thirty minutes of traffic; exit code 1, and a list, if anything is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from random import SystemRandom

from .run import soak


def main(argv: Sequence[str] | None = None) -> int:
    """Run for the minutes given, print what is wrong, and return the exit code."""
    parser = argparse.ArgumentParser("soak", description=__doc__)
    parser.add_argument(
        "length", nargs="?", type=float, metavar="minutes", help="same as --minutes"
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--seed", type=int, help="repeat the choices of a run (default: a new one)")
    args = parser.parse_args(argv)
    minutes = args.minutes if args.length is None else args.length
    seed = SystemRandom().randrange(10**6) if args.seed is None else args.seed
    print(f"{minutes:g} minutes with seed {seed}", flush=True)
    wrong = soak(minutes * 60, seed)
    for line in wrong:
        print(f"LEFT OR WRONG: {line}", flush=True)
    print("FAILED" if wrong else "nothing is left over", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
