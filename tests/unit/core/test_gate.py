from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, strategies as st

from conpool._core.gate import CEILING, FIRST, Gate
from tests.support.shell import Refused, SteadyRandom


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


# ── doubt, trust and outages ────────────────────────────────────────────────────


def test_a_new_gate_is_open_trusts_nobody_and_knows_of_no_outage() -> None:
    gate = Gate(SteadyRandom())
    assert gate.is_open(0.0)
    assert (gate.is_failing, gate.is_in_doubt, gate.is_trusted) == (False, False, False)
    assert (gate.last_error, gate.outage_since) == (None, None)


def test_a_success_earns_trust_and_a_failure_loses_it() -> None:
    gate = Gate(SteadyRandom())
    gate.succeeded(0.0)
    assert gate.is_trusted
    gate.failed(Refused(), 1.0)
    assert not gate.is_trusted


def test_an_outage_counts_from_the_first_of_its_failures() -> None:
    gate = Gate(SteadyRandom())
    gate.failed(Refused(), 1.0)
    gate.failed(Refused(), 7.0)
    assert gate.outage_since == 1.0


def test_the_last_error_is_that_of_the_last_failure() -> None:
    gate, last = Gate(SteadyRandom()), Refused()
    gate.failed(Refused(), 1.0)
    gate.failed(last, 7.0)
    assert gate.last_error is last


def test_a_success_ends_an_outage() -> None:
    gate = Gate(SteadyRandom())
    gate.failed(Refused(), 1.0)
    gate.succeeded(3.0)
    assert gate.is_open(1.0)
    assert (gate.is_failing, gate.outage_since, gate.last_error) == (False, None, None)


def test_g31_a_success_beside_the_first_failure_is_no_news() -> None:
    """It began before the trouble: else all who wait would be dialled for at once."""
    gate = Gate(SteadyRandom())
    gate.failed(Refused(), 1.0)
    opens_at = gate.opens_at
    gate.succeeded(0.5)
    gate.succeeded(1.0)
    assert (gate.is_failing, gate.opens_at, gate.outage_since) == (True, opens_at, 1.0)
    gate.succeeded(1.1)
    assert not gate.is_failing


def test_f139_a_dial_that_succeeds_proves_nothing_in_doubt() -> None:
    gate = Gate(SteadyRandom())
    gate.failed(Refused(), 1.0, in_doubt=True)
    gate.succeeded(3.0)
    assert not gate.is_open(1.0)
    assert (gate.is_failing, gate.is_in_doubt, gate.is_trusted) == (True, True, False)
    assert gate.outage_since == 1.0


def test_f139_a_connection_that_was_of_use_ends_the_doubt_and_the_outage() -> None:
    gate = Gate(SteadyRandom())
    gate.failed(Refused(), 1.0, in_doubt=True)
    gate.proved()
    assert gate.is_open(1.0)
    assert (gate.is_failing, gate.is_in_doubt, gate.is_trusted) == (False, False, True)
    assert (gate.outage_since, gate.last_error) == (None, None)


def test_f139_a_plain_failure_leaves_the_doubt() -> None:
    gate = Gate(SteadyRandom())
    gate.failed(Refused(), 1.0, in_doubt=True)
    gate.failed(Refused(), 2.0)
    gate.succeeded(3.0)
    assert gate.is_in_doubt


def test_each_attempt_after_a_failure_puts_off_the_next_for_longer() -> None:
    """G31."""
    gate = Gate(SteadyRandom())
    gate.failed(Refused(), 0.0)
    assert gate.opens_at == FIRST
    gate.attempted(10.0)
    assert gate.opens_at == 10.0 + 2 * FIRST
    for _ in range(20):
        gate.attempted(10.0)
    assert gate.opens_at == 10.0 + CEILING


def test_an_attempt_without_a_failure_puts_off_nothing() -> None:
    gate = Gate(SteadyRandom())
    gate.attempted(10.0)
    assert gate.is_open(10.0)


def test_a_pause_has_no_end_of_its_own_and_keeps_the_delay() -> None:
    gate = Gate(SteadyRandom())
    gate.failed(Refused(), 0.0)
    gate.paused()
    assert (gate.is_open(99.0), gate.opens_at) == (False, math.inf)
    gate.resumed()
    assert gate.opens_at == FIRST


def test_shows_its_failures_and_its_pause() -> None:
    gate = Gate(SteadyRandom())
    gate.failed(Refused(), 0.0)
    assert repr(gate) == "<Gate 1 failures, opens at 0.05>"
    gate.paused()
    assert repr(gate) == "<Gate paused, 1 failures, opens at inf>"
