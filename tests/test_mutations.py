"""Planted bugs: which ones the mutator makes of a file, and what the runner does with them."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent

import pytest

from mutations.__main__ import choose, find_mechanical, find_thought_out, is_noticed, parse, sum_up
from mutations.accepted import LIST, read_accepted
from mutations.belongs import MUTATED, PACKAGE, ROOT, find_files, find_stages
from mutations.bug import Bug, Mutation, fit
from mutations.mutator import KINDS, Mutant, find_mutants, read_key
from mutations.runner import Outcome, Verdict, try_bug, try_bugs
from mutations.thought_out import load

HEADER = "def f(a, b, c, x: int) -> {}:\n    "


def mutate(statement: str, returns: str = "None") -> list[tuple[str, str]]:
    """The kind of each bug in a function's only statement, and that statement with the bug."""
    header = HEADER.format(returns)
    source = header + statement
    return [
        (mutant.kind, mutant.plant(source).removeprefix(header))
        for mutant in find_mutants("f.py", source)
    ]


def find(source: str) -> list[Mutant]:
    return find_mutants("f.py", dedent(source))


# ── what is made ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("a(b)", "pass"),
        ("await a.b(c)", "pass"),
        ("a = b(c)", None),
        ("a", None),
    ],
)
def test_a_call_that_stands_alone_is_dropped(statement: str, broken: str | None) -> None:
    assert mutate(statement) == ([] if broken is None else [("drop-call", broken)])


@pytest.mark.parametrize(
    ("operator", "other"),
    [("<", "<="), (">", ">="), ("==", "!="), ("is", "is not"), ("in", "not in")],
)
def test_a_comparison_becomes_its_counterpart(operator: str, other: str) -> None:
    assert mutate(f"a = b {operator} c") == [("compare", f"a = b {other} c")]
    assert mutate(f"a = b {other} c") == [("compare", f"a = b {operator} c")]


def test_each_comparison_of_a_chain_is_changed_by_itself() -> None:
    assert mutate("a = b < x <= c") == [
        ("compare", "a = b <= x <= c"),
        ("compare", "a = b < x < c"),
    ]


def test_and_becomes_or_and_back() -> None:
    assert mutate("a = a and b or c") == [
        ("logic", "a = a or b or c"),
        ("logic", "a = a and b and c"),
    ]


def test_an_operator_is_found_among_brackets_lines_and_comments() -> None:
    statement = "a = (\n        (a)  # and, is not\n        is not (b)\n        and not (c)\n    )"
    assert mutate(statement) == [
        ("compare", statement.replace("        is not (b)", "        is (b)")),
        ("logic", statement.replace("and not", "or not")),
    ]


def test_what_stands_before_an_operator_may_have_any_characters() -> None:
    assert mutate('a = "größer als é" in b') == [("compare", 'a = "größer als é" not in b')]


@pytest.mark.parametrize(
    ("condition", "negated"),
    [
        ("a", "not (a)"),
        ("not a", "a"),
        ("a.b()", "not (a.b())"),
        ("(x := a)", "(not (x := a))"),
    ],
)
def test_a_condition_is_negated(condition: str, negated: str) -> None:
    broken = {text for kind, text in mutate(f"if {condition}: a = b") if kind == "negate"}
    assert {ast.unparse(ast.parse(text)) for text in broken} == {
        ast.unparse(ast.parse(f"if {negated}: a = b"))
    }


def test_conditions_are_found_in_expressions_too() -> None:
    assert mutate("a = b if c else x") == [("negate", "a = b if not (c) else x")]
    assert mutate("a = [x for x in b if c]") == [("negate", "a = [x for x in b if not (c)]")]


def test_a_condition_that_is_compared_is_not_turned_around_twice() -> None:
    assert mutate("if a is None: a = b") == [("compare", "if a is not None: a = b")]
    assert [kind for kind, _ in mutate("if a < b: a = b")] == ["negate", "compare"]


def test_one_is_left_out() -> None:
    assert ("drop-one", "a = (b - c) ") in mutate("a = (b - c) + 1")
    assert ("drop-one", "a = b ") in mutate("a = b - 1")
    assert ("drop-one", "pass") in mutate("a += 1")
    assert not [kind for kind, _ in mutate("a = b + 2 * 1") if kind == "drop-one"]


