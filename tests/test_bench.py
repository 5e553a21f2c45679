"""The benchmark prints a table for each case. No test asserts a time: a busy machine is no bug."""

from __future__ import annotations

import re
import sys
import typing
from types import FrameType

import pytest
import trio

import conpool
from bench.__main__ import CASES, main
from bench.measure import TINY, Table, count_bytecodes, count_calls
from conpool.testing import MemoryConnector


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
    assert sum(bool(re.search(r" \d+\.\d", row)) for row in rows) >= 2


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
