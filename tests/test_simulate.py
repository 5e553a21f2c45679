"""A tiny run of the simulation, which keeps its promises. The pictures are of a full run."""

from __future__ import annotations

import re

import pytest
import trio

from bench.measure import TINY, Table
from simulate.__main__ import CASES, PICTURES, main
from simulate.gradient import RECALIBRATE, SAMPLES, WINDOW, Gradient
from simulate.report import Promise, Report
from simulate.world import Server, most_in_a_second, run, share

PAGES = PICTURES.parent / "howto"


@pytest.mark.parametrize("case", CASES)
def test_every_case_keeps_its_promises(case: str) -> None:
    report = CASES[case](TINY)
    assert [promise for promise in report.promises if not promise.is_kept] == []
    assert len(report.table.rows) >= 2


def test_a_broken_promise_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(Table("T", ("", "a"), [("x", "1")]), [Promise("it works", False, "no")])
    monkeypatch.setitem(CASES, "outage", lambda _scale: report)
    assert main(["outage", "--tiny"]) == 1
    assert "BROKEN  it works: no" in capsys.readouterr().out


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sunshine"])
    assert "no such case: sunshine" in capsys.readouterr().err


def test_under_each_picture_is_the_command_that_draws_it() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in PAGES.glob("*.rst"))
    shown = re.findall(r"figure:: /_static/simulate-(\w+)\.png", pages)
    commands = re.findall(r"``nox -s simulate -- (\w+) --draw``", pages)
    drawn = [path.stem.removeprefix("simulate-") for path in PICTURES.glob("simulate-*.png")]
    assert sorted(shown) == sorted(commands) == sorted(drawn)
    assert set(shown) <= set(CASES)
    for name in shown:
        assert (PICTURES / f"simulate-{name}.png").stat().st_size < 100_000


def test_the_most_within_a_second_are_found() -> None:
    assert most_in_a_second([0.0, 0.5, 0.9, 1.0, 3.0]) == 3
    assert most_in_a_second([]) == 0
    assert share([3.0, 1.0, 2.0], 0.5) == 2.0
    assert share([], 0.5) == 0.0


async def test_a_server_has_as_many_workers_as_it_was_told() -> None:
    server = Server(1, 1.0, workers=3)

    async def main() -> int:
        done = 0

        async def ask() -> None:
            nonlocal done
            await server.answer()
            done += 1

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(ask)
            await trio.lowlevel.checkpoint()
            server.set_workers(1)  # three are at work: two of them go when they have ended
            await trio.sleep(50)
            nursery.cancel_scope.cancel()
        return done

    done = await trio.to_thread.run_sync(run, main)
    assert 30 < done < 75, "one worker does about fifty in fifty seconds"


def feed(limit: Gradient, took: float, since: float, seconds: float) -> float:
    """As many calls at once as the limit allows, each as long; returns the time after them."""
    now = since
    while now < since + seconds:
        now += took
        for _ in range(limit.limit):
            limit.called(took, now)
    return now


def test_a_limit_grows_while_calls_are_fast_and_falls_when_they_queue() -> None:
    limit = Gradient(2, 50)
    assert limit.limit == 3, "it measures the ideal first"
    now = feed(limit, 0.1, 0.0, SAMPLES / 3 * 0.1 + 0.1)
    now = feed(limit, 0.1, now, 20 * WINDOW)
    assert limit.limit == 50
    feed(limit, 1.0, now, 8 * WINDOW)
    assert limit.limit < 10


def test_a_limit_measures_the_ideal_again() -> None:
    limit = Gradient(2, 50)
    feed(limit, 0.1, 0.0, RECALIBRATE)
    assert limit.limit > 3
    limit.called(0.1, RECALIBRATE + 10)
    assert limit.limit == 3
