"""The benchmark prints a table for each case. No test asserts a time: a busy machine is no bug."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import typing
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import pytest
import trio

import conpool
from bench import compare
from bench.__main__ import main
from bench.budget import OWN, count_by_function
from bench.cases import CASES
from bench.compare import Contestant
from bench.measure import TINY, Aim, Table, count_bytecodes, count_calls
from bench.plots import PICTURES, mark
from bench.records import describe_run, load, load_records, save
from bench.steps import TimedSteps
from conpool.testing import MemoryConnector

from .proof.test_long_steps import SCENES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
STATIC = ROOT / "docs" / "_static"


@pytest.mark.parametrize("case", CASES)
def test_every_case_prints_a_table_of_figures(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--tiny", case])
    version, table = capsys.readouterr().out.split("\n\n", 1)
    assert f"trio {trio.__version__}" in version
    title, rule, _head, *rows = table.splitlines()
    assert title
    assert set(rule) == {"─"}
    assert sum(bool(re.search(r" [\d,]+(\.\d+)?( |$)", row)) for row in rows) >= 2


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "no such case: speed" in capsys.readouterr().err


def test_a_lease_takes_as_many_operations_with_ten_endpoints_as_with_one() -> None:
    table = CASES["growth"](TINY)
    assert len(table.rows) == 4
    for column in (1, 2):  # every so many uses of an endpoint are counted in one go: 5 %
        operations = [float(row[column].replace(",", "")) for row in table.rows]
        assert max(operations) < 1.05 * min(operations), table


async def test_operations_are_counted_exactly() -> None:
    async def run(count: int) -> None:
        for number in range(count):
            abs(number)

    assert await count_calls(run, 1000) == pytest.approx(1, abs=0.01)
    once = await count_bytecodes(run, 1000)
    assert await count_bytecodes(run, 2000) == pytest.approx(once, rel=0.01)
    assert once >= 4


def test_columns_are_aligned() -> None:
    table = Table("T", ("name", "µs"), [("a", "1.0"), ("longer", "100.0")], "Note.")
    assert str(table).splitlines() == [
        "T",
        "─",
        "name       µs",
        "a         1.0",
        "longer  100.0",
        "Note.",
    ]


async def test_a_lease_spends_nothing_on_annotations() -> None:
    """`LeaseBlock[T](…)` in place of `LeaseBlock(…)` cost every lease a quarter of a checkpoint."""
    endpoint = conpool.Endpoint("a.example", 80)
    files: set[str] = set()

    def profile(frame: FrameType, event: str, _arg: object) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    connector = MemoryConnector(trio.abc.Stream.receive_some)
    async with conpool.ConnectionPool(connector=connector) as pool:
        await pool.warm(endpoint, 1)
        sys.setprofile(profile)
        async with pool.connection(endpoint):
            pass
        sys.setprofile(None)
    assert any(file.endswith("acquire.py") for file in files)
    assert typing.__file__ not in files


# ── what is kept, and shown ─────────────────────────────────────────────────────


def test_an_aim_is_met_up_to_its_limit() -> None:
    assert Aim("a", 1.904, 1.9).is_met
    assert not Aim("a", 1.91, 1.9).is_met
    assert Aim("a", 4.0, 4.0, is_floor=True).is_met
    assert not Aim("a", 3.9, 4.0, is_floor=True).is_met
    assert str(Aim("wide", 12.0, 1.5)) == "MISSED  wide: 12.00, aim ≤ 1.5"


def test_a_file_keeps_the_last_tables_of_each_case(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    first = Table("T", ("", "µs"), [("a", "1.0")], "Note.", [Aim("a", 1.0, 2.0)])
    second = Table("U", ("", "µs"), [("b", "2.0")])
    run = describe_run(TINY)
    save(path, {"one": second, "two": second}, run | {"commit": "before"})
    save(path, {"one": first}, run)
    assert load(path) == {"one": first, "two": second}
    records = load_records(path)
    assert records["two"]["run"]["commit"] == "before"
    assert records["one"]["run"] == run
    assert run["packages"]["trio"] == trio.__version__
    assert run["machine"]["cpu"]
    assert run["machine"]["cores"] >= 1


def test_a_run_can_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kept.json"
    main(["--tiny", "--json", str(path), "budget"])
    assert str(load(path)["budget"]) in capsys.readouterr().out


def test_the_page_shows_each_kept_case_once() -> None:
    shown = re.findall(r"^```{bench} (\S+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(load()) == sorted(CASES)


def test_the_pictures_are_of_the_figures_that_are_kept() -> None:
    tables = load()
    page = PAGE.read_text("utf-8")
    for name, (_, cases, _) in PICTURES.items():
        drawn = (STATIC / f"{name}.png").read_bytes()
        assert mark(tables, cases).encode() in drawn, f"draw {name} again: see {PAGE.name}"
        assert len(drawn) < 100_000
        assert f"_static/{name}.png" in page


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_pictures_can_be_drawn(tmp_path: Path) -> None:
    """In a process of its own: matplotlib keeps files open."""
    figures = str(ROOT / "bench" / "results.json")
    command = [sys.executable, "-m", "bench.plots", figures, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert {path.stem for path in tmp_path.iterdir()} == set(PICTURES)


# ── beside a base ───────────────────────────────────────────────────────────────


@pytest.mark.skipif(not (ROOT / "conpool").is_dir(), reason="a wheel is tested")
def test_a_tree_is_as_good_as_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "conpool", tmp_path / "conpool")
    monkeypatch.setattr(compare, "checked_out", lambda _: contextlib.nullcontext(tmp_path))
    assert compare.main(["base", "--tiny", "--tolerance", "1000"]) == 0
    out = capsys.readouterr().out
    assert "lease bytecodes" in out
    assert "lease, µs" in out


def has_history() -> bool:
    """Whether git knows these sources, and is willing to speak of them."""
    with contextlib.suppress(FileNotFoundError):
        asked = ["git", "cat-file", "-e", "HEAD:conpool/py.typed"]
        return (
            subprocess.run(asked, cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode == 0
        )
    return False


@pytest.mark.skipif(not has_history(), reason="the sources have no history")
def test_the_base_is_what_was_committed() -> None:
    with compare.checked_out("HEAD") as folder:
        assert [path.name for path in folder.iterdir()] == ["conpool"]
        assert (folder / "conpool" / "py.typed").exists()
    assert not folder.exists()


class Side:
    """Answers what it was told to answer."""

    def __init__(self, **answers: float) -> None:
        self.answers = answers

    def do(self, case: str, count: int) -> float:
        return self.answers["codes" if case.endswith("bytecodes") else "time"]


@pytest.mark.parametrize(
    ("codes", "time", "worse"),
    [(1000.0, 10.0, 0), (1000.5, 10.0, 2), (999.0, 10.4, 0), (1000.0, 10.6, 6), (1100.0, 9.0, 4)],
)
def test_what_is_worse_than_its_base_is_named(codes: float, time: float, worse: int) -> None:
    base, now = Side(codes=1000.0, time=10.0), Side(codes=codes, time=time)
    _, found = compare.compare(
        typing.cast("Contestant", base),
        typing.cast("Contestant", now),
        TINY,
        tolerance=1.05,
        is_timed=True,
    )
    assert len(found) == worse, found


# ── budgets and steps ───────────────────────────────────────────────────────────


async def test_the_bytecodes_of_a_lease_are_told_apart_by_who_runs_them() -> None:
    endpoint = conpool.Endpoint("a.example", 80)
    connector = MemoryConnector(trio.abc.Stream.receive_some)
    async with conpool.ConnectionPool(connector=connector) as pool:

        async def run(count: int) -> None:
            for _ in range(count):
                async with pool.connection(endpoint):
                    pass

        costs = await count_by_function(run, 20)
        counted = await count_bytecodes(run, 20)
    by_owner: dict[str, float] = {}
    for (owner, _), executed in costs.items():
        by_owner[owner] = by_owner.get(owner, 0) + executed / 20
    assert by_owner[OWN] > by_owner["trio"] * 0.3
    assert sum(by_owner.values()) == pytest.approx(counted, rel=0.2)


def test_the_longest_step_is_found() -> None:
    steps = TimedSteps()

    async def long() -> None:
        for number in range(200_000):
            hash(number)
        await trio.lowlevel.checkpoint()

    async def scene() -> None:
        with steps.watched():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(long, name="long")

    trio.run(scene)
    assert steps.culprit == "long"
    assert 0 < steps.longest <= steps.longest_round
    assert {"waiters_time_out", "endpoints_forgotten"} <= set(SCENES)
