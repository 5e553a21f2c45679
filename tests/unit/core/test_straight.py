"""The straight line does what the general way does, or nothing.

The model checker compares both in all its worlds. Here is what these have not: many leases, and
each of the reasons for which an endpoint is not straight.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from conpool._core import straight
from conpool._core.outgoing import doom
from conpool._stats.histogram import MOST_RECENT
from conpool._values.states import CloseReason, ConnectionState
from tests.support.shell import HERE, Shell


def lend_once(shell: Shell) -> None:
    shell.release(shell.lend())


def test_an_idle_hit_goes_straight_both_ways() -> None:
    shell = Shell()
    lend_once(shell)
    shell.went_straight = 0
    lend_once(shell)
    assert shell.went_straight == 3
    counters = shell.sub().counters
    assert (counters.acquired, counters.total_reused, counters.hits) == (2, 1, 1)
    assert counters.use_time.count == counters.wait_time.count == 2


def test_the_first_lease_of_a_warmed_connection_is_not_reused() -> None:
    shell = Shell()
    shell.warm(1)
    shell.dial_succeeds()
    lend_once(shell)
    counters = shell.sub().counters
    assert (counters.acquired, counters.total_reused, counters.hits) == (1, 0, 0)


def test_durations_are_counted_in_bulk_and_none_is_lost() -> None:
    shell = Shell()
    for number in range(3 * MOST_RECENT):
        caller = shell.lend()
        shell.advance(number % 7)
        shell.release(caller)
        uses = shell.sub().counters.use_time
        assert uses.count == number + 1
        assert len(uses.recent) < MOST_RECENT
    expected = sum(number % 7 for number in range(3 * MOST_RECENT))
    assert shell.sub().counters.use_time.total == expected


def test_one_that_has_lapsed_stays_where_it_is() -> None:
    shell = Shell(max_idle_time=5.0)
    lend_once(shell)
    sub = shell.sub()
    assert straight.take(sub, 4.9) is not None
    lend_once(other := Shell(max_idle_time=5.0))
    sub = other.sub()
    before = list(sub.idle)
    assert straight.take(sub, 5.0) is None
    assert list(sub.idle) == before
    assert before[0].state is ConnectionState.IDLE


@pytest.mark.parametrize("lifetime", [9.9, 10.0])
def test_one_near_the_end_of_its_life_is_not_kept_by_the_straight_line(lifetime: float) -> None:
    shell = Shell(max_idle_time=5.0, max_connection_lifetime=lifetime, lifetime_jitter=0.0)
    caller = shell.lend()
    lease = caller.lease
    assert lease is not None
    assert straight.keep(lease, 5.0) is (lifetime == 10.0)
    assert (lease in lease.entry.leases) is (lifetime < 10.0)


def test_one_that_is_doomed_is_not_kept() -> None:
    shell = Shell()
    lease = shell.lend().lease
    assert lease is not None
    assert lease.entry.expires_at == math.inf
    doom(lease.entry, CloseReason.DISCARDED)
    assert not straight.keep(lease, 0.0)


def have_too_many(shell: Shell) -> None:
    shell.lend()
    shell.set_limit(1)


REASONS: dict[str, Callable[[Shell], object]] = {
    "paused": lambda shell: shell.pause(HERE),
    "marked": lambda shell: shell.mark(HERE),
    "warming": lambda shell: shell.warm(2, HERE),
    "too many": have_too_many,
}
SETTINGS: dict[str, dict[str, object]] = {
    "uses are limited": {"max_connection_uses": 9},
    "idle ones are limited": {"max_idle_per_endpoint": 1},
    "nothing is kept": {"max_idle_time": 0.0},
    "kept warm": {"min_idle_per_endpoint": 1},
    "the pool is limited": {"max_connections": 9},
    "checked": {"is_checked": True, "health_check_after": 1.0},
    "reset": {"has_resets": True},
    "shared": {"shares": True},
}


@pytest.mark.parametrize("reason", REASONS)
def test_not_straight_while(reason: str) -> None:
    shell = Shell()
    lend_once(shell)
    assert shell.sub().is_straight
    shell.lend()
    REASONS[reason](shell)
    assert not shell.sub().is_straight


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_never_straight_where(settings: dict[str, object]) -> None:
    assert not Shell(**settings).sub().is_straight  # type: ignore[arg-type]


def test_not_straight_until_all_that_was_cleared_has_gone() -> None:
    shell = Shell()
    old = shell.lend()
    shell.clear()
    assert not shell.sub().is_straight
    shell.release(old)
    assert shell.sub().is_straight


def test_straight_again_once_the_surplus_has_gone() -> None:
    shell = Shell()
    callers = [shell.lend(), shell.lend()]
    shell.set_limit(1)
    shell.release(callers[0])
    assert shell.sub().is_straight