def test_a_whole_number_is_one_more() -> None:
    assert mutate("a = b[0]") == [("constant", "a = b[1]")]
    assert mutate("a = b(True, 0.5, '1', None)") == []


def test_nothing_is_returned() -> None:
    assert mutate("return a.b", "int") == [("return", "return None")]
    assert mutate("return None", "int | None") == []
    assert mutate("return", "None") == []


@pytest.mark.parametrize(
    ("value", "opposite"),
    [("a", "not (a)"), ("not a", "a"), ("True", "False"), ("a()", "not (a())")],
)
def test_the_opposite_is_returned(value: str, opposite: str) -> None:
    assert mutate(f"return {value}", "bool") == [("return", f"return {opposite}")]


def test_the_function_around_a_nested_one_keeps_its_own_answer() -> None:
    found = find(
        """
        def f() -> bool:
            def g() -> int:
                return a
            return b
        """
    )
    assert [(mutant.kind, mutant.new) for mutant in found] == [
        ("return", "None"),
        ("return", "not (b)"),
    ]


def test_nothing_is_made_of_what_does_not_run_or_only_tells() -> None:
    source = '''
        """A call(): 1 < 2."""
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            print(1)
        Number: TypeAlias = "Literal[1, 2]"
        class C(Generic[T]):
            x: Annotated[int, 1]
            def f(self, y: Annotated[int, 1]) -> Annotated[int, 1]:
                """A call(): 1 < 2."""
                raise ValueError(f"{y + 1} is not {1 < 2}")
    '''
    assert find(source) == []


def test_every_kind_is_made_of_the_package() -> None:
    bugs, _ = find_mechanical([], "")
    assert {read_key(bug.name)[1] for bug in bugs} == set(KINDS)


@pytest.mark.parametrize("file", ["_core/limit.py", "_core/timetable.py", "_lending/waiting.py"])
def test_every_bug_compiles_and_changes_one_thing(file: str) -> None:
    source = (PACKAGE / file).read_text("utf-8")
    mutants = find_mutants(file, source)
    texts = {mutant.plant(source) for mutant in mutants}
    assert len(mutants) >= 5
    assert len(texts) == len(mutants), "two bugs are the same"
    for text in texts:
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(source))


# ── ids ─────────────────────────────────────────────────────────────────────────

TWICE = """
def f(a):
    a(1)
    a(1)

def g(a):
    a(1)
"""


def test_alike_statements_have_ids_of_their_own() -> None:
    mutants = find(TWICE)
    assert len(mutants) == 6
    assert len({mutant.key for mutant in mutants}) == 6


def test_a_bug_is_found_again_when_its_line_has_moved() -> None:
    before, after = find(TWICE), find("# A line more.\n\nx = y\n" + TWICE)
    assert [mutant.line + 3 for mutant in before] == [mutant.line for mutant in after]
    assert [mutant.key for mutant in before] == [mutant.key for mutant in after]
    assert [read_key(mutant.id) for mutant in before] == [mutant.key for mutant in before]


def test_a_bug_is_another_when_its_statement_has_changed() -> None:
    (one,), (other,) = find("a(b)"), find("a(c)")
    assert one.key != other.key


# ── which are tried, with what ──────────────────────────────────────────────────


def make_bug(broken: str = "a = 2\n", *, is_thought_out: bool = False) -> Bug:
    return Bug(
        name="_toy.py:1:constant:12345678",
        file="_toy.py",
        sound="a = 1\n",
        broken=broken,
        stages=(("tests/test_a.py",), ("tests/test_b.py",)),
        is_thought_out=is_thought_out,
    )


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    bugs, _ = find_mechanical(["_core/limit.py", "_core/timetable.py"], "")
    first = choose(bugs, [], 10, seed=1)
    assert len(first) == 10
    assert choose(bugs, [], 10, seed=1) == first
    assert choose(bugs, [], 10, seed=2) != first
    assert choose(bugs, [], 10_000, seed=1) == bugs
    assert all("compare" in bug.name for bug in choose(bugs, ["compare"], None, seed=0))


