"""A few seconds of the soak: it runs and finds faults, but not those that take minutes to show."""

from __future__ import annotations

import socket

import pytest

from soak.__main__ import main
from soak.remains import Memory, Remains
from soak.run import soak
from soak.watch import Grammar, Record


def test_a_short_run_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak(2.0, seed=1, real=False) == []
    assert "2 s with seed 1" in capsys.readouterr().out


def test_a_fault_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[float] = []

    def fail(seconds: float, seed: int) -> list[str]:
        asked.append(seconds)
        return ["sessions: 1 at echo"]

    monkeypatch.setattr("soak.__main__.soak", fail)
    assert main(["2", "--seed", "3"]) == 1
    assert main(["--minutes", "0.5"]) == 1
    assert asked == [120.0, 30.0]
    assert "LEFT OR WRONG: sessions: 1 at echo" in capsys.readouterr().out


async def test_an_open_file_is_named() -> None:
    before = Remains()
    if not before.files:
        pytest.skip("open files are counted where /proc shows them")
    with socket.socket():
        (found,) = Remains().find_more_than(before)
    assert found.startswith("files: 1 x socket:")
    assert Remains().find_more_than(before) == []


def test_an_acquire_without_its_end_is_named() -> None:
    grammar = Grammar(Record())
    grammar.acquire_started("somewhere")  # type: ignore[arg-type]
    assert grammar.find_unfinished() == "1 acquires"


def test_memory_that_grows_steadily_shows_its_slope() -> None:
    memory = Memory()
    memory._samples = [(float(t), 50.0 + 0.1 * t) for t in range(21)]
    seconds, growth = memory.growth()
    assert (seconds, round(growth, 6)) == (10.0, 1.0)
