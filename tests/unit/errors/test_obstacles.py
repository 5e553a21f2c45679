"""What is in the way of a caller, and which remedies follow from it (F134, F148)."""

from __future__ import annotations

from typing import Any

import pytest

from conpool._errors.connect import ConnectError
from conpool._errors.obstacles import Obstacles
from conpool._errors.pool import AcquireTimeout, QueueFull
from conpool._stats.counters import Counters
from conpool._stats.snapshot import EndpointStats
from conpool._values.endpoint import Endpoint
from conpool._values.states import AcquirePhase, CircuitState

ENDPOINT = Endpoint("db.example", 5432)
REFUSAL = ConnectError("refused", endpoint=ENDPOINT, phase="tcp")
HOLDER = "task 'reader' has held connection 1 for 5s, waits in read"


def stats_of(
    *, paused: bool = False, circuit: CircuitState = CircuitState.CLOSED, **numbers: int
) -> EndpointStats:
    zeros = dict.fromkeys(("active", "idle", "connecting", "closing", "waiting"), 0)
    counts: dict[str, Any] = zeros | {"limit": 2} | numbers
    return EndpointStats.of(ENDPOINT, counters=Counters(), paused=paused, circuit=circuit, **counts)


def lines_of(phase: AcquirePhase = "queue", **obstacles: Any) -> list[str]:
    """The lines of a time-out after the first."""
    known: dict[str, Any] = {"stats": stats_of()} | obstacles
    error = AcquireTimeout(
        Obstacles(**known), endpoint=ENDPOINT, phase=phase, waited=5.0, pool_name="app"
    )
    return str(error).splitlines()[1:]


def why_full(**obstacles: Any) -> list[str]:
    """The lines of a refusal where nobody may wait; the first without endpoint and counts."""
    known: dict[str, Any] = {"stats": stats_of()} | obstacles
    error = QueueFull(Obstacles(**known), endpoint=ENDPOINT, pool_name="app")
    head, *others = str(error).splitlines()
    return [head.partition(": ")[2].partition(";")[0], *others]


EARLY = "turn callers away early with max_waiting_per_endpoint"


def test_f134_a_full_endpoint_names_its_holders_and_its_limit() -> None:
    assert lines_of(stats=stats_of(active=2), holders=(HOLDER,)) == [
        "held by:",
        f"  {HOLDER}",
        f"remedies: hold connections for less time; raise max_connections_per_endpoint; {EARLY}",
    ]


def test_f134_nobody_is_told_to_hold_for_less_time_where_nobody_holds() -> None:
    assert lines_of(stats=stats_of(connecting=1, closing=1)) == [
        f"remedies: raise max_connections_per_endpoint; {EARLY}",
    ]
    assert lines_of(whole_pool="0 active, 2 connecting") == [
        "the pool-wide limit is used up: 0 active, 2 connecting",
        f"remedies: raise max_connections; {EARLY}",
    ]


def test_f134_the_pool_wide_limit_is_named_where_it_is_the_cause() -> None:
    assert lines_of(whole_pool="2 active, limit 2", holders=(HOLDER,)) == [
        "the pool-wide limit is used up: 2 active, limit 2",
        "held by:",
        f"  {HOLDER}",
        f"remedies: hold connections for less time; raise max_connections; {EARLY}",
    ]


@pytest.mark.parametrize("phase", ["queue", "connect"])
def test_f134_a_pause_is_named_and_limits_are_not(phase: AcquirePhase) -> None:
    assert lines_of(phase, stats=stats_of(paused=True, active=2)) == [
        "the endpoint is paused: the pool lends and dials nothing until resume is called",
        "remedies: call resume for the endpoint",
    ]


def test_f134_back_off_tells_since_when_why_and_when_the_next_attempt_is_due() -> None:
    assert lines_of(failing_for=12.0, next_dial_in=0.8, last_connect_error=REFUSAL) == [
        "no dial has succeeded for 12s; dials back off, the next attempt is due in 800ms",
        f"last connect error: {REFUSAL}",
        "remedies: mend what the last connect error names",
    ]


def test_f134_back_off_while_others_hold_connections_has_both_remedies() -> None:
    *_, remedies = lines_of(
        stats=stats_of(active=1), failing_for=12.0, next_dial_in=0.8, holders=(HOLDER,)
    )
    assert "mend what the last connect error names; hold connections for less time" in remedies


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"stats": stats_of(connecting=1)}, "; an attempt is under way"),
        ({"next_dial_in": -0.1}, ""),
        ({"next_dial_in": float("inf")}, ""),
        ({"stats": stats_of(paused=True), "next_dial_in": float("inf")}, ""),
    ],
)
def test_f134_an_attempt_that_is_due_is_not_put_into_the_future(
    changes: dict[str, Any], end: str
) -> None:
    said = lines_of(failing_for=12.0, **changes)
    assert f"no dial has succeeded for 12s{end}" in said


def test_f134_slow_dials_want_time_or_warmth_and_no_higher_limit() -> None:
    ahead = "open connections ahead of need with warm or min_idle_per_endpoint"
    assert lines_of("connect", stats=stats_of(connecting=1)) == [
        f"remedies: allow more time; {ahead}",
    ]


def test_f134_slow_checks_have_remedies_of_their_own() -> None:
    assert lines_of("check", stats=stats_of(active=2)) == [
        "remedies: allow more time; lower health_check_timeout",
    ]


def test_f134_too_few_dials_at_once_are_named() -> None:
    assert lines_of(stats=stats_of(connecting=1), max_connecting=1) == [
        "remedies: raise max_connecting_per_endpoint",
    ]


def test_f134_who_allows_no_time_is_told_so() -> None:
    assert lines_of() == ["remedies: allow more time: opening a connection takes longer"]


def test_f148_where_nobody_waits_no_queue_is_too_long() -> None:
    knob = "and max_waiting_per_endpoint lets nobody wait"
    assert why_full(stats=stats_of(active=2))[0] == f"all slots are taken, {knob}"
    assert why_full(whole_pool="2 of 2")[0] == f"the pool-wide limit is used up, {knob}"
    assert why_full(stats=stats_of(paused=True))[0] == f"the endpoint is paused, {knob}"
    assert why_full(stats=stats_of(connecting=1))[0] == f"a dial is under way already, {knob}"


def test_f148_back_off_is_named() -> None:
    remedies = (
        "try again later",
        "mend what the last connect error names",
        "raise max_waiting_per_endpoint",
    )
    assert why_full(failing_for=3.0, next_dial_in=0.5, last_connect_error=REFUSAL) == [
        "dials back off after a failure, and max_waiting_per_endpoint lets nobody wait",
        "no dial has succeeded for 3s; dials back off, the next attempt is due in 500ms",
        f"last connect error: {REFUSAL}",
        f"remedies: {'; '.join(remedies)}",
    ]


@pytest.mark.parametrize(
    ("circuit", "state"), [(CircuitState.OPEN, "open"), (CircuitState.HALF_OPEN, "half open")]
)
def test_f134_a_circuit_that_is_not_closed_is_named(circuit: CircuitState, state: str) -> None:
    lines = lines_of(stats=stats_of(active=2, circuit=circuit), holders=(HOLDER,))
    assert lines[0] == f"its circuit is {state}: few dials may start, or none"