def test_what_is_accepted_is_not_tried_wherever_its_line_is_now() -> None:
    bugs, _ = find_mechanical(["_core/limit.py"], "")
    file, _, kind, digest = bugs[0].name.split(":")
    accepted = f"# Why.\n\n{file}:9999:{kind}:{digest}  it does the same\n"
    assert find_mechanical(["_core/limit.py"], accepted) == (bugs[1:], [])


def test_what_is_accepted_and_gone_is_told() -> None:
    accepted = "_core/limit.py:1:compare:00000000 it was\n_core/gone.py:1:compare:00000000 it was\n"
    _, misfits = find_mechanical(["_core/limit.py"], accepted)
    assert [misfit.partition(": ")[0] for misfit in misfits] == [
        "_core/limit.py:compare:00000000",
        "_core/gone.py:compare:00000000",
    ]
    assert find_mechanical(["_core/timetable.py"], accepted)[1] == misfits_of_gone_files(misfits)


def misfits_of_gone_files(misfits: list[str]) -> list[str]:
    return [misfit for misfit in misfits if "gone.py" in misfit.partition(": ")[0]]


@pytest.mark.parametrize("line", ["_core/limit.py:1:compare:00000000", "limit.py a reason"])
def test_nothing_is_accepted_without_its_id_and_a_reason(line: str) -> None:
    with pytest.raises(ValueError, match="not `file:line:kind:hash reason`"):
        read_accepted(line)


def test_the_list_of_accepted_bugs_can_be_read() -> None:
    read_accepted(LIST.read_text("utf-8"))


def test_each_file_has_tests_that_exist() -> None:
    for file in find_files(["_*/*.py"]):
        for stage in find_stages(file):
            for path in stage:
                assert (ROOT / path).exists(), f"{path}, which belongs to {file}"
    with pytest.raises(LookupError, match=r"which tests belong to cli/__init__\.py"):
        find_stages("cli/__init__.py")


def test_a_pattern_that_matches_no_file_is_refused() -> None:
    assert find_files(["conpool/_core/limit.py"]) == ["_core/limit.py"]
    with pytest.raises(LookupError, match=r"matches _core/gone\.py"):
        find_files(["_core/gone.py"])
    for pattern in MUTATED:
        assert find_files([pattern])


def test_a_file_s_own_tests_come_first() -> None:
    assert find_stages("_core/limit.py")[0] == ("tests/unit/core/test_limit.py",)
    assert find_stages("_core/effects.py")[0] == ("tests/unit/core",)


def test_words_may_stand_before_and_after_options() -> None:
    for argv in (
        ["thought-out", "a", "b", "-s", "core", "-j", "2"],
        ["thought-out", "-s", "core", "-j", "2", "a", "b"],
        ["thought-out", "a", "-s", "core", "-j", "2", "b"],
    ):
        options = parse(argv)
        assert (options.kind, options.words) == ("thought-out", ["a", "b"])
        assert (options.source, options.jobs) == (["core"], 2)
    assert (parse(["-j", "2"]).kind, parse([]).words) == (None, [])


# ── those that somebody thought of ──────────────────────────────────────────────


def test_the_tests_that_a_thought_out_bug_names_exist() -> None:
    for mutation in load([]):
        for test in mutation.tests:
            path, _, name = test.partition("::")
            assert (ROOT / path).exists(), mutation.name
            assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text("utf-8")


def mutation(old: str, new: str) -> Mutation:
    return Mutation(name="it is two", file="_toy.py", old=old, new=new, tests=("tests",))


def test_a_passage_that_fits_becomes_a_bug() -> None:
    bug = fit(mutation("a = 1", "a = 2"), "a = 1\nb = 1\n")
    assert isinstance(bug, Bug)
    assert bug.broken == "a = 2\nb = 1\n"
    assert bug.stages == (("tests",),)
    assert bug.diff().splitlines()[2:] == ["@@ -1,2 +1,2 @@", "-a = 1", "+a = 2", " b = 1"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("c", "d", "occurs 0 times"),
        ("= 1", "= 2", "occurs 2 times"),
        ("a = 1", "a = 1", "changes nothing"),
    ],
)
def test_a_passage_that_does_not_fit_is_told(old: str, new: str, reason: str) -> None:
    misfit = fit(mutation(old, new), "a = 1\nb = 1\n")
    assert isinstance(misfit, str)
    assert reason in misfit


