"""`conpool bench`: what a lease costs, beside fresh connections and the pools of other libraries.

Every contender does the same in the same process, one after the other: a warm-up, then some rounds,
of which the median counts. All servers are in this process, too, so a time is that of both sides.
"""

from __future__ import annotations

import json
import platform
import sys
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

import trio

from conpool import __version__
from conpool._stats.report import duration
from conpool.cli._bench_rivals import RIVALS, measure_rivals
from conpool.cli._bench_trio import measure_trio
from conpool.cli._bench_watch import Result, Stopwatch
from conpool.cli._screen import WIDTH, Screen

TITLES: Final = {
    "request": "One HTTP request after the other, to a server on the loopback address",
    "lease": "A lease of an idle connection: take it and give it back",
    "shared": "A lease where many tasks share ten connections",
}
"""What is measured, by a short name."""

_NAME_WIDTH: Final = 24
_NUMBER_WIDTH: Final = 9


def run(options: Namespace, screen: Screen) -> int:
    """Measure all contenders that are installed; return 0."""
    watch = Stopwatch(screen, options.rounds, options.tasks, [])
    trio.run(measure_trio, watch)
    measure_rivals(watch)
    missing = [rival.package for rival in RIVALS if not rival.is_installed()]
    if options.json:
        print(json.dumps(_as_dict(watch, missing), indent=2))
    else:
        print(describe(watch.results, options.tasks))
        if missing:
            print(f"Not installed, so not measured: {', '.join(missing)}.")
    return 0


def _as_dict(watch: Stopwatch, missing: list[str]) -> dict[str, Any]:
    return {
        "conpool": __version__,
        "python": platform.python_version(),
        "trio": trio.__version__,
        "rounds": watch.rounds,
        "tasks": watch.tasks,
        "results": [asdict(result) for result in watch.results],
        "missing": missing,
    }


def describe(results: Iterable[Result], tasks: int) -> str:
    """Show the results with a bar for each, in 80 columns."""
    lines = [f"conpool {__version__}, Python {platform.python_version()}, trio {trio.__version__}"]
    everything = list(results)
    for case, title in TITLES.items():
        found = [result for result in everything if result.case == case]
        if not found:
            continue
        lines += ["", title.replace("many tasks", f"{tasks} tasks"), *_plot(found)]
    lines += ["", "Shorter is better. Compare the ratios: the times are those of this machine."]
    return "\n".join(lines)


def _plot(results: list[Result]) -> Iterable[str]:
    longest = max(result.seconds for result in results)
    own = next((result.seconds for result in results if result.name == "conpool"), longest)
    room = WIDTH - _NAME_WIDTH - 2 * _NUMBER_WIDTH - 4
    for result in results:
        bar = _bar() * max(1, round(room * result.seconds / longest))
        ratio = f"{result.seconds / own:.1f} x"
        yield (
            f"  {result.name:{_NAME_WIDTH}}{duration(result.seconds):>{_NUMBER_WIDTH}}"
            f"{ratio:>{_NUMBER_WIDTH}}  {bar}"
        ).rstrip()


def _bar() -> str:
    """Return what bars are made of, where the output can show it."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "#"
    return "█"
