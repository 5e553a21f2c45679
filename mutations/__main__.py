"""Plant one bug after the other in a copy of the project, and see that the tests notice each.

    python -m mutations                              every bug of both kinds; takes hours
    python -m mutations thought-out                  those of the lists
    python -m mutations thought-out -s core pumps    those of one list, with "pumps" in their name
    python -m mutations thought-out --file '_core/*' those of these files
    python -m mutations mechanical --sample 40       forty of those from the syntax tree
    python -m mutations mechanical --file '_core/limit.py' --list
    python -m mutations mechanical compare 3f2a9c01  those with one of these words in their id

The tests run first without any bug: they must pass. Exits with 1 unless every bug was noticed, but
for those that `accepted.txt` names.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from typing import Final

from mutations.accepted import LIST, read_accepted
from mutations.belongs import PACKAGE, find_files, find_stages
from mutations.bug import Bug, fit
from mutations.mutator import find_mutants
from mutations.runner import PATIENCE, Outcome, Verdict, run_without_bugs, try_bugs
from mutations.thought_out import SOURCES, load

KINDS: Final = ("thought-out", "mechanical")


def find_thought_out(
    sources: list[str], patterns: Sequence[str] = ("*",)
) -> tuple[list[Bug], list[str]]:
    """The bugs of the lists, and the names of those that fit no longer, each with the reason."""
    bugs: list[Bug] = []
    misfits: list[str] = []
    for mutation in load(sources):
        if not any(fnmatch(mutation.file, pattern) for pattern in patterns):
            continue
        path = PACKAGE / mutation.file
        found = fit(mutation, path.read_text("utf-8")) if path.exists() else "its file is gone"
        if isinstance(found, Bug):
            bugs.append(found)
        else:
            misfits.append(f"{mutation.name}: {found}")
    return bugs, misfits


def find_mechanical(patterns: list[str], accepted: str) -> tuple[list[Bug], list[str]]:
    """The bugs from syntax trees that are not accepted, and the accepted ones that are gone."""
    keys = read_accepted(accepted)
    files = find_files(patterns)
    bugs: list[Bug] = []
    for file in files:
        sound = (PACKAGE / file).read_text("utf-8")
        stages = find_stages(file)
        bugs += [
            Bug(
                name=mutant.id,
                file=file,
                sound=sound,
                broken=mutant.plant(sound),
                stages=stages,
                is_thought_out=False,
            )
            for mutant in find_mutants(file, sound)
            if keys.pop(mutant.key, None) is None
        ]
    gone = [":".join(key) for key in keys if key[0] in files or not (PACKAGE / key[0]).exists()]
    return bugs, [f"{name}: accepted.txt names a bug that cannot be made any more" for name in gone]


def choose(bugs: list[Bug], words: list[str], sample: int | None, seed: int) -> list[Bug]:
    """Those with one of `words` in their name; of these, `sample` drawn by lot."""
    chosen = [bug for bug in bugs if not words or any(word in bug.name for word in words)]
    if sample is None or sample >= len(chosen):
        return chosen
    places = sorted(random.Random(seed).sample(range(len(chosen)), sample))
    return [chosen[place] for place in places]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "mutations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", nargs="?", choices=KINDS, help="both, unless one is named")
    parser.add_argument("words", nargs="*", help="only bugs with one of these in their name")
    parser.add_argument("-l", "--list", action="store_true", help="only list them")
    parser.add_argument("-s", "--source", action="append", default=[], choices=SOURCES)
    parser.add_argument("--file", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many, drawn by lot")
    parser.add_argument("--seed", type=int, default=0, help="the lot's; the same draws the same")
    parser.add_argument("-t", "--test", action="append", default=[], help="only these tests")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="so many at a time")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE, help="seconds, for a run that hangs"
    )
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Try the bugs asked for; return 0 if all were noticed."""
    options = parse(argv)
    bugs: list[Bug] = []
    misfits: list[str] = []
    if options.kind == "thought-out" or not (options.kind or options.file):
        found, unfit = find_thought_out(options.source, options.file or ["*"])
        bugs, misfits = bugs + found, misfits + unfit
    if options.kind != "thought-out" and not options.source:
        found, unfit = find_mechanical(options.file, LIST.read_text("utf-8"))
        bugs, misfits = bugs + found, misfits + unfit
    bugs = choose(bugs, options.words, options.sample, options.seed)
    if options.test:
        bugs = [replace(bug, stages=(tuple(options.test),)) for bug in bugs]
    if options.list:
        for bug in bugs:
            print(label(bug))
        return tell_misfits(misfits)
    seconds, failure = run_without_bugs(bugs)
    if failure:
        print(f"without any bug the tests fail already:\n{failure}")
        return 1
    print(
        f"without any bug the tests pass, in {seconds:.0f} s; now with {len(bugs)} bugs", flush=True
    )
    outcomes = try_bugs(bugs, options.jobs, 2 * seconds + options.patience, tell)
    return sum_up(outcomes) | tell_misfits(misfits)


def tell(outcome: Outcome) -> None:
    """Print a line about one bug."""
    print(f"{outcome.verdict.value:14} {outcome.seconds:6.1f} s  {label(outcome.bug)}", flush=True)


def label(bug: Bug) -> str:
    """The file and the name; an id begins with the file."""
    return f"{bug.file:28} {bug.name}" if bug.is_thought_out else bug.name


def sum_up(outcomes: Sequence[Outcome]) -> int:
    """Print the bugs that were not noticed, each with its diff; return 1 if there are any."""
    missed = [outcome for outcome in outcomes if not is_noticed(outcome)]
    for outcome in missed:
        print(f"\n{outcome.verdict.value}: {outcome.bug.name}\n{outcome.bug.diff()}")
        if outcome.verdict is Verdict.BREAKS:
            print(outcome.output)
    print(f"\n{len(outcomes) - len(missed)} of {len(outcomes)} planted bugs were noticed")
    return 1 if missed else 0


def is_noticed(outcome: Outcome) -> bool:
    """Whether the tests saw the bug. One that cannot even be imported was not thought out well."""
    if outcome.verdict is Verdict.BREAKS:
        return not outcome.bug.is_thought_out
    return outcome.verdict is not Verdict.SURVIVED


def tell_misfits(misfits: Sequence[str]) -> int:
    """Print what no longer fits; return 1 if there is something."""
    if misfits:
        print(f"\n{len(misfits)} do not fit the files as they are:", *misfits, sep="\n  ")
    return 1 if misfits else 0


if __name__ == "__main__":
    sys.exit(main())