def test_passages_that_do_not_fit_stop_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [mutation("no such passage", ""), mutation("from __future__", "from past")]
    lists = [
        Mutation(name=f"{number}", file=file, old=m.old, new=m.new, tests=m.tests)
        for number, (m, file) in enumerate(
            zip([*lists, lists[0]], ["_core/limit.py", "_core/limit.py", "_gone.py"], strict=True)
        )
    ]
    monkeypatch.setattr("mutations.__main__.load", lambda _: lists)
    bugs, misfits = find_thought_out([])
    assert [bug.name for bug in bugs] == ["1"]
    assert [misfit.partition(":")[0] for misfit in misfits] == ["0", "2"]


def test_thought_out_bugs_are_chosen_by_file() -> None:
    bugs, misfits = find_thought_out([], ["_core/straight.py"])
    assert {bug.file for bug in bugs} == {"_core/straight.py"}
    assert not misfits


# ── what becomes of them ────────────────────────────────────────────────────────


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one file, whose first test sees little and whose second sees everything."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take longer than the tests
    for folder in ("conpool", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "conpool" / "__init__.py").touch()
    (tmp_path / "conpool" / "_toy.py").write_text("a = 1\n")
    for name, what in (("test_a", "a > 0"), ("test_b", "a < 3")):
        text = f"from conpool._toy import a\n\ndef {name}():\n    assert {what}\n"
        (tmp_path / "tests" / f"{name}.py").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("broken", "verdict"),
    [
        ("a = 0\n", Verdict.KILLED),
        ("a = 3\n", Verdict.KILLED),
        ("a = 2\n", Verdict.SURVIVED),
        ("b = 2\n", Verdict.BREAKS),
    ],
)
def test_a_bug_is_tried_by_one_run_after_the_other(
    broken: str, verdict: Verdict, copy: Path
) -> None:
    outcome = try_bug(copy, make_bug(broken), limit=60.0)
    assert outcome.verdict is verdict, outcome.output
    assert (copy / "conpool" / "_toy.py").read_text() == "a = 1\n", "it was left in"


def test_a_run_that_does_not_end_is_ended(copy: Path) -> None:
    assert try_bug(copy, make_bug(), limit=0.001).verdict is Verdict.HANGS


def test_two_at_a_time_have_a_copy_each(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mutations.runner.ROOT", copy)
    monkeypatch.setattr("mutations.runner.PACKAGE", copy / "conpool")
    monkeypatch.setattr("mutations.runner.COPIED", ("tests",))
    told: list[Outcome] = []
    bugs = [make_bug(f"a = {number}\n") for number in range(4)]
    outcomes = try_bugs(bugs, 2, 60.0, told.append)
    assert [outcome.bug for outcome in outcomes] == bugs
    assert [outcome.verdict is Verdict.KILLED for outcome in outcomes] == [True, False, False, True]
    assert len(told) == 4


@pytest.mark.parametrize("is_thought_out", [False, True])
def test_a_bug_that_cannot_be_imported_counts_only_if_nobody_thought_it_out(
    is_thought_out: bool,
) -> None:
    bug = make_bug(is_thought_out=is_thought_out)
    assert is_noticed(Outcome(bug, Verdict.BREAKS, 1.0, "")) is not is_thought_out
    assert is_noticed(Outcome(bug, Verdict.HANGS, 1.0, ""))
    assert not is_noticed(Outcome(bug, Verdict.SURVIVED, 1.0, ""))


def test_who_survives_is_shown_with_what_it_changes(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [Outcome(make_bug(), verdict, 1.0, "") for verdict in Verdict]
    assert sum_up(outcomes) == 1
    said = capsys.readouterr().out
    assert "3 of 4 planted bugs were noticed" in said
    assert "SURVIVED: _toy.py:1:constant:12345678" in said
    assert "-a = 1\n+a = 2\n" in said
    assert sum_up(outcomes[:1]) == 0
