from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, strategies as st

from conpool._core.gate import CEILING, FIRST, Gate
from tests.support.shell import SteadyRandom


def ceiling(failures: int) -> float:
    return Gate(SteadyRandom()).draw_delay(failures)


def test_the_ceiling_doubles_with_each_failure() -> None:
    assert [ceiling(failures) for failures in (1, 2, 3, 4)] == pytest.approx(
        [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    )


@given(st.integers(1, 10**9), st.randoms(use_true_random=False))
def test_no_delay_is_negative_or_above_the_ceiling(failures: int, random: Random) -> None:
    assert 0.0 <= Gate(random).draw_delay(failures) <= CEILING


def test_the_ceiling_is_reached_and_kept() -> None:
    assert ceiling(7) == ceiling(1000) == CEILING


def test_jitter_is_full_so_that_clients_spread_over_the_whole_delay() -> None:
    gate = Gate(Random(1))
    delays = [gate.draw_delay(20) for _ in range(2000)]
    assert min(delays) < 0.02 * CEILING
    assert max(delays) > 0.98 * CEILING
    assert sum(delays) / len(delays) == pytest.approx(CEILING / 2, rel=0.05)
