"""The circuit breaker by itself: what opens it, what it lets through, what closes it (G27, G28)."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from random import Random
from typing import Any, TypeAlias

import pytest

from conpool._core.circuit import Circuit
from conpool._values.config import SHORTEST, CircuitBreaker
from conpool._values.states import CIRCUIT_TRANSITIONS, CircuitState

CLOSED = CircuitState.CLOSED
OPEN = CircuitState.OPEN
HALF_OPEN = CircuitState.HALF_OPEN

Told: TypeAlias = list[tuple[CircuitState, CircuitState]]


def make(told: Told | None = None, **settings: Any) -> Circuit:
    """A circuit that opens at the third failure, for ten seconds."""
    breaker = CircuitBreaker(**({"failure_threshold": 3, "reset_timeout": 10.0} | settings))
    return Circuit(breaker, lambda old, new: [] if told is None else told.append((old, new)))


def make_open(at: float = 0.0, told: Told | None = None, **settings: Any) -> Circuit:
    circuit = make(told, **settings)
    while circuit.state is CLOSED:
        circuit.failed(at, at)
    return circuit


def make_half_open(**settings: Any) -> Circuit:
    """One that opened at 0, and whose first trial has begun at 10."""
    circuit = make_open(**settings)
    circuit.attempted()
    return circuit


# ── closed ──────────────────────────────────────────────────────────────────────


def test_a_new_circuit_is_closed_and_lets_everything_through() -> None:
    circuit = make()
    assert circuit.state is CLOSED
    assert circuit.count_places(0.0) == sys.maxsize
    assert (circuit.opens_at, circuit.retry_after(0.0)) == (-math.inf, 0.0)


def test_it_opens_at_the_last_of_so_many_failures_in_a_row() -> None:
    told: Told = []
    circuit = make(told)
    for _ in range(2):
        circuit.failed(1.0, 1.0)
        assert circuit.state is CLOSED
    circuit.failed(1.0, 1.0)
    assert circuit.state is OPEN
    assert told == [(CLOSED, OPEN)]


def test_a_success_ends_the_row() -> None:
    circuit = make()
    for _ in range(5):
        circuit.failed(0.0, 0.0)
        circuit.failed(0.0, 0.0)
        circuit.connected()
    assert circuit.state is CLOSED


def test_f124_a_server_that_fails_every_other_time_opens_nothing() -> None:
    circuit = make(failure_threshold=2)
    for second in range(100):
        circuit.failed(second, second)
        circuit.connected()
    assert circuit.state is CLOSED


def test_dials_in_a_closed_circuit_are_no_trials() -> None:
    circuit = make()
    circuit.attempted()
    assert circuit.trials == 0
    circuit.dial_over(1.0)
    assert circuit.trials == 0


# ── open ────────────────────────────────────────────────────────────────────────


def test_no_dial_starts_until_the_time_is_over() -> None:
    circuit = make_open(at=5.0)
    assert (circuit.count_places(5.0), circuit.count_places(14.9)) == (0, 0)
    assert (circuit.opens_at, circuit.retry_after(7.0)) == (15.0, 8.0)
    assert circuit.count_places(15.0) == 1


def test_it_is_half_open_from_the_first_trial_on() -> None:
    told: Told = []
    circuit = make_open(told=told)
    assert circuit.count_places(10.0) == 1
    assert circuit.state is OPEN
    circuit.attempted()
    assert circuit.state is HALF_OPEN
    assert told[-1] == (OPEN, HALF_OPEN)


def test_failures_of_dials_that_began_before_do_not_keep_it_open_for_longer() -> None:
    circuit = make_open(at=0.0)
    circuit.failed(-1.0, 9.0)
    assert circuit.opens_at == 10.0


def test_f124_it_does_not_open_and_close_faster_than_its_time() -> None:
    """However the trials end, there is one in `reset_timeout`."""
    circuit, trials, now = make_open(), 0, 0.0
    while now < 100.0:
        now += 0.5
        if circuit.count_places(now):
            trials += 1
            circuit.attempted()
            circuit.dial_over(now)
            circuit.failed(now, now)
    assert trials == 10


def test_without_an_end_it_stays_open_until_something_closes_it() -> None:
    circuit = make_open(reset_timeout=math.inf)
    assert (circuit.count_places(1e9), circuit.opens_at) == (0, math.inf)
    circuit.proved()
    assert circuit.state is CLOSED


def test_it_is_open_for_a_moment_even_with_a_time_of_zero() -> None:
    """A dial of the same instant would be taken for a trial."""
    circuit = make_open(at=5.0, reset_timeout=0)
    assert circuit.count_places(5.0) == 0
    assert circuit.opens_at == 5.0 + SHORTEST


def test_a_success_that_is_news_closes_it() -> None:
    circuit = make_open()
    circuit.connected()
    assert circuit.state is CLOSED
    circuit.failed(1.0, 1.0)
    assert circuit.state is CLOSED, "the row began anew"


# ── half open ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("most", [1, 2, 5])
def test_g28_it_lets_exactly_so_many_trials_through(most: int) -> None:
    circuit = make_open(half_open_max=most)
    for left in range(most, 0, -1):
        assert circuit.count_places(10.0) == left
        circuit.attempted()
    assert (circuit.count_places(1e9), circuit.trials) == (0, most)
    assert (circuit.has_more_trials, circuit.opens_at) == (False, math.inf)
    assert circuit.retry_after(11.0) == 0.0


def test_g28_a_trial_that_decides_nothing_gives_its_place_back() -> None:
    circuit = make_half_open()
    circuit.dial_over(10.0)
    assert (circuit.state, circuit.count_places(10.0)) == (HALF_OPEN, 1)
    assert (circuit.has_more_trials, circuit.opens_at) == (True, -math.inf)


def test_a_trial_that_fails_opens_it_again_for_the_whole_time() -> None:
    circuit = make_half_open(half_open_max=2)
    circuit.attempted()
    circuit.dial_over(10.0)
    circuit.failed(10.0, 12.0)
    assert (circuit.state, circuit.opens_at, circuit.trials) == (OPEN, 22.0, 0)


def test_a_trial_that_succeeds_closes_it() -> None:
    circuit = make_half_open()
    circuit.dial_over(10.0)
    circuit.connected()
    assert (circuit.state, circuit.trials) == (CLOSED, 0)


def test_the_other_trial_is_none_any_more_once_one_has_failed() -> None:
    circuit = make_half_open(half_open_max=2)
    circuit.attempted()
    circuit.dial_over(10.0)
    circuit.failed(10.0, 11.0)
    circuit.attempted()  # 21 s: half open again
    circuit.dial_over(10.0)
    circuit.failed(10.0, 21.0)
    assert (circuit.state, circuit.trials) == (HALF_OPEN, 1)


def test_a_dial_that_began_before_the_circuit_opened_is_no_trial() -> None:
    circuit = make_half_open()
    circuit.dial_over(0.0)
    circuit.failed(0.0, 11.0)
    assert (circuit.state, circuit.trials) == (HALF_OPEN, 1)


# ── what protocols report ───────────────────────────────────────────────────────


def test_reported_failures_count_with_the_others() -> None:
    circuit = make()
    circuit.failed(0.0, 0.0)
    circuit.failure_reported(0.0)
    circuit.failure_reported(0.0)
    assert circuit.state is OPEN


def test_a_dial_that_succeeds_does_not_end_a_row_that_was_reported() -> None:
    """A server may accept every connection, and answer each request with an error."""
    circuit = make()
    for _ in range(3):
        circuit.failure_reported(0.0)
        circuit.connected()
    assert circuit.state is OPEN
    circuit.connected()
    assert circuit.state is OPEN


def test_a_reported_success_does() -> None:
    circuit = make()
    for _ in range(9):
        circuit.failure_reported(0.0)
        circuit.failure_reported(0.0)
        circuit.proved()
    assert circuit.state is CLOSED
    circuit.failed(0.0, 0.0)
    circuit.connected()
    circuit.failed(0.0, 0.0)
    circuit.failed(0.0, 0.0)
    assert circuit.state is CLOSED, "what was reported is forgotten"


def test_a_trial_that_succeeds_closes_also_what_reports_have_opened() -> None:
    circuit = make()
    for _ in range(3):
        circuit.failure_reported(0.0)
    circuit.attempted()
    circuit.dial_over(10.0)
    circuit.connected()
    assert circuit.state is CLOSED


def test_a_failure_that_is_reported_during_the_trial_opens_it_again() -> None:
    circuit = make_half_open()
    circuit.failure_reported(11.0)
    assert (circuit.state, circuit.opens_at) == (OPEN, 21.0)


def test_reports_do_not_keep_it_open_for_longer() -> None:
    circuit = make_open()
    circuit.failure_reported(5.0)
    assert circuit.opens_at == 10.0


# ── all together ────────────────────────────────────────────────────────────────


def test_only_moves_of_the_table_are_told_and_each_begins_where_the_last_ended() -> None:
    told: Told = []
    random = Random(1)
    circuit = make(told, half_open_max=2)
    dials: list[float] = []
    now = 0.0
    for _ in range(3000):
        now += random.choice([0.0, 1.0, 7.0])
        if circuit.count_places(now) and random.random() < 0.6:
            circuit.attempted()
            dials.append(now)
        elif dials and random.random() < 0.8:
            began_at = dials.pop(random.randrange(len(dials)))
            circuit.dial_over(began_at)
            end = random.choice(["fails", "fails", "succeeds", "is given up"])
            if end == "fails":
                circuit.failed(began_at, now)
            elif end == "succeeds":
                circuit.connected()
        assert 0 <= circuit.trials <= 2
        assert circuit.trials == 0 or circuit.state is HALF_OPEN
    assert set(told) == CIRCUIT_TRANSITIONS
    assert all(before[1] is after[0] for before, after in pairwise(told))


def test_a_move_that_is_not_in_the_table_is_a_bug() -> None:
    circuit = make()
    with pytest.raises(AssertionError, match="closed cannot become half open"):
        circuit._move(HALF_OPEN)


def test_shows_its_state_and_its_counts() -> None:
    assert repr(make_half_open()) == "<Circuit half open, 3 failures, 1 trials>"
